"""`upscale`: a clip and flags become a larger clip. `enlargements`: what became of it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from studio.command_line.grammar import (
    Commands,
    add_command,
    add_fields,
    add_runs_folder,
    cancel_on_signal,
    check_video_output,
    make_output_folder,
    print_json,
    typed_fields,
)
from studio.errors import RequestError

if TYPE_CHECKING:
    from studio.clips.reference import FileReference
    from studio.events import EnlargementEvent, EnlargementFinished
    from studio.records.enlargements import Enlargement
    from studio.records.runs import RunStore
    from studio.requests.super_resolution import SuperResolutionRequest
    from studio.requests.work import EnlargeClip
    from studio.super_resolve import Forecast, OverClips

_SPELLED_HERE = ("source",)
"""Fields whose flags say more than the field does."""


def add_upscale(commands: Commands) -> None:
    from studio.requests.super_resolution import SuperResolutionRequest

    parser = add_command(commands, "upscale", _upscale, "make a clip of any length larger, its sound and timing kept")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "clip", nargs="*", default=[], type=Path, help="an MP4, WebM, MOV or MKV file, or another that is read here"
    )
    what.add_argument("--go-on", metavar="ENLARGEMENT", help="go on with one that was stopped")
    add_fields(parser, SuperResolutionRequest, leave_out=_SPELLED_HERE)
    parser.add_argument(
        "--excerpt",
        nargs=2,
        type=float,
        metavar=("START", "SECONDS"),
        help="only this part, to be looked at first; --go-on then makes the rest",
    )
    parser.add_argument(
        "--original",
        type=Path,
        metavar="CLIP",
        action="append",
        default=[],
        help="a larger clip that this one came from: the result is held against it, and the figures are printed; with "
        "several clips one for each, in their order, or none",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="METHOD",
        help="each clip by each of these methods, such as lanczos or pocket:restore=true, and one table of their "
        "figures; what is stored is not made again",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="copy the result here (.mp4); with --compare, a folder for comparison.csv and .json",
    )
    parser.add_argument("--forecast", action="store_true", help="measure a few pictures, and say what all would take")
    add_runs_folder(parser)


def add_enlargements(commands: Commands) -> None:
    parser = add_command(commands, "enlargements", _enlargements, "list or delete what upscale made, with its figures")
    parser.add_argument("enlargement", nargs="?", help="one of them, with all its figures")
    parser.add_argument("--delete", metavar="ENLARGEMENT")
    add_runs_folder(parser)


def _upscale(chosen: argparse.Namespace) -> int:
    from studio.records.enlargements import ALL_STREAMS, EnlargementStore
    from studio.records.runs import RunStore, runs_folder
    from studio.super_resolve import forecast

    if chosen.compare:
        return _compare(chosen, RunStore(chosen.runs or runs_folder()))
    check_video_output(chosen.output, way_out="Name it so; what MP4 cannot hold comes beside it as .mkv.")
    _refuse_several(chosen)
    store = RunStore(chosen.runs or runs_folder())
    if chosen.forecast and chosen.clip:
        request = _request(chosen, chosen.clip[0])
        return _print_forecast(request, forecast(request, store=store, here=True), as_json=chosen.json)
    work = _work(chosen, store)
    finished = _follow(work, store, as_json=chosen.json)
    enlargement = EnlargementStore(store.folder).get(work.enlargement_id)
    folder = EnlargementStore(store.folder).path(work.enlargement_id)
    made = folder / finished.path
    if chosen.output is not None:
        shutil.copyfile(made, chosen.output)
        if (folder / ALL_STREAMS).is_file():
            shutil.copyfile(folder / ALL_STREAMS, chosen.output.with_suffix(".mkv"))
    if not chosen.json:
        print(f"{chosen.output or made}  (enlargement {work.enlargement_id})")
        _print_figures(enlargement, finished.path)
        if chosen.excerpt is not None:
            print(f"make the rest with: python -m studio upscale --go-on {work.enlargement_id}")
    return 0


def _follow(work: EnlargeClip, store: RunStore, *, as_json: bool) -> EnlargementFinished:
    """The work, told as it goes.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    from studio.events import EnlargementFinished, event_to_json
    from studio.super_resolve import enlarge

    cancelled = cancel_on_signal()
    printer = _Printer()
    stream = enlarge(work, store=store, owner="local", stop=lambda: "cancel" if cancelled.is_set() else None)
    finished: EnlargementFinished | None = None
    try:
        for event in stream:
            if as_json:
                print_json(event_to_json(event))
            else:
                printer.show(event)
            if isinstance(event, EnlargementFinished):
                finished = event
    finally:
        printer.close()
        stream.close()
    if finished is None:
        print(f"\nstopped; go on with --go-on {work.enlargement_id}", file=sys.stderr)
        raise KeyboardInterrupt
    return finished


