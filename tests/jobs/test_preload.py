"""A model is loaded before anybody asks, and says how quick it is here."""

from pathlib import Path

from studio.jobs.preload import preload
from studio.machine import pace
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import request_for


def test_a_model_loaded_ahead_of_time_leaves_its_pace_and_no_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    preload("pocket", store=store)
    request = request_for(find_preset("pocket"), prompt="a road", seed=1)
    assert pace.predict(request, store.folder) is not None
    assert store.count() == 0
