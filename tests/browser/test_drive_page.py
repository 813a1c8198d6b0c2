"""The Drive tab in a real browser: a clip's maps are made, looked at, kept and dropped in again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene
from studio.records.map_sets import MapSetStore

Open = Callable[..., Any]


def open_tab(page: Any) -> None:
    page.get_by_role("tab", name="Drive", exact=True).click()
    page.wait_for_selector("#maps-extract", state="visible")


def says(page: Any, what: str, words: str) -> None:
    page.wait_for_function(f"document.querySelector('{what}').textContent.includes('{words}')")


def map_sets(studio: Any) -> list[Any]:
    return MapSetStore(studio.runs).list()


def test_a_clips_maps_are_made_laid_over_it_kept_and_dropped_in_again(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    clip = render(sample_scene(904, time_of_day="day", weather="clear"), height=192, width=320, num_frames=9)
    write_clip(clip, tmp_path / "a drive.mp4")
    page = open_page()
    open_tab(page)
    page.click("#maps-extract")
    says(page, "#maps-trouble", "There is no clip yet")
    page.set_input_files("#maps-file input[type=file]", str(tmp_path / "a drive.mp4"))
    for name in ("Layout", "Road, sky and the rest", "Optical flow"):
        page.locator("#maps-names").get_by_label(name, exact=True).uncheck()
    # Two clicks on the first frame draw a box around a car.
    page.click("#maps-following button")
    page.wait_for_selector("#maps-picture img", state="visible")
    page.wait_for_function("document.querySelector('#maps-picture img').naturalWidth === 320")
    shown = page.locator("#maps-picture img").bounding_box()
    scale = shown["width"] / 320
    for x, y, words in ((120, 70, "Click the one opposite"), (180, 120, "The box is in the list below")):
        page.mouse.click(shown["x"] + x * scale, shown["y"] + y * scale)
        says(page, "#maps-trouble", words)
    assert page.locator("#maps-boxes textarea").input_value().endswith(":car")
    page.click("#maps-extract")
    says(page, "#maps-status", "5 maps of 9 frames")
    page.wait_for_selector("#maps-player .player[data-ready][data-mode=overlay]")
    assert "Both lines of our lane were found in" in page.inner_text("#maps-facts")
    (made,) = map_sets(studio)
    assert made.maps == ("edges", "lane_lines", "depth", "boxes", "ego_motion")

    # Overlay: where the map is white the picture is brighter than the darkened clip, and nowhere is it the clip itself.
    page.click("#maps-player [data-mode=side]")
    assert page.locator("#maps-player .player-pane:not([hidden])").count() == 4
    page.locator("#maps-picked").get_by_label("Depth", exact=True).uncheck()
    page.wait_for_function("document.querySelectorAll('#maps-player .player-first option').length === 3")
    page.locator("#maps-picked").get_by_label("Ego-motion", exact=True).check()
    page.wait_for_function("document.querySelectorAll('#maps-player .player-first option').length === 4")

    # What is kept can be dropped in again, and so can a control video of another program.
    with page.expect_download() as awaited:
        page.locator("#maps-files a[download$='edges.mp4'], #maps-files a[href*='edges.mp4']").first.click()
    awaited.value.save_as(tmp_path / "kept.mp4")
    assert read_clip(tmp_path / "kept.mp4").clip.frames.shape == (9, 192, 320, 3)
    write_clip(read_clip(tmp_path / "kept.mp4").clip, tmp_path / "canny.mp4")
    page.click("#maps-given button")
    page.click("#maps-take-in")
    says(page, "#maps-trouble", "There are no maps yet")
    page.set_input_files("#maps-given-file input[type=file]", str(tmp_path / "canny.mp4"))
    says(page, "#maps-trouble", "canny.mp4 is here")
    page.click("#maps-take-in")
    says(page, "#maps-facts", "canny.mp4 is taken for edges")
    says(page, "#maps-status", "1 map of 9 frames")
    page.wait_for_selector("#maps-video video", state="visible")

    # So can the exact numbers.
    (folder,) = [MapSetStore(studio.runs).path(each.id) for each in map_sets(studio) if len(each.maps) == 5]
    page.locator(
        "#maps-given-file button[aria-label*='lear'], #maps-given-file button[aria-label*='emove']"
    ).first.click()
    page.set_input_files("#maps-given-file input[type=file]", str(folder / "maps.npz"))
    says(page, "#maps-trouble", "maps.npz is here")
    page.click("#maps-take-in")
    says(page, "#maps-facts", "maps.npz holds edges, lanes, depth, boxes, ego-motion")
    says(page, "#maps-status", "5 maps of 9 frames")

    # A page that is opened anew finds them.
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    open_tab(page)
    says(page, "#maps-facts", "maps.npz holds edges")
    for _ in range(3):
        page.click("#map-set-delete")
        page.click("#map-set-delete-really")
        says(page, "#maps-answer", "Deleted")
        page.wait_for_timeout(1500)
    assert map_sets(studio) == []


def test_on_a_telephone_every_tab_is_within_reach_and_a_world_gives_exact_maps(open_page: Open, studio: Any) -> None:
    for width in (390, 360):
        page = open_page(viewport={"width": width, "height": 844}, color_scheme="dark")
        tabs = page.get_by_role("tab")
        assert tabs.all_inner_texts() == ["Generate", "Compare", "Super-resolution", "Drive", "Fine-tune", "Runs"]
        for tab in tabs.all():
            place = tab.bounding_box()
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= width
    open_tab(page)
    page.fill("#maps-world textarea, #maps-world input", "904")
    page.fill("#maps-num-frames input", "5")
    page.click("#maps-extract")
    says(page, "#maps-status", "7 maps of 5 frames")
    says(page, "#maps-facts", "These maps are exact")
    page.wait_for_selector("#maps-player .player[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.fill("#maps-world textarea, #maps-world input", "nine")
    page.click("#maps-extract")
    says(page, "#maps-trouble", "no whole number")
