"""Speed-ups are ratios of medians, with a spread that contains them."""

from __future__ import annotations

import math

import pytest

from studio.errors import RequestError
from studio.metrics import computed_share, speed_up, spread
from studio.metrics.efficiency import Spread
from studio.records.run import COMPUTED, BlockTrace


def test_spread_of_five_timings() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(median=3, lower_quartile=2, upper_quartile=4, count=5)


def test_one_timing_has_no_spread() -> None:
    assert spread([2.5]) == Spread(median=2.5, lower_quartile=2.5, upper_quartile=2.5, count=1)


def test_speed_up_is_the_ratio_of_medians_with_the_quartiles_crossed() -> None:
    measured = speed_up([10.0, 12.0, 8.0, 11.0, 9.0], [5.0, 4.0, 6.0])
    assert measured.baseline == Spread(median=10, lower_quartile=9, upper_quartile=11, count=5)
    assert measured.other == Spread(median=5, lower_quartile=4.5, upper_quartile=5.5, count=3)
    assert measured.ratio == pytest.approx(2)
    assert measured.lowest == pytest.approx(9 / 5.5)
    assert measured.highest == pytest.approx(11 / 4.5)


def test_one_slow_outlier_does_not_move_the_ratio() -> None:
    assert speed_up([10.0, 10.0, 10.0, 10.0, 500.0], [5.0] * 5).ratio == 2


@pytest.mark.parametrize("seconds", [[], [1.0, 0.0], [-1.0], [math.nan], [math.inf]])
def test_what_is_no_timing_is_refused(seconds: list[float]) -> None:
    with pytest.raises(RequestError, match="baseline_seconds must be timings above 0"):
        speed_up(seconds, [1.0])


def test_computed_share_counts_block_calls_and_leaves_out_what_was_not_reached() -> None:
    ages = (((COMPUTED,), (COMPUTED,)), ((COMPUTED,), (1,)), ((2,), (None,)))
    trace = BlockTrace(branches=("both",), ages=ages)
    assert computed_share(trace) == pytest.approx(3 / 5)


def test_computed_share_is_one_without_a_cache_and_no_number_for_an_empty_trace() -> None:
    assert computed_share(BlockTrace(branches=("both",), ages=(((COMPUTED,), (COMPUTED,)),))) == 1
    assert math.isnan(computed_share(BlockTrace(branches=(), ages=())))
