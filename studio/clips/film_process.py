"""The limited process that reads a film picture by picture, and that puts its other streams beside new pictures.

A film is a clip of any length: its pictures pass one at a time, with the file's own timestamps, sample aspect and
colours. Started and measured by `studio.clips.film`, under the rules of `studio.clips.reader_process`, which says how
one talks with it. Two requests:

    pictures   answered by H, then for each picture P (its timestamp, 8 bytes) and F or A, then E
    join       packets of the new pictures and of the film's other streams go into the file that was handed over,
               undecoded; answered by E

Knows PyAV and `reader_process`, which lies beside it. Refuses to know the rest of the studio.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    import av
    import av.container
    import av.stream
    import av.video.stream

    from studio.clips import reader_process as reading
    from studio.clips.limits import ClipLimits
else:
    sys.path.append(str(Path(__file__).parent))  # for the one neighbour; `python -I` does not look there
    import reader_process as reading

TIMESTAMP = struct.Struct("<q")
"""Of a picture, in ticks of the film's time base."""
_PASSED_ON = ("audio", "subtitle")
"""Kinds of streams that are copied."""


def pictures(answer: BinaryIO, request: dict[str, Any], limits: ClipLimits) -> None:
    """Every picture from number `first` on, turned upright by the starter, with its own shape of pixels."""
    path, demuxer = Path(request["path"]), str(request["demuxer"])
    with reading.open_container(path, demuxer, limits) as container:
        overview = reading.survey(container, limits)
    tally = reading.Tally(notices=dict.fromkeys(overview.notices))
    # Opened afresh, since seeking back in a damaged file may fail.
    with reading.open_container(path, demuxer, limits) as container:
        stream = reading.find_video(container, limits)
        tick = stream.time_base if overview.trusted_times and stream.time_base else 1 / overview.rate
        header = None
        for number, (seconds, picture) in enumerate(reading.decode(container, stream, overview, limits, tally)):
            if header is None:
                shape = _shape(picture, tally)
                header = _header(container, stream, picture, overview, shape, tick, path)
                reading.say_json(answer, b"H", header)
            if number < request["first"]:
                continue
            reading.say(answer, b"P", TIMESTAMP.pack(round(seconds / tick)))
            reading.say(answer, *reading.convert(picture, shape, tally), 1)
        reading.check_damage(overview, tally, limits)
    reading.say_json(answer, b"E", {"notices": list(tally.notices), "pictures": tally.pictures})


def _shape(picture: av.VideoFrame, tally: reading.Tally) -> reading.FrameShape:
    across, down, transpose = reading.display_axes(picture, tally)
    if any(part.bits > 8 for part in picture.format.components):
        tally.note("its pictures have more than 8 bits a channel: they become 8")
    return reading.FrameShape(
        stored_width=picture.width,
        stored_height=picture.height,
        transpose=transpose,
        mirror=across < 0,
        upend=down < 0,
    )


def _header(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    picture: av.VideoFrame,
    overview: reading.Survey,
    shape: reading.FrameShape,
    tick: Fraction,
    path: Path,
) -> dict[str, Any]:
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    aspect = aspect if aspect > 0 else Fraction(1)
    aspect = 1 / aspect if shape.transpose else aspect
    info = {
        "codec": stream.codec_context.codec.name,
        "width": shape.width,
        "height": shape.height,
        "fps": float(overview.rate),
        "constant_rate": overview.constant_rate,
        "num_frames": overview.stored_frames,
        "seconds": overview.seconds,
        "file_bytes": path.stat().st_size,
    }
    colours = {
        "matrix": reading.matrix_of(picture),
        "range": int(picture.color_range),
        "transfer": int(picture.color_trc),
        "primaries": int(picture.color_primaries),
        "rgb": picture.format.is_rgb or picture.format.name == "pal8",
    }
    others = [
        {"kind": other.type, "codec": other.codec_context.name if other.codec_context else "", "bytes": _bytes(other)}
        for other in container.streams
        if other.type in _PASSED_ON
    ]
    return {
        "info": info,
        "shape": asdict(shape),
        "sample_aspect_ratio": [aspect.numerator, aspect.denominator],
        "time_base": [tick.numerator, tick.denominator],
        "last_duration": max(1, round((overview.last_seconds or 1 / overview.rate) / tick)),
        "colours": colours,
        "others": others,
        "chapters": len(container.chapters()),
    }


