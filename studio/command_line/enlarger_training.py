"""`finetune-enlarger`: sharp clips and flags become a version of a model that enlarges. `enlarger-versions`: those."""

from __future__ import annotations

import argparse
import sys
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

if TYPE_CHECKING:
    from studio.events import EnlargerTrainingEvent
    from studio.records.enlarger_versions import EnlargerVersion

_SPELLED_HERE = ("clips",)


def add_finetune_enlarger(commands: Commands) -> None:
    from studio.requests.enlarger_training import EnlargerTraining

    parser = add_command(
        commands, "finetune-enlarger", _finetune, "train a model that enlarges on your own sharp clips"
    )
    parser.add_argument("clip", nargs="*", type=Path, help="sharp clips; they are made smaller to learn from")
    parser.add_argument("--go-on", metavar="VERSION", help="go on with a training that was stopped")
    add_fields(parser, EnlargerTraining, leave_out=_SPELLED_HERE)
    add_runs_folder(parser)


def _finetune(chosen: argparse.Namespace) -> int:
    from studio.events import TrainingFinished, event_to_json, never
    from studio.finetune.enlarger import train
    from studio.records.enlarger_versions import EnlargerVersionStore
    from studio.records.runs import RunStore, runs_folder
    from studio.requests.work import TrainEnlarger

    store = RunStore(chosen.runs or runs_folder())
    version_id = chosen.go_on or _begun(chosen, store).id
    cancelled = cancel_on_signal()
    printer = _Printer()
    work = TrainEnlarger(version_id=version_id)
    finished: TrainingFinished | None = None
    try:
        for event in train(work, store=store, owner="local", stop=lambda: "cancel" if cancelled.is_set() else never()):
            if chosen.json:
                print_json(event_to_json(event))
            else:
                printer.show(event)
            if isinstance(event, TrainingFinished):
                finished = event
    finally:
        printer.close()
    if finished is None:
        print(f"stopped; go on with --go-on {version_id}", file=sys.stderr)
        raise KeyboardInterrupt
    if not chosen.json:
        version = EnlargerVersionStore(store.folder).get(version_id)
        print(
            f"{_line(version, 'complete')}\nuse it: python -m studio upscale CLIP --method {version.request.method} "
            f"--adapter {version_id}" + (" --restore true" if version.request.restore else "")
        )
    return 0


def _begun(chosen: argparse.Namespace, store: object) -> EnlargerVersion:
    from studio.clips.reference import reference_to
    from studio.errors import RequestError
    from studio.finetune.enlarger_verb import begin
    from studio.records.runs import RunStore
    from studio.requests.enlarger_training import EnlargerTraining, read_enlarger_training

    if not chosen.clip:
        raise RequestError("No clip was given.", field="clip", way_out="Name one or more, or --go-on with a version.")
    fields = typed_fields(chosen, EnlargerTraining, leave_out=_SPELLED_HERE)
    clips = tuple(reference_to(path, field="clip") for path in chosen.clip)
    assert isinstance(store, RunStore)
    return begin(read_enlarger_training({"clips": clips} | fields), store=store)


class _Printer:
    """The events as one progress bar, and a line for what is worth one, on standard error."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="step", disable=None, leave=True)

    def show(self, event: EnlargerTrainingEvent) -> None:
        from studio import events

        match event:
            case events.EnlargerTrainingStarted():
                self._bar.total, self._bar.n = event.total_steps, event.first_step
                self._say(f"version {event.version_id}: {event.samples} samples, {event.held_out} held out")
            case events.TrainingStage():
                self._bar.set_description(event.stage)
            case events.EnlargerTrainingStep():
                self._bar.set_description("training")
                self._bar.update(event.step - self._bar.n)
                self._bar.set_postfix_str(f"{event.loss:.1%} of the filter's error, {event.eta_seconds:.0f} s left")
            case events.EnlargerScored():
                figures = ", ".join(f"{scale}× {psnr:.2f} dB" for scale, psnr in event.psnr.items())
                self._say(f"step {event.step}: {figures}")
            case events.Notice():
                self._say(event.text)
            case _:
                pass

    def _say(self, words: str) -> None:
        self._bar.write(words, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def add_enlarger_versions(commands: Commands) -> None:
    parser = add_command(commands, "enlarger-versions", _versions, "list or delete what finetune-enlarger made")
    parser.add_argument("--delete", metavar="VERSION")
    add_runs_folder(parser)


def _versions(chosen: argparse.Namespace) -> int:
    from studio.records.enlarger_versions import EnlargerVersionStore
    from studio.records.runs import runs_folder

    versions = EnlargerVersionStore(chosen.runs or runs_folder())
    if chosen.delete:
        versions.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
        return 0
    for version in versions.list():
        state = versions.state_of(version)
        if chosen.json:
            figures = {"base_psnr": version.base_psnr, "psnr": version.psnr, "step": version.step}
            print_json(
                {"id": version.id, "title": version.title, "state": state, "method": version.request.method} | figures
            )
        else:
            print(_line(version, state))
    return 0


def _line(version: EnlargerVersion, state: str) -> str:
    gains = ", ".join(
        f"{scale}× {before:.2f} → {version.psnr[scale]:.2f} dB"
        for scale, before in version.base_psnr.items()
        if scale in version.psnr
    )
    worse = ", WORSE than its base" if version.worse_than_base else ""
    return f"{version.id}  {state:9}  {version.request.method:8}  {version.title[:40]:40}  {gains}{worse}".rstrip()
