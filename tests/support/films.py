"""Small films with all that a file may hold besides pixels, made by imageio's ffmpeg and PyAV."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from support.clip_corpus import picture

TICKS = 12800
"""A second."""
UNEVEN = (0, 512, 1100, 1500, 2600, 2900, 4100, 4612, 5200, 9000)
"""Timestamps of ten pictures, the last of which is shown for as long as one at 25 a second."""
CHAPTERS = """;FFMETADATA1
title=A drive
[CHAPTER]
TIMEBASE=1/1000
START=0
END=300
title=Out
[CHAPTER]
TIMEBASE=1/1000
START=300
END=700
title=Back
"""
SUBTITLES = """1
00:00:00,100 --> 00:00:00,400
Look left.
"""


def write_pictures(
    path: Path,
    pts: Sequence[int] = UNEVEN,
    *,
    pictures: Sequence[np.ndarray] | None = None,
    sample_aspect_ratio: Fraction = Fraction(1),
    colours: tuple[int, int, int, int] = (6, 1, 1, 6),
) -> Path:
    """H.264 with these timestamps, in ticks; colours are libavutil's matrix, range, transfer and primaries."""
    pictures = [picture(index) for index in range(len(pts))] if pictures is None else pictures
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = height, width, "yuv420p"
        context.time_base, stream.time_base = Fraction(1, TICKS), Fraction(1, TICKS)
        context.sample_aspect_ratio = sample_aspect_ratio
        context.colorspace, context.color_range, context.color_trc, context.color_primaries = colours
        context.options = {"crf": "10", "preset": "ultrafast"}
        context.max_b_frames = 0
        for pixels, stamp in zip(pictures, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=5 if colours[0] == 6 else colours[0]
            )
            frame.pts, frame.time_base = stamp, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_everything(
    folder: Path, *, name: str = "film", suffix: str = ".mp4", turned: int = 0, pictures: Path | None = None
) -> Path:
    """A film with uneven timestamps, odd pixels, two languages, subtitles, chapters and a title.

    Args:
        folder: Where to.
        name: What it is called.
        suffix: .mp4, or .mkv, which gets streams that no MP4 holds.
        turned: Degrees by which players are to turn it.
        pictures: A file with other pictures.
    """
    pictures = pictures or write_pictures(folder / "pictures.mp4", sample_aspect_ratio=Fraction(4, 3))
    (folder / "chapters.txt").write_text(CHAPTERS)
    (folder / "lines.srt").write_text(SUBTITLES)
    path = folder / f"{name}{suffix}"
    sound = ["aac", "mov_text"] if suffix == ".mp4" else ["pcm_s16le", "srt"]
    tone = [part for pitch in (440, 880) for part in ("-f", "lavfi", "-i", f"sine=frequency={pitch}:duration=0.7")]
    subprocess.run(
        [
            *(get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"),
            *(("-display_rotation", str(turned)) if turned else ()),
            *("-i", pictures, *tone, "-i", folder / "lines.srt", "-f", "ffmetadata", "-i", folder / "chapters.txt"),
            *("-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s", "-map_metadata", "4", "-map_chapters", "4"),
            *("-c:v", "copy", "-c:a", sound[0], "-c:s", sound[1]),
            *("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", path),
        ],
        check=True,
    )
    return path


def packets_of(path: Path, kind: str) -> list[tuple[str, list[bytes]]]:
    """Each stream of that kind: its codec and its packets."""
    found = []
    with av.open(str(path)) as container:
        for stream in container.streams:
            if stream.type == kind:
                found.append((stream.codec_context.name, [bytes(p) for p in container.demux(stream) if p.size]))
                container.seek(0)
    return found


def seconds_of(path: Path) -> list[Fraction]:
    """When each picture is shown."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(packet.pts * packet.time_base for packet in container.demux(stream) if packet.size)
