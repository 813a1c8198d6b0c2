"""Clips and control maps: the arrays that pass between rooms.

Knows numpy. Refuses to know files, torch, and who is asking.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames in memory, with the rate at which to show them."""

    frames: np.ndarray
    """uint8, (F, H, W, 3), RGB."""
    fps: float
    """Frames a second."""
    caption: str = ""
    """What is to be seen, in words; empty when nobody has said."""

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise ValueError(f"frames must be uint8 (F, H, W, 3), not {self.frames.dtype} {self.frames.shape}")
        if not (self.fps > 0 and math.isfinite(self.fps)):
            raise ValueError(f"fps must be above 0 and finite, not {self.fps}")

    @property
    def num_frames(self) -> int:
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        return self.frames.shape[2]

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps


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


@dataclass(frozen=True, kw_only=True)
class ControlMaps:
    """What a clip shows, measured: each array has the clip's F, H and W. None where a map was not made."""

    depth: np.ndarray | None = None
    """float32, (F, H, W), metres along the optical axis; infinity for the sky."""
    semantic: np.ndarray | None = None
    """uint8, (F, H, W), class numbers; `semantic_labels` names them."""
    semantic_labels: tuple[str, ...] = ()
    """Name of class n at position n."""
    optical_flow: np.ndarray | None = None
    """float32, (F, H, W, 2), pixels (dx, dy) from frame t to t+1; the last frame's is zero."""
    boxes: tuple[tuple[Box, ...], ...] | None = None
    """For each frame, its boxes."""
    lane_lines: np.ndarray | None = None
    """uint8, (F, H, W), 255 on a painted lane line."""
    edges: np.ndarray | None = None
    """uint8, (F, H, W), 255 on an edge."""
    ego_motion: np.ndarray | None = None
    """float32, (F, 3): speed in metres a second, yaw rate in radians a second, steering angle in radians."""
