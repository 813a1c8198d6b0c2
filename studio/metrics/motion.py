"""Motion: how a clip changes from frame to frame, without a reference.

Knows neighbouring frames and OpenCV's dense optical flow, imported where it is used. Refuses to know what ought to
move: flicker counts an honest motion too, and only the flow-warp error takes the motion away first.

Flow is found by polynomial expansion: G. Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA
2003. OpenCV's dense inverse search is finer on rich texture, but ends the whole process on some small or long frames.

Shapes: F frames, H rows, W columns; clips are uint8, (F, H, W, 3), RGB, levels 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from studio.metrics.shapes import check_clip, check_neighbours, check_side

FLOW_WINDOW = 15
"""Side of the square, in pixels, over which the flow is averaged."""

FLOW_LEAST_SIDE = FLOW_WINDOW
"""A smaller picture has no full window anywhere."""


@dataclass(frozen=True, kw_only=True)
class FlowWarp:
    """What is left of the change between neighbouring frames once the motion is taken away."""

    error: float
    """Mean absolute difference in levels, 0 to 255, over R, G, B and the trusted pixels; NaN where none is trusted."""
    trusted_share: float
    """Share of pixels, 0 to 1, that the flow could follow forth and back. A low share makes the error say little."""


def flicker(clip: np.ndarray) -> float:
    """Temporal flicker: mean absolute difference of neighbouring frames in levels, 0 to 255, over R, G and B.

    As in VBench (Z. Huang et al., CVPR 2024), before it is turned into a score. Motion counts as flicker here: compare
    clips of the same scene.
    """
    check_clip(clip)
    check_neighbours(clip, "Flicker")
    differences = (np.abs(after.astype(np.int16) - before) for before, after in _neighbours(clip))
    return math.fsum(difference.mean(dtype=np.float64) for difference in differences) / (len(clip) - 1)


def flow_warp_error(clip: np.ndarray) -> float:
    """The error of `flow_warp` alone: small where things keep their colours as they move."""
    return flow_warp(clip).error


def flow_warp(clip: np.ndarray) -> FlowWarp:
    """Warps each frame t+1 back along the flow from t, and compares it with frame t outside occlusions.

    After W.-S. Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, with the absolute difference in
    levels in place of their squared one. A pixel x is trusted where it stays in the picture and where, with the flow w
    forth from t and the flow v back from t+1, read at x + w(x),

        |w + v|² <= 0.01 (|w|² + |v|²) + 0.5

    (N. Sundaram, T. Brox, K. Keutzer, "Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow",
    ECCV 2010). The mean is over all trusted pixels of the clip, so that a cut weighs little.
    """
    _check_flow(clip, "Flow-warp error")
    summed, trusted = 0.0, 0
    for before, after in _neighbours(clip):
        follows, warped = _warped_back(before, after)
        summed += float(np.abs(warped - before)[follows].sum(dtype=np.float64))
        trusted += int(follows.sum())
    pixels = (len(clip) - 1) * clip.shape[1] * clip.shape[2]
    return FlowWarp(error=summed / (3 * trusted) if trusted else math.nan, trusted_share=trusted / pixels)


def motion_magnitude(clip: np.ndarray) -> float:
    """Mean length of the optical flow, in pixels from one frame to the next, over all pixels and pairs of frames.

    On a surface without texture, and where something leaves the picture, the flow is a guess: compare clips of the same
    scene.
    """
    _check_flow(clip, "Motion magnitude")
    lengths = (np.linalg.norm(optical_flow(before, after), axis=-1) for before, after in _neighbours(clip))
    return math.fsum(length.mean(dtype=np.float64) for length in lengths) / (len(clip) - 1)


def optical_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """float32, (H, W, 2): dx, dy in pixels such that after[y + dy, x + dx] shows what before[y, x] does."""
    import cv2

    grey_before, grey_after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after))
    flow = np.zeros((*grey_before.shape, 2), np.float32)
    # Five levels follow a motion of tens of pixels; 5 and 1.1 are the neighbourhood and width that belong together.
    return cv2.calcOpticalFlowFarneback(
        grey_before,
        grey_after,
        flow,
        pyr_scale=0.5,
        levels=5,
        winsize=FLOW_WINDOW,
        iterations=3,
        poly_n=5,
        poly_sigma=1.1,
        flags=0,
    )


def _neighbours(clip: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return pairwise(clip)


def _check_flow(clip: np.ndarray, metric: str) -> None:
    check_clip(clip)
    check_neighbours(clip, metric)
    check_side(clip, FLOW_LEAST_SIDE, metric)


def _warped_back(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the flow is trusted, bool (H, W), and the later frame as seen from the earlier, float32 (H, W, 3)."""
    follows, x, y = traced(optical_flow(before, after), optical_flow(after, before))
    return follows, seen_along(after, x, y)


def traced(forth: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a flow can be trusted, and where it leads to: bool, and columns and rows, float32, all (H, W).

    A pixel is trusted where it stays in the picture and the flow back leads home again, as `flow_warp` says.
    """
    import cv2

    height, width = forth.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = columns + forth[..., 0], rows + forth[..., 1]
    met = cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    lengths = _squared_length(forth) + _squared_length(met)
    return inside & (_squared_length(forth + met) <= 0.01 * lengths + 0.5), x, y


def seen_along(frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A frame read at these places, float32 (H, W, 3)."""
    import cv2

    return cv2.remap(frame.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _squared_length(flow: np.ndarray) -> np.ndarray:
    return np.square(flow).sum(axis=-1)
