"""Pages without a browser, one at home and one that is shared, and clips to upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.scripted_generate import VERBS

from studio.clips.clip import Clip
from studio.clips.write import write_clip
from studio.jobs import JobQueue
from studio.machine import hardware
from studio.records.runs import RunStore
from studio.ui.server.page_context import PageContext


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageContext]:
    """A page whose queue is worked on by nobody until the test starts it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    store = RunStore(tmp_path / "runs")
    queue = JobQueue(store=store, verbs=VERBS, in_process=True)
    yield PageContext(store=store, queue=queue, machine=hardware.measure(), hosted=False)
    queue.close()


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageContext]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    store = RunStore(tmp_path / "runs")
    queue = JobQueue(store=store, verbs=VERBS, in_process=True, max_jobs_per_owner=3)
    yield PageContext(store=store, queue=queue, machine=hardware.measure(), hosted=True)
    queue.close()


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., str]:
    """Makes a clip as it lies in the page's upload folder."""

    def make(name: str = "drive.mp4", *, seed: int = 0, num_frames: int = 20) -> str:
        path = tmp_path / "uploads" / name
        path.parent.mkdir(exist_ok=True)
        frames = np.random.default_rng(seed).integers(0, 255, (1, 64, 64, 3), np.uint8).repeat(num_frames, 0)
        write_clip(Clip(frames=frames, fps=12.0), path)
        return str(path)

    return make
