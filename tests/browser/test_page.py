"""The page in a real browser, over the real pocket model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.page_values import fill_numbers

from studio.clips.clip import Clip
from studio.clips.read import read_settings
from studio.clips.write import write_clip

Open = Callable[..., Any]

SMALL = {"num-inference-steps": "6", "num-frames": "5", "width": "64", "height": "64"}
LONG = {"num-inference-steps": "200"}
"""Still under way while a test looks at it."""
LONGER = LONG | {"num-frames": "33", "width": "192", "height": "192"}
"""The same while a test does much else; nobody waits for its end."""


def fill(page: Any, prompt: str, **fields: str) -> None:
    page.fill("#prompt textarea", prompt)
    for name, value in fields.items():
        page.fill(f"#{name.replace('_', '-')} input, #{name.replace('_', '-')} textarea", value)


def generate(page: Any, prompt: str, numbers: dict[str, str], seed: str = "7") -> None:
    page.fill("#prompt textarea", prompt)
    fill_numbers(page, numbers)
    page.fill("#seed input, #seed textarea", seed)
    page.click("#generate")


def bars(page: Any) -> int:
    return page.locator("#timeline .bar").count()


def wait_for_bars(page: Any, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('#timeline .bar').length >= {count}")


def wait_for_state(page: Any, *states: str) -> None:
    wanted = ", ".join(f".live[data-state={state}]" for state in states)
    page.wait_for_selector(wanted)


def wait_for_headline(page: Any, words: str) -> None:
    page.wait_for_function(f"document.querySelector('.live-headline').textContent.includes({words!r})")


def open_runs(page: Any) -> None:
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector(".run-tile")


def test_the_server_has_no_torch_in_it(studio: Any) -> None:
    maps = Path(f"/proc/{studio.process.pid}/maps")
    if not maps.exists():
        pytest.skip("this system does not list a process's libraries")
    assert "libtorch" not in maps.read_text()


def test_a_prompt_becomes_a_clip_before_ones_eyes_and_is_found_again(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    generate(page, "a red car drives ahead at dusk", SMALL, seed="41")
    wait_for_bars(page, 1)
    assert page.locator("#timeline .bar-slot").count() == 6
    page.wait_for_selector(".live-preview img[src^='data:image/jpeg']", state="attached")
    wait_for_state(page, "complete")

    assert bars(page) == 6
    numbers = [int(text) for text in page.locator("#timeline .bar-number").all_inner_texts() if text.isdecimal()]
    assert numbers
    assert min(numbers) > 0
    assert page.locator("#timeline .strip-step .kind-computed").count() >= 6
    page.hover("#timeline .bar-slot[data-step='2']")
    assert re.match(r"Step 3 .* σ 0\.\d{3} .* of \d+ block passes computed", page.inner_text(".timeline-readout"))

    # The clip plays: its clock moves and comes round.
    page.wait_for_function("document.querySelector('#clip video')?.readyState >= 2")
    assert page.evaluate(
        "(({loop, muted, autoplay}) => [loop, muted, autoplay])(document.querySelector('#clip video'))"
    )
    page.wait_for_function("!document.querySelector('#clip video').paused")
    facts = page.inner_text("#result-facts")
    assert "41" in facts
    for name in ("in all", "a step", "peak memory", "denoising", "decoding", "runs on"):
        assert name in facts

    open_runs(page)
    page.fill("#search input, #search textarea", "dusk red")
    page.wait_for_function("document.querySelectorAll('.run-tile').length === 1")
    page.click(".run-tile")
    page.wait_for_selector("#run-clip video")
    assert page.locator("#run-timeline .bar").count() == 6
    assert "a red car drives ahead at dusk" in page.inner_text("#run-settings")
    with page.expect_download() as waiting:
        page.click("#run-download")
    clip = tmp_path / "downloaded.mp4"
    waiting.value.save_as(clip)
    assert waiting.value.suggested_filename == "dailies-a-red-car-drives-ahead-at-dusk-41.mp4"
    settings = read_settings(clip)
    assert settings is not None
    assert settings["request"]["seed"] == 41

    # The file alone restores the whole form, on a page that knows nothing.
    other = open_page()
    other.get_by_role("tab", name="Runs").click()
    other.set_input_files("#drop input[type=file]", str(clip))
    other.wait_for_function("document.querySelector('#prompt textarea').value === 'a red car drives ahead at dusk'")
    assert other.input_value("#num-inference-steps input") == "6"
    assert other.input_value("#width input") == "64"
    assert other.input_value("#seed input, #seed textarea") == "41"
    other.wait_for_selector("#generate:visible")


def test_vary_seed_makes_the_same_again_with_another_seed(open_page: Open) -> None:
    page = open_page()
    page.click("#queue button[data-action=show] >> nth=0")
    wait_for_state(page, "complete")
    page.click("#vary")
    page.wait_for_function("document.querySelector('#result-facts dd')?.textContent.match(/^(?!41$)\\d+$/)")
    wait_for_state(page, "complete")
    page.click("#restore")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a red car drives ahead at dusk'")
    assert page.input_value("#seed input, #seed textarea") not in ("", "41")


def test_a_reload_in_the_middle_reattaches_and_stop_stops(open_page: Open) -> None:
    page = open_page()
    generate(page, "a bus in the snow", LONG)
    wait_for_bars(page, 3)
    before = bars(page)
    page.reload()
    page.wait_for_selector("#timeline .bar")
    assert bars(page) >= before, "the history is redrawn at once"
    wait_for_state(page, "running")
    assert page.input_value("#prompt textarea") == "a bus in the snow"
    wait_for_bars(page, before + 2)

    page.click("#stop")
    wait_for_state(page, "cancelled")
    assert page.locator("#clip video").count() == 0
    assert page.locator("#stop").count() == 0
    assert page.input_value("#prompt textarea") == "a bus in the snow"


def test_a_closed_tab_loses_nothing_and_stop_and_keep_keeps(open_page: Open) -> None:
    page = open_page()
    generate(page, "a truck in the fog", LONG)
    wait_for_bars(page, 2)
    page.close()
    other = open_page()
    wait_for_state(other, "running")
    wait_for_bars(other, 3)
    other.click("#stop-and-keep")
    wait_for_state(other, "complete")
    assert "kept" in other.inner_text(".live-headline")
    other.wait_for_function("document.querySelector('#clip video')?.readyState >= 2")
    assert 3 <= bars(other) < 200
    open_runs(other)
    assert "partial" in other.locator(".run-tile").first.inner_text()


def test_the_queue_is_paused_reordered_cancelled_and_its_text_is_only_text(open_page: Open) -> None:
    page = open_page()
    generate(page, "keeps the worker busy", LONGER)
    wait_for_bars(page, 1)
    page.click("#queue .queue-pause")
    page.wait_for_selector("#queue .queue.paused")
    evil = "${document.body.dataset.pwned = 1} {{value}} <img src=x onerror='document.body.dataset.pwned = 1'>"
    generate(page, "an ordinary one", SMALL)
    page.wait_for_function("document.querySelectorAll('#queue .job[data-state=queued]').length === 1")
    generate(page, evil, SMALL)
    page.wait_for_function("document.querySelectorAll('#queue .job[data-state=queued]').length === 2")
    waiting = page.locator("#queue .job[data-state=queued]")
    assert waiting.nth(1).locator(".job-prompt").inner_text() == evil
    waiting.nth(1).locator("button[data-action=up]").click()
    page.wait_for_function(
        "document.querySelector('#queue .job[data-state=queued] .job-prompt').textContent.startsWith('$')"
    )
    # Seen in the live area as well, and still only text.
    waiting.nth(0).locator("button[data-action=show]").click()
    wait_for_state(page, "queued")
    assert page.inner_text(".live-prompt") == evil
    assert page.evaluate("document.body.dataset.pwned") is None
    for left in (1, 0):
        page.locator("#queue .job[data-state=queued] button[data-action=cancel]").first.click()
        page.wait_for_function(f"document.querySelectorAll('#queue .job[data-state=queued]').length === {left}")
    page.click("#queue .queue-pause")
    page.wait_for_selector("#queue .queue:not(.paused)")
    # What was shown has ended: the page goes on with what is at work.
    wait_for_state(page, "running")
    page.click("#stop")
    wait_for_state(page, "cancelled")


def test_what_will_not_do_is_said_in_place_and_the_form_keeps_what_was_typed(open_page: Open) -> None:
    page = open_page()
    page.click("#generate")
    page.wait_for_selector("#trouble .message[data-tone=error]")
    assert page.inner_text("#trouble .message").startswith("✕Prompt:")
    generate(page, "a white motorbike", {"width": "130"})
    page.wait_for_function("document.querySelector('#trouble').innerText.includes('128 and 144')")
    assert "Width:" in page.inner_text("#trouble")
    page.wait_for_function("document.querySelector('#estimate').innerText.includes('Width:')")
    assert page.input_value("#prompt textarea") == "a white motorbike"
    assert page.input_value("#width input") == "130"
    page.fill("#prompt textarea", "x" * 10_000)
    fill_numbers(page, {"width": "128"})
    page.click("#generate")
    page.wait_for_function("document.querySelector('#trouble').innerText.includes('10,000')")


def test_a_foreign_mp4_gets_a_clear_word(open_page: Open, tmp_path: Path) -> None:
    write_clip(Clip(frames=np.zeros((5, 64, 64, 3), np.uint8), fps=12), tmp_path / "foreign.mp4")
    page = open_page()
    page.get_by_role("tab", name="Runs").click()
    page.set_input_files("#drop input[type=file]", str(tmp_path / "foreign.mp4"))
    page.wait_for_function("document.querySelector('#dropped').innerText.includes('no settings')")


def test_a_run_is_deleted_only_after_a_second_word(open_page: Open) -> None:
    page = open_page()
    open_runs(page)
    before = page.locator(".run-tile").count()
    page.locator(".run-tile").last.click()
    page.click("#run-delete")
    page.click("#run-keep")
    page.wait_for_selector("#run-delete-really", state="detached")
    page.click("#run-delete")
    page.click("#run-delete-really")
    page.wait_for_function(f"document.querySelectorAll('.run-tile').length === {before - 1}")
    assert "Deleted" in page.inner_text("#run-hint")


def test_a_clip_is_made_with_the_keyboard_alone(open_page: Open) -> None:
    page = open_page()

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#prompt textarea")
    page.keyboard.type("a yellow truck")
    tab_to("#num-inference-steps input")
    page.keyboard.press("Control+A")
    page.keyboard.type("200")
    tab_to("#generate")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    page.keyboard.press("Enter")
    wait_for_bars(page, 1)
    assert page.inner_text(".live-prompt") == "a yellow truck"
    tab_to("#stop")
    page.keyboard.press("Enter")
    wait_for_state(page, "cancelled")
    tab_to(".timeline-plot")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".timeline-readout").startswith("Step 1")


def test_a_measuring_is_followed_in_every_tab_and_stopped_from_any(open_page: Open) -> None:
    page, other = open_page(), open_page()
    fill_numbers(page, {"num-inference-steps": "12"})
    for each in (page, other):
        each.click("#measured .label-wrap")
    page.click("#measure")
    for each in (page, other):
        each.wait_for_function(
            "/Measuring: \\d+ of \\d+ clips/.test(document.querySelector('#measured-line').innerText)"
        )
        assert each.locator("#measure:visible").count() == 0
    other.click("#stop-measuring")
    for each in (page, other):
        each.wait_for_selector("#measure:visible")
        assert each.inner_text("#measure") == "Measure this model"
        assert each.locator("#stop-measuring:visible").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_needs_no_sideways_scroll_in_either_mode(open_page: Open, scheme: str) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    width = "document.documentElement.scrollWidth"
    page.click("#queue button[data-action=show] >> nth=0")
    page.wait_for_selector("#result:visible")
    assert page.evaluate(width) <= 390
    for accordion in page.locator(".label-wrap:visible").all():
        accordion.click()
    assert page.evaluate(width) <= 390
    open_runs(page)
    page.locator(".run-tile").first.click()
    page.wait_for_selector("#run:visible")
    assert page.evaluate(width) <= 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in re.findall(r"\d+", background)[:3]) / 3
    assert (lightness < 60) if scheme == "dark" else (lightness > 200)


def test_every_control_has_a_name_that_is_read_aloud(open_page: Open) -> None:
    page = open_page()
    for accordion in page.locator(".label-wrap:visible").all():
        accordion.click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button, select')]
            .filter((control) => control.offsetParent !== null && control.type !== 'hidden')
            .filter((control) => !(control.ariaLabel || control.title || control.textContent.trim()
                || control.labels?.length && [...control.labels].some((label) => label.textContent.trim())
                || control.getAttribute('aria-labelledby')))
            .map((control) => control.outerHTML.slice(0, 160))"""
    )
    assert nameless == []


def test_whoever_wants_less_motion_gets_a_still_clip(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    open_runs(page)
    page.keyboard.press("Tab")
    page.locator(".run-tile").last.click()
    page.wait_for_selector("#run:visible")
    assert page.evaluate("getComputedStyle(document.querySelector('.live-blank'), '::after').animationName") == "none"
