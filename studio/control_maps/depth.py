"""Depth by the road's geometry: the road is a plane below the eye, and things take the depth of what they stand on.

Parallax is no way to it: on smooth asphalt there is nothing to follow. A point of a level road that is seen y rows
below the horizon lies

    z = f h / y

ahead, with the focal length f in pixels and the eye h metres above the road. What stands on the road takes the depth of
its foot, the sky is infinitely far, and the roadside is a plane, too, that something stands at the end of. Knows
regions, a horizon and a lens. Refuses to know the picture itself.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from studio.clips.control_maps import ASSUMED_EYE_METRES
from studio.control_maps.ego_motion import FOCAL_WIDTHS
from studio.control_maps.regions import ROAD, SKY

FARTHEST_METRES = 250.0
"""Of the road; its last rows before the horizon would be anywhere."""
ROADSIDE_ENDS = 0.06
"""Of the height, below the horizon: up to there the ground beside the road is seen, above it what stands there."""
HIGHEST_METRES = 3.5
"""Of a thing on the road."""


def depth(classes: np.ndarray, horizon: float, *, focal: float | None = None) -> np.ndarray:
    """float32, (H, W), metres; infinity for the sky, NaN where no road says anything.

    Args:
        classes: uint8, (H, W): those of `regions`.
        horizon: Its row; NaN where it is not known.
        focal: Focal length in pixels; None takes `FOCAL_WIDTHS`.
    """
    height, width = classes.shape
    unknown = np.full(classes.shape, np.nan, np.float32)
    unknown[classes == SKY] = np.inf
    if not np.isfinite(horizon):
        return unknown
    lens = FOCAL_WIDTHS * width if focal is None else focal
    below = np.arange(height) + 0.5 - horizon
    plane = ASSUMED_EYE_METRES * lens / np.maximum(below, 1e-3)
    plane = np.where(below > 0, np.minimum(plane, FARTHEST_METRES), FARTHEST_METRES)
    road = classes == ROAD
    if not road.any():
        return unknown
    # Beside the road the ground goes on as a plane; what rises above it there stands where it ends.
    ends = min(height - 1, max(0, round(horizon + ROADSIDE_ENDS * height)))
    result = np.repeat(np.minimum(plane, plane[ends])[:, None], width, axis=1)
    result[road] = np.repeat(plane[:, None], width, axis=1)[road]
    foot, stands = _feet(road, (classes != ROAD) & (classes != SKY), horizon)
    result[stands] = plane[foot[stands]]
    result[classes == SKY] = np.inf
    return result.astype(np.float32)


def _feet(road: np.ndarray, other: np.ndarray, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the row of the next road below it, and whether the pixel belongs to a thing that stands on it.

    Such a thing has road to its left and to its right where it stands, and is no higher than things on roads are.
    """
    height = road.shape[0]
    rows = np.arange(height)[:, None]
    foot = np.minimum.accumulate(np.where(road, rows, height)[::-1], axis=0)[::-1]
    left = np.logical_or.accumulate(road, axis=1)
    right = np.logical_or.accumulate(road[:, ::-1], axis=1)[:, ::-1]
    amid = other & left & right
    on_road = (foot < height) & np.take_along_axis(amid, np.clip(foot - 1, 0, height - 1), axis=0)
    # A metre at the foot is (foot - horizon) / h rows high.
    high = HIGHEST_METRES / ASSUMED_EYE_METRES * (foot + 0.5 - horizon)
    return np.minimum(foot, height - 1), other & on_road & (foot - rows <= high)
