"""The Drive tab without a browser: what is asked for is written down, refused in place, and not somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from studio.records.map_sets import MapSetStore
from studio.requests.maps import USUAL
from studio.ui.panels.maps import MOST_SHOWN
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.drive import DriveTab


def _tab(context: PageContext) -> DriveTab:
    with gr.Blocks():
        browser = gr.BrowserState({"owner": "", "job": ""})
        tab = DriveTab(context, browser)
        with gr.Tab("Drive") as here:
            tab.build()
        tab.wire(here)
    return tab


def _values(tab: DriveTab, owner: str = "", **fields: Any) -> dict[Any, Any]:
    typed = {"world": "", "start": 0, "num_frames": 5, "kind": ""} | fields
    values: dict[Any, Any] = {control: typed[name] for name, control in tab._settings.by_field.items()}
    values |= {tab.browser: {"owner": owner, "job": ""}, tab.kept: "", tab.kept_given: "", tab.names: list(USUAL)}
    return values | {tab.boxes: fields.get("boxes", "")}


def test_a_click_writes_a_map_set_down_and_a_job_for_it(
    context: PageContext, film: Callable[..., str], tmp_path: Any
) -> None:
    tab = _tab(context)
    taken = tab.take(film(), 0)
    assert taken[tab.trouble] == {}
    assert taken[tab.picture]["value"].shape == (64, 64, 3)
    values = _values(tab) | {tab.kept: taken[tab.kept]}
    shown = tab.begin(values)
    (map_set,) = MapSetStore(context.store.folder).list()
    assert shown[tab.chosen] == map_set.id
    assert map_set.request.num_frames == 5
    assert map_set.request.maps == USUAL
    (job,) = context.queue.jobs(states=("queued",))
    assert job.kind == "maps"
    assert "turn in the queue" in shown[tab.status]["words"]


@pytest.mark.parametrize(
    ("fields", "words", "label"),
    [
        ({}, "There is no clip yet", "Clip"),
        ({"world": "x"}, "no whole number", "Seed"),
        ({"world": "3", "num_frames": 500}, "num_frames", "Num frames"),
        ({"world": "3", "boxes": "1,2"}, "no box", "Boxes"),
    ],
)
def test_nonsense_is_refused_beside_its_field(
    context: PageContext, fields: dict[str, Any], words: str, label: str
) -> None:
    tab = _tab(context)
    refused = tab.begin(_values(tab, **fields))
    assert words in refused[tab.trouble]["words"]
    assert refused[tab.trouble]["field"] == label
    both = _values(tab, world="904") | {tab.kept: "0" * 64 + "  drive.mp4"}
    assert "Maps are of one thing" in tab.begin(both)[tab.trouble]["words"]
    assert MapSetStore(context.store.folder).list() == []
    assert "no maps yet" in tab.begin_given(_values(tab))[tab.trouble]["words"]


def test_two_clicks_make_a_box_in_the_clips_own_pixels(context: PageContext) -> None:
    tab = _tab(context)

    def click(corner: object, x: int, y: int, boxes: str = "") -> dict[Any, Any]:
        event: Any = SimpleNamespace(index=[x, y])
        return tab.draw(corner, (0.5, 0.5), boxes, ["edges"], event)

    first = click(None, 60, 40)
    assert first[tab.corner] == [120, 80]
    second = click(first[tab.corner], 20, 10, "0:1,2,30,40:bus")
    assert second[tab.boxes] == "0:1,2,30,40:bus\n0:40,20,120,80:car"
    assert second[tab.names]["value"] == ["edges", "boxes"]
    assert "too small" in click([20, 20], 10, 10)[tab.trouble]["words"]


def test_visitors_of_a_shared_page_see_their_own_maps_alone(hosted: PageContext) -> None:
    tab = _tab(hosted)
    one, other = "a" * 32, "b" * 32
    made = tab.begin(_values(tab, one, world="904"))
    assert made[tab.chosen]
    mine = tab.open({"owner": one, "job": ""}, made[tab.chosen], None, None, None)
    assert mine[tab.chosen] == made[tab.chosen]
    theirs = tab.open({"owner": other, "job": ""}, made[tab.chosen], None, None, None)
    assert theirs[tab.chosen] == ""
    assert "There is no map set" in tab.remove({"owner": other, "job": ""}, made[tab.chosen])[tab.answer]["words"]
    assert MOST_SHOWN == 3
