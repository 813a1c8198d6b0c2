"""Reading clips: whatever people have comes in through one guarded door.

A limited process decodes it (`studio.clips.reader_process`); this file asks it, and measures what it says before
believing it. Knows that process and numpy. Refuses to know who is asking, and never lets OpenCV's decoder open a
file.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.clips import reader_process
from studio.clips.clip import Clip
from studio.clips.conversation import Conversation
from studio.clips.limits import DEMUXERS, ClipLimits
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


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What the reading process says before the first picture."""

    info: ClipInfo
    fps: float
    most_frames: int
    shape: reader_process.FrameShape


class _Reading(Conversation):
    """What `read_clip` asks, and what is answered."""

    def __init__(
        self,
        path: Path,
        mode: str,
        limits: ClipLimits,
        fps: float | None = None,
        least: tuple[int, int] | None = None,
    ) -> None:
        request = {"mode": mode, "fps": fps, "least": least, "longest_settings": MAX_SETTINGS_BYTES}
        super().__init__(READING_PROGRAM, path, limits, request)

    def header(self) -> _Header:
        """Sizes and facts, checked against the limits once more: they decide how much memory is set aside here."""
        record = self.json(b"H")
        try:
            shape = reader_process.FrameShape(**record["shape"])
            info = info_of({**record["info"], "container": DEMUXERS[self.demuxer]})
            header = _Header(info=info, fps=record["fps"], most_frames=record["most_frames"], shape=shape)
            numbers = (shape.stored_width, shape.stored_height, header.most_frames)
            whole = all(type(number) is int and number > 0 for number in numbers)
            # Two frames of grace: the reader rounds the clip's length up before it has seen its end.
            most = min(self.limits.frames, self.limits.total_pixels // (shape.width * shape.height)) + 2
            sound = whole and shape.width * shape.height <= self.limits.area and 0 < header.fps < math.inf
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise self.garbled() from None
        if not sound or not 0 < header.most_frames <= most:
            raise self.garbled()
        return header

    def frames(self, header: _Header) -> np.ndarray:
        """uint8, (F, H, W, 3). Room for the most frames is set aside; what stays unused is never touched."""
        shape = header.shape
        room = np.empty((header.most_frames, shape.height, shape.width, 3), np.uint8)
        count = 0
        while True:
            kind, repeats, length = self.message()
            if kind not in (b"F", b"A"):
                self.put_back((kind, repeats, length))
                return room[:count]
            stored = np.empty((shape.stored_height, shape.stored_width, 4 if kind == b"A" else 3), np.uint8)
            if length != stored.nbytes or not 0 < repeats <= len(room) - count:
                raise self.garbled()
            self.read_into(stored.reshape(-1).data)
            room[count : count + repeats], transparent = upright(stored, shape)
            self._transparent |= transparent
            count += repeats

    def ending(self) -> dict[str, Any]:
        ending = self.json(b"E")
        if not isinstance(ending.get("notices"), list):
            raise self.garbled()
        notices = [str(notice)[:300] for notice in ending["notices"][:50]]
        if self._transparent:
            notices.append("it is transparent in places: laid over black")
        return {"settings": None, **ending, "notices": notices}

    _transparent = False


def upright(stored: np.ndarray, shape: reader_process.FrameShape) -> tuple[np.ndarray, bool]:
    """A picture (H, W, 3) as it should be seen, over black where it is transparent, and whether it is so anywhere.

    Args:
        stored: uint8, RGB or RGBA, rows and columns as in the file.
        shape: How they are to be turned.
    """
    transparent = False
    if stored.shape[-1] == 4:
        alpha = stored[..., 3:].astype(np.uint16)
        transparent = bool(alpha.min() < 255)
        stored = ((stored[..., :3] * alpha + 127) // 255).astype(np.uint8)
    if shape.transpose:
        stored = stored.transpose(1, 0, 2)
    return stored[:: -1 if shape.upend else 1, :: -1 if shape.mirror else 1], transparent


def info_of(record: dict[str, Any]) -> ClipInfo:
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
