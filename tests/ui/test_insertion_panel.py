"""Putting a vehicle in without a browser: what is asked for is written down, refused in place, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from studio.records.insertions import InsertionStore
from studio.ui.panels.insertion import InsertionPanel
from studio.ui.server.page_context import PageContext


def _panel(context: PageContext) -> InsertionPanel:
    with gr.Blocks():
        panel = InsertionPanel(context, gr.BrowserState({"owner": "", "job": ""}), clips=[".mp4"])
        with gr.Tab("Drive") as here:
            panel.build()
        panel.wire(here)
    return panel


def _values(panel: InsertionPanel, owner: str = "", **fields: Any) -> dict[Any, Any]:
    typed = {"start": 0, "num_frames": 5, "strength": 1} | fields
    values: dict[Any, Any] = {control: typed[name] for name, control in panel._settings.by_field.items()}
    values |= {panel.looks["type"]: "car", panel.looks["colour"]: "red", panel.looks["view"]: "rear"}
    values |= {panel.browser: {"owner": owner, "job": ""}, panel.kept: "", panel.kept_vehicle: ""}
    return values | {panel.path: fields.get("path", "0:32,50,20")}


def test_a_click_writes_an_insertion_down_and_a_job_for_it(context: PageContext, film: Callable[..., str]) -> None:
    panel = _panel(context)
    taken = panel.take(film(), 0)
    assert taken[panel.trouble] == {}
    assert taken[panel.picture]["value"].shape == (64, 64, 3)
    shown = panel.begin(_values(panel) | {panel.kept: taken[panel.kept]})
    (insertion,) = InsertionStore(context.store.folder).list()
    assert shown[panel.chosen] == insertion.id
    assert str(insertion.request.render) == "car:red:rear"
    (job,) = context.queue.jobs(states=("queued",))
    assert job.kind == "insertion"
    assert "turn in the queue" in shown[panel.status]["words"]


def test_a_cut_out_takes_the_place_of_the_render(
    context: PageContext, film: Callable[..., str], tmp_path: Path
) -> None:
    panel = _panel(context)
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[5:15, 5:25] = 255
    Image.fromarray(pixels).save(tmp_path / "car.png")
    vehicle = panel.take_vehicle(str(tmp_path / "car.png"))
    assert vehicle[panel.trouble] == {}
    kept = {panel.kept: panel.take(film(), 0)[panel.kept], panel.kept_vehicle: vehicle[panel.kept_vehicle]}
    panel.begin(_values(panel) | kept)
    (insertion,) = InsertionStore(context.store.folder).list()
    assert insertion.request.render is None
    assert insertion.request.vehicle is not None


@pytest.mark.parametrize(
    ("fields", "words", "label"),
    [
        ({"path": "somewhere"}, "no place of a path", "Path"),
        ({"path": "0:300,50,20"}, "nothing of the vehicle is in the picture", "Path"),
        ({"strength": 2}, "strength", "Strength"),
        ({"num_frames": None}, "is empty", "Num frames"),
    ],
)
def test_nonsense_is_refused_beside_its_field(
    context: PageContext, film: Callable[..., str], fields: dict[str, Any], words: str, label: str
) -> None:
    panel = _panel(context)
    kept = {panel.kept: panel.take(film(), 0)[panel.kept]}
    refused = panel.begin(_values(panel, **fields) | kept)
    assert words in refused[panel.trouble]["words"]
    assert refused[panel.trouble]["field"] == label
    assert InsertionStore(context.store.folder).list() == []
    assert "no clip yet" in panel.begin(_values(panel))[panel.trouble]["words"]


def test_clicks_lay_a_path_in_the_clips_own_pixels(context: PageContext) -> None:
    panel = _panel(context)

    def click(path: str, frame: int, x: int, y: int) -> dict[Any, Any]:
        event: Any = SimpleNamespace(index=[x, y])
        return panel.stand((0.5, 0.5), path, frame, 60, event)

    first = click("", 0, 60, 40)
    assert first[panel.path] == "0:120,80,60"
    second = click(first[panel.path], first[panel.frame], 70, 45)
    assert second[panel.path] == "0:120,80,60 24:140,90,60"
    assert click(second[panel.path], 0, 10, 20)[panel.path] == "0:20,40,60 24:140,90,60"


def test_visitors_of_a_shared_page_see_their_own_alone(hosted: PageContext, film: Callable[..., str]) -> None:
    panel = _panel(hosted)
    one, other = "a" * 32, "b" * 32
    made = panel.begin(_values(panel, one) | {panel.kept: panel.take(film(), 0)[panel.kept]})
    assert made[panel.chosen]
    assert panel.open({"owner": one, "job": ""}, made[panel.chosen], None)[panel.chosen] == made[panel.chosen]
    assert panel.open({"owner": other, "job": ""}, made[panel.chosen], None)[panel.chosen] == ""
