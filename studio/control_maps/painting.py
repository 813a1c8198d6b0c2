"""Painting: maps as pictures, to be looked at and to be given to a model that takes a control video.

Knows how each map is painted, and which of the paintings can be read back (`control_videos` does). Refuses to know
files.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from studio.clips.control_maps import TITLES, Box, ControlMaps, MapName
from studio.errors import RequestError

WHITE_METRES = 4.0
"""Depth that is painted white: brightness is this over the depth, so the sky is black, as is what is not known."""
FASTEST = 1 / 40
"""Of the picture's width: flow that is painted in full colour."""
SEMANTIC_COLOURS = {
    "other": (64, 64, 64),
    "sky": (70, 130, 230),
    "hill": (20, 70, 60),
    "ground": (110, 150, 40),
    "road": (128, 64, 128),
    "pavement": (240, 60, 230),
    "lane_line": (255, 255, 255),
    "road_marking": (200, 200, 140),
    "building": (140, 40, 40),
    "tree": (20, 140, 30),
    "rock": (120, 100, 70),
    "lamp": (250, 210, 110),
    "sign": (220, 220, 0),
    "traffic_light": (250, 150, 20),
    "car": (0, 20, 160),
    "truck": (0, 160, 160),
    "bus": (0, 90, 255),
    "motorbike": (110, 0, 230),
    "pedestrian": (230, 20, 60),
}
"""Far apart, so that a codec does not mix them up."""
_UNNAMED = (255, 0, 128)