def _compare(chosen: argparse.Namespace, store: RunStore) -> int:
    """Each method on each clip, one after the other, and a table of them all."""
    from studio.records.codec import to_json
    from studio.records.enlargements import EnlargementStore
    from studio.requests.work import EnlargeClip
    from studio.super_resolve import begun, is_done, over_clips, request_by

    for flag in ("go_on", "excerpt", "forecast", "method", "adapter", "restore"):
        if getattr(chosen, flag):
            raise RequestError(
                "Several methods are compared on whole clips.",
                field=f"--{flag.replace('_', '-')}",
                way_out="Leave it out, or leave out --compare; what a method is told is written behind it, as in "
                "pocket:restore=true.",
            )
    enlargements = EnlargementStore(store.folder)
    rows: list[Enlargement] = []
    for clip, original in _clips_and_originals(chosen):
        for method in dict.fromkeys(chosen.compare):
            one = begun(request_by(method, _request(chosen, clip)), store=store, original=original)
            if not is_done(one):
                _follow(EnlargeClip(enlargement_id=one.id), store, as_json=chosen.json)
            rows.append(enlargements.get(one.id))
            if chosen.json:
                said = {"id": one.id, "clip": str(clip), "method": method}
                print_json(said | {"measurements": to_json(rows[-1])["measurements"]})
    table = over_clips(rows)
    if chosen.output is not None:
        _write_files(table, chosen.output)
    if not chosen.json:
        _print_comparison(table)
    return 0


def _clips_and_originals(chosen: argparse.Namespace) -> list[tuple[Path, FileReference | None]]:
    """The clips in their order, each with the original that was named for it."""
    from studio.clips.reference import reference_to

    named = [None if str(each) == "none" else each for each in chosen.original]
    if named and len(named) != len(chosen.clip):
        raise RequestError(
            f"{len(named)} originals were named for {len(chosen.clip)} clips.",
            field="--original",
            value=len(named),
            way_out="Give one for each clip, in their order, or none in the place of one that is not there.",
        )
    originals = [None if each is None else reference_to(each, field="--original") for each in named]
    return list(zip(chosen.clip, originals or [None] * len(chosen.clip), strict=True))


def _write_files(table: OverClips, folder: Path) -> None:
    from studio.storage import write_atomically
    from studio.super_resolve import files_of

    make_output_folder(folder)
    for ending, text in files_of(table).items():
        write_atomically(folder / f"comparison.{ending}", text.encode("utf-8"))


def _print_comparison(table: OverClips) -> None:
    """A line for each method, a column for each figure: clip by clip, then the means where there are several."""
    from studio.super_resolve.wording import figure_text

    heads = ["seconds a picture", *map(table.title, table.names)]
    print("  ".join([" " * 28, *heads]))

    def line(title: str, pace: float | None, figures: Mapping[str, float]) -> None:
        seconds = "–" if pace is None else f"{1 / pace:.3f}"
        values = [seconds, *(figure_text(name, figures.get(name)) for name in table.names)]
        cells = [value.rjust(len(head)) for value, head in zip(values, heads, strict=True)]
        print("  ".join([title[:28].ljust(28), *cells]))

    for number, clip in enumerate(table.clips):
        if len(table.clips) > 1:
            print(f"-- {clip.source.name}")
        for row in table.rows:
            if row.clip == number:
                line(row.method, row.pace, row.figures)
    if table.means:
        print(f"-- mean over {len(table.clips)} clips")
    for mean in table.means:
        line(mean.method, mean.pace, mean.figures)


def _refuse_several(chosen: argparse.Namespace) -> None:
    """Several clips, or several originals, are for --compare alone."""
    for field, named in (("clip", chosen.clip), ("--original", chosen.original)):
        if len(named) > 1:
            raise RequestError(
                f"{len(named)} were given; one clip is enlarged at a time.",
                field=field,
                value=[str(each) for each in named],
                way_out="Give one, or compare methods on all of them with --compare.",
            )


def _request(chosen: argparse.Namespace, clip: Path) -> SuperResolutionRequest:
    from studio.clips.reference import reference_to
    from studio.requests.super_resolution import SuperResolutionRequest, read_super_resolution_request

    fields = typed_fields(chosen, SuperResolutionRequest, leave_out=_SPELLED_HERE)
    return read_super_resolution_request({"source": reference_to(clip, field="clip")} | fields)


