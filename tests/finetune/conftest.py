"""Tiny Wan models, with one denoiser and with two, in a catalogue of their own, and clips to train them on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_checkpoints
from support.small_training import moving_square

from studio.records.runs import RunStore
from studio.requests.training import TrainingClip


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for name in ("wan", "wan-two-experts"):
        tiny_checkpoints.write_preset(name, tiny_checkpoints.save(name, folder), folder / "presets")
    return folder / "presets"


@pytest.fixture(autouse=True)
def tiny_presets(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_PRESETS", str(catalogue))


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
