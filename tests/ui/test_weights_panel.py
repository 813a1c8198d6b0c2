"""Fetching weights from the page: asked twice, told on the way, stopped when wanted, plain when it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from huggingface_hub import constants
from support.loopback_hub import COMMIT, REPO, LoopbackHub, serving
from support.patience import until

from studio.machine.weights import state
from studio.preset import PROJECT_FOLDER, find_preset
from studio.ui.panels.weights import WeightsPanel

NAME = "small"
FILES = {
    "model_index.json": json.dumps(
        {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    ).encode(),
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors": b"w" * 1_000_000,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A preset whose weights lie in a Hub on the loopback, and an empty cache."""
    pocket = (PROJECT_FOLDER / "presets" / "pocket.toml").read_text(encoding="utf-8")
    repo = f'repo = "{REPO}"\nrevision = "{COMMIT}"'
    (tmp_path / f"{NAME}.toml").write_text(pocket.replace('folder = "assets/pocket/driving-t2v"', repo))
    monkeypatch.setenv("DAILIES_PRESETS", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving(FILES) as hub:
        yield hub


def panel_of(hub: LoopbackHub) -> WeightsPanel:
    panel = WeightsPanel(hosted=False, snapshot=hub.snapshot)
    with gr.Blocks():
        panel.build(find_preset(NAME))
    return panel


def click(panel: WeightsPanel) -> dict[Any, Any]:
    return list(panel.go_on(NAME))[-1]


def wait_until_done(panel: WeightsPanel) -> list[dict[Any, Any]]:
    seen: list[dict[Any, Any]] = []

    def over() -> bool:
        said = panel.look(NAME)
        if said[panel.line] == gr.skip():
            return True
        seen.append(said)
        return False

    until(over)
    return seen


def test_the_first_click_tells_size_disk_and_licence_and_fetches_nothing(hub: LoopbackHub) -> None:
    panel = panel_of(hub)
    said = click(panel)
    words = said[panel.line]["words"]
    assert "1 MB to fetch" in words
    assert "free" in words
    assert "Apache-2.0" in words
    assert said[panel.fetch]["value"] == "Download 1 MB"
    assert not any(name.endswith(".safetensors") for name in hub.asked)


def test_the_second_click_fetches_says_how_far_it_is_and_then_that_they_are_here(hub: LoopbackHub) -> None:
    hub.seconds_per_piece = 0.02
    panel = panel_of(hub)
    click(panel)
    assert click(panel)[panel.cancel]["visible"] is True
    seen = wait_until_done(panel)
    shares = [said[panel.line]["share"] for said in seen if "share" in said[panel.line]]
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares)
    assert seen[-1][panel.line]["words"] == "Weights: here."
    assert state(find_preset(NAME)).ready


def test_an_end_that_comes_while_the_page_looks_is_told_the_next_time(hub: LoopbackHub) -> None:
    hub.seconds_per_piece = 0.02
    panel = panel_of(hub)
    click(panel)
    click(panel)
    download, shows = panel._downloads[NAME], panel.shows

    def ends_meanwhile(name: Any) -> Any:
        shown = shows(name)
        until(lambda: download.done)
        return shown

    panel.shows = ends_meanwhile  # type: ignore[method-assign]
    assert panel.look(NAME)[panel.line]["words"].startswith("Fetching")
    assert panel.look(NAME)[panel.line]["words"] == "Weights: here."
    assert panel.look(NAME)[panel.line] == gr.skip()


def test_a_download_is_stopped_and_can_be_begun_again(hub: LoopbackHub) -> None:
    hub.seconds_per_piece = 0.5
    panel = panel_of(hub)
    click(panel)
    click(panel)
    panel.stop(NAME)
    seen = wait_until_done(panel)
    assert seen[-1][panel.line]["tone"] == "error"
    assert not state(find_preset(NAME)).ready
    hub.seconds_per_piece = 0.0
    click(panel)
    click(panel)
    assert wait_until_done(panel)[-1][panel.line]["words"] == "Weights: here."


def test_without_a_network_the_plain_reason_is_given(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    panel = panel_of(hub)
    said = click(panel)[panel.line]
    assert said["tone"] == "error"
    assert "offline" in said["words"].lower()
