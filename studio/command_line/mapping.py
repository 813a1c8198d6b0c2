"""`maps`: a clip, a world or a file becomes control maps. `map-sets`: what became of them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from studio.command_line.grammar import (
    Commands,
    add_command,
    add_fields,
    add_runs_folder,
    cancel_on_signal,
    print_json,
    typed_fields,
)
from studio.errors import RequestError

if TYPE_CHECKING:
    from studio.drive.verb import Size
    from studio.events import MapsEvent
    from studio.records.runs import RunStore
    from studio.requests.maps import MapsRequest

BOX = "[FRAME:]LEFT,TOP,RIGHT,BOTTOM[:NAME]"
"""How a box is spelled."""
_SPELLED_HERE = ("source", "boxes")
"""Fields whose flags say more than the field does."""


def add_maps(commands: Commands) -> None:
    from studio.requests.maps import MapsRequest

    parser = add_command(commands, "maps", _maps, "what a clip shows, measured: edges, lanes, depth, motion, boxes")
    parser.add_argument("clip", nargs="?", type=Path, help="a clip to be measured; or see --world and --given")
    add_fields(parser, MapsRequest, leave_out=_SPELLED_HERE)
    parser.add_argument(
        "--box",
        action="append",
        default=[],
        metavar=BOX,
        help="a thing to be followed through the clip, as it is seen in one frame; may be given several times",
    )
    parser.add_argument(
        "--fit",
        metavar="WIDTHxHEIGHTxFRAMES",
        help="bring what is written to exactly that size and length, and say what was done for it",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="write maps.npz and the control videos here"
    )
    add_runs_folder(parser)


def add_map_sets(commands: Commands) -> None:
    parser = add_command(commands, "map-sets", _map_sets, "list or delete the maps that were made")
    parser.add_argument("--delete", metavar="MAP_SET")
    add_runs_folder(parser)


def _maps(chosen: argparse.Namespace) -> int:
    from studio.drive import begin, export
    from studio.records.map_sets import MapSetStore
    from studio.records.runs import RunStore, runs_folder

    size = _size(chosen.fit)
    if size is not None and chosen.output is None:
        raise RequestError(
            "--fit says how the maps are written, and no folder to write them to is named.",
            field="--fit",
            value=chosen.fit,
            way_out="Name one with -o.",
        )
    if chosen.output is not None and chosen.output.exists() and not chosen.output.is_dir():
        raise RequestError(f"{chosen.output} is no folder.", field="--output", way_out="Name another.")
    store = RunStore(chosen.runs or runs_folder())
    map_set = begin(_request(chosen), store=store)
    follow_map_set(map_set.id, store, as_json=chosen.json)
    made = MapSetStore(store.folder).get(map_set.id)
    done: tuple[str, ...] = ()
    if chosen.output is not None:
        done = export(map_set.id, chosen.output, store=store, size=size)
    folder = chosen.output or MapSetStore(store.folder).path(map_set.id)
    if chosen.json:
        print_json({"id": made.id, "maps": list(made.maps), "folder": str(folder), "notices": [*made.notices, *done]})
        return 0
    for sentence in (*made.notices, *done):
        print(sentence)
    print(f"{folder}: {', '.join(made.maps)}  (map set {made.id})")
    return 0


def _request(chosen: argparse.Namespace) -> MapsRequest:
    from studio.clips.reference import reference_to
    from studio.requests.maps import MapsRequest, read_maps_request

    fields = typed_fields(chosen, MapsRequest, leave_out=_SPELLED_HERE)
    if chosen.clip is not None:
        fields["source"] = reference_to(chosen.clip, field="clip")
    if chosen.box:
        fields["boxes"] = tuple(chosen.box)
    return read_maps_request(fields)


def _size(text: str | None) -> Size | None:
    from studio.drive.verb import Size

    if text is None:
        return None
    numbers = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})[x×](\d{1,4})", text.strip())
    if numbers is None or not all(int(number) for number in numbers.groups()):
        raise RequestError(
            f"{text[:40]!r} is no size and length.", field="--fit", value=text, way_out="Write 832x480x81."
        )
    width, height, num_frames = (int(number) for number in numbers.groups())
    return Size(height=height, width=width, num_frames=num_frames)


def follow_map_set(map_set_id: str, store: RunStore, *, as_json: bool) -> None:
    """The work, told as it goes.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    from studio.drive import make
    from studio.events import event_to_json, never
    from studio.requests.work import MakeMaps

    cancelled = cancel_on_signal()
    printer = _Printer()
    stream = make(MakeMaps(map_set_id=map_set_id), store=store, owner="local", stop=never)
    try:
        for event in stream:
            if as_json:
                print_json(event_to_json(event))
            else:
                printer.show(event)
            if cancelled.is_set():
                raise KeyboardInterrupt
    finally:
        printer.close()
        stream.close()


class _Printer:
    """The events as one progress bar, on standard error."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="frame", disable=None, leave=True)

    def show(self, event: MapsEvent) -> None:
        from studio.events import FramesMapped

        if isinstance(event, FramesMapped):
            if self._bar.total != event.total:
                self._bar.reset(total=event.total)
            self._bar.set_description_str(event.what)
            self._bar.update(event.done - self._bar.n)
            self._bar.set_postfix_str(f"{event.eta_seconds:.0f} s left")

    def close(self) -> None:
        self._bar.close()


def _map_sets(chosen: argparse.Namespace) -> int:
    from studio.records.map_sets import MapSetStore
    from studio.records.runs import runs_folder

    store = MapSetStore(chosen.runs or runs_folder())
    if chosen.delete:
        store.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
        return 0
    for each in store.list():
        state = store.state_of(each)
        if chosen.json:
            folder = str(store.path(each.id))
            print_json({"id": each.id, "state": state, "folder": folder, "of": each.title, "maps": list(each.maps)})
        else:
            size = f"{each.width}×{each.height}×{each.num_frames}"
            print(f"{each.id}  {state:10}  {size:14}  {each.title[:32]:32}  {', '.join(each.maps)}")
    return 0
