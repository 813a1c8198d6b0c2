"""The limited process that reads a clip from outside; started by `studio.clips.read`, one process for one file.

A video decoder is a million lines of C that a stranger's file steers. So the decoder runs here, in a process that holds
nothing worth stealing, may open one file and write none, has little memory and little time, and whose death harms
nobody. `studio.clips.read` starts this file as a program (`python -I`, empty environment, own session) and believes
nothing it says without measuring it.

    request   one JSON object on standard input, of `studio.clips.read`'s making
    answer    messages on standard output, each `MESSAGE` (kind, repeats, length) and then `length` bytes:
              H  JSON: info, fps, most_frames, shape (see `FrameShape`)     once, before the pictures
              F  stored height × stored width × 3 bytes of RGB, to be shown `repeats` times
              A  the same with 4 bytes of RGBA
              E  JSON: notices, settings (the file's own, as text)     the end, all is well
              R  JSON: message, field, value, way_out                  the end, refused

Two passes over the file: its packets, undecoded, say how many pictures there are and when (`survey`); then they are
decoded, held against the survey, squared, and laid on an even grid of times (`deliver`). Turning them and laying them
over black is left to the starter, which has NumPy; importing it here would double the time to start.

Knows the standard library and PyAV. Refuses to know the rest of the studio: it must run without it.
On Windows there are no resource limits and on macOS none on memory; there the starter's stopwatch alone stands guard.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import os
import pkgutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.stream

    from studio.clips.limits import ClipLimits  # never when it runs: the limits come as plain numbers by these names

    Deliver = Callable[[BinaryIO, dict[str, Any], ClipLimits], None]

MESSAGE = struct.Struct("<cIQ")
"""Kind, repeats, length of what follows."""

CODECS = {
    *("h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "libdav1d", "av1", "mpeg1video", "mpeg2video", "mpeg4"),
    *("h263", "mjpeg", "prores", "dnxhd", "ffv1", "gif", "libtheora", "theora", "qtrle", "png", "rawvideo"),
}
"""The decoders that are run, by libavcodec's name."""

CONVERT = "Convert it to MP4 (H.264)."
SHORTER = "Cut it shorter."


class Refusal(Exception):
    """Why this clip is not read; `message` goes on where the file's name ends."""

    def __init__(self, message: str, *, field: str = "clip", value: Any = None, way_out: str = CONVERT) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.way_out = way_out


# ------------------------------------------------------------------------------------------- the process's own bars


