"""The stretch of a clip that is measured: so many frames from a moment on, with square pixels, and not too large.

A clip may be of any length: it passes picture by picture through the guarded process, and what is not wanted is
dropped. Knows films. Refuses to know what is measured.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.clips.clip import Clip
from studio.clips.film import Film, FilmInfo
from studio.errors import RequestError
from studio.requests.maps import LARGEST_SIDE


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What was read."""

    clip: Clip
    scale: tuple[float, float]
    """Columns and rows of it for each of the file's own."""
    notices: tuple[str, ...]


def read_stretch(path: Path, *, start: float, num_frames: int, largest_side: int | None = LARGEST_SIDE) -> Stretch:
    """The frames from `start` seconds on, at most so many; with a `largest_side`, scaled down to it.

    Raises:
        ClipRefused: it is none that is read.
        RequestError: the clip ends before.
    """
    import cv2  # here, as doors import this room to draw themselves

    with Film(path) as film:
        info = film.info
    first = round(start * info.clip.fps)
    width, height = _size(info, largest_side)
    pictures: list[np.ndarray] = []
    with Film(path, first=first) as film:
        for picture in film:
            shrinks = width < picture.pixels.shape[1] or height < picture.pixels.shape[0]
            way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            same = picture.pixels.shape[:2] == (height, width)
            pictures.append(picture.pixels if same else cv2.resize(picture.pixels, (width, height), interpolation=way))
            if len(pictures) == num_frames:
                break
    if not pictures:
        raise RequestError(
            f"{path.name} ends after {info.clip.seconds:.3g} s.", field="start", value=start, way_out="Begin earlier."
        )
    notices = []
    stored = (info.clip.width, info.clip.height)
    if stored != (width, height):
        notices.append(f"The clip was scaled from {stored[0]}×{stored[1]} to {width}×{height}.")
    if not info.clip.constant_rate:
        notices.append(f"The clip's rate varies: its frames are taken to be {info.clip.fps:.4g} a second.")
    if first or len(pictures) < info.clip.num_frames:
        notices.append(f"Frames {first + 1} to {first + len(pictures)} of {info.clip.num_frames} were taken.")
    return Stretch(
        clip=Clip(frames=np.stack(pictures), fps=info.clip.fps),
        scale=(width / stored[0], height / stored[1]),
        notices=tuple(notices),
    )


def _size(info: FilmInfo, largest_side: int | None) -> tuple[int, int]:
    """Width and height that are read: pixels squared, the longer side within what is wanted, both even."""
    wide, high = info.clip.width * float(info.sample_aspect_ratio), float(info.clip.height)
    factor = min(1.0, (largest_side or max(wide, high)) / max(wide, high))
    return max(2, round(wide * factor / 2) * 2), max(2, round(high * factor / 2) * 2)
