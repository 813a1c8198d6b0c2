"""A clip that follows, without a browser: what the form says becomes a job, and what was made lies beside its maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from support.page_values import AT_HOME, values_of
from support.tiny_checkpoints import preset_for, save, write_preset

from studio.clips.clip import Clip
from studio.drive import make_maps
from studio.events import MapsFinished
from studio.records.map_sets import MapSet, MapSetStore
from studio.requests.generation import GenerationRequest
from studio.requests.maps import read_maps_request
from studio.ui.panels.following import FollowPanel
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_preset("wan-vace", save("wan-vace", folder), folder / "presets")
    return folder


@pytest.fixture(autouse=True)
def _catalogue(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_PRESETS", str(tiny / "presets"))


@pytest.fixture
def maps(context: PageContext) -> MapSet:
    return made(context, "local")


def made(context: PageContext, owner: str) -> MapSet:
    """Maps of a world, 13 frames of them."""
    asked = {"world": 904, "height": 64, "width": 96, "num_frames": 13, "maps": "layout, edges, lanes"}
    events = list(make_maps(read_maps_request(asked), store=context.store, owner=owner))
    assert isinstance(events[-1], MapsFinished)
    return MapSetStore(context.store.folder).get(events[-1].map_set_id)


def panel_of(context: PageContext) -> FollowPanel:
    with gr.Blocks():
        browser, chosen = gr.BrowserState({"owner": "", "job": ""}), gr.State("")
        panel = FollowPanel(context, browser)
        with gr.Tab("Drive") as here:
            panel.build()
        panel.wire(here, chosen)
    return panel


@pytest.fixture
def panel(context: PageContext) -> FollowPanel:
    return panel_of(context)


def values(panel: FollowPanel, map_set: str, browser: Any = AT_HOME, **changes: Any) -> dict[Any, Any]:
    """What the browser sends, once a map set was chosen and a prompt typed."""
    sent = values_of(panel.form.inputs) | values_of([*panel.sliders.values(), panel.overall, panel.kept])
    sent |= {panel.browser: browser, panel._map_set: map_set, panel.source: "", panel.form.prompt: "a road at night"}
    sent |= {panel.form.controls["seed"]: "7", panel.sliders["edges"]: 1.0, panel.sliders["lane_lines"]: 0.7}
    return sent | {panel.form.controls[name]: value for name, value in changes.items()}


def job_of(context: PageContext) -> Any:
    return context.queue.jobs(states=("queued",))[-1]


def test_the_maps_that_are_there_have_a_strength_each_and_say_how_long_the_clip_is(
    panel: FollowPanel, maps: MapSet
) -> None:
    offered = panel.offers(maps)
    visible = {name: offered[slider]["visible"] for name, slider in panel.sliders.items()}
    assert [name for name, seen in visible.items() if seen] == ["layout", "edges", "lane_lines"]
    assert {offered[panel.sliders[name]]["value"] for name in ("edges", "lane_lines")} == {1.0}
    assert offered[panel.sliders["layout"]]["value"] == 0
    assert offered[panel.form.controls["num_frames"]] == 9, "what the model proposes is shorter"
    assert offered[panel.form.controls["fps"]] == 12.0
    assert set(offered) <= set(panel.offered)


def test_a_click_submits_a_clip_that_follows(context: PageContext, panel: FollowPanel, maps: MapSet) -> None:
    shown = panel.submit(values(panel, maps.id) | {panel.overall: 0.8})
    job = job_of(context)
    request = job.work
    assert isinstance(request, GenerationRequest)
    assert (request.prompt, request.seed, request.preset) == ("a road at night", 7, "wan-vace")
    assert request.control is not None
    assert request.control.path.parent.name == maps.id
    assert (request.control_strengths, request.conditioning_scale) == ({"edges": 1.0, "lane_lines": 0.7}, 0.8)
    assert shown[panel.chose] is True
    assert shown[panel.browser]["job"] == job.id
    restored = panel.restore_shown(AT_HOME, job.id)
    assert restored[panel.sliders["lane_lines"]] == 0.7
    assert restored[panel.overall] == 0.8


def test_one_click_changes_only_the_prompt(context: PageContext, panel: FollowPanel, maps: MapSet) -> None:
    panel.submit(values(panel, maps.id))
    first = job_of(context)
    panel.submit_reprompted(AT_HOME, first.id, "the same road in snow")
    other = job_of(context).work
    assert other == first.work.model_copy(update={"prompt": "the same road in snow"})
    assert other != first.work
    assert "no clip to do again" in panel.submit_reprompted(AT_HOME, "", "x")[panel.trouble]["words"]
    assert "empty" in panel.submit_reprompted(AT_HOME, first.id, " ")[panel.trouble]["words"]


@pytest.mark.parametrize(
    ("changes", "words", "label"),
    [
        ({"_map_set": ""}, "no maps yet", "Maps"),
        ({"_map_set": "20200101-000000-abc"}, "no map set", ""),
        ({"edges": 0, "lane_lines": 0}, "No map is followed", "Maps"),
        ({"edges": "much"}, "control_strengths", "Maps"),
        ({"edges": 7}, "control_strengths", "Maps"),
        ({"overall": 9}, "conditioning_scale", "Conditioning scale"),
        ({"width": 100}, "96 and 112", "Width"),
        ({"prompt": ""}, "empty", "Prompt"),
        ({"source": "a.png"}, "source", "Source"),
    ],
)
def test_nonsense_is_refused_beside_its_field(
    context: PageContext, panel: FollowPanel, maps: MapSet, changes: dict[str, Any], words: str, label: str
) -> None:
    named = {"_map_set": panel._map_set, "overall": panel.overall, "source": panel.source}
    parts = named | panel.sliders | panel.form.controls | named
    sent = values(panel, maps.id) | {parts[name]: value for name, value in changes.items()}
    refused = panel.submit(sent)
    assert words in refused[panel.trouble]["words"]
    assert refused[panel.trouble].get("field", "") == label
    assert refused[panel.chose] is False
    assert not context.queue.jobs(states=("queued",))


def test_a_picture_or_the_end_of_a_clip_begins_it(
    context: PageContext, panel: FollowPanel, maps: MapSet, film: Callable[..., str], tmp_path: Path
) -> None:
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "first.png")
    taken = panel.take(str(tmp_path / "first.png"))
    assert "begin with this picture" in taken[panel.trouble]["words"]
    assert taken[panel.kept]["visible"] is False
    panel.submit(values(panel, maps.id) | {panel.source: taken[panel.source], panel.kept: taken[panel.kept]["value"]})
    assert job_of(context).work.kept_frames == 1
    taken = panel.take(film())
    assert "end of these 20 frames" in taken[panel.trouble]["words"]
    panel.submit(values(panel, maps.id) | {panel.source: taken[panel.source], panel.kept: 5})
    request = job_of(context).work
    assert (request.kept_frames, request.source.path.name) == (5, "drive.mp4")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    torn = panel.take(str(tmp_path / "torn.png"))
    assert torn[panel.source] == ""
    assert "damaged" in torn[panel.trouble]["words"]


def test_what_was_made_lies_beside_the_clip_and_the_maps_that_it_followed(
    context: PageContext, panel: FollowPanel, maps: MapSet, tiny: Path
) -> None:
    panel.submit(values(panel, maps.id))
    request = job_of(context).work
    writer = context.store.begin(
        request, preset=preset_for("wan-vace", tiny / "wan-vace"), owner="local", environment={"torch": "2"}
    )
    frames = np.zeros((request.num_frames, request.height, request.width, 3), np.uint8)
    run = writer.complete(Clip(frames=frames, fps=request.fps))
    played: Any = panel._beside(Visitor(context, AT_HOME), run)
    assert [clip["title"] for clip in played["clips"]] == ["world 904", "a road at night", "Edges", "Lanes"]
    assert (played["num_frames"], played["fps"]) == (9, request.fps)
    MapSetStore(context.store.folder).delete(maps.id)
    assert panel._beside(Visitor(context, AT_HOME), run) == {}


def test_maps_of_somebody_else_are_not_followed(hosted: PageContext) -> None:
    panel = panel_of(hosted)
    mine, theirs = ({"owner": letter * 32, "job": ""} for letter in "ab")
    maps = made(hosted, mine["owner"])
    assert "no map set" in panel.submit(values(panel, maps.id, theirs))[panel.trouble]["words"]
    assert panel.submit(values(panel, maps.id, mine))[panel.chose] is True


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings go to a page, and there is none."""
    monkeypatch.setattr(gr, "Warning", lambda *_, **__: None)
