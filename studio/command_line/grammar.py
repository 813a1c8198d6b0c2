"""How every command is spelled, stopped and answered in JSON.

Knows argparse, signals, standard output and how a model's fields are flags. Refuses to know what any command does.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel

from studio.clips.reference import FileReference, reference_to
from studio.errors import RequestError
from studio.requests.fields import choices_of, help_of, kinds_of, may_be_none

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command is added; argparse keeps the name to itself."""
SHORT = {"num_inference_steps": ("--steps",), "conditioning_scale": ("--strength",)}
"""Other spellings of a field's flag."""


def add_command(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    parser.add_argument("--json", action="store_true", help="print JSON, one record a line")
    return parser


def print_json(record: object) -> None:
    print(json.dumps(record, ensure_ascii=False), flush=True)


def add_fields(parser: argparse.ArgumentParser, model: type[BaseModel], *, leave_out: Collection[str] = ()) -> None:
    """A flag for each field of a model, explained in its own words; what is typed is the model's to judge."""
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        flags = [f"--{name.replace('_', '-')}", *SHORT.get(name, ())]
        words = "{" + ",".join(choices_of(field)) + "}" if choices_of(field) else name.upper()
        metavar = "FILE" if FileReference in kinds_of(field) else words
        parser.add_argument(*flags, dest=name, metavar=metavar, help=help_of(field).replace("%", "%%"))


def typed_fields(
    chosen: argparse.Namespace, model: type[BaseModel], *, leave_out: Collection[str] = ()
) -> dict[str, object]:
    """What was typed for a model's fields, as a record for it; `none` empties a field that may be empty.

    Raises:
        RequestError: a file that is not there.
    """
    typed = {name: getattr(chosen, name) for name in model.model_fields if name not in leave_out}
    return {name: _value(text, name, model) for name, text in typed.items() if text is not None}


def _value(text: str, name: str, model: type[BaseModel]) -> FileReference | str | None:
    field = model.model_fields[name]
    if text == "none" and may_be_none(field):
        return None
    return reference_to(Path(text), field=name) if FileReference in kinds_of(field) else text


def add_runs_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")


def cancel_on_signal() -> threading.Event:
    """Ctrl-C is noted and the stream closed at the next event, so that the run is marked as what it is."""
    cancelled = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: cancelled.set())
        signal.signal(signal.SIGTERM, lambda *_: cancelled.set())
    return cancelled


def make_output_folder(folder: Path) -> None:
    """Make the folder that files are to be written to, where it is not there. Raises RequestError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"{folder} cannot be made: {error.strerror}.", field="--output", way_out="Name another folder with -o."
        ) from error


def check_video_output(output: Path | None, *, way_out: str = "Name it so.") -> None:
    """Refuse a place that a video cannot be copied to, before it is made. Raises RequestError."""
    if output is None:
        return
    if output.suffix != ".mp4":
        raise RequestError(f"{output.name} must end in .mp4.", field="--output", value=str(output), way_out=way_out)
    if not output.resolve().parent.is_dir():
        raise RequestError(
            f"There is no folder {output.resolve().parent}.", field="--output", way_out="Make it, or write elsewhere."
        )
