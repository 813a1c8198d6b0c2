"""Families' models: one file a family, one class in it, the same names inside.

    video_model.py   what they have in common, and flow matching
    diffusion.py     what those have in common that learnt by diffusion in discrete steps

Each class says how its pipeline is called, and what training asks of it: latents of frames and back, embedded prompts,
noise, a prediction. What is so of a family without its weights stands in its row of `studio.family`, and the class
bears that row's pipeline. Refuses to know losses, optimizers, memory and files.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from studio.family import FAMILIES
from studio.pipelines.families.video_model import Prompt, VideoModel


@functools.cache
def video_models() -> Mapping[str, type[VideoModel]]:
    """The class of each family, by pipeline class: whatever bears one in the files of this folder."""
    files = [importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    named = [each for file in files for each in vars(file).values() if isinstance(each, type)]
    classes = {each.pipeline: each for each in named if issubclass(each, VideoModel) and "pipeline" in vars(each)}
    return {pipeline: classes[pipeline] for pipeline in FAMILIES}


__all__ = ["Prompt", "VideoModel", "video_models"]
