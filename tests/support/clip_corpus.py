"""The corpus of odd, empty, damaged, swollen and treacherous clips that the guarded loader is held against.

Every file is made when the suite runs, by imageio's ffmpeg, by PyAV and by patching bytes; none is stored. Each case
says how its file is made and what must come of it: loaded (with which shape, pixels and notices) or refused (why).

The test picture has a colour in each corner, which shows how it is turned, and a grey square in the middle that grows
lighter by the frame, which shows which frame it is.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

CORNERS = ((200, 40, 40), (40, 170, 40), (40, 40, 200), (220, 220, 220))
"""RGB of top left, top right, bottom left, bottom right."""
CANARY = (230, 0, 230)
"""RGB of the clip that no case may show: it lies where the reference formats point."""


def level(index: int) -> int:
    """Grey of the middle square in frame `index`."""
    return 30 + 25 * (index % 8)


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8, (H, W, 3)."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2], frame[: height // 2, width // 2 :] = CORNERS[0], CORNERS[1]
    frame[height // 2 :, : width // 2], frame[height // 2 :, width // 2 :] = CORNERS[2], CORNERS[3]
    frame[height // 2 - height // 6 : height // 2 + height // 6, width // 2 - width // 8 : width // 2 + width // 8] = (
        level(index)
    )
    return frame


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must come of a case. Regular expressions are searched for in the refusal, or in the notices."""

    loads: bool | None
    """None where either is right, as long as it is said (damage that hits by chance)."""
    says: str = ""
    size: tuple[int, int] | None = None
    """(H, W) as handed over."""
    frames: int | None = None
    fps: float | None = None
    corners: tuple[int, int, int, int] | None = None
    """Which of `CORNERS` stands top left, top right, bottom left, bottom right; None: not looked at."""
    levels: tuple[int, ...] | None = None
    """Which frame of the test picture each frame must show."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    make: Callable[[Path], Path]
    """Makes the file in the folder given, which is the case's own."""
    expected: Expected


def upright(frames: int = 8, size: tuple[int, int] = (48, 64), says: str = "", fps: float | None = None) -> Expected:
    """Loads with every frame in its place."""
    levels = tuple(range(frames))
    return Expected(loads=True, size=size, frames=frames, says=says, fps=fps, corners=(0, 1, 2, 3), levels=levels)


def loads(
    says: str = "", *, size: tuple[int, int] | None = None, frames: int | None = None, fps: float | None = None
) -> Expected:
    return Expected(loads=True, says=says, size=size, frames=frames, fps=fps)


def refused(says: str) -> Expected:
    return Expected(loads=False, says=says)


EITHER = Expected(loads=None)

CASES: dict[str, Case] = {}


