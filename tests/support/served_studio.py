"""The studio as a process of its own: `python app.py`, for browsers to open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
PATIENCE_MS = 300_000
"""For whatever the model does: a slow and busy machine takes its time."""


@dataclass(frozen=True)
class Studio:
    """The running server."""

    address: str
    runs: Path
    process: subprocess.Popen[bytes]
    seconds_until_up: float


@contextmanager
def serving(runs: Path, **environment: str) -> Iterator[Studio]:
    """A server with that runs folder and no way to the Hub, and what else its environment is to say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = os.environ | {"DAILIES_RUNS": str(runs), "HF_HUB_OFFLINE": "1"} | environment
    log = (runs.parent / "server.log").open("wb")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=PROJECT, env=said, stdout=log, stderr=log
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
