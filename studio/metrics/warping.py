"""Warping: what changes in a clip besides the motion that its reference shows.

The flow is that of the reference, by dense inverse search: T. Kroeger, R. Timofte, D. Dai, L. Van Gool, "Fast Optical
Flow using Dense Inverse Search", ECCV 2016. So all clips of one scene are led along the same paths, and none gains by
being blurred until its own flow is smooth.

Shapes: F frames, H rows, W columns; clips are uint8, (F, H, W, 3), RGB, levels 0 to 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from studio.metrics.fidelity import PEAK
from studio.metrics.motion import optical_flow, seen_along, traced
from studio.metrics.shapes import check_neighbours, check_pair, check_side

WARPING_LEAST_SIDE = 32
"""At half the size, which is the finest that the search looks at, two of its patches of 8 pixels must fit."""
_PATCH = 8


@dataclass(frozen=True)
class Paths:
    """Where the pixels of a picture are found in the next one."""

    follows: np.ndarray
    """bool, (H, W): whether the way there leads back again, as `motion.traced` asks."""
    x: np.ndarray
    y: np.ndarray
    """float32, (H, W): columns and rows in the next picture."""


def paths(before: np.ndarray, after: np.ndarray) -> Paths:
    """Of two neighbouring pictures of a reference."""
    import cv2

    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, after)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # Left to itself it goes down until a patch hardly fits into a long picture, and reads beyond it.
    fits = int(math.log2(min(grey[0].shape) / (2 * _PATCH)))
    usual = int(math.log2(max(grey[0].shape) / (4 * _PATCH)) + 0.5)
    if hasattr(search, "setCoarsestScale"):
        search.setCoarsestScale(max(search.getFinestScale(), min(fits, usual)))
    elif fits < usual:  # OpenCV 4 cannot be held back
        return Paths(*traced(optical_flow(before, after), optical_flow(after, before)))
    nothing_yet: Any = None  # which the search fills
    forth, back = (search.calc(one, other, nothing_yet) for one, other in (grey, grey[::-1]))
    return Paths(*traced(forth, back))


def change_along(way: Paths, before: np.ndarray, after: np.ndarray) -> tuple[float, int]:
    """(sum, count) of squared differences along the paths, in shares of the largest level; over R, G and B."""
    warped = seen_along(after, way.x, way.y)
    differences = (warped - before)[way.follows] / np.float32(PEAK)
    return float(np.square(differences).sum(dtype=np.float64)), differences.size


def warping_error(clip: np.ndarray, reference: np.ndarray) -> float:
    """Mean squared difference along the reference's motion, of levels from 0 to 1, times 1000.

    Each picture t+1 is warped back along the flow of the reference from t to t+1, and compared with picture t outside
    occlusions, as W.-S. Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, with the mask of
    `motion.traced`. The mean is over R, G and B of all trusted pixels of the clip; NaN where none is trusted.
    """
    check_pair(clip, reference)
    check_neighbours(clip, "Warping error")
    check_side(clip, WARPING_LEAST_SIDE, "Warping error")
    summed, count = 0.0, 0
    for shown, meant in zip(pairwise(clip), pairwise(reference), strict=True):
        change, pixels = change_along(paths(*meant), *shown)
        summed, count = summed + change, count + pixels
    return 1000 * summed / count if count else math.nan