def _bytes(stream: av.stream.Stream) -> int:
    """What a stream takes in the file, as far as its header says."""
    rate = getattr(stream.codec_context, "bit_rate", 0) or 0
    return int(rate / 8 * float(stream.duration * stream.time_base)) if stream.duration and stream.time_base else 0


def join(answer: BinaryIO, request: dict[str, Any], limits: ClipLimits) -> None:
    """New pictures and the film's other streams, into the file whose descriptor was handed over."""
    import av

    skipped: list[str] = []
    with os.fdopen(request["output"], "w+b", closefd=True) as file:
        output = cast(
            "av.container.OutputContainer",
            av.open(file, "w", format=request["format"], options=request["options"], metadata_errors="replace"),
        )
        film = reading.open_container(Path(request["path"]), str(request["demuxer"]), limits)
        with output, film:
            output.metadata.update((_kept_tags(film) if request["others"] else {}) | request["tags"])
            if request["others"] and film.chapters():
                output.set_chapters(film.chapters())
            first = av.open(request["parts"][0])
            with first:
                new = output.add_stream_from_template(first.streams.video[0])
                new.time_base = Fraction(*request["time_base"])
            others = _copied(film, output, request["format"], skipped) if request["others"] else {}
            streams = [_new_pictures(request, new), *([_other_packets(film, others)] if others else [])]
            for packet in _by_time(streams):
                output.mux_one(packet)
    reading.say_json(answer, b"E", {"notices": skipped})


def _kept_tags(film: av.container.InputContainer) -> dict[str, str]:
    own = ("major_brand", "minor_version", "compatible_brands", "encoder")
    return {name: value for name, value in film.metadata.items() if name.lower() not in own}


def _copied(
    film: av.container.InputContainer, output: av.container.OutputContainer, container: str, skipped: list[str]
) -> dict[int, av.stream.Stream]:
    """Of each stream that the new file can hold, its twin there."""
    twins: dict[int, av.stream.Stream] = {}
    for stream in film.streams:
        if stream.type not in _PASSED_ON:
            continue
        name = stream.codec_context.name if stream.codec_context else "unknown"
        if name not in output.supported_codecs:
            skipped.append(f"its {stream.type} of kind {name} does not fit into {container}: left out there")
            continue
        twin = output.add_stream_from_template(cast(Any, stream))
        twin.metadata.update(stream.metadata)
        twin.disposition = stream.disposition
        twins[stream.index] = twin
    return twins


def _new_pictures(request: dict[str, Any], stream: av.stream.Stream) -> Iterator[av.Packet]:
    """The packets of all parts, each with the time until the next as its duration; of an excerpt, from 0 on."""
    import av

    tick = Fraction(*request["time_base"])
    waiting: av.Packet | None = None
    start: int | None = 0 if request["others"] else None
    for part in request["parts"]:
        with cast("av.container.InputContainer", av.open(part)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size == 0 or packet.pts is None:
                    continue
                stamp = round(packet.pts * cast(Fraction, packet.time_base) / tick)
                start = stamp if start is None else start
                packet.pts, packet.dts, packet.time_base = stamp - start, stamp - start, tick
                packet.stream = cast("av.video.stream.VideoStream", stream)
                if waiting is not None:
                    waiting.duration = packet.pts - cast(int, waiting.pts)
                    yield waiting
                waiting = packet
    if waiting is not None:
        waiting.duration = request["last_duration"]
        yield waiting


def _other_packets(film: av.container.InputContainer, twins: dict[int, av.stream.Stream]) -> Iterator[av.Packet]:
    for packet in film.demux([film.streams[index] for index in twins]):
        if packet.size and packet.dts is not None:
            packet.stream = twins[packet.stream_index]
            yield packet


def _by_time(streams: list[Iterator[av.Packet]]) -> Iterator[av.Packet]:
    """All packets, the earliest of those at the heads first."""
    heads = [(head, stream) for stream in streams if (head := next(stream, None)) is not None]
    while heads:
        position = min(range(len(heads)), key=lambda n: _seconds(heads[n][0]))
        packet, stream = heads[position]
        yield packet
        following = next(stream, None)
        if following is None:
            heads.pop(position)
        else:
            heads[position] = (following, stream)


def _seconds(packet: av.Packet) -> Fraction:
    return cast(int, packet.dts) * cast(Fraction, packet.time_base)


if __name__ == "__main__":
    reading.serve({"pictures": pictures, "join": join})
