"""What the tests of runs share: a store that is empty, and the smallest model."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.preset import Preset, find_preset
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, request_for


@pytest.fixture(scope="module")
def preset() -> Preset:
    return find_preset("pocket")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def request_(preset: Preset) -> GenerationRequest:
    return request_for(preset, prompt="A red car on a wet road", seed=7)
