"""`harmonise`: a vehicle is put into a clip, lit and shadowed. `insertions`: what became of them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from studio.command_line.grammar import (
    Commands,
    add_command,
    add_fields,
    add_runs_folder,
    cancel_on_signal,
    check_video_output,
    print_json,
    typed_fields,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from studio.events import InsertionEvent
    from studio.records.runs import RunStore
    from studio.requests.insertion import InsertionRequest


def add_harmonise(commands: Commands) -> None:
    from studio.requests.insertion import InsertionRequest

    parser = add_command(commands, "harmonise", _harmonise, "put a vehicle into a clip, lit and shadowed like the rest")
    parser.add_argument("clip", type=Path, help="the clip")
    add_fields(parser, InsertionRequest, leave_out=("source",))
    parser.add_argument("-o", "--output", type=Path, help="copy the result here (.mp4)")
    add_runs_folder(parser)


def add_insertions(commands: Commands) -> None:
    parser = add_command(commands, "insertions", _insertions, "list or delete the clips that a vehicle was put into")
    parser.add_argument("--delete", metavar="INSERTION")
    add_runs_folder(parser)


def _harmonise(chosen: argparse.Namespace) -> int:
    from studio.drive import begin_insertion
    from studio.records.insertions import RESULT, InsertionStore
    from studio.records.runs import RunStore, runs_folder

    check_video_output(chosen.output)
    store = RunStore(chosen.runs or runs_folder())
    insertion = begin_insertion(_request(chosen), store=store)
    _follow(insertion.id, store, as_json=chosen.json)
    insertions = InsertionStore(store.folder)
    made, path = insertions.get(insertion.id), insertions.path(insertion.id) / RESULT
    if chosen.output is not None:
        shutil.copyfile(path, chosen.output)
        path = chosen.output
    if chosen.json:
        print_json({"id": made.id, "path": str(path), "seconds": made.seconds, "notices": list(made.notices)})
        return 0
    for sentence in made.notices:
        print(sentence)
    print(f"{path}  (insertion {made.id})")
    return 0


def _request(chosen: argparse.Namespace) -> InsertionRequest:
    from studio.clips.reference import reference_to
    from studio.requests.insertion import InsertionRequest, read_insertion_request

    fields = typed_fields(chosen, InsertionRequest, leave_out=("source",))
    fields["source"] = reference_to(chosen.clip, field="clip")
    return read_insertion_request(fields)


def _follow(insertion_id: str, store: RunStore, *, as_json: bool) -> None:
    """The work, told as it goes.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    from tqdm import tqdm

    from studio.drive import insert
    from studio.events import event_to_json, never
    from studio.requests.work import InsertVehicle

    cancelled = cancel_on_signal()
    stream = insert(InsertVehicle(insertion_id=insertion_id), store=store, owner="local", stop=never)
    with tqdm(unit="frame", disable=True if as_json else None) as bar:
        try:
            for event in stream:
                if as_json:
                    print_json(event_to_json(event))
                else:
                    _show(event, bar)
                if cancelled.is_set():
                    raise KeyboardInterrupt
        finally:
            stream.close()


def _show(event: InsertionEvent, bar: tqdm) -> None:
    from studio.events import FramesHarmonised

    if isinstance(event, FramesHarmonised):
        bar.total = event.total
        bar.update(event.done - bar.n)
        bar.set_postfix_str(f"{event.eta_seconds:.0f} s left")


def _insertions(chosen: argparse.Namespace) -> int:
    from studio.records.insertions import InsertionStore
    from studio.records.runs import runs_folder

    store = InsertionStore(chosen.runs or runs_folder())
    if chosen.delete:
        store.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
        return 0
    for each in store.list():
        state = store.state_of(each)
        if chosen.json:
            print_json({"id": each.id, "state": state, "folder": str(store.path(each.id)), "of": each.title})
        else:
            size = f"{each.width}×{each.height}×{each.num_frames}"
            print(f"{each.id}  {state:10}  {size:14}  {each.title}")
    return 0
