"""`python -m studio pocket driver`: from the text-to-video pocket, stage by stage; each can stop and go on.

Everything lives in one folder outside git:

    worlds/       latents of rendered worlds, their maps as planes, their captions   (stage worlds)
    control.pt    the grown transformer                                             (stage control)
    sheets/       contact sheets written on the way

Knows the order of the stages and the files between them. Refuses to know how a step is computed (`recipe`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.preset import PROJECT_FOLDER

if TYPE_CHECKING:
    from studio.pocket.driver.recipe import Driver, Stored
    from studio.pocket.loop import Trainee

STAGES = ("worlds", "control", "export")
BASE = PROJECT_FOLDER / "assets/pocket/driving-t2v"
"""The text-to-video pocket that it is grown from, whose autoencoder and text encoder it shares."""
STATE = "control.pt"
Report = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything."""

    worlds: int
    steps: int
    """Of the stage `control`, at most."""
    seconds: float | None = None
    """By the clock, where that ends first; the rates follow it then."""
    batch: int
    watched: int = 6
    """Held-out worlds that are looked at now and then."""
    compiled: bool = True
    muon_lr: float = 0.006
    adam_lr: float = 1.5e-3


CPU = Amounts(worlds=1024, steps=2300, batch=8)
"""An hour and a half on two cores with bfloat16."""
GPU = Amounts(worlds=6000, steps=100_000, seconds=210.0, batch=128)
"""Within eight minutes on one card of the H100's kind with sixteen cores beside it, of which worlds take four."""
TOY = Amounts(worlds=8, steps=4, batch=2, watched=1, compiled=False)
BUDGETS = {"cpu": CPU, "gpu": GPU, "toy": TOY}


def train(
    stage: str,
    folder: Path,
    *,
    amounts: Amounts = CPU,
    base: Path = BASE,
    minutes: float | None = None,
    device: str | None = None,
    export_to: Path | None = None,
    on_event: Report = print,
) -> None:
    """Run one stage, or all of them for `stage="all"`.

    Args:
        base: The text-to-video pocket.
        minutes: The training stage stops after so long, and goes on from there the next time.

    Raises:
        ValueError: no such stage.
    """
    if stage != "all" and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is not known; the stages are: all, {', '.join(STAGES)}")
    for name in STAGES if stage == "all" else (stage,):
        if name == "worlds":
            _worlds(folder, amounts, base, device, on_event)
        elif name == "control":
            _control(folder, amounts, base, None if minutes is None else 60 * minutes, device, on_event)
        else:
            from studio.pocket.driver.export import export

            export(folder / STATE, export_to or folder / "export", base=base, report=on_event)


def _worlds(folder: Path, amounts: Amounts, base: Path, device: str | None, report: Report) -> None:
    from studio.pocket.architecture import POCKET
    from studio.pocket.driver.data import store_examples
    from studio.pocket.export import load_pipeline
    from studio.pocket.stages import pick_device, quicken

    quicken(device)
    vae: Any = load_pipeline(base).vae
    vae.to(pick_device(device)).eval()
    for count in store_examples(
        folder / "worlds", clips=amounts.worlds, sizes=POCKET, encode=partial(normalised_latents, vae)
    ):
        report(f"worlds {count}/{amounts.worlds}")


def normalised_latents(vae: Any, pixels: Any) -> Any:
    """Latents (B, Z, t, h, w), float16 in numpy, of clips (B, F, H, W, 3) uint8."""
    import torch

    from studio.pocket.autoencoder_recipe import latent_of

    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return ((latent_of(vae, pixels) - mean) / std).half().numpy()


def _control(
    folder: Path, amounts: Amounts, base: Path, stop_after: float | None, device: str | None, report: Report
) -> None:
    import torch

    from studio.pocket.denoiser_recipe import DenoiserObjective
    from studio.pocket.driver import recipe
    from studio.pocket.driver.watch import Watch
    from studio.pocket.loop import Plan, Trainee, train_steps, write_whole
    from studio.pocket.stages import pick_device, quicken

    quicken(device)
    torch.manual_seed(0)
    driver, stored, pipe = ready(folder, base)
    driver.to(pick_device(device))
    if amounts.compiled:
        driver.compile_blocks()
    plan = Plan(steps=amounts.steps, seconds=amounts.seconds, seed=5, muon_lr=amounts.muon_lr, adam_lr=amounts.adam_lr)
    trainee: Trainee = Trainee.of(driver, plan, recipe.is_muon_matrix)
    loss_of = recipe.objective_of(
        driver, stored, batch=amounts.batch, objective=DenoiserObjective(), draw=recipe.ControlDraw()
    )
    watch = Watch(folder / "sheets/control.png", pipe, worlds=amounts.watched)
    for event in train_steps(
        trainee,
        plan,
        loss_of,
        stage="control",
        state_path=folder / "control-state.pt",
        stop_after_seconds=stop_after,
        watch=watch,
        watch_every_seconds=480.0,
    ):
        report(event)
    trainee.load_average()
    write_whole(folder / STATE, driver.transformer.state_dict())


def ready(folder: Path, base: Path) -> tuple[Driver, Stored, Any]:
    """The driver as it begins, what it learns from, and the pipeline that it is grown from."""
    from studio.pocket.driver.architecture import grow
    from studio.pocket.driver.data import read_bank
    from studio.pocket.driver.recipe import Driver, Stored
    from studio.pocket.export import load_pipeline
    from studio.pocket.stages import padded_ids

    pipe: Any = load_pipeline(base)
    bank = read_bank(folder / "worlds")
    flat = padded_ids(pipe.tokenizer, [words for wordings in bank.wordings for words in wordings])
    stored = Stored(bank=bank, ids=flat.unflatten(0, (len(bank), -1)), empty=padded_ids(pipe.tokenizer, [""])[0])
    return Driver(grow(pipe.transformer), pipe.text_encoder), stored, pipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=("all", *STAGES), help="what to do; each stage goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("training-driver"), help="where the state lives")
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="cpu", help="how much of everything (default: cpu)")
    parser.add_argument("--base", type=Path, default=BASE, help="the text-to-video pocket that it is grown from")
    parser.add_argument("--minutes", type=float, help="stop the training stage after this long")
    parser.add_argument("--device", help="cpu, cuda, mps; default: cuda where there is one")
    parser.add_argument("--export-to", type=Path, help="folder for the finished checkpoint")


def main(args: argparse.Namespace) -> int:
    def show(event: Any) -> None:
        print(event, flush=True)

    train(
        args.stage,
        args.folder,
        amounts=BUDGETS[args.budget],
        base=args.base,
        minutes=args.minutes,
        device=args.device,
        export_to=args.export_to,
        on_event=show,
    )
    return 0