def limit_process(limits: ClipLimits, *, more_files: int = 0, output_bytes: int = 0) -> None:
    """Lowers what this process may use, for good; called when all imports are done and before the file is opened.

    Args:
        more_files: How many besides the clip may be open at a time.
        output_bytes: How large a file that was handed to it may grow.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    bars = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_FSIZE: output_bytes,
        resource.RLIMIT_CORE: 0,
        # One descriptor more than there are now: while the clip is open, no second file or socket can be.
        resource.RLIMIT_NOFILE: free + 1 + more_files,
    }
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        bars[resource.RLIMIT_AS] = pages * resource.getpagesize() + limits.memory_bytes
    for bar, height in bars.items():
        hard = resource.getrlimit(bar)[1]
        lowest = height if hard == resource.RLIM_INFINITY else min(height, hard)
        # At the soft limit of computing time comes SIGXCPU, which says what happened; at the hard one plain SIGKILL.
        highest = lowest + 1 if bar == resource.RLIMIT_CPU and lowest != hard else lowest
        with contextlib.suppress(OSError, ValueError):  # some systems know a limit by name only
            resource.setrlimit(bar, (lowest, highest))


# ------------------------------------------------------------------------------------------------------ the survey


@dataclass(kw_only=True)
class Survey:
    """What the packets say before any is decoded."""

    stream_index: int
    stored_frames: int
    """Pictures that the file holds or claims to hold."""
    rate: Fraction
    """Frames a second to hand over when nobody asks for another."""
    constant_rate: bool
    trusted_times: bool
    """False where timestamps are missing or collide; then the pictures are counted out at `rate`."""
    seconds: float
    last_seconds: Fraction | None = None
    """How long the last picture is to be shown, where the file says so."""
    notices: list[str] = field(default_factory=list)


def open_container(path: Path, demuxer: str, limits: ClipLimits) -> av.container.InputContainer:
    """Opens by path: given an open file object, libavformat would drop its rule about protocols."""
    import av

    options = {
        "format_whitelist": demuxer,
        "protocol_whitelist": "file",
        "codec_whitelist": ",".join(sorted(CODECS)),
        # A tenth above the limit, as coded sizes are rounded up to whole blocks; the decoded frame is measured again.
        "max_pixels": str(limits.stored_area * 11 // 10),
        "threads": "1",
    }
    return av.open(str(path), format=demuxer, options=options, metadata_errors="replace")


def moving_streams(container: av.container.InputContainer) -> list[av.video.stream.VideoStream]:
    """The video streams that are no cover picture."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def find_video(container: av.container.InputContainer, limits: ClipLimits) -> av.video.stream.VideoStream:
    """The first video stream that is no cover picture, checked as far as its header can be believed."""
    if len(container.streams) > limits.streams:
        raise Refusal(
            f"has {len(container.streams)} streams; at most {limits.streams} are read.",
            field="streams",
            value=len(container.streams),
            way_out="Keep only its video.",
        )
    videos = moving_streams(container)
    if not videos:
        covers = " (its cover picture is none)" if container.streams.video else ""
        raise Refusal(f"has no video{covers}.", way_out="Choose a file with moving pictures.")
    stream = videos[0]
    context = stream.codec_context
    if context is None or context.codec.name not in CODECS:
        name = "unknown" if context is None else context.codec.name
        raise Refusal(f"has video of a kind that is not read here ({name}).", field="codec", value=name)
    _check_size(context.width, context.height, limits.stored_side, limits.stored_area)
    return stream


def _check_size(width: int, height: int, side: int, area: int) -> None:
    if max(width, height) > side or width * height > area:
        raise Refusal(
            f"shows {width}×{height} pixels; at most {side} a side and {area / 1e6:g} million in all are read.",
            field="size",
            value=f"{width}×{height}",
            way_out="Scale it down.",
        )


def packets_of(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, damage: list[str]
) -> Iterator[av.Packet]:
    """The stream's packets, and an empty one at the end; where the container breaks off, says so in `damage`."""
    import av
    from av.error import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            damage.append(f"the file breaks off ({error.strerror})")
            yield av.Packet()  # as at a proper end: the decoder may still hold some pictures
            return
        yield packet


def survey(container: av.container.InputContainer, limits: ClipLimits) -> Survey:
    """Counts and times the packets without decoding them, and stops at the first budget that they break."""
    stream = find_video(container, limits)
    notices: list[str] = []
    times: list[Fraction] = []
    pictures, discarded, first = 0, 0, None
    latest, last_seconds = Fraction(-1), None
    for packet in packets_of(container, stream, []):
        if packet.size == 0 or _is_hidden(packet, stream):
            continue
        if packet.has_sidedata("encryption_info"):
            raise Refusal("is encrypted.", way_out="Choose a file without copy protection.")
        discarded += packet.is_discard
        pictures += not packet.is_discard
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and not packet.is_discard and packet.time_base:
            times.append(stamp * packet.time_base)
            first = times[-1] if first is None else min(first, times[-1])
            if times[-1] >= max(latest, first):
                latest, last_seconds = times[-1], packet.duration * packet.time_base if packet.duration else None
            _check_span(times[-1] - first, limits)
        _check_count(pictures, limits)
    stored = pictures + _frames_not_delivered(container, stream, pictures + discarded, times)
    if pictures == 0:
        raise Refusal("has a video stream without pictures.", way_out="It may not have been copied to its end.")
    _check_enough(stored, limits)
    rate, constant, trusted = _rate(times, pictures, stream)
    seconds = float(max(times) - min(times) + 1 / rate) if trusted else float(pictures / rate)
    _note_header(container, stream, seconds, notices)
    if not trusted:
        notices.append(f"its timestamps are missing or collide: shown at {float(rate):.4g} frames a second")
    return Survey(
        stream_index=stream.index,
        stored_frames=stored,
        rate=rate,
        constant_rate=constant,
        trusted_times=trusted,
        seconds=seconds,
        last_seconds=last_seconds,
        notices=notices,
    )


