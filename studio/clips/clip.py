"""Clips: the arrays that pass between rooms.

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
