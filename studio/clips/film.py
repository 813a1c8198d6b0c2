"""Films: clips of any length, which pass picture by picture and never lie in memory as a whole.

What is not pixels is kept: the pictures' own timestamps, the shape of a pixel, colour matrix, range and transfer, and,
when new pictures take the place of the old ones (`join`), every other stream, chapters and tags. Reading and joining
happen in a limited process (`studio.clips.film_process`); new pictures are encoded here.

Knows that process, PyAV's encoder and numpy. Refuses to know what is done to the pictures.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.clips import film_process
from studio.clips.conversation import Conversation
from studio.clips.limits import DEMUXERS, ClipLimits
from studio.clips.read import ClipInfo, info_of, upright
from studio.clips.reader_process import FrameShape
from studio.clips.write import SETTINGS_TAG, X264
from studio.errors import ClipRefused
from studio.storage import whole

if TYPE_CHECKING:
    import av.container

FILM_PROGRAM = Path(film_process.__file__)
FILM_LIMITS = ClipLimits(
    file_bytes=50_000_000_000,
    seconds=6 * 3600.0,
    stored_frames=6 * 3600 * 60,
    cpu_seconds=24 * 3600,
    lost_share=0.2,
    wall_seconds=120.0,
)
"""Of what passes picture by picture: sizes are bounded as ever, lengths hardly; the time is for each picture."""
BT709 = 1
"""AVCOL_SPC, AVCOL_PRI and AVCOL_TRC number of BT.709."""
_LIMITED = 1
"""AVCOL_RANGE_MPEG."""


@dataclass(frozen=True, kw_only=True)
class Colours:
    """How RGB and what is stored belong together, as libavutil's numbers."""

    matrix: int
    range: int
    transfer: int
    primaries: int
    rgb: bool = False
    """Whether the file itself stores RGB; what is written then is BT.709."""


@dataclass(frozen=True, kw_only=True)
class OtherStream:
    """A stream besides the pictures, which is passed on as it is."""

    kind: str
    """audio or subtitle."""
    codec: str
    bytes: int
    """As far as its header says; else 0."""


@dataclass(frozen=True, kw_only=True)
class FilmInfo:
    """What a film holds, upright."""

    clip: ClipInfo
    """Width and height are of the pixels as stored, upright, not squared."""
    sample_aspect_ratio: Fraction
    """A pixel's width for its height."""
    time_base: Fraction
    """Seconds of a tick."""
    last_duration: int
    """Ticks for which the last picture is shown."""
    colours: Colours
    others: tuple[OtherStream, ...]
    chapters: int


@dataclass(frozen=True)
class Picture:
    pixels: np.ndarray
    """uint8, (H, W, 3), RGB."""
    pts: int
    """When it is shown, in ticks."""