def _is_hidden(packet: av.Packet, stream: av.video.stream.VideoStream) -> bool:
    """VP8 stores reference pictures that are never shown as packets of their own; bit 4 of the header says which."""
    return stream.codec_context.name in ("vp8", "libvpx") and not memoryview(packet)[0] & 0x10  # type: ignore[arg-type]


def _check_count(pictures: int, limits: ClipLimits) -> None:
    if pictures > limits.stored_frames:
        raise Refusal(
            f"holds more than {limits.stored_frames} pictures.", field="frames", value=pictures, way_out=SHORTER
        )


def _check_enough(pictures: int, limits: ClipLimits) -> None:
    if pictures < limits.fewest_frames:
        held = "a single picture" if pictures == 1 else f"{pictures} pictures"
        reason = f"holds {held}; a clip has at least {limits.fewest_frames}."
        raise Refusal(reason, field="frames", value=pictures, way_out="Choose a video.")


def _check_span(seconds: Fraction, limits: ClipLimits) -> None:
    if seconds > limits.seconds:
        rounded = round(float(seconds), 3)
        raise Refusal(f"runs longer than {limits.seconds:g} s.", field="seconds", value=rounded, way_out=SHORTER)


def _frames_not_delivered(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, packets: int, times: list[Fraction]
) -> int:
    """Pictures that the file's own index or header names beyond those found; known for two containers only."""
    if container.format.name.startswith("mov"):
        return max(0, len(stream.index_entries) - packets)
    if container.format.name == "avi" and times and stream.time_base:
        # The header counts ticks, not pictures: a tick without a new picture is no loss, but those after the last are.
        return max(0, stream.frames - int(max(times) / stream.time_base) - 1)
    return 0


