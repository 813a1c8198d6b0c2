"""Scene cuts: where a picture has nothing to do with the one before.

A cut changes most of a picture at once; what moves or fades changes a little in every one. So a cut is where small grey
copies of two pictures differ by much, and by several times as much as was usual a moment before.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from collections import deque
from statistics import median

import cv2
import numpy as np

LEAST = 20.0
"""Mean difference, in grey levels, below which nothing is a cut."""
TIMES_THE_USUAL = 3.0
RECENT = 8
"""Differences of which the usual one is the median."""


class SceneCuts:
    """Looks at the pictures of a clip in their order."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)

    def begins(self, picture: np.ndarray) -> bool:
        """Whether a new scene begins with this picture, uint8 (H, W, 3)."""
        small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (64, 36), interpolation=cv2.INTER_AREA)
        small = small.astype(np.float32)
        before, self._before = self._before, small
        if before is None:
            return False
        difference = float(np.abs(small - before).mean())
        usual = median(self._recent) if self._recent else 0.0
        if difference >= LEAST and difference >= TIMES_THE_USUAL * usual:
            self._recent.clear()
            return True
        self._recent.append(difference)
        return False
