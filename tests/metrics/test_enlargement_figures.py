"""Figures of enlargements are what their definitions say, and a clip passes picture by picture."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.moving_textures import noisy, panned, texture

from studio.clips.shrinking import shrunk
from studio.errors import RequestError, StudioError
from studio.metrics import enlargement, motion
from studio.metrics import vmaf as vmaf_module
from studio.metrics.enlargement import FIGURES, Meter, colour_error, flicker_ratio, shrink_back, why_not
from studio.metrics.vmaf import Vmaf, vmaf, vmaf_missing, vmaf_neg
from studio.metrics.warping import change_along, paths, warping_error

NEEDS_NO_ORIGINAL = {"shrink_back", "flicker"}


@pytest.fixture(autouse=True)
def _libvmaf() -> None:
    assert vmaf_missing() is None, "the ffmpeg of imageio-ffmpeg brings libvmaf"


def small_of(clip: np.ndarray, scale: int) -> np.ndarray:
    return np.stack([np.rint(np.clip(shrunk(each.astype(np.float32), scale), 0, 255)) for each in clip]).astype(
        np.uint8
    )


# ------------------------------------------------------------------------------------------------- one by one


def test_of_equal_clips_nothing_is_wrong() -> None:
    clip = panned(2, 1, num_frames=4)
    assert vmaf(clip, clip) > 95
    assert vmaf_neg(clip, clip) > 95
    assert flicker_ratio(clip, clip) == 1
    assert enlargement.warping_ratio(clip, clip) == 1
    assert colour_error(clip, clip) == 0


def test_vmaf_falls_with_noise_and_its_neg_gives_no_credit_for_sharpening() -> None:
    clip = panned(2, 1, num_frames=4, side=128)
    scores = [vmaf(noisy(clip, sigma), clip) for sigma in (0, 10, 40)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 95
    assert scores[2] < scores[1] - 10
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), 1.5) for each in clip])
    sharpened = np.clip(1.6 * clip.astype(float) - 0.6 * soft, 0, 255).astype(np.uint8)
    gentle = np.stack([cv2.GaussianBlur(each, (0, 0), 0.8) for each in clip])
    assert vmaf(sharpened, gentle) > vmaf(clip, gentle) - 5  # what is sharper than its reference is not punished
    assert vmaf(sharpened, gentle) - vmaf_neg(sharpened, gentle) > 1


def test_shrink_back_is_infinite_where_nothing_is_left_and_falls_by_what_is_added() -> None:
    flat = np.full((2, 32, 48, 3), 100, np.uint8)
    assert shrink_back(flat, np.full((2, 16, 24, 3), 100, np.uint8)) > 120  # single precision
    # A shift passes the filter whole: 20 log10(255 / 5).
    assert shrink_back(flat, np.full((2, 8, 12, 3), 95, np.uint8)) == pytest.approx(20 * math.log10(51), abs=1e-3)


def test_shrink_back_is_over_all_pictures_at_once() -> None:
    clip = np.full((2, 8, 8, 3), 100, np.uint8)
    given = np.stack([np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 110, np.uint8)])
    assert shrink_back(clip, given) == pytest.approx(10 * math.log10(255**2 / 50), abs=1e-3)


def test_flicker_is_told_as_a_ratio() -> None:
    reference = np.full((5, 8, 8, 3), 100, np.uint8)
    reference[1::2] = 104
    twice = np.full((5, 8, 8, 3), 100, np.uint8)
    twice[1::2] = 108
    still = np.full((5, 8, 8, 3), 100, np.uint8)
    assert flicker_ratio(twice, reference) == 2
    assert flicker_ratio(still, reference) == 0
    assert flicker_ratio(reference, still) == math.inf
    assert math.isnan(flicker_ratio(still, still))


def test_colour_error_is_the_shift_whatever_its_sign_and_noise_has_none() -> None:
    clip = np.full((3, 16, 16, 3), 100, np.uint8)
    shifted = clip.copy()
    shifted[..., 0] += 6
    shifted[..., 1] -= 3
    assert colour_error(shifted, clip) == pytest.approx(3)
    textured = np.clip(panned(0, 0, num_frames=2), 40, 215)
    assert colour_error(noisy(textured, 5), textured) < 0.15


def test_warping_error_is_the_mean_square_that_is_added_against_the_motion() -> None:
    flash = np.full((2, 64, 64, 3), 100, np.uint8)
    flash[1] = 151  # a fifth of all levels
    assert warping_error(flash, np.full_like(flash, 100)) == pytest.approx(1000 * 0.2**2, rel=1e-4)
    still = np.repeat(texture(64, 64)[None], 3, axis=0)
    assert warping_error(still, still) < 1e-3


def test_warping_error_takes_the_originals_motion_away_and_leaves_what_does_not_follow_it() -> None:
    clip = panned(3, 2, side=96)
    own = warping_error(clip, clip)
    assert own < 0.2
    noise = warping_error(noisy(clip, 8), clip)
    # Two pictures' independent noise, less what reading between pixels smooths away of one of them.
    assert 1000 * (8 / 255) ** 2 < noise < 1000 * 2 * (8 / 255) ** 2 + own + 0.2
    stands = np.repeat(clip[:1], len(clip), axis=0)
    assert warping_error(stands, clip) > 20 * own


def test_the_paths_of_a_pan_are_its_step() -> None:
    way = paths(*panned(3, -2, num_frames=2, side=96))
    rows, columns = np.mgrid[0:96, 0:96]
    assert np.median(way.x - columns) == pytest.approx(-3, abs=0.1)
    assert np.median(way.y - rows) == pytest.approx(2, abs=0.1)
    assert way.follows.mean() > 0.8


@pytest.mark.parametrize("size", [(32, 32), (32, 800), (800, 32), (33, 47), (64, 1000), (40, 2048)])
def test_small_and_long_pictures_are_followed(size: tuple[int, int]) -> None:
    """Left to itself the search reads beyond such pictures: in a process of its own, which may die of it."""
    code = (
        "import numpy as np; from studio.metrics.warping import warping_error\n"
        f"clip = np.random.default_rng(0).integers(0, 256, (3, *{size}, 3), np.uint8)\n"
        "assert warping_error(clip, clip) >= 0"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


# ------------------------------------------------------------------------------------------------- together


@pytest.mark.parametrize("scale", [2, 4])
def test_picture_by_picture_the_figures_are_those_of_the_clip(scale: int) -> None:
    original = panned(2, 1, num_frames=5, side=64)
    given = small_of(original, scale)
    clips = {"soft": np.stack([cv2.blur(each, (3, 3)) for each in original]), "noisy": noisy(original, 6)}
    with Meter(list(clips), height=64, width=64, scale=scale, original=True) as meter:
        for index in range(5):
            pictures = {name: clip[index] for name, clip in clips.items()}
            meter.add(pictures, given=given[index], original=original[index])
        figures = meter.figures()
    assert meter.lacking == {}
    assert meter.count == 5
    for name, clip in clips.items():
        assert list(figures[name]) == list(FIGURES)
        for figure, metric in FIGURES.items():
            beside = given if figure == "shrink_back" else original
            assert figures[name][figure] == pytest.approx(metric.function(clip, beside), rel=1e-6), figure
    assert figures["soft"]["flicker"] < 1 < figures["noisy"]["flicker"]
    assert figures["noisy"]["warping_error"] > 2


def test_without_an_original_what_needs_none_is_measured_and_the_rest_says_why() -> None:
    clip = panned(2, 1, num_frames=4)
    given = small_of(clip, 2)
    with Meter(["it"], height=64, width=64, scale=2, original=False) as meter:
        for index in range(4):
            meter.add({"it": clip[index]}, given=given[index])
        figures = meter.figures()["it"]
    assert set(figures) == NEEDS_NO_ORIGINAL
    assert set(meter.lacking) == set(FIGURES) - NEEDS_NO_ORIGINAL
    assert meter.lacking["psnr"] == "PSNR compares with the original, and none was given."
    assert figures["flicker"] == pytest.approx(motion.flicker(clip) / motion.flicker(given))


def test_a_single_picture_has_no_unrest_and_no_pictures_have_nothing() -> None:
    picture = texture(64, 64)
    with Meter(["it"], height=64, width=64, scale=2, original=True) as meter:
        meter.add({"it": picture}, given=small_of(picture[None], 2)[0], original=picture)
        assert {"flicker", "warping_error"} & set(meter.figures()["it"]) == set()
    with (
        Meter(["it"], height=64, width=64, scale=2, original=True) as meter,
        pytest.raises(StudioError, match="no pictures"),
    ):
        meter.figures()


def test_direction_of_every_figure_tells_a_little_noise_from_much() -> None:
    original = panned(2, 1, num_frames=4, side=64)
    clips = {"little": noisy(original, 3), "much": noisy(original, 30)}
    with Meter(list(clips), height=64, width=64, scale=2, original=True) as meter:
        for index, given in enumerate(small_of(original, 2)):
            pictures = {name: clip[index] for name, clip in clips.items()}
            meter.add(pictures, given=given, original=original[index])
        figures = meter.figures()
    for name, metric in FIGURES.items():
        assert (figures["little"][name] > figures["much"][name]) == metric.higher_is_better, name


# ------------------------------------------------------------------------------------------------- what is missing


def test_pictures_that_are_too_small_for_a_figure_are_named() -> None:
    assert why_not("vmaf", height=31, width=200) == (
        "VMAF needs pictures of at least 32×32 pixels, and these have 200×31."
    )
    assert why_not("vmaf", height=32, width=32) is None
    with pytest.raises(RequestError, match="VMAF needs frames of at least 32×32 pixels"):
        vmaf(np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), np.uint8))
    clip = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    with Meter(["it"], height=16, width=16, scale=2, original=True) as meter:
        for picture in clip:
            meter.add({"it": picture}, given=picture[::2, ::2], original=picture)
        figures = meter.figures()["it"]
    assert set(figures) == {"psnr", "ssim", "ms_ssim", "shrink_back", "flicker", "colour_error"}
    assert figures["psnr"] == math.inf


def test_an_ffmpeg_without_libvmaf_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg-of-another-kind"
    program.write_text("#!/bin/sh\necho ' .. scale  V->V  Scale the input.'\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    vmaf_missing.cache_clear()
    try:
        assert why_not("vmaf_neg", height=64, width=64) == (
            "VMAF needs an ffmpeg with libvmaf, and ffmpeg-of-another-kind was built without it."
        )
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
        vmaf_missing.cache_clear()
        assert "does not run here" in str(why_not("vmaf", height=64, width=64))
    finally:
        vmaf_missing.cache_clear()


def test_a_vmaf_process_that_dies_is_told_and_nothing_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmaf_module, "MODELS", {"vmaf": "vmaf_of_nobody"})
    with Vmaf(height=64, width=64) as measuring:
        folder = Path(measuring._folder.name)
        measuring._process.wait(30)  # it does not know the model
        with pytest.raises(StudioError, match="VMAF could not be measured"):
            measuring.add(texture(64, 64), texture(64, 64))
        with pytest.raises(StudioError, match="VMAF could not be measured"):
            measuring.scores()
    assert measuring._process.returncode is not None
    assert not folder.exists()


def test_importing_the_figures_loads_nothing_heavy() -> None:
    code = "import sys, studio.metrics.enlargement; print(*sys.modules)"
    folder = Path(__file__).parents[2]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert not {"torch", "torchmetrics", "skimage", "cv2", "imageio_ffmpeg"} & set(loaded.stdout.split())


def test_what_changed_along_the_paths_is_summed_over_trusted_pixels_alone() -> None:
    before, after = panned(3, 2, num_frames=2, side=96)
    way = paths(before, after)
    total, count = change_along(way, before, after)
    assert count == 3 * way.follows.sum()
    assert total / count == pytest.approx(warping_error(np.stack([before, after]), np.stack([before, after])) / 1000)
