"""The eye of the driving world: a level pinhole camera behind the windscreen.

Knows how a point in front of the eye becomes a point in the picture. Refuses to know what stands there.

Axes. World: X east, Y north, Z up, in metres. Camera: right, down, forward, in metres.
Image: x to the right and y downward in pixels, measured from the picture's top left *corner*, so that the centre of
pixel (row, column) lies at (column + 0.5, row + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

EYE_METRES = 1.5
"""Height of the eye above the road."""
HORIZON = 0.45
"""The horizon's row, as a share of the picture's height. The camera never pitches or rolls, so it stays there."""
FOCAL = 0.785
"""Focal length over the geometric mean of height and width: a square picture sees 65 degrees."""
NEAR_METRES = 0.6
"""Nothing nearer than this is drawn. The nearest visible road is more than 2 metres away."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A picture size, and with it the lens."""

    height: int
    """Rows, in pixels."""
    width: int
    """Columns, in pixels."""

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 8:
                raise ValueError(f"{name} must be at least 8 pixels, not {value}")

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL * sqrt(self.height * self.width)

    @property
    def centre_x(self) -> float:
        return self.width / 2

    @property
    def horizon_y(self) -> float:
        return self.height * HORIZON

    @property
    def half_view(self) -> float:
        """Tangent of half the horizontal angle of view."""
        return self.width / 2 / self.focal

    def project(self, right: np.ndarray, down: np.ndarray, forward: np.ndarray) -> np.ndarray:
        """Camera metres, each (...), to image pixels, (..., 2). Depth is held at `NEAR_METRES` or more.

        Holding depth (rather than clipping) is exact for ground edges that run straight ahead, and ground that near
        lies below the picture. Faces that stand up are clipped properly by `clip_near` before they come here.
        """
        scale = self.focal / np.maximum(forward, NEAR_METRES)
        image = np.empty((*right.shape, 2), np.float32)
        np.multiply(right, scale, out=image[..., 0])
        np.multiply(down, scale, out=image[..., 1])
        image[..., 0] += self.centre_x
        image[..., 1] += self.horizon_y
        return image

    def project_direction(self, azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
        """A direction at infinity (radians to the left of the axis and above the horizon) to image pixels, (..., 2)."""
        x = self.centre_x - self.focal * np.tan(azimuth)
        y = self.horizon_y - self.focal * np.tan(elevation) / np.cos(azimuth)
        return np.stack([x, y], axis=-1).astype(np.float32)


def clip_near(points: np.ndarray) -> np.ndarray:
    """The part of a polygon at least `NEAR_METRES` ahead; (n, 3) camera metres to (m, 3) (Sutherland and Hodgman)."""
    kept: list[np.ndarray] = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= NEAR_METRES:
            kept.append(start)
        if (start[2] >= NEAR_METRES) != (end[2] >= NEAR_METRES):
            share = (NEAR_METRES - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start))
    return np.array(kept, np.float32).reshape(-1, 3)