class Film(Conversation):
    """A film that is being read: `info` first, then its pictures once, then `notices`.

    Args:
        path: A regular file of a kind that is read.
        first: The number of the first picture that is wanted; those before it are decoded and dropped.

    Raises:
        ClipRefused: as `studio.clips.read.read_clip`, save that a film may be long.
    """

    def __init__(self, path: Path, *, first: int = 0, limits: ClipLimits = FILM_LIMITS) -> None:
        request = {"mode": "pictures", "first": first}
        super().__init__(FILM_PROGRAM, path, limits, request, unhurried=True)
        self.notices: tuple[str, ...] = ()
        """What was changed or found damaged, known at the end."""
        self.count: int | None = None
        """Pictures in it, those that were not wanted included, known at the end."""

    def __enter__(self) -> Film:
        super().__enter__()
        try:
            record = self.json(b"H")
            try:
                self._shape = FrameShape(**record["shape"])
                self.info = _film_info(record, DEMUXERS[self.demuxer])
                self._check_size()
            except (KeyError, TypeError, ValueError, ZeroDivisionError):
                raise self.garbled() from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def _check_size(self) -> None:
        shape, clip = self._shape, self.info.clip
        sides = (shape.stored_width, shape.stored_height)
        if not all(type(side) is int and 0 < side <= self.limits.stored_side for side in sides):
            raise ValueError("a size that is none")
        if math.prod(sides) > self.limits.stored_area or (clip.width, clip.height) != (shape.width, shape.height):
            raise ValueError("a size that is none")

    def __iter__(self) -> Iterator[Picture]:
        transparent = False
        while (message := self.message())[0] == b"P":
            stamp = bytearray(film_process.TIMESTAMP.size)
            if message[2] != len(stamp):
                raise self.garbled()
            self.read_into(memoryview(stamp))
            kind, _, length = self.message()
            shape = self._shape
            stored = np.empty((shape.stored_height, shape.stored_width, 4 if kind == b"A" else 3), np.uint8)
            if kind not in (b"F", b"A") or length != stored.nbytes:
                raise self.garbled()
            self.read_into(stored.reshape(-1).data)
            pixels, shines_through = upright(stored, shape)
            transparent |= shines_through
            yield Picture(pixels, film_process.TIMESTAMP.unpack(stamp)[0])
        self.put_back(message)
        ending = self.json(b"E")
        notices, count = ending.get("notices"), ending.get("pictures")
        if not isinstance(notices, list) or type(count) is not int or count < 0:
            raise self.garbled()
        self.count = count
        over_black = ("it is transparent in places: laid over black",) if transparent else ()
        self.notices = (*(str(notice)[:300] for notice in notices[:50]), *over_black)


def _film_info(record: dict[str, Any], container: str) -> FilmInfo:
    """Raises KeyError, TypeError, ValueError or ZeroDivisionError if it is no such record."""
    clip = info_of({**record["info"], "container": container})
    colours = Colours(**record["colours"])
    if not all(type(value) is int and 0 <= value < 256 for name, value in vars(colours).items() if name != "rgb"):
        raise ValueError("a colour that is none")
    numbers = [*record["sample_aspect_ratio"], *record["time_base"], record["last_duration"], record["chapters"]]
    if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
        raise ValueError("a number that is none")
    others = tuple(
        OtherStream(kind=str(each["kind"])[:20], codec=str(each["codec"])[:40], bytes=max(0, int(each["bytes"])))
        for each in record["others"][:100]
    )
    aspect, tick = Fraction(*record["sample_aspect_ratio"]), Fraction(*record["time_base"])
    if not tick > 0 or not Fraction(1, 100) <= aspect <= 100:
        raise ValueError("a ratio that is none")
    return FilmInfo(
        clip=clip,
        sample_aspect_ratio=aspect,
        time_base=tick,
        last_duration=record["last_duration"],
        colours=colours,
        others=others,
        chapters=record["chapters"],
    )


