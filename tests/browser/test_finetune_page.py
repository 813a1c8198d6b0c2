"""The Fine-tune tab in a real browser, over the real pocket model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene
from studio.jobs import JobQueue
from studio.records.enlargements import EnlargementStore
from studio.records.enlarger_versions import EnlargerVersionStore
from studio.records.runs import RunStore
from studio.records.versions import VersionStore

Open = Callable[..., Any]

SMALL = {"width": "64", "height": "64", "num-frames": "9", "validation-steps": "3"}


def open_finetune(page: Any) -> None:
    page.get_by_role("tab", name="Fine-tune", exact=True).click()
    page.wait_for_selector("#training-start", state="visible")


def says(page: Any, what: str, words: str) -> None:
    page.wait_for_function(f"document.querySelector('{what}').textContent.includes('{words}')")


def driven(folder: Path) -> list[str]:
    """Two short drives, and something that is no clip."""
    for seed in (1, 2):
        clip = render(sample_scene(seed), height=64, width=64, num_frames=19)
        write_clip(clip, folder / f"drive-{seed}.mp4")
    (folder / "broken.mp4").write_bytes(b"no clip at all")
    return [str(folder / name) for name in ("drive-1.mp4", "drive-2.mp4", "broken.mp4")]


def seen_on_a_telephone(open_page: Open) -> None:
    """Without scrolling sideways, the same as in the other tab, and with names for those who do not see it."""
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    open_finetune(page)
    page.wait_for_selector("#training-plot .training-area .line-latent")
    page.wait_for_selector("#versions .version")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for role, name in (("button", "Fine-tune"), ("spinbutton", "Learning rate"), ("radio", "Latent"), ("button", "Go")):
        assert page.get_by_role(role, name=re.compile(f"^{name}")).count() >= 1, name


def with_settings(page: Any, title: str, steps: str) -> None:
    """A small training by the model's own loss."""
    page.fill("#training-title input, #training-title textarea", title)
    page.locator("#training-objective").get_by_text("Latent:").click()
    page.locator("#training-more").get_by_text("More settings").click()
    for name, value in (SMALL | {"max-train-steps": steps}).items():
        page.fill(f"#training-{name} input", value)


