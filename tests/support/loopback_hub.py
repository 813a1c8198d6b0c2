"""Hubs on the loopback, just enough of them for the real client: one gives a repository's revision, tree and files, and
one takes commits.

They let the tests run huggingface_hub itself instead of a stand-in, without a network.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

from huggingface_hub import snapshot_download

REPO = "someone/small-model"
COMMIT = "c0ffee" + "0" * 34
PIECE_BYTES = 1 << 16


class LoopbackHub:
    """What the Hub holds and how it behaves."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.seconds_per_piece = 0.0
        """How long it takes to send 64 kB of a safetensors file."""
        self.refusal: tuple[int, str] | None = None
        """HTTP status and `X-Error-Code` with which everything is answered."""
        self.asked: list[str] = []
        """Files that were sent, in order."""
        self.endpoint = ""

    def snapshot(self, *args: Any, **options: Any) -> Any:
        """The real client, pointed here."""
        return snapshot_download(*args, endpoint=self.endpoint, **options)


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[LoopbackHub]:
    hub = LoopbackHub(files)
    with _served(partial(_Handler, hub)) as hub.endpoint:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: LoopbackHub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urlparse(self.path).path
        if self.hub.refusal is not None:
            status, code = self.hub.refusal
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith(f"/api/models/{REPO}/revision/"):
            self._send(json.dumps({"id": REPO, "sha": COMMIT, "siblings": []}).encode(), with_body=with_body)
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            entries = [_tree_entry(name, content) for name, content in self.hub.files.items()]
            self._send(json.dumps(entries).encode(), with_body=with_body)
        elif (name := path.removeprefix(f"/{REPO}/resolve/{COMMIT}/")) in self.hub.files:
            content = self.hub.files[name]
            if with_body:
                self.hub.asked.append(name)
            slow = self.hub.seconds_per_piece if name.endswith(".safetensors") else 0.0
            self._send(content, with_body=with_body, etag=_digest(name, content), seconds_per_piece=slow)
        else:
            self.send_error(404)

    def _send(self, content: bytes, *, with_body: bool, etag: str = "", seconds_per_piece: float = 0.0) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        for start in range(0, len(content) if with_body else 0, PIECE_BYTES):
            time.sleep(seconds_per_piece if start else 0)
            try:
                self.wfile.write(content[start : start + PIECE_BYTES])
            except OSError:  # the client has gone, which is what a cancelled download looks like from here
                return


@cache
def _digest(name: str, content: bytes) -> str:
    return (hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1)(content).hexdigest()


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": _digest(name, content), "size": len(content), "pointerSize": 134}
    return entry


class TakingHub:
    """Takes commits for any repository; `refusal` is answered to everything instead."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        """What the requests were signed with."""
        self.refusal: int | None = None
        self.endpoint = ""

    def answer(self, path: str, body: bytes) -> Any:
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            name = self.made[-1]["name"]
            return {"url": f"{self.endpoint}/someone/{name}", "name": f"someone/{name}"}
        if path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return {"files": [file | {"shouldIgnore": False, "oid": None} for file in files]}
        if path.endswith("/commit/main"):
            for line in body.decode().splitlines():
                record = json.loads(line)
                if record["key"] == "file":
                    self.files[record["value"]["path"]] = base64.b64decode(record["value"]["content"])
            return {"success": True, "commitOid": "c0ffee", "commitUrl": f"{self.endpoint}/someone/x/commit/c0ffee"}
        return {}


@contextmanager
def taking() -> Iterator[TakingHub]:
    hub = TakingHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hub.tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = json.dumps(hub.answer(self.path.split("?")[0], body)).encode()
            self.send_response(hub.refusal or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _served(Handler) as hub.endpoint:
        yield hub


@contextmanager
def _served(handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
