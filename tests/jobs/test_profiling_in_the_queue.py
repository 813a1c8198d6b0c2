"""Measuring a model from the page: by the worker, when it has nothing else to do; told, stopped, plain in failing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from support.patience import until

from studio.generate import PROFILES
from studio.jobs import JobQueue
from studio.machine import hardware
from studio.preset import find_preset
from studio.records.profile_files import profile_files
from studio.records.runs import RunStore
from studio.requests.generation import request_for
from studio.ui.panels.profile import MeasurePanel
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.generate import worker_words

PATIENCE = 90.0
"""Seconds: a worker loads the model before it measures."""
SMALL = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 7, "clips": 1, "growth_clips": 1}


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    with JobQueue(store=RunStore(tmp_path)) as queue:
        yield queue


def measuring(queue: JobQueue) -> dict[str, Any]:
    return queue.worker_state()["measuring"] or {"running": False, "done": 0, "error": ""}


def measured_here(queue: JobQueue) -> list[int]:
    found = profile_files("pocket", queue.folder / PROFILES)
    return [file.total_steps for file in found if not file.shipped]


def test_the_worker_measures_and_then_makes_clips_again(queue: JobQueue) -> None:
    queue.measure("pocket", **SMALL)
    queue.stop_measuring()
    queue.measure("pocket", **SMALL)  # the stop was for the one before
    seen = until(lambda: now if (now := measuring(queue))["done"] else None, PATIENCE)
    assert "Measuring pocket" in worker_words(queue.worker_state(), paused=False)
    assert seen["running"]
    assert 0 < seen["done"] < seen["total"]
    fields = {name: SMALL[name] for name in ("height", "width", "num_frames")}
    job = queue.submit(request_for(find_preset("pocket"), prompt="a road", seed=1, num_inference_steps=2, **fields))
    until(lambda: not measuring(queue)["running"], PATIENCE)
    assert measured_here(queue) == [7]
    assert measuring(queue)["error"] == ""
    assert until(lambda: queue.get(job.id).final, PATIENCE)
    assert queue.get(job.id).state == "complete"


def test_a_measuring_that_is_stopped_leaves_no_profile_and_the_worker_alive(queue: JobQueue) -> None:
    queue.measure("pocket", **SMALL | {"num_inference_steps": 40, "clips": 4})
    until(lambda: measuring(queue)["running"], PATIENCE)
    queue.stop_measuring()
    told = until(lambda: now if not (now := measuring(queue))["running"] and now["error"] else None, PATIENCE)
    assert "stopped" in told["error"]
    assert measured_here(queue) == []
    assert queue.worker_state()["state"] == "ready"


def test_what_cannot_be_measured_says_why(queue: JobQueue) -> None:
    queue.measure("pocket", **SMALL | {"height": 63})
    told = until(lambda: now if (now := measuring(queue))["error"] else None, PATIENCE)
    assert "height" in told["error"]
    assert queue.worker_state()["state"] == "ready"


def test_what_was_asked_for_waits_where_everybody_sees_it_and_can_be_called_off(tmp_path: Path) -> None:
    here, there = JobQueue(store=RunStore(tmp_path)), JobQueue(store=RunStore(tmp_path))
    assert there.waits_to_be_measured() is None
    here.measure("pocket", **SMALL)
    assert there.waits_to_be_measured() == "pocket"
    there.stop_measuring()
    assert here.waits_to_be_measured() is None


class Recording:
    """Instead of a queue: what is asked of it, and a worker that says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.waits: str | None = None
        self.says: dict[str, Any] | None = None

    def measure(self, name: str, **fields: Any) -> None:
        self.asked.append((name, fields))
        self.waits = name

    def stop_measuring(self) -> None:
        self.asked.append("stop")
        self.waits = None

    def waits_to_be_measured(self) -> str | None:
        return self.waits

    def begin(self, *, done: int = 0) -> None:
        self.waits, self.says = None, {"preset": "pocket", "running": True, "done": done, "total": 12, "error": ""}

    def worker_state(self) -> dict[str, Any]:
        return {"state": "ready", "measuring": self.says}


def panel_of(folder: Path, *, hosted: bool) -> tuple[MeasurePanel, Recording]:
    queue: Any = Recording()
    rooms = PageContext(store=RunStore(folder), queue=queue, machine=hardware.measure(), hosted=hosted)
    panel = MeasurePanel(rooms)
    with gr.Blocks():
        panel.build(find_preset("pocket"))
    return panel, queue


def test_the_panel_shows_what_was_measured_and_how_far_a_measuring_is(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=False)
    shown = panel.shows("pocket")
    assert "30 and 50 steps" in shown[panel.line]["words"]
    assert shown[panel.plot].startswith("<svg")
    shown = panel.begin("pocket", 40, None)
    assert queue.asked == [("pocket", {"num_inference_steps": 40})]
    assert shown[panel.cancel]["visible"], "what waits can be called off"
    queue.begin(done=3)
    shown = panel.look("pocket", shown[panel.seen])
    assert shown[panel.line]["share"] == 0.25
    assert shown[panel.cancel]["visible"]
    assert not shown[panel.measure]["visible"]
    again = panel.look("pocket", shown[panel.seen])
    assert again == dict.fromkeys(panel.outputs, gr.skip()), "nothing new is not said again"
    assert panel.stop("pocket")[panel.line]["words"] == "Stopping."
    assert queue.asked[-1] == "stop"
    queue.says = None
    assert panel.shows("wan2.1-t2v-1.3b")[panel.line]["tone"] == "warn", "nobody measured this one"


def test_every_tab_follows_a_measuring_and_so_does_one_opened_in_the_middle(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=False)
    seen = [panel.shows("pocket")[panel.seen]] * 2
    asked = panel.begin("pocket", 40, None)
    seen[0] = asked[panel.seen]
    told = panel.look("pocket", seen[1])
    assert told[panel.line] == asked[panel.line], "what was asked for in one tab waits in the other"
    assert told[panel.cancel]["visible"]
    seen = [told[panel.seen], told[panel.seen], None]
    for done in (1, 2):
        queue.begin(done=done)
        told = [panel.look("pocket", each) for each in seen]
        assert [each[panel.line]["words"].split(".")[0] for each in told] == [f"Measuring: {done} of 12 clips"] * 3
        seen = [each[panel.seen] for each in told]


def test_what_is_under_way_is_said_beside_its_button_on_another_model_s_form_too(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=False)
    queue.measure("pocket")
    shown = panel.shows("wan2.1-t2v-1.3b")
    assert shown[panel.line]["words"].startswith("The measuring of pocket begins")
    assert shown[panel.cancel]["visible"]
    queue.begin(done=3)
    assert panel.shows("wan2.1-t2v-1.3b")[panel.line]["words"].startswith("Measuring pocket: 3 of 12 clips")


def test_visitors_of_a_hosted_page_measure_nothing(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=True)
    panel.begin("pocket", 30, None)
    assert queue.asked == []
    assert not panel.shows("pocket")[panel.measure]["visible"]
    queue.begin()
    shown = panel.stop("pocket")
    assert queue.asked == []
    assert not shown[panel.cancel]["visible"]
