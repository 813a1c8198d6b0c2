"""Edges: where a picture's light changes sharply, thin lines on black.

Knows one picture. Refuses to know what the edge is of.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np

SMOOTHED_OVER, KEPT_APART = 7, 40
"""Pixels and levels of the bilateral filter: grain and the marks of a codec go, borders stay."""
WEAK, STRONG = 80, 160
"""Canny's two thresholds: an edge begins at the second, and goes on above the first."""


def edges(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) to uint8 (H, W): 255 on an edge."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    smooth = cv2.bilateralFilter(grey, SMOOTHED_OVER, KEPT_APART, SMOOTHED_OVER)
    return cv2.Canny(smooth, WEAK, STRONG)
