"""Metrics: clip in, number out. One table says what there is; `score` measures what can be measured here.

    fidelity     how near a clip stays to a reference      psnr, ssim, ms_ssim, lpips
    motion       how it changes from frame to frame        flicker, flow_warp_error, motion_magnitude
    efficiency   what a faster way saves                   from seconds and traces, not from clips: not in the table
    enlargement  what a clip gained by being enlarged      a table of its own, for clips of any length

A new metric is one function and one line in `METRICS`. Knows clips as arrays. Refuses to know who made them, how, and
to leave a metric out without saying why: `why_not` has the reason. Importing this loads no library but numpy.

Shapes: F frames, H rows, W columns; clips are uint8, (F, H, W, 3), RGB, levels 0 to 255.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from studio.errors import RequestError
from studio.metrics import fidelity, motion
from studio.metrics.efficiency import SpeedUp, Spread, computed_share, speed_up, spread, undominated
from studio.metrics.shapes import check_clip, check_pair, in_words
from studio.records.codec import number_in_json

__all__ = [
    "METRICS",
    "Metric",
    "SpeedUp",
    "Spread",
    "computed_share",
    "remark",
    "score",
    "scores_to_json",
    "speed_up",
    "spread",
    "undominated",
    "why_not",
]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One line of the table: what a number is called, how to read it, and what measuring it needs."""

    name: str
    """As scores, options and files name it."""
    title: str
    """As a person reads it."""
    unit: str
    """Empty for a pure number."""
    higher_is_better: bool | None
    """None where neither direction is: more motion is not better motion."""
    needs_reference: bool
    function: Callable[..., float]
    """Takes the clip, and the reference too where it needs one."""
    packages: tuple[str, ...] = ()
    """What it imports, by import name."""
    least_frames: int = 1
    least_side: int = 1
    """Smallest height and width, in pixels."""
    missing: Callable[[], str | None] | None = None
    """Says what else this machine lacks, such as weights on the disk; None where all is there."""
    remark: Callable[[np.ndarray], str | None] | None = None
    """Says what to print beside the number for a clip of this shape; None where there is nothing to say."""


# fmt: off
_LINES = (
    Metric(name="psnr", title="PSNR", unit="dB", higher_is_better=True, needs_reference=True, function=fidelity.psnr),
    Metric(name="ssim", title="SSIM", unit="", higher_is_better=True, needs_reference=True, function=fidelity.ssim,
           packages=("skimage",), least_side=fidelity.SSIM_LEAST_SIDE),
    Metric(name="ms_ssim", title="MS-SSIM", unit="", higher_is_better=True, needs_reference=True,
           function=fidelity.ms_ssim, packages=("torch", "torchmetrics"), least_side=fidelity.MS_SSIM_LEAST_SIDES[0],
           remark=fidelity.ms_ssim_remark),
    Metric(name="lpips", title="LPIPS (AlexNet)", unit="", higher_is_better=False, needs_reference=True,
           function=fidelity.lpips, packages=("torch", "torchmetrics"), least_side=fidelity.LPIPS_LEAST_SIDE,
           missing=fidelity.lpips_missing),
    Metric(name="flicker", title="Flicker", unit="levels", higher_is_better=False, needs_reference=False,
           function=motion.flicker, least_frames=2),
    Metric(name="flow_warp_error", title="Flow-warp error", unit="levels", higher_is_better=False,
           needs_reference=False, function=motion.flow_warp_error, packages=("cv2",), least_frames=2,
           least_side=motion.FLOW_LEAST_SIDE),
    Metric(name="motion_magnitude", title="Motion", unit="pixels/frame", higher_is_better=None, needs_reference=False,
           function=motion.motion_magnitude, packages=("cv2",), least_frames=2, least_side=motion.FLOW_LEAST_SIDE),
)
# fmt: on

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _LINES}
"""The table, by name, in the order in which it is shown."""


def score(
    clip: np.ndarray, reference: np.ndarray | None = None, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Measures a clip, by name, in the order asked for; all of the table where no names are given.

    What cannot be measured is left out, and `why_not(name, clip, reference)` says why. A number may be infinite (the
    PSNR of equal clips) or NaN (a flow that follows nothing): write it with `scores_to_json`.

    Raises:
        RequestError: the reference has another shape, or no metric has such a name.
        ValueError: an array is no clip.
    """
    if reference is None:
        check_clip(clip)
    else:
        check_pair(clip, reference)
    chosen = [_named(name) for name in (METRICS if names is None else names)]
    return {
        metric.name: metric.function(clip, reference) if metric.needs_reference else metric.function(clip)
        for metric in chosen
        if _obstacle(metric, clip, reference) is None
    }


def why_not(name: str, clip: np.ndarray | None = None, reference: np.ndarray | None = None) -> str | None:
    """Why a metric cannot be measured, in a sentence a person can act on; None where it can.

    Without a clip it speaks of this machine only. With one, of the clip and its reference too.
    """
    metric = _named(name)
    return _lacking_here(metric) if clip is None else _obstacle(metric, clip, reference)


def remark(name: str, clip: np.ndarray) -> str | None:
    """What to print beside a metric's number for this clip, such as fewer scales than the measure's own."""
    says = _named(name).remark
    return None if says is None else says(clip)


def scores_to_json(scores: Mapping[str, float]) -> dict[str, float | str]:
    """Scores as JSON can hold them; see `records.codec.Score`."""
    return {name: number_in_json(value) for name, value in scores.items()}


def _named(name: str) -> Metric:
    if name not in METRICS:
        raise RequestError(
            f"No metric is called {name!r}.", field="metric", value=name, way_out=f"Known: {', '.join(METRICS)}."
        )
    return METRICS[name]


def _lacking_here(metric: Metric) -> str | None:
    for package in metric.packages:
        if importlib.util.find_spec(package) is None:
            return f"{metric.title} needs the package {package}, and it is not installed."
    return None if metric.missing is None else metric.missing()


def _obstacle(metric: Metric, clip: np.ndarray, reference: np.ndarray | None) -> str | None:
    if metric.needs_reference and reference is None:
        return f"{metric.title} compares with a reference clip, and there is none."
    if len(clip) < metric.least_frames:
        return f"{metric.title} needs {metric.least_frames} frames, and the clip has {in_words(clip)}."
    if min(clip.shape[1:3]) < metric.least_side:
        least = metric.least_side
        return f"{metric.title} needs frames of at least {least}×{least} pixels, and the clip has {in_words(clip)}."
    return _lacking_here(metric)
