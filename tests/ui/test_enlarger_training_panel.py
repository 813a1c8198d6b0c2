"""Fine-tuning a model that enlarges, from the page without a browser: begun, followed, stopped, and offered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from support.films import write_pictures
from support.page_values import values_of

from studio.events import EnlargerScored, EnlargerTrainingStarted, EnlargerTrainingStep, event_to_json
from studio.records.enlarger_versions import NETWORK, EnlargerVersion
from studio.records.folders import LOG
from studio.requests.work import TrainEnlarger
from studio.ui.panels.enlarger_training import EnlargerTrainingPanel, status_of
from studio.ui.panels.training_progress import TrainingProgress
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.super_resolution import SuperResolutionTab

AT_HOME = {"owner": "", "job": ""}


@pytest.fixture
def panel(context: PageContext) -> Any:
    with gr.Blocks():
        panel = EnlargerTrainingPanel(context)
        panel.build()
    return panel


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "mine.mp4", [512 * number for number in range(8)])


def settings(panel: Any, *files: Path, **changes: Any) -> dict[Any, Any]:
    controls = panel._settings.by_field
    changed = {controls[name]: value for name, value in changes.items()}
    return values_of(controls.values()) | {panel.files: [str(each) for each in files] or None} | changed


def begun(panel: Any, clip: Path) -> EnlargerVersion:
    updates = panel.begin(settings(panel, clip, max_train_steps=40))
    return panel.versions.get(updates[panel.chosen])


def test_a_click_writes_a_version_down_and_a_job_that_trains_it(panel: Any, clip: Path) -> None:
    version = begun(panel, clip)
    assert version.request.max_train_steps == 40
    assert version.request.clips[0].path.name == "mine.mp4"
    assert version.request.clips[0].path != clip  # a copy that stays
    (job,) = panel.context.queue.jobs(states=("queued",), kinds=("enlarger training",))
    assert job.work == TrainEnlarger(version_id=version.id)


def test_every_default_of_a_request_is_what_the_form_starts_from(panel: Any, clip: Path) -> None:
    request = panel.versions.get(panel.begin(settings(panel, clip))[panel.chosen]).request
    assert request == type(request)(clips=request.clips)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"max_train_steps": 0}, "Steps"), ({"learning_rate": None}, "Learning rate"), ({"crop_size": 100}, "Crop")],
)
def test_a_control_that_says_what_cannot_be_is_named(
    panel: Any, clip: Path, changes: dict[str, Any], words: str
) -> None:
    updates = panel.begin(settings(panel, clip, **changes))
    assert words in json.dumps(updates[panel.trouble], ensure_ascii=False)
    assert not panel.versions.list()


def test_without_a_clip_nothing_is_begun(panel: Any) -> None:
    assert "no clip yet" in json.dumps(panel.begin(settings(panel))[panel.trouble])
    assert not panel.versions.list()


def test_a_log_becomes_a_plot_figures_and_words(panel: Any, clip: Path) -> None:
    version = begun(panel, clip)
    said = [
        EnlargerScored(step=0, psnr={"2": 40.0, "4": 30.0}),
        EnlargerTrainingStarted(version_id=version.id, total_steps=40, first_step=0, samples=5, held_out=1),
        EnlargerTrainingStep(step=8, loss=0.93, seconds=0.5, eta_seconds=16.0),
    ]
    with (panel.versions.path(version.id) / LOG).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event_to_json(event)) + "\n" for event in said)
    panel.versions.write(replace(version, state="stopped", step=8, base_psnr={"2": 40.0, "4": 30.0}))
    updates = panel.open(version.id, TrainingProgress())
    plot, figures = updates[panel.plot], updates[panel.figures]
    assert plot["scores"] == [[0, 35.0]]
    assert [(line["name"], line["points"]) for line in plot["lines"]] == [("pixel", [[8, 0.93]])]
    assert {row["name"] for row in figures["rows"]} >= {"2×", "4×", "a step"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "stopped", "step": 8}, "Stopped after 8 of 40 steps. What was learnt is kept"),
        ({"state": "complete", "base_psnr": {"2": 40.0}, "psnr": {"2": 40.5}}, "+0.50 dB PSNR over the model"),
        ({"state": "complete", "base_psnr": {"2": 40.0}, "psnr": {"2": 39.5}}, "worse than the model it came from"),
        ({"state": "failed", "error": {"message": "The loss is not a number any more."}}, "not a number"),
    ],
)
def test_how_it_ended_is_said(panel: Any, clip: Path, change: dict[str, Any], words: str) -> None:
    version = replace(begun(panel, clip), **change)
    shown = status_of(version, version.state, TrainingProgress(), waits=False)
    assert words in json.dumps(shown, ensure_ascii=False)


def test_one_that_waits_is_stopped_and_deleted_and_one_that_stopped_goes_on(panel: Any, clip: Path) -> None:
    version = begun(panel, clip)
    assert "Stop it first" in json.dumps(panel.remove(version.id)[panel.answer])
    panel.leave_off(version.id)
    assert not panel._jobs()
    panel.take_up(version.id, TrainingProgress())
    assert len(panel._jobs()) == 1
    panel.leave_off(version.id)
    assert "Deleted" in json.dumps(panel.remove(version.id)[panel.answer])
    assert not panel.versions.list()


def test_a_version_that_has_learnt_is_offered_by_the_super_resolution_tab(
    panel: Any, clip: Path, context: PageContext
) -> None:
    with gr.Blocks():
        tab: Any = SuperResolutionTab(context, gr.BrowserState())
        tab.build()
    version = begun(panel, clip)
    control = tab._settings.by_field["adapter"]
    assert [value for _, value in tab.offer()[control]["choices"]] == [""]
    (panel.versions.path(version.id) / NETWORK).mkdir()
    assert [value for _, value in tab.offer()[control]["choices"]] == ["", version.id]


def test_a_shared_page_starts_none(context: PageContext, clip: Path) -> None:
    shared = replace(context, hosted=True)
    with gr.Blocks():
        panel: Any = EnlargerTrainingPanel(shared)
        panel.build()
    assert "shared page" in json.dumps(panel.begin(settings(panel, clip))[panel.trouble])
    assert not panel.versions.list()
