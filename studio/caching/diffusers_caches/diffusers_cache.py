"""What diffusers' caches have in common when they are put on a run's transformers so that they really work.

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

Knows diffusers' hooks. Refuses to know when to skip, and what a family is like (`studio.family`).

Shapes: latents of a pass are (B, C, F, H, W) unless a family says otherwise.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from studio.caching.block_stack import Action, Decision, Stack, beneath_offloading, part_of, when_it_runs
from studio.errors import RequestError
from studio.family import Family, NoiseScale
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun

PASS_HOOK = "dailies_pass"

Settings = TypeVar("Settings", bound=caches.CacheSettings)


class DiffusersCache(ABC, Generic[Settings]):
    """One of diffusers' caches at work on one run's transformers."""

    extrapolates = False
    whole = True
    """Whether a step is either computed or skipped, so that it can be told as one decision."""
    shows_in = 0
    """The first block in which a skipped step is left out."""

    def __init__(self, settings: Settings, run: CacheRun) -> None:
        """Nothing is attached yet.

        Raises:
            RequestError: the method does not work on this family.
        """
        self.settings = settings
        reason = run.why_not(settings.method)
        if reason is not None:
            raise RequestError(
                f"{settings.title} does not work with {run.family.pipeline}: {reason}",
                field="cache",
                value=settings.method,
                way_out="Choose AdaCache, which works with every model, or no cache.",
            )
        self.decision: Decision | None = None
        """Of the present step's first pass, once its first block has ended: diffusers' hooks decide on the way, and
        `first_block` for each pass by itself."""
        self.run = run
        self._hooks: list[list[ModelHook]] = [[] for _ in run.stacks]
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

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        """What its hooks must be told before a pass."""

    def forget(self) -> None:
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
        return bytes_in([_memory_of(hook) for hooks in self._hooks for hook in hooks])

    def begin_step(self, index: int, sigma: float) -> None:
        """Told before each step's first pass, by whoever follows the scheduler."""
        if index == 0:  # a new run, whatever became of the one before
            self._reset()
        self._index, self._sigma, self._done = index, sigma, 0
        self.decision = None

    def end_step(self, latents: Tensor) -> None:
        """Told after each step; diffusers' caches do not look at the latents."""

    @contextmanager
    def attached(self) -> Iterator[DiffusersCache]:
        """Hooks on, and off again whatever happens; afterwards the model is as it was, bit for bit."""
        # Neither `enable_cache` nor `disable_cache`: SANA-Video has neither, and the one fails halfway on a block it
        # does not know, whereupon the other takes nothing off.
        before = {
            id(registry): set(registry.hooks)
            for stack in self.run.stacks
            for registry in _registries(stack.transformer)
        }
        watching: list[Any] = []
        try:
            for number, stack in enumerate(self.run.stacks):
                _register_blocks(stack.blocks, self.run.family)
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
                watching.append(when_it_runs(block, _watched(block), self._note_that_it_ran))
                # Before whoever else listens to the block, and would like to know what was decided.
                watching.append(block.register_forward_hook(self._note_that_its_block_ended, prepend=True))
            yield self
        finally:
            for handle in watching:
                handle.remove()
            for stack in self.run.stacks:
                with beneath_offloading(stack.transformer):
                    for registry in _registries(stack.transformer):
                        kept = before.get(id(registry), set())
                        # The latest first: taken off in another order, diffusers loses what lies between.
                        for name in [name for name in reversed(registry._hook_order) if name not in kept]:
                            registry.remove_hook(name, recurse=False)
                HookRegistry.check_if_exists_or_initialize(stack.transformer).invalidate_child_registries_cache()
            self._hooks = [[] for _ in self.run.stacks]
            self.forget()

    # -- what the hooks call ------------------------------------------------------------------------------------------

    def _run_pass(self, number: int, forward: Any, module: nn.Module, args: Any, kwargs: Any) -> Any:
        branch = min(self._done, self.run.passes - 1)
        self._done += 1
        self._ran = False
        latents = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments["hidden_states"]
        context = {
            "step_index": self._index,
            "num_inference_steps": self.run.total_steps,
            "sigma": noise_share(self.run.family.noise, self._sigma),
        }
        # Around the pass alone; a context that the pipeline has set is as old as this pass, and ends with it.
        with CacheMixin.cache_context(module, f"pass {branch}", **context):  # pyright: ignore[reportArgumentType]
            self.before_pass(self._hooks[number], branch, latents)
            return forward(*args, **kwargs)

    def _note_that_it_ran(self) -> None:
        self._ran = True

    def _note_that_its_block_ended(self, _module: nn.Module, _args: Any, _output: Any) -> None:
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
        for stack in self.run.stacks:
            HookRegistry.check_if_exists_or_initialize(stack.transformer).reset_stateful_hooks()
        self.forget()
        self._computed_at = None

    def _timestep(self) -> float:
        """Of 1000; the pipeline's own word where it has one."""
        timestep = getattr(self.run.pipe, "current_timestep", None)
        return 1000 * self._sigma if timestep is None else float(timestep)


def noise_share(scale: NoiseScale, sigma: float) -> float:
    """The noise level as flow models count it: σ / (1 − σ) is noise over signal."""
    match scale:
        case "variance kept":
            return sigma / (sigma + max(0.0, 1 - sigma**2) ** 0.5)
        case "signal kept":
            return sigma / (sigma + 1)
        case "share":
            return sigma


class _PassHook(ModelHook):
    """On a transformer: says to diffusers' hooks which pass this is."""

    def __init__(self, cache: DiffusersCache, number: int) -> None:
        super().__init__()
        self.cache, self.number = cache, number

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        forward: Any = self.fn_ref.original_forward
        return self.cache._run_pass(self.number, forward, module, args, kwargs)


def _register_blocks(blocks: Sequence[nn.Module], family: Family) -> None:
    """Tell diffusers of block classes it has not registered."""
    if family.block_outputs is None:
        return
    picture, words = family.block_outputs
    for kind in {type(block) for block in blocks}:
        metadata = TransformerBlockMetadata(return_hidden_states_index=picture)
        if words is not None:
            metadata.return_encoder_hidden_states_index = words
        TransformerBlockRegistry.register(kind, metadata)


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


def bytes_in(states: object) -> int:
    """Of every tensor in diffusers' states, in lists and dicts, once each."""
    tensors: dict[int, Tensor] = {}

    def gather(thing: object) -> None:
        if isinstance(thing, Tensor):
            tensors[id(thing)] = thing
        elif isinstance(thing, dict):
            gather(list(thing.values()))
        elif isinstance(thing, (list, tuple)):
            for each in thing:
                gather(each)
        elif type(thing).__module__.startswith("diffusers.hooks"):
            gather(vars(thing))

    gather(states)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
