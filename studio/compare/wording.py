"""How a comparison's figures are written for a reader.

Knows units and digits. Refuses to compute a figure (`figures`, `metrics`).
"""

from __future__ import annotations

import math

from studio.compare.cells import Cell
from studio.compare.figures import Ratio
from studio.compare.grid import parse_method
from studio.errors import StudioError
from studio.metrics import METRICS


def method_title(method: str) -> str:
    """What a person calls a method; its text, where this version no longer knows it."""
    try:
        return parse_method(method).title
    except StudioError:
        return method


def ratio_text(ratio: Ratio | None, *, spread: bool = False) -> str:
    """`2.1×`, or `2.1× (1.9–2.3)`."""
    if ratio is None:
        return "–"
    text = f"{ratio.median:.2f}×"
    return f"{text} ({ratio.low:.2f}–{ratio.high:.2f})" if spread and ratio.count > 1 else text


def score_text(name: str, value: float | None) -> str:
    """A score without its unit: as many digits as say something."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4f}" if METRICS[name].unit == "" else f"{value:.2f}"


def error_text(cell: Cell) -> str:
    error = cell.error or {}
    return " ".join(str(error.get(part, "")) for part in ("message", "way_out")).strip()