def _rate(times: list[Fraction], pictures: int, stream: av.video.stream.VideoStream) -> tuple[Fraction, bool, bool]:
    """(frames a second, whether they come evenly, whether the timestamps can be believed)."""
    declared = Fraction(stream.average_rate or stream.guessed_rate or 25)
    if not Fraction(1, 1000) <= declared <= 1000:
        declared = Fraction(25)
    ordered = sorted(set(times))
    if len(ordered) < 0.9 * pictures or len(ordered) < 2:
        return declared, True, False
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(ordered))
    middle = steps[len(steps) // 2]
    # Containers round times to their own tick (a millisecond in Matroska), which is no unevenness.
    slack = max(Fraction(3, 2) * (stream.time_base or 0), middle / 50)
    if all(abs(step - middle) <= slack for step in steps):
        measured = (len(ordered) - 1) / (ordered[-1] - ordered[0])
        if not Fraction(1, 1000) <= measured <= 1000:
            return declared, True, False
        return (declared if abs(declared - measured) <= measured / 50 else _plain(measured)), True, True
    return min(_plain(1 / middle), Fraction(60)), False, True


def _plain(rate: Fraction) -> Fraction:
    """The whole number, if the rate is within a hundredth of it; else the nearest fraction that files can store."""
    whole = Fraction(max(1, round(rate)))
    return whole if abs(rate - whole) <= rate / 100 else rate.limit_denominator(1001)


def _note_header(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, seconds: float, notices: list[str]
) -> None:
    videos = len(moving_streams(container))
    if videos > 1:
        notices.append(f"of its {videos} video streams the first was read")
    if stream.duration is None or stream.time_base is None:
        return
    claimed = float(stream.duration * stream.time_base)
    if claimed > 2 * seconds + 1:
        notices.append(f"its header claims {claimed:.4g} s, its pictures span {seconds:.4g} s")


# -------------------------------------------------------------------------------------------------- decoding


@dataclass(kw_only=True)
class Tally:
    """What happened while decoding."""

    pictures: int = 0
    errors: int = 0
    corrupt: int = 0
    repaired: int = 0
    """Complaints of the decoder over pictures that it handed out all the same."""
    interlaced: bool = False
    breaks: list[str] = field(default_factory=list)
    notices: dict[str, None] = field(default_factory=dict)
    """In order and each once: a dict for want of an ordered set."""

    def note(self, notice: str) -> None:
        self.notices[notice] = None


def decode(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    overview: Survey,
    limits: ClipLimits,
    tally: Tally,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds, picture) in the order of showing; the size may not change, nor the budgets be broken, on the way."""
    from av.error import FFmpegError

    decoder = _decoder(stream, limits, tally)
    last = -1.0 / float(overview.rate)
    size = None
    complaints = _complaints()
    for packet in packets_of(container, stream, tally.breaks):
        if packet.size == 0 and packet.dts is not None:  # AVI's way of saying: the last picture once more
            continue
        try:
            frames = decoder.decode(packet if packet.size else None)
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            tally.errors += 1
            continue
        tally.repaired = _complaints() - complaints
        for frame in frames:
            _check_size(frame.width, frame.height, limits.stored_side, limits.stored_area)
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise Refusal(
                    f"changes its size on the way, from {size[0]}×{size[1]} to {frame.width}×{frame.height}.",
                    field="size",
                    way_out="Convert it to one size.",
                )
            tally.pictures += 1
            tally.corrupt += frame.is_corrupt
            tally.interlaced |= frame.interlaced_frame
            _check_count(tally.pictures, limits)
            # Not frame.time: the pictures that the decoder still holds at the end come without a time base.
            timed = overview.trusted_times and frame.pts is not None and stream.time_base is not None
            stamp = float(frame.pts * stream.time_base) if timed else None  # type: ignore[operator]
            if stamp is not None and stamp <= last and tally.pictures > 1:
                tally.note("its timestamps go backwards: the pictures are kept in order")
                stamp = None
            last = stamp if stamp is not None else last + 1 / float(overview.rate)
            yield last, frame


def _complaints() -> int:
    """Errors that the libraries have logged so far."""
    from av import logging

    last = logging.get_last_error()
    return last[0] if last else 0


def _decoder(stream: av.video.stream.VideoStream, limits: ClipLimits, tally: Tally) -> av.VideoCodecContext:
    import av
    from av.error import FFmpegError

    context = stream.codec_context
    if context.name == "vp9" and stream.metadata.get("alpha_mode") == "1":
        # The built-in decoder drops the second, transparent layer without a word; libvpx reads it.
        try:
            context = av.CodecContext.create("libvpx-vp9", "r")
        except (ValueError, FFmpegError):
            tally.note("its transparency could not be read")
    context.thread_count = 1
    context.options = {"max_pixels": str(limits.stored_area * 11 // 10), "threads": "1"}
    return context  # type: ignore[return-value]


def check_damage(overview: Survey, tally: Tally, limits: ClipLimits) -> None:
    """Refuses a clip that lost too many of its pictures; notes any lesser damage."""
    expected = overview.stored_frames
    if tally.interlaced and 2 * tally.pictures >= (1 - limits.lost_share) * expected and not tally.errors:
        expected = tally.pictures  # each packet may be one of a picture's two fields
    lost = max(0, expected - tally.pictures)
    if lost > limits.lost_share * expected:
        raise Refusal(
            f"is damaged: only {tally.pictures} of its {expected} pictures can be read.",
            field="frames",
            value=tally.pictures,
            way_out="Copy or export it again.",
        )
    _check_enough(tally.pictures, limits)
    if lost:
        tally.note(f"{lost} of {expected} pictures cannot be read: each is filled by the one before, save at the ends")
    elif tally.errors:
        tally.note(f"damaged packets: {tally.errors}")
    elif tally.repaired:
        tally.note(f"faults that the decoder painted over: {tally.repaired}")
    if tally.corrupt:
        tally.note(f"pictures damaged in part: {tally.corrupt}")
    for broken in tally.breaks:
        tally.note(broken)


# ------------------------------------------------------------------------------------------------ pixels


@dataclass(frozen=True, kw_only=True)
class FrameShape:
    """How stored pictures become upright RGB of square pixels; (H, W) are of the upright one."""

    stored_width: int
    stored_height: int
    """After squaring and scaling down, before turning."""
    transpose: bool
    mirror: bool
    """Columns reversed, after transposing."""
    upend: bool
    """Rows reversed, after transposing."""

    @property
    def width(self) -> int:
        return self.stored_height if self.transpose else self.stored_width

    @property
    def height(self) -> int:
        return self.stored_width if self.transpose else self.stored_height


def shape_of(frame: av.VideoFrame, stream: av.video.stream.VideoStream, limits: ClipLimits, tally: Tally) -> FrameShape:
    """Decided from the first picture, and said."""
    width, height = frame.width, frame.height
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if aspect > 0 and abs(aspect - 1) > Fraction(1, 500):
        # Enlarged along the short side, so that no stored pixel is lost.
        width, height = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
        tally.note(f"its pixels are {aspect} wide for their height: squared to {width}×{height}")
        _check_size(width, height, limits.stored_side, limits.stored_area)
    across, down, transpose = display_axes(frame, tally)
    shape = FrameShape(stored_width=width, stored_height=height, transpose=transpose, mirror=across < 0, upend=down < 0)
    if transpose or shape.mirror or shape.upend:
        tally.note(f"it says how to hold it: turned upright, to {shape.width}×{shape.height}")
    return shape


def scaled_down(
    shape: FrameShape, frames: int, least: list[int] | None, limits: ClipLimits, tally: Tally
) -> FrameShape:
    """The shape in which so many frames are within the limits, where the clip may be read smaller than it is.

    Args:
        shape: As it is.
        frames: How many are to be handed over.
        least: Height and width that a smaller picture still covers; None keeps the size.
    """
    width, height = shape.width, shape.height
    area = min(limits.area, limits.total_pixels // max(1, min(frames, limits.frames)))
    if least is not None and (width * height > area or max(width, height) > limits.side):
        wanted = min(math.sqrt(area / (width * height)), limits.side / max(width, height))
        lowest = min(1.0, max(least[0] / height, least[1] / width))
        scale, rounded = (wanted, math.floor) if wanted > lowest else (lowest, math.ceil)
        sides = [max(1, rounded(side * scale)) for side in (shape.stored_width, shape.stored_height)]
        shape = replace(shape, stored_width=sides[0], stored_height=sides[1])
        tally.note(f"it is large: scaled down from {width}×{height} to {shape.width}×{shape.height} as it was read")
    _check_size(shape.width, shape.height, limits.side, limits.area)
    return shape


def display_axes(frame: av.VideoFrame, tally: Tally) -> tuple[int, int, bool]:
    """(sign of shown columns, sign of shown rows, whether rows and columns change places), from the display matrix.

    The matrix holds 16.16 numbers a, b, u, c, d, v, x, y, w; a stored (x, y) is shown at (ax + cy, bx + dy).
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return 1, 1, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data)[:36])  # type: ignore[arg-type]
    straight, turned = min(abs(a), abs(d)), min(abs(b), abs(c))
    if straight > 50 * max(abs(b), abs(c)):
        return a, d, False
    if turned > 50 * max(abs(a), abs(d)):
        return c, b, True
    tally.note("it asks to be shown at a slant: left as stored")
    return 1, 1, False


