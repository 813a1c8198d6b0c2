"""`python -m studio pocket super-resolver`: from nothing, stage by stage; each can stop and go on.

Everything lives in one folder outside git:

    clips/          short clips, and what was left of them        (stage clips)
    upsampler.pt    the linear filter                             (stage filter)
    refiner.pt      R for what was shrunk                         (stage refiner)
    restorer.pt     R for what was degraded; begins as the other  (stage restorer)

Knows the order of the stages and the files between them. Refuses to know how a step is computed (`recipe`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from studio.machine.weights import CHECKSUMS
from studio.pocket.super_resolver.data import Example
from studio.storage import sha256_of

STAGES = ("clips", "filter", "refiner", "restorer", "export")
TASKS: dict[str, Literal["enlarge", "restore"]] = {"refiner": "enlarge", "restorer": "restore"}
"""What each network learns."""
Report = Callable[[Any], None]
HELD_OUT_WORLDS = 3
"""Renders of held-out worlds of which the gate's clips are cut, beside those of held-out photographs."""
DEVICE = "device.txt"
FIGURES = "gains.json"
"""In the checkpoint's folder: what was measured on held-out clips, and the photographs that were learnt from."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything."""

    of_photographs: int
    """Clips of photographs."""
    of_worlds: int
    steps: dict[str, int]
    """Of each training stage, at most."""
    seconds: dict[str, float] | None = None
    """By the clock, where that ends first; the rates follow it then."""
    batch: int
    crop: int
    """Rows and columns of what is enlarged to."""


CPU = Amounts(of_photographs=4800, of_worlds=1200, steps={"refiner": 7_500, "restorer": 2_900}, batch=4, crop=160)
"""An hour on two cores with bfloat16, other work beside it; what ships was trained so."""
GPU = Amounts(
    of_photographs=9600,
    of_worlds=2400,
    steps={"refiner": 200_000, "restorer": 100_000},
    seconds={"refiner": 240.0, "restorer": 120.0},
    batch=32,
    crop=192,
)
"""Within eight minutes on one card of the H100's kind with sixteen cores beside it, of which clips take one."""
TOY = Amounts(of_photographs=8, of_worlds=6, steps={"refiner": 4, "restorer": 4}, batch=1, crop=64)
BUDGETS = {"cpu": CPU, "gpu": GPU, "toy": TOY}


def train(
    stage: str,
    folder: Path,
    *,
    amounts: Amounts = CPU,
    photographs: Path | None = None,
    minutes: float | None = None,
    device: str | None = None,
    export_to: Path | None = None,
    gate: bool = True,
    on_event: Report = print,
) -> None:
    """Run one stage, or all of them for `stage="all"`.

    Args:
        photographs: / where the listed packages are installed, or the folder they were unpacked into; None takes the
            driving world alone.
        minutes: A training stage stops after so long, and goes on from there the next time.
        gate: Whether export refuses weights that are no better than the linear filter.

    Raises:
        ValueError: no such stage, no photographs where they should be.
        NoGain: the network brings nothing.
    """
    if stage != "all" and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is not known; the stages are: all, {', '.join(STAGES)}")
    for name in STAGES if stage == "all" else (stage,):
        if name == "clips":
            _clips(folder, amounts, photographs, on_event)
        elif name == "filter":
            _filter(folder, on_event)
        elif name == "export":
            export(folder, export_to or folder / "export", gate=gate, report=on_event)
        else:
            _network(name, folder, amounts, None if minutes is None else 60 * minutes, device, on_event)


def _clips(folder: Path, amounts: Amounts, photographs: Path | None, report: Report) -> None:
    from studio.pocket.super_resolver.data import held_out_examples, store_clips

    files = store_clips(
        folder / "clips", photographs=photographs, of_photographs=amounts.of_photographs, of_worlds=amounts.of_worlds
    )
    held_out_examples(folder / "held_out.npz", photographs=photographs, worlds=HELD_OUT_WORLDS)
    report(f"clips of {len(files)} photographs and of worlds in {folder / 'clips'}")


def _filter(folder: Path, report: Report) -> None:
    from studio.pocket.loop import write_whole
    from studio.pocket.super_resolver.data import stored_clips
    from studio.pocket.super_resolver.recipe import solve

    write_whole(folder / "upsampler.pt", solve(stored_clips(folder / "clips")).state_dict())
    report(f"linear filter in {folder / 'upsampler.pt'}")


