"""The command line: the same verbs, requests and events as the page, printed.

    python -m studio generate --prompt "a red car on a rainy night" -o out.mp4
    python -m studio compare --prompt "a red car" --method adacache --method steps:15 -o compared
    python -m studio finetune a.mp4 b.mp4 --caption "a red car" --caption "a bus in the snow" --objective pixel
    python -m studio versions | rollback | presets | runs | doctor | download | world render | pocket train

Exit statuses: 0 done, 130 cancelled, 2 and above what went wrong (each error of `errors.py` names its own).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import studio
from studio.cache_settings import METHODS
from studio.errors import RequestError, StudioError

CANCELLED = 130
"""The shell's word for stopped by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; the number is the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "command"):
        parser.print_help()
        return 0
    try:
        return chosen.command(chosen)
    except StudioError as error:
        if getattr(chosen, "json", False):
            _print_json({"event": "Error"} | error.to_json())
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio", description="Dailies: fast, memory-lean video diffusion.")
    parser.add_argument("--version", action="version", version=f"dailies {studio.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_generate(commands)
    _add_compare(commands)
    _add_finetune(commands)
    _add_versions(commands)
    _add_rollback(commands)
    _add_calibrate(commands)
    _add_presets(commands)
    _add_runs(commands)
    _add_doctor(commands)
    _add_download(commands)
    _add_world(commands)
    _add_pocket(commands)
    return parser


def _add_command(
    commands: Any, name: str, command: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    parser.add_argument("--json", action="store_true", help="print JSON, one record a line")
    return parser


def _print_json(record: Any) -> None:
    print(json.dumps(record, ensure_ascii=False), flush=True)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    """What a clip is, beyond its prompt: fields of a request over the preset's defaults."""
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--num-frames", type=int)
    parser.add_argument("--fps", type=float)
    parser.add_argument("--num-inference-steps", "--steps", type=int, dest="num_inference_steps")
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--flow-shift", type=float)


# generate ------------------------------------------------------------------------------------------------------------


def _add_generate(commands: Any) -> None:
    parser = _add_command(commands, "generate", _generate, "make a clip from a prompt")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="what is to be seen")
    source.add_argument(
        "--settings", type=Path, metavar="FILE", help="do it again: an mp4 of the studio's, or its JSON"
    )
    parser.add_argument("--preset", default=None, help="name of the preset (default: pocket)")
    parser.add_argument("--negative-prompt")
    _add_sizes(parser)
    parser.add_argument("--seed", type=int, help="0 to 4294967295; chosen and printed when left out")
    parser.add_argument("--torch-dtype", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--offload", choices=("auto", "none", "model", "group", "sequential"))
    parser.add_argument("--vae-tiling", choices=("auto", "on", "off"))
    parser.add_argument("--quantization", choices=("auto", "none", "int8"))
    parser.add_argument(
        "--adapter",
        metavar="VERSION",
        help="a fine-tuned version, of those that `python -m studio versions` lists, or none; "
        "left out, the one that is promoted",
    )
    parser.add_argument("--cache", metavar="METHOD", help=f"reuse what hardly changes: off, {', '.join(METHODS)}")
    parser.add_argument(
        "--cache-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the cache, such as moreg=true or threshold=0.2; may be given several times",
    )
    parser.add_argument("-o", "--output", type=Path, help="copy the clip here")
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")
    parser.add_argument("--dry-run", action="store_true", help="print the request and what it would take")


_REQUEST_FIELDS = (
    "negative_prompt",
    "height",
    "width",
    "num_frames",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "flow_shift",
    "torch_dtype",
    "offload",
    "vae_tiling",
    "quantization",
    "adapter",
)


def _generate(chosen: argparse.Namespace) -> int:
    from studio import calibration
    from studio.events import RunFinished, RunStarted, event_to_json
    from studio.preset import find_preset
    from studio.request import check_request, request_to_json
    from studio.runs import RunStore, runs_folder

    request = _request(chosen)
    preset = find_preset(request.preset)
    check_request(request, preset)
    if chosen.output is not None and not chosen.output.resolve().parent.is_dir():
        raise RequestError(
            f"There is no folder {chosen.output.resolve().parent}.",
            field="--output",
            way_out="Make it, or write elsewhere.",
        )
    folder = chosen.runs or runs_folder()
    if chosen.dry_run:
        prediction = calibration.predict(request, folder)
        _print_json({"request": request_to_json(request), "prediction": asdict(prediction) if prediction else None})
        return 0

    from studio.generate import generate

    store = RunStore(folder)
    printer = _EventPrinter(request.num_inference_steps)
    keep = threading.Event()
    stream = generate(request, store=store, keep=keep)
    cancelled = _cancel_on_signal()
    run_id = ""
    try:
        for event in stream:
            if chosen.json:
                _print_json(event_to_json(event))
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
    if chosen.output is not None:
        shutil.copyfile(run.video, chosen.output)
    if not chosen.json:
        print(f"{chosen.output or run.video}  (run {run.id}, seed {request.seed})")
    return 0


def _request(chosen: argparse.Namespace) -> Any:
    """The request that the flags ask for: over a preset's defaults, or over the settings of an earlier clip."""
    from studio.clip import read_settings
    from studio.preset import find_preset
    from studio.request import read_request, request_for
    from studio.runs import request_in_settings, runs_folder
    from studio.versions import VersionStore

    fields = {name: getattr(chosen, name) for name in _REQUEST_FIELDS} | {"cache": _cache(chosen)}
    fields["adapter"] = None if chosen.adapter == "none" else chosen.adapter
    if chosen.settings is None:
        preset = find_preset(chosen.preset or "pocket")
        if chosen.adapter is None:
            promoted = VersionStore(chosen.runs or runs_folder()).promoted(preset.name)
            fields["adapter"] = promoted.id if promoted else None
        return request_for(preset, prompt=chosen.prompt, seed=chosen.seed, **fields)
    if not chosen.settings.is_file():
        raise RequestError(
            f"There is no file {chosen.settings}.", field="--settings", way_out="Name a clip the studio made."
        )
    if chosen.settings.suffix == ".json":
        written: Any = json.loads(chosen.settings.read_text(encoding="utf-8"))
    else:
        written = read_settings(chosen.settings)
    if not isinstance(written, dict):
        raise RequestError(
            f"{chosen.settings.name} carries no settings.", field="--settings", way_out="Choose a clip the studio made."
        )
    earlier = request_in_settings(written)
    over = {"preset": chosen.preset, "seed": chosen.seed} | fields
    if chosen.cache == "off":
        earlier = earlier.model_copy(update={"cache": None})
    if chosen.adapter == "none":
        earlier = earlier.model_copy(update={"adapter": None})
    return read_request(earlier.model_dump() | {name: value for name, value in over.items() if value is not None})


def _cache(chosen: argparse.Namespace) -> dict[str, Any] | None:
    """`--cache METHOD` with its `--cache-option NAME=VALUE`s; values are JSON where they can be."""
    if chosen.cache in (None, "off"):
        if chosen.cache_option:
            raise RequestError(
                "--cache-option needs a cache.",
                field="--cache-option",
                way_out=f"Add --cache, of {', '.join(METHODS)}.",
            )
        return None
    record: dict[str, Any] = {"method": chosen.cache}
    for option in chosen.cache_option:
        name, sign, value = option.partition("=")
        if not sign:
            raise RequestError(f"{option!r} is no NAME=VALUE.", field="--cache-option", way_out="Write moreg=true.")
        try:
            record[name] = json.loads(value)
        except ValueError:
            record[name] = value
    return record


def _cancel_on_signal() -> threading.Event:
    """Ctrl-C is noted and the stream closed at the next event, so that the run is marked as what it is."""
    cancelled = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: cancelled.set())
        signal.signal(signal.SIGTERM, lambda *_: cancelled.set())
    return cancelled


class _EventPrinter:
    """A generation's events as one progress bar and a line for each stage, on standard error."""

    def __init__(self, total_steps: int) -> None:
        from tqdm import tqdm

        self._bar: tqdm[Any] = tqdm(total=total_steps, unit="step", disable=None, leave=True)

    def show(self, event: Any) -> None:
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


# compare -------------------------------------------------------------------------------------------------------------

_COMPARED_FIELDS = ("height", "width", "num_frames", "fps", "num_inference_steps", "guidance_scale", "flow_shift")


def _add_compare(commands: Any) -> None:
    parser = _add_command(commands, "compare", _compare, "hold faster ways of making a clip against the full one")
    parser.add_argument("--prompt", action="append", default=[], help="what is to be seen; may be given several times")
    parser.add_argument("--seed", action="append", type=int, default=[], help="may be given several times; 0 if not")
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="METHOD",
        help="adacache, budget:speedup=2, steps:15, set:guidance_scale=1 … may be given several times; "
        f"caches are {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--axis", action="append", default=[], metavar="FIELD=VALUE,VALUE", help="a further field to be varied"
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="make each cell so often, interleaved with its reference"
    )
    parser.add_argument("--preset", default="pocket", help="name of the preset (default: pocket)")
    _add_sizes(parser)
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume", metavar="ID", help="go on with a comparison that was stopped, failed cells included"
    )
    earlier.add_argument("--delete", metavar="ID", help="delete a comparison; its clips stay among the runs")
    parser.add_argument("-o", "--output", type=Path, help="folder for comparison.csv, .json and .html")
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")


