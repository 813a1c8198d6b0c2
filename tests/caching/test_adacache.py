"""AdaCache: the authors' schedules, step for step, and what their code gets wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.caching.adacache import (
    FAST,
    HUNDRED,
    SLOW,
    AdaCachePolicy,
    Codebook,
    calibrated,
    codebook_of,
    moreg_of,
    scales_of,
)
from studio.caching.block_stack import Action, Step
from studio.caching.motion_regularization import motion_parts, motion_score, window_of
from studio.errors import RequestError
from studio.events import CacheDecided
from studio.generate import generate
from studio.preset import find_preset
from studio.records.profiles import find_profile
from studio.records.runs import RunStore
from studio.requests.caches import AdaCache
from studio.requests.generation import request_for

FRAMES, TOKENS, CHANNELS = 4, 2, 3
Curve = Callable[[int], float]


def _residual(size: float, motion: float) -> torch.Tensor:
    """(1, F·S, D) whose frames are size (1 ± motion) in turn, so that its motion score is exactly `motion`."""
    signs = torch.tensor([(-1.0) ** frame for frame in range(FRAMES)], dtype=torch.float64)
    by_frame = size * (1 + motion * signs)
    return by_frame[None, :, None, None].expand(1, FRAMES, TOKENS, CHANNELS).flatten(1, 2)


def _computed(policy: AdaCachePolicy, total: int, size: Curve, motion: Curve, branches: int = 1) -> list[int]:
    """The computed steps, from 1, of a run whose metric residual follows these curves."""
    (layer,) = policy.captures.layers
    steps = []
    for index in range(total):
        s = index + 1
        decision = policy.decide(_step(index, total, kept=index > 0))
        if decision.action is Action.COMPUTE:
            steps.append(s)
            for branch in range(branches):
                policy.measured(layer, branch, _residual(size(s), motion(s)), FRAMES)
    return steps


def _step(index: int, total: int, *, kept: bool = True) -> Step:
    nothing = torch.zeros(1)
    return Step(
        index=index, total=total, sigma=1 - index / total, kept=kept, extrapolable=False,
        latents=nothing, embedding=None,
    )  # fmt: skip


def _policy(total: int, codebook: Codebook, **settings: object) -> AdaCachePolicy:
    return AdaCachePolicy(AdaCache(**settings), codebook, total_steps=total, blocks=28)  # pyright: ignore[reportArgumentType]


def no_motion(s: int) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("total", "codebook", "size", "motion", "expected"),
    [
        (30, FAST, lambda s: math.exp(-s / 5), None, [1, 2, 6, 11, 16, 21, 26, 29, 30]),
        (30, FAST, lambda s: 1 + 0.5 * math.sin(s), None, [1, 2, 8, 14, 20, 26, 29, 30]),
        (30, SLOW, lambda s: math.exp(-s / 5), None, list(range(1, 31))),
        (
            100,
            HUNDRED,
            lambda s: math.exp(-s / 12),
            None,
            [1, 2, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 99, 100],
        ),
        (100, HUNDRED, lambda s: 1 + abs(s - 50) / 20, None, [1, 2, 14, 26, 38, 50, 60, 68, 78, 90, 99, 100]),
        (30, FAST, lambda s: math.exp(-s / 30), lambda s: 0.385, [1, 2, 8, 14, 20, 26, 29, 30]),
    ],
    ids=["G1", "G2", "G3", "G4", "G5", "G6-moreg"],
)
def test_the_authors_schedules_are_followed_step_for_step(
    total: int, codebook: Codebook, size: Curve, motion: Curve | None, expected: list[int]
) -> None:
    policy = _policy(total, codebook, moreg=motion is not None)
    assert _computed(policy, total, size, motion or no_motion) == expected


def _authors_schedule(total: int, codebook: Codebook, window: tuple[int, int], size: Curve, motion: Curve) -> list[int]:
    """The computed steps by the authors' code, read once more: numbers alone, one residual of `size` at each step."""
    computed, rate, before = [1], 1, 1.0
    cached, moved = size(1), motion(1)
    for s in range(2, total + 1):
        if s < computed[-1] + rate and s not in (total - 1, total):
            continue
        computed.append(s)
        # Frames of size (1 - motion) and (1 + motion) in turn; one of each is as good as all of them.
        older, fresh = ([c * (1 - m), c * (1 + m)] for c, m in ((cached, moved), (size(s), motion(s))))
        distance = sum(abs(a - b) for a, b in zip(older, fresh, strict=True)) / sum(map(abs, older)) / rate
        moreg = (motion(s) / 0.385) ** 8 if window[0] <= s <= window[1] else 1.0
        distance *= moreg + abs(10 * (moreg - before) / rate)
        before, cached, moved = moreg, size(s), motion(s)
        below = [r for threshold, r in zip(codebook.thresholds, codebook.rates, strict=False) if distance < threshold]
        rate = below[0] if below else codebook.rates[-1]
    return computed


