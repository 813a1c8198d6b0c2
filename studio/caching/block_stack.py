"""The stack: a transformer's blocks, skipped as a whole by adding what they added before.

    computed     x_out = blocks(x_in),   R = x_out - x_in is kept
    reused       x_out = x_in + R
    extrapolated x_out = x_in + R + gain (R - R'),   R' the residual kept before R

Since every block of a transformer adds to one stream, the sum of what all blocks added is one tensor: exactly what
caching each block's residual by itself would add up to, for a fraction of the memory.

Some transformers have control blocks: a second stream that runs first and returns hints, which the transformer itself
adds to the first stream behind some of its blocks. What they add is part of R like the rest; where blocks are skipped,
the control blocks are too, and hint at nothing, or their hints would count twice.

Knows the blocks' calling convention and diffusers' hooks. Refuses to know when to skip (a `Policy` does) and which
model this is, but for one that turns its tokens about between blocks. Everything lives for one run: attach, run,
detach; nothing can leak into the next.

Shapes: B samples (the branches, where they are batched), N tokens, D channels; residuals are (B, N, D).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from studio.family import Layout, TokenOrder, family_with

ROOT_HOOK, BLOCK_HOOK = "dailies_stack_root", "dailies_stack_block"


class Action(Enum):
    """What becomes of one pass through the stack."""

    COMPUTE = "computed"
    REUSE = "reused"
    EXTRAPOLATE = "extrapolated"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a policy wants of a step, and why."""

    action: Action
    """For every pass of the step alike."""
    gain: float = 1.0
    """Of an extrapolation: how far the residual's last change is continued."""
    correction: float = 0.0
    """Of a computed step: the share of what extrapolating with `gain` would have got wrong here that its output carries
    besides, to make up for what the skipped steps before it got wrong."""
    distance: float | None = None
    """What it measured."""
    threshold: float | None = None
    """What it was held against."""
    rate: int | None = None
    """Steps from one computed step to the next."""
    motion: float | None = None
    """Motion score, 0 to 1."""
    why: str = ""
    """One clause for a person."""
    notice: str = ""
    """What a person should know of the whole run, as far as it is known by now; told beside the decision."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step about to begin, as a policy sees it."""

    index: int
    """From 0."""
    total: int
    sigma: float
    """Noise level."""
    kept: bool
    """Whether there is anything to reuse: false at the start, and where a second transformer takes over."""
    extrapolable: bool
    """Whether there are two residuals of each branch."""
    latents: Tensor
    """Input of the transformer's first pass."""
    embedding: Tensor | None
    """Of the time step, as the first block is given it."""


@dataclass(frozen=True, kw_only=True)
class Captures:
    """What a policy wants to see while blocks are computed."""

    residual: str = "block"
    """`block`, `attention` or `mlp`: what that adds to the stream, its gate included where `gate_of` knows one."""
    layers: frozenset[int] = frozenset()
    """Positions in a stack."""


class Policy(ABC):
    """Decides, once a step. One object serves one run; what a policy need not see, it leaves as it is here."""

    captures: Captures = Captures()
    keeps_two: bool = False
    """Whether the residual before the last is kept as well, to extrapolate from."""

    @abstractmethod
    def decide(self, step: Step) -> Decision:
        """Called as a step's first pass reaches the first block.

        Where nothing is kept, the stack computes whatever this says.
        """

    def measured(self, layer: int, branch: int, residual: Tensor, frames: int | None) -> None:  # noqa: B027
        """A captured residual (B, N, D) of one block, in a pass that is computed.

        Args:
            layer: The block.
            branch: Which of the step's passes, from 0.
            residual: With the tokens of a frame side by side, frame after frame.
            frames: Latent frames, where they are known.
        """

    def computed(self, step: int, branch: int, residual: Tensor, before: Tensor | None) -> None:  # noqa: B027
        """A pass was computed: its stack residual, and the one before it (None at first).

        `before` is what reusing would have added instead.
        """

    def output(self, step: int, branch: int, output: Tensor) -> None:  # noqa: B027
        """What the transformer returned for a pass, computed or not."""

    def stepped(self, step: int, latents: Tensor) -> None:  # noqa: B027
        """The latents after a step."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One transformer and its blocks in the order of a pass."""

    transformer: nn.Module
    blocks: tuple[nn.Module, ...]

    @property
    def control_blocks(self) -> int:
        """How many of the blocks, at the beginning, have a stream of their own and return hints."""
        family = family_with(type(self.transformer).__name__)
        return len(getattr(self.transformer, family.control_blocks)) if family and family.control_blocks else 0


