"""The Fine-tune tab in a real browser, over the real pocket model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.clip import write_clip
from studio.driving_world import render, sample_scene
from studio.jobs import JobQueue
from studio.runs import RunStore

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


def test_two_clips_become_a_version_that_the_generate_tab_offers(open_page: Open, studio: Any, tmp_path: Path) -> None:
    page = open_page()
    open_finetune(page)
    page.set_input_files("#training-files input[type=file]", driven(tmp_path))
    page.wait_for_function("document.querySelectorAll('.clip[data-state=ready]').length === 2")
    assert "Left out" in page.inner_text(".clip[data-state='left out']")
    assert page.locator(".clip img").count() == 2
    page.locator(".clip textarea").first.fill("<img src=x onerror=alert(1)>")
    page.fill("#training-title input, #training-title textarea", "<b>two drives</b>")
    page.locator("#training-objective").get_by_text("Latent:").click()
    page.locator("#training-more").get_by_text("More settings").click()
    for name, value in SMALL.items():
        page.fill(f"#training-{name} input", value)
    page.fill("#training-max-train-steps input", "0.5")
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
    seen_on_a_telephone(open_page)

    # Another one to its end, with before and after under one clock.
    page.fill("#training-max-train-steps input", "4")
    page.fill("#training-title input, #training-title textarea", "four steps")
    page.click("#training-start")
    says(page, "#training-status", "Done")
    page.wait_for_selector("#training-player .player[data-ready]")
    assert page.locator("#versions .version").count() == 2
    assert page.locator(".clip textarea").first.input_value().startswith("<img"), "the form keeps what was typed"
    page.locator("#version-card button").first.click()
    says(page, "#version-card", "four steps")

    page.click("#version-promote")
    says(page, "#version-said", "Promoted")
    page.wait_for_selector("#versions .version-promoted")
    page.reload()
    page.wait_for_selector(".live-headline:not(:empty)")
    page.click("#preset input")
    page.get_by_role("option", name="Pocket driving").click()
    page.wait_for_function("document.querySelector('#adapter input').value.includes('four steps')")

    open_finetune(page)
    page.wait_for_selector("#versions .version-promoted")
    page.click("#version-delete")
    page.click("#version-delete-really")
    says(page, "#version-said", "Deleted")
    page.wait_for_function("document.querySelectorAll('#versions .version').length === 1")
    queue = JobQueue(store=RunStore(studio.runs))
    queue.stop_training()
    queue.close()
    assert "libtorch" not in Path(f"/proc/{studio.process.pid}/maps").read_text()