def convert(frame: av.VideoFrame, shape: FrameShape, tally: Tally) -> tuple[bytes, bytes]:
    """(kind of message, pixels without padding): RGB, or RGBA where the format can be transparent."""
    from av.video.reformatter import Colorspace, Interpolation

    transparent = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
    unsaid = frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb
    pixels = frame.reformat(
        width=shape.stored_width,
        height=shape.stored_height,
        format="rgba" if transparent else "rgb24",
        src_colorspace=Colorspace(_GUESSES[matrix_of(frame)]) if unsaid else None,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
        threads=1,
    )
    if frame.color_trc in _HDR:
        tally.note("it is HDR: its brightness was taken as it is, without tone mapping")
    if frame.interlaced_frame:
        tally.note("it is interlaced: its fields stay woven")
    plane = pixels.planes[0]
    padded, used = memoryview(plane), shape.stored_width * (4 if transparent else 3)  # type: ignore[arg-type]
    starts = range(0, shape.stored_height * plane.line_size, plane.line_size)
    return (b"A" if transparent else b"F"), b"".join(padded[start : start + used] for start in starts)


def matrix_of(frame: av.VideoFrame) -> int:
    """The AVCOL_SPC number of the matrix between its colours and RGB; where it does not say, what players guess."""
    if frame.colorspace != _UNSPECIFIED:
        return int(frame.colorspace)
    return 1 if frame.height >= 720 else 6


