"""Points that are followed from one picture to another and back again (J.-Y. Bouguet's pyramid of B. Lucas and T.
Kanade's method): whoever does not come home was lost on the way.

Knows two grey pictures. Refuses to know what the points are for.

Shapes: H rows, W columns, N points.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np


def followed(
    before: np.ndarray, after: np.ndarray, points: np.ndarray, *, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where points are in the second picture, float32 (N, 2), and how far from home they come back, (N,); infinitely
    far where they were lost.

    Args:
        before, after: uint8, (H, W).
        points: float32, (N, 2), x and y with the first pixel's centre at 0.
        window: Side, in pixels, of what is looked at around each; odd.
    """
    nothing_yet: Any = None  # which the search fills
    start = points.reshape(-1, 1, 2).astype(np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, nothing_yet, winSize=(window, window), maxLevel=3)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(
        after, before, there, nothing_yet, winSize=(window, window), maxLevel=3
    )
    error = np.linalg.norm((back - start).reshape(-1, 2), axis=1)
    lost = (found.ravel() == 0) | (found_back.ravel() == 0)
    return there.reshape(-1, 2), np.where(lost, np.inf, error)