def _compare(chosen: argparse.Namespace) -> int:
    from studio.compare import (
        CellFinished,
        CellStarted,
        Comparisons,
        Grid,
        compare,
        parse_axis,
        parse_method,
        summaries_of,
        tables,
        to_json,
    )
    from studio.preset import find_preset
    from studio.request import request_for
    from studio.runs import RunStore, runs_folder

    book = Comparisons(RunStore(chosen.runs or runs_folder()))
    if chosen.delete:
        book.delete(chosen.delete)
        if chosen.json:
            _print_json({"event": "ComparisonDeleted", "id": chosen.delete})
        else:
            print(f"deleted {chosen.delete}; its clips stay among the runs")
        return 0
    if chosen.resume:
        comparison = book.go_on(chosen.resume, again=True)
    else:
        if not chosen.prompt:
            raise RequestError("There is no prompt.", field="--prompt", way_out='Add --prompt "a red car".')
        fields = {name: getattr(chosen, name) for name in _COMPARED_FIELDS}
        seeds = tuple(chosen.seed) or (0,)
        base = request_for(find_preset(chosen.preset), prompt=chosen.prompt[0], seed=seeds[0], **fields)
        grid = Grid(
            base=base,
            prompts=tuple(chosen.prompt),
            seeds=seeds,
            methods=tuple(parse_method(text) for text in chosen.method),
            axes=tuple(parse_axis(text) for text in chosen.axis),
            repeats=chosen.repeats,
        )
        comparison = book.begin(grid)
    if chosen.output is not None:
        try:
            chosen.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"{chosen.output} cannot be made: {error.strerror}.", field="--output", way_out="Write elsewhere."
            ) from error

    from studio.generate import warm

    cancelled = _cancel_on_signal()
    # The first run would carry the loading and the first step's one-off costs, and it is the reference.
    warm(comparison.cells[0].request.preset, store=book.store)
    stream = compare(comparison, store=book.store)
    if not chosen.json:
        print(f"comparison {comparison.id}, {len(comparison.cells)} clips\n{tables.heading_line()}", flush=True)
    group = -1
    try:
        for event in stream:
            if isinstance(event, CellStarted) and event.cell.group != group and not chosen.json:
                group = event.cell.group
                print(f"-- {event.cell.request.prompt[:90]} · seed {event.cell.request.seed}", flush=True)
            if isinstance(event, CellFinished):
                comparison = event.comparison
                if chosen.json:
                    record = to_json(comparison)["cells"][event.cell.number]
                    _print_json({"event": "CellFinished", "of": len(comparison.cells), "cell": record})
                else:
                    print(tables.cell_line(comparison, event.cell), flush=True)
            if cancelled.is_set():
                stream.close()
                print(f"go on with --resume {comparison.id}", file=sys.stderr)
                raise KeyboardInterrupt
    finally:
        stream.close()
        if chosen.output is not None:
            _write_comparison(book.get(comparison.id), book.store, chosen.output)
    comparison = book.get(comparison.id)
    if chosen.json:
        _print_json({"event": "ComparisonFinished"} | json.loads(tables.to_json_text(comparison)))
    else:
        print()
        for line in summaries_of(comparison):
            print(tables.summary_line(line))
        if chosen.output is not None:
            print(f"{chosen.output / 'comparison.html'}, .csv and .json")
    return 1 if any(cell.state == "failed" for cell in comparison.cells) else 0


