"""Reading clips: whatever people have comes in through one guarded door.

A limited process decodes it (`studio.clips.reader_process`); this file starts that process, times it, checks what it
says, and buries it. Knows processes and numpy. Refuses to know who is asking, and never lets OpenCV's decoder open a
file.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.clips import reader_process
from studio.clips.clip import Clip
from studio.clips.limits import DEMUXERS, ClipLimits, identify
from studio.clips.write import MAX_SETTINGS_BYTES, SETTINGS_TAG
from studio.errors import ClipRefused


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a file holds, as measured while it was read."""

    container: str
    """In words: MP4 or QuickTime, Matroska or WebM, …"""
    codec: str
    """libavcodec's name of the decoder."""
    width: int
    height: int
    """Upright, with square pixels; handed over so, unless it was asked to be scaled down."""
    fps: float
    """Frames a second; where they come unevenly, the rate they are evened out to."""
    constant_rate: bool
    num_frames: int
    """Pictures that the file holds or claims to hold."""
    seconds: float
    """From the first picture to the end of the last."""
    file_bytes: int

    def frames_at(self, fps: float) -> int:
        """Frames that reading it at this rate gives, limits and damage apart; exact where its own rate is constant."""
        seconds, gap = self.seconds, 1 / self.fps
        # A tick before the middle of the last two pictures is the earlier one's, even where no later tick comes.
        return max(1, int((seconds - 1.5 * gap) * fps + 1e-6) + 1, round(seconds * fps))


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A clip from outside, with what was found and what was done to it."""

    clip: Clip
    info: ClipInfo
    notices: tuple[str, ...]
    """Each thing that was changed or found damaged, as a sentence about the file (“its rate varies: …”)."""
    settings: dict[str, Any] | None
    """What `read_settings` gives, from the same reading."""


def read_clip(
    path: Path,
    *,
    limits: ClipLimits = ClipLimits(),  # noqa: B008
    fps: float | None = None,
    least: tuple[int, int] | None = None,
) -> LoadedClip:
    """Reads a clip that may come from anyone, in a limited process of its own (see `studio.clips.reader_process`).

    The frames come upright, with square pixels, evenly timed, as RGB over black; whatever had to be done for that is in
    the notices.

    Args:
        path: A regular file; links, pipes and folders are refused.
        fps: Frames a second to hand over, each the nearest in time; None keeps the file's own rate, evened out.
        least: Height and width. A clip too large for the limits is scaled down picture by picture, but so that it
            still covers these; None keeps its size, and refuses it.

    Raises:
        ClipRefused: It breaks a limit, is damaged beyond `limits.lost_share`, is no video of a known kind, or the
            reading process crashed or ran out of time.
    """
    if fps is not None and not 0.01 <= fps <= 1000:
        raise ClipRefused(f"No clip can be read at {fps} frames a second.", field="fps", value=fps)
    with _Reading(Path(path), "read", limits, fps, least) as reading:
        header = reading.header()
        frames = reading.frames(header)
        ending = reading.ending()
    clip = Clip(frames=frames, fps=header.fps)
    return LoadedClip(
        clip=clip, info=header.info, notices=tuple(ending["notices"]), settings=_settings_in(ending["settings"])
    )


def read_settings(path: Path, *, limits: ClipLimits = ClipLimits()) -> dict[str, Any] | None:  # noqa: B008
    """The settings that `write_clip` put into a file, read as carefully as any upload; None where there are none.

    They come from outside all the same: check them as a form's input.
    """
    with _Reading(Path(path), "settings", limits) as reading:
        return _settings_in(reading.ending()["settings"])


def _settings_in(text: Any) -> dict[str, Any] | None:
    if not isinstance(text, str) or len(text) > MAX_SETTINGS_BYTES:
        return None
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None  # the comment of a stranger's file
    settings = record.get(SETTINGS_TAG) if isinstance(record, dict) else None
    return settings if isinstance(settings, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


READING_PROGRAM = Path(reader_process.__file__)
"""What the limited process runs."""

_LONGEST_JSON = 2_000_000
"""Bytes of the longest answer in words; no honest one comes near."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What the reading process says before the first picture."""

    info: ClipInfo
    fps: float
    most_frames: int
    shape: reader_process.FrameShape


