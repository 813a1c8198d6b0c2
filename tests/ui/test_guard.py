"""What the page's guard lets through and what it refuses, over a small application of our own."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.ui.server.guard import BODY_BYTES, PROGRESS_TRIES, UPLOAD_OVERHEAD_BYTES, Guard, Janitor

UPLOAD_BYTES = 2 * 1024 * 1024
HOME = "http://localhost:7860"


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of bytes that arrived."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(method: str, path: str, *, base: str = HOME, hosts: tuple[str, ...] = (), **options: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        guard = Guard(_echo, upload_bytes=UPLOAD_BYTES, hosts=hosts)
        transport = httpx.ASGITransport(app=guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **options)

    return asyncio.run(go())


def test_a_plain_request_passes_and_carries_every_security_header() -> None:
    answer = ask("GET", "/")
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self' https://huggingface.co" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "same-origin"


def test_refusals_carry_the_headers_too() -> None:
    assert ask("GET", "/", base="http://evil.example").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1:7860", "[::1]:7860", "192.168.1.9"])
def test_localhost_and_plain_addresses_are_answered(host: str) -> None:
    assert ask("GET", "/", base=f"http://{host}").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "hf.space"])
def test_a_name_that_somebody_pointed_here_is_refused(host: str) -> None:
    assert ask("GET", "/", base=f"http://{host}").status_code == 400
    assert ask("GET", "/", base=f"http://{host}", hosts=("studio.example", ".hf.space")).status_code == 400


def test_names_that_were_allowed_are_answered() -> None:
    for host in ("studio.example", "someone-dailies.hf.space"):
        assert ask("GET", "/", base=f"http://{host}", hosts=("studio.example", ".hf.space")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": HOME}, 200),
        ({"origin": "http://LOCALHOST:7860"}, 200),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:7861"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example:7860"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_writes_are_taken_from_this_page_only(headers: dict[str, str], status: int) -> None:
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert ask("POST", path, headers=headers, content=b"{}").status_code == status


def test_reading_from_elsewhere_is_left_to_the_browser() -> None:
    assert ask("GET", "/", headers={"origin": "https://evil.example"}).status_code == 200


def test_a_body_is_capped_by_its_length() -> None:
    assert ask("POST", "/gradio_api/queue/join", content=b"x" * BODY_BYTES).status_code == 200
    answer = ask("POST", "/gradio_api/queue/join", content=b"x" * (BODY_BYTES + 1))
    assert answer.status_code == 413
    assert "262,144" in answer.json()["detail"]


async def _chunks(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


def test_a_body_in_chunks_is_capped_though_it_names_no_length() -> None:
    assert ask("POST", "/gradio_api/queue/join", content=_chunks(4, 1024)).status_code == 200
    assert ask("POST", "/gradio_api/queue/join", content=_chunks(300, 1024)).status_code == 413


def test_the_progress_of_an_upload_that_comes_late_is_told_all_the_same() -> None:
    """As Gradio does it: not found, until the upload has begun to arrive."""
    asked: list[str] = []

    async def gradio(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["query_string"].decode())
        begun = len(asked) > 3
        await send({"type": "http.response.start", "status": 200 if begun else 404, "headers": []})
        await send({"type": "http.response.body", "body": b"data: done" if begun else b"Upload not found"})

    async def go(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=Guard(gradio, upload_bytes=UPLOAD_BYTES))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            return await client.get(path)

    late = asyncio.run(go("/gradio_api/upload_progress?upload_id=late"))
    assert (late.status_code, late.text) == (200, "data: done")
    assert late.headers["x-content-type-options"] == "nosniff"
    assert asked == ["upload_id=late"] * 4


def test_the_progress_of_an_upload_that_never_comes_is_asked_for_so_many_times() -> None:
    asked = 0

    async def gradio(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"Upload not found"})

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=Guard(gradio, upload_bytes=UPLOAD_BYTES))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            return await client.get("/gradio_api/upload_progress?upload_id=never")

    assert asyncio.run(go()).status_code == 404
    assert asked == PROGRESS_TRIES


def test_an_upload_may_be_as_large_as_was_said_and_no_larger() -> None:
    allowed = UPLOAD_BYTES + UPLOAD_OVERHEAD_BYTES
    assert ask("POST", "/gradio_api/upload", content=b"x" * allowed).text == str(allowed)
    assert ask("POST", "/gradio_api/upload", content=b"x" * (allowed + 1)).status_code == 413
    assert ask("POST", "/gradio_api/upload", content=_chunks(40, 100_000)).status_code == 413


def test_a_third_upload_at_once_is_told_to_wait() -> None:
    async def go() -> list[int]:
        guard = Guard(_echo, upload_bytes=UPLOAD_BYTES)
        held = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            await held.wait()
            yield b"x"

        transport = httpx.ASGITransport(app=guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            slow_ones = [asyncio.create_task(client.post("/gradio_api/upload", content=slow())) for _ in range(2)]
            await asyncio.sleep(0.1)
            third = await client.post("/gradio_api/upload", content=b"x")
            held.set()
            done = [answer.status_code for answer in await asyncio.gather(*slow_ones)]
            fourth = await client.post("/gradio_api/upload", content=b"x")
            return [*done, third.status_code, fourth.status_code]

    assert asyncio.run(go()) == [200, 200, 429, 200]


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "٣"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    headers = {b"content-length": length.encode()}
    assert ask("POST", "/gradio_api/queue/join", headers=headers).status_code == 400  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bytes=0-", 200),
        ("bytes=0-99", 200),
        ("bytes=-100", 200),
        ("bytes=0-1,5-6", 416),
        ("bytes=", 416),
        ("bytes=-", 416),
        ("bytes=a-b", 416),
        ("lines=1-2", 416),
        ("bytes=" + "9" * 400 + "-", 416),
    ],
)
def test_one_plain_range_passes_and_no_other(header: str, status: int) -> None:
    assert ask("GET", "/gradio_api/file=x.mp4", headers={"range": header}).status_code == status


@pytest.mark.parametrize(
    "file",
    [
        {"path": "http://169.254.169.254/latest/meta-data", "meta": {"_type": "gradio.FileData"}},
        {"path": "https://evil.example/clip.mp4"},
        {"path": " HTTPS://evil.example/clip.mp4"},
        {"path": "file:///etc/passwd"},
    ],
)
def test_files_are_never_fetched_from_an_address(file: dict[str, Any]) -> None:
    plain = json.dumps({"data": [["deep", {"value": file}]], "fn_index": 1})
    escaped = plain.replace("/", "\\/")
    for body in (plain, escaped):
        assert ask("POST", "/gradio_api/queue/join", content=body.encode()).status_code == 400


def test_what_was_uploaded_here_passes_with_its_own_address() -> None:
    file = {"path": "/tmp/page/abc/clip.mp4", "url": f"{HOME}/gradio_api/file=/tmp/page/abc/clip.mp4"}
    body = json.dumps({"data": [file, "see https://example.org"]}).encode()
    assert ask("POST", "/gradio_api/queue/join", content=body).text == str(len(body))


def test_a_body_that_is_not_json_is_passed_on_as_it_is() -> None:
    assert ask("POST", "/gradio_api/queue/join", content=b"{'path': 'http://x'").status_code == 200
    assert ask("POST", "/gradio_api/queue/join", content=b"[" * 100_000 + b'"http://x"').status_code == 200


def test_the_janitor_takes_what_is_old_and_leaves_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half, clip = tmp_path / "broken" / "half-upload", tmp_path / "clips" / "clip.mp4"
    for path in (half, clip):
        path.parent.mkdir()
        path.write_bytes(b"x")
    janitor, now = Janitor(tmp_path, older_than_seconds=3600), time.time
    assert janitor.sweep() == 0
    monkeypatch.setattr(time, "time", lambda: now() + 7200)
    assert janitor.sweep() == 2
    assert not list(tmp_path.glob("*/*"))


def test_an_old_clip_that_the_page_has_just_begun_to_show_is_no_old_file(tmp_path: Path) -> None:
    made, shown = tmp_path / "run.mp4", tmp_path / "served" / "clip.mp4"
    made.write_bytes(b"x")
    past = time.time() - 7200
    os.utime(made, (past, past))
    shown.parent.mkdir()
    os.link(made, shown)
    assert Janitor(shown.parent, older_than_seconds=3600).sweep() == 0
    assert shown.exists()
