"""Ego-motion: how the camera moved between two pictures, from corners that were followed from one to the other.

The essential matrix gives the turn, and the point that the motion leads to (the centre of expansion: whatever stands
still moves away from it). How fast cannot be told from pictures alone; with the road as a plane below an eye of known
height it can, as far as the road has corners at all.

Knows two pictures and a lens. Refuses to know metres that nobody has measured: speed is in heights of the eye.

Shapes: F frames, H rows, W columns, N corners. K is the camera's matrix, R and t take points from the first camera's
metres to the second's, x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2

import cv2
import numpy as np

from studio.control_maps.points import followed

FOCAL_WIDTHS = 0.9
"""Focal length over the picture's width, where nobody has said: that of most dashboard cameras."""
CORNERS = 600
PAIRS_A_SECOND = 8
"""Pictures this far apart are held against each other: neighbours of a fast clip are too alike."""
STANDS_PIXELS = 0.25
"""Where corners move less, in a picture of 960 columns, the camera stands."""
STEADY_OVER = 5
"""Frames whose median the centre of expansion is."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The camera's motion from one picture to another."""

    expansion_centre: tuple[float, float]
    """x and y in the first picture; NaN where it is not known, as of a camera that stands."""
    turn: float
    """Radians, to the left; NaN where it is not known."""
    speed: float
    """Heights of the eye; NaN where the road tells nothing."""
    share: float
    """Of the corners, how many agree."""


UNKNOWN = Step(expansion_centre=(np.nan, np.nan), turn=np.nan, speed=np.nan, share=0.0)


def gap_at(fps: float, num_frames: int) -> int:
    """How many frames lie between the two pictures that are held against each other."""
    return max(1, min(int(fps / PAIRS_A_SECOND), num_frames - 1))


def step(before: np.ndarray, after: np.ndarray, *, focal: float | None = None) -> Step:
    """Two uint8 RGB (H, W, 3), in their order in time.

    Args:
        focal: Focal length in pixels; None takes `FOCAL_WIDTHS`.
    """
    height, width = before.shape[:2]
    lens = FOCAL_WIDTHS * width if focal is None else focal
    first, second = corners_of(before, after)
    if len(first) < 12:
        return UNKNOWN
    if float(np.median(np.linalg.norm(second - first, axis=1))) < STANDS_PIXELS * width / 960:
        return Step(expansion_centre=(np.nan, np.nan), turn=0.0, speed=0.0, share=1.0)
    camera = np.array([[lens, 0, width / 2], [0, lens, height / 2], [0, 0, 1]])
    threshold = max(0.3, width / 960)
    essential, agrees = cv2.findEssentialMat(
        first, second, camera, method=cv2.USAC_MAGSAC, prob=0.999, threshold=threshold
    )
    if essential is None or essential.shape != (3, 3):
        return UNKNOWN
    kept = agrees.ravel().astype(bool)
    if kept.sum() < 8:
        return UNKNOWN
    _, rotation, translation, _ = cv2.recoverPose(essential, first[kept], second[kept], camera)
    ahead = -rotation.T @ translation.ravel()
    turn = atan2(rotation[0, 2], rotation[2, 2])
    if ahead[2] < 0.2:  # sideways or backwards: no drive
        return Step(expansion_centre=(np.nan, np.nan), turn=turn, speed=np.nan, share=float(kept.mean()))
    centre = (lens * ahead[0] / ahead[2] + width / 2, lens * ahead[1] / ahead[2] + height / 2)
    unturned = camera @ rotation.T @ np.linalg.inv(camera)
    return Step(
        expansion_centre=centre,
        turn=turn,
        speed=_speed(first[kept], _seen_by(unturned, second[kept]), centre, lens, height, width),
        share=float(kept.mean()),
    )


def corners_of(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the first picture and where they are in the second, each float32 (N, 2); those alone that lead back.

    Places are from the picture's corner, as everywhere.
    """
    width = before.shape[1]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    corners = cv2.goodFeaturesToTrack(grey[0], CORNERS, 0.001, max(3.0, 8 * width / 960))
    if corners is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    window = max(15, round(21 * width / 960) // 2 * 2 + 1)
    start = corners.reshape(-1, 2)
    there, error = followed(grey[0], grey[1], start, window=window)
    home = error < 1.0
    return start[home] + 0.5, there[home] + 0.5


def steady(centres: np.ndarray) -> np.ndarray:
    """Centres of a clip, float32 (F, 2), each the median of those around it that are known; NaN stays NaN."""
    reach = STEADY_OVER // 2
    result = centres.copy()
    for frame in np.flatnonzero(np.isfinite(centres[:, 0])):
        around = centres[max(0, frame - reach) : frame + reach + 1]
        result[frame] = np.median(around[np.isfinite(around[:, 0])], axis=0)
    return result


def _seen_by(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.c_[points, np.ones(len(points))] @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def _speed(
    first: np.ndarray, second: np.ndarray, centre: tuple[float, float], focal: float, height: int, width: int
) -> float:
    """Heights of the eye from one picture to the other, by the corners on the road; NaN where it has too few.

    A point of the road that lies y rows below the horizon is z = f / y ahead, so the way is f / y - f / y'.
    """
    below, below_then = first[:, 1] - centre[1], second[:, 1] - centre[1]
    aside = np.abs(first[:, 0] - centre[0])
    on_road = (below > 0.06 * height) & (below_then > 0.06 * height)
    # Where the lines of our own lane are: between them there may be a car, which goes as fast as we do.
    on_road &= (aside > 0.8 * below) & (aside < 1.8 * below + 0.02 * width)
    if on_road.sum() < 4:
        return float("nan")
    ways = focal / below[on_road] - focal / below_then[on_road]
    low, middle, high = np.percentile(ways, [25, 50, 75])
    return float(middle) if high - low < 0.8 * abs(middle) else float("nan")
