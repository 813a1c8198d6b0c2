"""`generate`: flags become a request, its events a progress bar."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
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
from studio.requests.caches import METHODS, parse_cache
from studio.requests.generation import GenerationRequest

if TYPE_CHECKING:
    from studio.events import GenerationEvent
    from studio.preset import Preset
    from studio.records.runs import RunStore

_SPELLED_HERE = ("prompt", "preset", "adapter", "cache")
"""Fields whose flags say more than the field does."""


def add_generate(commands: Commands) -> None:
    parser = add_command(commands, "generate", _generate, "make a clip from a prompt")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--prompt", help="what is to be seen")
    start.add_argument("--settings", type=Path, metavar="FILE", help="do it again: an mp4 of the studio's, or its JSON")
    parser.add_argument("--preset", help="name of the preset (default: pocket)")
    add_fields(parser, GenerationRequest, leave_out=_SPELLED_HERE)
    add_adapter_and_cache(parser)
    parser.add_argument("-o", "--output", type=Path, help="copy the clip here")
    add_runs_folder(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the request and what it would take")


def add_adapter_and_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapter",
        metavar="VERSION",
        help="a fine-tuned version, of those that `python -m studio versions` lists, or none; "
        "left out, the one that is promoted",
    )
    parser.add_argument(
        "--cache",
        metavar="METHOD[:NAME=VALUE,…]",
        help=f"reuse what hardly changes, such as budget:speedup=2: off, {', '.join(METHODS)}",
    )


def _generate(chosen: argparse.Namespace) -> int:
    from studio.machine import pace
    from studio.preset import find_preset
    from studio.records.runs import RunStore, runs_folder
    from studio.requests.checks import check_request
    from studio.requests.generation import request_to_json

    request = _request(chosen)
    preset = find_preset(request.preset)
    check_request(request, preset)
    check_output(chosen.output)
    folder = chosen.runs or runs_folder()
    if chosen.dry_run:
        prediction = pace.predict(request, folder)
        print_json({"request": request_to_json(request), "prediction": asdict(prediction) if prediction else None})
        return 0
    return make_clip(request, store=RunStore(folder), output=chosen.output, as_json=chosen.json)


def check_output(output: Path | None) -> None:
    """Raises RequestError where a clip is to be copied into a folder that is not there."""
    if output is not None and not output.resolve().parent.is_dir():
        raise RequestError(
            f"There is no folder {output.resolve().parent}.", field="--output", way_out="Make it, or write elsewhere."
        )


def make_clip(request: GenerationRequest, *, store: RunStore, output: Path | None, as_json: bool) -> int:
    """Make a clip, telling how far it is.

    Raises:
        KeyboardInterrupt: it was stopped.
        StudioError: as `generate` does.
    """
    from studio.events import RunFinished, RunStarted, event_to_json
    from studio.generate import generate

    printer = _EventPrinter(request.num_inference_steps)
    stream = generate(request, store=store)
    cancelled = cancel_on_signal()
    run_id = ""
    try:
        for event in stream:
            if as_json:
                print_json(event_to_json(event))
            else:
                printer.show(event)
            if isinstance(event, (RunStarted, RunFinished)):
                run_id = event.run_id
            if cancelled.is_set():
                stream.close()
                raise KeyboardInterrupt
    finally:
        printer.close()
        stream.close()
    run = store.get(run_id)
    if output is not None:
        shutil.copyfile(run.video, output)
    if not as_json:
        print(f"{output or run.video}  (run {run.id}, seed {request.seed})")
    return 0


def _request(chosen: argparse.Namespace) -> GenerationRequest:
    """The request that the flags ask for: over a preset's defaults, or over the settings of an earlier clip."""
    from studio.preset import find_preset
    from studio.requests.fields import defaults_of
    from studio.requests.generation import new_seed, read_request

    typed = typed_fields(chosen, GenerationRequest, leave_out=("cache",)) | typed_cache(chosen)
    if chosen.settings is not None:
        return read_request(_earlier(chosen.settings).model_dump() | typed)
    preset = find_preset(chosen.preset or "pocket")
    start = {"preset": preset.name, "seed": new_seed(), "adapter": promoted_version(chosen, preset)}
    return read_request(start | defaults_of(preset, GenerationRequest) | typed)


def typed_cache(chosen: argparse.Namespace) -> dict[str, object]:
    """The cache, where one was typed, as a field of a request."""
    if chosen.cache is None:
        return {}
    return {"cache": None if chosen.cache == "off" else parse_cache(chosen.cache)}


def promoted_version(chosen: argparse.Namespace, preset: Preset) -> str | None:
    """The version of a preset that is used where none is named."""
    from studio.records.runs import runs_folder
    from studio.records.versions import VersionStore

    promoted = VersionStore(chosen.runs or runs_folder()).promoted(preset.name)
    return promoted.id if promoted else None


def _earlier(settings: Path) -> GenerationRequest:
    """The request in a clip of the studio's, or in its JSON."""
    from studio.clips.read import read_settings
    from studio.records.run import request_in_settings

    if not settings.is_file():
        raise RequestError(f"There is no file {settings}.", field="--settings", way_out="Name a clip the studio made.")
    if settings.suffix == ".json":
        written: object = json.loads(settings.read_text(encoding="utf-8"))
    else:
        written = read_settings(settings)
    if not isinstance(written, dict):
        raise RequestError(
            f"{settings.name} carries no settings.", field="--settings", way_out="Choose a clip the studio made."
        )
    return request_in_settings(written)


class _EventPrinter:
    """A generation's events as one progress bar and a line for each stage, on standard error."""

    def __init__(self, total_steps: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total_steps, unit="step", disable=None, leave=True)

    def show(self, event: GenerationEvent) -> None:
        from studio.events import Notice, RunStarted, StageStarted, StepFinished

        match event:
            case RunStarted():
                place = event.placement
                self._bar.write(f"{place.device_name}, {place.torch_dtype}", file=sys.stderr)
                if event.predicted_seconds is not None:
                    self._bar.write(f"about {event.predicted_seconds:.0f} s", file=sys.stderr)
            case StageStarted():
                self._bar.set_description(event.stage)
            case StepFinished():
                self._bar.update(1)
                self._bar.set_postfix_str(f"{event.seconds * 1000:.0f} ms/step, {event.eta_seconds:.0f} s left")
            case Notice():
                self._bar.write(event.text, file=sys.stderr)
            case _:
                pass

    def close(self) -> None:
        self._bar.close()