def painted(maps: ControlMaps, name: MapName, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """One map as pictures, uint8 RGB (F, H, W, 3).

    Args:
        size: Height and width, for boxes and ego-motion where no other map says them.

    Raises:
        RequestError: that map is not there.
    """
    if getattr(maps, name) is None:
        raise RequestError(
            f"There is no {TITLES[name].lower()} among these maps.",
            field="maps",
            value=name,
            way_out=f"There are: {', '.join(maps.names) or 'none'}.",
        )
    return _PAINTERS[name](maps, maps.size or size or (256, 256))


def painted_together(
    maps: ControlMaps, strengths: Mapping[MapName, float], *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Several maps as one picture, uint8 RGB (F, H, W, 3), for a model that takes a single control video.

    What fills the picture is mixed, each by its strength; lines are drawn over it, the more opaque the stronger. One
    map at strength 1 is its own painting, bit for bit.

    Args:
        maps: Which have them all.
        strengths: 0 to 1, by map; what is not named is not painted.
        size: As in `painted`.
    """
    named: list[MapName] = [name for name in maps.names if strengths.get(name, 0) > 0]
    if len(named) == 1 and strengths[named[0]] == 1:
        return painted(maps, named[0], size=size)
    filling: list[MapName] = [name for name in named if name not in _DRAWN]
    drawn: list[MapName] = [name for name in named if name in _DRAWN]
    share = 1 / max(1.0, sum(strengths[name] for name in filling))
    height, width = maps.size or size or (256, 256)
    picture = np.zeros((maps.num_frames, height, width, 3), np.float32)
    for name in filling:
        picture += np.float32(share * strengths[name]) * painted(maps, name, size=size)
    for name in drawn:
        lines = painted(maps, name, size=size)
        opaque = np.float32(strengths[name] / 255) * lines.max(axis=-1, keepdims=True)
        picture += opaque * (lines - picture)
    return np.rint(picture).astype(np.uint8)


_DRAWN: tuple[MapName, ...] = ("edges", "lane_lines", "boxes", "ego_motion")
"""Lines on black: what they leave black they say nothing of."""


def over(frames: np.ndarray, painting: np.ndarray, *, share: float = 0.65) -> np.ndarray:
    """A painting laid over the clip it is of, uint8 (F, H, W, 3): black lets the clip through, darkened a little."""
    clip = frames.astype(np.float32) * (1 - 0.5 * share)
    return np.clip(clip + share * painting, 0, 255).astype(np.uint8)


def semantic_colours(labels: tuple[str, ...]) -> np.ndarray:
    """uint8, (classes, 3), RGB."""
    return np.array([SEMANTIC_COLOURS.get(label, _UNNAMED) for label in labels], np.uint8)


def _grey(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return np.repeat(array[..., None], 3, axis=-1)


def _depth(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    assert maps.depth is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.nan_to_num(WHITE_METRES / maps.depth, nan=0.0, posinf=1.0)
    return _grey(np.rint(255 * np.clip(near, 0, 1)).astype(np.uint8))


def _lanes(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    return _grey(maps.lane_lines)


def _semantic(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    return semantic_colours(maps.semantic_labels)[maps.semantic]


def _flow(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    flow, known = maps.optical_flow, maps.optical_flow_known
    assert flow is not None
    pictures = np.zeros((*flow.shape[:3], 3), np.uint8)
    for number, moved in enumerate(flow):
        length, angle = cv2.cartToPolar(np.ascontiguousarray(moved[..., 0]), np.ascontiguousarray(moved[..., 1]))
        value = np.clip(length / (FASTEST * flow.shape[2]), 0, 1)
        hue = (angle * 90 / np.pi).astype(np.uint8) % 180
        hsv = np.stack([hue, np.full_like(hue, 255), (255 * np.sqrt(value)).astype(np.uint8)], axis=-1)
        pictures[number] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if known is not None:
            pictures[number][~known[number]] = 0
    return pictures


def _boxes(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    assert maps.boxes is not None
    pictures = np.zeros((len(maps.boxes), *size, 3), np.uint8)
    for picture, boxes in zip(pictures, maps.boxes, strict=True):
        for box in reversed(boxes):  # the nearest last
            _outline(picture, box)
    return pictures


def _outline(picture: np.ndarray, box: Box) -> None:
    hue = np.array([[[box.instance_id * 67 % 180, 200, 255]]], np.uint8)
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    first, last = (round(box.left), round(box.top)), (round(box.right) - 1, round(box.bottom) - 1)
    cv2.rectangle(picture, first, last, colour, max(1, round(picture.shape[1] / 480)))


def _ego_motion(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    """A cross where the motion leads to, and a bar at the foot that leans to where the car turns."""
    assert maps.ego_motion is not None
    height, width = size
    pictures = np.zeros((len(maps.ego_motion), height, width, 3), np.uint8)
    thick = max(1, round(width / 320))
    for number, picture in enumerate(pictures):
        if maps.expansion_centre is not None and np.isfinite(maps.expansion_centre[number]).all():
            x, y = np.rint(np.clip(maps.expansion_centre[number], -1e4, 1e4)).astype(int).tolist()
            cv2.drawMarker(picture, (x, y), (255, 220, 0), cv2.MARKER_CROSS, max(8, width // 16), thick)
        turn = float(maps.ego_motion[number, 1])
        if np.isfinite(turn):
            end = round(width / 2 - np.clip(turn, -1, 1) * width / 2)
            foot = height - 1 - 2 * thick
            cv2.line(picture, (width // 2, foot), (end, foot), (0, 200, 255), 2 * thick)
            cv2.line(picture, (width // 2, foot - 3 * thick), (width // 2, height - 1), (255, 255, 255), thick)
    return pictures


def _control_video(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    assert maps.control_video is not None
    return maps.control_video


_PAINTERS: dict[MapName, Callable[[ControlMaps, tuple[int, int]], np.ndarray]] = {
    "layout": lambda maps, size: _grey(maps.layout),
    "edges": lambda maps, size: _grey(maps.edges),
    "lane_lines": _lanes,
    "depth": _depth,
    "semantic": _semantic,
    "optical_flow": _flow,
    "boxes": _boxes,
    "ego_motion": _ego_motion,
    "control_video": _control_video,
}
