"""The comparison player in a real browser.

Each frame of the clips bears its own number as black and white squares, once near the left edge and once near the
right: which frame a picture shows is read from its pixels, and not taken from the player's word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
import pytest
from starlette.middleware import Middleware

from studio.clips.clip import Clip
from studio.clips.write import write_clip
from studio.ui.components.synced_player import FrameScores, PlayerClip, player_record, served, synced_player
from studio.ui.panels.comparison_export import export_html
from studio.ui.server.guard import Guard
from studio.ui.theme import HEAD, STYLE_SHEETS, theme

FRAMES = 24
FPS = 12.0
BITS = 5
HEIGHT, WIDTH = 96, 160
SQUARE = 16
WORST = 13
BAD_TITLE = '<img src=x onerror="window.pwned=1">${window.pwned=2}'

Open = Callable[..., Any]

READ = """
(canvas) => {
  const context = canvas.getContext('2d');
  const read = (x) => {
    let number = 0;
    for (let bit = 0; bit < BITS; bit++) {
      const y = (8 + 16 * bit + 8) / 96;
      const [red] = context.getImageData(Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data;
      number += (red > 127) << bit;
    }
    return number;
  };
  return [read(12 / 160), read(148 / 160)];
}
""".replace("BITS", str(BITS))
"""The numbers near the left and the right edge of a picture."""

WATCH = f"""
async (instants) => {{
  const read = {READ};
  const player = document.querySelector('.player').player;
  const seen = [];
  for (let i = 0; i < instants; i++) {{
    await new Promise((done) => i % 3 ? requestAnimationFrame(done) : setTimeout(done, 7));
    seen.push({{
      said: player.shown().flat(),
      read: [...document.querySelectorAll('.player canvas')].filter((one) => one.dataset.frames).flatMap(read),
    }});
  }}
  return seen;
}}
"""
"""At many instants, some between two repaints: what the player says that it shows, and what the pixels say."""


def numbered(colour: tuple[int, int, int], num_frames: int = FRAMES) -> Clip:
    frames = np.full((num_frames, HEIGHT, WIDTH, 3), colour, np.uint8)
    for number, frame in enumerate(frames):
        for bit in range(BITS):
            level = 255 if number >> bit & 1 else 0
            top = 8 + SQUARE * bit
            frame[top : top + SQUARE, 4 : 4 + SQUARE] = level
            frame[top : top + SQUARE, WIDTH - 20 : WIDTH - 20 + SQUARE] = level
    return Clip(frames=frames, fps=FPS)


COLOURS = {"red": (180, 40, 40), "green": (40, 150, 60), "blue": (50, 60, 190), "grey": (120, 120, 120)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    for name, colour in COLOURS.items():
        write_clip(numbered(colour), folder / f"{name}.mp4")
    write_clip(numbered(COLOURS["red"], FRAMES - 4), folder / "short.mp4")
    (folder / "broken.mp4").write_bytes(b"no clip at all" * 40)
    return {path.stem: path for path in folder.iterdir()}


def record(clips: dict[str, Path], *names: str, **changes: Any) -> dict[str, Any]:
    values = [40.0 - abs(6 - i) / 10 for i in range(FRAMES)]
    values[WORST] = 21.5
    scores = FrameScores(name="PSNR", unit="dB", values=values)
    given = [
        PlayerClip(title=name, url=served(clips[name]), facts=["2.1×"], scores=scores if place else None)
        for place, name in enumerate(names)
    ]
    return player_record(**({"reference": given[0], "others": given[1:], "fps": FPS, "num_frames": FRAMES} | changes))


@pytest.fixture(scope="module")
def cases(clips: dict[str, Path]) -> dict[str, dict[str, Any]]:
    all_four = tuple(COLOURS)
    markup = [PlayerClip(title=BAD_TITLE, url=served(clips[name]), facts=[BAD_TITLE]) for name in ("red", "green")]
    return {
        "four": record(clips, *all_four),
        "sought": record(clips, *all_four, cache_megabytes=0.0),
        "two": record(clips, "red", "green"),
        "sought two": record(clips, "red", "green", cache_megabytes=0.0),
        "same": record(clips, "red", "red"),
        "short": record(clips, "red", "short"),
        "broken": record(clips, "red", "broken"),
        "markup": record(clips, "red", "green", reference=markup[0], others=markup[1:]),
    }


@pytest.fixture(scope="module")
def address(clips: dict[str, Path], cases: dict[str, Any]) -> Iterator[str]:
    """A page with nothing but the player, behind the studio's own guard."""

    def given(request: gr.Request) -> dict[str, Any]:
        return cases[dict(request.query_params).get("case", "two")]

    def another(request: gr.Request) -> dict[str, Any]:
        return cases["sought two" if given(request) is cases["sought"] else "same"]

    with gr.Blocks(analytics_enabled=False) as page:
        player = synced_player(elem_id="compare")
        other = gr.Button("Another", elem_id="another")
        page.load(given, None, player)
        other.click(another, None, player)
    _, served_at, _ = page.launch(
        server_name="127.0.0.1",
        theme=theme(),
        css_paths=list(STYLE_SHEETS),
        head=HEAD,
        quiet=True,
        ssr_mode=False,
        prevent_thread_lock=True,
        allowed_paths=[str(clips["red"].parent)],
        app_kwargs={"middleware": [Middleware(Guard, upload_bytes=10**6)]},
    )
    yield served_at
    page.close()


@pytest.fixture
def show(browser: Any, address: str) -> Iterator[Open]:
    """Opens a case, quiet unless told otherwise; afterwards no page may have complained or asked elsewhere."""
    contexts: list[Any] = []
    faults: list[str] = []

    def open_one(case: str, *, moving: bool = False, url: str | None = None, **options: Any) -> Any:
        motion = "no-preference" if moving else "reduce"
        context = browser.new_context(
            **({"viewport": {"width": 1000, "height": 900}, "reduced_motion": motion} | options)
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        ours = (address, "data:", "blob:") if url is None else (url, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(ours) else faults.append(asked.url))
        page.goto(url or f"{address}?case={case}")
        page.wait_for_selector(".player[data-ready], .player-status[data-tone=error]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


def press(page: Any, *keys: str) -> None:
    page.focus(".player-stage")
    for key in keys:
        page.keyboard.press(key)


def read(page: Any) -> list[list[int]]:
    """The numbers in every picture."""
    return page.evaluate(
        f"[...document.querySelectorAll('.player canvas')].filter((c) => c.dataset.frames).map({READ})"
    )


def clock(page: Any) -> str:
    return page.inner_text(".player-clock")


def hold_together(seen: list[dict[str, Any]], pictures: int) -> list[int]:
    """Every instant shows one frame in all pictures, and the one that the player says; returns those frames."""
    frames = []
    for instant in seen:
        assert len(instant["said"]) == pictures
        assert len(instant["read"]) == 2 * pictures
        numbers = {*instant["said"], *instant["read"]}
        assert len(numbers) == 1, f"the pictures show different frames: {instant}"
        frames.append(numbers.pop())
    return frames


@pytest.mark.parametrize("case", ["four", "sought"])
def test_all_pictures_show_the_same_frame_at_every_instant(show: Open, case: str) -> None:
    page = show(case, moving=True)
    assert page.get_attribute(".player", "data-ready") == ("kept" if case == "four" else "sought")
    press(page, "2")
    page.wait_for_function("document.querySelector('.player').hasAttribute('data-playing')")
    page.wait_for_function("document.querySelectorAll('.player-pane:not([hidden])').length === 4")
    frames = hold_together(page.evaluate(WATCH, 150), 4)
    assert len(set(frames)) >= 8, f"it hardly moved: {frames}"
    page.select_option(".player-speed", "2")
    assert len(set(hold_together(page.evaluate(WATCH, 60), 4))) >= 4


@pytest.mark.parametrize("case", ["two", "sought"])
def test_stepping_visits_every_frame_once(show: Open, case: str) -> None:
    page = show(case)
    visited = []
    for number in range(FRAMES):
        page.wait_for_function(f"document.querySelector('.player').player.shown()[0][0] === {number}")
        visited.append(read(page))
        press(page, "ArrowRight" if number % 2 else ".")
    assert visited == [[[number, number]] for number in range(FRAMES)]
    press(page, "ArrowRight")
    assert clock(page).startswith(f"Frame {FRAMES} of {FRAMES}")  # the end is the end
    press(page, "Home", "ArrowLeft")
    page.wait_for_function("document.querySelector('.player').player.shown()[0][0] === 0")
    press(page, "End", ",")
    page.wait_for_function(f"document.querySelector('.player').player.shown()[0][0] === {FRAMES - 2}")
    assert read(page) == [[FRAMES - 2, FRAMES - 2]]


def test_the_worst_frame_is_one_click_away_and_the_strip_is_a_way_to_every_other(show: Open) -> None:
    page = show("two")
    page.click(".player-strip:not([hidden]) .player-worst")
    assert read(page) == [[WORST, WORST]]
    assert "PSNR 21.50 dB" in page.inner_text(".player-strip:not([hidden])")
    plot = page.locator(".player-strip:not([hidden]) .player-plot").bounding_box()
    page.mouse.click(plot["x"] + plot["width"] * 5 / (FRAMES - 1), plot["y"] + 20)
    assert read(page) == [[5, 5]]
    press(page, "w")
    assert read(page) == [[WORST, WORST]]


def brightest(page: Any) -> int:
    return page.evaluate(
        """() => {
          const canvas = [...document.querySelectorAll('.player canvas')].find((one) => one.dataset.frames);
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          let most = 0;
          for (let i = 0; i < data.length; i += 4) most = Math.max(most, data[i], data[i + 1], data[i + 2]);
          return most;
        }"""
    )


def test_the_difference_of_a_clip_and_itself_is_black_whatever_the_gain(show: Open) -> None:
    page = show("same")
    press(page, "3", "w")
    page.fill(".player-gain input", "6")
    assert "×64" in page.inner_text(".player-pane:not([hidden]) figcaption")
    assert brightest(page) == 0
    page.goto(page.url.replace("same", "two"))
    page.wait_for_selector(".player[data-ready]")
    press(page, "3")
    page.fill(".player-gain input", "0")
    plain = brightest(page)
    page.fill(".player-gain input", "1")
    assert 90 < plain < 160  # |180 − 40|, |150 − 40| and |60 − 40|, give or take the encoder
    assert brightest(page) == pytest.approx(min(255, 2 * plain), abs=3)


def colour_at(page: Any, x: float, y: float = 0.5) -> list[int]:
    return page.evaluate(
        """([x, y]) => {
          const canvas = [...document.querySelectorAll('.player canvas')].find((one) => one.dataset.frames);
          return [...canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
        }""",
        [x, y],
    )


def test_the_divider_moves_by_pointer_and_by_keys_and_the_sides_swap(show: Open) -> None:
    page = show("two")
    red, green = colour_at(page, 0.3), colour_at(page, 0.7)
    assert red[0] > red[1]
    assert green[1] > green[0]
    box = page.locator(".player-pane:not([hidden]) canvas").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, middle)
    page.mouse.up()
    handle = page.locator(".player-pane:not([hidden]) .player-divider")
    assert handle.get_attribute("aria-valuenow") == "20"
    assert colour_at(page, 0.3) == green
    handle.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "40"
    assert colour_at(page, 0.3) == red
    assert clock(page).startswith("Frame 1 ")  # the arrow keys moved the divider, not the clock
    page.click(".player-swap")
    assert colour_at(page, 0.3) == green
    assert page.locator(".player-first option:checked").inner_text() == "green"


def test_the_magnifier_shows_the_same_spot_in_every_picture(show: Open) -> None:
    page = show("four")
    press(page, "2", "End", "m")
    before = read(page)
    box = page.locator(".player-pane:not([hidden]) canvas").first.bounding_box()
    # Over the left squares of the first picture: they now cover what was plain colour to their right, in all four.
    page.mouse.move(box["x"] + box["width"] * 12 / 160, box["y"] + box["height"] * 48 / 96)
    spots = page.evaluate(
        """() => [...document.querySelectorAll('.player canvas')].filter((one) => one.dataset.frames).map((canvas) => {
          const [x, y] = [22 / 160 * canvas.width, 48 / 96 * canvas.height];
          return Math.max(...canvas.getContext('2d').getImageData(x, y, 1, 1).data.slice(0, 3));
        })"""
    )
    assert before == [[FRAMES - 1] * 2] * 4
    assert (FRAMES - 1) >> 2 & 1  # the magnified square is white
    assert min(spots) > 230


def test_a_crop_around_the_magnifier_of_every_clip_is_saved_as_a_picture(show: Open, tmp_path: Path) -> None:
    page = show("four")
    page.get_by_role("button", name="Last frame").click()
    page.get_by_role("button", name="Save a crop").click()
    assert "Move the magnifier" in page.inner_text(".player-status")
    page.get_by_role("button", name="Side by side").click()
    box = page.locator(".player-pane:not([hidden]) canvas").first.bounding_box()
    # The upper left corner: the crop stays within the picture.
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    with page.expect_download() as caught:
        page.keyboard.press("c")
    assert caught.value.suggested_filename == f"crop-frame-{FRAMES:03d}.png"
    assert page.inner_text(".player-status") == ""
    caught.value.save_as(tmp_path / "crop.png")
    saved = cv2.imread(str(tmp_path / "crop.png"))
    assert saved is not None
    width, height, scale = WIDTH // 4, HEIGHT // 4, 12
    assert saved.shape[:2] == (46 + height * scale + 34, 4 * (width * scale + 16) + 16)
    for place, colour in enumerate(COLOURS.values()):
        left = 16 + place * (width * scale + 16)
        # The lowest bit's square lies at 4…20, 8…24 of the picture, its colour around it.
        number = FRAMES - 1
        square = saved[46 + 14 * scale, left + 12 * scale, 0]
        assert (square > 127) == bool(number & 1)
        beside = saved[46 + 14 * scale, left + 32 * scale, ::-1]
        assert np.abs(beside.astype(int) - colour).max() < 20


def test_this_frame_of_every_clip_is_saved_as_a_picture(show: Open, tmp_path: Path) -> None:
    page = show("four")
    press(page, *(["ArrowRight"] * 9))
    with page.expect_download() as caught:
        press(page, "p")
    assert caught.value.suggested_filename == "comparison-frame-010.png"
    path = tmp_path / "saved.png"
    caught.value.save_as(path)
    picture = cv2.imread(str(path))
    assert picture is not None
    scale = 2  # 160 wide becomes at least 300
    assert picture.shape[1] == 4 * (WIDTH * scale + 16) + 16
    for place, colour in enumerate(COLOURS.values()):
        left = 16 + place * (WIDTH * scale + 16)
        shown = picture[46 + HEIGHT * scale // 2, left + WIDTH * scale // 2, ::-1]
        assert np.abs(shown.astype(int) - colour).max() < 12
        number = 0
        for bit in range(BITS):
            number += int(picture[46 + scale * (16 + 16 * bit), left + 12 * scale, 0] > 127) << bit
        assert number == 9


def test_nothing_moves_by_itself_where_less_motion_is_asked_for(show: Open) -> None:
    quiet = show("two")
    quiet.wait_for_timeout(400)
    assert clock(quiet).startswith("Frame 1 ")
    assert quiet.get_attribute(".player-play", "aria-label") == "Play"
    press(quiet, " ")
    quiet.wait_for_function("!document.querySelector('.player-clock').textContent.startsWith('Frame 1 ')")
    press(quiet, " ")
    held = clock(quiet)
    quiet.wait_for_timeout(300)
    assert clock(quiet) == held
    moving = show("two", moving=True)
    moving.wait_for_function("!document.querySelector('.player-clock').textContent.startsWith('Frame 1 ')")


def test_without_loop_it_stops_at_the_end_and_begins_again(show: Open) -> None:
    page = show("two")
    press(page, "l", "End", "ArrowLeft", "ArrowLeft", " ")
    page.wait_for_function("!document.querySelector('.player').hasAttribute('data-playing')")
    assert read(page) == [[FRAMES - 1, FRAMES - 1]]
    press(page, " ")
    page.wait_for_function("document.querySelector('.player').player.frame() < 6")


def test_every_control_has_a_name(show: Open) -> None:
    page = show("four")
    press(page, "3")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
            '.player :is(button, input, select, canvas, [role=slider], [role=group])')]
          .filter((one) => one.checkVisibility())
          .filter((one) => ![one.ariaLabel, one.innerText, one.labels?.[0]?.innerText].some((name) => name?.trim()))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    for name in (
        "Play",
        "One frame back",
        "One frame forward",
        "First frame",
        "Last frame",
        "Loop",
        "Magnifier",
        "Keys",
    ):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    assert page.get_by_role("slider", name="Frame", exact=True).count() == 1


@pytest.mark.parametrize("mode", ["1", "2", "3"])
def test_it_fits_a_telephone(show: Open, mode: str) -> None:
    page = show("four", viewport={"width": 390, "height": 844}, has_touch=True)
    press(page, mode, "?")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    outside = page.evaluate(
        """() => [...document.querySelectorAll('.player *')].filter((one) => one.checkVisibility()
            && (one.getBoundingClientRect().right > 391 || one.getBoundingClientRect().left < -1)).length"""
    )
    assert outside == 0


def test_a_title_is_text_and_never_markup(show: Open) -> None:
    page = show("markup")
    press(page, "2")
    assert page.inner_text(".player-pane:not([hidden]) b") == BAD_TITLE
    assert page.locator(".player img").count() == 0
    assert page.evaluate("window.pwned") is None


def test_a_clip_that_cannot_be_shown_is_named(show: Open) -> None:
    page = show("broken")
    assert page.inner_text(".player-status") == "broken cannot be shown: the browser cannot decode it."
    assert page.locator(".player button:enabled").count() == 0


def test_a_shorter_clip_is_said_to_be_shorter_and_its_last_frame_stays(show: Open) -> None:
    page = show("short")
    press(page, "End")
    assert "short has 20 of 24 frames" in page.inner_text(".player-status")
    assert page.evaluate("document.querySelector('.player').player.shown()") == [[FRAMES - 1, FRAMES - 5]]
    assert read(page) == [[FRAMES - 1, FRAMES - 5]]


def test_another_comparison_takes_the_place_of_the_first(show: Open) -> None:
    page = show("four", moving=True)
    assert page.locator(".player-first option").count() == 4
    page.click("#another")
    page.wait_for_function("document.querySelectorAll('.player-first option').length === 2")
    page.wait_for_selector(".player[data-ready]")
    assert page.locator(".player-strip:not([hidden])").count() == 1
    press(page, "3")
    assert brightest(page) == 0


def test_a_comparison_that_gives_way_while_its_frames_are_sought_holds_up_no_other(show: Open) -> None:
    page = show("sought", moving=True)
    page.wait_for_function("document.querySelector('.player').player.frame() > 2")
    page.click("#another")
    page.wait_for_function("document.querySelectorAll('.player-first option').length === 2")
    page.wait_for_selector(".player[data-ready=sought]")
    press(page, "End")
    page.wait_for_function(f"document.querySelector('.player').player.shown()[0][0] === {FRAMES - 1}")
    assert read(page) == [[FRAMES - 1, FRAMES - 1]]


def test_the_exported_file_plays_from_the_disk(
    show: Open, cases: dict[str, Any], clips: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "comparison.html"
    path.write_text(export_html(cases["four"], [clips[name] for name in COLOURS], title="Four"), encoding="utf-8")
    page = show("", moving=True, url=path.as_uri(), offline=True)
    assert page.get_attribute(".player", "data-ready") == "kept"
    press(page, "2")
    frames = hold_together(page.evaluate(WATCH, 60), 4)
    assert len(set(frames)) >= 4
    press(page, "w")
    assert read(page) == [[WORST, WORST]] * 4
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save this frame of every clip as a PNG").click()
    assert caught.value.suggested_filename == f"comparison-frame-{WORST + 1:03d}.png"
