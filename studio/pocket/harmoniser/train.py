"""`python -m studio pocket harmoniser`: from nothing, stage by stage; each can stop and go on.

Everything lives in one folder outside git:

    pairs/            pairs of training worlds                        (stage pairs)
    held_out.npz      pairs of held-out worlds, to watch by
    autoencoder.pt    what latents carry                              (stage autoencoder)
    latent.pt         and the step between them                       (stage latent)
    pixels.pt         and all of it, in pixels, through whole clips   (stage pixels)

Knows the order of the stages and the files between them. Refuses to know how a step is computed (`recipe`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from studio.machine.weights import CHECKSUMS
from studio.storage import sha256_of

if TYPE_CHECKING:
    import torch

    from studio.pipelines.harmoniser import Harmoniser
    from studio.pocket.harmoniser.recipe import Gain

NETWORK = ("autoencoder", "latent", "pixels")
"""The stages that train; each begins with what the one before it came to."""
STAGES = ("pairs", *NETWORK, "export")
Report = Callable[[Any], None]
DEVICE = "device.txt"
FIGURES = "gains.json"
"""In the checkpoint's folder: what was measured on held-out pairs."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything."""

    pairs: int
    steps: dict[str, int]
    """Of each training stage, at most."""
    seconds: dict[str, float] | None = None
    """By the clock, where that ends first; the rates follow it then."""
    batch: int
    crop: int
    """Rows and columns of the pictures that are learnt on."""
    held_out_worlds: int


CPU = Amounts(
    pairs=1200,
    steps={"autoencoder": 200, "latent": 120, "pixels": 2000},
    batch=4,
    crop=128,
    held_out_worlds=6,
)
"""Within an hour on one core with bfloat16, other work beside it. What ships was trained so, save that the zone weighed
half as much for the first thousand steps in pixels."""
GPU = Amounts(
    pairs=4800,
    steps=dict.fromkeys(NETWORK, 200_000),
    seconds={"autoencoder": 30.0, "latent": 20.0, "pixels": 220.0},
    batch=24,
    crop=160,
    held_out_worlds=6,
)
"""Meant for eight minutes on one card of the H100's kind with sixteen cores beside it, of which pairs take two."""
TOY = Amounts(pairs=4, steps=dict.fromkeys(NETWORK, 2), batch=1, crop=64, held_out_worlds=1)
BUDGETS = {"cpu": CPU, "gpu": GPU, "toy": TOY}


def train(
    stage: str,
    folder: Path,
    *,
    amounts: Amounts = CPU,
    minutes: float | None = None,
    device: str | None = None,
    export_to: Path | None = None,
    gate: bool = True,
    on_event: Report = print,
) -> None:
    """Run one stage, or all of them for `stage="all"`.

    Args:
        minutes: A training stage stops after so long, and goes on from there the next time.
        gate: Whether export refuses weights that make it worse than the paste is.

    Raises:
        ValueError: no such stage.
        NoGain: the network brings nothing.
    """
    if stage != "all" and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is not known; the stages are: all, {', '.join(STAGES)}")
    for name in STAGES if stage == "all" else (stage,):
        if name == "pairs":
            _pairs(folder, amounts, on_event)
        elif name == "export":
            export(folder, export_to or folder / "export", gate=gate, report=on_event)
        else:
            _network(name, folder, amounts, None if minutes is None else 60 * minutes, device, on_event)


def _pairs(folder: Path, amounts: Amounts, report: Report) -> None:
    from studio.pocket.harmoniser.data import held_out_pairs, store_pairs

    store_pairs(folder / "pairs", count=amounts.pairs)
    held_out_pairs(folder / "held_out.npz", worlds=amounts.held_out_worlds)
    report(f"{amounts.pairs} pairs in {folder / 'pairs'}")