def _work(chosen: argparse.Namespace, store: RunStore) -> EnlargeClip:
    from studio.clips.reference import reference_to
    from studio.requests.generation import read_as
    from studio.requests.super_resolution import Excerpt, SuperResolutionRequest
    from studio.requests.work import EnlargeClip
    from studio.super_resolve import begin, hold_against

    excerpt = None
    if chosen.excerpt is not None:
        excerpt = read_as(Excerpt, {"start": chosen.excerpt[0], "seconds": chosen.excerpt[1]})
    original = reference_to(chosen.original[0], field="--original") if chosen.original else None
    if not chosen.go_on:
        begun = begin(_request(chosen, chosen.clip[0]), store=store, original=original)
        return EnlargeClip(enlargement_id=begun.id, excerpt=excerpt)
    typed = typed_fields(chosen, SuperResolutionRequest, leave_out=_SPELLED_HERE)
    if typed:
        name = next(iter(typed))
        raise RequestError(
            "What goes on keeps the settings that it began with.",
            field=f"--{name.replace('_', '-')}",
            value=typed[name],
            way_out="Leave it out, or enlarge the clip anew.",
        )
    if original is not None:
        hold_against(chosen.go_on, original, store=store)
    return EnlargeClip(enlargement_id=chosen.go_on, excerpt=excerpt)


def _print_forecast(request: SuperResolutionRequest, found: Forecast, *, as_json: bool) -> int:
    if as_json:
        print_json(asdict(found))
        return 0
    print(
        f"{request.source.path.name}: {found.num_frames} pictures become {found.width}×{found.height}; about "
        f"{found.seconds:.0f} s, {found.output_bytes / 1e6:.1f} MB on the disk, {found.memory_bytes / 1e6:.0f} MB of "
        "memory."
    )
    return 0


class _Printer:
    """The events as one progress bar, on standard error."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="picture", disable=None, leave=True)
        self._measuring = False

    def show(self, event: EnlargementEvent) -> None:
        from studio.events import EnlargementStarted, FramesEnlarged, FramesMeasured, Notice

        match event:
            case EnlargementStarted():
                self._bar.reset(total=event.num_frames)
                self._bar.update(event.done)
            case FramesEnlarged():
                self._bar.total = event.num_frames
                self._bar.update(event.done - self._bar.n)
                self._bar.set_postfix_str(f"{event.eta_seconds:.0f} s left")
            case FramesMeasured():
                if not self._measuring:
                    self._measuring = True
                    self._bar.reset(total=event.num_frames)
                    self._bar.set_description_str("measuring")
                self._bar.update(event.done - self._bar.n)
                self._bar.set_postfix_str(f"{event.eta_seconds:.0f} s left")
            case Notice():
                self._bar.write(event.text, file=sys.stderr)
            case _:
                pass

    def close(self) -> None:
        self._bar.close()


def _print_figures(enlargement: Enlargement, name: str) -> None:
    """What was measured of a file, one figure a line, bicubic's beside it."""
    from studio.super_resolve.wording import figure_text, figure_title, measured_names, whose_title

    measured = enlargement.measurements.get(name)
    if measured is None or not measured.figures:
        return
    titles = {whose: whose_title(whose, enlargement) for whose in measured.figures}
    wide = [max(10, len(title)) for title in titles.values()]
    print(f"{name}, {measured.num_frames} pictures")
    print("  ".join([" " * 34, *(title.rjust(width) for title, width in zip(titles.values(), wide, strict=True))]))
    for figure in measured_names(measured):
        values = [figure_text(figure, figures.get(figure)) for figures in measured.figures.values()]
        cells = [value.rjust(width) for value, width in zip(values, wide, strict=True)]
        print("  ".join([figure_title(figure, measured).ljust(34), *cells]))
    for reason in measured.lacking.values():
        print(reason)


def _enlargements(chosen: argparse.Namespace) -> int:
    from studio.records.codec import to_json
    from studio.records.enlargements import EnlargementStore
    from studio.records.runs import runs_folder

    store = EnlargementStore(chosen.runs or runs_folder())
    if chosen.delete:
        store.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
        return 0
    for each in [store.get(chosen.enlargement)] if chosen.enlargement else store.list():
        state = store.state_of(each)
        if chosen.json:
            record = {"id": each.id, "state": state, "folder": str(store.path(each.id)), "source": each.source.name}
            print_json(record | {"measurements": to_json(each)["measurements"]})
        else:
            size = f"{each.source.width}×{each.source.height} ×{each.request.scale}"
            print(f"{each.id}  {state:10}  {size:16}  {each.request.method:16}  {each.source.name[:40]}")
            for name in each.measurements if chosen.enlargement else ():
                _print_figures(each, name)
    return 0
