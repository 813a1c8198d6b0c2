"""A tiny Wan model in a catalogue of its own, and clips to train it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_checkpoints

from studio.clip import Clip, write_clip
from studio.finetune_request import FinetuneRequest, TrainingClip, finetune_request_for
from studio.preset import find_preset
from studio.runs import RunStore


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoints.write_preset("wan", tiny_checkpoints.save("wan", folder), folder / "presets")
    return folder / "presets"


@pytest.fixture(autouse=True)
def tiny_presets(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_PRESETS", str(catalogue))


def moving_square(path: Path, seed: int, *, num_frames: int = 11, size: int = 48, fps: float = 8) -> Path:
    """A clip of a bright square that moves, on its own background."""
    draw = np.random.default_rng(seed)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    frames[:] = draw.integers(0, 120, 3)
    for number, frame in enumerate(frames):
        left = (3 * number + 5 * seed) % (size - 16)
        frame[10:26, left : left + 16] = draw.integers(160, 255, 3)
    write_clip(Clip(frames=frames, fps=fps), path)
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingClip, ...]:
    folder = tmp_path_factory.mktemp("clips")
    return tuple(
        TrainingClip(path=moving_square(folder / f"square-{seed}.mp4", seed), caption=f"square number {seed}")
        for seed in range(5)
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def asked(clips: tuple[TrainingClip, ...], **fields: Any) -> FinetuneRequest:
    """Small and quick."""
    few = {"height": 32, "width": 32, "num_frames": 5, "fps": 8.0, "max_train_steps": 4, "checkpointing_steps": 2}
    return finetune_request_for(find_preset("wan"), clips=clips, **(few | fields))