_UNSPECIFIED = 2
"""AVCOL_SPC_UNSPECIFIED."""
_GUESSES = {1: 1, 6: 5}
"""What the scaler calls BT.709 and BT.601."""
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves by AVCOL_TRC number."""


# ------------------------------------------------------------------------------------------------ times


def retime(
    pictures: Iterator[tuple[float, av.VideoFrame]], rate: float, hold: float
) -> Iterator[tuple[av.VideoFrame, int]]:
    """(picture, how many ticks it fills): each tick of 1/rate s gets the picture nearest to it in time.

    Args:
        pictures: Their times rise.
        hold: Seconds that the last picture is shown.
    """
    held: av.VideoFrame | None = None
    start = held_time = 0.0
    tick = 0
    for time, picture in pictures:
        if held is None:
            held, start = picture, time
            continue
        # Ticks up to the middle between two pictures belong to the earlier; the hair keeps equal clocks equal.
        until = max(tick, int((held_time + time - start) / 2 * rate + 1e-6) + 1)
        if until > tick:
            yield held, until - tick
        held, held_time, tick = picture, time - start, until
    if held is not None:
        until = max(round((held_time + hold) * rate), 1)
        if until > tick:
            yield held, until - tick


# ---------------------------------------------------------------------------------------------- the conversation


def say(answer: BinaryIO, kind: bytes, body: bytes, repeats: int = 0) -> None:
    answer.write(MESSAGE.pack(kind, repeats, len(body)))
    answer.write(body)


def say_json(answer: BinaryIO, kind: bytes, body: dict[str, Any]) -> None:
    say(answer, kind, json.dumps(body).encode("ascii"))


def deliver(answer: BinaryIO, request: dict[str, Any], limits: ClipLimits) -> None:
    """Answers one request; raises `Refusal`."""
    path, demuxer = Path(request["path"]), str(request["demuxer"])
    with open_container(path, demuxer, limits) as container:
        settings = container.metadata.get("dailies") or container.metadata.get("comment")
        if settings is not None and len(settings) > request["longest_settings"]:
            settings = None
        if request["mode"] == "settings":
            say_json(answer, b"E", {"notices": [], "settings": settings})
            return
        overview = survey(container, limits)
    tally = Tally(notices=dict.fromkeys(overview.notices))
    rate = Fraction(request["fps"]).limit_denominator(1001) if request["fps"] else overview.rate
    # Opened afresh, since seeking back in a damaged file may fail.
    with open_container(path, demuxer, limits) as container:
        stream = find_video(container, limits)
        pictures = retime(decode(container, stream, overview, limits, tally), float(rate), 1 / float(overview.rate))
        first, repeats = next(pictures, (None, 0))
        if first is None:
            check_damage(overview, tally, limits)  # which refuses
            return
        whole = shape_of(first, stream, limits, tally)
        shape = scaled_down(whole, int(overview.seconds * rate), request["least"], limits, tally)
        header = _header(stream, overview, whole, shape, rate, path)
        cut = _check_delivery(header, shape, limits, tally)
        say_json(answer, b"H", header)
        _send(answer, itertools.chain([(first, repeats)], pictures), shape, header["most_frames"], tally, cut=cut)
        if cut:  # what comes after was not looked for
            overview = replace(overview, stored_frames=min(overview.stored_frames, tally.pictures))
        check_damage(overview, tally, limits)
    if not overview.constant_rate:
        tally.note(f"its rate varies: evened out to {float(rate):.4g} frames a second")
    elif rate != overview.rate:
        tally.note(f"resampled from {float(overview.rate):.4g} to {float(rate):.4g} frames a second, as asked")
    say_json(answer, b"E", {"notices": list(tally.notices), "settings": settings})


def _send(
    answer: BinaryIO,
    pictures: Iterator[tuple[av.VideoFrame, int]],
    shape: FrameShape,
    most: int,
    tally: Tally,
    *,
    cut: bool,
) -> None:
    sent = 0
    for picture, repeats in pictures:
        if sent + repeats > most and not cut:
            raise Refusal("has timestamps that contradict each other.")
        repeats = min(repeats, most - sent)
        say(answer, *convert(picture, shape, tally), repeats)
        sent += repeats
        if cut and sent == most:
            return


def _header(
    stream: av.video.stream.VideoStream,
    overview: Survey,
    whole: FrameShape,
    shape: FrameShape,
    rate: Fraction,
    path: Path,
) -> dict[str, Any]:
    info = {
        "codec": stream.codec_context.codec.name,
        "width": whole.width,
        "height": whole.height,
        "fps": float(overview.rate),
        "constant_rate": overview.constant_rate,
        "num_frames": overview.stored_frames,
        "seconds": overview.seconds,
        "file_bytes": path.stat().st_size,
    }
    most = int(overview.seconds * rate) + 2
    return {"info": info, "fps": float(rate), "most_frames": most, "shape": asdict(shape)}


def _check_delivery(header: dict[str, Any], shape: FrameShape, limits: ClipLimits, tally: Tally) -> bool:
    """Before the first pixel goes out: would all of them be too many? True where the header was cut to fewer."""
    frames, fps, seconds = header["most_frames"] - 2, header["fps"], header["info"]["seconds"]
    most = min(limits.frames, limits.total_pixels // (shape.width * shape.height))
    if frames <= most:
        return False
    if limits.cut:
        header["most_frames"] = most
        tally.note(f"it is long: its first {most / fps:.4g} s were read, of {seconds:.4g} s")
        return True
    size = f" of {shape.width}×{shape.height}" if most < limits.frames else ""
    raise Refusal(
        f"would give {frames} frames ({seconds:.4g} s at {fps:.4g} a second); at most {most}{size} are read.",
        field="frames",
        value=frames,
        way_out=f"Cut it to {most / fps:.3g} s, or read it at {most / seconds:.3g} frames a second or fewer.",
    )


def answer_safely(
    answer: BinaryIO,
    request: dict[str, Any],
    limits: ClipLimits,
    deliver: Deliver,
) -> None:
    """Does what is asked, with every way in which a decoder gives up made a refusal."""
    from av.error import FFmpegError

    try:
        deliver(answer, request, limits)
    except Refusal as refusal:
        say_json(answer, b"R", vars(refusal))
    except MemoryError:
        refusal = Refusal("needs more memory to decode than is allowed.", way_out="Scale it down.")
        say_json(answer, b"R", vars(refusal))
    except FFmpegError as error:
        refusal = Refusal(f"is damaged or not what it seems ({error.strerror}).", way_out="Copy or export it again.")
        say_json(answer, b"R", vars(refusal))


def import_all_of_av() -> None:
    """PyAV imports parts of itself when a file first needs them; by then no file may be opened."""
    import av
    from av import logging

    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in ("av.__main__", "av.datasets"):
            importlib.import_module(module.name)
    logging.set_level(logging.ERROR)  # so that errors are counted; what they say goes nowhere


def serve(requests: dict[str, Deliver]) -> None:
    """A program's whole life: one request in, one answer out.

    Args:
        requests: What does each kind of request, by its `mode`.
    """
    request = json.load(sys.stdin)
    sys.path += [folder for folder in request["import_from"] if folder not in sys.path]
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whatever a library prints is no answer
    import_all_of_av()
    limits = cast("ClipLimits", SimpleNamespace(**request["limits"]))
    limit_process(limits, more_files=request.get("more_files", 0), output_bytes=request.get("most_bytes", 0))
    answer_safely(answer, request, limits, requests[request["mode"]])
    answer.flush()


if __name__ == "__main__":
    serve({"read": deliver, "settings": deliver})
