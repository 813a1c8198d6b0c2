"""Enlargement: how near an enlarged clip comes to its large original, and to the small clip that it was made from.

    psnr ssim ms_ssim vmaf vmaf_neg   nearness to the original, as `fidelity` and `vmaf` define them
    shrink_back                       nearness to the small clip, once shrunk again
    flicker warping_error             unrest, as a ratio to the original's own; 1 adds none
    colour_error                      how far the colours have drifted

One alone says little: a blurred clip has the least flicker, a sharpened one the best VMAF, and back-projection the best
shrink-back. `Meter` measures clips of any length, picture by picture: it holds two pictures of each, never a clip.
Without an original it measures what needs none, and flicker against the small clip's.

Knows pictures and how they are shrunk. Refuses to know how they were enlarged, and to resize the original.

Shapes: F frames, H rows, W columns, s the scale; clips are uint8, (F, H, W, 3), RGB, levels 0 to 255.
"""

from __future__ import annotations

import importlib.util
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from studio.clips.shrinking import shrunk
from studio.errors import StudioError
from studio.metrics import METRICS, Metric
from studio.metrics.fidelity import decibels, ms_ssim, squared_error, ssim
from studio.metrics.motion import flicker
from studio.metrics.shapes import check_clip, check_pair
from studio.metrics.vmaf import VMAF_LEAST_SIDE, Vmaf, vmaf, vmaf_missing, vmaf_neg
from studio.metrics.warping import WARPING_LEAST_SIDE, Paths, change_along, paths, warping_error


def shrink_back(clip: np.ndarray, given: np.ndarray) -> float:
    """PSNR in dB of the clip, shrunk again, against the small clip (F, H, W, 3) that it was made from.

    Over all pixels at once, unrounded; the clip is (F, sH, sW, 3), and shrunk as `clips.shrinking` does. Infinite where
    nothing is left to correct.
    """
    check_clip(clip)
    scale = clip.shape[1] // given.shape[1]
    errors = [_shrunk_error(large, small, scale) for large, small in zip(clip, given, strict=True)]
    return float(decibels(math.fsum(errors) / len(errors)))


def flicker_ratio(clip: np.ndarray, reference: np.ndarray) -> float:
    """Flicker of the clip, as `motion.flicker` defines it, divided by its reference's; the sizes may differ.

    1 where it changes as much from picture to picture; infinite or NaN beside a reference that stands still.
    """
    return _ratio(flicker(clip), flicker(reference))


def warping_ratio(clip: np.ndarray, reference: np.ndarray) -> float:
    """Warping error of the clip, as `warping.warping_error` defines it, divided by the reference's own.

    1 where it changes along the motion as much as the reference itself; infinite or NaN where that changes not at all.
    """
    return _ratio(warping_error(clip, reference), warping_error(reference, reference))


def colour_error(clip: np.ndarray, reference: np.ndarray) -> float:
    """Mean difference of the means of R, G and B, in levels of 255: over pictures and channels, without its sign.

    0 where nothing has drifted, and the shift itself where a constant was added.
    """
    check_pair(clip, reference)
    return float(np.mean([_colour_shift(*pair) for pair in zip(clip, reference, strict=True)]))


# fmt: off
_LINES = (
    *(METRICS[name] for name in ("psnr", "ssim", "ms_ssim")),
    Metric(name="vmaf", title="VMAF", unit="", higher_is_better=True, needs_reference=True, function=vmaf,
           least_side=VMAF_LEAST_SIDE, missing=vmaf_missing),
    Metric(name="vmaf_neg", title="VMAF-NEG", unit="", higher_is_better=True, needs_reference=True, function=vmaf_neg,
           least_side=VMAF_LEAST_SIDE, missing=vmaf_missing),
    Metric(name="shrink_back", title="Shrink-back", unit="dB", higher_is_better=True, needs_reference=False,
           function=shrink_back, packages=("cv2",)),
    Metric(name="flicker", title="Flicker", unit="×", higher_is_better=False, needs_reference=False,
           function=flicker_ratio, least_frames=2),
    Metric(name="warping_error", title="Warping error", unit="×", higher_is_better=False, needs_reference=True,
           function=warping_ratio, packages=("cv2",), least_frames=2, least_side=WARPING_LEAST_SIDE),
    Metric(name="colour_error", title="Colour error", unit="/255", higher_is_better=False, needs_reference=True,
           function=colour_error),
)
# fmt: on

FIGURES: Mapping[str, Metric] = {metric.name: metric for metric in _LINES}
"""The table, by name, in the order in which it is shown. A line's reference is the large original; the functions of
`shrink_back` and `flicker` take the small clip beside the enlarged one where there is none."""


def why_not(name: str, *, height: int, width: int, original: bool = True) -> str | None:
    """Why a figure cannot be measured of pictures of this size, in a sentence to act on; None where it can."""
    metric = FIGURES[name]
    if metric.needs_reference and not original:
        return f"{metric.title} compares with the original, and none was given."
    if min(height, width) < metric.least_side:
        least = metric.least_side
        return f"{metric.title} needs pictures of at least {least}×{least} pixels, and these have {width}×{height}."
    for package in metric.packages:
        if importlib.util.find_spec(package) is None:
            return f"{metric.title} needs the package {package}, and it is not installed."
    return None if metric.missing is None else metric.missing()


