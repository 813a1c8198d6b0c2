"""What the page lets through: an ASGI layer in front of Gradio, and a janitor behind it.

Gradio caps single files only, takes a body of any size, checks neither `Host` nor the `Origin` of an upload, sends no
security header, fetches addresses that a client names, answers a multi-part `Range` with a failure of its own, calls
an upload not found whose first byte is three seconds late, and leaves the halves of broken uploads where they fell.
Here is what answers each of them. Knows HTTP. Refuses to know what the page shows.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 256 * 1024
"""Every request but an upload: a prompt has 2,000 characters, so a form is a few kilobytes."""
UPLOAD_OVERHEAD_BYTES = 1024 * 1024
"""What a multipart upload may have on top of its files."""
UPLOADS_AT_ONCE = 2
BODY_SECONDS = 120
"""A body that has not arrived by then is given up."""
PROGRESS_TRIES = 20
"""How often it is asked how far an upload has come before that upload is said not to be there."""

HEADERS = {
    # unsafe-eval and unsafe-inline: Gradio compiles its HTML templates and inlines its configuration.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self' https://huggingface.co"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin-allow-popups",
}

_RANGE = re.compile(r"bytes=(?:\d{1,18}-\d{0,18}|-\d{1,18})")
_READING = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware.

    Args:
        app: What is guarded.
        upload_bytes: The largest upload.
        hosts: Names under which the page may be asked for, besides localhost and plain addresses.
    """

    def __init__(self, app: ASGIApp, *, upload_bytes: int, hosts: tuple[str, ...] = ()) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._hosts = tuple(host.lower() for host in hosts)
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        send = _with_headers(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        if scope["path"].endswith("/upload_progress"):
            await self._progress(scope, receive, send)
        elif scope["method"] in _READING:
            await self._app(scope, receive, send)
        elif _is_upload(scope["path"]):
            await self._upload(scope, receive, send)
        else:
            await self._body(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and words for what is refused by its headers alone."""
        host = headers.get("host", "")
        if not self.knows_host(host):
            # A name that somebody else pointed at this machine would make their page the same origin as this one.
            return 400, "This server does not answer to that name. Add it to DAILIES_HOSTS."
        if scope["method"] not in _READING and not self._same_origin(headers, host):
            return 403, "Requests from other sites are refused."
        if "range" in headers and not _RANGE.fullmatch(headers["range"].replace(" ", "")):
            return 416, "Ask for one range at a time."
        limit = self._upload_bytes + UPLOAD_OVERHEAD_BYTES if _is_upload(scope["path"]) else BODY_BYTES
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "The length of the request is not a number."
        if int(length) > limit:
            return 413, f"The request is larger than {limit:,} bytes."
        return None

    def knows_host(self, host: str) -> bool:
        """Whether a `Host` header names this server: localhost, a plain address, or a name that was allowed."""
        name = (urlsplit(f"//{host}").hostname or "") if host else ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return self._allowed(name)
        return True

    def _allowed(self, name: str) -> bool:
        return any(name == known or (known.startswith(".") and name.endswith(known)) for known in self._hosts)

    def _same_origin(self, headers: dict[str, str], host: str) -> bool:
        """A write from a browser names its origin; programs such as the client library name none.

        Behind a proxy that asks under another name than the browser did, the allowed names are taken as well.
        """
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        parts = urlsplit(origin)
        return parts.netloc.lower() == host.lower() or self._allowed(parts.hostname or "")

    async def _progress(self, scope: Scope, receive: Receive, send: Send) -> None:
        """How far an upload has come, which the page asks for while it begins to send it.

        A busy machine may send the question long before the upload; Gradio waits three seconds for it each time.
        """
        for _ in range(PROGRESS_TRIES - 1):
            if await _found(self._app, scope, receive, send):
                return
        await self._app(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._uploads >= UPLOADS_AT_ONCE:
            await _answer(send, 429, "Other files are being uploaded. Try again in a moment.")
            return
        self._uploads += 1
        try:
            counted = _Counted(receive, self._upload_bytes + UPLOAD_OVERHEAD_BYTES)
            await _guarded(self._app, scope, counted, send)
        finally:
            self._uploads -= 1

    async def _body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Small enough to be read whole, and looked at before anything acts on it."""
        counted = _Counted(receive, BODY_BYTES)
        body = b""
        try:
            while True:
                message = await counted()
                if message["type"] != "http.request":
                    return
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        except _TooMuch as error:
            await _answer(send, 413, str(error))
            return
        if any(True for _ in _addresses_in(body)):
            await _answer(send, 400, "Files are taken from this computer only, not from addresses.")
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        await self._app(scope, replay, send)


class _TooMuch(Exception):
    """A body that does not end where it should."""


class _Counted:
    """Passes a body on, up to so many bytes and so many seconds; a body sent in chunks names no length beforehand."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0
        self._deadline = time.monotonic() + BODY_SECONDS

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise _TooMuch(f"The request is larger than {self._limit:,} bytes.")
        if message.get("more_body") and time.monotonic() > self._deadline:
            raise _TooMuch("The request took too long to arrive.")
        return message


async def _guarded(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app; a body that grows too large is answered here, unless the app has begun to answer itself."""
    begun = False

    async def watch(message: Message) -> None:
        nonlocal begun
        begun = begun or message["type"] == "http.response.start"
        await send(message)

    try:
        await app(scope, receive, watch)
    except _TooMuch as error:
        if not begun:
            await _answer(send, 413, str(error))


async def _found(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bool:
    """Run the app, and keep an answer to oneself that says that there is no such thing."""
    missing = False

    async def watch(message: Message) -> None:
        nonlocal missing
        missing = missing or (message["type"] == "http.response.start" and message["status"] == 404)
        if not missing:
            await send(message)

    await app(dict(scope), receive, watch)  # routing writes into the scope
    return not missing


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/upload")


def _addresses_in(body: bytes) -> Iterator[str]:
    """Every file that a JSON body asks to have fetched from an address."""
    if b"://" not in body and b":\\/\\/" not in body:
        return
    try:
        waiting: list[object] = [json.loads(body)]
    except (ValueError, RecursionError):
        return
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            path = part.get("path")
            if isinstance(path, str) and re.match(r"\s*[a-zA-Z][\w+.-]*://", path):
                yield path
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _with_headers(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in present]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return add


async def _answer(send: Send, status: int, words: str) -> None:
    body = json.dumps({"detail": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Janitor:
    """Removes what broken uploads leave in a folder: every file that has lain there untouched for so long.

    Gradio's own sweep only knows the uploads that were finished. A clip that the page shows is often a link to a run's,
    and was written long before it came here: its place in the folder is as old as its last change of any kind.
    """

    def __init__(self, folder: Path, *, older_than_seconds: float = 3600, every_seconds: float = 600) -> None:
        self._folder = folder
        self._older_than = older_than_seconds
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def sweep(self) -> int:
        """Remove the old files and the folders they leave empty; returns how many files went."""
        gone = 0
        oldest = time.time() - self._older_than
        for path in sorted(self._folder.rglob("*"), reverse=True):
            try:
                if path.is_dir() and not path.is_symlink():
                    if path.stat().st_mtime < oldest:
                        path.rmdir()
                elif path.lstat().st_ctime < oldest:
                    path.unlink()
                    gone += 1
            except OSError:  # in use, or not empty
                continue
        return gone

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.sweep()
