"""Lanes: the paint on the road, and of it the two lines that our own lane lies between.

Paint is narrow, and lighter or yellower than what lies beside it; of that, what runs towards a point ahead is kept.
Knows one picture, and how lines are made steady over a few of them. Refuses to know maps of a road, and what is behind
the next bend: a line is straight here.

Shapes: F frames, H rows, W columns, N pieces of line.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WIDEST = 0.085
"""Of the picture's height: what is wider is no line of paint, as seen from a car."""
FIRST_ROW = 0.6
"""Of the picture's height: from here on downward lines are sought; farther ones are too thin."""
STEADY_OVER = 5
"""Frames whose median a line is."""
_SLOPES = (0.5, 3.0)
"""Columns to a row: lines of our own lane and the next ones, seen from within."""
_TOGETHER = 40 / 960
"""Of the picture's width: pieces whose feet are no farther apart are one line."""
_WORKED_AT = 480
"""Columns, at least: in smaller pictures a line has too few pixels to be told."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """What was found in one picture."""

    paint: np.ndarray
    """uint8, (H, W), 255 on a painted line."""
    own: np.ndarray
    """float32, (2, 2): of the left and the right line, the column where it meets the picture's lower edge, and by how
    many columns it leans for a row; NaN where there is none."""


def lanes(frame: np.ndarray) -> Lanes:
    """uint8 RGB (H, W, 3) to its lane lines."""
    height, width = frame.shape[:2]
    factor = max(1.0, _WORKED_AT / width)
    large = frame
    if factor > 1:
        size = (round(width * factor), round(height * factor))
        large = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
    paint = _paint(large)
    pieces = _pieces(paint)
    own = _own_lane(pieces, height=large.shape[0], width=large.shape[1])
    own[:, 0] /= factor
    mask = _along(paint, pieces)
    if factor > 1:
        mask = (cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > 127).astype(np.uint8) * 255
    return Lanes(paint=mask, own=own)


def steady(own: np.ndarray) -> np.ndarray:
    """Lines of a clip, float32 (F, 2, 2) as `Lanes.own`, each the median of those around it.

    One that was not found is there all the same where most of its neighbours were.
    """
    reach = STEADY_OVER // 2
    result = np.full_like(own, np.nan)
    for frame in range(len(own)):
        around = own[max(0, frame - reach) : frame + reach + 1]
        for side in (0, 1):
            there = around[np.isfinite(around[:, side, 0]), side]
            if np.isfinite(own[frame, side, 0]) or 2 * len(there) > len(around):
                result[frame, side] = np.median(there, axis=0)
    return result


def as_lines(own: np.ndarray, *, height: int) -> np.ndarray:
    """Feet and leanings, (F, 2, 2), as straight lines, float32 (F, 2, 2, 2): each from far to near, x and y."""
    crossing = vanishing_points(own, height=height)
    far = np.maximum(FIRST_ROW * height, np.nan_to_num(crossing[:, 1], nan=0.0) + 0.03 * height)
    far = np.minimum(far, 0.9 * height)
    lines = np.empty((*own.shape[:2], 2, 2), np.float32)
    for end, row in enumerate((far[:, None], np.full((len(own), 1), float(height)))):
        lines[:, :, end, 0] = own[..., 0] + own[..., 1] * (row - height)
        lines[:, :, end, 1] = np.where(np.isfinite(own[..., 0]), row, np.nan)
    return lines


def vanishing_points(own: np.ndarray, *, height: int) -> np.ndarray:
    """float32, (F, 2): x and y where the two lines of our lane meet; NaN where one is missing."""
    (left, lean_left), (right, lean_right) = own[:, 0].T, own[:, 1].T
    with np.errstate(all="ignore"):
        up = (left - right) / (lean_right - lean_left)
    return np.stack([left + lean_left * up, height + up], axis=1).astype(np.float32)


def _paint(frame: np.ndarray) -> np.ndarray:
    """uint8, (H, W): 255 on what may be paint, the picture's upper part left out."""
    height, width = frame.shape[:2]
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    light, yellow = lab[..., 0], lab[..., 2]
    across = cv2.getStructuringElement(cv2.MORPH_RECT, (round(height * WIDEST) // 2 * 2 + 1, 1))
    # Of a dark road the paint is dark, too, but lighter than the road all the same.
    road = float(np.median(light[round(0.7 * height) : round(0.9 * height), width // 3 : 2 * width // 3]))
    stands_out = np.clip(0.28 * road, 14, 28)
    white = (cv2.morphologyEx(light, cv2.MORPH_TOPHAT, across) > stands_out) & (light > min(140.0, 1.25 * road + 15))
    saturated = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1] > 60
    yellower = cv2.morphologyEx(yellow, cv2.MORPH_TOPHAT, across) > 8
    mask = (white | (yellower & (yellow > 128 + 22) & saturated)).astype(np.uint8) * 255
    mask[: round(0.5 * height)] = 0
    return mask


def _pieces(paint: np.ndarray) -> np.ndarray:
    """float32, (N, 4): straight pieces of paint that lead ahead, from far to near: x, y, x, y."""
    height, width = paint.shape
    scale = width / 960
    sought = paint.copy()
    sought[: round(FIRST_ROW * height)] = 0
    found = cv2.HoughLinesP(
        sought, 1, np.pi / 180, max(10, round(20 * scale)), None, max(8, round(18 * scale)), max(8, round(60 * scale))
    )
    if found is None:
        return np.zeros((0, 4), np.float32)
    pieces = found.reshape(-1, 4).astype(np.float32)
    upside_down = pieces[:, 1] > pieces[:, 3]
    pieces[upside_down] = pieces[upside_down][:, [2, 3, 0, 1]]
    down = np.maximum(pieces[:, 3] - pieces[:, 1], 1e-3)
    lean = (pieces[:, 2] - pieces[:, 0]) / down
    least, most = _SLOPES
    return pieces[(np.abs(lean) >= least) & (np.abs(lean) <= most)]


def _own_lane(pieces: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """`Lanes.own` of these pieces: on each side the innermost line that has something to say for itself."""
    own = np.full((2, 2), np.nan, np.float32)
    down = pieces[:, 3] - pieces[:, 1]
    lean = (pieces[:, 2] - pieces[:, 0]) / np.maximum(down, 1e-3)
    foot = pieces[:, 2] + lean * (height - pieces[:, 3])
    length = np.hypot(pieces[:, 2] - pieces[:, 0], down)
    for side, sign in enumerate((-1, 1)):
        chosen = (sign * lean > 0) & (sign * (foot - width / 2) > 0.02 * width)
        if not chosen.any():
            continue
        feet, weights, leans = foot[chosen], length[chosen], lean[chosen]
        together = np.abs(feet[:, None] - feet[None]) <= _TOGETHER * width
        support = together @ weights
        worthy = support >= 0.4 * support.max()
        innermost = np.flatnonzero(worthy)[np.argmin(sign * feet[worthy])]
        group = together[innermost]
        own[side] = np.average(np.stack([feet[group], leans[group]], 1), axis=0, weights=weights[group])
    return own


def _along(paint: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """The paint that lies along one of the pieces, or carries it on into the distance."""
    height, width = paint.shape
    near = np.zeros_like(paint)
    thick = max(3, round(14 * width / 960))
    for x0, y0, x1, y1 in pieces:
        lean = (x1 - x0) / max(y1 - y0, 1e-3)
        top = max(y0 - 0.08 * height, 0.5 * height)
        ends = ((x0 + lean * (top - y0), top), (x1, y1))
        start, end = (tuple(round(float(value)) for value in each) for each in ends)
        cv2.line(near, start, end, 255, thick)
    return cv2.bitwise_and(paint, near)