def _write_comparison(comparison: Any, store: Any, folder: Path) -> None:
    from studio.compare import tables
    from studio.storage import write_atomically

    for ending, text in (
        ("csv", tables.to_csv(comparison)),
        ("json", tables.to_json_text(comparison)),
        ("html", tables.to_html(comparison, store)),
    ):
        write_atomically(folder / f"comparison.{ending}", text.encode("utf-8"))


# finetune, versions, rollback ----------------------------------------------------------------------------------------

_NOT_A_FLAG = ("preset", "clips", "sample_prompts")


def _add_finetune(commands: Any) -> None:
    from studio.finetune_request import FinetuneRequest

    parser = _add_command(commands, "finetune", _finetune, "teach a model your own clips, as a version of it")
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
    for name, field in FinetuneRequest.model_fields.items():
        if name not in _NOT_A_FLAG:
            words = " ".join((field.description or "").split()).replace("%", "%%")
            parser.add_argument(f"--{name.replace('_', '-')}", metavar=name.upper(), help=words)
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")
    parser.add_argument("--dry-run", action="store_true", help="read the clips and print what would be trained on")
    parser.add_argument("--forecast", action="store_true", help="measure two steps, and say what all would take")


def _finetune(chosen: argparse.Namespace) -> int:
    from studio.events import TrainingFinished, event_to_json
    from studio.finetune import finetune, go_on
    from studio.runs import RunStore, runs_folder
    from studio.versions import VersionStore

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
    cancelled = _cancel_on_signal()
    printer = _TrainingPrinter()
    version_id = ""
    leads = os.environ.get("RANK", "0") == "0"  # of several processes under torchrun, one speaks
    try:
        for event in stream:
            if leads and chosen.json:
                _print_json(event_to_json(event))
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


