"""What every metric asks of its clips before it measures: that they are clips, and that two of them can be compared.

Knows array shapes. Refuses to correct any of them: a clip is never resized, cut or repeated to fit another.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from studio.errors import RequestError


def check_clip(clip: np.ndarray, field: str = "clip") -> None:
    """Raises `ValueError` where an array is no clip: uint8, (F, H, W, 3), with at least one pixel."""
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
        raise ValueError(f"{field} must be uint8 (F, H, W, 3), not {clip.dtype} {clip.shape}")
    if clip.size == 0:
        raise ValueError(f"{field} must have at least one frame of one pixel, not {clip.shape}")


def check_pair(clip: np.ndarray, reference: np.ndarray) -> None:
    """Raises `RequestError` where two clips have different shapes, and names both."""
    check_clip(clip)
    check_clip(reference, "reference")
    if clip.shape != reference.shape:
        raise RequestError(
            f"The clip has {in_words(clip)} and its reference {in_words(reference)}.",
            field="reference",
            value=in_words(reference),
            way_out="Make both with the same height, width and num_frames.",
        )


def check_side(clip: np.ndarray, least: int, metric: str) -> None:
    """Raises `RequestError` where frames are smaller than a metric's window."""
    if min(clip.shape[1:3]) < least:
        raise RequestError(
            f"{metric} needs frames of at least {least}×{least} pixels; these have {clip.shape[2]}×{clip.shape[1]}.",
            field="clip",
            value=in_words(clip),
            way_out="Measure it on larger frames, or leave it out.",
        )


def check_neighbours(clip: np.ndarray, metric: str) -> None:
    """Raises `RequestError` where a single frame has no neighbour to be compared with."""
    if len(clip) < 2:
        raise RequestError(
            f"{metric} compares neighbouring frames, and this clip has one frame.",
            field="clip",
            value=in_words(clip),
            way_out="Measure it on a clip of two frames or more.",
        )


def in_words(clip: np.ndarray) -> str:
    """As a person writes a clip's shape: `17 frames of 832×480`, width first."""
    frames, height, width = clip.shape[:3]
    return f"{frames} {'frame' if frames == 1 else 'frames'} of {width}×{height}"
