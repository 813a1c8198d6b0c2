"""Fidelity gives the answers that the formulas give by hand."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from support.moving_textures import noisy, texture

from studio.errors import RequestError, WeightsMissing
from studio.metrics import fidelity


def _flat(level: int, *, num_frames: int = 2, side: int = 32) -> np.ndarray:
    return np.full((num_frames, side, side, 3), level, np.uint8)


def _clip(num_frames: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    return np.stack([texture(height, width, seed) for seed in range(num_frames)])


def _luminance(level: float, other: float) -> float:
    """SSIM of two flat pictures, whose variances are 0: only the luminance term is left (Wang et al. 2004, eq. 6)."""
    c1 = (0.01 * 255) ** 2
    return (2 * level * other + c1) / (level**2 + other**2 + c1)


@pytest.mark.parametrize("offset", [1, 10, 100])
def test_psnr_of_a_constant_offset_is_the_textbook_value(offset: int) -> None:
    assert fidelity.psnr(_flat(50 + offset), _flat(50)) == pytest.approx(20 * math.log10(255 / offset))


def test_psnr_is_over_all_pixels_not_the_mean_of_frames() -> None:
    reference = _flat(50, num_frames=4)
    clip = reference.copy()
    clip[1] += 20  # MSE of the clip: 400 / 4
    assert fidelity.psnr(clip, reference) == pytest.approx(20 * math.log10(255 / 10))
    per_frame = fidelity.psnr_per_frame(clip, reference)
    assert per_frame.shape == (4,)
    assert per_frame[1] == pytest.approx(20 * math.log10(255 / 20))
    assert np.isinf(per_frame[[0, 2, 3]]).all()


def test_psnr_of_one_wrong_pixel() -> None:
    clip, reference = _flat(0, num_frames=1, side=4), _flat(0, num_frames=1, side=4)
    clip[0, 2, 3, 1] = 255  # one of 48 values is off by the peak
    assert fidelity.psnr(clip, reference) == pytest.approx(10 * math.log10(48))


def test_psnr_does_not_wrap_round_where_the_clip_is_darker() -> None:
    assert fidelity.psnr(_flat(0), _flat(255)) == pytest.approx(0)
    assert fidelity.psnr(_flat(40), _flat(50)) == fidelity.psnr(_flat(50), _flat(40))


def test_equal_clips_are_perfect_by_every_measure() -> None:
    clip = _clip()
    assert fidelity.psnr(clip, clip) == math.inf
    assert fidelity.ssim(clip, clip) == pytest.approx(1, abs=1e-12)
    assert fidelity.ms_ssim(clip, clip) == 1


@pytest.mark.parametrize(("level", "other"), [(50, 60), (0, 255), (200, 100)])
def test_ssim_of_flat_frames_is_the_luminance_term(level: int, other: int) -> None:
    assert fidelity.ssim(_flat(level), _flat(other)) == pytest.approx(_luminance(level, other), abs=1e-9)


def test_ssim_agrees_with_the_formula_written_out() -> None:
    clip, reference = noisy(_clip(1), 20), _clip(1)
    offsets = np.arange(-5, 6)
    row = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(row, row) / row.sum() ** 2
    similarities = []
    for channel in range(3):
        x, y = (
            np.lib.stride_tricks.sliding_window_view(frames[0, ..., channel].astype(float), (11, 11))
            for frames in (clip, reference)
        )
        mean_x, mean_y = (x * window).sum((-1, -2)), (y * window).sum((-1, -2))
        var_x, var_y = (x * x * window).sum((-1, -2)) - mean_x**2, (y * y * window).sum((-1, -2)) - mean_y**2
        covariance = (x * y * window).sum((-1, -2)) - mean_x * mean_y
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        similarities.append((similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())
    assert 0.3 < np.mean(similarities) < 0.95
    assert fidelity.ssim(clip, reference) == pytest.approx(np.mean(similarities), abs=1e-9)


def test_per_frame_values_agree_with_the_whole() -> None:
    reference = _clip(4)
    clip = np.stack([noisy(frame[None], sigma)[0] for frame, sigma in zip(reference, (2, 30, 8, 4), strict=True)])
    psnr, ssim = fidelity.psnr_per_frame(clip, reference), fidelity.ssim_per_frame(clip, reference)
    assert psnr.shape == ssim.shape == (4,)
    assert -10 * math.log10(np.mean(10 ** (-psnr / 10))) == pytest.approx(fidelity.psnr(clip, reference))
    assert ssim.mean() == pytest.approx(fidelity.ssim(clip, reference))
    for frame in range(4):
        alone = slice(frame, frame + 1)
        assert psnr[frame] == pytest.approx(fidelity.psnr(clip[alone], reference[alone]))
        assert ssim[frame] == pytest.approx(fidelity.ssim(clip[alone], reference[alone]))
    assert psnr.argmin() == ssim.argmin() == 1, "the frame with the most noise"


@pytest.mark.parametrize(
    ("side", "scales"),
    [(10, 0), (11, 1), (21, 1), (22, 2), (43, 2), (44, 3), (98, 3), (99, 4), (175, 4), (176, 5), (900, 5)],
)
def test_ms_ssim_takes_as_many_scales_as_the_shorter_side_allows(side: int, scales: int) -> None:
    assert fidelity.ms_ssim_scales(side, 1000) == fidelity.ms_ssim_scales(1000, side) == scales


@pytest.mark.parametrize("side", [11, 22, 44, 99, 176])
def test_ms_ssim_of_flat_frames_is_the_luminance_term_of_the_coarsest_scale(side: int) -> None:
    weights = fidelity.MS_SSIM_WEIGHTS[: fidelity.ms_ssim_scales(side, side)]
    expected = _luminance(50, 100) ** (weights[-1] / sum(weights))
    clip, reference = _flat(50, num_frames=1, side=side), _flat(100, num_frames=1, side=side)
    # Single precision, in which the variance of a flat picture is not quite 0.
    assert fidelity.ms_ssim(clip, reference) == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_of_nearly_white_frames_is_right_to_three_digits() -> None:
    expected = _luminance(255, 250) ** (0.3001 / (0.0448 + 0.2856 + 0.3001))
    assert fidelity.ms_ssim(_flat(255, side=64), _flat(250, side=64)) == pytest.approx(expected, abs=1e-3)
    assert fidelity.ms_ssim(_flat(255, side=64), _flat(255, side=64)) == 1


@pytest.mark.parametrize("side", [16, 32, 64, 128, 192])
def test_more_noise_means_less_ms_ssim(side: int) -> None:
    reference = texture(side, side)[None]
    similarities = [fidelity.ms_ssim(noisy(reference, sigma), reference) for sigma in (0, 4, 12, 36, 108)]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] == 1
    assert similarities[-1] < 0.9


def test_an_inverted_picture_has_no_ms_ssim_left() -> None:
    reference = texture(64, 64)[None]
    assert fidelity.ms_ssim(255 - reference, reference) == 0


def test_ms_ssim_says_when_it_used_fewer_scales() -> None:
    assert fidelity.ms_ssim_remark(_flat(0, side=176)) is None
    assert fidelity.ms_ssim_remark(np.zeros((1, 64, 96, 3), np.uint8)) == (
        "at 3 scales instead of 5: frames of 96×64 are smaller than 176 pixels"
    )


def test_unequal_shapes_are_refused_naming_both() -> None:
    clip, reference = _clip(3, 48, 64), _clip(2, 64, 48)
    measures = (
        fidelity.psnr,
        fidelity.psnr_per_frame,
        fidelity.ssim,
        fidelity.ssim_per_frame,
        fidelity.ms_ssim,
        fidelity.lpips,
    )
    for measure in measures:
        with pytest.raises(RequestError, match=r"3 frames of 64×48 .* 2 frames of 48×64"):
            measure(clip, reference)


@pytest.mark.parametrize("measure", [fidelity.ssim, fidelity.ms_ssim])
def test_frames_smaller_than_the_window_are_refused_naming_the_smallest(measure) -> None:
    with pytest.raises(RequestError, match=r"at least 11×11 pixels; these have 10×10"):
        measure(_flat(1, side=10), _flat(1, side=10))


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_an_array_that_is_no_clip_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        fidelity.psnr(wrong, wrong)


def test_lpips_without_its_weights_says_what_is_missing_and_downloads_nothing(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    try:
        reason = fidelity.lpips_missing()
        with pytest.raises(WeightsMissing) as refusal:
            fidelity.lpips(_clip(1), _clip(1))
    finally:
        torch.hub.set_dir(before)
    lacking = "torchvision" if importlib.util.find_spec("torchvision") is None else fidelity.LPIPS_WEIGHTS
    assert reason is not None
    assert lacking in reason
    assert refusal.value.message == reason
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(fidelity.lpips_missing() is not None, reason=f"{fidelity.lpips_missing()}")
def test_lpips_grows_from_nothing_with_noise() -> None:
    reference = _clip(2)
    distances = [fidelity.lpips(noisy(reference, sigma), reference) for sigma in (0, 10, 40)]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances == sorted(distances)
    assert distances[-1] > 0.05
