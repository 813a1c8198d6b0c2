"""Optical flow, and where it can be trusted: the mask belongs to it, for on a smooth road half of it is a guess.

Found and judged as the metrics do (`studio.metrics.warping`). Knows two neighbouring pictures. Refuses to know what
moves.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from studio.metrics.warping import WARPING_LEAST_SIDE, paths

LEAST_SIDE = WARPING_LEAST_SIDE
"""Smaller pictures have no flow."""
STEPS = 64
"""To a pixel: finer than any flow is found, and a file of it is half as large."""


def optical_flow(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two uint8 RGB (H, W, 3) to pixels (dx, dy), float32 (H, W, 2), and where they can be trusted, bool (H, W)."""
    found = paths(before, after)
    rows, columns = np.indices(found.follows.shape, dtype=np.float32)
    moved = np.stack([found.x - columns, found.y - rows], axis=-1)
    return np.rint(moved * STEPS) / np.float32(STEPS), found.follows