def _finetune_request(chosen: argparse.Namespace) -> Any:
    from studio.finetune.clips import caption_of
    from studio.finetune_request import FinetuneRequest, TrainingClip, finetune_request_for
    from studio.preset import find_preset

    if len(chosen.caption) > len(chosen.clip):
        raise RequestError(
            f"{len(chosen.caption)} captions were given for {len(chosen.clip)} clips.",
            field="--caption",
            way_out="Give one for each clip, in their order.",
        )
    paths = [*chosen.clip, *chosen.hold_out]
    captions = [*chosen.caption, *(caption_of(path) for path in paths[len(chosen.caption) :])]
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
    fields = {name: getattr(chosen, name) for name in FinetuneRequest.model_fields if name not in _NOT_A_FLAG}
    prompts = tuple(chosen.sample_prompt) or None
    return finetune_request_for(find_preset(chosen.preset), clips=clips, sample_prompts=prompts, **fields)


def _print_samples(request: Any) -> int:
    from studio.finetune.clips import samples_of
    from studio.finetune_request import check_finetune_request
    from studio.preset import find_preset

    check_finetune_request(request, find_preset(request.preset))
    samples, records, notices = samples_of(request)
    _print_json(
        {
            "request": request.model_dump(mode="json"),
            "clips": [asdict(record) for record in records],
            "samples": len(samples),
            "held_out": sum(sample.held_out for sample in samples),
            "notices": notices,
        }
    )
    return 0


