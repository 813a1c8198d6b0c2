"""Shrinking: a large picture becomes the small one that it would have been.

The one meaning of "shrunk" here: what an enlargement is corrected by, trained on and measured with. Knows OpenCV,
imported where it is used. Refuses to know why a picture is shrunk.

Shapes: H rows, W columns, C channels, s the scale.
"""

from __future__ import annotations

from functools import cache

import numpy as np


def shrunk(picture: np.ndarray, scale: int) -> np.ndarray:
    """float32 (sH, sW, C) to (H, W, C), by the bicubic filter with a = -0.5, widened so that nothing aliases.

    To rounding what torch's `interpolate` does with `antialias=True`, in less time.
    """
    height, width = picture.shape[:2]
    weights = _shrunk_along(np.ones((height, 1), np.float32), scale, 0)
    weights = weights * _shrunk_along(np.ones((1, width), np.float32), scale, 1)
    return _shrunk_along(_shrunk_along(picture, scale, 1), scale, 0) / weights[..., None]


def _shrunk_along(picture: np.ndarray, scale: int, axis: int) -> np.ndarray:
    """Weighted sums along one axis; where the filter reaches beyond the picture, nothing is added."""
    import cv2  # here, since the words floor must import in a blink

    taps = _shrinking_filter(scale)
    at_first = 2 * scale - scale // 2  # the tap that lies on the first of the pixels that become one
    kernel, anchor = (taps[:, None], (0, at_first)) if axis == 0 else (taps[None], (at_first, 0))
    summed = cv2.filter2D(picture, -1, kernel, anchor=anchor, borderType=cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(summed[::scale] if axis == 0 else summed[:, ::scale])


@cache
def _shrinking_filter(scale: int) -> np.ndarray:
    """(4s): Keys' cubic with a = -0.5, widened by the scale, at the pixels within its reach."""
    x = np.abs((np.arange(4 * scale) - 2 * scale + 0.5) / scale)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = np.where(x < 1, near, np.where(x < 2, far, 0))
    return (taps / taps.sum()).astype(np.float32)


def in_8_bits(picture: np.ndarray) -> np.ndarray:
    """Rounded to uint8; what is out of range is cut off."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
