"""What may come in: how much a clip from outside may be, and what a file is by its first bytes.

Knows the file system and the marks of containers. Refuses to know what is behind a file's first bytes.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from studio.clips.reader_process import Refusal

DEMUXERS = {
    "mov": "MP4 or QuickTime",
    "matroska": "Matroska or WebM",
    "avi": "AVI",
    "mpegts": "MPEG-TS",
    "mpeg": "MPEG-PS",
    "gif": "GIF",
    "ogg": "Ogg",
}
"""The containers that are read, by libavformat's name. None of them can name another file or an address, save for
QuickTime's external references, which stay switched off."""


@dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """How much a clip from outside may be, and may cost to read. Beyond any of these it is refused, never cut."""

    file_bytes: int = 200_000_000
    """Size of the file; no larger one is taken as an upload either."""
    seconds: float = 60.0
    """From the first picture to the end of the last."""
    frames: int = 300
    """Frames handed over, after the rate has been evened out."""
    cut: bool = False
    """Whether of a clip that would give more of them, or of pixels, the beginning is read; else it is refused."""
    fewest_frames: int = 2
    """Fewer pictures than this are no clip but a photograph."""
    stored_frames: int = 3600
    """Pictures in the file, which may be more than are handed over: one minute at 60 a second."""
    side: int = 4096
    """Height and width, in pixels, as handed over."""
    area: int = 4_200_000
    """Height × width, in pixels, as handed over."""
    stored_side: int = 4096
    """Height and width, in pixels, as stored: larger pictures than are handed over can only be scaled down."""
    stored_area: int = 4_200_000
    """Height × width, in pixels, as stored."""
    total_pixels: int = 320_000_000
    """Frames × height × width handed over; at 3 bytes each, just under 1 GB of this process's memory."""
    streams: int = 16
    """Video, sound, subtitles and attachments together."""
    lost_share: float = 0.2
    """Largest share of the pictures that may be unreadable; up to there the damage is reported."""
    memory_bytes: int = 900_000_000
    """What the reading process may add to its size at the start (Linux)."""
    cpu_seconds: int = 20
    """Computing time of the reading process (not on Windows)."""
    wall_seconds: float = 90.0
    """Time by the clock, for a decoder that waits rather than computes; generous, as a machine that trains or generates
    beside it may leave the reading process a tenth of a core."""


def identify(path: Path, limits: ClipLimits) -> str:
    """The demuxer for this file, from its kind, size and first bytes; nothing is parsed, so any process may call it."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError) as error:
        raise Refusal(f"cannot be found ({getattr(error, 'strerror', None) or error}).", way_out="") from error
    if not stat.S_ISREG(status.st_mode):
        kind = _FILE_KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise Refusal(f"is {kind}, not a file.", value=kind, way_out="Give the file itself.")
    if status.st_size == 0:
        raise Refusal("is empty.", value=0, way_out="It may not have been copied to its end.")
    if status.st_size > limits.file_bytes:
        raise Refusal(
            f"has {status.st_size / 1e6:.1f} MB; at most {limits.file_bytes / 1e6:g} MB are read.",
            field="file_bytes",
            value=status.st_size,
            way_out="Cut it shorter, or compress it more.",
        )
    # Should a link or a pipe have taken the file's place by now: no following, no waiting.
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"))
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise Refusal(f"cannot be opened ({error.strerror}).", way_out="Check its permissions.") from error
    return _demuxer_of(head)


_FILE_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _demuxer_of(head: bytes) -> str:
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"):
        return "mpeg"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mov"
    # A packet of MPEG-TS is 188 bytes and begins with 0x47; on Blu-ray four bytes of time stand before it.
    for start, step in ((0, 188), (4, 192)):
        if len(head) > start + 2 * step and all(head[start + n * step] == 0x47 for n in range(3)):
            return "mpegts"
    known = ", ".join(DEMUXERS.values())
    if not any(byte < 9 or 13 < byte < 27 for byte in head):
        raise Refusal("is text (a playlist, a page or a script), not a video. Lists that name other files stay shut.")
    raise Refusal(f"is not a video of a kind that is read here ({known}).")
