"""The Compare tab in a real browser, over the real pocket model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support.page_values import fill_numbers

from studio.clips.shrinking import in_8_bits, shrunk
from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene

Open = Callable[..., Any]

SMALL = {"num-inference-steps": "6", "num-frames": "5", "width": "64", "height": "64"}
PLAYER = "#compare-player .player"


def open_compare(page: Any) -> None:
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("#compare-start", state="visible")


def wait_until_done(page: Any) -> None:
    page.wait_for_function("document.querySelector('#compare-status').textContent.includes('Done')")


def download(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as begun:
        page.click(button)
    path = folder / begun.value.suggested_filename
    begun.value.save_as(path)
    return path


def seen_on_a_telephone(open_page: Open) -> None:
    """Without scrolling sideways, and with names for those who do not see it."""
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    open_compare(page)
    page.wait_for_selector("#compare-table .compared-row")
    page.wait_for_selector("#pareto .pareto-point")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for role, name in (("button", "Compare"), ("button", "CSV"), ("textbox", "Prompts"), ("checkbox", "AdaCache")):
        assert page.get_by_role(role, name=re.compile(f"^{name}")).count() >= 1, name
    labelled = page.locator("#pareto .pareto-point").first.get_attribute("aria-label")
    assert "× as fast" in labelled


def test_a_cached_clip_beside_its_full_twin_then_a_grid_a_plot_and_back_to_the_form(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    page = open_page()
    page.fill("#prompt textarea", "a blue bus drives ahead by day")
    fill_numbers(page, SMALL)
    page.fill("#seed input, #seed textarea", "41")
    page.locator("#cache").get_by_text("AdaCache", exact=True).click()
    page.click("#generate")
    page.wait_for_selector(".live[data-state=complete]")

    # Compare with full: the twin is made, and both lie under one clock.
    page.click("#compare-with-full")
    page.wait_for_selector(PLAYER, state="visible")
    page.wait_for_selector(f"{PLAYER}[data-ready]")
    assert page.locator("#compare-table .compared-row").count() == 2
    canvas = page.locator(f"{PLAYER} canvas[data-frames]").first
    shown = canvas.get_attribute("data-frames").split()
    assert len(set(shown)) == 1, "both clips show the same frame"
    assert "PSNR" in page.inner_text(PLAYER)
    wait_until_done(page)

    # A grid from the form's settings; the table fills, and a reload finds it as it stands.
    page.fill("#compare-seeds input, #compare-seeds textarea", "41, 42")
    page.locator("#compare-methods").get_by_text("AdaCache", exact=True).set_checked(True)
    page.locator("#compare-methods").get_by_text("AdaCache + MoReg", exact=True).set_checked(False)
    page.fill("#compare-steps input, #compare-steps textarea", "3")
    page.wait_for_function("document.querySelector('#compare-estimate').textContent.includes('6 clips in 2 groups')")
    page.click("#compare-start")
    page.wait_for_function("document.querySelectorAll('#compare-table .compared-row').length === 6")
    page.wait_for_selector("#compare-table .compared-row[data-cell='0'][data-state=complete]")
    assert "stored" in page.inner_text("#compare-table .compared-row[data-cell='0']"), "the twin is not made again"
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    open_compare(page)
    page.wait_for_function("document.querySelectorAll('#compare-table .compared-row').length === 6")
    wait_until_done(page)
    assert page.locator("#compare-table .compared-row[data-state=complete]").count() == 6

    # The plot: a mark for each clip; a click opens it beside its reference and loads its settings.
    points = page.locator("#pareto .pareto-point")
    assert points.count() == 6
    page.select_option("#pareto .pareto-metric", "ssim")
    assert "SSIM" in page.locator("#pareto .pareto-axis").first.text_content()
    page.locator("#pareto .pareto-point[data-cell='5']").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pareto .pareto-point[data-cell='5'][aria-pressed=true]")
    page.wait_for_function("document.querySelector('#compare-trouble').textContent.includes('3 steps, seed 42')")
    page.wait_for_selector(f"{PLAYER}[data-ready]")
    assert page.locator("#compare-table .compared-row[data-cell='5'] input").is_checked()

    # What leaves the house says the same.
    rows = list(csv.DictReader(download(page, "#export-csv", tmp_path).read_text(encoding="utf-8").splitlines()))
    assert [row["seed"] for row in rows] == ["41"] * 3 + ["42"] * 3
    record = json.loads(download(page, "#export-json", tmp_path).read_text(encoding="utf-8"))
    assert 5 < record["cells"][5]["scores"]["psnr"] < 60
    assert 0 < record["cells"][5]["scores"]["ms_ssim"] < 1
    kept = download(page, "#export-player", tmp_path).read_text(encoding="utf-8")
    assert kept.count("data:video/mp4;base64,") == 2
    assert download(page, "#export-html", tmp_path).stat().st_size > 1000

    page.get_by_role("tab", name="Generate").click()
    page.wait_for_function("document.querySelector('#num-inference-steps input').value === '3'")
    assert page.input_value("#seed input, #seed textarea") == "42"
    seen_on_a_telephone(open_page)
    assert "libtorch" not in Path(f"/proc/{studio.process.pid}/maps").read_text()


def test_a_failed_clip_keeps_its_error_and_what_is_refused_names_its_control(open_page: Open) -> None:
    page = open_page()
    fill_numbers(page, SMALL)
    open_compare(page)
    page.fill("#compare-prompts textarea", "<img src=x onerror=alert(1)>")
    page.fill("#compare-seeds input, #compare-seeds textarea", "one")
    page.click("#compare-start")
    page.wait_for_function("document.querySelector('#compare-trouble').textContent.includes('no seed')")
    page.fill("#compare-seeds input, #compare-seeds textarea", "3")
    page.get_by_text("More rows").click()
    page.fill("#compare-rows textarea", "fastercache")
    for name in ("AdaCache", "AdaCache + MoReg"):
        page.locator("#compare-methods").get_by_text(name, exact=True).set_checked(False)
    page.click("#compare-start")
    page.wait_for_selector("#compare-table .compared-row[data-state=failed]")
    wait_until_done(page)
    assert "does not work with" in page.inner_text("#compare-table .compared-row[data-state=failed]")
    assert page.locator("#compare-table .compared-row[data-state=complete]").count() == 1
    assert page.locator("#compare-table img").count() == 0, "a prompt is text"
    assert page.locator("#compare-go-on").is_visible()


def test_methods_on_several_clips_fill_one_table_a_plot_and_the_player(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    small: list[str] = []
    (tmp_path / "large").mkdir()
    for name, seed in (("drive", 3), ("rain", 5)):
        large = render(sample_scene(seed), height=128, width=192, num_frames=9)
        pictures = np.stack([in_8_bits(shrunk(each.astype(np.float32), 2)) for each in large.frames])
        write_clip(replace(large, frames=pictures), tmp_path / f"{name}.mp4")
        write_clip(large, tmp_path / f"large/{name}.mp4")
        small.append(str(tmp_path / f"{name}.mp4"))
    page = open_page()
    open_compare(page)
    page.get_by_text("Ways of enlarging clips").click()
    page.wait_for_selector("#methods-start", state="visible")
    page.set_input_files("#methods-clips input[type=file]", small)
    page.wait_for_function("document.querySelector('#methods-pairs').textContent.includes('no original')")
    page.set_input_files("#methods-originals input[type=file]", str(tmp_path / "large/rain.mp4"))
    page.wait_for_function("document.querySelector('#methods-pairs').textContent.includes('against rain.mp4')")
    ticked = page.locator("#methods-ticked")
    for title, on in (("Pocket super-resolver", True), ("Lanczos + back-projection", False), ("Lanczos: sharp", True)):
        ticked.get_by_label(title).first.set_checked(on)
    page.wait_for_function("document.querySelector('#methods-count').textContent.includes('4 enlargements')")
    page.click("#methods-start")
    page.wait_for_function("document.querySelector('#methods-status').textContent.includes('Done: 4 of 4')")

    # A row for each method on each clip, bicubic beside them, and the means over both.
    assert page.locator("#methods-table .compared-group").all_text_contents()[1].startswith("drive.mp4")
    assert page.locator("#methods-table .compared-row[data-state=complete]").count() == 9
    assert page.locator("#methods-plot .pareto-point").count() == 4
    assert page.locator("#methods-plot .pareto-median").count() == 2
    assert "pictures a second" in page.locator("#methods-plot .pareto-axis").last.text_content()

    # Any of them in the player: another clip's takes the first one's place, and its original stands beside it.
    player = "#methods-player .player"
    page.wait_for_selector(f"{player}[data-ready]")
    page.locator("#methods-table .compared-row input").nth(2).check()
    page.wait_for_function("document.querySelector('#methods-player').textContent.includes('Original')")
    page.wait_for_selector(f"{player}[data-ready]")
    assert page.locator("#methods-table .compared-row input:checked").count() == 1
    page.locator("#methods-plot .pareto-point").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#methods-plot .pareto-point[aria-pressed=true]")
    rows = list(csv.DictReader(download(page, "#methods-export-csv", tmp_path).read_text("utf-8").splitlines()))
    assert [row["clip"] for row in rows][-1] == "mean over 2"
    assert float(next(row["psnr"] for row in rows if row["clip"] == "rain.mp4")) > 20
    assert download(page, "#methods-export-player", tmp_path).stat().st_size > 10_000

    # A reload finds it, on a telephone too; the record goes, the enlargements stay.
    telephone = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    open_compare(telephone)
    telephone.get_by_text("Ways of enlarging clips").click()
    telephone.wait_for_selector("#methods-table .compared-row[data-state=complete]")
    assert telephone.evaluate("document.documentElement.scrollWidth") <= 390
    telephone.click("#methods-delete")
    telephone.click("#methods-delete-really")
    telephone.wait_for_function("document.querySelector('#methods-answer').textContent.includes('Deleted')")
    assert not list((studio.runs / ".enlargement-comparisons").iterdir())
    assert len(list((studio.runs / ".enlargements").iterdir())) == 4
