"""Budget: the plan is the best there is, its cost is exactly what was asked for, and it says what it predicts."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.caching.block_stack import Step
from studio.caching.budget import FEW, LEAST, BudgetPolicy, Plan, computed_steps, plan_for, plan_of, spread
from studio.records.profiles import Profile, falling, find_profile, profile_path, read_profile, write_profile
from studio.requests.caches import Budget

STEPS = 8


def _profile(residuals: list[np.ndarray], *, skipped_share: float = 0.05) -> Profile:
    """A profile of clips whose residuals (N, D) are given."""
    total = len(residuals[0])
    grams = [r @ r.T for r in residuals]
    return Profile(
        preset="made-up",
        weights="",
        sigmas=tuple(float(s) for s in np.linspace(1, 0.1, total)),
        grams=tuple(tuple(tuple(row) for row in gram.tolist()) for gram in grams),
        flow_shift=None,
        growth=((1.0, 4.0), (0.6, 2.0), (0.1, 1.0)),
        distances=((0.0,) * total,) * len(grams),
        embedding_changes=(0.0,) * total,
        residual_changes=(0.0,) * total,
        mag_ratios=(1.0,) * total,
        passes=1,
        skipped_share=skipped_share,
    )


def _walk(seed: int, total: int = STEPS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((total, 12)).cumsum(axis=0)


def _drift_by_hand(
    profile: Profile, residuals: list[np.ndarray], computed: tuple[int, ...], handover: int | None = None
) -> float:
    """The definition, written out: errors of every skipped step, with the gain that is best over the clips."""
    sigmas = (*profile.sigmas, 0.0)
    growth = profile.growth_at(profile.sigmas)
    drift, h, i = 0.0, 0, 0
    for j in range(len(profile.sigmas)):
        if j in computed:
            h, i = (j, j) if j == handover else (i, j)
            continue
        along = sum(float((r[j] - r[i]) @ (r[i] - r[h])) for r in residuals)
        change = sum(float((r[i] - r[h]) @ (r[i] - r[h])) for r in residuals)
        gain = max(0.0, along / change) if change else 0.0
        error = np.mean([np.linalg.norm(r[j] - r[i] - gain * (r[i] - r[h])) for r in residuals])
        drift += float(growth[j] * (sigmas[j] - sigmas[j + 1]) * error)
    return drift


def _left_by_hand(profile: Profile, residuals: list[np.ndarray], plan: Plan) -> float:
    """What the outputs of a plan miss between two computed steps, and what the second makes up for of it."""
    sigmas = np.asarray((*profile.sigmas, 0.0))
    weights = profile.growth_at(profile.sigmas) * -np.diff(sigmas)
    missed, drift, h, i = [0.0 * r[0] for r in residuals], 0.0, 0, 0
    for j, computes in enumerate(plan.computes):
        for clip, r in enumerate(residuals):
            foreseen = r[i] + plan.gains[j] * (r[i] - r[h])
            output = r[j] + plan.corrections[j] * (r[j] - foreseen) if computes else foreseen
            missed[clip] = missed[clip] + weights[j] * (r[j] - output)
        if computes:
            drift += float(np.mean([np.linalg.norm(m) for m in missed]))
            missed, h, i = [0.0 * m for m in missed], i, j
    return drift + float(np.mean([np.linalg.norm(m) for m in missed]))


@pytest.mark.parametrize("computed", range(2, STEPS + 1))
def test_no_other_schedule_of_that_many_steps_is_predicted_to_drift_less(computed: int) -> None:
    residuals = [_walk(0), _walk(1)]
    profile = _profile(residuals)
    plan = plan_of(profile, computed)
    assert plan.computed == computed
    every = ((0, 1, *rest) for rest in itertools.combinations(range(2, STEPS), computed - 2))
    least = min(_drift_by_hand(profile, residuals, each) for each in every)
    assert _drift_by_hand(profile, residuals, _computed(plan)) == pytest.approx(least)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("computed", range(2, STEPS))
def test_the_predicted_drift_is_what_the_outputs_of_the_plan_miss(computed: int, correct: bool) -> None:
    residuals = [_walk(0), _walk(1)]
    profile = _profile(residuals)
    plan = plan_of(profile, computed, correct=correct)
    assert plan.drift[-1] == pytest.approx(_left_by_hand(profile, residuals, plan))
    assert plan.drift[-1] <= _drift_by_hand(profile, residuals, _computed(plan)) * (1 + 1e-9)


@pytest.mark.parametrize("handover", range(1, STEPS))
def test_a_plan_computes_the_handover_and_lets_nothing_cross_it(handover: int) -> None:
    residuals = [_walk(0), _walk(1)]
    profile = _profile(residuals)
    assert plan_of(profile, 2, handover=handover).computed == len({0, 1, handover})
    for computed in range(len({0, 1, handover}), STEPS):
        plan = plan_of(profile, computed, handover=handover)
        assert plan.computed == computed
        assert plan.computes[handover]
        every = ({0, 1, handover, *rest} for rest in itertools.combinations(range(2, STEPS), computed - 2))
        drifts = [_drift_by_hand(profile, residuals, tuple(c), handover) for c in every if len(c) == computed]
        assert _drift_by_hand(profile, residuals, _computed(plan), handover) == pytest.approx(min(drifts))
        later = [step for step in range(handover + 1, STEPS) if plan.computes[step]]
        until_two_are_kept = range(handover, later[0] + 1) if later else range(handover, STEPS)
        assert {plan.gains[step] for step in until_two_are_kept} == {0.0}
        assert plan.corrections[handover] == 0.0


def _computed(plan: Plan) -> tuple[int, ...]:
    return tuple(step for step, computes in enumerate(plan.computes) if computes)


def test_residuals_on_a_straight_line_are_foreseen_exactly_and_only_by_extrapolating() -> None:
    line = np.linspace(0, 1, STEPS)[:, None] * np.ones((1, 4)) + 1
    profile = _profile([line])
    assert plan_of(profile, 2).drift[-1] == pytest.approx(0, abs=1e-6)
    assert plan_of(profile, 2, False).drift[-1] > 0.1


def test_more_computed_steps_never_drift_more() -> None:
    profile = _profile([_walk(seed, 20) for seed in range(3)])
    drifts = [plan_of(profile, computed).drift[-1] for computed in range(2, 21)]
    assert drifts == sorted(drifts, reverse=True)
    assert drifts[-1] == 0


@pytest.mark.parametrize("speedup", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("total", [6, 8, 10, 12, 30, 50])
def test_no_other_number_of_computed_steps_comes_nearer_to_the_speed(speedup: float, share: float, total: int) -> None:
    def speed(computed: int) -> float:
        return total / (computed + (total - computed) * share)

    off = abs(np.log(speed(computed_steps(total, speedup, share)) / speedup))
    assert all(off <= abs(np.log(speed(computed) / speedup)) for computed in range(2, total + 1))


def test_twice_the_speed_of_few_steps_is_half_of_them_computed() -> None:
    assert [computed_steps(total, 2.0, 0.04) for total in (8, 10, 12)] == [4, 5, 6]


def test_what_skipped_steps_missed_is_made_up_for_once_it_shows() -> None:
    time = np.linspace(0, 1, 14)[:, None]
    residuals = np.hstack([1 + time, np.exp(3 * time), time**2])
    profile = _profile([residuals, np.hstack([1 + time, time**3, 1 - time])])
    sigmas = np.asarray((*profile.sigmas, 0.0))

    def travelled(correct: bool) -> np.ndarray:
        """Where the latents are after each step, if every output is what the plan makes of the residuals."""
        plan, h, i, at, way = plan_of(profile, 7, True, correct), 0, 0, np.zeros(3), []
        for j, computes in enumerate(plan.computes):
            foreseen = residuals[i] + plan.gains[j] * (residuals[i] - residuals[h])
            output = residuals[j] + plan.corrections[j] * (residuals[j] - foreseen) if computes else foreseen
            h, i = (i, j) if computes else (h, i)
            at = at + (sigmas[j + 1] - sigmas[j]) * output
            way.append(at)
        return np.array(way)

    wanted = (np.diff(sigmas)[:, None] * residuals).cumsum(axis=0)
    computes = np.array(plan_of(profile, 7).computes)
    missed, made_up = (np.abs(travelled(correct) - wanted)[computes].sum(axis=1) for correct in (False, True))
    assert made_up[-1] < missed[-1] / 2
    corrections = np.array(plan_of(profile, 7).corrections)[computes]
    assert not plan_of(profile, 7, True, False).corrections[-1]
    assert np.all(corrections >= 0)
    assert np.any(corrections > 0)


def test_where_nothing_is_skipped_nothing_is_made_up_for() -> None:
    plan = plan_of(_profile([_walk(0, 12)]), 7)
    after_a_computed_one = [c for step, c in enumerate(plan.corrections) if step and plan.computes[step - 1]]
    assert set(after_a_computed_one) == {0.0}


def test_a_drift_bound_is_kept_with_the_fewest_computed_steps() -> None:
    profile = _profile([_walk(seed, 14) for seed in range(3)])
    bound = plan_of(profile, 10).drift[-1]
    plan = plan_for(profile, Budget(max_drift=bound))
    assert plan.drift[-1] <= bound
    assert FEW < plan.computed <= 10
    assert all(plan_of(profile, computed).drift[-1] > bound for computed in range(FEW, plan.computed))
    assert plan_for(profile, Budget(max_drift=1e-12)).computed == 14


def test_a_profile_serves_other_numbers_of_steps() -> None:
    profile = _profile([_walk(seed, 30) for seed in range(2)])
    assert profile.at(profile.sigmas) is profile
    other = profile.at(np.linspace(1, 0.1, 50).tolist())
    assert plan_for(other, Budget(speedup=2)).computed == computed_steps(50, 2, profile.skipped_share)
    assert np.allclose(np.asarray(other.grams[0])[0, 0], np.asarray(profile.grams[0])[0, 0])


def test_a_profile_comes_back_from_its_file_and_a_broken_one_is_as_none(tmp_path: Path) -> None:
    profile = _profile([_walk(0)])
    path = profile_path(tmp_path, "made-up", STEPS, None)
    path.parent.mkdir()
    write_profile(profile, path)
    again = find_profile("made-up", tmp_path)
    assert again is not None
    assert plan_of(again, 4).drift == pytest.approx(plan_of(profile, 4).drift, rel=1e-3)
    assert read_profile(path) == again
    whole = json.loads(path.read_bytes())
    for broken in ("{", "[]", "{}", json.dumps(whole | {"sigmas": 3}), json.dumps(whole | {"grams": [["x"]]})):
        path.write_text(broken)
        assert find_profile("made-up", tmp_path) is None, broken


def test_the_profile_of_the_nearest_number_of_steps_serves(tmp_path: Path) -> None:
    for total, shift in ((10, None), (20, None), (20, 3.0)):
        path = profile_path(tmp_path, "made-up", total, shift)
        path.parent.mkdir(exist_ok=True)
        write_profile(replace(_profile([_walk(0, total)]), flow_shift=shift), path)

    def found(total: int, shift: float | None = None) -> tuple[int, float | None]:
        profile = find_profile("made-up", tmp_path, total_steps=total, flow_shift=shift)
        assert profile is not None
        return len(profile.sigmas), profile.flow_shift

    assert found(8) == (10, None)
    assert found(13)[0] == 10
    assert found(100, 3.0) == (20, 3.0)
    assert found(20)[0] == 20


def test_magnitude_ratios_keep_their_product_at_another_number_of_steps() -> None:
    ratios = tuple(np.exp(np.random.default_rng(0).normal(0, 0.1, 12)).tolist())
    profile = replace(_profile([_walk(0, 12)]), mag_ratios=(1.0, *ratios[1:]))
    assert profile.mag_ratios_for(12) == pytest.approx((1.0, *ratios[1:]))
    other = profile.mag_ratios_for(31)
    assert len(other) == 31
    assert np.prod(other) == pytest.approx(np.prod(ratios[1:]))


def test_the_nearest_falling_sequence_falls_and_keeps_the_mean() -> None:
    assert falling([3.0, 1.0, 2.0, 0.0]) == [3.0, 1.5, 1.5, 0.0]


def test_few_computed_steps_are_spread_evenly_and_the_run_says_so() -> None:
    for total, steps in ((8, [0, 2, 4, 6]), (12, [0, 2, 4, 6, 8, 10]), (15, [0, 2, 4, 6, 9, 11, 13])):
        profile = _profile([_walk(seed, total) for seed in range(2)])
        plan = plan_for(profile, Budget(speedup=2))
        assert list(_computed(plan)) == steps
        assert set(plan.corrections) == {0.0}
        assert plan.gains[3] == pytest.approx(0.25), "a step on after two, at half the pace"
        first = BudgetPolicy(lambda plan=plan: plan).decide(_step(0, total))
        assert first.notice.startswith(f"Budget computes {len(steps)} of {total} steps, spread evenly")
        assert "evenly spread" in first.why


def test_with_enough_computed_steps_a_plan_is_followed_and_nothing_is_said() -> None:
    profile = _profile([_walk(seed, 2 * FEW) for seed in range(2)])
    plan = plan_for(profile, Budget(speedup=2))
    assert plan == plan_of(profile, FEW)
    assert BudgetPolicy(lambda: plan).decide(_step(0, 2 * FEW)).notice == ""


def test_of_few_steps_one_more_is_computed_where_less_than_twice_the_speed_is_asked_for() -> None:
    for total, steps in ((6, [0, 1, 2, 3, 5]), (8, [0, 1, 2, 3, 5, 7]), (10, [0, 1, 2, 3, 4, 5, 7, 9])):
        plan = plan_for(_profile([_walk(0, total)], skipped_share=0.0), Budget(speedup=1.5))
        assert list(_computed(plan)) == steps


def test_no_speed_leaves_fewer_than_the_least() -> None:
    for total in (3, 4, 5, 8, 12):
        plan = plan_for(_profile([_walk(0, total)]), Budget(speedup=10))
        assert plan.computed == min(total, LEAST)


@pytest.mark.parametrize("handover", range(1, 9))
def test_evenly_spread_steps_have_the_handover_among_them_and_no_trend_across_it(handover: int) -> None:
    plan = spread(_profile([_walk(0, 9)]), 4, handover=handover)
    assert plan.computed == 4
    assert plan.computes[0]
    assert plan.computes[handover]
    later = [step for step in range(handover + 1, 9) if plan.computes[step]]
    assert not any(plan.gains[handover : later[0] + 1 if later else 9])


def test_a_drift_bound_may_be_kept_by_evenly_spread_steps() -> None:
    profile = _profile([np.linspace(0, 1, 20)[:, None] * np.ones((1, 4)) + 1])
    plan = plan_for(profile, Budget(max_drift=1.0))
    assert plan == spread(profile, LEAST)


def _step(index: int, total: int) -> Step:
    nothing = torch.zeros(1)
    return Step(
        index=index, total=total, sigma=1 - index / total, kept=index > 0, extrapolable=index > 1,
        latents=nothing, embedding=None,
    )  # fmt: skip
