"""The table measures what it can, says why it left the rest out, and costs nothing to import."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.moving_textures import noisy, panned

from studio import metrics
from studio.errors import RequestError
from studio.metrics import METRICS, remark, score, scores_to_json, why_not

PROJECT = Path(__file__).parent.parent.parent


def test_importing_metrics_loads_nothing_heavy() -> None:
    code = "import sys, studio.metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"torch", "torchmetrics", "skimage", "scipy", "cv2", "diffusers"} & set(loaded.stdout.split())


def test_every_line_of_the_table_is_measured_or_excused() -> None:
    reference = panned(2, 1, num_frames=3)
    clip = noisy(reference, 5)
    scores = score(clip, reference)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert (name in scores) != (why_not(name, clip, reference) is not None), name
    assert list(scores) == [name for name in METRICS if name in scores]
    assert {"psnr", "ssim", "ms_ssim", "flicker", "flow_warp_error", "motion_magnitude"} <= set(scores)
    assert all(type(value) is float and math.isfinite(value) for value in scores.values())


def test_direction_of_every_metric_that_has_one_tells_a_little_noise_from_much() -> None:
    reference = panned(2, 1, num_frames=3)
    little, much = score(noisy(reference, 3), reference), score(noisy(reference, 30), reference)
    for name in little:
        better = METRICS[name].higher_is_better
        assert better is None or (little[name] > much[name]) == better, name


def test_without_a_reference_only_what_needs_none_is_measured() -> None:
    clip = panned(1, 0, num_frames=max(metric.least_frames for metric in METRICS.values()))
    assert set(score(clip)) == {name for name, metric in METRICS.items() if not metric.needs_reference}
    assert why_not("psnr", clip) == "PSNR compares with a reference clip, and there is none."
    assert why_not("psnr") is None


def test_a_single_frame_has_fidelity_and_no_motion() -> None:
    reference = panned(0, 0, num_frames=1)
    assert {"psnr", "ssim", "ms_ssim"} <= set(score(noisy(reference, 5), reference))
    assert not {"flicker", "flow_warp_error", "motion_magnitude"} & set(score(reference, reference))
    assert why_not("flicker", reference) == "Flicker needs 2 frames, and the clip has 1 frame of 64×64."


@pytest.mark.parametrize("side", range(1, 32))
def test_what_the_table_allows_at_a_small_size_can_be_measured(side: int) -> None:
    clip = np.random.default_rng(side).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    scores = score(clip, clip)
    assert {"psnr", "flicker"} <= set(scores)
    for name in set(METRICS) - set(scores):
        assert why_not(name, clip, clip), name


def test_only_the_names_asked_for_in_their_order() -> None:
    clip = panned(1, 0, num_frames=2)
    assert list(score(clip, clip, ["ssim", "psnr"])) == ["ssim", "psnr"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    for ask in (lambda: score(panned(1, 0), names=["sharpness"]), lambda: why_not("sharpness")):
        with pytest.raises(RequestError, match=r"No metric is called 'sharpness'\. Known: psnr, ssim"):
            ask()


def test_unequal_shapes_are_refused_even_where_no_metric_would_compare_them() -> None:
    clip = panned(1, 0, num_frames=2)
    with pytest.raises(RequestError, match=r"2 frames of 64×64 .* 1 frame of 64×64") as refusal:
        score(clip, clip[:1], ["flicker"])
    assert refusal.value.field == "reference"


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_of_skimage(name: str) -> object | None:
        return None if name == "skimage" else object()

    monkeypatch.setattr(metrics.importlib.util, "find_spec", nothing_of_skimage)
    clip = panned(1, 0, num_frames=2)
    assert why_not("ssim", clip, clip) == "SSIM needs the package skimage, and it is not installed."
    assert list(score(clip, clip, ["ssim", "psnr"])) == ["psnr"]


def test_scores_survive_strict_json() -> None:
    scores = {"psnr": math.inf, "ssim": 0.5, "flow_warp_error": math.nan, "low": -math.inf}
    text = json.dumps(scores_to_json(scores), allow_nan=False)
    back = {name: float(value) for name, value in json.loads(text).items()}
    assert back["psnr"] == math.inf
    assert back["ssim"] == 0.5
    assert math.isnan(back["flow_warp_error"])
    assert back["low"] == -math.inf


def test_a_remark_stands_beside_ms_ssim_of_small_frames_only() -> None:
    small, large = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 176, 176, 3), np.uint8)
    assert remark("ms_ssim", small) == "at 3 scales instead of 5: frames of 64×64 are smaller than 176 pixels"
    assert remark("ms_ssim", large) is None
    assert remark("psnr", small) is None
