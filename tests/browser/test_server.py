"""What the running server gives away to whoever asks it directly; no browser is needed."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest


def ask(studio: Any, path: str, *, data: bytes | None = None, **headers: str) -> int:
    """The status of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(studio.address + path.lstrip("/"), data=data, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_of_the_disk_is_served(studio: Any) -> None:
    (studio.runs / "jobs.sqlite").stat()  # it is there to be stolen
    (studio.runs / "canary.txt").write_text("canary")
    hostile = [
        *("/etc/passwd", "/etc/../etc/passwd", "/proc/self/environ", "file:///etc/passwd"),
        *(
            "app.py",
            "./app.py",
            "../app.py",
            "studio/ui/page.py",
            "pyproject.toml",
            "presets/pocket.toml",
            ".git/config",
        ),
        *(str(studio.runs / name) for name in ("canary.txt", "jobs.sqlite", "jobs.sqlite-wal", "index.sqlite")),
        str(studio.runs / "." / ".." / "runs" / "canary.txt"),
        str(studio.runs.parent / "server.log"),
    ]
    for path in hostile:
        for written in (path, urllib.parse.quote(path, safe=""), urllib.parse.quote(urllib.parse.quote(path, safe=""))):
            for route in ("gradio_api/file=", "file="):
                assert ask(studio, route + written) >= 400, f"{route}{written} is served"


@pytest.mark.parametrize("path", ["docs", "redoc", "openapi.json", "monitoring", "monitoring/summary"])
def test_what_is_not_part_of_the_page_is_shut(studio: Any, path: str) -> None:
    assert ask(studio, path) >= 400


def test_the_running_server_stands_behind_its_guard(studio: Any) -> None:
    body = json.dumps({"data": []}).encode()
    assert ask(studio, "/") == 200
    assert ask(studio, "/", Host="evil.example") == 400
    assert ask(studio, "gradio_api/queue/join", data=body, Origin="https://evil.example") == 403
    assert ask(studio, "gradio_api/upload", data=body, Origin="null") == 403
    assert ask(studio, "gradio_api/queue/join", data=b"x" * 300_000) == 413
    assert ask(studio, "/", Range="bytes=0-1,4-5") == 416


def test_listeners_cannot_be_run_past_the_queue(studio: Any) -> None:
    body = json.dumps({"data": ["local"], "fn_index": 0}).encode()
    assert ask(studio, "gradio_api/run/predict", data=body, content_type="application/json") >= 400
