"""A model is loaded before anybody asks, and says how quick it is here, unless somebody asks meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from studio import pipelines
from studio.jobs import worker
from studio.jobs.preload import preload
from studio.jobs.table import JobTable
from studio.machine import pace
from studio.pipelines import loading
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import request_for


def test_a_model_loaded_ahead_of_time_leaves_its_pace_and_no_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    preload("pocket", store=store)
    request = request_for(find_preset("pocket"), prompt="a road", seed=1)
    assert pace.predict(request, store.folder) is not None
    assert store.count() == 0


def test_whoever_asks_meanwhile_waits_for_the_model_and_not_for_its_pace(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    pipelines.unload()
    asked: list[bool] = []

    def somebody_asks() -> bool:
        asked.append(True)
        return True

    preload("pocket", store=store, gives_way=somebody_asks)
    assert asked == [True]
    assert pace.predict(request_for(find_preset("pocket"), prompt="a road", seed=1), store.folder) is None
    assert loading._slot is not None
    assert loading._slot.preset.name == "pocket"


def noted(_preset: str, *, store: RunStore, gives_way: Callable[[], bool]) -> None:
    """Loads nothing; says before and after a job has come whether it would give way."""
    answers.append(gives_way())
    JobTable(store.folder).add(request_for(find_preset("pocket"), prompt="a road", seed=1), "local")
    answers.append(gives_way())


answers: list[bool] = []


def test_a_worker_gives_way_to_a_job_that_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path / "runs")
    store.folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(worker, "PRELOAD", f"{__name__}:noted")
    worker.Worker(store.folder, store, unwanted=threading.Event())._preload("pocket")
    assert answers == [False, True]
