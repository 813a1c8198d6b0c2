"""The Super-resolution tab in a real browser, with a clip that has sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support.films import packets_of, seconds_of, with_everything, write_pictures

from studio.clips.read import read_clip
from studio.clips.shrinking import in_8_bits, shrunk
from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene
from studio.records.enlargements import EnlargementStore

Open = Callable[..., Any]


def open_tab(page: Any) -> None:
    page.get_by_role("tab", name="Super-resolution", exact=True).click()
    page.wait_for_selector("#enlarge-start", state="visible")


def says(page: Any, what: str, words: str) -> None:
    page.wait_for_function(f"document.querySelector('{what}').textContent.includes('{words}')")


def newest(studio: Any) -> Path:
    """Of the enlargements, the folder; other tests leave theirs."""
    store = EnlargementStore(studio.runs)
    return store.path(store.list()[0].id)


def test_a_part_is_tried_seen_beside_bicubic_and_kept_for_the_whole_clip(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    drive = render(sample_scene(3), height=64, width=96, num_frames=17).frames
    pictures = [drive[index % 17] for index in range(150)]
    silent = write_pictures(tmp_path / "silent.mp4", [512 * n for n in range(150)], pictures=pictures)
    clip = with_everything(tmp_path, name="a <b>drive", pictures=silent)
    page = open_page()
    open_tab(page)
    page.set_input_files("#enlarge-file input[type=file]", str(clip))
    says(page, "#enlarge-forecast", "All 150 pictures at 192×128 will take")
    assert "96×64" in page.inner_text("#enlarge-source")
    page.get_by_role("radio", name="4×").check()
    says(page, "#enlarge-forecast", "384×256")

    page.fill("#enlarge-part-start input", "2")
    page.click("#enlarge-try")
    says(page, "#enlarge-status", "The part is there")
    page.wait_for_selector("#enlarge-player .player[data-ready]")
    assert "Bicubic" in page.inner_text("#enlarge-player")
    folder = newest(studio)
    tried = {path.name: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    assert 1 <= len(tried) <= 3

    # A page that is opened anew finds it as it stands, and goes on with what was tried.
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    open_tab(page)
    says(page, "#enlarge-status", "The part is there")
    page.click("#enlarge-go-on")
    says(page, "#enlarge-status", "Done in")
    page.wait_for_selector("#enlarge-video video", state="visible")
    page.wait_for_selector("#enlarge-download", state="visible")
    assert seconds_of(folder / "video.mp4") == seconds_of(clip)
    assert packets_of(folder / "video.mp4", "audio") == packets_of(clip, "audio")
    assert "bdrive.mp4" in page.inner_text("#enlarge-facts")

    page.click("#enlargement-delete")
    page.click("#enlargement-delete-really")
    says(page, "#enlarge-answer", "Deleted")
    assert not folder.exists()


def test_an_original_is_in_the_player_and_the_figures_survive_a_reload(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    large = render(sample_scene(5), height=128, width=192, num_frames=9)
    write_clip(large, tmp_path / "large.mp4")
    small = np.stack([in_8_bits(shrunk(each.astype(np.float32), 2)) for each in large.frames])
    write_clip(replace(large, frames=small), tmp_path / "small.mp4")
    page = open_page()
    open_tab(page)
    page.locator("#enlarge-method").get_by_label("Lanczos + back-projection").check()
    page.set_input_files("#enlarge-file input[type=file]", str(tmp_path / "small.mp4"))
    says(page, "#enlarge-forecast", "All 9 pictures at 192×128")
    page.set_input_files("#enlarge-original input[type=file]", str(tmp_path / "small.mp4"))
    says(page, "#enlarge-beside", "The original has 96×64, and small.mp4 becomes 192×128 at 2×")
    page.locator(
        "#enlarge-original button[aria-label*='lear'], #enlarge-original button[aria-label*='emove']"
    ).first.click()
    page.set_input_files("#enlarge-original input[type=file]", str(tmp_path / "large.mp4"))
    says(page, "#enlarge-beside", "will be held against large.mp4")
    page.click("#enlarge-start")
    says(page, "#enlarge-figures", "VMAF-NEG")
    says(page, "#enlarge-status", "Done in")
    page.wait_for_selector("#enlarge-player .player[data-ready]")
    page.click("#enlarge-player [data-mode=side]")
    assert page.locator("#enlarge-player .player-pane:not([hidden])").count() == 3
    assert "Original" in page.inner_text("#enlarge-player")
    figures = page.inner_text("#enlarge-figures")
    assert "against large.mp4" in figures
    (folder,) = [each for each in (studio.runs / ".enlargements").iterdir() if (each / "video_original.mp4").is_file()]
    record = EnlargementStore(studio.runs).get(folder.name)
    made = record.measurements["video.mp4"].figures["made"]
    assert f"{made['psnr']:.2f}" in figures

    # Another method on the same clip stands beside it, and what is stored is not made again.
    methods = page.locator("#enlarge-methods")
    for title in ("Lanczos: sharp", "Lanczos + back-projection"):
        methods.get_by_label(title).check()
    page.click("#enlarge-compare")
    measured = "#enlarge-figures .compared-row[data-state=complete]"
    page.wait_for_function(f"document.querySelectorAll('{measured}').length === 3")  # bicubic is the third
    assert len(list((studio.runs / ".enlargements").glob("*/video_original.mp4"))) == 2
    page.wait_for_selector("#enlarge-player .player[data-ready]")
    page.locator("#enlarge-figures .compared-row input:not(:checked)").check()
    page.wait_for_function("document.querySelectorAll('#enlarge-player .player-first option').length === 4")
    assert page.locator("#enlarge-figures .compared-row input:checked").count() == 2

    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    open_tab(page)
    says(page, "#enlarge-figures", f"{made['psnr']:.2f}")
    page.wait_for_selector("#enlarge-player .player[data-ready]")
    for _ in range(2):
        page.click("#enlargement-delete")
        page.click("#enlargement-delete-really")
        says(page, "#enlarge-answer", "Deleted")
        page.wait_for_timeout(1500)


def test_a_short_clip_is_enlarged_whole_beside_its_twin_and_nonsense_is_refused_in_place(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    open_tab(page)
    page.click("#enlarge-start")
    says(page, "#enlarge-trouble", "There is no clip yet")
    (tmp_path / "broken.mp4").write_bytes(b"no clip at all")
    page.set_input_files("#enlarge-file input[type=file]", str(tmp_path / "broken.mp4"))
    says(page, "#enlarge-trouble", "not a video")
    page.locator("#enlarge-file button[aria-label*='lear'], #enlarge-file button[aria-label*='emove']").first.click()
    write_clip(render(sample_scene(4), height=64, width=64, num_frames=9), tmp_path / "short.mp4")
    page.set_input_files("#enlarge-file input[type=file]", str(tmp_path / "short.mp4"))
    says(page, "#enlarge-forecast", "All 9 pictures at 128×128")
    page.get_by_label("Restore", exact=True).check()
    page.wait_for_selector("#enlarge-detail", state="visible")
    page.fill("#enlarge-detail input[type=number]", "0.5")
    page.press("#enlarge-detail input[type=number]", "Tab")
    page.click("#enlarge-start")
    says(page, "#enlarge-status", "Done in")
    page.wait_for_selector("#enlarge-player .player[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    folder = newest(studio)
    assert read_clip(folder / "video.mp4").clip.frames.shape == (9, 128, 128, 3)
    request = EnlargementStore(studio.runs).list()[0].request
    assert (request.restore, request.detail) == (True, 0.5)

    # Beside it, a method that can do neither.
    page.locator("#enlarge-methods").get_by_label("Lanczos: sharp, with faint halos").check()
    page.click("#enlarge-compare")
    says(page, "#enlarge-figures", "Lanczos")
    assert not page.inner_text("#enlarge-trouble").strip()
