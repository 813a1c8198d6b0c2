"""Where a paste may change the picture: on itself, and a little around it, farthest towards the ground.

A vehicle throws its shadow below and beside itself, and its lamps shine a little over their rims. So much of the
picture is the harmoniser's; the rest stays the source's. Every reach is a share of the vehicle's own size, which is all
that is known of how near it is.

Knows numpy and OpenCV. Refuses to know tensors and models.

Shapes: H rows, W columns; alpha and zone 0…1.
"""

from __future__ import annotations

import cv2
import numpy as np

ABOVE, BESIDE, BELOW = 0.1, 0.2, 0.3
"""How far the zone reaches past the paste, as shares of the paste's height."""
LEAST = 4
"""Pixels that it reaches at the least, each way."""
FEATHER = 0.06
"""Over which share of the paste's height the zone's weight rises from its border on."""
SEEN = 0.02
"""Alpha below which a pixel is not the paste's: too little to be seen in eight bits on most of it."""


def zone_of(alpha: np.ndarray) -> np.ndarray:
    """The weight of what is made, float32 (H, W): 0 where the source stays, 1 on the paste, between the two a ramp."""
    shown = (alpha > SEEN).astype(np.uint8)
    rows = np.flatnonzero(shown.any(axis=1))
    if not len(rows):
        return np.zeros(alpha.shape, np.float32)
    height = int(rows[-1] - rows[0] + 1)
    above, beside, below = (max(LEAST, round(share * height)) for share in (ABOVE, BESIDE, BELOW))
    # OpenCV looks at what lies around a pixel: to spread downward it has to look upward.
    around = np.ones((above + below + 1, 2 * beside + 1), np.uint8)
    grown = cv2.dilate(shown, around, anchor=(beside, below))
    ramp = max(2.0, FEATHER * height)
    # Beyond the picture's edge there is no border to be soft at.
    framed = cv2.copyMakeBorder(grown, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.clip(distance / ramp, 0.0, 1.0).astype(np.float32)


def surroundings_of(picture: np.ndarray, side: int) -> np.ndarray:
    """A whole picture, uint8 (H, W, 3), made small: uint8 (side, side, 3)."""
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
