"""Motion metrics find the motion that was put in, and nothing where there is none."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from support.moving_textures import panned, texture

from studio.driving_world import render_with_maps, sample_scene
from studio.errors import RequestError
from studio.metrics import motion

SEEDS = (0, 3, 11)


def test_flicker_of_an_alternating_clip_is_the_step() -> None:
    clip = np.full((6, 4, 4, 3), 100, np.uint8)
    clip[1::2] = 110
    assert motion.flicker(clip) == pytest.approx(10)


def test_flicker_is_the_mean_over_pixels_colours_and_pairs() -> None:
    clip = np.zeros((3, 2, 2, 3), np.uint8)
    clip[1, 0, 0, 0] = 240  # one of 12 values leaps by 240, and falls back: 20 both times
    assert motion.flicker(clip) == pytest.approx(20)
    clip[2, 0, 0, 0] = 240  # and stays: 20 once, 0 once
    assert motion.flicker(clip) == pytest.approx(10)


def test_a_still_clip_shows_neither_flicker_nor_motion() -> None:
    clip = np.repeat(texture(48, 64)[None], 3, axis=0)
    assert motion.flicker(clip) == 0
    # Pixels and levels: the method finds a few thousandths of a pixel between equal frames.
    assert motion.motion_magnitude(clip) < 0.01
    still = motion.flow_warp(clip)
    assert still.error < 0.2
    assert still.trusted_share > 0.95


@pytest.mark.parametrize(("step_x", "step_y"), [(1, 0), (0, 1), (3, 2), (5, -3)])
def test_the_motion_of_a_panned_texture_is_its_step(step_x: int, step_y: int) -> None:
    # 3 %: what enters at the rim was never seen before, and its motion is guessed.
    assert motion.motion_magnitude(panned(step_x, step_y)) == pytest.approx(math.hypot(step_x, step_y), rel=0.03)


def test_optical_flow_points_from_the_earlier_frame_to_the_later() -> None:
    flow = motion.optical_flow(*panned(3, -2, num_frames=2))
    assert flow.shape == (64, 64, 2)
    assert np.median(flow, axis=(0, 1)) == pytest.approx([-3, 2], abs=0.1)


@pytest.mark.parametrize(("step_x", "step_y"), [(3, 2), (5, -3)])
def test_flow_warping_takes_an_honest_motion_away_and_leaves_a_shuffled_one(step_x: int, step_y: int) -> None:
    clip = panned(step_x, step_y)
    in_order, shuffled = motion.flow_warp(clip), motion.flow_warp(clip[[0, 3, 1, 4, 2]])
    assert in_order.error < 0.5  # levels of 255; interpolation at the found positions is all that is left
    assert in_order.error < motion.flicker(clip) / 40
    assert in_order.trusted_share > 0.8
    assert shuffled.error > 5 * in_order.error
    assert shuffled.trusted_share < in_order.trusted_share
    assert motion.flow_warp_error(clip) == in_order.error


def test_unrelated_frames_have_a_large_flow_warp_error() -> None:
    clip = np.stack([texture(64, 64, seed) for seed in range(4)])
    unrelated = motion.flow_warp(clip)
    assert unrelated.error > 20
    assert unrelated.trusted_share < 0.8


def test_a_flash_is_left_after_warping() -> None:
    clip = np.full((2, 32, 32, 3), 100, np.uint8)
    clip[1] = 109
    assert motion.flow_warp(clip) == motion.FlowWarp(error=9, trusted_share=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffling_a_drive_is_noticed(seed: int) -> None:
    clip, _ = render_with_maps(sample_scene(seed, time_of_day="day", weather="clear"), num_frames=6)
    shuffled = clip.frames[[0, 3, 1, 5, 2, 4]]
    assert motion.flow_warp_error(shuffled) > 1.3 * motion.flow_warp_error(clip.frames)


@pytest.mark.parametrize("seed", SEEDS)
def test_motion_magnitude_finds_the_exact_flow_of_a_drive_laid_on_a_texture(seed: int) -> None:
    """The drive's own flow f moves a texture T, as T(x + f(x)) → T(x): then f is the motion, at every pixel."""
    _, maps = render_with_maps(sample_scene(seed, time_of_day="day", weather="clear"), num_frames=2, fps=48)
    assert maps.optical_flow is not None
    flow = maps.optical_flow[0]
    rows, columns = np.mgrid[0 : flow.shape[0], 0 : flow.shape[1]].astype(np.float32)
    after = texture(*flow.shape[:2])
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    before = cv2.remap(after, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    # 10 %: averaging over the window rounds off the borders between things that move differently.
    exact = np.linalg.norm(flow, axis=-1).mean()
    assert motion.motion_magnitude(np.stack([before, after])) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_optical_flow_of_a_drive_is_right_where_there_is_texture(seed: int) -> None:
    clip, maps = render_with_maps(sample_scene(seed, time_of_day="day", weather="clear"), num_frames=2, fps=48)
    assert maps.optical_flow is not None
    before, after = clip.frames
    slope = np.hypot(*np.gradient(cv2.cvtColor(before, cv2.COLOR_RGB2GRAY).astype(float)))
    textured = cv2.dilate((slope > 12).astype(np.uint8), np.ones((3, 3))) > 0
    assert textured.mean() > 0.2
    misses = np.linalg.norm(motion.optical_flow(before, after) - maps.optical_flow[0], axis=-1)
    assert np.median(misses[textured]) < 0.35  # pixels


@pytest.mark.parametrize("measure", [motion.flicker, motion.flow_warp, motion.motion_magnitude])
def test_one_frame_has_no_neighbour(measure) -> None:
    with pytest.raises(RequestError, match="this clip has one frame"):
        measure(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("size", [(14, 40), (40, 14)])
def test_frames_smaller_than_the_flow_window_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="at least 15×15 pixels"):
        motion.motion_magnitude(np.zeros((2, *size, 3), np.uint8))


@pytest.mark.parametrize("size", [(15, 15), (15, 200), (200, 15), (17, 64)])
def test_small_and_long_frames_are_measured(size: tuple[int, int]) -> None:
    frame = texture(*(16 * math.ceil(side / 16) for side in size))[: size[0], : size[1]]
    clip = np.stack([frame, frame])
    assert motion.motion_magnitude(clip) < 0.01
    assert motion.flow_warp(clip).error < 0.2


def test_where_no_pixel_is_trusted_the_error_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    outward = np.full((16, 16, 2), 100, np.float32)  # every pixel is led out of the picture
    monkeypatch.setattr(motion, "optical_flow", lambda before, after: outward)
    nothing = motion.flow_warp(np.zeros((2, 16, 16, 3), np.uint8))
    assert math.isnan(nothing.error)
    assert nothing.trusted_share == 0
