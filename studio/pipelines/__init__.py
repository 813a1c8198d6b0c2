"""Pipelines: a preset becomes a ready diffusers pipeline; a request becomes that pipeline's call.

    placement = place(preset, request, machine.measure())
    ready = load(preset, placement)
    frames = ready.run(request, generator=..., on_step=..., interrupted=...)

    families.py    what differs between diffusers' video pipelines, one entry each
    schedules.py   sigmas, denoised estimates and fresh schedulers, for the samplers those pipelines use
    placement.py   device, number formats, offloading, tiling, quantisation: decided by memory, with reasons
    loading.py     a folder of weights, checked, becomes the pipeline in the single slot
    ready.py       the loaded pipeline: run, preview, reset

Knows torch, diffusers and memory. Refuses to know events, run folders, downloads and who is watching.
"""

from studio.pipelines.families import FAMILIES, Branches, Family, family_of
from studio.pipelines.loaded import LoadedPipeline, StepStart, StepState
from studio.pipelines.loading import load, place, unload

__all__ = [
    "FAMILIES",
    "Branches",
    "Family",
    "LoadedPipeline",
    "StepStart",
    "StepState",
    "family_of",
    "load",
    "place",
    "unload",
]