class _Reading:
    """One conversation with one reading process, which may by then be under a stranger's command.

    So each length is checked before it is read, each wait has an end, and the whole process group is killed at the end.
    """

    def __init__(
        self,
        path: Path,
        mode: str,
        limits: ClipLimits,
        fps: float | None = None,
        least: tuple[int, int] | None = None,
    ) -> None:
        self._path = path
        self._limits = limits
        try:
            self._demuxer = identify(path, limits)
        except reader_process.Refusal as refusal:
            raise self._refused(vars(refusal)) from None
        self._request = {
            "path": os.path.abspath(path),
            "demuxer": self._demuxer,
            "mode": mode,
            "fps": fps,
            "least": least,
            "limits": asdict(limits),
            "longest_settings": MAX_SETTINGS_BYTES,
            "import_from": _folders_of("av"),
        }

    def __enter__(self) -> _Reading:
        self._deadline = time.monotonic() + self._limits.wall_seconds
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(READING_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_bare_environment(),
            cwd=os.path.abspath(os.sep),
            start_new_session=True,
        )
        self._watch = threading.Timer(self._limits.wall_seconds, self._kill)
        self._watch.daemon = True
        self._watch.start()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may have died at once; the silence that follows says so
            self._process.stdin.write(json.dumps(self._request).encode("ascii"))
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.cancel()
        self._kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def header(self) -> _Header:
        """Sizes and facts, checked against the limits once more: they decide how much memory is set aside here."""
        record = self._json(b"H")
        try:
            shape = reader_process.FrameShape(**record["shape"])
            info = _info({**record["info"], "container": DEMUXERS[self._demuxer]})
            header = _Header(info=info, fps=record["fps"], most_frames=record["most_frames"], shape=shape)
            numbers = (shape.stored_width, shape.stored_height, header.most_frames)
            whole = all(type(number) is int and number > 0 for number in numbers)
            # Two frames of grace: the reader rounds the clip's length up before it has seen its end.
            most = min(self._limits.frames, self._limits.total_pixels // (shape.width * shape.height)) + 2
            sound = whole and shape.width * shape.height <= self._limits.area and 0 < header.fps < math.inf
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise self._garbled() from None
        if not sound or not 0 < header.most_frames <= most:
            raise self._garbled()
        return header

    def frames(self, header: _Header) -> np.ndarray:
        """uint8, (F, H, W, 3). Room for the most frames is set aside; what stays unused is never touched."""
        shape = header.shape
        room = np.empty((header.most_frames, shape.height, shape.width, 3), np.uint8)
        count = 0
        while True:
            kind, repeats, length = self._message()
            if kind not in (b"F", b"A"):
                self._pending = (kind, repeats, length)
                return room[:count]
            stored = np.empty((shape.stored_height, shape.stored_width, 4 if kind == b"A" else 3), np.uint8)
            if length != stored.nbytes or not 0 < repeats <= len(room) - count:
                raise self._garbled()
            self._read_into(stored.reshape(-1).data)
            room[count : count + repeats] = self._upright(stored, shape)
            count += repeats

    def _upright(self, stored: np.ndarray, shape: reader_process.FrameShape) -> np.ndarray:
        """(H, W, 3) as it should be seen, over black where it is transparent."""
        if stored.shape[-1] == 4:
            alpha = stored[..., 3:].astype(np.uint16)
            if alpha.min() < 255:
                self._transparent = True
            stored = ((stored[..., :3] * alpha + 127) // 255).astype(np.uint8)
        if shape.transpose:
            stored = stored.transpose(1, 0, 2)
        return stored[:: -1 if shape.upend else 1, :: -1 if shape.mirror else 1]

    def ending(self) -> dict[str, Any]:
        ending = self._json(b"E")
        if not isinstance(ending.get("notices"), list):
            raise self._garbled()
        notices = [str(notice)[:300] for notice in ending["notices"][:50]]
        if self._transparent:
            notices.append("it is transparent in places: laid over black")
        return {"settings": None, **ending, "notices": notices}

    _transparent = False
    _pending: tuple[bytes, int, int] | None = None
    """A message whose head was read, and whose body was not."""

    def _message(self) -> tuple[bytes, int, int]:
        pending, self._pending = self._pending, None
        if pending is not None:
            return pending
        head = bytearray(reader_process.MESSAGE.size)
        self._read_into(memoryview(head))
        return reader_process.MESSAGE.unpack(head)

    def _json(self, expected: bytes) -> dict[str, Any]:
        kind, _, length = self._message()
        if kind not in (expected, b"R") or length > _LONGEST_JSON:
            raise self._garbled()
        body = bytearray(length)
        self._read_into(memoryview(body))
        try:
            record = json.loads(body)
        except (ValueError, RecursionError):
            raise self._garbled() from None
        if not isinstance(record, dict):
            raise self._garbled()
        if kind == b"R":
            raise self._refused(record)
        return record

    def _read_into(self, room: memoryview) -> None:
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
        limits = self._limits
        spent = f"{limits.cpu_seconds} s of computing or {limits.wall_seconds:g} s by the clock"
        return self._refusal(f"takes too long to decode (more than {spent}).", "Cut it shorter, or scale it down.")

    def _garbled(self) -> ClipRefused:
        return self._refusal("cannot be read: its decoder gave an answer that cannot be.", reader_process.CONVERT)

    def _refusal(self, message: str, way_out: str) -> ClipRefused:
        return self._refused({"message": message, "way_out": way_out})

    def _refused(self, record: dict[str, Any]) -> ClipRefused:
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


def _info(record: dict[str, Any]) -> ClipInfo:
    """Raises `ValueError` or `TypeError` if it is no such record."""
    info = ClipInfo(**record)
    words, numbers = (info.container, info.codec), (info.width, info.height, info.fps, info.num_frames, info.seconds)
    if not all(isinstance(word, str) and len(word) < 80 and word.isprintable() for word in words):
        raise ValueError("a name that is none")
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in (*numbers, info.file_bytes)):
        raise ValueError("a number that is none")
    if info.fps <= 0:
        raise ValueError("a rate that is none")
    return info


def _folders_of(*packages: str) -> list[str]:
    """Where packages are installed, found without importing them: `python -I` does not look in a user's own folder."""
    specs = [importlib.util.find_spec(package) for package in packages]
    return sorted({str(Path(spec.origin).parent.parent) for spec in specs if spec is not None and spec.origin})


def _bare_environment() -> dict[str, str]:
    """Nothing of ours, secrets least of all. Windows finds no system library without the one name."""
    return {"SYSTEMROOT": os.environ["SYSTEMROOT"]} if os.name == "nt" else {}
