"""`python -m studio pocket super-resolver`: from nothing, stage by stage; each can stop and go on.

Everything lives in one folder outside git:

    clips/          short clips, and what was left of them        (stage clips)
    upsampler.pt    the linear filter                             (stage filter)
    refiner.pt      R for what was shrunk                         (stage refiner)
    restorer.pt     R for what was degraded; begins as the other  (stage restorer)
    details-*.pt    D, after what its latents carry, the step between them, and pixels (stages details-autoencoder,
                    details-latent, details-pixels)

Knows the order of the stages and the files between them. Refuses to know how a step is computed (`recipe`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studio.machine.weights import CHECKSUMS
from studio.pocket.super_resolver.data import Example
from studio.storage import sha256_of

if TYPE_CHECKING:
    import torch

    from studio.pipelines.super_resolver import OneStepDetails, RecurrentRefiner

TASKS: dict[str, Literal["enlarge", "restore"]] = {"refiner": "enlarge", "restorer": "restore"}
"""What each R learns."""
DETAILS = ("details-autoencoder", "details-latent", "details-pixels")
"""D's stages; each begins with what the one before it came to."""
STAGES = ("clips", "filter", *TASKS, *DETAILS, "export")
Report = Callable[[Any], None]
HELD_OUT_WORLDS = 3
"""Renders of held-out worlds of which the gate's clips are cut, beside those of held-out photographs."""
DETAILED = "restore, with D"
"""What figures of all three summands are called."""
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


CPU = Amounts(
    of_photographs=4800,
    of_worlds=1200,
    steps={
        "refiner": 9_000,
        "restorer": 4_500,
        "details-autoencoder": 800,
        "details-latent": 600,
        "details-pixels": 700,
    },
    batch=4,
    crop=160,
)
"""An hour and a half on one core with bfloat16, other work beside it; what ships was trained so."""
GPU = Amounts(
    of_photographs=9600,
    of_worlds=2400,
    steps=dict.fromkeys((*TASKS, *DETAILS), 200_000),
    seconds={
        "refiner": 150.0,
        "restorer": 80.0,
        "details-autoencoder": 40.0,
        "details-latent": 30.0,
        "details-pixels": 90.0,
    },
    batch=32,
    crop=192,
)
"""Within eight minutes on one card of the H100's kind with sixteen cores beside it, of which clips take one."""
TOY = Amounts(of_photographs=8, of_worlds=6, steps=dict.fromkeys((*TASKS, *DETAILS), 4), batch=1, crop=64)
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
            run = _details if name in DETAILS else _network
            run(name, folder, amounts, None if minutes is None else 60 * minutes, device, on_event)


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

    from studio.pipelines.super_resolver import RecurrentRefiner
    from studio.pocket.loop import Plan, Trainee, train_to_average, write_whole
    from studio.pocket.super_resolver.data import stored_clips
    from studio.pocket.super_resolver.recipe import gains, is_muon_matrix, objective_of

    where = _ready(device)
    task = TASKS[stage]
    refiner, state = RecurrentRefiner(), folder / f"{stage}-state.pt"
    if stage == "restorer" and not state.is_file():
        refiner.load_state_dict(torch.load(folder / "refiner.pt", weights_only=True))
    _settle(refiner, where)
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

    def watch() -> str:
        return _words(gains(upsampler, refiner, held_out, task=task))

    train_to_average(
        trainee,
        plan,
        loss_of,
        stage=stage,
        state_path=state,
        stop_after_seconds=stop_after,
        watch=watch,
        report=report,
    )
    write_whole(folder / f"{stage}.pt", refiner.state_dict())
    on = torch.cuda.get_device_name(where) if where.type == "cuda" else "processors"
    (folder / DEVICE).write_text(f"{on}\n", encoding="utf-8")


