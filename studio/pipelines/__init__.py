"""Pipelines: a preset becomes a ready diffusers pipeline; a request becomes that pipeline's call.

    placement = place(preset, request, machine.measure())
    ready = load(preset, placement)
    frames = ready.run(request, generator=..., on_step=..., interrupted=...)

    families/      how each family's pipeline is called, and what training asks of its models: one file a family
    conditions.py  what a request's files are, once read and fitted
    schedules.py   sigmas, denoised estimates and fresh schedulers, for the samplers those pipelines use
    loading.py     a folder of weights, checked, becomes the pipeline in the single slot
    loaded.py      the loaded pipeline: run, preview, reset
    adapters.py    low-rank updates: opened, saved, loaded
    randomness.py  the global generators, seeded for one clip

Knows torch, diffusers and memory. Refuses to know events, run folders, downloads and who is watching.
"""

from studio.pipelines.conditions import Conditions, conditions_of
from studio.pipelines.loaded import LoadedModel, LoadedPipeline, StepStart, StepState
from studio.pipelines.loading import load, load_model, place, unload

__all__ = [
    "Conditions",
    "LoadedModel",
    "LoadedPipeline",
    "StepStart",
    "StepState",
    "conditions_of",
    "load",
    "load_model",
    "place",
    "unload",
]