def _network(
    stage: str, folder: Path, amounts: Amounts, stop_after: float | None, device: str | None, report: Report
) -> None:
    import torch

    from studio.pocket.harmoniser import recipe
    from studio.pocket.harmoniser.data import read_pairs, stored_pairs
    from studio.pocket.loop import Plan, Trainee, train_to_average, write_whole
    from studio.pocket.stages import pick_device, quicken

    quicken(device)
    torch.manual_seed(0)
    where = pick_device(device)
    number = NETWORK.index(stage)
    network = _loaded(folder, NETWORK[number - 1] if number else None)
    _settle(network, where)
    given = recipe.Given(pairs=stored_pairs(folder / "pairs"), batch=amounts.batch, crop=amounts.crop)
    plan = Plan(
        steps=amounts.steps[stage],
        seconds=(amounts.seconds or {}).get(stage),
        muon_lr=0.004 if stage == "pixels" else 0.01,
        adam_lr=5e-4 if stage == "pixels" else 1e-3,
        weight_decay=0.0 if stage == "pixels" else 0.01,
        seed=number,
    )
    if stage == "pixels":
        loss_of = recipe.pixel_objective(network, given)
    elif stage == "latent":
        network.requires_grad_(False)
        for part in (network.denoiser, network.surroundings):
            part.requires_grad_(True)
        loss_of = recipe.latent_objective(network, given)
    else:
        network.denoiser.requires_grad_(False)
        loss_of = recipe.autoencoder_objective(network, given)
    held_out = read_pairs(folder / "held_out.npz")
    train_to_average(
        Trainee.of(network, plan, recipe.is_muon_matrix),
        plan,
        loss_of,
        stage=stage,
        state_path=folder / f"{stage}-state.pt",
        stop_after_seconds=stop_after,
        watch=lambda: _words(recipe.gains(network, held_out)),
        report=report,
    )
    write_whole(folder / f"{stage}.pt", network.state_dict())
    on = torch.cuda.get_device_name(where) if where.type == "cuda" else "processors"
    (folder / DEVICE).write_text(f"{on}\n", encoding="utf-8")


def _settle(network: Any, where: torch.device) -> None:
    import torch

    network.to(where, memory_format=torch.channels_last)


def _words(found: Mapping[str, Gain]) -> str:
    return ", ".join(f"{name} {gain.on:+.1f} and {gain.beside:+.1f} dB" for name, gain in found.items())


def _loaded(folder: Path, stage: str | None) -> Harmoniser:
    """As a stage left it; None: as it begins."""
    import torch

    from studio.pipelines.harmoniser import Harmoniser

    network = Harmoniser()
    if stage is not None:
        network.load_state_dict(torch.load(folder / f"{stage}.pt", map_location="cpu", weights_only=True))
    return network


def export(folder: Path, destination: Path, *, gate: bool, report: Report) -> None:
    """The averaged weights in half as many bits, as a folder that `Harmoniser.from_pretrained` reads.

    Raises:
        NoGain: they make it worse than the paste is.
    """
    import torch

    from studio.pocket.harmoniser.card import card
    from studio.pocket.harmoniser.data import read_pairs
    from studio.pocket.harmoniser.recipe import check_gain, gains

    # What is measured is what ships: rounded, and made single again to be reckoned with.
    network = cast(Any, _loaded(folder, NETWORK[-1]).eval())
    held_out = read_pairs(folder / "held_out.npz")
    found = gains(network.to(torch.float16).to(torch.float32), held_out)
    if gate:
        check_gain(found)
    network.to(torch.float16).save_pretrained(destination, safe_serialization=True)
    weights = sorted(destination.glob("*.safetensors"))
    for path in weights:
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    figures = {name: asdict(gain) for name, gain in found.items()}
    (destination / FIGURES).write_text(json.dumps({"held_out_psnr": figures}, indent=1) + "\n")
    sums = {str(path.relative_to(destination)): sha256_of(path) for path in weights}
    (destination / CHECKSUMS).write_text(json.dumps({"sha256": sums}, indent=1) + "\n")
    words = card(
        found,
        held_out=len(held_out.source),
        parameters=sum(p.numel() for p in network.parameters()),
        device=_device_of(folder),
    )
    (destination / "README.md").write_text(words, encoding="utf-8")
    report(f"checkpoint in {destination}: {_words(found)}")


def _device_of(folder: Path) -> str:
    """What the network was trained on, as its stages wrote it down."""
    path = folder / DEVICE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "processors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=("all", *STAGES), help="what to do; each stage goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("training-harmoniser"), help="where the state lives")
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="cpu", help="how much of everything (default: cpu)")
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
        minutes=args.minutes,
        device=args.device,
        export_to=args.export_to,
        gate=not args.no_gate,
        on_event=show,
    )
    return 0