@dataclass(kw_only=True)
class _Kept:
    """What a branch of a stack remembers."""

    residual: Tensor
    step: int
    before: Tensor | None = None


@dataclass(kw_only=True)
class _Pass:
    """The pass under way."""

    stack: int
    branch: int
    latents: Tensor
    frames: int | None
    action: Action = Action.COMPUTE
    entered: Tensor | None = None
    added: Tensor | None = None
    """What a skipped pass adds."""
    call: dict[str, Any] | None = None
    """What the block at work was called with, where one of its layers is captured."""
    hint_scales: Tensor | None = None
    """By which the transformer multiplies each control block's hint."""
    last_hint: Tensor | None = None
    """What would be added behind the last block, where no block comes after it that would see it."""


class StackCache:
    """A policy at work on one run's transformers."""

    def __init__(self, stacks: Sequence[Stack], policy: Policy, *, total_steps: int, passes: int) -> None:
        """Nothing is attached yet.

        Args:
            stacks: The transformers: one, or two where high and low noise have their own.
            policy: Decides.
            total_steps: Denoising steps of the run.
            passes: Passes of a step: 2 with guidance in two calls, otherwise 1.
        """
        self.policy = policy
        self.decision: Decision | None = None
        """Of the present step, once its first pass has begun."""
        self._stacks = tuple(stacks)
        self._total = total_steps
        self._passes = passes
        self._index, self._sigma = -1, 0.0
        self._done = 0
        """Passes of this step that have begun."""
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._pass: _Pass | None = None
        self._pairs: dict[tuple[int, int], bool] = {}
        """Whether a block returns its stream alone, or paired with the text's."""

    def begin_step(self, index: int, sigma: float) -> None:
        """Told before each step's first pass, by whoever follows the scheduler."""
        self._index, self._sigma, self._done = index, sigma, 0
        self.decision = None

    def end_step(self, latents: Tensor) -> None:
        """Told after each step, with its latents."""
        self.policy.stepped(self._index, latents)

    @contextmanager
    def attached(self) -> Iterator[StackCache]:
        """Hooks on, and off again whatever happens; afterwards the model is as it was, bit for bit."""
        watching: list[Any] = []
        plain = ExitStack()
        try:
            for number, stack in enumerate(self._stacks):
                with beneath_offloading(stack.transformer):
                    _register(stack.transformer, _RootHook(self, number), ROOT_HOOK)
                for position, block in enumerate(stack.blocks):
                    _register(block, _BlockHook(self, stack, number, position), BLOCK_HOOK)
                    if self._captures_part(position):
                        part = part_of(block, self.policy.captures.residual)
                        watching.append(part.register_forward_hook(self._told_of_part(block, position)))
                        plain.enter_context(uncompiled(block))
                _forget_children(stack.transformer)
            yield self
        finally:
            plain.close()
            for handle in watching:
                handle.remove()
            for stack in self._stacks:
                with beneath_offloading(stack.transformer):
                    _remove(stack.transformer, ROOT_HOOK)
                for block in stack.blocks:
                    _remove(block, BLOCK_HOOK)
                _forget_children(stack.transformer)
            self._kept.clear()
            self._pass = None

    @property
    def kept_bytes(self) -> int:
        """What is remembered from step to step."""
        tensors = [t for kept in self._kept.values() for t in (kept.residual, kept.before) if t is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    # -- what the hooks call ------------------------------------------------------------------------------------------

    def _begin_pass(self, number: int, module: nn.Module, call: dict[str, Any]) -> None:
        branch = min(self._done, self._passes - 1)
        self._done += 1
        self._pass = _Pass(
            stack=number,
            branch=branch,
            latents=call["hidden_states"],
            frames=frames_of(module, call),
            hint_scales=call.get("control_hidden_states_scale"),
        )

    def _enter(self, current: _Pass, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The first block's turn: decide, if this is the step's first pass."""
        call = by_name(block, args, kwargs)
        current.entered = call["hidden_states"]
        if self.decision is None:
            self.decision = self._decide(current, call.get("temb", call.get("timestep")))
        current.action = self.decision.action
        kept = self._kept.get((current.stack, current.branch))
        if current.action is not Action.COMPUTE:
            assert kept is not None
            current.added = self._added(kept)

    def _decide(self, current: _Pass, embedding: Tensor | None) -> Decision:
        mine = [self._kept.get((current.stack, each)) for each in range(self._passes)]
        step = Step(
            index=self._index,
            total=self._total,
            sigma=self._sigma,
            kept=all(kept is not None for kept in mine),
            extrapolable=all(kept is not None and kept.before is not None for kept in mine),
            latents=current.latents,
            embedding=embedding,
        )
        decision = self.policy.decide(step)
        if not step.kept and decision.action is not Action.COMPUTE:
            return Decision(action=Action.COMPUTE, why="nothing to reuse yet")
        return decision

    def _added(self, kept: _Kept) -> Tensor:
        assert self.decision is not None
        if self.decision.action is Action.EXTRAPOLATE and kept.before is not None:
            return kept.residual + self.decision.gain * (kept.residual - kept.before)
        return kept.residual

    def _run_block(self, hook: _BlockHook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        current = self._pass
        if current is None or current.stack != hook.stack:
            return hook.compute(args, kwargs)
        if hook.position == 0:
            self._enter(current, hook.module, args, kwargs)
        if hook.hints:
            return self._run_control_block(current, hook, args, kwargs)
        hidden = args[0] if args else kwargs["hidden_states"]
        if current.action is not Action.COMPUTE:
            added = current.added if hook.position == hook.last else None
            hidden = hidden if added is None else hidden + added
            if not self._pairs[hook.stack, hook.position]:
                return hidden
            return hidden, args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]
        if self._captures_part(hook.position):
            current.call = by_name(hook.module, args, kwargs)
        output = hook.compute(args, kwargs)
        pair = isinstance(output, tuple)
        self._pairs[hook.stack, hook.position] = pair
        stream = output[0] if pair else output
        captures = self.policy.captures
        if hook.position in captures.layers and captures.residual == "block":
            self._tell_measured(hook.position, stream - hidden)
        if hook.position != hook.last:
            return output
        left = stream if current.last_hint is None else stream + current.last_hint
        missed = self._keep(current, left)
        if missed is not None:
            left = left + missed
        return output if left is stream else (left, *output[1:]) if pair else left

    def _run_control_block(
        self, current: _Pass, hook: _BlockHook, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Its hint and its own stream.

        A hint for behind the last block is added there by the stack itself, to be part of the residual as others are.
        """
        call = by_name(hook.module, args, kwargs)
        stream: Tensor = call["control_hidden_states"]
        nothing = stream.new_zeros(())
        if current.action is not Action.COMPUTE:
            return nothing, stream
        if self._captures_part(hook.position):
            current.call = call
        hint, left = hook.compute(args, kwargs)
        captures = self.policy.captures
        if hook.position in captures.layers and captures.residual == "block":
            self._tell_measured(hook.position, left - stream)
        if not hook.hints_behind_the_last:
            return hint, left
        scales = current.hint_scales
        current.last_hint = hint if scales is None else hint * scales[hook.position]
        return nothing, left

    def _keep(self, current: _Pass, stream: Tensor) -> Tensor | None:
        """Remember the residual that was just computed; returns what the decision wants corrected in the stream."""
        assert current.entered is not None
        assert self.decision is not None
        stack = self._stacks[current.stack]
        residual = stream - passed_through(stack.transformer, current.entered, stream)
        old = self._kept.get((current.stack, current.branch))
        before = old.residual if old is not None else None
        self.policy.computed(self._index, current.branch, residual, before)
        kept = _Kept(residual=residual, step=self._index, before=before if self.policy.keeps_two else None)
        self._kept[current.stack, current.branch] = kept
        if not self.decision.correction or old is None:
            return None
        trend = self.decision.gain * (old.residual - old.before) if old.before is not None else 0.0
        return self.decision.correction * (residual - old.residual - trend)

    def _captures_part(self, position: int) -> bool:
        return position in self.policy.captures.layers and self.policy.captures.residual != "block"

    def _told_of_part(self, block: nn.Module, position: int) -> Callable[..., None]:
        def told(_module: nn.Module, _args: Any, output: Any) -> None:
            if self._pass is None or self._pass.call is None:
                return
            transformer = self._stacks[self._pass.stack].transformer
            gate = gate_of(transformer, block, self.policy.captures.residual, self._pass.call)
            added = (output[0] if isinstance(output, tuple) else output).flatten(1, -2)  # frames may lie apart
            self._tell_measured(position, added if gate is None else added * gate)

        return told

    def _tell_measured(self, position: int, residual: Tensor) -> None:
        current = self._pass
        if current is not None and current.action is Action.COMPUTE and current.entered is not None:
            transformer = self._stacks[current.stack].transformer
            in_order = frames_first(transformer, residual, current.entered, current.frames)
            self.policy.measured(position, current.branch, in_order, current.frames)

    def _end_pass(self, output: Any) -> None:
        current, self._pass = self._pass, None
        if current is not None:
            tensor = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
            self.policy.output(self._index, current.branch, tensor)


class _RootHook(ModelHook):
    """On a transformer: a pass begins and ends."""

    def __init__(self, cache: StackCache, number: int) -> None:
        super().__init__()
        self.cache, self.number = cache, number

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        forward: Any = self.fn_ref.original_forward
        self.cache._begin_pass(self.number, module, by_name(module, args, kwargs))
        try:
            output = forward(*args, **kwargs)
        except BaseException:
            self.cache._pass = None
            raise
        self.cache._end_pass(output)
        return output


class _BlockHook(ModelHook):
    """On a block: runs, or lets the stream pass."""

    def __init__(self, cache: StackCache, stack: Stack, number: int, position: int) -> None:
        super().__init__()
        self.cache, self.module = cache, stack.blocks[position]
        self.stack, self.position, self.last = number, position, len(stack.blocks) - 1
        self.hints = position < stack.control_blocks
        """Whether it is a control block."""
        self.hints_behind_the_last = position == stack.control_blocks - 1 and hinted_at_the_end(stack.transformer)

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.cache._run_block(self, args, kwargs)

    def compute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forward: Any = self.fn_ref.original_forward
        return forward(*args, **kwargs)


def hinted_at_the_end(transformer: nn.Module) -> bool:
    """Whether the last hint is added behind the last block."""
    model: Any = transformer
    layers = model.config.get("vace_layers") or ()
    return model.config.get("num_layers", 0) - 1 in layers


def part_of(block: nn.Module, residual: str) -> nn.Module:
    """A block's self-attention or feed-forward layer, by the names that diffusers gives them.

    Raises:
        ValueError: the block has none by these names.
    """
    names = {"attention": ("attn1", "attn"), "mlp": ("ffn", "ff", "proj_out")}[residual]
    for name in names:
        part = getattr(block, name, None)
        if isinstance(part, nn.Module):
            return part
    raise ValueError(f"{type(block).__name__} has no {residual} layer by the name of {' or '.join(names)}")


def gate_of(transformer: nn.Module, block: nn.Module, residual: str, call: dict[str, Any]) -> Tensor | None:
    """What a block multiplies a layer's output by before it is added: (B, 1 or N, D); None where it is not known.

    Args:
        transformer: Whose block it is.
        block: It.
        residual: Of which layer, `attention` or `mlp`.
        call: What the block was called with.
    """
    family = family_with(type(transformer).__name__)
    if family is None or not family.gated_by_table:
        return None
    of_block: Any = block
    table = of_block.scale_shift_table.float().reshape(6, -1)
    time: Tensor = call["temb"] if "temb" in call else call["timestep"]
    by_row = time.float().reshape(time.shape[0], -1, *table.shape)
    row = {"attention": 2, "mlp": 5}[residual]
    return table[row] + by_row[:, :, row]


class Listening:
    """Somebody who is told that a compiled block ran."""

    def __init__(self, listeners: list[Callable[[], None]], told: Callable[[], None]) -> None:
        self._listeners, self._told = listeners, told
        listeners.append(told)

    def remove(self) -> None:
        self._listeners.remove(self._told)


def is_compiled(block: nn.Module) -> bool:
    """Whether it runs as one piece, in which no layer's hooks are called."""
    return hasattr(block, "compiled_forward")


def when_it_runs(block: nn.Module, layer: nn.Module, told: Callable[..., None]) -> Any:
    """Tell that a block's layer ran, until the handle's `remove`; of a compiled block, that the block did."""
    module: Any = block
    if is_compiled(block):
        return Listening(module.compiled_forward.listeners, told)
    return layer.register_forward_hook(lambda *_: told())


def uncompiled(block: nn.Module) -> AbstractContextManager[None]:
    """Within it, hooks on a block's layers are called, even if it is compiled."""
    module: Any = block
    return module.compiled_forward.plain() if is_compiled(block) else nullcontext()


def frames_of(transformer: nn.Module, call: dict[str, Any]) -> int | None:
    """Latent frames of a pass, as the tokens count them; None where they cannot be told."""
    latents = call["hidden_states"]
    if latents.ndim != 5:
        frames = call.get("num_frames")  # LTX-Video's latents are tokens already
        return frames if isinstance(frames, int) else None
    frames = latents.shape[1 if _has(transformer, layout="BFCHW") else 2]
    config = getattr(transformer, "config", {})
    patch = config.get("patch_size_t") or config.get("patch_size")
    temporal = patch[0] if isinstance(patch, (tuple, list)) else config.get("patch_size_t") or 1
    return frames // temporal


def frames_first(transformer: nn.Module, residual: Tensor, entered: Tensor, frames: int | None) -> Tensor:
    """The picture's residuals with the tokens of a frame side by side, frame after frame: (B, F·S, D).

    Some layers work on the words' tokens as well: CogVideoX puts them before the picture's, the others after. Latte
    folds frames into the samples, (B·F, S, D), and for its temporal blocks places, (B·S, F, D).
    """
    if frames is None or not _has(transformer, tokens="folded"):
        tokens = entered.shape[1]
        return residual[:, -tokens:] if _has(transformer, tokens="words first") else residual[:, :tokens]
    samples = entered.shape[0] // frames
    by_sample = residual.unflatten(0, (samples, -1))
    spatial = residual.shape[1] == entered.shape[1] and residual.shape[0] == entered.shape[0]
    return (by_sample if spatial else by_sample.transpose(1, 2)).flatten(1, 2)


def _has(transformer: nn.Module, *, layout: Layout | None = None, tokens: TokenOrder | None = None) -> bool:
    """Whether its family lays latents or tokens out so; a transformer of no family does as most do."""
    family = family_with(type(transformer).__name__)
    return family is not None and (family.layout == layout or family.tokens == tokens)


def passed_through(transformer: nn.Module, entered: Tensor, left: Tensor) -> Tensor:
    """What would leave the stack if no block added anything, laid out as what does leave it."""
    if not _has(transformer, tokens="folded"):
        return entered
    tokens, frames = entered.shape[1], left.shape[1]
    turned = entered.unflatten(0, (-1, frames)).transpose(1, 2).reshape(-1, frames, entered.shape[-1])
    assert turned.shape[0] % tokens == 0
    model: Any = transformer
    return turned + model.temp_pos_embed.to(turned.dtype) if frames > 1 else turned


@contextmanager
def beneath_offloading(transformer: nn.Module) -> Iterator[None]:
    """Hooks that come and go in here lie beneath the one that fetches an offloaded transformer.

    A run begins by putting that one on anew, and with it accelerate takes off whatever was laid over it.
    """
    model: Any = transformer
    if not hasattr(model, "_hf_hook") or "forward" not in vars(model):
        yield
        return
    fetching, model.forward = model.forward, model._old_forward
    try:
        yield
    finally:
        model._old_forward, model.forward = model.forward, fetching


def _register(module: nn.Module, hook: ModelHook, name: str) -> None:
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)


def _remove(module: nn.Module, name: str) -> None:
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None:
        registry.remove_hook(name, recurse=False)


def _forget_children(transformer: nn.Module) -> None:
    """diffusers remembers which modules below have hooks; they have just changed."""
    HookRegistry.check_if_exists_or_initialize(transformer).invalidate_child_registries_cache()


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a module was called with, every argument by its name."""
    if not args:
        return kwargs
    return inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
