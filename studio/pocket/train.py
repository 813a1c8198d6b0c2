"""`python -m studio pocket train`: the pocket checkpoint from nothing, stage by stage; each can stop and go on.

Knows the order of the stages and the files between them. Refuses to know how a step is computed (the recipes) and what
a scene looks like (the driving world). Everything lives in one folder outside git:

    worlds/            rendered training clips            (stage worlds)
    tokenizer/         learnt from their captions         (stage tokenizer)
    text_encoder.pt    what has learnt to read them       (stage text-encoder)
    autoencoder.pt     state of the autoencoder           (stages autoencoder-frames, -clips, -decoder)
    latents/           what its encoder makes of worlds/  (stage encode)
    denoiser.pt        state of denoiser and text encoder (stages denoiser-frames, -clips)
    sheets/            contact sheets written on the way

`torchrun --nproc-per-node 2 -m studio.pocket.train STAGE` trains with one process a core; see `together`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything."""

    worlds: int = 3000
    """Rendered training clips."""
    stills: int = 8000
    """Further worlds of which one frame is rendered."""
    steps: dict[str, int]
    """Optimizer steps of each training stage."""


SHIPPED = Amounts(
    steps={
        "text-encoder": 900,
        "autoencoder-frames": 1300,
        "autoencoder-clips": 3600,
        "autoencoder-decoder": 700,
        "denoiser-frames": 864,
        "denoiser-clips": 5000,
    }
)
"""Near the shipped checkpoint's, each step in two processes at once; its model card says where it differed."""


def train(
    stage: str,
    folder: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    worlds: int = SHIPPED.worlds,
    stills: int = SHIPPED.stills,
    device: str | None = None,
    export_to: Path | None = None,
    on_event: Callable[[Any], None] = print,
) -> None:
    """Run one stage, or all of them for `stage="all"`; what a stage reports goes to `on_event`.

    A training stage stops after `minutes` or at `steps`, whichever comes first, and goes on from there the next time.
    """
    if stage != "all" and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is not known; the stages are: all, {', '.join(STAGES)}")
    for name in STAGES if stage == "all" else (stage,):
        _run(name, Path(folder), minutes, steps, worlds, stills, device, export_to, on_event)


def _run(
    stage: str,
    folder: Path,
    minutes: float | None,
    steps: int | None,
    worlds: int,
    stills: int,
    device: str | None,
    export_to: Path | None,
    on_event: Callable[[Any], None],
) -> None:
    from studio import distributed
    from studio.pocket import stages

    steps = steps or SHIPPED.steps.get(stage)
    seconds = None if minutes is None else 60 * minutes
    if stage == "worlds":
        stages.worlds(folder, worlds, on_event)
    elif stage == "tokenizer":
        stages.tokenizer(folder, on_event)
    elif stage == "encode":
        stages.encode(folder, stills, device, on_event, share=distributed.join())
    elif stage == "export":
        stages.export(folder, export_to or folder / "export", on_event)
    elif stage == "text-encoder":
        assert steps is not None
        stages.text_encoder(folder, steps, seconds, device, on_event)
    elif stage.startswith("autoencoder-"):
        assert steps is not None
        stages.autoencoder(stage, folder, steps, seconds, device, on_event)
    else:
        assert steps is not None
        stages.denoiser(stage, folder, steps, seconds, device, on_event)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=("all", *STAGES), help="what to do; each stage goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("training"), help="where the training state lives")
    parser.add_argument("--minutes", type=float, help="stop a training stage after this long")
    parser.add_argument("--steps", type=int, help="length of a training stage; default: that of the shipped model")
    parser.add_argument("--worlds", type=int, default=SHIPPED.worlds, help="training clips to render")
    parser.add_argument("--stills", type=int, default=SHIPPED.stills, help="more worlds, of one frame each, to encode")
    parser.add_argument("--device", help="cpu, cuda, mps; default: cuda where there is one")
    parser.add_argument("--export-to", type=Path, help="folder for the finished checkpoint")


def main(args: argparse.Namespace) -> int:
    def show(event: Any) -> None:
        print(event, flush=True)

    train(
        args.stage,
        args.folder,
        minutes=args.minutes,
        steps=args.steps,
        worlds=args.worlds,
        stills=args.stills,
        device=args.device,
        export_to=args.export_to,
        on_event=show,
    )
    return 0


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    raise SystemExit(main(_parser.parse_args()))