def _network(
    stage: str, folder: Path, amounts: Amounts, stop_after: float | None, device: str | None, report: Report
) -> None:
    import torch
    from torch import nn

    from studio.pipelines.super_resolver import RecurrentRefiner
    from studio.pocket.loop import Plan, Trainee, train_steps, write_whole
    from studio.pocket.stages import pick_device, quicken
    from studio.pocket.super_resolver.data import stored_clips
    from studio.pocket.super_resolver.recipe import gains, is_muon_matrix, objective_of

    quicken(device)
    torch.manual_seed(0)
    where = pick_device(device)
    task = TASKS[stage]
    refiner, state = RecurrentRefiner(), folder / f"{stage}-state.pt"
    if stage == "restorer" and not state.is_file():
        refiner.load_state_dict(torch.load(folder / "refiner.pt", weights_only=True))
    # diffusers types `to` as if it took no keyword
    cast(nn.Module, refiner).to(where, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    upsampler = _upsampler(folder).to(where)
    clips, held_out = stored_clips(folder / "clips"), _held_out(folder)
    plan = Plan(
        steps=amounts.steps[stage],
        seconds=(amounts.seconds or {}).get(stage),
        muon_lr=0.01 if stage == "refiner" else 0.005,
        adam_lr=1e-3 if stage == "refiner" else 5e-4,
        seed=0 if stage == "refiner" else 1,
    )
    trainee = Trainee.of(refiner, plan, is_muon_matrix)
    loss_of = objective_of(refiner, upsampler, clips, task=task, batch=amounts.batch, crop=amounts.crop)

    def watch(trainee: Trainee) -> str:
        kept = {name: p.detach().clone() for name, p in trainee.module.named_parameters()}
        trainee.load_average()
        found = gains(upsampler, refiner, held_out, task=task)
        trainee.module.load_state_dict(kept, strict=False)
        return ", ".join(f"{scale}× {after - before:+.2f} dB over L" for scale, (before, after) in found.items())

    for event in train_steps(
        trainee, plan, loss_of, stage=stage, state_path=state, stop_after_seconds=stop_after, watch=watch
    ):
        report(event)
    trainee.load_average()
    write_whole(folder / f"{stage}.pt", refiner.state_dict())
    on = torch.cuda.get_device_name(where) if where.type == "cuda" else "processors"
    (folder / DEVICE).write_text(f"{on}\n", encoding="utf-8")


def _upsampler(folder: Path) -> Any:
    import torch

    from studio.pipelines.super_resolver import LeastSquaresUpsampler

    upsampler = LeastSquaresUpsampler()
    upsampler.load_state_dict(torch.load(folder / "upsampler.pt", weights_only=True))
    return upsampler.requires_grad_(False)


def _held_out(folder: Path) -> list[Example]:
    from studio.pocket.super_resolver.data import read_examples

    return read_examples(folder / "held_out.npz")


def export(folder: Path, destination: Path, *, gate: bool, report: Report) -> None:
    """The averaged weights as a folder that `SuperResolverPipeline` reads, where they bring something.

    Raises:
        NoGain: they do not.
    """
    import torch

    from studio.pipelines.super_resolver import RecurrentRefiner, SuperResolverPipeline
    from studio.pocket.super_resolver.card import card
    from studio.pocket.super_resolver.photographs import listed
    from studio.pocket.super_resolver.recipe import check_gain, gains

    upsampler, held_out = _upsampler(folder), _held_out(folder)
    networks: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for name, task in TASKS.items():
        networks[name] = RecurrentRefiner()
        networks[name].load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
        found = gains(upsampler, networks[name].eval(), held_out, task=task)
        figures[task] = {scale: {"linear": linear, "refined": refined} for scale, (linear, refined) in found.items()}
        if gate:
            check_gain(found, task)
    SuperResolverPipeline(upsampler=upsampler.eval(), **networks).save_pretrained(destination, safe_serialization=True)
    for path in destination.glob("*/*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    record = {"held_out_psnr": figures, "photographs": json.loads((folder / "clips/photographs.json").read_text())}
    (destination / FIGURES).write_text(json.dumps(record, indent=1) + "\n")
    sums = {str(path.relative_to(destination)): sha256_of(path) for path in sorted(destination.glob("*/*.safetensors"))}
    (destination / CHECKSUMS).write_text(json.dumps({"sha256": sums}, indent=1) + "\n")
    files = set(record["photographs"])
    words = card(
        figures,
        [each for each in listed() if each.file in files],
        held_out=len(held_out),
        parameters=sum(p.numel() for model in (upsampler, *networks.values()) for p in model.parameters()),
        device=device_of(folder),
    )
    (destination / "README.md").write_text(words, encoding="utf-8")
    report(f"checkpoint in {destination}")


def device_of(folder: Path) -> str:
    """What the networks were trained on, as their stages wrote it down."""
    path = folder / DEVICE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "processors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=("all", *STAGES), help="what to do; each stage goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("training-super-resolver"), help="where the state lives")
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="cpu", help="how much of everything (default: cpu)")
    parser.add_argument(
        "--photographs",
        type=Path,
        help="/ where the packages of studio/pocket/super_resolver/photographs.toml are installed, or the folder that "
        "they were unpacked into; without, worlds alone",
    )
    parser.add_argument("--minutes", type=float, help="stop a training stage after this long")
    parser.add_argument("--device", help="cpu, cuda, mps; default: cuda where there is one")
    parser.add_argument("--export-to", type=Path, help="folder for the finished checkpoint")
    parser.add_argument("--no-gate", action="store_true", help="export even what brings nothing, to try the stages")


def main(args: argparse.Namespace) -> int:
    def show(event: Any) -> None:
        print(event, flush=True)

    train(
        args.stage,
        args.folder,
        amounts=BUDGETS[args.budget],
        photographs=args.photographs,
        minutes=args.minutes,
        device=args.device,
        export_to=args.export_to,
        gate=not args.no_gate,
        on_event=show,
    )
    return 0