def test_uploads_survive_a_reload_and_a_stopped_training_keeps_what_was_learnt(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    open_finetune(page)
    page.set_input_files("#training-files input[type=file]", driven(tmp_path))
    page.wait_for_function("document.querySelectorAll('.clip[data-state=ready]').length === 2")
    assert "Left out" in page.inner_text(".clip[data-state='left out']")
    assert page.locator(".clip img").count() == 2
    page.wait_for_function("localStorage.getItem('dailies-clips')")
    before = page.evaluate("localStorage.getItem('dailies-clips')")
    page.locator(".clip textarea").first.fill("<img src=x onerror=alert(1)>")
    page.locator(".clip textarea").first.blur()
    page.wait_for_function("before => localStorage.getItem('dailies-clips') !== before", arg=before)

    # What was uploaded and typed is found again by a page that is opened anew.
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    open_finetune(page)
    page.wait_for_function("document.querySelectorAll('.clip[data-state=ready]').length === 2")
    assert page.locator(".clip textarea").first.input_value().startswith("<img")
    with_settings(page, "<b>two drives</b>", "0.5")
    page.click("#training-start")
    says(page, "#training-trouble", "Steps:")

    # Stopped on the way: what was learnt is kept, and a telephone that looks sees the same.
    page.fill("#training-max-train-steps input", "400")
    page.click("#training-start")
    page.wait_for_selector("#training-plot .training-area .line-latent")
    says(page, "#training-status", "Step ")
    page.hover("#training-plot .training-area")
    says(page, "#training-plot .training-readout", "loss")
    page.click("#training-stop")
    says(page, "#training-status", "Stopped after")
    page.wait_for_selector("#version-download", state="visible")
    assert "two drives" in page.inner_text("#versions .version-title")
    assert page.locator("#versions .version b:not(.version-promoted)").count() == 0, "a title is text"
    assert page.locator(".clip textarea").first.input_value().startswith("<img"), "the form keeps what was typed"
    seen_on_a_telephone(open_page)


def test_what_was_predicted_is_trained_judged_promoted_and_offered_by_the_generate_tab(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    page = open_page()
    open_finetune(page)
    before = len(VersionStore(studio.runs).list())
    page.set_input_files("#training-files input[type=file]", driven(tmp_path)[:1])
    page.wait_for_function("document.querySelectorAll('.clip[data-state=ready]').length === 1")
    with_settings(page, "four steps", "4")
    page.fill("#training-sample-prompts textarea", "a tram\nrain at night")
    page.click("#training-predict")
    says(page, "#training-status", "4 steps will take about")
    page.click("#training-go-on")
    page.wait_for_selector("#training-before video", state="visible")
    says(page, "#training-status", "Done")
    page.wait_for_selector("#training-player .player[data-ready]")
    page.click("#training-prompt input")
    page.get_by_role("option", name="rain at night").click()
    page.wait_for_selector("#training-player .player[data-ready]")
    assert page.locator("#versions .version").count() == before + 1
    page.locator("#version-card button").first.click()
    says(page, "#version-card", "four steps")

    page.click("#version-promote")
    says(page, "#version-said", "Promoted")
    page.wait_for_selector("#versions .version-promoted")
    page.locator("#version-push button").first.click()
    assert page.input_value("#push-repo input, #push-repo textarea") == "four-steps-pocket-lora"
    page.click("#push")
    says(page, "#push-said", "was not sent")
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    page.wait_for_function("document.querySelector('#adapter input').value.includes('four steps')")

    open_finetune(page)
    page.wait_for_selector("#versions .version-promoted")
    # Its clips have been read: what is deleted in the middle of it is a 404 to the reader.
    page.wait_for_selector("#training-player .player[data-ready]")
    page.click("#version-delete")
    page.click("#version-delete-really")
    says(page, "#version-said", "Deleted")
    page.wait_for_function("before => document.querySelectorAll('#versions .version').length === before", arg=before)
    queue = JobQueue(store=RunStore(studio.runs))
    for job in queue.jobs(states=("running", "queued")):
        queue.cancel(job.id)
    queue.close()
    assert "libtorch" not in Path(f"/proc/{studio.process.pid}/maps").read_text()


def test_a_model_learns_to_enlarge_ones_clips_and_the_version_is_offered_where_clips_are_enlarged(
    open_page: Open, studio: Any, tmp_path: Path
) -> None:
    for seed in (1, 2):
        write_clip(render(sample_scene(seed), height=128, width=128, num_frames=12), tmp_path / f"sharp-{seed}.mp4")
    page = open_page()
    open_finetune(page)
    page.get_by_text("Enlarge clips like mine").click()
    page.wait_for_selector("#enlarger-start", state="visible")
    page.click("#enlarger-start")
    says(page, "#enlarger-trouble", "There is no clip yet")
    page.set_input_files("#enlarger-files input[type=file]", [str(tmp_path / f"sharp-{seed}.mp4") for seed in (1, 2)])
    page.wait_for_selector("#enlarger-files .file-preview")
    page.fill("#enlarger-title input, #enlarger-title textarea", "Two <b>drives</b>")
    page.fill("#enlarger-max-train-steps input", "0")
    page.click("#enlarger-start")
    says(page, "#enlarger-trouble", "Steps")
    page.fill("#enlarger-max-train-steps input", "2")
    page.locator("#enlarger-more").get_by_text("More settings").click()
    for name, value in (("num-frames", "3"), ("crop-size", "64"), ("gradient-accumulation-steps", "1")):
        page.fill(f"#enlarger-{name} input", value)
    page.click("#enlarger-start")
    says(page, "#enlarger-status", "Done")
    (version,) = EnlargerVersionStore(studio.runs).list()
    assert (version.step, len(version.request.clips)) == (2, 2)
    assert "→" in page.inner_text("#enlarger-facts")
    assert page.locator("#enlarger-plot .training-area svg").count() == 1

    # A reload finds it; the Super-resolution tab offers it, and enlarges with it.
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    page.get_by_role("tab", name="Super-resolution", exact=True).click()
    page.wait_for_selector("#enlarge-adapter input", state="visible")
    page.click("#enlarge-adapter input")
    page.get_by_role("option", name="Two <b>drives</b>").click()
    write_clip(render(sample_scene(3), height=64, width=64, num_frames=5), tmp_path / "small.mp4")
    page.set_input_files("#enlarge-file input[type=file]", str(tmp_path / "small.mp4"))
    says(page, "#enlarge-forecast", "All 5 pictures at 128×128")
    page.click("#enlarge-start")
    says(page, "#enlarge-status", "Done in")
    assert EnlargementStore(studio.runs).list()[0].request.adapter == version.id

    # It is deleted where it was made.
    open_finetune(page)
    page.get_by_text("Enlarge clips like mine").click()
    page.click("#enlarger-version-delete")
    page.click("#enlarger-version-delete-really")
    says(page, "#enlarger-answer", "Deleted")
    assert EnlargerVersionStore(studio.runs).list() == []