@dataclass
class _Sums:
    """What was measured of one clip so far."""

    of: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Sums over pictures, by what they are means of."""
    before: np.ndarray | None = None
    """The picture before."""


class Meter:
    """Measures clips of the same scene side by side: pictures go in together, figures come out.

    Args:
        clips: What the enlarged clips are called.
        height, width: Of their pictures.
        scale: How many times as large they are as the small clip's.
        original: Whether there is one.
        names: What to measure; what cannot be measured is left out, and `lacking` says why.
    """

    def __init__(
        self,
        clips: Sequence[str],
        *,
        height: int,
        width: int,
        scale: int,
        original: bool,
        names: Sequence[str] = tuple(FIGURES),
    ) -> None:
        self._size, self._scale, self._original = (height, width), scale, original
        reasons = {name: why_not(name, height=height, width=width, original=original) for name in names}
        self.names = tuple(name for name, reason in reasons.items() if reason is None)
        self.lacking: dict[str, str] = {name: reason for name, reason in reasons.items() if reason is not None}
        """Why something is not measured, by name."""
        self.count = 0
        """Pictures that were measured."""
        self._sums = {clip: _Sums() for clip in clips}
        self._steady = _Sums()
        """The same sums of the original, or of the small clip where there is none."""
        self._vmaf: dict[str, Vmaf] = {}
        self._open = ExitStack()

    def __enter__(self) -> Meter:
        with ExitStack() as stack:
            if {"vmaf", "vmaf_neg"} & set(self.names):
                height, width = self._size
                for clip in self._sums:
                    self._vmaf[clip] = stack.enter_context(Vmaf(height=height, width=width))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def add(self, pictures: Mapping[str, np.ndarray], *, given: np.ndarray, original: np.ndarray | None = None) -> None:
        """The next picture of every clip (sH, sW, 3), of the small clip (H, W, 3), and of the original (sH, sW, 3)."""
        assert (original is not None) == self._original
        self.count += 1
        steady = given if original is None else original
        before = self._steady.before
        way = None if original is None or before is None or "warping_error" not in self.names else paths(before, steady)
        self._follow(self._steady, steady, way)
        for clip, picture in pictures.items():
            sums = self._sums[clip]
            self._follow(sums, picture, way)
            if "shrink_back" in self.names:
                sums.of["shrink_back"] += _shrunk_error(picture, given, self._scale)
            if original is not None:
                self._hold_against(original, picture, sums)
            if clip in self._vmaf and original is not None:
                self._vmaf[clip].add(picture, original)

    def _follow(self, sums: _Sums, picture: np.ndarray, way: Paths | None) -> None:
        """How it changes from the picture before to this one."""
        before, sums.before = sums.before, picture
        if before is None:
            return
        if "flicker" in self.names:
            sums.of["flicker"] += flicker(np.stack([before, picture]))
        if way is not None:
            sums.of["warping_error"] += change_along(way, before, picture)[0]

    def _hold_against(self, original: np.ndarray, picture: np.ndarray, sums: _Sums) -> None:
        for name, measure in _OF_A_PICTURE.items():
            if name in self.names:
                sums.of[name] += float(measure(picture[None], original[None]))

    def figures(self) -> dict[str, dict[str, float]]:
        """By clip, what was measured, in the table's order. Nothing can be added afterwards.

        Raises:
            StudioError: there were no pictures, or VMAF's process failed.
        """
        if not self.count:
            raise StudioError("There were no pictures to measure.", field="clip")
        return {clip: self._figures(clip, sums) for clip, sums in self._sums.items()}

    def _figures(self, clip: str, sums: _Sums) -> dict[str, float]:
        means = {name: summed / self.count for name, summed in sums.of.items()}
        found = {name: means[name] for name in ("ssim", "ms_ssim", "colour_error") if name in means}
        found |= {name: float(decibels(means[name])) for name in ("psnr", "shrink_back") if name in means}
        if clip in self._vmaf:
            found |= self._vmaf[clip].scores()
        if self.count > 1 and "flicker" in self.names:
            found["flicker"] = _ratio(sums.of["flicker"], self._steady.of["flicker"])
        if self.count > 1 and "warping_error" in self.names:
            # The same paths, and so the same number of pixels.
            found["warping_error"] = _ratio(sums.of["warping_error"], self._steady.of["warping_error"])
        return {name: found[name] for name in self.names if name in found}


_OF_A_PICTURE = {
    "psnr": lambda picture, original: squared_error(picture, original)[0],
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "colour_error": colour_error,
}
"""What is a mean over pictures."""


def _shrunk_error(large: np.ndarray, small: np.ndarray, scale: int) -> float:
    back = shrunk(large.astype(np.float32), scale)
    return float(np.square(back - small).mean(dtype=np.float64))


def _colour_shift(picture: np.ndarray, reference: np.ndarray) -> float:
    means = [each.mean(axis=(0, 1), dtype=np.float64) for each in (picture, reference)]
    return float(np.abs(means[0] - means[1]).mean())


def _ratio(one: float, other: float) -> float:
    if other:
        return one / other
    return math.inf if one else math.nan
