"""`finetune`: clips and flags become a version. `versions` and `rollback`: what becomes of it."""

from __future__ import annotations

import argparse
import os
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
from studio.errors import ClipError, RequestError

if TYPE_CHECKING:
    from studio.events import Event
    from studio.records.versions import Version, VersionStore
    from studio.requests.training import FinetuneRequest

_SPELLED_HERE = ("preset", "clips", "sample_prompts")
"""Fields whose flags say more than the field does."""


def add_finetune(commands: Commands) -> None:
    from studio.requests.training import FinetuneRequest

    parser = add_command(commands, "finetune", _finetune, "teach a model your own clips, as a version of it")
    parser.add_argument("clip", nargs="*", type=Path, help="what to learn from: MP4, WebM, MOV or MKV files")
    parser.add_argument("--preset", default="pocket", help="name of the preset (default: pocket)")
    parser.add_argument(
        "--caption",
        action="append",
        default=[],
        help="what is to be seen, once for each clip in their order; left out, the clip's own prompt or file name",
    )
    parser.add_argument("--hold-out", action="append", type=Path, default=[], metavar="CLIP", help="only score on it")
    parser.add_argument("--origin", default="", help="where the clips come from, for the record")
    parser.add_argument("--licence", default="", help="under which terms they may be used, for the record")
    parser.add_argument("--sample-prompt", action="append", default=[], help="generated before and after")
    parser.add_argument("--go-on", metavar="VERSION", help="go on with a version that was stopped, instead")
    add_fields(parser, FinetuneRequest, leave_out=_SPELLED_HERE)
    add_runs_folder(parser)
    parser.add_argument("--dry-run", action="store_true", help="read the clips and print what would be trained on")
    parser.add_argument("--forecast", action="store_true", help="measure two steps, and say what all would take")


def _finetune(chosen: argparse.Namespace) -> int:
    from studio.events import TrainingFinished, event_to_json
    from studio.finetune import finetune, go_on
    from studio.records.runs import RunStore, runs_folder
    from studio.records.versions import VersionStore

    store = RunStore(chosen.runs or runs_folder())
    if chosen.go_on:
        stream = go_on(chosen.go_on, store=store)
    else:
        request = _finetune_request(chosen)
        if chosen.dry_run:
            return _print_samples(request)
        if chosen.forecast:
            return _print_forecast(request, as_json=chosen.json)
        stream = finetune(request, store=store)
    cancelled = cancel_on_signal()
    printer = _TrainingPrinter()
    version_id = ""
    leads = os.environ.get("RANK", "0") == "0"  # of several processes under torchrun, one speaks
    try:
        for event in stream:
            if leads and chosen.json:
                print_json(event_to_json(event))
            elif leads:
                printer.show(event)
            version_id = getattr(event, "version_id", version_id)
            if cancelled.is_set() and not isinstance(event, TrainingFinished):
                stream.close()
                print(f"stopped; go on with --go-on {version_id}" if version_id else "stopped", file=sys.stderr)
                raise KeyboardInterrupt
    finally:
        printer.close()
        stream.close()
    versions = VersionStore(store.folder)
    version = versions.get(version_id)
    if leads and not chosen.json:
        print(f"{_version_line(version, versions)}\n{versions.path(version_id)}")
        print(f"use it with: python -m studio generate --preset {version.request.preset} --adapter {version_id} …")
    return 0


def _finetune_request(chosen: argparse.Namespace) -> FinetuneRequest:
    from studio.preset import find_preset
    from studio.requests.training import FinetuneRequest, TrainingClip, finetune_request_for

    if len(chosen.caption) > len(chosen.clip):
        raise RequestError(
            f"{len(chosen.caption)} captions were given for {len(chosen.clip)} clips.",
            field="--caption",
            way_out="Give one for each clip, in their order.",
        )
    paths = [*chosen.clip, *chosen.hold_out]
    captions = [*chosen.caption, *(_caption_of(path) for path in paths[len(chosen.caption) :])]
    clips = tuple(
        TrainingClip(
            path=path.absolute(),
            caption=caption,
            origin=chosen.origin,
            licence=chosen.licence,
            held_out=True if path in chosen.hold_out else None,
        )
        for path, caption in zip(paths, captions, strict=True)
    )
    fields = typed_fields(chosen, FinetuneRequest, leave_out=_SPELLED_HERE)
    prompts = tuple(chosen.sample_prompt) or None
    return finetune_request_for(find_preset(chosen.preset), clips=clips, sample_prompts=prompts, **fields)


def _caption_of(path: Path) -> str:
    from studio.clips.read import read_settings
    from studio.finetune.clips import caption_of

    try:
        return caption_of(path, read_settings(path))
    except ClipError:
        return caption_of(path, None)


def _print_samples(request: FinetuneRequest) -> int:
    from studio.finetune.clips import samples_of
    from studio.preset import find_preset
    from studio.requests.training import check_finetune_request

    check_finetune_request(request, find_preset(request.preset))
    samples, records, notices = samples_of(request)
    print_json(
        {
            "request": request.model_dump(mode="json"),
            "clips": [asdict(record) for record in records],
            "samples": len(samples),
            "held_out": sum(sample.held_out for sample in samples),
            "notices": notices,
        }
    )
    return 0