def _print_forecast(request: Any, *, as_json: bool) -> int:
    from studio.finetune import forecast

    found = forecast(request)
    if as_json:
        _print_json(asdict(found))
        return 0
    print(
        f"{request.max_train_steps} steps of {found.step_seconds:.1f} s: {found.eta_seconds / 60:.1f} min, "
        f"scoring and samples not counted; {found.peak_bytes / 1e9:.1f} GB in all"
    )
    if found.decoder_bytes:
        print(
            f"held for the way through the decoder: {found.decoder_bytes / 1e6:.0f} MB; "
            f"by plain backpropagation: {found.full_decoder_bytes / 1e6:.0f} MB"
        )
    return 0


class _TrainingPrinter:
    """A training's events as one progress bar, and a line for what is worth one, on standard error."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: tqdm[Any] = tqdm(unit="step", disable=None, leave=True)

    def show(self, event: Any) -> None:
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


def _add_versions(commands: Any) -> None:
    parser = _add_command(commands, "versions", _versions, "list what fine-tuning made; promote, show or delete it")
    parser.add_argument("--preset", help="only versions of this preset")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--card", metavar="ID", help="print a version's model card")
    one.add_argument("--promote", metavar="ID", help="let new requests of its preset start from this version")
    one.add_argument("--delete", metavar="ID")
    one.add_argument("--push", metavar="ID", help="send a version's weights and card to the Hub")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="where --push sends it; made where there is none")
    parser.add_argument("--public", action="store_true", help="let everybody see a repository that --push makes")
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")


def _versions(chosen: argparse.Namespace) -> int:
    from studio.runs import runs_folder
    from studio.versions import VersionStore

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
                _print_json(_version_record(version, versions))
            else:
                print(_version_line(version, versions))
    return 0


def _version_record(version: Any, versions: Any) -> dict[str, Any]:
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


def _version_line(version: Any, versions: Any) -> str:
    told = _version_record(version, versions)
    gain = ""
    if version.scores and version.base_scores:
        gain = f"{version.base_scores.psnr:.2f} → {version.scores.psnr:.2f} dB"
        gain += ", WORSE than its base" if version.worse_than_base else ""
    mark = "*" if told["promoted"] else " "
    return f"{mark} {version.id}  {told['preset']:12}  {told['state']:9}  {version.title[:40]:40}  {gain}".rstrip()


def _add_rollback(commands: Any) -> None:
    parser = _add_command(commands, "rollback", _rollback, "undo the last promotion of a preset's version")
    parser.add_argument("preset", help="name of the preset")
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")


def _rollback(chosen: argparse.Namespace) -> int:
    from studio.runs import runs_folder
    from studio.versions import VersionStore

    version = VersionStore(chosen.runs or runs_folder()).roll_back(chosen.preset)
    print(f"{chosen.preset} starts from {version.id if version else 'the model as it came'} now")
    return 0


# presets, runs, doctor, download -------------------------------------------------------------------------------------


def _add_presets(commands: Any) -> None:
    parser = _add_command(commands, "presets", _presets, "list the models, and whether this machine can run them")
    parser.add_argument("name", nargs="?", help="show one preset whole")


def _presets(chosen: argparse.Namespace) -> int:
    from studio import machine, weights
    from studio.preset import find_preset, list_presets

    here = machine.measure()
    if chosen.name:
        presets, faults = [find_preset(chosen.name)], []
    else:
        presets, faults = list_presets()
    for preset in presets:
        verdict, state = machine.verdict(preset, here), weights.state(preset)
        if chosen.json:
            _print_json(preset.model_dump(mode="json") | {"verdict": asdict(verdict), "weights_state": state.kind})
        elif chosen.name:
            print(f"{preset.title} ({preset.name})\n{preset.summary}\n")
            print(f"here:     {'fits' if verdict.fits else 'does not fit'}: {verdict.why}")
            print(f"weights:  {state.kind}\nlicence:  {preset.weights.licence}. {preset.weights.licence_note}")
            for field, value in preset.defaults.model_dump(exclude={"prompts"}).items():
                print(f"{field + ':':22}{value}")
            print(f"\n{preset.notes}")
        else:
            print(f"{preset.name:20} {'fits' if verdict.fits else '–':5} {state.kind:9} {preset.title}")
    for fault in faults:
        print(f"unreadable: {fault}", file=sys.stderr)
    return 0


def _add_runs(commands: Any) -> None:
    parser = _add_command(commands, "runs", _runs, "list, search, show or delete what was made")
    parser.add_argument("search", nargs="?", default="", help="words of the prompt, a preset's name or a run's id")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--show", metavar="ID", help="one run whole, as JSON")
    parser.add_argument("--delete", metavar="ID")
    parser.add_argument("--rebuild", action="store_true", help="make the index anew from the folders")
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")


def _runs(chosen: argparse.Namespace) -> int:
    from studio.runs import RunStore, runs_folder

    store = RunStore(chosen.runs or runs_folder())
    if chosen.rebuild:
        print(f"{store.rebuild()} runs indexed")
    elif chosen.delete:
        store.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
    elif chosen.show:
        print((store.get(chosen.show).folder / "run.json").read_text(encoding="utf-8"))
    else:
        for run in store.search(chosen.search, limit=chosen.limit):
            state = f"{run.state} (partial)" if run.partial else run.state
            if chosen.json:
                _print_json(
                    {"id": run.id, "state": state, "folder": str(run.folder), "request": run.request.model_dump()}
                )
            else:
                print(f"{run.id}  {state:18}  {run.request.preset:12}  {run.request.prompt[:60]}")
    return 0


def _add_doctor(commands: Any) -> None:
    _add_command(commands, "doctor", _doctor, "what this machine can run, and why not")


def _doctor(chosen: argparse.Namespace) -> int:
    from studio.doctor import examine

    findings = examine()
    for finding in findings:
        if chosen.json:
            _print_json(asdict(finding))
        else:
            print(finding)
    return 0


def _add_download(commands: Any) -> None:
    parser = _add_command(commands, "download", _download, "fetch a preset's weights from the Hub")
    parser.add_argument("name", help="the preset")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, fetch nothing")


def _download(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from studio import weights
    from studio.preset import find_preset

    preset = find_preset(chosen.name)
    plan = weights.plan_download(preset)
    if chosen.json:
        _print_json(asdict(plan))
    else:
        print(
            f"{preset.title}: {plan.missing_bytes / 1e9:.1f} of {plan.total_bytes / 1e9:.1f} GB to fetch, "
            f"{plan.free_bytes / 1e9:.1f} GB free, licence {preset.weights.licence}. {preset.weights.licence_note}"
        )
    if chosen.dry_run:
        return 0
    cancelled = _cancel_on_signal()
    with tqdm(total=plan.missing_bytes, unit="B", unit_scale=True, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        folder = weights.download(preset, on_progress=show, cancelled=cancelled.is_set)
    print(folder)
    return 0


# calibrate -----------------------------------------------------------------------------------------------------------


def _add_calibrate(commands: Any) -> None:
    parser = _add_command(commands, "calibrate", _calibrate, "measure a model once, so that caches know it")
    parser.add_argument("name", help="the preset")
    parser.add_argument("--prompt", action="append", default=[], help="what to make; may be given several times")
    parser.add_argument("--clips", type=int, default=4, help="whole clips: more hold for more prompts (default: 4)")
    parser.add_argument(
        "--growth-clips", type=int, default=3, help="of how many the growth of errors is measured (default: 3)"
    )
    parser.add_argument("--num-inference-steps", "--steps", type=int, dest="num_inference_steps")
    parser.add_argument("--flow-shift", type=float)
    parser.add_argument("--folder", type=Path, help="where the profile goes (default: profiles/ in the runs folder)")


def _calibrate(chosen: argparse.Namespace) -> int:
    from studio.calibrate import Calibrated, calibrate
    from studio.generate import PROFILES
    from studio.preset import find_preset
    from studio.runs import runs_folder

    preset = find_preset(chosen.name)
    told = calibrate(
        preset,
        folder=chosen.folder or runs_folder() / PROFILES,
        clips=chosen.clips,
        growth_clips=chosen.growth_clips,
        prompts=chosen.prompt,
        num_inference_steps=chosen.num_inference_steps,
        flow_shift=chosen.flow_shift,
    )
    for event in told:
        if isinstance(event, Calibrated):
            if chosen.json:
                _print_json({"event": "Calibrated", "path": str(event.path), "plot": str(event.plot)})
            else:
                print(f"{event.path}  (a skipped step costs {event.profile.skipped_share:.1%} of a computed one)")
        elif chosen.json:
            _print_json({"event": "CalibrationStep"} | asdict(event))
        else:
            print(f"{event.done}/{event.total}  {event.what}", flush=True)
    return 0


# world, pocket -------------------------------------------------------------------------------------------------------


def _add_world(commands: Any) -> None:
    parser = commands.add_parser("world", help="the driving world: render a scene from a seed")
    world = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    render = _add_command(world, "render", _world_render, "render a scene to an mp4, with its control maps if asked")
    render.add_argument("--seed", type=int, required=True)
    render.add_argument("--height", type=int, default=256)
    render.add_argument("--width", type=int, default=256)
    render.add_argument("--num-frames", type=int, default=49)
    render.add_argument("--fps", type=float, default=12.0)
    render.add_argument("--maps", type=Path, metavar="FILE", help="write the control maps here, as .npz")
    render.add_argument("-o", "--output", type=Path, required=True)


def _world_render(chosen: argparse.Namespace) -> int:
    import numpy as np

    from studio import driving_world
    from studio.clip import write_clip

    size = {name: getattr(chosen, name) for name in ("height", "width", "num_frames", "fps")}
    scene = driving_world.sample_scene(chosen.seed)
    if chosen.maps is None:
        clip = driving_world.render(scene, **size)
    else:
        clip, maps = driving_world.render_with_maps(scene, **size)
        written: dict[str, Any] = {name: value for name, value in vars(maps).items() if isinstance(value, np.ndarray)}
        written["boxes"] = json.dumps([[asdict(box) for box in frame] for frame in maps.boxes or ()])
        written["semantic_labels"] = list(maps.semantic_labels)
        np.savez_compressed(chosen.maps, **written)
    write_clip(clip, chosen.output, settings={"world": {"seed": chosen.seed, **size}, "caption": clip.caption})
    if chosen.json:
        _print_json(
            {"output": str(chosen.output), "caption": clip.caption, "attributes": driving_world.attributes(scene)}
        )
    else:
        print(f"{chosen.output}: {clip.caption}")
    return 0


def _add_pocket(commands: Any) -> None:
    parser = commands.add_parser("pocket", help="the pocket models: train them from nothing")
    pocket = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train = pocket.add_parser("train", help="train or go on training", description="Train a pocket model from nothing.")
    from studio.pocket.train import add_arguments

    add_arguments(train)
    train.set_defaults(command=_pocket_train)


def _pocket_train(chosen: argparse.Namespace) -> int:
    from studio.pocket import train

    return train.main(chosen)


if __name__ == "__main__":
    sys.exit(main())
