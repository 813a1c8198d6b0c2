"""Profiling: measuring a model writes a profile that the next run's cache reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studio.caching.adacache import calibrated
from studio.events import BlockComputed, CacheDecided, Notice, ProfilingFinished, ProfilingStep
from studio.generate import PROFILES, generate
from studio.machine.weights import fingerprint
from studio.preset import find_preset
from studio.profiling import profile_model
from studio.records.profiles import Profile, find_profile
from studio.records.runs import RunStore
from studio.requests.caches import Budget
from studio.requests.generation import request_for

SMALL = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 8}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ProfilingStep], Profile]:
    """A runs folder with a profile in it, what was told on the way, and the profile."""
    folder = tmp_path_factory.mktemp("runs")
    told = list(profile_model(find_preset("pocket"), folder=folder / PROFILES, clips=2, growth_clips=1, **SMALL))
    steps = [event for event in told if isinstance(event, ProfilingStep)]
    last = told[-1]
    assert isinstance(last, ProfilingFinished)
    assert Path(last.plot).read_text().startswith("<svg")
    profile = find_profile("pocket", folder / PROFILES)
    assert profile is not None
    return folder, steps, profile


def test_progress_is_told_clip_by_clip_to_the_end(measured: tuple[Path, list[ProfilingStep], Profile]) -> None:
    _, steps, _ = measured
    assert [step.done for step in steps] == list(range(1, steps[-1].total + 1))


def test_a_profile_holds_what_was_measured(measured: tuple[Path, list[ProfilingStep], Profile]) -> None:
    folder, _, profile = measured
    assert len(profile.sigmas) == 8
    assert list(profile.sigmas) == sorted(profile.sigmas, reverse=True)
    for gram in np.asarray(profile.grams):
        assert np.allclose(gram, gram.T)
        assert np.linalg.eigvalsh(gram).min() > -1e-6
        assert np.trace(gram) == pytest.approx(8, abs=1e-3)
    assert all(factor > 0 for _, factor in profile.growth)
    assert 0 <= profile.skipped_share < 0.9
    assert len(profile.mag_ratios) == 16
    assert all(distance > 0 for clip in profile.distances for distance in clip[1:])
    assert all(0 < motion < 1 for clip in profile.motions for motion in clip[1:])
    assert len(profile.sensitivities) == 8
    assert all(by_latents > 0 and by_noise > 0 for by_latents, by_noise in profile.sensitivities)
    assert profile.weights == fingerprint(find_preset("pocket")) != ""
    found = find_profile("pocket", folder / PROFILES)
    assert found is not None
    assert len(found.sigmas) == 8


def test_a_codebook_comes_of_it_with_rates_for_the_number_of_steps(
    measured: tuple[Path, list[ProfilingStep], Profile],
) -> None:
    _, _, profile = measured
    thirty, hundred = calibrated(profile, 30), calibrated(profile, 100)
    assert list(thirty.thresholds) == sorted(thirty.thresholds)
    assert hundred.rates[0] > thirty.rates[0] >= thirty.rates[-1] >= 1


@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0])
def test_a_budget_is_spent_to_the_step(speedup: float, measured: tuple[Path, list[ProfilingStep], Profile]) -> None:
    from studio.caching.budget import plan_for

    folder, _, profile = measured
    cache = {"method": "budget", "speedup": speedup}
    request = request_for(find_preset("pocket"), prompt="a road", seed=1, cache=cache, **SMALL)
    events = list(generate(request, store=RunStore(folder)))
    decided = [event for event in events if isinstance(event, CacheDecided)]
    computed = {event.step for event in events if isinstance(event, BlockComputed)}
    assert [event.step for event in decided] == list(range(8))
    assert {event.step for event in decided if event.kind == "computed"} == computed
    assert len(computed) == plan_for(profile, Budget(speedup=speedup)).computed
    (notice,) = (event.text for event in events if isinstance(event, Notice))
    assert notice.startswith(f"Budget computes {len(computed)} of 8 steps, spread evenly")
