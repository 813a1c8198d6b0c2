"""Frames are a pure function of the scene, the moment and the size."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from studio.driving_world import TIMES_OF_DAY, WEATHERS, Scene, render, render_with_maps, sample_scene

SEEDS = (0, 3, 11, 42, 500)
_DIGEST = """
import hashlib
from studio.driving_world import render, sample_scene
frames = b"".join(render(sample_scene(seed), num_frames=3).frames.tobytes() for seed in {seeds})
print(hashlib.sha256(frames).hexdigest())
"""


def test_another_process_renders_the_same_bytes() -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-c", _DIGEST.format(seeds=SEEDS)], capture_output=True, text=True, check=True
    )
    here = b"".join(render(sample_scene(seed), num_frames=3).frames.tobytes() for seed in SEEDS)
    assert elsewhere.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_different_seeds_differ() -> None:
    assert not np.array_equal(
        render(sample_scene(1), num_frames=1).frames, render(sample_scene(2), num_frames=1).frames
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frame_does_not_depend_on_how_long_the_clip_is(seed: int) -> None:
    scene = sample_scene(seed)
    short, long = render(scene, num_frames=5).frames, render(scene, num_frames=30).frames
    assert np.array_equal(short, long[:5])


@pytest.mark.parametrize("seed", SEEDS)
def test_twice_the_frame_rate_shows_the_same_moments_in_between(seed: int) -> None:
    scene = sample_scene(seed)
    slow, fast = render(scene, num_frames=4, fps=12).frames, render(scene, num_frames=7, fps=24).frames
    assert np.array_equal(slow, fast[::2])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_larger_picture_shows_the_same_scene(seed: int) -> None:
    scene = sample_scene(seed, weather="clear")
    small = render(scene, num_frames=1).frames[0].astype(float)
    large = render(scene, num_frames=1, height=512, width=512).frames[0]
    shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - shrunk).mean() < 5


@pytest.mark.parametrize(("height", "width"), [(128, 128), (72, 128), (160, 96), (45, 81)])
def test_any_shape_of_picture_is_filled(height: int, width: int) -> None:
    clip = render(sample_scene(5), height=height, width=width, num_frames=2, fps=8)
    assert clip.frames.shape == (2, height, width, 3)
    assert clip.fps == 8
    assert clip.frames[0].std() > 10


def test_maps_do_not_change_the_frames() -> None:
    for seed in SEEDS:
        clip, _ = render_with_maps(sample_scene(seed), num_frames=3)
        assert np.array_equal(clip.frames, render(sample_scene(seed), num_frames=3).frames)


def test_the_picture_moves() -> None:
    for seed in range(6):
        frames = render(sample_scene(seed)).frames.astype(float)
        assert np.abs(frames[1:] - frames[:-1]).mean() > 0.3


def _middle_colour(scene: Scene) -> np.ndarray:
    return render(scene, num_frames=1).frames[0].astype(float).mean(axis=(0, 1))


def test_day_is_brighter_than_dusk_and_dusk_than_night_in_every_weather() -> None:
    for weather in WEATHERS:
        day, dusk, night = (
            _middle_colour(sample_scene(21, time_of_day=time_of_day, weather=weather)) for time_of_day in TIMES_OF_DAY
        )
        assert day.mean() > dusk.mean() + 15 > night.mean() + 30
        assert dusk[0] > dusk[2], "dusk is warm"


def test_fog_flattens_and_snow_whitens() -> None:
    clear, fog, snow = (
        render(sample_scene(21, time_of_day="day", weather=w), num_frames=1).frames[0] for w in ("clear", "fog", "snow")
    )
    horizon = slice(50, 64)
    assert fog[horizon].std() < 0.7 * clear[horizon].std()
    assert snow[70:].mean() > clear[70:].mean() + 20


def test_a_size_or_length_that_cannot_be_is_refused_by_name() -> None:
    scene = sample_scene(1)
    with pytest.raises(ValueError, match="num_frames must be at least 1, not 0"):
        render(scene, num_frames=0)
    with pytest.raises(ValueError, match="width must be at least 8 pixels, not 4"):
        render(scene, width=4)
    with pytest.raises(ValueError, match="fps must be above 0, not 0"):
        render(scene, fps=0)
