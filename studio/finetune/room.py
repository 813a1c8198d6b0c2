"""Memory in training: how much was taken, and what needs less of it when it runs out.

Knows settings and their cost. Refuses to know how they save it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from studio.errors import OutOfMemory
from studio.family import family_of
from studio.pipelines.loaded import out_of_memory
from studio.preset import Preset
from studio.requests.training import FinetuneRequest


@contextmanager
def room(request: FinetuneRequest, preset: Preset) -> Iterator[None]:
    """Memory that runs out within it is told with the settings that need less."""
    try:
        with out_of_memory("fine-tuning"):
            yield
    except OutOfMemory as error:
        raise OutOfMemory(error.message, field="mode", value=request.mode, way_out=leaner(request, preset)) from error


def leaner(request: FinetuneRequest, preset: Preset) -> str:
    """What to set so that a training needs less memory, the least costly first."""
    if request.objective != "latent":
        if request.mode == "full":
            return "Set mode to exact: the same gradients, one group of frames at a time."
        if request.mode == "exact" and request.keep_caches == "device":
            return "Set keep_caches to auto: the same gradients, a little slower."
        if not request.checkpoint_blocks:
            return "Set checkpoint_blocks: the same gradients with less memory, a little slower."
        in_tiles = family_of(preset.pipeline).decoding == "fixed tiles"
        if not in_tiles and (request.crop_size is None or request.crop_size > 8):
            return f"Set crop_size to {8 if request.crop_size is None else request.crop_size // 2}."
        if request.mode == "exact":
            return "Set mode to truncated with window 1 and context 1."
    return f"Take fewer frames than {request.num_frames}, or a smaller size than {request.width}×{request.height}."


def peak_bytes(device: str) -> int:
    """Most memory so far: what the accelerator gave out, or what this process had resident."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
