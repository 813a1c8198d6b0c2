"""What happens inside a pipeline while it runs, measured and told: steps, blocks, what a cache decided, previews.

A block's own layers say what it did, so that every cache is told about in the same way. Knows hooks and events. Refuses
to know how a run begins and ends (`generate`), and how a cache decides (`caching`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import psutil
import torch
from torch import nn

from studio.caching.block_stack import part_of, when_it_runs
from studio.clips.write import thumbnail_jpeg
from studio.events import (
    BlockComputed,
    BlockReused,
    Branch,
    CacheDecided,
    GenerationEvent,
    Notice,
    PreviewFrame,
    StepFinished,
    StepStarted,
)
from studio.family import Branches
from studio.machine import pace
from studio.pipelines import LoadedPipeline, StepStart, StepState
from studio.requests.generation import GenerationRequest

if TYPE_CHECKING:
    from studio.caching import Cache, Decision

PREVIEW_SHARE = 0.1
"""Previews may take this share of the time between them, so that watching costs little."""
MIN_PREVIEW_SECONDS = 0.5
"""No two previews follow each other faster."""

_PASSES: dict[Branches, tuple[Branch, ...]] = {
    "separate": ("cond", "uncond"),
    "batched": ("both",),
    "none": ("cond",),
}


def branches_of(model: LoadedPipeline, request: GenerationRequest) -> Branches:
    """How guidance runs for this request."""
    return model.branches if request.guidance_scale > 1 else "none"


def passes_of(model: LoadedPipeline, request: GenerationRequest) -> tuple[Branch, ...]:
    """The branches of the passes of one step, in order."""
    return _PASSES[branches_of(model, request)]


class Listener(Protocol):
    """Who is told."""

    def emit(self, event: GenerationEvent) -> None: ...

    def check(self) -> None:
        """Raises where the work is to end."""


class BlockWatch:
    """Follows one run, step by step and block by block."""

    def __init__(
        self,
        model: LoadedPipeline,
        request: GenerationRequest,
        listener: Listener,
        *,
        cache: Cache | None,
        finish_seconds: float,
    ) -> None:
        """A watch that sees nothing until it is attached.

        Args:
            model: What runs.
            request: What it runs for.
            listener: Who is told, and may end the work.
            cache: At work on the model's blocks; None where everything is computed.
            finish_seconds: What decoding and writing will take, as predicted.
        """
        self.step_seconds: list[float] = []
        """Of the steps that have ended."""
        self.saved = 0
        """Block passes that were reused, in whole or in part."""
        self._model = model
        self._listener = listener
        self._cache = cache
        self._finish_seconds = finish_seconds
        self._total = request.num_inference_steps
        self._branches = passes_of(model, request)
        self._decision: Decision | None = None
        """The cache's last decision that was told."""
        self._step = 0
        self._passes = [0] * len(model.blocks)
        """Of each block, in the step under way."""
        self._ran = [0] * len(model.blocks)
        """Of each block's looked-at layers, how many ran in the pass under way."""
        self._computed_at: dict[tuple[int, int], int] = {}
        """By block and pass: the step in which it last ran."""
        self._peak_bytes = 0
        self._previewed = -float("inf")
        self._preview_seconds = 0.0

    # -- steps --------------------------------------------------------------------------------------------------------

    def step_started(self, start: StepStart) -> None:
        self._step = start.index
        self._passes = [0] * len(self._passes)
        self._listener.emit(StepStarted(step=start.index, sigma=start.sigma, timestep=start.timestep))
        if self._cache is not None:
            self._cache.begin_step(start.index, start.sigma)

    def step_finished(self, state: StepState) -> None:
        self.step_seconds.append(state.seconds)
        if self._cache is not None:
            self._cache.end_step(state.latents)
        self._peak_bytes = max(self._peak_bytes, self._memory_bytes())
        left = self._total - len(self.step_seconds)
        self._listener.emit(
            StepFinished(
                step=state.index,
                seconds=state.seconds,
                peak_bytes=self._peak_bytes,
                eta_seconds=left * self._seconds_to_come() + self._finish_seconds,
            )
        )
        self._preview(state, last=left == 0)

    def _seconds_to_come(self) -> float:
        """Of a further step. With a cache steps differ by plan, and their mean says more than their median."""
        if self._cache is None:
            return pace.median_step(self.step_seconds)
        after_the_first = self.step_seconds[1:] or self.step_seconds
        return sum(after_the_first) / len(after_the_first)

    def _preview(self, state: StepState, *, last: bool) -> None:
        began = time.perf_counter()
        pause = max(MIN_PREVIEW_SECONDS, self._preview_seconds / PREVIEW_SHARE)
        if began - self._previewed < pause and not last:
            return
        picture = self._model.preview(state.estimate())
        self._listener.emit(PreviewFrame(step=state.index, jpeg=thumbnail_jpeg(picture)))
        self._previewed = time.perf_counter()
        self._preview_seconds = self._previewed - began

    def _memory_bytes(self) -> int:
        """Most that the accelerator held so far, or what this process holds now."""
        if self._model.placement.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return psutil.Process().memory_info().rss

    # -- blocks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the transformer's blocks say what was computed; hooks on the other layers let a cancel through."""
        handles = []
        for block, module in enumerate(self._model.blocks):
            handles.append(module.register_forward_pre_hook(self._before(block)))
            layers = _telling_layers(module) if self._cache is not None else ()
            handles.extend(when_it_runs(module, layer, self._counting(block)) for layer in layers)
            handles.append(module.register_forward_hook(self._after(block, len(layers))))
        for layer in _other_layers(self._model):
            handles.append(layer.register_forward_pre_hook(lambda *_: self._listener.check()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, block: int) -> Callable[..., None]:
        def before(*_: object) -> None:
            self._listener.check()
            self._ran[block] = 0

        return before

    def _counting(self, block: int) -> Callable[[], None]:
        def ran() -> None:
            self._ran[block] += 1

        return ran

    def _after(self, block: int, layers: int) -> Callable[..., None]:
        def after(*_: object) -> None:
            number = self._passes[block]
            self._passes[block] += 1
            self._tell_decision()
            share = min(1.0, self._ran[block] / layers) if layers else 1.0
            self._listener.emit(self._event(block, number, share))

        return after

    def _event(self, block: int, number: int, share: float) -> BlockComputed | BlockReused:
        """What a block did in the step's pass of that number, of whose layers this share ran."""
        branch, decision = self._branches[min(number, len(self._branches) - 1)], self._decision
        self.saved += share < 1
        if share:
            self._computed_at[block, number] = self._step
            distance = None if decision is None else decision.distance
            return BlockComputed(step=self._step, block=block, branch=branch, distance=distance, share=share)
        age = self._step - self._computed_at.get((block, number), self._step)
        extrapolated = decision is not None and decision.action.value == "extrapolated"
        return BlockReused(step=self._step, block=block, branch=branch, age=age, extrapolated=extrapolated)

    def _tell_decision(self) -> None:
        """The cache's decision about this step, once."""
        decision = self._cache.decision if self._cache is not None else None
        if decision is not None and decision is not self._decision:
            self._listener.emit(
                CacheDecided(
                    step=self._step,
                    kind=decision.action.value,
                    distance=decision.distance,
                    threshold=decision.threshold,
                    rate=decision.rate,
                    motion=decision.motion,
                    why=decision.why,
                )
            )
            if decision.notice:
                self._listener.emit(Notice(text=decision.notice))
        self._decision = decision


def _telling_layers(block: nn.Module) -> tuple[nn.Module, ...]:
    """A layer of the block's attention, and one of its feed-forward part: what ran, and what was foretold."""
    weighty = (nn.Linear, nn.Conv1d, nn.Conv2d)
    parts = (part_of(block, part) for part in ("attention", "mlp"))
    return tuple(next(layer for layer in part.modules() if isinstance(layer, weighty)) for part in parts)


def _other_layers(model: LoadedPipeline) -> Iterator[nn.Module]:
    """The layers of the text encoders and the autoencoder, each short enough to wait for when somebody cancels."""
    for component in model.model.models.values():
        if component not in model.transformers:
            for module in component.modules():
                if isinstance(module, nn.ModuleList):
                    yield from (layer for layer in module if layer is not None)  # Mochi's has gaps
