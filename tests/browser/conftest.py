"""A real server and a real browser: `python app.py` as a process of its own, and the machine's own Chromium."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.served_studio import PATIENCE_MS, Studio, serving

from studio.jobs import JobQueue
from studio.records.runs import RunStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium() -> str | None:
    """The browser to drive: `$CHROMIUM`, or what the machine has."""
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return named or next((path for path in found if path), None)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One server for all files that need no other."""
    with serving(tmp_path_factory.mktemp("studio") / "runs") as studio:
        yield studio


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for each file: while it is open, its event loop runs in this thread, and no other test could run its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine: install one, or set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, studio: Studio) -> Iterator[Callable[..., Any]]:
    """Opens pages, and after the test holds every one of them to: no error, and no request to another host."""
    contexts: list[Any] = []
    faults: list[str] = []
    # The server is shared, and a page shows the newest enlargement of all: a test begins with none of another's.
    for left in (studio.runs / ".enlargements").glob("*"):
        shutil.rmtree(left)

    def heard(kind: str, words: str) -> None:
        # A reload cuts the streams of the page before it; Gradio says so.
        if not any(known in words for known in ("Connection errored out", "Failed to fetch", "signal is aborted")):
            faults.append(f"{time.strftime('%H:%M:%S')} {kind}: {words}")

    def open_one(**options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: heard("page error", str(error)))
        page.on(
            "console",
            lambda said: heard("console", f"{said.text} {said.location['url']}") if said.type == "error" else None,
        )
        page.on(
            "response",
            lambda given: (
                heard("refused", f"{given.status} {given.request.method} {given.url}") if given.status >= 400 else None
            ),
        )
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith((studio.address, "data:", "blob:")) else heard("request", asked.url)
            ),
        )
        page.goto(studio.address)
        page.wait_for_selector("#generate")
        page.wait_for_selector(".live-headline:not(:empty)")
        return page

    yield open_one
    for context in contexts:
        context.close()
    # Whatever a failed test left behind is not the next one's.
    queue = JobQueue(store=RunStore(studio.runs))
    queue.resume()
    for job in queue.jobs(states=("running", "queued")):
        queue.cancel(job.id)
    queue.close()
    assert faults == []
