"""A version is sent to the Hub: the real client against a Hub on the loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from small_training import asked

from studio.errors import DownloadError, RequestError
from studio.finetune import finetune
from studio.finetune.publish import publish
from studio.finetune_request import TrainingClip
from studio.runs import RunStore
from studio.versions import LORA_FILE, VersionStore


class Hub:
    """Takes commits for any repository; `refusal` is answered to everything instead."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = json.dumps(hub.answer(self.path.split("?")[0], body)).encode()
            self.send_response(hub.refusal or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield hub
    server.shutdown()
    server.server_close()


def test_weights_and_card_are_sent_and_nothing_else(clips: tuple[TrainingClip, ...], store: RunStore, hub: Hub) -> None:
    version_id = list(finetune(asked(clips, objective="latent", max_train_steps=1), store=store))[-1].version_id
    versions = VersionStore(store.folder)
    send = {"versions": versions, "token": "hf_something", "endpoint": hub.endpoint}
    assert "someone/squares" in publish(version_id, "squares", **send)
    assert hub.made[0]["visibility"] == "private"
    assert set(hub.files) - {".gitattributes"} == {LORA_FILE, "README.md"}
    assert hub.files[LORA_FILE] == (versions.path(version_id) / LORA_FILE).read_bytes()
    assert hub.files["README.md"].startswith(b"---\nlibrary_name: diffusers")

    hub.refusal = 403
    with pytest.raises(DownloadError, match="may not write") as refused:
        publish(version_id, "squares", **send)
    assert "write access" in refused.value.way_out
    with pytest.raises(RequestError, match="no repository's name"):
        publish(version_id, "not a name!", **send)
    with pytest.raises(DownloadError, match="cannot be reached"):
        publish(version_id, "squares", **send | {"endpoint": "http://127.0.0.1:9"})
