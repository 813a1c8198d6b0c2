"""A conversation with a limited process that reads a stranger's file; see `studio.clips.reader_process`.

Starts it, times it, measures what it says before believing it, and buries it. Knows processes. Refuses to know what
the answer is about.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from studio.clips import reader_process
from studio.clips.limits import ClipLimits, identify
from studio.errors import ClipRefused

_LONGEST_JSON = 2_000_000
"""Bytes of the longest answer in words; no honest one comes near."""


class Conversation:
    """One conversation with one limited process, which may by then be under a stranger's command.

    So each length is checked before it is read, each wait has an end, and the whole process group is killed at the end.

    Args:
        program: What the process runs.
        path: The file that it is to read.
        limits: `wall_seconds` is the time for all, or with `unhurried` for each message.
        unhurried: Whether whoever listens may take his time between two messages.
        request: What is asked, besides where the file is and how much it may cost.
        hands_over: Descriptors of files that the process is to have as well.

    Raises:
        ClipRefused: the file is none that would be opened.
    """

    def __init__(
        self,
        program: Path,
        path: Path,
        limits: ClipLimits,
        request: dict[str, Any],
        *,
        unhurried: bool = False,
        hands_over: tuple[int, ...] = (),
    ) -> None:
        self.limits = limits
        self._program = program
        self._path = path
        self._unhurried = unhurried
        self._hands_over = hands_over
        try:
            self.demuxer = identify(path, limits)
        except reader_process.Refusal as refusal:
            raise self.refused(vars(refusal)) from None
        self._request = {
            "path": os.path.abspath(path),
            "demuxer": self.demuxer,
            "limits": asdict(limits),
            "import_from": _folders_of("av"),
        } | request

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(self._program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_bare_environment(),
            cwd=os.path.abspath(os.sep),
            start_new_session=True,
            pass_fds=self._hands_over,
        )
        self._watch: threading.Timer | None = None
        self._set_deadline()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may have died at once; the silence that follows says so
            self._process.stdin.write(json.dumps(self._request).encode("ascii"))
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _set_deadline(self) -> None:
        self._deadline = time.monotonic() + self.limits.wall_seconds
        if self._unhurried and hasattr(select, "poll"):
            return  # each wait is timed
        if self._watch is not None:
            self._watch.cancel()
        self._watch = threading.Timer(self.limits.wall_seconds, self._kill)
        self._watch.daemon = True
        self._watch.start()

    def message(self) -> tuple[bytes, int, int]:
        """(kind, repeats, length) of the next message; its body is to be read."""
        pending, self._pending = self._pending, None
        if pending is not None:
            return pending
        if self._unhurried:
            self._set_deadline()
        head = bytearray(reader_process.MESSAGE.size)
        self.read_into(memoryview(head))
        return reader_process.MESSAGE.unpack(head)

    _pending: tuple[bytes, int, int] | None = None
    """A message whose head was read, and whose body was not."""

    def put_back(self, message: tuple[bytes, int, int]) -> None:
        """Have the head of a message once more, whose body was not read."""
        self._pending = message

    def json(self, expected: bytes) -> dict[str, Any]:
        """The next message, which is to be of that kind.

        Raises:
            ClipRefused: it is a refusal, or nothing that makes sense.
        """
        kind, _, length = self.message()
        if kind not in (expected, b"R") or length > _LONGEST_JSON:
            raise self.garbled()
        body = bytearray(length)
        self.read_into(memoryview(body))
        try:
            record = json.loads(body)
        except (ValueError, RecursionError):
            raise self.garbled() from None
        if not isinstance(record, dict):
            raise self.garbled()
        if kind == b"R":
            raise self.refused(record)
        return record

    def read_into(self, room: memoryview) -> None:
        """Fill it with what comes next."""
        stdout = self._process.stdout
        assert isinstance(stdout, io.RawIOBase)
        while len(room):
            self._wait_for(stdout)
            got = stdout.readinto(room)
            if not got:
                raise self._silence()
            room = room[got:]

    def _wait_for(self, stdout: io.RawIOBase) -> None:
        """Until there is something to read. Killing the process is not enough: a child of its own may hold the pipe."""
        if not hasattr(select, "poll"):
            return  # Windows: the watch ends the process, and with it the pipe
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        remaining = self._deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(1000 * remaining):
            raise self._too_slow()

    def _silence(self) -> ClipRefused:
        """Why the process ended without a last word."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        status = self._process.returncode
        ended = f"with status {status}"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                ended = f"on {signal.Signals(-status).name}"
        if time.monotonic() >= self._deadline or ended == "on SIGXCPU":
            return self._too_slow()
        return self._refusal(f"cannot be read: its decoder crashed ({ended}).", reader_process.CONVERT)

    def _too_slow(self) -> ClipRefused:
        limits = self.limits
        spent = f"{limits.cpu_seconds} s of computing or {limits.wall_seconds:g} s by the clock"
        return self._refusal(f"takes too long to decode (more than {spent}).", "Cut it shorter, or scale it down.")

    def garbled(self) -> ClipRefused:
        """For an answer that no honest process gives."""
        return self._refusal("cannot be read: its decoder gave an answer that cannot be.", reader_process.CONVERT)

    def _refusal(self, message: str, way_out: str) -> ClipRefused:
        return self.refused({"message": message, "way_out": way_out})

    def refused(self, record: dict[str, Any]) -> ClipRefused:
        name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in self._path.name)
        message = str(record.get("message", "is refused."))[:500]
        return ClipRefused(
            f"{name[:80]} {message}",
            field=str(record.get("field", "clip"))[:80],
            value=record.get("value"),
            way_out=str(record.get("way_out", ""))[:500],
        )

    def _kill(self) -> None:
        """The process and all that it may have started."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()


def _folders_of(*packages: str) -> list[str]:
    """Where packages are installed, found without importing them: `python -I` does not look in a user's own folder."""
    specs = [importlib.util.find_spec(package) for package in packages]
    return sorted({str(Path(spec.origin).parent.parent) for spec in specs if spec is not None and spec.origin})


def _bare_environment() -> dict[str, str]:
    """Nothing of ours, secrets least of all. Windows finds no system library without the one name."""
    return {"SYSTEMROOT": os.environ["SYSTEMROOT"]} if os.name == "nt" else {}
