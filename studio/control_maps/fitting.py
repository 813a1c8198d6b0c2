"""Fitting: maps are brought to exactly a height, a width and a number of frames, and it is said what was done to them.

diffusers' VACE pads a control that is too small or too short by tokens at its end, so that rows shift unseen, and
breaks down over one that is too long. Knows how each map is resized: a line stays a line, and a class is never mixed
with another. Refuses to know what they are fitted for.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from studio.clips.control_maps import ARRAYS, PICTURES, Box, ControlMaps
from studio.errors import RequestError

_LINES = ("edges", "lane_lines")
_SMOOTH = ("layout", "control_video")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Maps of exactly that size and length."""

    maps: ControlMaps
    done: tuple[str, ...]
    """What was done to them, in sentences; none where they fitted."""


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The part of a picture that is kept, and what it becomes."""

    left: int
    top: int
    width: int
    height: int
    to_width: int
    to_height: int

    @property
    def scale(self) -> np.ndarray:
        return np.array([self.to_width / self.width, self.to_height / self.height], np.float32)


def fitted(
    maps: ControlMaps, *, height: int, width: int, num_frames: int, size: tuple[int, int] | None = None
) -> Fitted:
    """The maps at exactly that size and length: cropped around the middle, scaled, trimmed at the end, or with their
    last frame repeated.

    Args:
        size: Height and width that boxes and motion are of, where no map says so.

    Raises:
        RequestError: there are no maps, or a number is not above 0.
    """
    for name, value in (("height", height), ("width", width), ("num_frames", num_frames)):
        if value < 1:
            raise RequestError(f"{name} must be at least 1, not {value}.", field=name, value=value)
    if not maps.names or not maps.num_frames:
        raise RequestError("There are no maps to be fitted.", field="maps", way_out="Extract some first.")
    done: list[str] = []
    maps = _timed(maps, num_frames, done)
    old = maps.size or size
    if old is not None and old != (height, width):
        maps = _resized(maps, _window(old, height, width, done))
    return Fitted(maps=maps, done=tuple(done))


def _window(old: tuple[int, int], height: int, width: int, done: list[str]) -> _Window:
    """The largest middle part of the right shape."""
    old_height, old_width = old
    part_width = min(old_width, max(1, round(old_height * width / height)))
    part_height = min(old_height, max(1, round(old_width * height / width)))
    if (part_height, part_width) != old:
        done.append(
            f"Cropped from {old_width}×{old_height} to its middle {part_width}×{part_height}, the shape that is made."
        )
    if (part_height, part_width) != (height, width):
        done.append(f"Scaled from {part_width}×{part_height} to {width}×{height}.")
    return _Window(
        left=(old_width - part_width) // 2,
        top=(old_height - part_height) // 2,
        width=part_width,
        height=part_height,
        to_width=width,
        to_height=height,
    )


def _timed(maps: ControlMaps, num_frames: int, done: list[str]) -> ControlMaps:
    count = maps.num_frames
    if count == num_frames:
        return maps
    if count > num_frames:
        done.append(f"Trimmed from {count} frames to the first {num_frames}.")
    else:
        done.append(
            f"Only {count} of {num_frames} frames are there: the last one is repeated {num_frames - count} times."
        )
    frames = np.minimum(np.arange(num_frames), count - 1)
    changed: dict[str, Any] = {name: array[frames] for name in ARRAYS if (array := getattr(maps, name)) is not None}
    if maps.boxes is not None:
        changed["boxes"] = tuple(maps.boxes[frame] for frame in frames)
    if maps.optical_flow is not None and count < num_frames:  # what is repeated stands still
        changed["optical_flow"][count - 1 :] = 0
    if maps.ego_motion is not None and count < num_frames:
        changed["ego_motion"][count:, :2] = 0
    return replace(maps, **changed)


def _resized(maps: ControlMaps, window: _Window) -> ControlMaps:
    changed: dict[str, Any] = {}
    for name in PICTURES:
        array = getattr(maps, name)
        if array is not None:
            changed[name] = np.stack([_picture(name, frame, window) for frame in array])
    corner = np.array([window.left, window.top], np.float32)
    for name in ("own_lane", "expansion_centre"):
        places = getattr(maps, name)
        if places is not None:
            changed[name] = (places - corner) * window.scale
    if maps.boxes is not None:
        changed["boxes"] = tuple(
            tuple(moved for box in frame if (moved := _box(box, window)) is not None) for frame in maps.boxes
        )
    return replace(maps, **changed)


def _picture(name: str, frame: np.ndarray, window: _Window) -> np.ndarray:
    part = frame[window.top : window.top + window.height, window.left : window.left + window.width]
    size = (window.to_width, window.to_height)
    shrinks = window.to_width < window.width or window.to_height < window.height
    if name in _SMOOTH:
        return cv2.resize(part, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if name in _LINES:
        return _lines(part, size, float(window.scale.min()))
    if name == "optical_flow_known":
        return cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    nearest = cv2.resize(part, size, interpolation=cv2.INTER_NEAREST)
    return nearest * window.scale if name == "optical_flow" else nearest


def _lines(part: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    """A line one pixel wide covers only a share of a smaller picture's pixel: it is one from half of that on."""
    if scale >= 1:
        return (cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8) * 255
    covered = cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return (covered > 127.5 * scale).astype(np.uint8) * 255


def _box(box: Box, window: _Window) -> Box | None:
    """None where nothing of it is left within the window."""
    across, down = window.scale.tolist()
    left, right = (np.clip((x - window.left) * across, 0, window.to_width) for x in (box.left, box.right))
    top, bottom = (np.clip((y - window.top) * down, 0, window.to_height) for y in (box.top, box.bottom))
    if right - left < 1e-6 or bottom - top < 1e-6:
        return None
    return replace(box, left=float(left), top=float(top), right=float(right), bottom=float(bottom))
