"""Methods: the pictures of a clip become larger ones, a few at a time.

The weightless ones, as everybody else has them too: the interpolations are OpenCV's (its bicubic has a = -0.75; its
Lanczos reaches over 8 pixels). Back-projection (Irani and Peleg, 1991) shrinks what was made, by the bicubic filter
that shrinks without aliasing, and adds the enlarged difference from what was given; after three rounds hardly anything
is left to correct.

Shapes: N pictures, H rows, W columns, s the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from studio.clips.shrinking import in_8_bits, shrunk
from studio.records.enlarger_versions import EnlargerVersionStore
from studio.requests.super_resolution import SuperResolutionRequest, enlarger_of


class Upscaler(Protocol):
    """Enlarges the pictures of a clip in their order."""

    at_once: int
    """How many pictures it is given at a time, at most; a part holds a whole number of times as many."""
    memory: int
    """How many pictures before those one depends on."""

    def reset(self) -> None:
        """Forget the pictures before: a new scene begins."""

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """The next pictures, uint8 (N, H, W, 3), as uint8 (N, sH, sW, 3)."""
        ...


def upscaler_for(
    request: SuperResolutionRequest, runs_folder: Path | None = None, *, check: Callable[[], None] = lambda: None
) -> Upscaler:
    """What enlarges as the request says; a model is loaded for it.

    Args:
        runs_folder: Where fine-tuned versions lie, if one is asked for.
        check: Called while a model is loaded or makes pictures, where that takes long; what it raises ends it.

    Raises:
        StudioError: there is no such method, or its model cannot be loaded.
    """
    preset = enlarger_of(request)
    if preset is not None:
        from studio.super_resolve.networks import network_for

        return network_for(preset, request, network_of(request, runs_folder), check=check)
    if request.method == "back-projection":
        return BackProjection(request.scale, request.back_projections)
    return Interpolation(request.scale, _FILTERS[request.method])


def network_of(request: SuperResolutionRequest, runs_folder: Path | None) -> Path | None:
    """The folder of the version that is asked for; None for the model as it came. Raises VersionError."""
    if request.adapter is None:
        return None
    versions = EnlargerVersionStore(runs_folder or Path())
    return versions.network(request.adapter, method=request.method, restore=request.restore)


class Interpolation:
    """Each new pixel is a weighted sum of the old ones near it."""

    at_once, memory = 1, 0

    def __init__(self, scale: int, filter_: int) -> None:
        self._scale, self._filter = scale, filter_

    def reset(self) -> None:
        pass

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([enlarged(picture, self._scale, self._filter) for picture in pictures])


class BackProjection:
    """Lanczos, corrected until the result, shrunk again, is what was given."""

    at_once, memory = 1, 0

    def __init__(self, scale: int, rounds: int) -> None:
        self._scale, self._rounds = scale, rounds

    def reset(self) -> None:
        pass

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([self._enlarged(picture.astype(np.float32)) for picture in pictures])

    def _enlarged(self, given: np.ndarray) -> np.ndarray:
        large = enlarged(given, self._scale, cv2.INTER_LANCZOS4)
        back_project(large, given, self._scale, self._rounds)
        return in_8_bits(large)


def back_project(large: np.ndarray, given: np.ndarray, scale: int, rounds: int) -> None:
    """Correct an enlarged picture, float32 (sH, sW, 3), in place, until shrunk again it is what was given (H, W, 3)."""
    for _ in range(rounds):
        large += enlarged(given - shrunk(large, scale), scale, cv2.INTER_LANCZOS4)


def enlarged(picture: np.ndarray, scale: int, filter_: int = cv2.INTER_CUBIC) -> np.ndarray:
    """(H, W, C) to (sH, sW, C), in the number format that was given."""
    height, width = picture.shape[:2]
    return cv2.resize(picture, (width * scale, height * scale), interpolation=filter_)


_FILTERS = {"bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}
