"""Runs of tiny checkpoints under a cache, up to the last step: nothing is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio import pipelines
from studio.caching import Cache, Decision, Stack
from studio.family import family_of
from studio.machine import hardware
from studio.pipelines import LoadedPipeline, StepStart, StepState
from studio.requests.generation import GenerationRequest, request_for
from support.maps import file_of_maps
from support.tiny_checkpoints import preset_for, save

Load = Callable[..., tuple[LoadedPipeline, GenerationRequest]]


@contextmanager
def loading(base: Path, steps: int) -> Iterator[Load]:
    """Puts a tiny checkpoint into the slot, with a request for it; what is in the slot at the end is unloaded."""
    here = hardware.measure()

    def loaded(name: str, **fields: Any) -> tuple[LoadedPipeline, GenerationRequest]:
        folder = base / name if (base / name).is_dir() else save(name, base)
        preset = preset_for(name, folder)
        if "control" in family_of(preset.pipeline).conditions:  # else its control blocks' hints would count nothing
            fields = {"control": file_of_maps(base / "maps.npz")} | fields
        request = request_for(
            preset, prompt="a red car, on a road", **({"seed": 3, "num_inference_steps": steps} | fields)
        )
        ready = pipelines.load(preset, pipelines.place(preset, request, here))
        if name == "hunyuanvideo-1.5":  # it pads to two thousand tokens, which is most of its time here
            ready.pipe.tokenizer_max_length, ready.pipe.tokenizer_2_max_length = 64, 16
            ready.pipe.vision_num_semantic_tokens = 8
        return ready, request

    yield loaded
    pipelines.unload()


def passes_of(ready: LoadedPipeline, request: GenerationRequest) -> int:
    """Passes of a step through the transformer."""
    return 2 if ready.branches == "separate" and request.guidance_scale > 1 else 1


def stacks_of(ready: LoadedPipeline) -> tuple[Stack, ...]:
    return tuple(
        Stack(transformer=transformer, blocks=blocks)
        for transformer, blocks in zip(ready.transformers, ready.stacks, strict=True)
    )


class _Enough(Exception):
    """Ends a run after a step."""


@dataclasses.dataclass
class Undecoded:
    """What a run showed."""

    latents: np.ndarray
    """Of the last step: eight bits would hide small differences."""
    decisions: list[Decision | None]
    """Each step's, at its end."""
    kept_bytes: int
    """The most that was kept after a step."""


def run_undecoded(
    ready: LoadedPipeline, request: GenerationRequest, cache: Cache | None = None, stop_after: int | None = None
) -> Undecoded:
    """Denoises to the last step, or to step `stop_after`."""
    shown = Undecoded(np.zeros(0), [], 0)
    last = request.num_inference_steps - 1 if stop_after is None else stop_after

    def started(start: StepStart) -> None:
        if cache is not None:
            cache.begin_step(start.index, start.sigma)

    def ended(state: StepState) -> None:
        shown.latents = state.latents.float().cpu().numpy().copy()
        if cache is not None:
            shown.decisions.append(cache.decision)
            shown.kept_bytes = max(shown.kept_bytes, cache.kept_bytes)
        if state.index == last:
            raise _Enough

    with pytest.raises(_Enough):
        ready.run(
            request,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            on_step=ended,
            on_step_start=started,
            interrupted=lambda: False,
        )
    return shown
