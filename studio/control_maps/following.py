"""Following: a box that somebody drew in one frame, in all others where the same thing is seen.

Points within the box are followed to the next frame and back again (Z. Kalal, K. Mikolajczyk, J. Matas,
"Forward-Backward Error", ICPR 2010): those that come home say where the box goes, and their distances how it grows. A
picture of the thing as it was holds the box against creeping. OpenCV's own TrackerMIL keeps a box's size, so a car that
comes nearer outgrows it. Knows frames and boxes. Refuses to know what is in a box, and to guess where it has gone.

Shapes: F frames, H rows, W columns, N points.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from studio.clips.control_maps import Box
from studio.control_maps.points import followed

POINTS = 12
"""Along and across, in a box."""
LEAST_SIDE = 5.0
"""Pixels: a smaller box is too far away to be followed."""
LEAST_LIKENESS = 0.25
"""Correlation with the picture of the thing; below it is lost."""
LEAST_VISIBLE = 0.25
"""Of a box, how much must be within the picture."""


@dataclass(frozen=True, kw_only=True)
class DrawnBox:
    """A box as somebody drew it."""

    frame: int
    """In which frame, counted from 0."""
    box: Box


def follow(frames: np.ndarray, drawn: Sequence[DrawnBox]) -> Generator[int, None, tuple[tuple[Box, ...], ...]]:
    """The boxes of each frame.

    Args:
        frames: uint8 RGB, (F, H, W, 3).
        drawn: Each is followed to the clip's end and to its beginning.

    Yields:
        How many steps from frame to frame are done, of `len(drawn) * (F - 1)`.
    """
    found: list[list[Box]] = [[] for _ in frames]
    done = 0
    for each in drawn:
        found[each.frame].append(clipped(each.box, frames.shape[1:3]))
        for way in (range(each.frame + 1, len(frames)), range(each.frame - 1, -1, -1)):
            one = Followed(frames[each.frame], each.box)
            for number in way:
                box = one.to(frames[number])
                done += 1
                yield done
                if box is None:
                    done += len(way) - 1 - abs(number - way[0])
                    break
                found[number].append(clipped(box, frames.shape[1:3]))
    return tuple(tuple(each) for each in found)


class Followed:
    """One thing, from frame to frame."""

    def __init__(self, frame: np.ndarray, box: Box) -> None:
        self.box = box
        self._grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self._likeness = self._cut(self._grey, box)

    def to(self, frame: np.ndarray) -> Box | None:
        """Where it is in the next frame; None where it is lost, and then for good."""
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        box = self._moved(grey)
        if box is not None:
            box = self._held(grey, box)
        self._grey = grey
        if box is None or min(box.width, box.height) < LEAST_SIDE or _visible(box, grey.shape) < LEAST_VISIBLE:
            return None
        self.box = box
        return box

    def _moved(self, grey: np.ndarray) -> Box | None:
        box = self.box
        inset_x, inset_y = 0.1 * box.width, 0.1 * box.height
        across = np.linspace(box.left + inset_x, box.right - inset_x, POINTS)
        down = np.linspace(box.top + inset_y, box.bottom - inset_y, POINTS)
        points = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2).astype(np.float32) - 0.5
        window = int(np.clip(min(box.width, box.height) / 2, 5, 15)) | 1
        there, error = followed(self._grey, grey, points, window=window)
        good = error < max(1.0, 0.05 * box.width)
        if good.sum() < 8:
            return None
        good &= error <= np.median(error[good]) + 1e-6
        start, end = points[good], there[good]
        shift = np.median(end - start, axis=0)
        grown = _growth(start, end)
        centre = np.array([box.left + box.right, box.top + box.bottom]) / 2 + shift
        half = np.array([box.width, box.height]) / 2 * grown
        (left, top), (right, bottom) = (centre - half).tolist(), (centre + half).tolist()
        return replace(box, left=left, top=top, right=right, bottom=bottom)

    def _held(self, grey: np.ndarray, box: Box) -> Box | None:
        """The box a little shifted and resized to what looks most like the thing; None where nothing does."""
        best, placed = -1.0, box
        for grown in (0.96, 1.0, 1.04):
            half_x, half_y = box.width / 2 * grown, box.height / 2 * grown
            middle_x, middle_y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
            for dx in (-0.04, 0.0, 0.04):
                for dy in (-0.04, 0.0, 0.04):
                    x, y = middle_x + dx * box.width, middle_y + dy * box.height
                    tried = replace(box, left=x - half_x, right=x + half_x, top=y - half_y, bottom=y + half_y)
                    cut = self._cut(grey, tried)
                    # What the points say weighs, too: only what is clearly more alike moves the box.
                    like = _correlation(cut, self._likeness) - 0.1 * (abs(dx) + abs(dy) + abs(grown - 1))
                    if like > best:
                        best, placed = like, tried
        if best < LEAST_LIKENESS:
            return None
        self._likeness = 0.9 * self._likeness + 0.1 * self._cut(grey, placed)
        return placed

    @staticmethod
    def _cut(grey: np.ndarray, box: Box) -> np.ndarray:
        """What a box shows, float32 (24, 24), whatever its size; beyond the picture its rim goes on."""
        side = 24
        steps = (np.arange(side) + 0.5) / side
        x = (box.left + steps * box.width - 0.5).astype(np.float32)
        y = (box.top + steps * box.height - 0.5).astype(np.float32)
        grid_x, grid_y = np.meshgrid(x, y)
        return cv2.remap(grey, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """What of a box lies within the picture, and how much that is."""
    height, width = size
    left, right = np.clip([box.left, box.right], 0, width).tolist()
    top, bottom = np.clip([box.top, box.bottom], 0, height).tolist()
    return replace(box, left=left, top=top, right=right, bottom=bottom, visible_fraction=_visible(box, size))


def _visible(box: Box, size: tuple[int, ...]) -> float:
    height, width = size[:2]
    seen = max(0.0, min(box.right, width) - max(box.left, 0)) * max(0.0, min(box.bottom, height) - max(box.top, 0))
    return seen / max(box.width * box.height, 1e-6)


def _growth(start: np.ndarray, end: np.ndarray) -> float:
    """By how much the points' distances from one another have grown: the median over pairs that are not neighbours."""
    half = len(start) // 2
    before = np.linalg.norm(start[half : 2 * half] - start[:half], axis=1)
    after = np.linalg.norm(end[half : 2 * half] - end[:half], axis=1)
    apart = before > 1e-3
    return float(np.clip(np.median(after[apart] / before[apart]), 0.8, 1.25)) if apart.any() else 1.0


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(np.sqrt((one**2).sum() * (other**2).sum()), 1e-6))
