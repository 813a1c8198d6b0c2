"""Peers: the rivals that diffusers ships, put on a run's transformers so that they really work.

    method       diffusers' config                    what is skipped
    first_block  FirstBlockCacheConfig                all blocks but the first
    magcache     MagCacheConfig                       all blocks
    seacache     SeaCacheConfig                       all blocks
    taylorseer   TaylorSeerCacheConfig                attention and feed-forward layers, foretold
    pab          PyramidAttentionBroadcastConfig      attention
    fastercache  FasterCacheConfig                    the unguided branch, and attention where it is left out

diffusers' hooks decide and skip; they are used as they come. What they lack on video models is told to them from
outside, by one hook more on each transformer: which pass of which step this is, at which noise level, for pipelines
do not all say so; which layers a block has, for their names differ; and a memory of its own for each pass of a step,
where diffusers keeps one for both. Everything lives for one run: attach, run, detach.

Knows diffusers' hooks and which families need what. Refuses to know when to skip.

Shapes: latents of a pass are (B, C, F, H, W) unless a family says otherwise.
"""

from __future__ import annotations

import inspect
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    HookRegistry,
    MagCacheConfig,
    ModelHook,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    apply_faster_cache,
    apply_first_block_cache,
    apply_mag_cache,
    apply_pyramid_attention_broadcast,
    apply_sea_cache,
    apply_taylorseer_cache,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from studio.caching.block_stack import Action, Decision, Stack, beneath_offloading, part_of
from studio.errors import RequestError
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import Occasion

PASS_HOOK = "dailies_peer_pass"

UNREGISTERED = {
    "AllegroTransformerBlock": TransformerBlockMetadata(return_hidden_states_index=0),
    "HunyuanVideo15TransformerBlock": TransformerBlockMetadata(
        return_hidden_states_index=0, return_encoder_hidden_states_index=1
    ),
    "SanaVideoTransformerBlock": TransformerBlockMetadata(return_hidden_states_index=0),
}
"""Blocks that diffusers has not registered: where the picture's stream is in what they return, and the words'."""

FRAMES_FIRST = frozenset({"CogVideoXPipeline"})
"""Families whose latents are (B, F, C, H, W)."""
VARIANCE_KEPT = frozenset({"CogVideoXPipeline", "LattePipeline"})
"""Families whose noise level s is a deviation beside a signal of √(1 − s²)."""
SIGNAL_KEPT = frozenset({"AllegroPipeline"})
"""Families whose noise level s is a deviation beside a signal of 1."""

BLOCK_LISTS = ("^blocks", "^transformer_blocks", "^single_transformer_blocks", "^temporal_transformer_blocks")
"""Where attention is cached. diffusers' own patterns also find the layers that refine HunyuanVideo's prompt."""