def case(name: str, expected: Expected) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    def enter(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        assert name not in CASES, name
        CASES[name] = Case(name=name, make=make, expected=expected)
        return make

    return enter


# ---------------------------------------------------------------------------------------------------- tools


def ffmpeg(*arguments: str | Path, pixels: bytes | None = None) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", "-threads", "1"]
    ended = subprocess.run([*command, *map(str, arguments)], input=pixels or b"", capture_output=True, check=False)
    assert ended.returncode == 0, f"ffmpeg {' '.join(map(str, arguments))}: {ended.stderr.decode(errors='replace')}"


def encode(
    path: Path, *arguments: str, count: int = 8, height: int = 48, width: int = 64, fps: str = "8", alpha: bool = False
) -> Path:
    """The test picture, `count` times, through ffmpeg; with `alpha`, the right half is transparent."""
    frames = [picture(index, height, width) for index in range(count)]
    if alpha:
        opacity = np.full((height, width, 1), 255, np.uint8)
        opacity[:, width // 2 :] = 0
        frames = [np.concatenate([frame, opacity], axis=-1) for frame in frames]
    source = ["-f", "rawvideo", "-pix_fmt", "rgba" if alpha else "rgb24", "-s", f"{width}x{height}", "-r", fps]
    ffmpeg(*source, "-i", "pipe:0", *arguments, path, pixels=b"".join(frame.tobytes() for frame in frames))
    return path


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-crf", "12", "-threads", "1")


@cache
def _seed(kind: str) -> bytes:
    """Files that many cases start from, made once."""
    import tempfile

    recipes: dict[str, tuple[str, tuple[str, ...]]] = {
        "mp4": (".mp4", (*H264, "-g", "8")),
        "faststart": (".mp4", (*H264, "-g", "8", "-movflags", "+faststart")),
        "ts": (".ts", (*H264, "-g", "4")),
        "mkv": (".mkv", (*H264, "-g", "8")),
        "avi": (".avi", ("-c:v", "mpeg4", "-q:v", "2", "-g", "4")),
        "mjpeg": (".avi", ("-c:v", "mjpeg", "-q:v", "2")),
        "gif": (".gif", ()),
        "webm": (".webm", ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-cpu-used", "8")),
        "fragmented": (".mp4", (*H264, "-g", "2", "-movflags", "frag_keyframe+empty_moov")),
        "hevc": (".mp4", ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "10", "-x265-params", "log-level=none")),
    }
    with tempfile.TemporaryDirectory() as folder:
        if kind == "long":  # 80 frames, each a key frame, all of a size
            arguments = (*H264, "-g", "1", "-movflags", "+faststart")
            return encode(Path(folder) / "long.mp4", *arguments, count=80).read_bytes()
        suffix, arguments = recipes[kind]
        return encode(Path(folder) / f"seed{suffix}", *arguments).read_bytes()


SEED_KINDS = ("mp4", "faststart", "ts", "mkv", "avi", "mjpeg", "gif", "webm", "fragmented", "hevc")


def seed(kind: str) -> bytes:
    return _seed(kind)


def from_seed(folder: Path, kind: str, name: str, *arguments: str) -> Path:
    """A seed run through ffmpeg once more, to `name`; options before the input begin with `<`."""
    before = [argument[1:] for argument in arguments if argument.startswith("<")]
    after = [argument for argument in arguments if not argument.startswith("<")]
    source = folder / f"source-{kind}"
    source.write_bytes(seed(kind))
    ffmpeg(*before, "-i", source, *after, folder / name)
    source.unlink()
    return folder / name


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def body(data: bytes, box: bytes) -> int:
    """Where the first box of that name has its first byte after the name."""
    return data.index(box) + 4


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def boxed(name: bytes, content: bytes) -> bytes:
    return u32(8 + len(content)) + name + content


# ------------------------------------------------------------------------- healthy, if odd: the encoder's choice


def _encoded(name: str, file: str, expected: Expected, *arguments: str, **shape: int | str | bool) -> None:
    @case(name, expected)
    def make(folder: Path) -> Path:
        return encode(folder / file, *arguments, **shape)  # type: ignore[arg-type]


X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "8")
VP9 = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-crf", "8", "-b:v", "0")
FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
GIF_ALPHA = "split[a][b];[a]palettegen[p];[b][p]paletteuse"
BLACK_RIGHT = "transparent in places: laid over black"

_encoded("h264-mp4", "a.mp4", upright(fps=8), *H264)
_encoded("two-frames", "a.mp4", upright(2), *H264, count=2)
_encoded("odd-size", "a.mkv", upright(size=(47, 63)), "-c:v", "ffv1", "-pix_fmt", "bgr0", height=47, width=63)
_encoded("one-pixel", "a.mkv", loads(size=(1, 1), frames=8), "-vf", "crop=1:1:0:0", "-c:v", "ffv1", "-pix_fmt", "bgr0")
_encoded("four-pixels", "a.avi", loads(size=(2, 2)), "-c:v", "mpeg4", height=2, width=2)
_encoded("strip", "a.mp4", loads(size=(16, 4096), frames=2), *H264, height=16, width=4096, count=2)
_encoded("largest-square", "a.mp4", loads(size=(2048, 2048)), *H264, height=2048, width=2048, count=2)
_encoded("444", "a.mp4", upright(), *H264, "-pix_fmt", "yuv444p", "-profile:v", "high444")
_encoded("422-10-bit", "a.mp4", upright(), *H264, "-pix_fmt", "yuv422p10le")
_encoded("410", "a.mkv", loads(size=(48, 64), frames=8), "-c:v", "ffv1", "-pix_fmt", "yuv410p")
_encoded("rgb-16-bit", "a.mkv", upright(), "-c:v", "ffv1", "-pix_fmt", "rgb48le")
_encoded("full-range", "a.mp4", upright(), "-vf", "scale=out_range=pc", *H264, "-color_range", "pc")
_encoded("bt709-said", "a.mp4", upright(), "-vf", "scale=out_color_matrix=bt709", *H264, "-colorspace", "bt709")
_encoded("gray", "a.mkv", loads(size=(48, 64), frames=8), "-c:v", "ffv1", "-pix_fmt", "gray")
_encoded("black-and-white", "a.avi", loads(size=(48, 64)), "-c:v", "rawvideo", "-pix_fmt", "gray")
_encoded("hevc-10-bit", "a.mkv", upright(), *X265, "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none")
_encoded(
    "hdr",
    "a.mp4",
    loads("HDR", size=(48, 64), frames=8),
    *(*X265, "-pix_fmt", "yuv420p10le", "-colorspace", "bt2020nc", "-color_trc", "smpte2084"),
    *("-color_primaries", "bt2020", "-x265-params", "log-level=none:colorprim=9:transfer=16:colormatrix=9"),
)
_encoded("vp8", "a.webm", upright(), "-c:v", "libvpx", "-crf", "4", "-b:v", "4M")
_encoded(
    "vp8-hidden-frames",
    "a.webm",
    loads(size=(48, 64), frames=40),
    *("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "1M"),
    count=40,
)
_encoded("vp9", "a.webm", upright(), *VP9)
_encoded("vp9-in-mp4", "a.mp4", upright(), *VP9)
_encoded("av1", "a.mp4", upright(), "-c:v", "libsvtav1", "-crf", "10", "-preset", "12", "-svtav1-params", "lp=1")
_encoded("theora", "a.ogv", upright(), "-c:v", "libtheora", "-q:v", "10")
_encoded("mpeg1", "a.mpg", loads(size=(48, 64)), "-c:v", "mpeg1video", "-q:v", "2", fps="24")
_encoded("mpeg2-program", "a.vob", loads(size=(48, 64)), "-c:v", "mpeg2video", "-q:v", "2", "-f", "vob", fps="25")
_encoded(
    "mpeg2-interlaced",
    "a.ts",
    loads("interlaced", size=(48, 64)),
    *("-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2"),
    fps="25",
)
_encoded("h264-interlaced", "a.ts", loads("interlaced"), *H264, "-x264-params", "tff=1", fps="25")
_encoded("mpeg4-b-frames", "a.avi", loads(size=(48, 64), frames=8), "-c:v", "mpeg4", "-bf", "2", "-q:v", "2")
_encoded(
    "h263",
    "a.3gp",
    loads("squared", size=(96, 140)),
    "-c:v",
    "h263",
    "-q:v",
    "2",
    height=96,
    width=128,
    fps="30000/1001",
)
_encoded("mjpeg-full-range", "a.avi", upright(), "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj444p")
_encoded("png-movie", "a.mov", upright(), "-c:v", "png")
_encoded("raw-avi", "a.avi", upright(), "-c:v", "rawvideo", "-pix_fmt", "bgr24")
_encoded("prores", "a.mov", upright(), "-c:v", "prores_ks")
_encoded(
    "dnxhr", "a.mov", loads(size=(128, 256)), "-c:v", "dnxhd", "-profile:v", "dnxhr_lb", "-pix_fmt", "yuv422p",
    height=128, width=256, count=2,
)  # fmt: skip
_encoded("gif", "a.gif", loads(size=(48, 64), frames=8))
_encoded("transport-stream", "a.ts", upright(), *H264)
_encoded("blu-ray-stream", "a.m2ts", upright(), *H264, "-f", "mpegts", "-mpegts_m2ts_mode", "1")
_encoded("fragmented", "a.mp4", upright(), *H264, "-g", "2", "-movflags", FRAGMENTS)
_encoded(
    "fragmented-indexed",
    "a.mp4",
    upright(),
    *H264,
    "-g",
    "2",
    "-movflags",
    f"{FRAGMENTS}+global_sidx",
)
_encoded("h264-in-avi", "a.avi", loads(size=(48, 64), frames=8), *H264)
_encoded("h264-in-mkv", "a.mkv", upright(), *H264)
_encoded(
    "b-frames",
    "a.mp4",
    upright(24),
    "-c:v",
    "libx264",
    "-bf",
    "8",
    "-crf",
    "8",
    "-x264-params",
    "open-gop=1:b-pyramid=none:threads=1",
    count=24,
)
_encoded("lossless", "a.mkv", upright(), "-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast")
_encoded("1000-fps", "a.mp4", loads(frames=16, fps=1000), *H264, count=16, fps="1000")
_encoded("ntsc", "a.mp4", upright(fps=30000 / 1001), *H264, fps="30000/1001")
_encoded("ntsc-in-mkv", "a.mkv", upright(fps=30000 / 1001), *H264, fps="30000/1001")
_encoded("one-a-second", "a.mp4", upright(fps=1), *H264, fps="1")
_encoded("title-of-100-kb", "a.mp4", upright(), *H264, "-metadata", f"title={'x' * 100_000}")
_encoded("html-in-title", "a.mkv", upright(), *H264, "-metadata", "title==cmd()<script>alert(1)</script>")
_encoded("squeezed-pixels", "a.mp4", upright(size=(48, 128), says="squared to 128×48"), *H264, "-aspect", "8:3")
_encoded("tall-pixels", "a.mkv", upright(size=(96, 64), says="squared to 64×96"), *H264, "-aspect", "2:3")
_encoded("alpha-vp9", "a.webm", loads(BLACK_RIGHT, size=(48, 64)), *VP9, "-pix_fmt", "yuva420p", alpha=True)
_encoded("alpha-qtrle", "a.mov", loads(BLACK_RIGHT, size=(48, 64)), "-c:v", "qtrle", "-pix_fmt", "argb", alpha=True)
_encoded(
    "alpha-prores", "a.mov", loads(BLACK_RIGHT, size=(48, 64)),
    "-c:v", "prores_ks", "-pix_fmt", "yuva444p10le", alpha=True,
)  # fmt: skip
_encoded("alpha-png", "a.mov", loads(BLACK_RIGHT, size=(48, 64)), "-c:v", "png", "-pix_fmt", "rgba", alpha=True)
_encoded("alpha-ffv1", "a.mkv", loads(BLACK_RIGHT, size=(48, 64)), "-c:v", "ffv1", "-pix_fmt", "bgra", alpha=True)
_encoded("alpha-gif", "a.gif", loads(BLACK_RIGHT, size=(48, 64)), "-vf", GIF_ALPHA, alpha=True)

# -------------------------------------------------------------------- healthy, if odd: containers and their tracks


def _remuxed(name: str, file: str, expected: Expected, *arguments: str, kind: str = "mp4") -> None:
    @case(name, expected)
    def make(folder: Path) -> Path:
        return from_seed(folder, kind, file, *arguments)


def _turned(corners: tuple[int, int, int, int], size: tuple[int, int]) -> Expected:
    return Expected(
        loads=True,
        says="turned upright",
        size=size,
        frames=8,
        corners=corners,
        levels=tuple(range(8)),
    )


# ffmpeg's -display_rotation turns counter-clockwise.
_remuxed("rotated-90", "a.mp4", _turned((1, 3, 0, 2), size=(64, 48)), "<-display_rotation", "<90", "-c", "copy")
_remuxed("rotated-180", "a.mp4", _turned((3, 2, 1, 0), size=(48, 64)), "<-display_rotation", "<180", "-c", "copy")
_remuxed("rotated-270", "a.mov", _turned((2, 0, 3, 1), size=(64, 48)), "<-display_rotation", "<270", "-c", "copy")
_remuxed("mirrored", "a.mp4", _turned((1, 0, 3, 2), size=(48, 64)), "<-display_hflip", "-c", "copy")
_remuxed("upended", "a.mp4", _turned((2, 3, 0, 1), size=(48, 64)), "<-display_vflip", "-c", "copy")
_remuxed("slanted", "a.mp4", upright(says="at a slant"), "<-display_rotation", "<30", "-c", "copy")
_remuxed("late-start", "a.mp4", upright(), "-c", "copy", "-output_ts_offset", "600")
_remuxed("late-start-stream", "a.ts", upright(), "-c", "copy", "-output_ts_offset", "600", kind="ts")
_remuxed("two-videos", "a.mkv", upright(says="2 video streams"), "-map", "0", "-map", "0", "-c", "copy")
_remuxed("timecode-track", "a.mov", upright(), "-c", "copy", "-timecode", "01:00:00:00")
_remuxed(
    "before-zero",
    "a.mp4",
    loads(size=(48, 64)),
    "-c",
    "copy",
    "-output_ts_offset",
    "-0.5",
    "-avoid_negative_ts",
    "disabled",
)
_remuxed(
    "uneven-rate",
    "a.mp4",
    loads("rate varies", size=(48, 64)),
    *("-vf", "setpts='if(lt(N,4),N*2,6+(N-3)*3)/16/TB'", "-fps_mode", "vfr", "-enc_time_base", "1:1000", *H264),
)
_remuxed(
    "edit-list",
    "a.mp4",
    loads(size=(48, 64)),
    *("<-ss", "<0.5", "-c", "copy"),
    kind="mp4",
)
_remuxed(
    "an-hour-of-sound",
    "a.mkv",
    upright(),
    *("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=3600", "-map", "0:v", "-map", "1:a", "-c:v", "copy"),
    *("-c:a", "flac", "-compression_level", "0", "-frame_size", "65535"),
)
_remuxed(
    "sixty-four-channels",
    "a.mkv",
    upright(),
    *("-f", "lavfi", "-i", f"aevalsrc={'|'.join(['0'] * 64)}:s=8000:d=1", "-map", "0:v", "-map", "1:a"),
    *("-c:v", "copy", "-c:a", "pcm_s16le"),
)


@case("sound-and-cover", upright())
def _sound_and_cover(folder: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "color=magenta:s=32x32:d=0.04", "-frames:v", "1", folder / "cover.jpg")
    sound = ("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=1", "-map", "0:v", "-map", "1:a", "-c:v", "copy")
    cover = ("-attach", str(folder / "cover.jpg"), "-metadata:s:t", "mimetype=image/jpeg")
    return from_seed(folder, "mkv", "a.mkv", *sound, "-c:a", "flac", *cover)


_remuxed(
    "avi-with-skips",
    "a.avi",
    loads("rate varies", size=(48, 64), frames=4, fps=8),
    *("-vf", "select='lt(n,2)+gt(n,5)'", "-fps_mode", "passthrough", "-enc_time_base", "1:8", "-c:v", "mpeg4"),
)


@case("attachment", upright())
def _attachment(folder: Path) -> Path:
    written(folder, "notes.txt", b"attached")
    return from_seed(
        folder,
        "mkv",
        "a.mkv",
        "-c",
        "copy",
        "-attach",
        str(folder / "notes.txt"),
        "-metadata:s:t",
        "mimetype=text/plain",
    )


@case("subtitles", upright())
def _subtitles(folder: Path) -> Path:
    words = written(folder, "words.srt", b"1\n00:00:00,000 --> 00:00:01,000\n<b>words</b>\n")
    return from_seed(folder, "mkv", "a.mkv", "-i", str(words), "-map", "0", "-map", "1", "-c", "copy")


@case("1000-chapters", upright())
def _chapters(folder: Path) -> Path:
    marks = "".join(f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={n}\nEND={n + 1}\ntitle={n}\n" for n in range(1000))
    listed = written(folder, "chapters.txt", f";FFMETADATA1\n{marks}".encode())
    return from_seed(folder, "mkv", "a.mkv", "-f", "ffmetadata", "-i", str(listed), "-map_metadata", "1", "-c", "copy")


@case("unknown-length-matroska", upright())
def _unknown_length(folder: Path) -> Path:
    """As a recorder leaves it that wrote into a pipe: no lengths, no index."""
    source = written(folder, "source.mkv", seed("mkv"))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", source, "-c", "copy"]
    made = subprocess.run([*command, "-f", "matroska", "pipe:1"], capture_output=True, check=True).stdout
    return written(folder, "a.mkv", made)


@case("colliding-timestamps", upright(says="timestamps are missing or collide"))
def _colliding(folder: Path) -> Path:
    """Every sample lasts 0 ticks, so all pictures come at once."""
    data = seed("mp4")
    at = body(data, b"stts") + 4
    assert data[at : at + 4] == u32(1)
    return written(folder, "a.mp4", patched(data, at + 8, u32(0)))


# ------------------------------------------------------------------------------------------------- names


def _named(name: str, file: str | bytes, kind: str = "mp4") -> None:
    @case(f"name-{name}", upright())
    def make(folder: Path) -> Path:
        return written(folder, os.fsdecode(file), seed(kind))


_named("unicode", "猫と犬 é 🚗.mp4")
_named("shell", "a'b\"c;$(touch x)`&|.mp4")
_named("newline", "a\nb.mp4")
_named("leading-dash", "-i.mp4")
_named("percent", "img%03d.mp4")
_named("colon", "http:x.mp4")
_named("right-to-left", "a\u202e4pm.mp4")
_named("not-utf-8", b"a\xff\xfe.mp4")
_named("reserved", "CON")
_named("250-bytes", "x" * 246 + ".mp4")
_named("no-extension", "clip")
_named("wrong-extension", "a.avi")
_named("text-extension", "a.txt", "mkv")
_named("playlist-extension", "a.m3u8")
_named("html", "<img src=x onerror=alert(1)>.mp4")


# ------------------------------------------------------------------------------- no usable video: refused


def _bytes(name: str, file: str, says: str, data: bytes) -> None:
    @case(name, refused(says))
    def make(folder: Path) -> Path:
        return written(folder, file, data)


_bytes("empty", "a.mp4", "is empty", b"")
_bytes("zeros", "a.mp4", "not a video of a kind", bytes(65536))
_bytes("noise", "a.mp4", "not a video of a kind", random.Random(1).randbytes(65536))
_bytes("text", "a.mp4", "is text", b"just some words\n" * 20)
_bytes("text-utf-16", "a.mp4", "not a video", "just some words\n".encode("utf-16"))
_bytes("page", "a.mp4", "is text", b"<!doctype html><script>fetch('/')</script>")
_bytes("svg", "a.mp4", "is text", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>")
_bytes("zip", "a.mp4", "not a video", b"PK\x03\x04" + bytes(200))
_bytes("pdf", "a.mp4", "not a video|is text", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(200))
_bytes("program", "a.mp4", "not a video", b"\x7fELF\x02\x01\x01" + bytes(200))
_bytes("jpeg", "a.mp4", "not a video", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(200))
_bytes("ftyp-and-nothing", "a.mp4", "damaged|no video", boxed(b"ftyp", b"isom\x00\x00\x02\x00isomiso2"))
_bytes("ebml-and-nothing", "a.mkv", "damaged|no video", b"\x1a\x45\xdf\xa3" + bytes(100))
_bytes("gif-and-nothing", "a.gif", "damaged|no video|pictures", b"GIF89a")
_bytes("ogg-and-nothing", "a.ogv", "damaged|no video", b"OggS" + bytes(100))


def _nothing_to_see(name: str, file: str, says: str, *arguments: str, **shape: int | str | bool) -> None:
    _encoded(name, file, refused(says), *arguments, **shape)


_nothing_to_see("one-frame", "a.mp4", "single picture", *H264, count=1)
_nothing_to_see("one-png-in-matroska", "a.mkv", "single picture", "-c:v", "png", count=1)
_nothing_to_see("one-gif-frame", "a.gif", "single picture", count=1)
_nothing_to_see("no-frames", "a.mp4", "no video|without pictures|damaged", *H264, "-frames:v", "0")
_nothing_to_see("no-frames-mkv", "a.mkv", "no video|without pictures|damaged", *H264, "-frames:v", "0")
_nothing_to_see("flash", "a.flv", "not a video of a kind", "-c:v", "flv")
_nothing_to_see("windows-media", "a.wmv", "not a video of a kind", "-c:v", "wmv2")
_nothing_to_see("wmv-in-matroska", "a.mkv", r"kind that is not read here \(wmv2\)", "-c:v", "wmv2")
_nothing_to_see("apng", "a.apng", "not a video of a kind", "-c:v", "apng")
_nothing_to_see("webp", "a.webp", "not a video of a kind", "-c:v", "libwebp_anim")
_nothing_to_see("raw-h264", "a.h264", "not a video of a kind", *H264)
_nothing_to_see("y4m", "a.y4m", "not a video of a kind|is text", "-pix_fmt", "yuv420p")
_nothing_to_see(
    "encrypted", "a.mp4", "is encrypted", *H264, "-encryption_scheme", "cenc-aes-ctr",
    "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb", "-encryption_kid", "a7e61c373e219033c21091fa607bf3b8",
)  # fmt: skip


def _sound_only(name: str, file: str, says: str, *arguments: str) -> None:
    @case(name, refused(says))
    def make(folder: Path) -> Path:
        ffmpeg("-f", "lavfi", "-i", "sine=d=1:r=8000", *arguments, folder / file)
        return folder / file


COVER = ("-f", "lavfi", "-i", "color=magenta:s=32x32:d=0.04", "-map", "0:a", "-map", "1:v", "-c:v", "mjpeg")
_sound_only("sound-mp4", "a.m4a", "no video", "-c:a", "aac")
_sound_only("sound-mkv", "a.mka", "no video", "-c:a", "flac")
_sound_only("sound-ogg", "a.ogg", "no video", "-c:a", "libopus")
_sound_only("sound-wav", "a.wav", "not a video of a kind")
_sound_only("cover-only", "a.m4a", "cover picture", *COVER, "-disposition:v:0", "attached_pic", "-frames:v", "1")


# ---------------------------------------------------------------------- damaged: refused, or loaded and said


def _surgery(name: str, file: str, expected: Expected, operate: Callable[[bytes], bytes], kind: str = "mp4") -> None:
    @case(name, expected)
    def make(folder: Path) -> Path:
        return written(folder, file, operate(seed(kind)))


def _noise_in_media(data: bytes) -> bytes:
    start, chance = body(data, b"mdat") + 700, random.Random(3)
    for _ in range(200):
        data = patched(data, chance.randrange(start, len(data) - 1), chance.randbytes(1))
    return data


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = boxed(b"moov", content)
    return boxed(b"ftyp", b"isom\x00\x00\x02\x00isom") + content


def _without_first_key_frame(data: bytes) -> bytes:
    """The tables at the start, then the stream from its second 188-byte packet of video on."""
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    return b"".join(packets[:3] + packets[12:])


def _every_third_lost(data: bytes) -> bytes:
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    return b"".join(packet for index, packet in enumerate(packets) if index < 6 or index % 3)


DAMAGED = "damaged|no video|without pictures|not what it seems|single picture"
_surgery("cut-before-index", "a.mp4", refused(DAMAGED), lambda data: data[: len(data) * 6 // 10])
_surgery("cut-at-70", "a.mp4", refused("damaged: only"), lambda data: data[: len(data) * 7 // 10], "faststart")
_surgery(
    "cut-at-95",
    "a.mp4",
    loads("cannot be read|breaks off|damaged", frames=80),
    lambda data: data[: len(data) * 95 // 100],
    "long",
)
_surgery("noise-in-media", "a.mp4", EITHER, _noise_in_media, "faststart")
_surgery("noise-in-a-tenth", "a.mp4", EITHER, _noise_in_media, "long")
_surgery(
    "index-of-2-gb", "a.mp4", EITHER, lambda data: patched(data, body(data, b"moov") - 8, u32(0x7FFFFFFF)), "faststart"
)
_surgery("268-m-times", "a.mp4", EITHER, lambda data: patched(data, body(data, b"stts") + 4, u32(0x0FFFFFFF)))
_surgery("268-m-sizes", "a.mp4", EITHER, lambda data: patched(data, body(data, b"stsz") + 8, u32(0x0FFFFFFF)))
_surgery("268-m-chunks", "a.mp4", EITHER, lambda data: patched(data, body(data, b"stco") + 4, u32(0x0FFFFFFF)))
_surgery("268-m-groups", "a.mp4", EITHER, lambda data: patched(data, body(data, b"stsc") + 4, u32(0x0FFFFFFF)))
_surgery("sizes-all-2-gb", "a.mp4", EITHER, lambda data: patched(data, body(data, b"stsz") + 4, u32(0x7FFFFFFF)))
_surgery(
    "chunks-beyond-end", "a.mp4", refused(DAMAGED), lambda data: patched(data, body(data, b"stco") + 8, u32(0x7FFFFF00))
)
_surgery("movie-timescale-0", "a.mp4", EITHER, lambda data: patched(data, body(data, b"mvhd") + 12, u32(0)))
_surgery("media-timescale-0", "a.mp4", EITHER, lambda data: patched(data, body(data, b"mdhd") + 12, u32(0)))
_surgery("longest-duration", "a.mp4", EITHER, lambda data: patched(data, body(data, b"mdhd") + 16, u32(0x7FFFFFFF)))
_surgery("negative-step", "a.mp4", EITHER, lambda data: patched(data, body(data, b"stts") + 12, u32(0xFFFFFF00)))
_surgery("header-of-65535", "a.mp4", EITHER, lambda data: patched(data, body(data, b"avc1") + 24, b"\xff\xff\xff\xff"))
_surgery("header-of-0", "a.mp4", EITHER, lambda data: patched(data, body(data, b"avc1") + 24, bytes(4)))
_surgery("no-codec-header", "a.mp4", EITHER, lambda data: data.replace(b"avcC", b"free"))
_surgery("no-media", "a.mp4", refused(DAMAGED), lambda data: data.replace(b"mdat", b"free")[: data.index(b"mdat")])
_surgery("edit-of-ages", "a.mp4", EITHER, lambda data: patched(data, body(data, b"elst") + 8, b"\x7f\xff\xff\xff" * 2))
_surgery("two-files-joined", "a.mp4", EITHER, lambda data: data + data)
_surgery("no-first-key-frame", "a.ts", EITHER, _without_first_key_frame, "ts")
_surgery("lost-packets", "a.ts", EITHER, _every_third_lost, "ts")
_surgery("matroska-cut", "a.mkv", EITHER, lambda data: data[: len(data) * 7 // 10], "mkv")
_surgery("matroska-zeroed", "a.mkv", EITHER, lambda data: data[:2000] + bytes(len(data) - 2000), "mkv")
_surgery("webm-cut", "a.webm", EITHER, lambda data: data[: len(data) // 2], "webm")
_surgery("avi-cut", "a.avi", refused("damaged: only"), lambda data: data[: data.index(b"movi") + 1200], "mjpeg")
_surgery("avi-cut-in-header", "a.avi", refused(DAMAGED), lambda data: data[:4000], "avi")
_surgery("avi-without-index", "a.avi", upright(), lambda data: data[: data.index(b"idx1")], "mjpeg")
_surgery("gif-cut", "a.gif", EITHER, lambda data: data[: len(data) // 2], "gif")
_surgery("fragment-cut", "a.mp4", EITHER, lambda data: data[: len(data) * 8 // 10], "fragmented")
_surgery("hevc-cut", "a.mp4", refused(DAMAGED), lambda data: data[: len(data) // 2], "hevc")
_bytes("nested-3000", "a.mp4", DAMAGED, _nested(3000))
_bytes("nested-in-itself", "a.mp4", DAMAGED, boxed(b"ftyp", b"isom\x00\x00\x02\x00isom") + (u32(0) + b"moov") * 2000)

# --------------------------------------------------------------------------------------------- bombs: refused

TOO_BIG = r"at most 4096 a side"
_nothing_to_see("61-seconds", "a.mp4", "longer than 60 s", *H264, count=62, fps="1")
_nothing_to_see("301-frames", "a.mp4", "301 frames.*at most 300", *H264, count=301, fps="30", height=16, width=16)
_nothing_to_see("a-day", "a.mp4", "longer than 60 s", *H264, fps="1/10800")
_nothing_to_see("frame-each-100-s", "a.mkv", "longer than 60 s", *H264, fps="1/100")
_nothing_to_see(
    "3700-frames", "a.avi", "more than 3600 pictures", "-c:v", "mjpeg", count=3700, fps="999", height=16, width=16
)
_nothing_to_see("5-megapixels", "a.mp4", TOO_BIG, *H264, height=2048, width=2560, count=2)
_nothing_to_see("strip-of-4112", "a.mp4", TOO_BIG, *H264, height=16, width=4112, count=2)
_nothing_to_see(
    "too-wide-once-squared",
    "a.mp4",
    TOO_BIG,
    *H264,
    "-vf",
    "setsar=2/1",
    height=16,
    width=4096,
    count=2,
)
_remuxed("twenty-thousand-frames", "a.mkv", refused("longer than 60 s"), "<-stream_loop", "<2500", "-c", "copy")
_remuxed(
    "twenty-thousand-avi", "a.avi", refused("longer than 60 s"), "<-stream_loop", "<2500", "-c", "copy", kind="avi"
)
_remuxed("a-hundred-videos", "a.mkv", refused("100 streams"), *("-map", "0") * 100, "-c", "copy")


@case("8192×4320", refused(TOO_BIG))
def _dimension_bomb(folder: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "color=black:s=8192x4320:r=8", "-frames:v", "2", *H264, folder / "a.mp4")
    return folder / "a.mp4"


def _lying_movie(folder: Path, codec: str, packets: list[bytes]) -> Path:
    """A header that says 64×48 over packets that say otherwise."""
    with av.open(str(folder / "a.mov"), "w") as container:
        stream = container.add_stream(
            codec, rate=8, width=64, height=48, pix_fmt="rgb24" if codec == "png" else "yuvj420p"
        )
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 8)
            packet.is_keyframe = True
            container.mux(packet)
    return folder / "a.mov"


@case("png-of-400-megapixels", refused(f"{TOO_BIG}|damaged"))
def _png_bomb(folder: Path) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return u32(len(content)) + kind + content + u32(zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(20001)) for _ in range(20000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return _lying_movie(folder, "png", [bomb, bomb])


@case("jpeg-larger-than-said", refused(f"{TOO_BIG}|damaged"))
def _jpeg_bomb(folder: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "color=black:s=6000x6000:r=8", "-frames:v", "1", "-c:v", "mjpeg", folder / "big.jpg")
    return _lying_movie(folder, "mjpeg", [(folder / "big.jpg").read_bytes()] * 3)


@case("raw-header-of-16384", refused(f"{TOO_BIG}|damaged|no video"))
def _raw_bomb(folder: Path) -> Path:
    data = encode(folder / "small.avi", "-c:v", "rawvideo", "-pix_fmt", "bgr24").read_bytes()
    at = body(data, b"strf") + 4  # BITMAPINFOHEADER: its own size, then width and height
    return written(folder, "a.avi", patched(data, at + 4, struct.pack("<ii", 16384, 8192)))


@case("gif-of-30000", refused(f"{TOO_BIG}|damaged|memory"))
def _gif_bomb(folder: Path) -> Path:
    """A screen of 900 million pixels and 500 frames of one pixel each."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 30000, 30000, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\x04\x01\x00\x00\x00" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return written(folder, "a.gif", screen + frame * 500 + b";")


@case("size-changes", refused("changes its size"))
def _size_change(folder: Path) -> Path:
    small = encode(folder / "small.ts", *H264).read_bytes()
    large = encode(folder / "large.ts", *H264, "-output_ts_offset", "1", height=96, width=128).read_bytes()
    return written(folder, "a.ts", small + large)


@case("grows-after-the-first", refused(f"changes its size|{TOO_BIG}|damaged"))
def _growing(folder: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "color=black:s=64x48:r=8", "-frames:v", "1", "-c:v", "mjpeg", folder / "s.jpg")
    ffmpeg("-f", "lavfi", "-i", "color=black:s=640x480:r=8", "-frames:v", "1", "-c:v", "mjpeg", folder / "l.jpg")
    return _lying_movie(folder, "mjpeg", [(folder / "s.jpg").read_bytes(), (folder / "l.jpg").read_bytes()] * 3)


# ------------------------------------------------------------- references to elsewhere: refused, and nothing touched

REFERENCES: dict[str, tuple[str, str]] = {
    "hls-file": ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{canary}\n#EXT-X-ENDLIST\n"),
    "hls-file-as-mp4": ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{canary}\n#EXT-X-ENDLIST\n"),
    "hls-http": ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n"),
    "hls-http-as-mp4": ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n"),
    "hls-relative": ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ncanary.mp4\n#EXT-X-ENDLIST\n"),
    "hls-byte-mark": ("a.mp4", "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n"),
    "hls-subfile": ("a.m3u8", "#EXTM3U\n#EXTINF:1,\nsubfile,,start,0,end,999999,,:{canary}\n#EXT-X-ENDLIST\n"),
    "hls-concat": ("a.m3u8", "#EXTM3U\n#EXTINF:1,\nconcat:{url}|file://{canary}\n#EXT-X-ENDLIST\n"),
    "hls-key": ("a.mp4", '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:1,\nfile://{canary}\n'),
    "concat-absolute": ("a.mp4", "ffconcat version 1.0\nfile {canary}\n"),
    "concat-relative": ("a.mp4", "ffconcat version 1.0\nfile canary.mp4\n"),
    "concat-http": ("a.ffconcat", "ffconcat version 1.0\nfile {url}\n"),
    "dash": ("a.mpd", DASH := "<?xml version='1.0'?>\n<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' "
             "mediaPresentationDuration='PT1S'><Period><AdaptationSet mimeType='video/mp4'><Representation id='1' "
             "bandwidth='1'><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"),
    "dash-as-mp4": ("a.mp4", DASH),
    "sdp": ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    "imf": ("a.xml", "<?xml version='1.0'?><CompositionPlaylist xmlns='http://www.smpte-ra.org/schemas/2067-3/2016'>"
            "<Id>{url}</Id></CompositionPlaylist>"),
    "avisynth": ("a.avs", 'AVISource("{canary}")\n'),
    "vobsub": ("a.idx", "# VobSub index file, v7\nsize: 64x48\nid: en, index: 0\ntimestamp: 00:00:00:000\n"),
    "asx": ("a.asx", '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'),
    "smil": ("a.mp4", '<smil><body><video src="{url}"/></body></smil>'),
    "redirect": ("a.mp4", "[Reference]\nRef1={url}\n"),
    "graph": ("a.mp4", "movie={canary}[out0]"),
}  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """Where the treacherous cases point."""

    canary: Path
    url: str


def _reference(name: str, file: str, text: str) -> None:
    @case(f"refers-{name}", refused("is text|not a video"))
    def make(folder: Path) -> Path:
        _canary_into(folder)
        place = _surroundings()
        return written(folder, file, text.format(canary=place.canary, url=place.url).encode())


for _name, (_file, _text) in REFERENCES.items():
    _reference(_name, _file, _text)

_pointed_at: list[Surroundings] = []


def _surroundings() -> Surroundings:
    return _pointed_at[-1]


@cache
def canary_clip() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "canary.mp4"
        pixels = bytes(CANARY) * (48 * 64 * 8)
        ffmpeg(
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "8", "-i", "pipe:0", *H264, path, pixels=pixels
        )
        return path.read_bytes()


def _canary_into(folder: Path) -> None:
    written(folder, "canary.mp4", canary_clip())


@case("refers-quicktime-data", refused(DAMAGED))
def _external_data(folder: Path) -> Path:
    """A movie whose pictures lie in another file: its data reference is an alias record with the canary's path."""
    _canary_into(folder)
    data = from_seed(folder, "mp4", "plain.mov", "-c", "copy").read_bytes()
    index = data[body(data, b"moov") - 8 :]
    target = str(_surroundings().canary).encode()
    record = bytes(150) + struct.pack(">HH", 2, len(target)) + target + struct.pack(">Hh", 0xFFFF, 0)
    alias = boxed(b"alis", bytes(4) + struct.pack(">4sH", bytes(4), len(record)) + record)
    old = boxed(b"dref", data[body(data, b"dref") : body(data, b"dref") + 8 + 12])
    assert old in index
    new = boxed(b"dref", bytes(4) + u32(1) + alias)
    grown = len(new) - len(old)
    index = index.replace(old, new)
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = body(index, parent) - 8
        index = patched(index, at, u32(int.from_bytes(index[at : at + 4], "big") + grown))
    return written(folder, "a.mov", data[: body(data, b"ftyp") - 8 + int.from_bytes(data[:4], "big")] + index)


@case("refers-under-a-video-head", refused(DAMAGED))
def _playlist_behind_a_box(folder: Path) -> Path:
    """A playlist that begins like MP4, for a reader that tries every format in turn."""
    place = _surroundings()
    playlist = f"\n#EXTM3U\n#EXTINF:1,\n{place.url}\nfile://{place.canary}\n#EXT-X-ENDLIST\n"
    return written(folder, "a.m3u8", boxed(b"free", b"") + playlist.encode())


# ------------------------------------------------------------------------------------------------ not a file


@case("folder", refused("is a folder"))
def _folder(folder: Path) -> Path:
    (folder / "a.mp4").mkdir()
    return folder / "a.mp4"


@case("missing", refused("cannot be found"))
def _missing(folder: Path) -> Path:
    return folder / "a.mp4"


@case("nul-in-name", refused("cannot be found"))
def _nul(folder: Path) -> Path:
    return folder / "a\0.mp4"


@case("name-of-5000", refused("cannot be found"))
def _long_name(folder: Path) -> Path:
    return folder / ("x" * 5000)


@case("over-200-mb", refused("at most 200 MB"))
def _hollow(folder: Path) -> Path:
    path = written(folder, "a.mp4", seed("mp4"))
    os.truncate(path, 200_000_001)
    return path


if os.name == "posix":

    @case("link", refused("symbolic link"))
    def _link(folder: Path) -> Path:
        written(folder, "real.mp4", seed("mp4"))
        (folder / "a.mp4").symlink_to(folder / "real.mp4")
        return folder / "a.mp4"

    @case("dangling-link", refused("symbolic link"))
    def _dangling(folder: Path) -> Path:
        (folder / "a.mp4").symlink_to(folder / "nowhere.mp4")
        return folder / "a.mp4"

    @case("named-pipe", refused("is a pipe"))
    def _pipe(folder: Path) -> Path:
        os.mkfifo(folder / "a.mp4")
        return folder / "a.mp4"

    @case("device", refused("is a device"))
    def _device(folder: Path) -> Path:
        return Path(os.devnull)

    @case("socket", refused("is a socket"))
    def _socket(folder: Path) -> Path:
        # Bound by a short relative name: socket paths may have a hundred bytes.
        here = os.open(".", os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.relpath(folder / "a.mp4"))
        finally:
            os.close(here)
        return folder / "a.mp4"


# ------------------------------------------------------------------------------------------------ all of them


def build(folder: Path, surroundings: Surroundings) -> dict[str, Path]:
    """Makes every case in a folder of its own under `folder`; two at a time, since most of it is waiting for ffmpeg."""
    _pointed_at.append(surroundings)

    def make(found: Case) -> Path:
        place = folder / f"{len(found.name)}-{found.name}"
        place.mkdir(parents=True)
        return found.make(place)

    for kind in (*SEED_KINDS, "long"):
        seed(kind)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(make, CASES.values()), strict=True))


def mutants(count: int, chance: random.Random) -> list[tuple[str, bytes]]:
    """(which seed, its bytes after a few blows): bits flipped, bytes set, 32-bit extremes, pieces cut out."""
    made = []
    for index in range(count):
        kind = SEED_KINDS[index % len(SEED_KINDS)]
        data = bytearray(seed(kind))
        for _ in range(chance.choice((1, 2, 4, 16))):
            at = chance.randrange(8, len(data) - 8)  # the first 8 bytes decide the container: leave it one
            blow = chance.randrange(4)
            if blow == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif blow == 1:
                data[at] = chance.randrange(256)
            elif blow == 2:
                data[at : at + 4] = chance.choice((u32(0), u32(1), u32(0x7FFFFFFF), u32(0x80000000), u32(0xFFFFFFFF)))
            else:
                del data[at : at + chance.randrange(1, 64)]
        made.append((kind, bytes(data)))
    return made
