"""Engines: presets that enlarge clips, loaded as every preset is, as methods of enlarging.

    upscaler = upscaler_of(find_enlarger("kandinsky-6-vsr"), 2)
    larger = upscaler(pictures)

    windows.py      what they have in common: pictures a window at a time, sizes made to fit, tiles
    kandinsky.py    and one file an engine, with a class `Engine`

What is so of an engine without its weights stands in its row of `studio.family`. Knows which engine a preset is for,
and that it is placed as what makes a clip of the preset's window. Refuses to know files, films and what else enlarges.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from studio import pipelines
from studio.family import super_resolver_of
from studio.machine import hardware
from studio.machine.hardware import Machine
from studio.preset import EnlargerPreset, Preset
from studio.requests.generation import GenerationRequest, request_for
from studio.super_resolve.engines.windows import ModelUpscaler


def upscaler_of(
    preset: EnlargerPreset,
    scale: int,
    *,
    folder: Path | None = None,
    machine: Machine | None = None,
    check: Callable[[], None] = lambda: None,
) -> ModelUpscaler:
    """A preset's model, loaded and placed, as a method of enlarging.

    Args:
        scale: One of the preset's.
        folder: The checkpoint; None takes the preset's own folder or the Hub's cache.
        machine: As it is now; None measures it.
        check: Called while loading; what it raises ends it.

    Raises:
        DoesNotFit: it does not run here.
        WeightsError: the weights are not here, or damaged, or another model's.
    """
    row = super_resolver_of(preset.pipeline)
    machine, clip_maker = machine or hardware.measure(), preset.as_clip_maker()
    placement = pipelines.place(clip_maker, placed_as(clip_maker, machine), machine)
    loaded = pipelines.load_model(clip_maker, placement, folder=folder, check=check)
    return importlib.import_module(f"{__name__}.{row.engine}").Engine(loaded, scale)


def placed_as(preset: Preset, machine: Machine) -> GenerationRequest:
    """The request by which a preset is placed: its window and tile, in one number format for all components.

    Tiles are the engine's own and the same everywhere, so that what they make does not depend on the machine.
    """
    compiled = machine.accelerator == "cuda" and machine.triton and bool(preset.checkpoint.block_lists)
    return request_for(
        preset,
        prompt="",
        seed=0,
        torch_dtype="auto" if machine.accelerator else "float32",
        quantization="none",
        vae_tiling="off",
        compile=compiled,
    )
