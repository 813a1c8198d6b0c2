"""Control maps: what a clip shows, measured picture by picture, so that a new clip can be held to it.

Exact ones come from the driving world; from a clip they are extracted, and from elsewhere they are read. Whoever made
them, they are these arrays. Knows numpy, which maps there are and what each may hold. Refuses to know files, how a map
is found, and how it is painted.

Shapes: F frames, H rows, W columns. Places in a picture are in pixels from its top left *corner*: the centre of pixel
(row, column) lies at (column + 0.5, row + 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

MapName = Literal[
    "layout", "edges", "lane_lines", "depth", "semantic", "optical_flow", "boxes", "ego_motion", "control_video"
]
"""What a person can ask for, by the field that holds it."""
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
EXTRACTED: tuple[MapName, ...] = MAP_NAMES[:-1]
"""Those that are measured; the last is taken as it comes."""
SHORT_NAMES: dict[str, MapName] = {
    "lanes": "lane_lines",
    "flow": "optical_flow",
    "regions": "semantic",
    "motion": "ego_motion",
}
"""Other words for maps."""
ASSUMED_EYE_METRES = 1.5
"""Height of a car's eye above the road: what depth is reckoned with where nobody has measured it."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """One object in one frame, in pixels of that frame; the far edges are exclusive."""

    instance_id: int
    """The same object keeps its number through the clip."""
    label: str
    """What it is: car, truck, bus, motorbike, pedestrian, traffic_light, sign."""
    left: float
    top: float
    right: float
    bottom: float
    visible_fraction: float = 1.0
    """Share of the object's own pixels that nothing nearer hides, 0 to 1."""

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class ControlMaps:
    """What a clip shows, measured: each array has the clip's F, H and W. None where a map was not made."""

    depth: np.ndarray | None = None
    """float32, (F, H, W), metres along the optical axis; infinity for the sky, NaN where it is not known."""
    semantic: np.ndarray | None = None
    """uint8, (F, H, W), class numbers; `semantic_labels` names them."""
    semantic_labels: tuple[str, ...] = ()
    """Name of class n at position n."""
    optical_flow: np.ndarray | None = None
    """float32, (F, H, W, 2), pixels (dx, dy) from frame t to t+1; the last frame's is zero."""
    optical_flow_known: np.ndarray | None = None
    """bool, (F, H, W): where the flow can be trusted; nowhere in the last frame. None where it is exact throughout."""
    boxes: tuple[tuple[Box, ...], ...] | None = None
    """For each frame, its boxes."""
    lane_lines: np.ndarray | None = None
    """uint8, (F, H, W), 255 on a painted lane line."""
    own_lane: np.ndarray | None = None
    """float32, (F, 2, 2, 2): the left and the right line of our own lane as straight lines, each from its far end to
    its near one, as x and y; NaN where a line is not found. It comes with `lane_lines`."""
    edges: np.ndarray | None = None
    """uint8, (F, H, W), 255 on an edge."""
    layout: np.ndarray | None = None
    """uint8, (F, H, W), luminance without detail: what is light and what is dark, and roughly where."""
    ego_motion: np.ndarray | None = None
    """float32, (F, 3): speed in metres a second, yaw rate in radians a second (positive to the left), steering angle in
    radians; NaN where it is not known. From a clip, speed is reckoned with an eye at `ASSUMED_EYE_METRES`: its
    course in time can be trusted, its size cannot."""
    expansion_centre: np.ndarray | None = None
    """float32, (F, 2): where in the picture the motion leads to, as x and y: everything that stands still moves away
    from there. NaN where it is not known, as of a car that stands. It comes with `ego_motion`."""
    control_video: np.ndarray | None = None
    """uint8, (F, H, W, 3), RGB: a control video from elsewhere as it came, where it is none of these maps."""
    fps: float | None = None
    """Frames a second; None where nobody has said."""

    def __post_init__(self) -> None:
        sizes = {name: array.shape[:3] for name, array in self._pictures().items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"maps of one clip have one size, not {sizes}")
        for name, (kind, ndim, last) in _SHAPES.items():
            array = getattr(self, name)
            if array is None:
                continue
            if array.dtype != kind or array.ndim != ndim or (last and array.shape[-len(last) :] != last):
                raise ValueError(f"{name} must be {np.dtype(kind)}, not {array.dtype} {array.shape}")
        if len({*(size[0] for size in sizes.values()), *self._counts()}) > 1:
            raise ValueError("maps of one clip have as many frames as one another")
        if self.semantic is not None and not self.semantic_labels:
            raise ValueError("semantic needs semantic_labels, which name its classes")
        if self.fps is not None and not (self.fps > 0 and math.isfinite(self.fps)):
            raise ValueError(f"fps must be above 0 and finite, not {self.fps}")

    def _pictures(self) -> dict[str, np.ndarray]:
        named = {name: getattr(self, name) for name in PICTURES}
        return {name: array for name, array in named.items() if array is not None}

    def _counts(self) -> set[int]:
        lists = (self.boxes, self.own_lane, self.ego_motion, self.expansion_centre)
        return {len(each) for each in lists if each is not None}

    @property
    def names(self) -> tuple[MapName, ...]:
        """Which maps there are, in the usual order."""
        return tuple(name for name in MAP_NAMES if getattr(self, name) is not None)

    @property
    def num_frames(self) -> int:
        return next(iter({*(len(array) for array in self._pictures().values()), *self._counts()}), 0)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width; None where no map is a picture."""
        array = next(iter(self._pictures().values()), None)
        return None if array is None else (array.shape[1], array.shape[2])


_SHAPES: dict[str, tuple[type, int, tuple[int, ...]]] = {
    "depth": (np.float32, 3, ()),
    "semantic": (np.uint8, 3, ()),
    "optical_flow": (np.float32, 4, (2,)),
    "optical_flow_known": (np.bool_, 3, ()),
    "lane_lines": (np.uint8, 3, ()),
    "own_lane": (np.float32, 4, (2, 2, 2)),
    "edges": (np.uint8, 3, ()),
    "layout": (np.uint8, 3, ()),
    "ego_motion": (np.float32, 2, (3,)),
    "expansion_centre": (np.float32, 2, (2,)),
    "control_video": (np.uint8, 4, (3,)),
}
"""Of each array: its kind of number, how many axes it has, and the last of them."""
ARRAYS = tuple(_SHAPES)
PICTURES = ("depth", "semantic", "optical_flow", "optical_flow_known", "lane_lines", "edges", "layout", "control_video")
"""The arrays that have a value for each pixel."""
BESIDES: dict[MapName, tuple[str, ...]] = {
    "semantic": ("semantic_labels",),
    "optical_flow": ("optical_flow_known",),
    "lane_lines": ("own_lane",),
    "ego_motion": ("expansion_centre",),
}
"""What belongs to a map and comes and goes with it."""


def only(maps: ControlMaps, names: tuple[MapName, ...]) -> ControlMaps:
    """Some of the maps, with what belongs to them."""
    kept = {"fps", *names, *(field for name in names for field in BESIDES.get(name, ()))}
    return ControlMaps(**{each.name: getattr(maps, each.name) for each in fields(maps) if each.name in kept})


TITLES: dict[MapName, str] = {
    "layout": "Layout",
    "edges": "Edges",
    "lane_lines": "Lanes",
    "depth": "Depth",
    "semantic": "Road, sky and the rest",
    "optical_flow": "Optical flow",
    "boxes": "Boxes",
    "ego_motion": "Ego-motion",
    "control_video": "Control video",
}
"""What a person calls each."""
