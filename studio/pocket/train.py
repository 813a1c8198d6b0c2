"""`python -m studio pocket train`: the pocket checkpoint from nothing, stage by stage; each can stop and go on.

Knows the order of the stages and the files between them. Refuses to know how a step is computed (the recipes) and what
a scene looks like (the driving world). Everything lives in one folder outside git:

    worlds/ stills/    rendered clips and single frames   (stage worlds)
    tokenizer/         learnt from their captions         (stage tokenizer)
    text_encoder.pt    what has learnt to read them       (stage text-encoder)
    autoencoder.pt     state of the autoencoder           (stages autoencoder-frames, -clips, -decoder)
    latents/           what its encoder makes of them     (stage encode)
    denoiser.pt        state of denoiser and text encoder (stages denoiser-frames, -clips)
    sheets/            contact sheets written on the way

`torchrun --nproc-per-node 2 -m studio.pocket.train STAGE` trains with one process a core; see `together`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.pocket.amounts import BUDGETS, CPU, Amounts

STAGES = (
    "worlds",
    "tokenizer",
    "text-encoder",
    "autoencoder-frames",
    "autoencoder-clips",
    "encode",
    "denoiser-frames",
    "denoiser-clips",
    "autoencoder-decoder",
    "export",
)
"""In the order in which they build on each other; `autoencoder-decoder` may run beside the denoiser's stages."""


def train(
    stage: str,
    folder: Path,
    *,
    amounts: Amounts = CPU,
    minutes: float | None = None,
    steps: int | None = None,
    device: str | None = None,
    export_to: Path | None = None,
    on_event: Callable[[Any], None] = print,
) -> None:
    """Run one stage, or all of them for `stage="all"`; what a stage reports goes to `on_event`.

    A training stage stops after `minutes` or at `steps`, whichever comes first, and goes on from there the next time.

    Args:
        amounts: How much of everything.
        steps: Length of a training stage; None takes that of the amounts.
        device: cpu, cuda, mps; None takes cuda where there is one.
        export_to: Where the finished checkpoint goes.

    Raises:
        ValueError: no such stage.
    """
    if stage != "all" and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is not known; the stages are: all, {', '.join(STAGES)}")
    for name in STAGES if stage == "all" else (stage,):
        stop_after = None if minutes is None else 60 * minutes
        _run(name, Path(folder), amounts, steps, stop_after, device, export_to, on_event)


def _run(
    stage: str,
    folder: Path,
    amounts: Amounts,
    steps: int | None,
    stop_after_seconds: float | None,
    device: str | None,
    export_to: Path | None,
    on_event: Callable[[Any], None],
) -> None:
    from studio import distributed
    from studio.pocket import stages

    if stage == "worlds":
        stages.worlds(folder, amounts, on_event)
    elif stage == "tokenizer":
        stages.tokenizer(folder, on_event)
    elif stage == "encode":
        stages.encode(folder, device, on_event, share=distributed.join())
    elif stage == "export":
        stages.export(folder, export_to or folder / "export", on_event)
    else:
        length = stages.Length(
            steps=steps or amounts.steps[stage],
            seconds=amounts.seconds.get(stage),
            stop_after_seconds=stop_after_seconds,
        )
        stages.quicken(device)
        if stage == "text-encoder":
            stages.text_encoder(folder, length, device, on_event)
        elif stage.startswith("autoencoder-"):
            stages.autoencoder(stage, folder, amounts, length, device, on_event)
        else:
            stages.denoiser(stage, folder, amounts, length, device, on_event)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=("all", *STAGES), help="what to do; each stage goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("training"), help="where the training state lives")
    parser.add_argument(
        "--budget",
        choices=tuple(BUDGETS),
        default="cpu",
        help="how much of everything: cpu, three hours on two cores; gpu, within ten minutes on one card; "
        "toy, a dry run of every stage (default: cpu)",
    )
    parser.add_argument("--minutes", type=float, help="stop a training stage after this long")
    parser.add_argument("--steps", type=int, help="length of a training stage; default: the budget's")
    parser.add_argument("--worlds", type=int, help="training clips to render; default: the budget's")
    parser.add_argument("--stills", type=int, help="more worlds, of one frame each; default: the budget's")
    parser.add_argument("--device", help="cpu, cuda, mps; default: cuda where there is one")
    parser.add_argument("--export-to", type=Path, help="folder for the finished checkpoint")


def main(args: argparse.Namespace) -> int:
    def show(event: Any) -> None:
        print(event, flush=True)

    amounts = BUDGETS[args.budget]
    amounts = replace(amounts, worlds=args.worlds or amounts.worlds, stills=args.stills or amounts.stills)
    train(
        args.stage,
        args.folder,
        amounts=amounts,
        minutes=args.minutes,
        steps=args.steps,
        device=args.device,
        export_to=args.export_to,
        on_event=show,
    )
    return 0


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    raise SystemExit(main(_parser.parse_args()))
