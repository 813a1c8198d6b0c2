"""The Compare tab without a browser: from its controls to a grid, from a record to what is drawn, each to its owner."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from support.page_values import AT_HOME, pressed, typed, values_of
from support.patience import until
from support.scripted_generate import SURROUNDINGS
from support.scripted_generate import generate as scripted

from studio.compare import FULL, Comparison, cells_of, compare, parse_method
from studio.errors import RequestError, StudioError
from studio.preset import find_preset, list_presets
from studio.records.run import Run
from studio.requests.generation import request_for
from studio.requests.work import WalkComparison
from studio.ui.components.static_html import masthead
from studio.ui.forms.comparison import GridForm, method_choices
from studio.ui.panels.comparison import name_of, plot_value, status_of, table_value
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import introduced
from studio.ui.tabs.compare import CompareTab
from studio.ui.tabs.generate import GenerateTab


def asked(tab: CompareTab, browser: Any = AT_HOME, **changes: Any) -> dict[Any, Any]:
    """The tab's own controls and the form's, as Gradio hands them over."""
    own: dict[str, Any] = {"prompts": "steps=2", "methods": ["adacache"]}
    own |= {name: changes.pop(name) for name in list(changes) if name in GridForm.__annotations__}
    controls = values_of(tab.grid.controls) | {getattr(tab.grid, name): value for name, value in own.items()}
    return {tab.browser: browser} | controls | typed(tab.grid.form, **changes)


def tab_of(context: PageContext) -> CompareTab:
    presets, _ = list_presets()
    with gr.Blocks():
        browser = gr.BrowserState(AT_HOME, storage_key="test", secret="test")
        generate = GenerateTab(context, presets, masthead(elem_id="masthead"), browser)
        generate.build()
        tab = CompareTab(context, browser, generate.form, generate)
        tab.build()
    return tab


@pytest.fixture
def tab(context: PageContext) -> CompareTab:
    context.queue.start()
    return tab_of(context)


def finished(tab: CompareTab, comparison_id: str) -> Comparison:
    """The comparison once it has ended; one that was done already has no job."""
    until(lambda: tab.context.queue.job_for(WalkComparison(comparison_id=comparison_id)) is None)
    return tab.jobs.book.get(comparison_id)


def made(tab: CompareTab, **fields: Any) -> Run:
    """A finished run of the scripted verb."""
    small = {"num_frames": 5, "num_inference_steps": 8}
    request = request_for(find_preset("pocket"), prompt="steps=2", seed=1, **(small | fields))
    job = tab.context.queue.submit(request)
    job = until(lambda: now if (now := tab.context.queue.get(job.id)).final else None)
    return tab.context.store.get(job.run_id or "")


# -- the grid ---------------------------------------------------------------------------------------------------------


def test_the_controls_make_a_grid_with_the_forms_other_settings(tab: CompareTab) -> None:
    grid = tab.grid.read(
        asked(
            tab,
            prompts="a car\n\n a bus ",
            seeds="1, 2;3",
            repeats=2,
            methods=["adacache", "teacache"],
            steps="4, 2",
            rows="adacache:codebook=slow",
            axes="guidance_scale=1, 3",
            width=64,
        )
    )
    assert grid.prompts == ("a car", "a bus")
    assert grid.seeds == (1, 2, 3)
    assert [method.text for method in grid.methods] == [
        *("adacache", "teacache", "steps:4", "steps:2", "adacache:codebook=slow")
    ]
    cells = cells_of(grid)
    assert len(cells) == 2 * 3 * 2 * 2 * 6
    assert {cell.request.width for cell in cells} == {64}


def test_what_is_left_empty_is_taken_from_the_form(tab: CompareTab) -> None:
    grid = tab.grid.read(asked(tab, prompts="", seeds="", prompt="a tram", seed="9"))
    assert {(cell.request.prompt, cell.request.seed) for cell in cells_of(grid)} == {("a tram", 9)}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"methods": []}, "method"),
        ({"seeds": "one"}, "seed"),
        ({"repeats": 1.5}, "repeats"),
        ({"repeats": None}, "repeats"),
        ({"rows": "adacash"}, "method"),
        ({"axes": "colour=red"}, "axis"),
        ({"methods": ["form"]}, "method"),
        ({"prompts": "", "prompt": ""}, "prompt"),
        ({"width": 130}, "width"),
    ],
)
def test_a_grid_that_will_not_do_names_its_control(tab: CompareTab, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(StudioError) as refused:
        tab.grid.read(asked(tab, **changes))
    assert refused.value.field == field
    said = tab.begin(asked(tab, **changes))
    assert said[tab.trouble]["tone"] == "error"
    assert said[tab.trouble]["field"]
    assert tab.jobs.book.list() == []


def test_methods_that_do_not_work_on_a_model_are_not_offered() -> None:
    names = [name for _, name in method_choices(find_preset("pocket").pipeline)]
    assert "fastercache" not in names
    assert names[:2] == ["adacache", "adacache:moreg=true"]
    for name in names[:-1]:
        assert parse_method(name).fields


def test_the_count_says_how_many_clips_before_the_click(tab: CompareTab) -> None:
    assert tab.count(asked(tab, seeds="1 2", steps="4"))["words"].startswith("6 clips in 2 groups")
    assert tab.count(asked(tab, seeds="x"))["field"] == "Seeds"


# -- showing ----------------------------------------------------------------------------------------------------------


def test_a_comparison_is_begun_fills_and_is_found_again_by_another_page(tab: CompareTab) -> None:
    said = tab.begin(asked(tab, steps="4"))
    shown = said[tab.panel.shown]
    assert said[tab.panel.table]["groups"][0]["rows"][0]["state"] == "waiting"
    assert said[tab.panel.timer].active
    done = finished(tab, shown)
    told = tab.panel.look(AT_HOME, shown, said[tab.panel.picked], said[tab.panel.seen])
    rows = told[tab.panel.table]["groups"][0]["rows"]
    assert [row["title"] for row in rows] == ["Full", "AdaCache", "4 steps"]
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert not told[tab.panel.timer].active
    assert told[tab.panel.picked] == [1], "there is something to see at once"
    assert [clip["title"] for clip in told[tab.panel.player]["clips"]] == ["Full", "AdaCache"]

    reopened = tab_of(tab.context)
    first = reopened.panel.look_first(AT_HOME, "", None, ())
    assert first[reopened.panel.shown] == done.id
    assert first[reopened.panel.table]["groups"] == told[tab.panel.table]["groups"]


def test_a_page_that_knows_the_record_is_told_nothing(tab: CompareTab) -> None:
    said = tab.begin(asked(tab))
    assert tab.panel.look(AT_HOME, said[tab.panel.shown], None, said[tab.panel.seen]) == gr.skip()


def test_up_to_three_clips_of_one_reference_are_picked(tab: CompareTab) -> None:
    said = tab.begin(asked(tab, seeds="1 2", steps="4, 3, 5"))
    shown = finished(tab, said[tab.panel.shown]).id
    picked: Any = None
    for cell, kept in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [2, 3, 4]), (6, [6])):
        update = tab.pick(AT_HOME, shown, picked, pressed(cell=cell, on=True))
        picked = update[tab.panel.picked]
        assert picked == kept
        assert len(update[tab.panel.player]["clips"]) == len(kept) + 1
    update = tab.pick(AT_HOME, shown, picked, pressed(cell=6, on=False))
    assert (update[tab.panel.picked], update[tab.panel.player]) == ([], {})
    again = tab.panel.look(AT_HOME, shown, [], "")
    assert again[tab.panel.picked] == [], "who has unticked everything is shown nothing"


def test_a_point_opens_its_clip_and_loads_its_settings(tab: CompareTab) -> None:
    said = tab.begin(asked(tab, steps="4", seeds="5"))
    shown = finished(tab, said[tab.panel.shown]).id
    update = tab.choose_point(AT_HOME, shown, pressed(cell=2))
    assert update[tab.panel.picked] == [2]
    assert update[tab.panel.plot]["chosen"] == 2
    controls = tab.grid.form.controls
    assert update[controls["num_inference_steps"]] == 4
    assert update[controls["seed"]] == "5"
    assert "4 steps" in update[tab.trouble]["words"]


@pytest.mark.parametrize("odd", [{}, {"cell": -1}, {"cell": 99}, {"cell": "1"}, {"cell": None}, None, {"cell": [1]}])
def test_what_a_browser_may_not_send_changes_nothing(tab: CompareTab, odd: Any) -> None:
    said = tab.begin(asked(tab))
    shown, event = said[tab.panel.shown], gr.EventData(None, odd)
    for update in (
        tab.pick(AT_HOME, shown, None, event),
        tab.choose_point(AT_HOME, shown, event),
        tab.load_cell(AT_HOME, shown, event),
    ):
        assert set(update) == {tab.trouble}
        assert update[tab.trouble]["tone"] == "error"


def test_a_failed_cell_shows_its_error_and_can_be_tried_again(tab: CompareTab) -> None:
    said = tab.begin(asked(tab, prompts="then=raise steps=3"))
    done = finished(tab, said[tab.panel.shown])
    row = table_value(done, [])["groups"][0]["rows"][0]
    assert row["state"] == "failed"
    assert "NaN in step 1." in row["note"]
    assert status_of(done)["tone"] == "warn"
    update = tab.take_up(AT_HOME, done.id, [])
    assert [row["state"] for row in update[tab.panel.table]["groups"][0]["rows"]] == ["waiting", "waiting"]


def test_what_is_downloaded_is_what_is_seen(tab: CompareTab) -> None:
    said = tab.begin(asked(tab))
    shown = finished(tab, said[tab.panel.shown]).id
    update = tab.panel.look(AT_HOME, shown, None, "")
    written = {ending: Path(update[button]["value"]) for ending, button in tab.panel.files.figures.items()}
    assert json.loads(written["json"].read_text(encoding="utf-8"))["id"] == shown
    assert written["csv"].read_bytes().count(b"\r\n") == 3
    assert written["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    player = Path(update[tab.panel.files.player]["value"]).read_text(encoding="utf-8")
    assert player.count("data:video/mp4;base64,") == 2


def test_the_plot_places_the_reference_at_the_end_of_the_front(tab: CompareTab) -> None:
    said = tab.begin(asked(tab, prompts="steps=2 pause=0.02"))
    done = finished(tab, said[tab.panel.shown])
    value = plot_value(done, None)
    assert [point["title"] for point in value["points"]] == ["Full", "AdaCache"]
    assert value["points"][0]["speeds"]["denoising"] == 1.0
    assert value["points"][0]["scores"]["psnr"] == "inf"
    assert value["fronts"]["denoising"]["psnr"]
    json.dumps(value, allow_nan=False)
    json.dumps(table_value(done, []), allow_nan=False)
    assert math.isinf(done.cell(1).scores["psnr"])


# -- deleting ---------------------------------------------------------------------------------------------------------


def test_delete_asks_first_and_the_newest_left_takes_its_place(tab: CompareTab) -> None:
    earlier = finished(tab, tab.begin(asked(tab))[tab.panel.shown])
    shown = finished(tab, tab.begin(asked(tab, steps="4"))[tab.panel.shown]).id
    update = tab.panel.look(AT_HOME, shown, None, "")
    assert update[tab.panel.deletion.button]["visible"] is True
    assert update[tab.panel.deletion.question]["visible"] is False
    page = Path(update[tab.panel.files.figures["html"]]["value"])
    assert tab.panel.deletion.opened()[tab.panel.deletion.question]["visible"] is True
    assert tab.panel.deletion.closed()[tab.panel.deletion.question]["visible"] is False
    assert len(tab.jobs.book.list()) == 2, "asked about is not deleted"

    said = tab.remove(AT_HOME, shown)
    assert said[tab.panel.shown] == earlier.id
    assert said[tab.panel.earlier]["choices"] == [(name_of(earlier), earlier.id)]
    assert said[tab.panel.deletion.question]["visible"] is False
    assert "clips stay among the runs" in said[tab.trouble]["words"]
    assert not page.exists()

    said = tab.remove(AT_HOME, earlier.id)
    assert tab.jobs.book.list() == []
    assert said[tab.panel.shown] == ""
    assert set(said[tab.panel.table]) == {"empty"}
    assert said[tab.panel.player] == said[tab.panel.plot] == {}
    assert said[tab.panel.actions]["visible"] is said[tab.panel.earlier]["visible"] is False
    assert len(tab.context.store.search()) == 3, "the clips stay"


def test_a_comparison_under_way_offers_to_stop_it_and_not_to_delete_it(tab: CompareTab) -> None:
    said = tab.begin(asked(tab))
    assert said[tab.panel.stopping]["visible"] is True
    assert said[tab.panel.deletion.button]["visible"] is False
    refused = tab.remove(AT_HOME, said[tab.panel.shown])
    assert "Stop it first" in refused[tab.trouble]["words"]
    assert refused[tab.panel.deletion.question]["visible"] is False
    tab.ask_to_stop(AT_HOME, said[tab.panel.shown])
    finished(tab, said[tab.panel.shown])
    assert tab.panel.look(AT_HOME, said[tab.panel.shown], None, "")[tab.panel.deletion.button]["visible"] is True
    assert tab.remove(AT_HOME, said[tab.panel.shown])[tab.trouble]["tone"] == "good"


@pytest.mark.parametrize("odd", ["", None, 3, "../x", ["x"], {}])
def test_what_is_no_comparison_is_not_deleted(tab: CompareTab, odd: Any) -> None:
    tab.begin(asked(tab))
    assert tab.remove(AT_HOME, odd)[tab.trouble]["tone"] == "error"
    assert len(tab.jobs.book.list()) == 1


# -- compare with full ------------------------------------------------------------------------------------------------


def test_a_cached_clip_is_held_against_its_full_twin_of_the_same_seed(tab: CompareTab) -> None:
    run = made(tab, cache={"method": "adacache", "moreg": True})
    said = tab.begin_twin(AT_HOME, run)
    done = finished(tab, said[tab.panel.shown])
    full, cached = done.cells
    assert cached.run_id == run.id
    assert full.request == run.request.model_copy(update={"cache": None})
    assert cached.method == "adacache:moreg=true"
    assert tab.begin_twin(AT_HOME, run)[tab.panel.shown] == done.id, "asked again, the same pair is opened"


def test_a_full_clip_that_is_there_already_is_found_and_not_made_again(tab: CompareTab) -> None:
    full, cached = made(tab), made(tab, cache={"method": "adacache"})
    done = finished(tab, tab.begin_twin(AT_HOME, cached)[tab.panel.shown])
    assert done.cell(0).run_id == full.id
    assert len(tab.context.store.search()) == 2


def test_a_clip_that_was_computed_in_full_says_so(tab: CompareTab) -> None:
    with pytest.raises(RequestError, match="in full"):
        tab.begin_twin(AT_HOME, made(tab))


# -- strangers --------------------------------------------------------------------------------------------------------


def test_visitors_do_not_see_each_others_comparisons_and_have_one_at_a_time(hosted: PageContext) -> None:
    tab = tab_of(hosted)
    one, other = introduced(AT_HOME), introduced(AT_HOME)
    shown = tab.begin(asked(tab, one))[tab.panel.shown]
    assert tab.jobs.book.get(shown).owner == one["owner"]
    assert tab.panel.shown not in tab.panel.look_first(other, shown, None, "")
    assert tab.panel.choose_earlier(other, shown)[tab.panel.status]["tone"] == "error"
    assert tab.trouble in tab.ask_to_stop(other, shown)
    assert tab.ask_to_stop(other, shown)[tab.trouble]["tone"] == "error"
    assert tab.remove(other, shown)[tab.trouble]["words"].startswith("There is no comparison")
    assert tab.begin(asked(tab, one))[tab.trouble]["tone"] == "error"
    assert tab.begin(asked(tab, other, seeds=" ".join(map(str, range(30)))))[tab.trouble]["tone"] == "error"
    assert tab.begin(asked(tab))[tab.trouble]["tone"] == "error", "a browser without an id"


def test_a_comparison_that_the_command_line_walks_is_shown_and_left_to_it(tab: CompareTab) -> None:
    begun = tab.jobs.book.begin(tab.grid.read(asked(tab)))
    assert begun.methods == (FULL, "adacache")
    with closing(compare(begun, store=tab.context.store, generate=scripted, environment=SURROUNDINGS)) as walked:
        next(walked)
        shown = tab.panel.look_first(AT_HOME, begun.id, None, "")
        assert [
            shown[part]["visible"] for part in (tab.panel.stopping, tab.panel.going_on, tab.panel.deletion.button)
        ] == [False] * 3
        assert "under way" in tab.take_up(AT_HOME, begun.id, None)[tab.trouble]["words"]
    shown = tab.panel.look_first(AT_HOME, begun.id, None, "")
    assert shown[tab.panel.going_on]["visible"]
    tab.take_up(AT_HOME, begun.id, None)
    assert finished(tab, begun.id).state == "complete", "what was left there can be gone on with here"


def test_settings_that_are_loaded_lie_among_each_controls_choices(tab: CompareTab) -> None:
    """A dropdown refuses a value that is not one of its choices, and with it everything the form is asked for."""
    shown = tab.grid.form.shows(request_for(find_preset("pocket"), prompt="a car", cache={"method": "seacache"}))
    seen = 0
    for control, update in shown.items():
        if isinstance(control, gr.Dropdown):
            update = update if isinstance(update, dict) else {"value": update}
            choices = update.get("choices", control.choices)
            assert update["value"] in [choice for _, choice in choices], control.elem_id
            seen += 1
    assert seen > 5
