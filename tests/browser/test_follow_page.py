"""A clip that follows, in a real browser: maps, a prompt, what was made beside them, and only the prompt changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.served_studio import serving
from support.tiny_checkpoints import save, write_preset

from studio.records.map_sets import MapSetStore
from studio.records.runs import RunStore


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose only model is a tiny one that follows maps."""
    folder = tmp_path_factory.mktemp("tiny")
    write_preset("wan-vace", save("wan-vace", folder), folder / "presets")
    with serving(folder / "runs", DAILIES_PRESETS=str(folder / "presets")) as studio:
        yield studio


def says(page: Any, what: str, words: str) -> None:
    page.wait_for_function(f"document.querySelector('{what}').textContent.includes('{words}')")


def runs(studio: Any) -> list[Any]:
    return [run for run in RunStore(Path(studio.runs)).search() if run.state == "complete"]


def test_a_clip_follows_the_maps_lies_beside_them_and_is_made_again_with_another_prompt(
    open_page: Callable[..., Any], studio: Any
) -> None:
    page = open_page()
    page.get_by_role("tab", name="Drive", exact=True).click()
    page.wait_for_selector("#drive-generate", state="visible")
    page.fill("#drive-prompt textarea", "a road at night")
    page.click("#drive-generate")
    says(page, "#drive-trouble", "There are no maps yet")

    page.fill("#maps-world textarea, #maps-world input", "904")
    page.fill("#maps-num-frames input", "9")
    page.click("#maps-extract")
    says(page, "#maps-status", "7 maps of 9 frames")
    page.wait_for_selector("#drive-strength-lane_lines", state="visible")
    assert page.locator("#drive-strength-boxes").count() == 0 or not page.is_visible("#drive-strength-boxes")
    page.fill("#drive-strength-lane_lines input[type=number]", "0.7")
    page.fill("#drive-num-inference-steps input", "3")
    page.fill("#drive-seed textarea, #drive-seed input", "7")
    page.keyboard.press("Tab")
    page.locator("#drive-cache").get_by_label("Budget", exact=True).check()
    page.click("#drive-generate")
    says(page, "#drive-live", "Finished")
    page.wait_for_selector("#drive-player .player[data-ready]")
    assert page.locator("#drive-timeline rect, #drive-timeline [data-step], #drive-timeline .step").count() > 0
    (run,) = runs(studio)
    (map_set,) = MapSetStore(Path(studio.runs)).list()
    request = run.request
    assert request.control.path.parent.name == map_set.id
    assert request.control_strengths == {"edges": 1.0, "lane_lines": 0.7}
    assert (request.seed, request.cache.method) == (7, "budget")

    page.fill("#drive-prompt textarea", "the same road in snow")
    page.click("#drive-reprompt")
    page.wait_for_function(
        "[...document.querySelectorAll('#drive-player .player-first option')]"
        ".some((option) => option.textContent.includes('snow'))"
    )
    other, first = runs(studio)
    assert other.request == first.request.model_copy(update={"prompt": "the same road in snow"})

    # A page that is opened anew finds what was made.
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    page.get_by_role("tab", name="Drive", exact=True).click()
    says(page, "#drive-live", "Finished")
    page.wait_for_selector("#drive-player .player[data-ready]")
