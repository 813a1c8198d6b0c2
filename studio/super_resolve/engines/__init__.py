"""Engines: presets that enlarge clips, loaded as every preset is, as methods of enlarging.

    upscaler = upscaler_of(find_enlarger("kandinsky-6-vsr"), 2)
    larger = upscaler(pictures)

    windows.py      what they have in common: pictures a window at a time, sizes made to fit, tiles
    kandinsky.py    and one file an engine, with a class `Engine`
    realesrgan.py   the one that is no diffusion: a package brings it, weights and all

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
from studio.machine.placement import placed_to_enlarge
from studio.preset import EnlargerPreset
from studio.super_resolve.methods import Upscaler


def upscaler_of(
    preset: EnlargerPreset,
    scale: int,
    *,
    folder: Path | None = None,
    machine: Machine | None = None,
    check: Callable[[], None] = lambda: None,
) -> Upscaler:
    """A preset's model, loaded and placed, as a method of enlarging.

    Args:
        scale: One of the preset's.
        folder: The checkpoint; None takes the preset's own folder or the Hub's cache.
        machine: As it is now; None measures it.
        check: Called while loading, and between a model's layers or tiles while it works; what it raises ends it.

    Raises:
        DoesNotFit: it does not run here.
        WeightsError: the weights are not here, or damaged, or another model's.
    """
    if preset.weights.package is not None:
        from studio.super_resolve.engines import realesrgan

        return realesrgan.Engine(preset, scale, check)
    row = super_resolver_of(preset.pipeline)
    machine = machine or hardware.measure()
    clip_maker, request = placed_to_enlarge(preset, machine)
    placement = pipelines.place(clip_maker, request, machine)
    loaded = pipelines.load_model(clip_maker, placement, folder=folder, check=check)
    return importlib.import_module(f"{__name__}.{row.engine}").Engine(loaded, scale, check)