def _details(
    stage: str, folder: Path, amounts: Amounts, stop_after: float | None, device: str | None, report: Report
) -> None:

    from studio.pocket.loop import Plan, Trainee, train_to_average, write_whole
    from studio.pocket.super_resolver import details_recipe as recipe
    from studio.pocket.super_resolver.data import stored_clips
    from studio.pocket.super_resolver.recipe import gains

    where = _ready(device)
    number = DETAILS.index(stage)
    details = _loaded_details(folder, DETAILS[number - 1] if number else None)
    restorer = _loaded_refiner(folder, "restorer")
    for network in (details, restorer):
        _settle(network, where)
    given = recipe.Given(
        upsampler=_upsampler(folder).to(where),
        restorer=restorer.eval().requires_grad_(False),
        clips=stored_clips(folder / "clips"),
        batch=amounts.batch,
        crop=amounts.crop,
    )
    fine = stage == "details-pixels"
    plan = Plan(
        steps=amounts.steps[stage],
        seconds=(amounts.seconds or {}).get(stage),
        muon_lr=0.005 if fine else 0.01,
        adam_lr=1e-3,
        weight_decay=0.0 if fine else 0.01,
        seed=2 + number,
    )
    module: Any = details
    if fine:
        module = recipe.PixelStage(details).to(where)
        loss_of = recipe.pixel_objective(module, given)
    elif stage == "details-latent":
        details.requires_grad_(False).denoiser.requires_grad_(True)
        loss_of = recipe.latent_objective(details, given)
    else:
        details.denoiser.requires_grad_(False)
        loss_of = recipe.autoencoder_objective(details, given)
    held_out = _held_out(folder)

    def watch() -> str:
        return _words(gains(given.upsampler, restorer, held_out, task="restore", details=details))

    trainee = Trainee.of(module, plan, recipe.is_muon_matrix)
    state = folder / f"{stage}-state.pt"
    train_to_average(
        trainee,
        plan,
        loss_of,
        stage=stage,
        state_path=state,
        stop_after_seconds=stop_after,
        watch=watch,
        report=report,
    )
    write_whole(folder / f"{stage}.pt", details.state_dict())


def _ready(device: str | None) -> torch.device:
    import torch

    from studio.pocket.stages import pick_device, quicken

    quicken(device)
    torch.manual_seed(0)
    return pick_device(device)


def _settle(network: Any, where: torch.device) -> None:
    import torch

    network.to(where, memory_format=torch.channels_last)


def _words(found: Mapping[int, tuple[float, float]]) -> str:
    return ", ".join(f"{scale}× {after - before:+.2f} dB over L" for scale, (before, after) in found.items())


def _loaded_refiner(folder: Path, name: str) -> RecurrentRefiner:
    import torch

    from studio.pipelines.super_resolver import RecurrentRefiner

    refiner = RecurrentRefiner()
    refiner.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
    return refiner


def _loaded_details(folder: Path, stage: str | None) -> OneStepDetails:
    """As a stage left it; None: as it begins."""
    import torch

    from studio.pipelines.super_resolver import OneStepDetails

    details = OneStepDetails()
    if stage is not None:
        details.load_state_dict(torch.load(folder / f"{stage}.pt", map_location="cpu", weights_only=True))
    return details


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
    from studio.pipelines.super_resolver import SuperResolverPipeline
    from studio.pocket.super_resolver.card import card
    from studio.pocket.super_resolver.photographs import listed
    from studio.pocket.super_resolver.recipe import check_gain, gains

    upsampler, held_out = _upsampler(folder), _held_out(folder)
    networks: dict[str, Any] = {name: _loaded_refiner(folder, name).eval() for name in TASKS}
    details = _loaded_details(folder, DETAILS[-1]).eval()
    measured = {task: gains(upsampler, networks[name], held_out, task=task) for name, task in TASKS.items()}
    measured[DETAILED] = gains(upsampler, networks["restorer"], held_out, task="restore", details=details)
    for name, found in measured.items():
        if gate:
            check_gain(found, name)
    figures: dict[str, Any] = {
        name: {scale: {"linear": linear, "refined": refined} for scale, (linear, refined) in found.items()}
        for name, found in measured.items()
    }
    SuperResolverPipeline(upsampler=upsampler.eval(), **networks, details=details).save_pretrained(
        destination, safe_serialization=True
    )
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
        parameters=sum(p.numel() for model in (upsampler, details, *networks.values()) for p in model.parameters()),
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
