"""Figures over cells: speed-ups with their spread, medians, the points of a plot and the Pareto front.

Knows a comparison's cells. Refuses to know how a figure is written, and to measure anything.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from studio.compare.cells import FULL, Cell, Comparison, Seconds
from studio.metrics import METRICS, speed_up, spread, undominated

Pace = Literal["denoising", "whole"]
"""Which seconds a speed-up speaks of: the transformer's steps alone, or the run from the text to the file."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A speed-up with its spread, above 1 where faster."""

    median: float
    low: float
    high: float
    """Quartiles: over groups where there are several, and over the repeats of the one group otherwise."""
    count: int
    """Over how many groups, or repeats."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One method in one group, its repeats together: a dot of the plot."""

    group: int
    method: str
    cell: int
    """Number of the first complete cell among its repeats."""
    denoising: Ratio | None
    """None where nothing was timed, or the reference is missing."""
    whole: Ratio | None
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over all groups."""

    method: str
    complete: int
    failed: int
    denoising: Ratio | None
    whole: Ratio | None
    seconds: Seconds | None
    """Medians over its complete cells."""
    computed_share: float | None
    scores: dict[str, float]
    """Medians over the groups."""


def points_of(comparison: Comparison) -> list[Point]:
    """One point for each group and method with a clip."""
    points: list[Point] = []
    for group in sorted({cell.group for cell in comparison.cells}):
        for method in comparison.methods:
            cells = _complete(comparison, group, method)
            if not cells:
                continue
            full = _complete(comparison, group, FULL)
            points.append(
                Point(
                    group=group,
                    method=method,
                    cell=cells[0].number,
                    denoising=_speed(full, cells, "denoising"),
                    whole=_speed(full, cells, "whole"),
                    scores=_medians(cells),
                )
            )
    return points


def summaries_of(comparison: Comparison) -> list[MethodSummary]:
    """One line for each method, in the grid's order."""
    points, lines = points_of(comparison), []
    for method in comparison.methods:
        mine = [point for point in points if point.method == method]
        cells = [cell for cell in comparison.cells if cell.method == method]
        complete = [cell for cell in cells if cell.state == "complete"]
        shares = [cell.computed_share for cell in complete if cell.computed_share is not None]
        lines.append(
            MethodSummary(
                method=method,
                complete=len(complete),
                failed=sum(cell.state == "failed" for cell in cells),
                denoising=_over_groups([point.denoising for point in mine if point.denoising]),
                whole=_over_groups([point.whole for point in mine if point.whole]),
                seconds=_median_seconds(complete),
                computed_share=statistics.median(shares) if shares else None,
                scores=_medians(mine),
            )
        )
    return lines


def speed_by_cell(comparison: Comparison) -> dict[int, tuple[float | None, float | None]]:
    """By cell: how many times faster than its own reference, denoising and whole. None where either was not timed."""
    speeds: dict[int, tuple[float | None, float | None]] = {}
    for cell in comparison.cells:
        full = comparison.cells[cell.reference].seconds
        pairs = [
            (getattr(full, pace, 0.0), getattr(cell.seconds, pace, 0.0)) if full and cell.seconds else (0.0, 0.0)
            for pace in ("denoising", "whole")
        ]
        denoising, whole = (base / other if base > 0 and other > 0 else None for base, other in pairs)
        speeds[cell.number] = (denoising, whole)
    return speeds


def plotted(comparison: Comparison) -> tuple[list[Point], list[Point]]:
    """What a plot shows: a point for each group and method, and where there are several groups each method's medians.

    The reference equals itself, which gives every front its end at 1×.
    """
    points = [_equal_to_itself(point) for point in points_of(comparison)]
    if len({point.group for point in points}) < 2:
        return points, []
    medians = [
        _equal_to_itself(
            Point(group=-1, method=line.method, cell=-1, denoising=line.denoising, whole=line.whole, scores=line.scores)
        )
        for line in summaries_of(comparison)
        if line.complete
    ]
    return points, medians


_PERFECT = {"psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0, "lpips": 0.0}


def _equal_to_itself(point: Point) -> Point:
    return replace(point, scores=_PERFECT | point.scores) if point.method == FULL else point


def pareto_front(points: Sequence[Point], metric: str, pace: Pace = "denoising") -> list[Point]:
    """The points that no other beats in both speed and score, slowest first; equal ones all stay.

    The metric's own direction counts; points without the figure, or with NaN, take no part.
    """
    sign = -1.0 if METRICS[metric].higher_is_better is False else 1.0
    placed = [
        (ratio.median, sign * point.scores[metric], point)
        for point in points
        if (ratio := getattr(point, pace)) is not None and not math.isnan(point.scores.get(metric, math.nan))
    ]
    return [placed[place][2] for place in undominated([(speed, value) for speed, value, _ in placed])]


def _complete(comparison: Comparison, group: int, method: str) -> list[Cell]:
    return [
        cell
        for cell in comparison.cells
        if cell.group == group and cell.method == method and cell.state == "complete" and cell.seconds is not None
    ]


def _speed(full: Sequence[Cell], cells: Sequence[Cell], pace: Pace) -> Ratio | None:
    baseline, other = _timings(full, pace), _timings(cells, pace)
    if not baseline or not other:
        return None
    speed = speed_up(baseline, other)
    return Ratio(median=speed.ratio, low=speed.lowest, high=speed.highest, count=speed.other.count)


def _timings(cells: Sequence[Cell], pace: Pace) -> list[float]:
    """Seconds above 0. A cold run counts only where there is no other."""
    warm = [cell for cell in cells if not cell.cold] or list(cells)
    seconds = [getattr(cell.seconds, pace) for cell in warm if cell.seconds is not None]
    return [each for each in seconds if each > 0]


def _over_groups(ratios: Sequence[Ratio]) -> Ratio | None:
    if len(ratios) < 2:
        return ratios[0] if ratios else None
    spread_of_groups = spread([ratio.median for ratio in ratios])
    return Ratio(
        median=spread_of_groups.median,
        low=spread_of_groups.lower_quartile,
        high=spread_of_groups.upper_quartile,
        count=spread_of_groups.count,
    )


def _median_seconds(cells: Sequence[Cell]) -> Seconds | None:
    timed = [cell.seconds for cell in cells if cell.seconds is not None]
    if not timed:
        return None
    parts = ("encoding", "denoising", "decoding", "whole")
    return Seconds(**{part: statistics.median(getattr(each, part) for each in timed) for part in parts})


def _medians(scored: Sequence[Cell] | Sequence[Point]) -> dict[str, float]:
    medians: dict[str, float] = {}
    for name in METRICS:
        values = [each.scores[name] for each in scored if not math.isnan(each.scores.get(name, math.nan))]
        if values:
            medians[name] = values[0] if len(set(values)) == 1 else statistics.median(values)  # inf - inf is no number
    return medians