class PictureWriter:
    """H.264 of new pictures with their timestamps, in a file that `join` takes as a part.

    Equal pictures give equal bytes. A part is put in place whole when it is closed without an error, or not at all.

    Args:
        path: Ends in .nut, which keeps any time base.
        film: Whose timestamps, colours and shape of pixels hold.
        height, width: Of the new pictures; even.
    """

    def __init__(self, path: Path, film: FilmInfo, *, height: int, width: int) -> None:
        self._film, self._size = film, (height, width)
        self.count = 0
        """Pictures that were written."""
        self._whole = whole(path)

    def __enter__(self) -> PictureWriter:
        import av

        part = self._whole.__enter__()
        try:
            self._container: av.container.OutputContainer = av.open(str(part), "w", format="nut")
            self._stream = self._open_stream()
        except BaseException as error:
            self._whole.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *failure: Any) -> None:
        try:
            if failure[0] is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except BaseException as error:
            self._whole.__exit__(type(error), error, error.__traceback__)
            raise
        self._whole.__exit__(*failure)

    def write(self, picture: Picture) -> None:
        import av
        from av.video.reformatter import ColorRange, Interpolation

        height, width = self._size
        if picture.pixels.shape != (height, width, 3):
            raise ValueError(f"a picture is {picture.pixels.shape}, not {(height, width, 3)}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture.pixels), format="rgb24")
        frame = frame.reformat(
            format="yuv420p",
            dst_colorspace=_SCALER.get(self._matrix, _SCALER[BT709]),
            dst_color_range=ColorRange(self._range),
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
            threads=1,
        )
        frame.pts, frame.time_base = picture.pts, self._film.time_base
        frame.colorspace, frame.color_range = self._matrix, self._range
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    @property
    def _matrix(self) -> int:
        """RGB that is stored has no matrix; those that the scaler does not know become BT.709."""
        colours = self._film.colours
        return BT709 if colours.rgb or colours.matrix not in _SCALER else colours.matrix

    @property
    def _range(self) -> int:
        return self._film.colours.range if self._film.colours.range and not self._film.colours.rgb else _LIMITED

    def _open_stream(self) -> Any:
        film, (height, width) = self._film, self._size
        rate = Fraction(film.clip.fps).limit_denominator(1001)
        stream: Any = self._container.add_stream("libx264", rate=rate)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = height, width, "yuv420p"
        context.time_base = film.time_base
        context.sample_aspect_ratio = film.sample_aspect_ratio
        context.colorspace, context.color_range = self._matrix, self._range
        rgb = film.colours.rgb
        context.color_primaries = BT709 if rgb else film.colours.primaries
        context.color_trc = BT709 if rgb else film.colours.transfer
        context.gop_size, context.max_b_frames = max(1, round(rate / 2)), 0
        context.thread_count = int(X264["threads"])
        context.options = {"preset": X264["preset"], "crf": X264["crf"], "flags": "+bitexact"} | _FEW_HELD
        stream.time_base = film.time_base
        return stream


_FEW_HELD = {"rc-lookahead": "8"}
"""Pictures that the encoder looks ahead, and holds: of large ones, forty would take more memory than all else."""
_SCALER = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""What the scaler calls a matrix, by its AVCOL_SPC number; 5 and 6 are one matrix."""


def join(
    film: Path,
    parts: Sequence[Path],
    path: Path,
    info: FilmInfo,
    *,
    settings: dict[str, Any] | None = None,
    others: bool = True,
    limits: ClipLimits = FILM_LIMITS,
) -> tuple[str, ...]:
    """Put new pictures beside the film's other streams, its chapters and tags; whole or not at all.

    Args:
        film: Where the other streams come from.
        parts: What `PictureWriter` wrote, in order.
        path: Ends in .mp4 or .mkv.
        settings: Goes into the file, for `read_settings`.
        others: Whether the film's other streams, chapters and tags go in: not where only a part of it is there.

    Returns:
        What did not fit into a file of that kind, one sentence each.

    Raises:
        ClipRefused, DiskFull
    """
    tags = {} if settings is None else {SETTINGS_TAG: json.dumps({SETTINGS_TAG: settings}, sort_keys=True)}
    mp4 = path.suffix == ".mp4"
    with whole(path) as part:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            request = {
                "mode": "join",
                "parts": [str(each.absolute()) for each in parts],
                "output": descriptor,
                "format": "mp4" if mp4 else "matroska",
                "options": {"movflags": "use_metadata_tags"} if mp4 else {},
                "tags": tags,
                "others": others,
                "time_base": [info.time_base.numerator, info.time_base.denominator],
                "last_duration": info.last_duration,
                "more_files": 1,
                "most_bytes": sum(each.stat().st_size for each in parts) + 2 * film.stat().st_size + 100_000_000,
            }
            with Conversation(FILM_PROGRAM, film, limits, request, unhurried=True, hands_over=(descriptor,)) as asked:
                ending = asked.json(b"E")
        finally:
            os.close(descriptor)
    notices = ending.get("notices")
    if not isinstance(notices, list):
        raise ClipRefused(f"{film.name} cannot be copied.", field="clip")
    return tuple(str(notice)[:300] for notice in notices[:50])
