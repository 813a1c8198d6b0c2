"""`presets`, `download`, `calibrate`, `doctor`: the models, and what this machine makes of them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from studio.command_line.grammar import Commands, add_command, add_fields, cancel_on_signal, print_json, typed_fields
from studio.requests.generation import read_as
from studio.requests.work import ProfileModel


def add_presets(commands: Commands) -> None:
    parser = add_command(commands, "presets", _presets, "list the models, and whether this machine can run them")
    parser.add_argument("name", nargs="?", help="show one preset whole")


def _presets(chosen: argparse.Namespace) -> int:
    from studio.machine import hardware, weights
    from studio.machine.placement import verdict
    from studio.preset import EnlargerPreset, find_any, list_enlargers, list_presets

    here = hardware.measure()
    if chosen.name:
        presets, faults = [find_any(chosen.name)], []
    else:
        clip_makers, enlargers = list_presets(), list_enlargers()
        presets, faults = [*clip_makers[0], *enlargers[0]], [*clip_makers[1], *enlargers[1]]
    for preset in presets:
        fit, state = verdict(preset, here), weights.state(preset)
        if chosen.json:
            print_json(preset.model_dump(mode="json") | {"verdict": asdict(fit), "weights_state": state.kind})
        elif chosen.name:
            print(f"{preset.title} ({preset.name})\n{preset.summary}\n")
            print(f"here:     {'fits' if fit.fits else 'does not fit'}: {fit.why}")
            print(f"weights:  {state.kind}\nlicence:  {preset.weights.licence}. {preset.weights.licence_note}")
            settings = preset.window if isinstance(preset, EnlargerPreset) else preset.defaults
            for field, value in (settings.model_dump(exclude={"prompts"}) if settings else {}).items():
                print(f"{field + ':':22}{value}")
            print(f"\n{preset.notes}")
        else:
            print(f"{preset.name:20} {'fits' if fit.fits else '–':5} {state.kind:9} {preset.title}")
    for fault in faults:
        print(f"unreadable: {fault}", file=sys.stderr)
    return 0


def add_doctor(commands: Commands) -> None:
    add_command(commands, "doctor", _doctor, "what this machine can run, and why not")


def _doctor(chosen: argparse.Namespace) -> int:
    from studio.machine.doctor import examine

    findings = examine()
    for finding in findings:
        if chosen.json:
            print_json(asdict(finding))
        else:
            print(finding)
    return 0


def add_download(commands: Commands) -> None:
    parser = add_command(commands, "download", _download, "fetch a preset's weights from the Hub")
    parser.add_argument("name", help="the preset")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, fetch nothing")


def _download(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from studio.machine import weights
    from studio.preset import find_any

    preset = find_any(chosen.name)
    plan = weights.plan_download(preset)
    if chosen.json:
        print_json(asdict(plan))
    else:
        print(
            f"{preset.title}: {plan.missing_bytes / 1e9:.1f} of {plan.total_bytes / 1e9:.1f} GB to fetch, "
            f"{plan.free_bytes / 1e9:.1f} GB free, licence {preset.weights.licence}. {preset.weights.licence_note}"
        )
    if chosen.dry_run:
        return 0
    cancelled = cancel_on_signal()
    with tqdm(total=plan.missing_bytes, unit="B", unit_scale=True, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        folder = weights.download(preset, on_progress=show, cancelled=cancelled.is_set)
    print(folder)
    return 0


def add_calibrate(commands: Commands) -> None:
    parser = add_command(commands, "calibrate", _calibrate, "measure a model once, so that caches know it")
    parser.add_argument("name", help="the preset")
    parser.add_argument("--prompt", action="append", default=[], help="what to make; may be given several times")
    parser.add_argument("--clips", type=int, default=4, help="whole clips: more hold for more prompts (default: 4)")
    parser.add_argument(
        "--growth-clips", type=int, default=3, help="of how many the growth of errors is measured (default: 3)"
    )
    add_fields(parser, ProfileModel, leave_out=("preset",))
    parser.add_argument("--folder", type=Path, help="where the profile goes (default: profiles/ in the runs folder)")


def _calibrate(chosen: argparse.Namespace) -> int:
    from studio.events import ProfilingFinished, event_to_json
    from studio.generate import PROFILES
    from studio.preset import find_preset
    from studio.profiling import profile_model
    from studio.records.runs import runs_folder

    preset = find_preset(chosen.name)
    typed = typed_fields(chosen, ProfileModel, leave_out=("preset",))
    work = read_as(ProfileModel, {"preset": preset.name} | typed)
    events = profile_model(
        preset,
        folder=chosen.folder or runs_folder() / PROFILES,
        clips=chosen.clips,
        growth_clips=chosen.growth_clips,
        prompts=chosen.prompt,
        num_inference_steps=work.num_inference_steps,
        flow_shift=work.flow_shift,
    )
    for event in events:
        if chosen.json:
            print_json(event_to_json(event))
        elif isinstance(event, ProfilingFinished):
            print(f"{event.path}  (a skipped step costs {event.skipped_share:.1%} of a computed one)")
        else:
            print(f"{event.done}/{event.total}  {event.what}", flush=True)
    return 0
