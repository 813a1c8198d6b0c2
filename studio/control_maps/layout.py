"""Layout: luminance without detail. The strongest control there is in every published comparison, and the cheapest.

Knows one picture. Refuses to know what it shows.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np

CELL = 16
"""Pixels, along and across, that become one."""


def layout(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) to uint8 (H, W): averaged over cells, and smoothly enlarged again."""
    height, width = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    cells = (max(2, round(width / CELL)), max(2, round(height / CELL)))
    return cv2.resize(
        cv2.resize(grey, cells, interpolation=cv2.INTER_AREA), (width, height), None, 0, 0, cv2.INTER_CUBIC
    )
