"""A real server and a real browser: `python app.py` as a process of its own, and the machine's own Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from studio.jobs import JobQueue
from studio.records.runs import RunStore

PROJECT = Path(__file__).parent.parent.parent
PATIENCE_MS = 300_000
"""For whatever the model does: a slow and busy machine takes its time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium() -> str | None:
    """The browser to drive: `$CHROMIUM`, or what the machine has."""
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return named or next((path for path in found if path), None)


@dataclass(frozen=True)
class Studio:
    """The running server."""

    address: str
    runs: Path
    process: subprocess.Popen[bytes]
    seconds_until_up: float


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """`python app.py` with a runs folder of its own and no way to the Hub."""
    runs = tmp_path_factory.mktemp("studio") / "runs"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"DAILIES_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}
    log = (runs.parent / "server.log").open("wb")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=PROJECT, env=environment, stdout=log, stderr=log
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                words = (runs.parent / "server.log").read_text(errors="replace")
                assert process.poll() is None, f"the server ended:\n{words}"
                assert time.monotonic() - began < PATIENCE_MS / 1000, f"the server does not answer:\n{words}"
                time.sleep(0.1)
        yield Studio(address, runs, process, time.monotonic() - began)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


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
