"""Writing clips: H.264 that every browser plays, with the settings that made it inside, and whole or not at all.

Knows imageio's ffmpeg, and OpenCV's array maths for the poster. Refuses to know what the settings mean.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from studio.clips.clip import Clip
from studio.errors import ClipError
from studio.storage import NO_ROOM, whole

SETTINGS_TAG = "dailies"
"""Name of the file's own metadata tag, and of the one key of the JSON in it; the `comment` tag holds the same text."""

MAX_SETTINGS_BYTES = 256_000
"""Longest settings text written into a file or read from one."""


X264 = {"preset": "medium", "crf": "16", "threads": "4"}
"""How H.264 is made. Its bytes depend on the number of threads, so that may not depend on the machine."""


def write_clip(clip: Clip, path: Path, *, settings: dict[str, Any] | None = None) -> None:
    """Writes H.264 in MP4, whole or not at all; equal clips and settings give equal bytes.

    The file is made beside `path` under a hidden name that holds this process's number, flushed to the disk and moved
    into place; a failure leaves what was at `path` as it was.

    Args:
        clip: H and W even: the 4:2:0 chroma of a browser-playable file has one sample for each 2×2 pixels.
        path: Ends in .mp4; its folder is there.
        settings: All that is needed to do it again, as JSON; `read_settings` gives it back.

    Raises:
        DiskFull: There is no room; nothing is left behind.
        ClipError: Odd size, no frames, a rate that no player has, or settings that are no JSON.
        StorageError: The folder cannot be written.
    """
    _check_writable(clip, path)
    with whole(path) as part:
        tags = part.with_suffix(".tags")
        try:
            tags.write_text(_ffmetadata(settings), encoding="ascii")
            _encode(clip, tags, part)
        finally:
            with contextlib.suppress(OSError):
                tags.unlink(missing_ok=True)


def thumbnail_jpeg(frame: np.ndarray, *, longest: int = 320) -> bytes:
    """A small JPEG of one frame, uint8 (H, W, 3) RGB; never enlarged, its longer side at most `longest` pixels."""
    import cv2  # here, since the words floor must import in a blink

    height, width = frame.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    done, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ClipError(f"A frame of {width}×{height} could not be made a JPEG.", field="frame")
    return encoded.tobytes()


def _check_writable(clip: Clip, path: Path) -> None:
    if clip.num_frames == 0:
        raise ClipError("A clip without frames cannot be written.", field="frames", value=0)
    if clip.height % 2 or clip.width % 2 or not clip.height or not clip.width:
        even = f"{max(2, clip.width // 2 * 2)}×{max(2, clip.height // 2 * 2)}"
        raise ClipError(
            f"A clip of {clip.width}×{clip.height} cannot be written: browsers play even sizes only.",
            field="size",
            value=f"{clip.width}×{clip.height}",
            way_out=f"Crop or scale it to {even} first.",
        )
    if not 0.01 <= clip.fps <= 1000:
        raise ClipError(
            f"No player shows {clip.fps} frames a second.", field="fps", value=clip.fps, way_out="Use 0.01 to 1000."
        )
    if path.suffix != ".mp4":
        raise ClipError(f"{path.name} must end in .mp4.", field="path", value=str(path), way_out="Rename it.")


def _ffmetadata(settings: dict[str, Any] | None) -> str:
    """The tags in ffmpeg's metadata file format, which has no length limit as command lines have."""
    if settings is None:
        return ";FFMETADATA1\n"
    try:
        text = json.dumps({SETTINGS_TAG: settings}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ClipError(f"The settings are no JSON: {error}.", field="settings") from error
    if len(text) > MAX_SETTINGS_BYTES:
        raise ClipError(
            f"The settings take {len(text):,} bytes; a file holds at most {MAX_SETTINGS_BYTES:,}.",
            field="settings",
            value=len(text),
        )
    # json.dumps left ASCII without line breaks, so these four are all that this format would misread.
    escaped = "".join(f"\\{letter}" if letter in "\\=;#" else letter for letter in text)
    return f";FFMETADATA1\ncomment={escaped}\n{SETTINGS_TAG}={escaped}\n"


def _encode(clip: Clip, tags: Path, part: Path) -> None:
    from imageio_ffmpeg import get_ffmpeg_exe  # here: it looks for the program when imported

    rate = Fraction(clip.fps).limit_denominator(1001)
    pixels = np.ascontiguousarray(clip.frames)
    command = [
        *(get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{clip.width}x{clip.height}"),
        *("-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"),
        *("-f", "ffmetadata", "-i", f"file:{tags.absolute()}", "-map", "0:v", "-map_metadata", "1"),
        # Browsers take an untagged file's colours to be what they please: convert to BT.709 and say so.
        *("-vf", f"{_TO_BT709},format=yuv420p,{_SAY_BT709}"),
        *("-c:v", "libx264", "-preset", X264["preset"], "-crf", X264["crf"], "-threads", X264["threads"]),
        # A key frame each half second and no B-frames: the comparison player steps and seeks by single frames.
        *("-g", str(max(1, round(clip.fps / 2))), "-bf", "0"),
        *("-flags:v", "+bitexact", "-fflags", "+bitexact"),
        *("-movflags", "+faststart+use_metadata_tags", "-f", "mp4", f"file:{part.absolute()}"),
    ]
    # restore_signals=False: a file-size limit should reach ffmpeg as an error it can report, not as a fatal signal.
    ended = subprocess.run(
        command, input=pixels.data.cast("B"), capture_output=True, check=False, restore_signals=False
    )
    if ended.returncode == 0:
        return
    complaint = ended.stderr.decode("utf-8", "replace").strip()
    for number in NO_ROOM:
        if os.strerror(number) in complaint:
            raise OSError(number, os.strerror(number))
    raise ClipError(
        f"The encoder stopped with status {ended.returncode}: {complaint[-300:] or 'it gave no reason'}", field="clip"
    )


_TO_BT709 = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
_SAY_BT709 = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