def _print_forecast(request: FinetuneRequest, *, as_json: bool) -> int:
    from studio.finetune import forecast

    predicted = forecast(request)
    if as_json:
        print_json(asdict(predicted))
        return 0
    print(
        f"{request.max_train_steps} steps of {predicted.step_seconds:.1f} s: {predicted.eta_seconds / 60:.1f} min, "
        f"scoring and samples not counted; {predicted.peak_bytes / 1e9:.1f} GB in all"
    )
    if predicted.decoder_bytes:
        print(
            f"held for the way through the decoder: {predicted.decoder_bytes / 1e6:.0f} MB; "
            f"by plain backpropagation: {predicted.full_decoder_bytes / 1e6:.0f} MB"
        )
    return 0


class _TrainingPrinter:
    """A training's events as one progress bar, and a line for what is worth one, on standard error."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="step", disable=None, leave=True)

    def show(self, event: Event) -> None:
        from studio import events

        match event:
            case events.TrainingStarted():
                self._bar.total, self._bar.n = event.total_steps, event.first_step
                self._say(f"version {event.version_id}: {event.samples} samples, {event.held_out} of them held out")
            case events.TrainingStage():
                self._bar.set_description(f"{event.stage} {event.done}/{event.total}" if event.total else event.stage)
            case events.TrainingForecast():
                self._say(f"{event.step_seconds:.1f} s a step, {event.eta_seconds / 60:.1f} min to go")
                if event.decoder_bytes:
                    held, full = event.decoder_bytes / 1e6, event.full_decoder_bytes / 1e6
                    self._say(f"held for the decoder: {held:.0f} MB; by plain backpropagation: {full:.0f} MB")
            case events.TrainingStep():
                self._bar.set_description("training")
                self._bar.update(event.step - self._bar.n)
                self._bar.set_postfix_str(f"loss {event.loss:.4f}, {event.eta_seconds:.0f} s left")
            case events.TrainingScored():
                self._say(f"step {event.step}: {event.psnr:.2f} dB, objective {event.objective:.4f}")
            case events.TrainingSample():
                self._say(f"step {event.step}: {event.path}")
            case events.Notice():
                self._say(event.text)
            case _:
                pass

    def _say(self, words: str) -> None:
        self._bar.write(words, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def add_versions(commands: Commands) -> None:
    parser = add_command(commands, "versions", _versions, "list what fine-tuning made; promote, show or delete it")
    parser.add_argument("--preset", help="only versions of this preset")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--card", metavar="ID", help="print a version's model card")
    one.add_argument("--promote", metavar="ID", help="let new requests of its preset start from this version")
    one.add_argument("--delete", metavar="ID")
    one.add_argument("--push", metavar="ID", help="send a version's weights and card to the Hub")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="where --push sends it; made where there is none")
    parser.add_argument("--public", action="store_true", help="let everybody see a repository that --push makes")
    add_runs_folder(parser)


def _versions(chosen: argparse.Namespace) -> int:
    from studio.records.runs import runs_folder
    from studio.records.versions import VersionStore

    versions = VersionStore(chosen.runs or runs_folder())
    if chosen.card:
        path = versions.path(versions.get(chosen.card).id) / "README.md"
        if not path.is_file():
            raise RequestError(
                f"Version {chosen.card} has no card yet.", field="--card", way_out="Let it train to its end."
            )
        print(path.read_text(encoding="utf-8"))
    elif chosen.promote:
        version = versions.promote(chosen.promote)
        print(f"{version.request.preset} starts from {version.id} now")
    elif chosen.delete:
        versions.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
    elif chosen.push:
        from studio.finetune.publish import publish

        if not chosen.repo:
            raise RequestError("There is no repository.", field="--repo", way_out="Add --repo owner/name.")
        print(publish(chosen.push, chosen.repo, versions=versions, private=not chosen.public))
    else:
        for version in versions.list(preset=chosen.preset):
            if chosen.json:
                print_json(_version_record(version, versions))
            else:
                print(_version_line(version, versions))
    return 0


def _version_record(version: Version, versions: VersionStore) -> dict[str, object]:
    promoted = versions.promoted(version.request.preset)
    return {
        "id": version.id,
        "title": version.title,
        "preset": version.request.preset,
        "state": versions.state_of(version),
        "step": version.step,
        "scores": asdict(version.scores) if version.scores else None,
        "base_scores": asdict(version.base_scores) if version.base_scores else None,
        "worse_than_base": version.worse_than_base,
        "promoted": promoted is not None and promoted.id == version.id,
        "folder": str(versions.path(version.id)),
    }


def _version_line(version: Version, versions: VersionStore) -> str:
    record = _version_record(version, versions)
    gain = ""
    if version.scores and version.base_scores:
        gain = f"{version.base_scores.psnr:.2f} → {version.scores.psnr:.2f} dB"
        gain += ", WORSE than its base" if version.worse_than_base else ""
    mark = "*" if record["promoted"] else " "
    return f"{mark} {version.id}  {record['preset']:12}  {record['state']:9}  {version.title[:40]:40}  {gain}".rstrip()


def add_rollback(commands: Commands) -> None:
    parser = add_command(commands, "rollback", _rollback, "undo the last promotion of a preset's version")
    parser.add_argument("preset", help="name of the preset")
    add_runs_folder(parser)


def _rollback(chosen: argparse.Namespace) -> int:
    from studio.records.runs import runs_folder
    from studio.records.versions import VersionStore

    version = VersionStore(chosen.runs or runs_folder()).roll_back(chosen.preset)
    print(f"{chosen.preset} starts from {version.id if version else 'the model as it came'} now")
    return 0