class PeerCache(ABC):
    """One of diffusers' caches at work on one run's transformers."""

    extrapolates = False
    whole = True
    """Whether a step is either computed or skipped, so that it can be told as one decision."""
    shows_in = 0
    """The first block in which a skipped step is left out."""

    def __init__(self, settings: Any, occasion: Occasion) -> None:
        """Nothing is attached yet.

        Raises:
            RequestError: the method does not work on this family.
        """
        self.settings = settings
        self.pipeline = type(occasion.pipe).__name__
        reason = caches.why_not(settings.method, self.pipeline)
        if reason is not None:
            raise RequestError(
                f"The cache method {settings.method} does not work with {self.pipeline}: {reason}",
                field="cache",
                value=settings.method,
                way_out="Choose adacache, which works with every model, or no cache.",
            )
        self.decision: Decision | None = None
        """Of the present step's first pass, once its first block has ended: diffusers' hooks decide on the way, and
        `first_block` for each pass by itself."""
        self._occasion = occasion
        self._hooks: list[list[ModelHook]] = [[] for _ in occasion.stacks]
        """diffusers' hooks on each transformer."""
        self._index, self._sigma = -1, 0.0
        self._done = 0
        """Passes of this step that have begun."""
        self._now = 1000.0
        """Timestep of the present pass."""
        self._computed_at: int | None = None
        """The last step in which the watched layer ran."""
        self._ran = False

    # -- what a method adds -------------------------------------------------------------------------------------------

    @abstractmethod
    def put_on(self, stack: Stack) -> None:
        """diffusers' hooks for this method, on one transformer."""

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:  # noqa: B027
        """What its hooks must be told before a pass."""

    def forget(self) -> None:  # noqa: B027
        """Of what the method itself remembers."""

    def why(self) -> str:
        """One clause about a skipped step."""
        return ""

    # -- the cache ----------------------------------------------------------------------------------------------------

    @property
    def age(self) -> int:
        """Steps since what is reused was computed."""
        return 0 if self._computed_at is None else self._index - self._computed_at

    @property
    def kept_bytes(self) -> int:
        """What is remembered from step to step."""
        found: dict[int, Tensor] = {}
        for hooks in self._hooks:
            for hook in hooks:
                _gather(_memory_of(hook), found)
        return sum(tensor.numel() * tensor.element_size() for tensor in found.values())

    def begin_step(self, index: int, sigma: float) -> None:
        """Told before each step's first pass, by whoever follows the scheduler."""
        if index == 0:  # a new run, whatever became of the one before
            self._reset()
        self._index, self._sigma, self._done = index, sigma, 0
        self.decision = None

    def end_step(self, latents: Tensor) -> None:  # noqa: B027
        """Told after each step; diffusers' caches do not look at the latents."""

    @contextmanager
    def attached(self) -> Iterator[PeerCache]:
        """Hooks on, and off again whatever happens; afterwards the model is as it was, bit for bit."""
        # Neither `enable_cache` nor `disable_cache`: SANA-Video has neither, and the one fails halfway on a block it
        # does not know, whereupon the other takes nothing off.
        before = {
            id(registry): set(registry.hooks)
            for stack in self._occasion.stacks
            for registry in _registries(stack.transformer)
        }
        watching: list[Any] = []
        try:
            for number, stack in enumerate(self._occasion.stacks):
                _introduce(stack.blocks)
                known = {id(hook) for registry in _registries(stack.transformer) for hook in registry.hooks.values()}
                with beneath_offloading(stack.transformer):
                    self.put_on(stack)
                    self._hooks[number] = [
                        hook
                        for registry in _registries(stack.transformer)
                        for hook in registry.hooks.values()
                        if id(hook) not in known
                    ]
                    # Last, so that it is outermost and comes before every hook of diffusers'.
                    root = HookRegistry.check_if_exists_or_initialize(stack.transformer)
                    root.register_hook(_PassHook(self, number), PASS_HOOK)
                root.invalidate_child_registries_cache()
                block = stack.blocks[self.shows_in]
                watching.append(_watched(block).register_forward_hook(self._told_it_ran))
                # Before whoever else listens to the block, and would like to know what was decided.
                watching.append(block.register_forward_hook(self._told_block_ended, prepend=True))
            yield self
        finally:
            for handle in watching:
                handle.remove()
            for stack in self._occasion.stacks:
                with beneath_offloading(stack.transformer):
                    for registry in _registries(stack.transformer):
                        kept = before.get(id(registry), set())
                        # The latest first: taken off in another order, diffusers loses what lies between.
                        for name in [name for name in reversed(registry._hook_order) if name not in kept]:
                            registry.remove_hook(name, recurse=False)
                HookRegistry.check_if_exists_or_initialize(stack.transformer).invalidate_child_registries_cache()
            self._hooks = [[] for _ in self._occasion.stacks]
            self.forget()

    # -- what the hooks call ------------------------------------------------------------------------------------------

    def _run_pass(self, number: int, forward: Any, module: nn.Module, args: Any, kwargs: Any) -> Any:
        branch = min(self._done, self._occasion.passes - 1)
        self._done += 1
        self._ran = False
        latents = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments["hidden_states"]
        context = {
            "step_index": self._index,
            "num_inference_steps": self._occasion.total_steps,
            "sigma": noise_share(self.pipeline, self._sigma),
        }
        # Around the pass alone; a context that the pipeline has set is as old as this pass, and ends with it.
        with CacheMixin.cache_context(module, f"pass {branch}", **context):  # pyright: ignore[reportArgumentType]
            self.before_pass(self._hooks[number], branch, latents)
            return forward(*args, **kwargs)

    def _told_it_ran(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        self._ran = True

    def _told_block_ended(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        if self._ran:
            self._computed_at = self._index
        if self.whole and self.decision is None:
            self.decision = self._decided()

    def _decided(self) -> Decision:
        threshold = getattr(self.settings, "threshold", None)
        if self._ran:
            return Decision(action=Action.COMPUTE, threshold=threshold)
        action = Action.EXTRAPOLATE if self.extrapolates else Action.REUSE
        return Decision(action=action, threshold=threshold, why=self.why())

    def _reset(self) -> None:
        for stack in self._occasion.stacks:
            HookRegistry.check_if_exists_or_initialize(stack.transformer).reset_stateful_hooks()
        self.forget()
        self._computed_at = None

    def _timestep(self) -> float:
        """Of 1000; the pipeline's own word where it has one."""
        told = getattr(self._occasion.pipe, "current_timestep", None)
        return 1000 * self._sigma if told is None else float(told)


class FirstBlock(PeerCache):
    """All blocks but the first are skipped while the first one's residual changes little."""

    shows_in = 1

    def put_on(self, stack: Stack) -> None:
        apply_first_block_cache(stack.transformer, FirstBlockCacheConfig(threshold=self.settings.threshold))

    def why(self) -> str:
        return "the first block changed little"


class Mag(PeerCache):
    """Calibrated ratios of the residual's magnitude from step to step say how much a skip costs."""

    def put_on(self, stack: Stack) -> None:
        settings, steps = self.settings, self._occasion.total_steps
        ratios = settings.mag_ratios or (1.0,) * steps
        config = MagCacheConfig(
            threshold=settings.threshold,
            max_skip_steps=settings.max_skip_steps,
            retention_ratio=settings.retention_ratio,
            num_inference_steps=steps,
            mag_ratios=list(ratios),
        )
        apply_mag_cache(stack.transformer, config)

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        # diffusers counts passes; a second transformer, which takes over on the way, would begin at the first ratio.
        for hook in hooks:
            hook.state_manager.get_state().step_index = self._index  # pyright: ignore[reportAttributeAccessIssue]

    def why(self) -> str:
        return "" if self.settings.mag_ratios else "no ratios measured on this model: skipped by count alone"


class Sea(PeerCache):
    """All blocks are skipped while the latents, weighted by what is signal at this noise level, change little."""

    def __init__(self, settings: Any, occasion: Occasion) -> None:
        super().__init__(settings, occasion)
        self.extrapolates = settings.residual_order > 0

    def put_on(self, stack: Stack) -> None:
        config = SeaCacheConfig(
            threshold=self.settings.threshold,
            residual_order=self.settings.residual_order,
            max_consecutive_cached=self.settings.max_consecutive_cached,
            raw_vision_callback=self._pictures,
        )
        apply_sea_cache(stack.transformer, config)

    def why(self) -> str:
        return "the latents changed little"

    def _pictures(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The clip's latents as (C, F, H, W); under batched guidance both halves are the same, and one is enough."""
        given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        latents = given["hidden_states"][-1]
        if latents.ndim == 2:  # LTX-Video's are tokens already
            return [latents.unflatten(0, (given["num_frames"], given["height"], given["width"])).movedim(-1, 0)]
        if self.pipeline in FRAMES_FIRST:
            latents = latents.movedim(1, 0)
        # HunyuanVideo 1.5 is given conditions behind the latents.
        config: Any = module.config
        return [latents[: config["out_channels"] or config["in_channels"]]]


class Taylor(PeerCache):
    """Attention and feed-forward layers are computed now and then, and foretold by their Taylor series between."""

    def __init__(self, settings: Any, occasion: Occasion) -> None:
        super().__init__(settings, occasion)
        self.extrapolates = settings.max_order > 0

    def put_on(self, stack: Stack) -> None:
        foretold, left_out = layers_of(stack)
        config = TaylorSeerCacheConfig(
            cache_interval=self.settings.cache_interval,
            disable_cache_before_step=self.settings.disable_cache_before_step,
            max_order=self.settings.max_order,
            # bfloat16, which is diffusers' default, would round a float32 model's layers.
            taylor_factors_dtype=next(p.dtype for p in stack.transformer.parameters() if p.is_floating_point()),
            cache_identifiers=[re.escape(name) for name in foretold],
            skip_predict_identifiers=[re.escape(name) for name in left_out] or None,
        )
        apply_taylorseer_cache(stack.transformer, config)

    def why(self) -> str:
        return "between two computed steps"


class PyramidAttention(PeerCache):
    """Attention's outputs are repeated for a few steps."""

    whole = False

    def __init__(self, settings: Any, occasion: Occasion) -> None:
        super().__init__(settings, occasion)
        self._states: dict[tuple[int, int], Any] = {}
        """For each hook and pass of a step. diffusers keeps one a hook, and hands the second pass the first's."""

    def put_on(self, stack: Stack) -> None:
        own, words, between = (
            self.settings.self_attention_skip_range,
            self.settings.cross_attention_skip_range,
            self.settings.timestep_range,
        )
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=own,
            temporal_attention_block_skip_range=own,
            cross_attention_block_skip_range=words,
            spatial_attention_timestep_skip_range=between,
            temporal_attention_timestep_skip_range=between,
            cross_attention_timestep_skip_range=between,
            spatial_attention_block_identifiers=BLOCK_LISTS,
            temporal_attention_block_identifiers=BLOCK_LISTS,
            cross_attention_block_identifiers=BLOCK_LISTS,
            current_timestep_callback=lambda: self._now,  # pyright: ignore[reportArgumentType]
        )
        apply_pyramid_attention_broadcast(stack.transformer, config)

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        self._now = self._timestep()
        for hook in hooks:
            key = (id(hook), branch)
            if key not in self._states:
                self._states[key] = type(hook.state)()  # pyright: ignore[reportAttributeAccessIssue]
            hook.state = self._states[key]  # pyright: ignore[reportAttributeAccessIssue]

    def forget(self) -> None:
        self._states.clear()

    @property
    def kept_bytes(self) -> int:
        """What is remembered from step to step."""
        found: dict[int, Tensor] = {}
        _gather(list(self._states.values()), found)
        return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


class Faster(PeerCache):
    """Under batched guidance the unguided half of a pass is left out, and attention is continued in the other."""

    whole = False

    def put_on(self, stack: Stack) -> None:
        settings = self.settings
        config = FasterCacheConfig(
            spatial_attention_block_skip_range=settings.attention_skip_range,
            temporal_attention_block_skip_range=settings.attention_skip_range,
            unconditional_batch_skip_range=settings.unconditional_skip_range,
            tensor_format="BFCHW" if self.pipeline in FRAMES_FIRST else "BCFHW",
            attention_weight_callback=lambda module: 0.5,
            current_timestep_callback=lambda: self._now,  # pyright: ignore[reportArgumentType]
        )
        apply_faster_cache(stack.transformer, config)

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        # Out of every range at first: diffusers would look for what it has not kept yet.
        self._now = self._timestep() if self._index > 0 else 1000.0
        for hook in hooks:  # one sample: nothing to leave out, but attention can still be continued
            hook.is_guidance_distilled = latents.shape[0] == 1  # pyright: ignore[reportAttributeAccessIssue]


PEERS: dict[str, type[PeerCache]] = {
    "first_block": FirstBlock,
    "magcache": Mag,
    "seacache": Sea,
    "taylorseer": Taylor,
    "pab": PyramidAttention,
    "fastercache": Faster,
}
"""By the settings' `method`."""


def peer_for(settings: Any, occasion: Occasion) -> PeerCache:
    """The peer that these settings describe.

    Raises:
        RequestError: it does not work on this family.
    """
    return PEERS[settings.method](settings, occasion)


def mag_ratios_from(residual_norms: Sequence[Tensor]) -> tuple[float, ...]:
    """MagCache's ratios γ from one computed run: γ_t = mean over tokens of ‖R_t‖ / ‖R_(t−1)‖, and γ_0 = 1.

    Args:
        residual_norms: For each step, the norm of what all blocks added, token by token: (B, N), or one number.
    """
    ratios = [1.0]
    for before, now in itertools.pairwise(residual_norms):
        ratios.append(float((now.float() / (before.float() + 1e-8)).mean()))  # diffusers' ε
    return tuple(ratios[: len(residual_norms)])


def noise_share(pipeline: str, sigma: float) -> float:
    """The noise level as flow models count it: σ / (1 − σ) is noise over signal."""
    if pipeline in VARIANCE_KEPT:
        return sigma / (sigma + max(0.0, 1 - sigma**2) ** 0.5)
    if pipeline in SIGNAL_KEPT:
        return sigma / (sigma + 1)
    return sigma


def layers_of(stack: Stack) -> tuple[list[str], list[str]]:
    """Names of the layers whose output a block adds to its stream, and of those that only feed one of them."""
    names = {module: name for name, module in stack.transformer.named_modules()}
    added: list[str] = []
    feeding: list[str] = []
    for block in stack.blocks:
        children = dict(block.named_children())
        if "proj_mlp" in children:  # attention and feed-forward side by side, and one layer that brings them together
            added.append(names[children["proj_out"]])
            feeding += [names[children[name]] for name in ("attn", "proj_mlp")]
            continue
        parts = ("attn", "attn1", "attn2", "ff", "ffn", "ff_context")
        added += [names[children[name]] for name in parts if children.get(name) is not None]
    return added, feeding


class _PassHook(ModelHook):
    """On a transformer: says to diffusers' hooks which pass this is."""

    def __init__(self, cache: PeerCache, number: int) -> None:
        super().__init__()
        self.cache, self.number = cache, number

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        forward: Any = self.fn_ref.original_forward
        return self.cache._run_pass(self.number, forward, module, args, kwargs)


def _introduce(blocks: Sequence[nn.Module]) -> None:
    """Tell diffusers of block classes it has not registered."""
    for block in blocks:
        metadata = UNREGISTERED.get(type(block).__name__)
        if metadata is not None and metadata._cls is not type(block):
            TransformerBlockRegistry.register(type(block), metadata)


def _registries(transformer: nn.Module) -> list[HookRegistry]:
    modules = [module for module in transformer.modules() if hasattr(module, "_diffusers_hook")]
    return [HookRegistry.check_if_exists_or_initialize(module) for module in modules]


def _watched(block: nn.Module) -> nn.Module:
    """A layer inside the block's attention: it runs if and only if its attention is computed."""
    return next(module for module in part_of(block, "attention").modules() if isinstance(module, nn.Linear))


def _memory_of(hook: ModelHook) -> list[Any]:
    """The states of one of diffusers' hooks: kept by pass, or one alone."""
    manager = getattr(hook, "state_manager", None)
    states = list(manager._state_cache.values()) if manager is not None else []
    return [*states, getattr(hook, "state", None)]


def _gather(thing: Any, found: dict[int, Tensor]) -> None:
    """Every tensor in states, lists and dicts, once each."""
    if isinstance(thing, torch.Tensor):
        found[id(thing)] = thing
    elif isinstance(thing, dict):
        for value in thing.values():
            _gather(value, found)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            _gather(value, found)
    elif type(thing).__module__.startswith("diffusers.hooks"):
        _gather(vars(thing), found)
