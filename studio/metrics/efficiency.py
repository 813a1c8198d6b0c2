"""Efficiency: what a faster way of making the same clip saves, stated as ratios with their spread.

Knows seconds that somebody measured, and the trace of a run. Refuses to time anything itself, and to say anything
about quality: a speed-up belongs beside the fidelity of the same run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import RequestError

if TYPE_CHECKING:
    from studio.records.run import BlockTrace


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Repeated timings of one thing, in seconds."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int
    """How many timings; with one, the three figures are that one."""


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """How many times faster than the baseline, above 1 where faster."""

    ratio: float
    """Median of the baseline over median of the other."""
    lowest: float
    """The baseline's lower quartile over the other's upper one: a quick baseline beside a slow other."""
    highest: float
    """The baseline's upper quartile over the other's lower one. The range is a caution, not a confidence interval."""
    baseline: Spread
    other: Spread


def spread(seconds: Sequence[float], field: str = "seconds") -> Spread:
    """Median and quartiles, by linear interpolation between the sorted timings.

    Raises:
        RequestError: no timing, or one that is no positive number.
    """
    if not len(seconds) or not all(second > 0 and math.isfinite(second) for second in seconds):
        raise RequestError(
            f"{field} must be timings above 0, at least one, not {list(seconds)}.",
            field=field,
            value=list(seconds),
            way_out="Time it again, and leave out what was not measured.",
        )
    lower, median, upper = np.percentile(seconds, (25, 50, 75)).tolist()
    return Spread(median=median, lower_quartile=lower, upper_quartile=upper, count=len(seconds))


def speed_up(baseline_seconds: Sequence[float], seconds: Sequence[float]) -> SpeedUp:
    """The speed-up of some timings over a baseline's, as the ratio of medians, with its spread."""
    baseline, other = spread(baseline_seconds, "baseline_seconds"), spread(seconds)
    return SpeedUp(
        ratio=baseline.median / other.median,
        lowest=baseline.lower_quartile / other.upper_quartile,
        highest=baseline.upper_quartile / other.lower_quartile,
        baseline=baseline,
        other=other,
    )


def computed_share(trace: BlockTrace) -> float:
    """Share of the transformer's block calls that ran, 0 to 1; the others were reused. 1 without a cache.

    Every block counts the same and what a run never reached counts for nothing; NaN where nothing was reached.
    """
    calls = trace.computed + trace.reused
    return trace.computed / calls if calls else math.nan


def undominated(pairs: Sequence[tuple[float, float]]) -> list[int]:
    """Which pairs no other beats, both numbers being better when larger: their places, by the first number, then by
    the second one falling. Equal ones all stay."""
    kept = [
        place
        for place, (one, two) in enumerate(pairs)
        if not any((a >= one and b >= two) and (a > one or b > two) for a, b in pairs)
    ]
    return sorted(kept, key=lambda place: (pairs[place][0], -pairs[place][1]))
