"""How an enlargement's figures are written for a reader.

Knows units and digits. Refuses to measure.
"""

from __future__ import annotations

import math

from studio.metrics.enlargement import FIGURES
from studio.records.enlargements import BICUBIC, MADE, Enlargement, Measurement
from studio.requests.super_resolution import method_title

_DIGITS = {"ssim": 4, "ms_ssim": 4, "vmaf": 1, "vmaf_neg": 1}


def figure_title(name: str, measured: Measurement) -> str:
    """`PSNR, dB`, `Flicker, × the original's`."""
    metric = FIGURES[name]
    if metric.unit == "×":
        return f"{metric.title}, × the {'original' if measured.against_original else 'given clip'}'s"
    return metric.title + (f", {metric.unit}" if metric.unit else "")


def figure_text(name: str, value: float | None) -> str:
    """A figure without its unit: as many digits as say something."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{_DIGITS.get(name, 2)}f}"


def whose_title(whose: str, enlargement: Enlargement) -> str:
    """The method's name for what was made, bicubic's for its twin, and the original."""
    methods = {MADE: enlargement.request.method, BICUBIC: BICUBIC}
    return method_title(methods[whose]) if whose in methods else whose.capitalize()


def measured_names(measured: Measurement) -> list[str]:
    """The figures that there are, in the table's order."""
    return [name for name in FIGURES if any(name in figures for figures in measured.figures.values())]
