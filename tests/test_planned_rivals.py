"""benchmarks/planned_rivals.py: DPCache's path is the cheapest, BudCache's search is what it says it is."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import planned_rivals

from studio.records.profiles import find_profile

N = 9


def _residuals(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, 7)).cumsum(axis=0) + 3


def _cost_by_hand(clips: list[np.ndarray], computed: tuple[int, ...]) -> float:
    cost, h, i = 0.0, 0, 0
    for j in range(N):
        if j in computed:
            h, i = i, j
            continue
        foretold = [r[i] + (j - i) / (i - h) * (r[i] - r[h]) for r in clips]
        cost += float(
            np.mean([np.linalg.norm(r[j] - f) / np.linalg.norm(r[j]) for r, f in zip(clips, foretold, strict=True)])
        )
    return cost


@pytest.mark.parametrize("computed", range(3, N))
def test_no_other_path_costs_dpcache_less(computed: int) -> None:
    clips = [_residuals(0), _residuals(1)]
    profile: Any = SimpleNamespace(sigmas=(1.0,) * N, grams=[r @ r.T for r in clips])
    plan = planned_rivals.dpcache_plan(profile, computed)
    chosen = tuple(step for step, computes in enumerate(plan.computes) if computes)
    assert chosen[:3] == (0, 1, 2)
    assert len(chosen) == computed
    every = ((0, 1, 2, *rest) for rest in itertools.combinations(range(3, N), computed - 3))
    assert _cost_by_hand(clips, chosen) == pytest.approx(min(_cost_by_hand(clips, each) for each in every))
    first = next(step for step in range(N) if not plan.computes[step])
    assert plan.gains[first] == pytest.approx(1.0), "right after two neighbours the trend goes on as it is"
    assert not any(plan.corrections)


def _far_from(wanted: set[int]) -> planned_rivals.Loss:
    return lambda schedule: float(len(wanted - {step for step, computes in enumerate(schedule) if computes}))


def _search(seed: int, wanted: set[int]) -> planned_rivals.BudCacheSearch:
    return planned_rivals.BudCacheSearch(loss=_far_from(wanted), total=16, computed=8, seed=seed)


def test_budcache_finds_the_best_schedule_and_the_same_seed_finds_it_again() -> None:
    wanted = {0, 1, 3, 6, 8, 11, 14, 15}
    search = _search(0, wanted)
    best = search.run(anneal=30, climb=10)
    assert {step for step, computes in enumerate(best) if computes} == wanted
    assert search.tried[best] == 0
    again = _search(0, wanted)
    assert again.run(anneal=30, climb=10) == best
    assert again.tried == search.tried
    assert _search(1, wanted).run(anneal=0, climb=0) != _search(2, wanted).run(anneal=0, climb=0)


def test_budcache_keeps_its_number_of_steps_and_the_first_of_them() -> None:
    search = _search(3, {0, 1, 2, 3, 4, 5, 6, 7})
    search.run(anneal=40, climb=2)
    assert len(search.tried) > 20
    assert all(sum(schedule) == 8 and schedule[:2] == (True, True) for schedule in search.tried)


def test_what_was_found_belongs_to_the_weights_that_ship() -> None:
    run: Any = SimpleNamespace(total_steps=30, stacks=(), passes=2, profile=find_profile("pocket", None))
    for computed in (14, 9):
        cache: Any = planned_rivals.budcache(run, computed=computed)
        plan = cache.policy._make_plan()
        assert plan.computed == computed
        assert not any(plan.gains)
        dpcache: Any = planned_rivals.dpcache(run, computed=computed)
        assert dpcache.policy is not cache.policy
    with pytest.raises(LookupError, match="no schedule of 13 of 30"):
        planned_rivals.budcache(run, computed=13)