def test_moregs_window_is_the_authors_at_both_of_their_numbers_of_steps() -> None:
    assert window_of(30, None) == (4, 26)
    assert window_of(100, None) == (10, 90)
    assert [window_of(total, None) for total in (8, 15, 50)] == [(2, 6), (3, 12), (6, 44)]
    assert window_of(100, (0.2, 0.7)) == (20, 70)


@pytest.mark.parametrize(
    ("total", "codebook", "window"), [(30, FAST, (4, 26)), (100, HUNDRED, (10, 90))], ids=["30", "100"]
)
def test_with_moreg_at_its_defaults_any_curves_give_the_authors_schedule(
    total: int, codebook: Codebook, window: tuple[int, int]
) -> None:
    told_apart = 0
    for number in range(60):
        phase, fall, swing = number * 0.7, 6 + number % 9, 0.02 + 0.002 * number

        def size(s: int, fall: float = fall) -> float:
            return math.exp(-s / fall / 4) * (1 + 0.1 * math.sin(s / 3))

        def motion(s: int, phase: float = phase, swing: float = swing) -> float:
            return 0.37 + swing * math.sin(s / 5 + phase)

        expected = _authors_schedule(total, codebook, window, size, motion)
        assert _computed(_policy(total, codebook, moreg=True), total, size, motion) == expected
        narrower = round(0.13 * total), round(0.87 * total)
        told_apart += expected != _authors_schedule(total, codebook, narrower, size, motion)
    assert told_apart > 10 or total == 30  # at 100 steps the window matters


def test_the_motion_of_a_known_residual_is_known() -> None:
    assert motion_score([torch.stack(motion_parts(_residual(2.0, 0.3), FRAMES, 1))]) == pytest.approx(0.3)
    assert motion_score([torch.stack(motion_parts(_residual(2.0, 0.3), FRAMES, 2))]) == 0.0


def test_more_motion_is_computed_more_often() -> None:
    def count(motion: float) -> int:
        policy = _policy(30, FAST, moreg=True)
        return len(_computed(policy, 30, lambda s: math.exp(-s / 8), lambda s: motion))

    assert count(0.30) < count(0.385) < count(0.48)


def test_two_passes_measure_exactly_what_one_batch_would() -> None:
    torch.manual_seed(0)
    joint, split = _policy(30, FAST, moreg=True), _policy(30, FAST, moreg=True)
    (layer,) = joint.captures.layers
    for index in range(3):
        decisions = [policy.decide(_step(index, 30, kept=index > 0)) for policy in (joint, split)]
        assert decisions[0].distance == decisions[1].distance
        # Multiples of 1/1024: sums of them are exact in float32 in any order, so the two must be equal to the last bit.
        cond, uncond = (torch.randint(-512, 512, (1, FRAMES * TOKENS, CHANNELS)) / 1024 for _ in range(2))
        joint.measured(layer, 0, torch.cat([cond, uncond]), FRAMES)
        split.measured(layer, 0, cond, FRAMES)
        split.measured(layer, 1, uncond, FRAMES)
    final = [policy.decide(_step(3, 30)) for policy in (joint, split)]
    assert final[0].distance == final[1].distance is not None
    assert final[0].motion == final[1].motion is not None


@pytest.mark.parametrize("fault", [math.nan, 0.0, math.inf], ids=["NaN", "zeros", "infinity"])
def test_a_residual_that_says_nothing_computes_instead_of_skipping(fault: float) -> None:
    policy = _policy(30, FAST)
    assert _computed(policy, 30, lambda s: fault, no_motion) == list(range(1, 31))


@pytest.mark.parametrize("length", [1, 2, 6, 9])
def test_codebooks_of_any_length_are_read_to_their_end(length: int) -> None:
    book = Codebook(thresholds=tuple(0.1 * (i + 1) for i in range(length - 1)), rates=tuple(range(length, 0, -1)))
    assert book.look_up(0.05)[0] == length
    assert book.look_up(99.0) == (1, None)
    for position, threshold in enumerate(book.thresholds):
        assert book.look_up(threshold)[0] == book.rates[position + 1]  # strictly below, as in the code


def test_several_layers_are_averaged_before_they_are_looked_up() -> None:
    policy = _policy(30, FAST, metric_layers=(3, 9))
    for index, sizes in enumerate([(1.0, 1.0), (1.1, 1.3)]):
        policy.decide(_step(index, 30, kept=index > 0))
        for layer, size in zip((3, 9), sizes, strict=True):
            policy.measured(layer, 0, _residual(size, 0.0), FRAMES)
    assert policy.decide(_step(2, 30)).distance == pytest.approx(0.2)


