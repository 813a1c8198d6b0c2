"""Putting a vehicle in, in a real browser: a click on the first frame says where it stands; the result is played."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene
from studio.records.insertions import RESULT, InsertionStore

Open = Callable[..., Any]


def says(page: Any, what: str, words: str) -> None:
    page.wait_for_function(f"document.querySelector('{what}').textContent.includes('{words}')")


def test_a_vehicle_is_put_into_a_clip_and_played_beside_it(open_page: Open, studio: Any, tmp_path: Path) -> None:
    clip = render(sample_scene(904, time_of_day="night", weather="clear"), height=192, width=320, num_frames=5)
    write_clip(clip, tmp_path / "a night.mp4")
    page = open_page()
    page.get_by_role("tab", name="Drive", exact=True).click()
    page.click("#insertion button")
    page.wait_for_selector("#insertion-put", state="visible")
    page.click("#insertion-put")
    says(page, "#insertion-trouble", "There is no clip yet")
    page.set_input_files("#insertion-clip input[type=file]", str(tmp_path / "a night.mp4"))
    page.wait_for_selector("#insertion-picture img", state="visible")
    page.wait_for_function("document.querySelector('#insertion-picture img').naturalWidth === 320")
    page.click("#insertion-put")
    says(page, "#insertion-trouble", "Write FRAME:X,Y,WIDTH")
    shown = page.locator("#insertion-picture img").bounding_box()
    scale = shown["width"] / 320
    page.mouse.click(shown["x"] + 160 * scale, shown["y"] + 150 * scale)
    says(page, "#insertion-trouble", "It is in the path below")
    written = page.locator("#insertion-path textarea").input_value()
    frame, _, place = written.partition(":")
    x, y, width = (float(number) for number in place.split(","))
    assert (frame, width) == ("0", 80.0)
    assert abs(x - 160) <= 2
    assert abs(y - 150) <= 2
    page.click("#insertion-put")
    says(page, "#insertion-status", "5 frames, in")
    page.wait_for_selector("#insertion-player .player[data-ready]")
    assert page.locator("#insertion-player .player-first option").count() == 3
    (made,) = InsertionStore(studio.runs).list()
    assert str(made.request.render) == "car:red:rear"
    frames = read_clip(InsertionStore(studio.runs).path(made.id) / RESULT).clip.frames.astype(int)
    assert abs(frames[2, 120:140, 140:180] - clip.frames[2, 120:140, 140:180]).mean() > 10
