"""How an enlargement's figures are written for a reader.

Knows units and digits. Refuses to measure.
"""

from __future__ import annotations

import math

from studio.metrics.enlargement import FIGURES
from studio.records.enlargements import BICUBIC, MADE, Enlargement, Measurement
from studio.requests.fields import label_of
from studio.requests.super_resolution import SuperResolutionRequest, method_title

_DIGITS = {"ssim": 4, "ms_ssim": 4, "vmaf": 1, "vmaf_neg": 1}
_SHARED = {"source", "scale", "method"}


def figure_title(name: str, measured: Measurement) -> str:
    """`PSNR, dB`, `Flicker, × the original's`."""
    metric = FIGURES[name]
    if metric.unit == "×":
        return f"{metric.title}, × the {'original' if measured.against_original else 'given clip'}'s"
    return metric.title + (f", {metric.unit}" if metric.unit else "")


def digits_of(name: str) -> int:
    """As many behind the point as say something."""
    return _DIGITS.get(name, 2)


def figure_text(name: str, value: float | None) -> str:
    """A figure without its unit."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits_of(name)}f}"


def whose_title(whose: str, enlargement: Enlargement) -> str:
    """The method's name for what was made, bicubic's for its twin, and the original."""
    titles = {MADE: request_title(enlargement.request), BICUBIC: method_title(BICUBIC)}
    return titles.get(whose, whose.capitalize())


def measured_names(measured: Measurement) -> list[str]:
    """The figures that there are, in the table's order."""
    return [name for name in FIGURES if any(name in figures for figures in measured.figures.values())]


def request_title(request: SuperResolutionRequest) -> str:
    """The method's name, and in brackets what it was told besides: `Pocket super-resolver (restore)`."""
    told = []
    for name, value in request.model_dump(exclude=_SHARED).items():
        if value != SuperResolutionRequest.model_fields[name].default:
            words = label_of(SuperResolutionRequest, name).lower()
            told.append(
                words if value is True else f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
            )
    title = method_title(request.method)
    return f"{title} ({', '.join(told)})" if told else title