def test_the_papers_distance_is_absolute() -> None:
    policy = _policy(30, FAST, distance="absolute")
    for index, size in enumerate([1.0, 1.5]):
        policy.decide(_step(index, 30, kept=index > 0))
        policy.measured(13, 0, _residual(size, 0.0), FRAMES)
    assert policy.decide(_step(2, 30)).distance == pytest.approx(0.5 * FRAMES * TOKENS * CHANNELS)


def test_a_codebook_that_is_not_there_is_refused() -> None:
    for settings in (AdaCache(codebook="calibrated"), AdaCache(codebook="auto")):
        settings.check_model(measured=True, blocks=None)
    AdaCache(codebook="auto").check_model(measured=False, blocks=None)
    with pytest.raises(RequestError, match="no calibrated codebook"):
        AdaCache(codebook="calibrated").check_model(measured=False, blocks=None)
    assert codebook_of(AdaCache(), None) == FAST
    assert codebook_of(AdaCache(codebook="custom", thresholds=(0.5,), rates=(4, 1)), None).rates == (4, 1)


def test_no_distance_is_taken_between_two_networks() -> None:
    """A second transformer takes over at step 4, whose first residual is, by chance, the first one's last."""
    policy = _policy(12, FAST)
    (layer,) = policy.captures.layers
    decided = []
    for index in range(7):
        decided.append(policy.decide(_step(index, 12, kept=index not in (0, 4))))
        if decided[-1].action is Action.COMPUTE:
            policy.measured(layer, 0, _residual(2.0 ** (index if index < 4 else index - 1), 0.0), FRAMES)
    assert [decision.action for decision in decided] == [Action.COMPUTE] * 7
    assert decided[6].distance == 1.0


def test_a_calibrated_codebook_expects_moregs_factors_so_that_the_measured_clips_are_computed_as_often() -> None:
    profile = find_profile("pocket", None, total_steps=30)
    assert profile is not None
    scales = scales_of(AdaCache(moreg=True), profile, 30)
    assert scales == pytest.approx(profile.motions_for(30))
    factors = []
    for motions in profile.motions:
        moreg = moreg_of(AdaCache(moreg=True), scales)
        factors.append([moreg.factor(number + 1, motion, 1) for number, motion in enumerate(motions)])
    without, with_it = calibrated(profile, 30, AdaCache()), calibrated(profile, 30, AdaCache(moreg=True))
    assert without == calibrated(profile, 30)
    shares = []
    for book, weights in ((without, np.ones_like(factors)), (with_it, np.asarray(factors))):
        looked_up = (np.asarray(profile.distances) * weights)[:, 2:-2]
        shares.append(np.mean([1 / book.look_up(float(distance))[0] for distance in looked_up.flat]))
    assert shares[1] == pytest.approx(shares[0], rel=0.02)
    # Held against the codebook that knows nothing of them, the factors would compute more and more often.
    assert np.mean([1 / without.look_up(float(d))[0] for d in looked_up.flat]) > 1.1 * shares[0]


def test_the_scale_set_by_hand_is_the_scale_and_without_a_profile_it_is_the_authors() -> None:
    profile = find_profile("pocket", None, total_steps=30)
    assert scales_of(AdaCache(moreg_scale=0.2), profile, 12) == (0.2,) * 12
    assert scales_of(AdaCache(), None, 12) == (0.385,) * 12
    assert profile is not None
    old = dataclasses.replace(profile, motions=())  # written before motion was measured
    assert scales_of(AdaCache(), old, 12) == (0.385,) * 12
    assert len(scales_of(AdaCache(), profile, 50)) == 50
    assert AdaCache(codebook="fast", moreg=True).reads_profile
    assert not AdaCache(codebook="fast", moreg=True, moreg_scale=0.385).reads_profile


def test_of_two_clips_the_one_that_moves_more_is_computed_at_more_steps(tmp_path: Path) -> None:
    motion, computed = [], []
    for prompt, seed in (
        ("an empty curved road between hills and trees on a clear day", 1004),
        ("A green car crossing the junction from right to left, a three-lane road.", 0),
    ):
        request = request_for(
            find_preset("pocket"), prompt=prompt, seed=seed, cache={"method": "adacache", "moreg": True}
        )
        decided = [e for e in generate(request, store=RunStore(tmp_path)) if isinstance(e, CacheDecided)]
        motion.append(np.mean([each.motion for each in decided if each.motion is not None]))
        computed.append(sum(each.kind == "computed" for each in decided))
    assert motion[0] < 0.95 * motion[1]
    assert computed[0] < computed[1]
    assert all(6 < count < 30 for count in computed)
