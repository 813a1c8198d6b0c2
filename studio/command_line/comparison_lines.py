"""A comparison as the lines that a terminal prints while it grows."""

from __future__ import annotations

from collections.abc import Sequence

from studio.compare import METRICS
from studio.compare.cells import Cell, Comparison
from studio.compare.figures import MethodSummary, speed_by_cell
from studio.compare.wording import error_text, method_title, ratio_text, score_text

_PRINTED = ("psnr", "ssim", "ms_ssim", "flicker", "flow_warp_error")
_WIDTHS = (34, 10, 10, 9, 9, 8, 8, 8, 8, 8)


def heading_line() -> str:
    names = ("method", "denoising", "whole run", "speed-up", "whole", "PSNR", "SSIM", "MS-SSIM", "flicker", "warp")
    return _in_columns(names)


def cell_line(comparison: Comparison, cell: Cell) -> str:
    """One line of the table as it grows."""
    name = method_title(cell.method) + (f" #{cell.repeat + 1}" if any(each.repeat for each in comparison.cells) else "")
    if cell.state != "complete" or cell.seconds is None:
        return f"{name[:33]:34}{cell.state}: {error_text(cell)}"
    denoising, whole = speed_by_cell(comparison)[cell.number]
    figures = (
        name[:33],
        f"{cell.seconds.denoising:.2f} s",
        f"{cell.seconds.whole:.2f} s",
        "–" if denoising is None else f"{denoising:.2f}×",
        "–" if whole is None else f"{whole:.2f}×",
        *(score_text(metric, cell.scores.get(metric)) for metric in _PRINTED),
    )
    marks = (" stored" if cell.reused else "") + (" cold" if cell.cold else "")
    return _in_columns(figures) + marks


def summary_line(line: MethodSummary) -> str:
    scores = "  ".join(
        f"{METRICS[name].title} {score_text(name, line.scores[name])}" for name in _PRINTED if name in line.scores
    )
    failed = f"  {line.failed} failed" if line.failed else ""
    speeds = f"{ratio_text(line.denoising, spread=True)}, whole run {ratio_text(line.whole, spread=True)}"
    return f"{method_title(line.method)[:33]:34}{speeds}  {scores}{failed}"


def _in_columns(texts: Sequence[str]) -> str:
    first, *figures = zip(texts, _WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(text.rjust(width) for text, width in figures)
