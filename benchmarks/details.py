"""What training D's pixel stage on whole clips brings: `benchmarks/details.py --folder TRAINING --photographs ROOT`.

D's pixel stage (`studio.pocket.super_resolver.details_recipe`) goes back through a clip by ChopGrad's exact mode. Here
it is begun three times from the same weights, those that the latent stage left in the training's folder, and takes the
same number of steps on the first 5, 17 or 65 pictures of the same clips, one clip a step; the draws are the same, so
the places in the clips are, too. A fourth row makes up for the smaller number of pictures: as many steps as show it
what the 65 pictures' steps show.

Clips are pans over photographs and renders of worlds, 65 pictures of 192×192; those that are measured show photographs
and worlds that were not learnt from, 17 pictures each, degraded, at 2× and 4×. Figures are means over them and both
scales, at g = 1: PSNR, HED distance (`perceptual.py`, where its wheel is installed), flicker and warping error as
ratios to the original's own, of those clips that do not stand still. Memory is what the process has resident at the
most (VmHWM) beyond what it had before the first step. CPU seconds are those of a step in one thread. Writes
results/details.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
LENGTHS = (5, 17, 65)
HELD_OUT_LENGTH = 17
MEASURED = ("psnr", "flicker", "warping_error")

if TYPE_CHECKING:
    from studio.pipelines.super_resolver import OneStepDetails, RecurrentRefiner
    from studio.pocket.super_resolver.data import Clips, Example
    from studio.pocket.super_resolver.details_recipe import Given


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where `pocket super-resolver` trained")
    parser.add_argument("--photographs", type=Path, help="where the photographs lie")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--row", nargs=2, type=int, metavar=("LENGTH", "STEPS"), help=argparse.SUPPRESS)
    parser.add_argument("--long", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(_row(args, *args.row)))
        return
    with tempfile.TemporaryDirectory(prefix="long-clips-") as folder:
        long = Path(folder) / "long.npz"
        _write_long(long, args)
        plan = [(length, args.steps) for length in LENGTHS]
        plan.append((LENGTHS[0], args.steps * LENGTHS[-1] // LENGTHS[0]))
        rows = [_measured(args, long, 1, 0)]
        for length, steps in plan:
            rows.append(_measured(args, long, length, steps))
            print(json.dumps(rows[-1]), flush=True)
    record = {"clips": args.clips, "rows": rows}
    (RESULTS / "details.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = table(rows)
    (RESULTS / "details.md").write_text(f"# What training D on whole clips brings\n\n{text}\n", encoding="utf-8")
    print(text)


def _measured(args: argparse.Namespace, long: Path, length: int, steps: int) -> dict[str, Any]:
    """A row, in a process of its own: its memory is what counts."""
    command = [sys.executable, __file__, "--folder", str(args.folder), "--long", str(long)]
    command += ["--row", str(length), str(steps)]
    done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# Clips


def _write_long(path: Path, args: argparse.Namespace) -> None:
    """Clips to learn from, and clips to measure."""
    from studio.pocket.data import TRAINING_SEED
    from studio.pocket.super_resolver.data import SCALES
    from studio.pocket.super_resolver.degradation import degraded

    rng = np.random.default_rng(17)
    arrays: dict[str, np.ndarray] = {}
    for name, held_out, count, length in (
        ("learnt", False, args.clips, LENGTHS[-1]),
        ("measured", True, 6, HELD_OUT_LENGTH),
    ):
        clips = [
            *_pans(args.photographs, rng, count // 2, length, held_out=held_out),
            *_worlds(rng, count - count // 2, length, first_seed=100 if held_out else TRAINING_SEED),
        ]
        arrays[f"{name}_large"] = np.stack(clips)
        for scale in SCALES:
            arrays[f"{name}_{scale}"] = np.stack([degraded(clip, scale, rng) for clip in clips])
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def _pans(root: Path | None, rng: np.random.Generator, count: int, length: int, *, held_out: bool) -> list[np.ndarray]:
    from studio.pocket.super_resolver.data import SIDE
    from studio.pocket.super_resolver.photographs import Moving, present, read

    found = present(root, held_out=held_out) if root is not None else []
    if not found:
        raise SystemExit("no photographs there; give --photographs, as `pocket super-resolver` has it")
    return [Moving(read(found[number % len(found)][1])).clip(rng, length=length, side=SIDE) for number in range(count)]


def _worlds(rng: np.random.Generator, count: int, length: int, *, first_seed: int) -> list[np.ndarray]:
    from studio.driving_world import render, sample_scene
    from studio.pocket.super_resolver.data import SIDE

    clips: list[np.ndarray] = []
    for number in range(-(-count // 4)):
        film = render(sample_scene(first_seed + number), height=544, width=960, num_frames=length, fps=25.0).frames
        for _ in range(4):
            y, x = (int(rng.integers(extent - SIDE + 1)) for extent in film.shape[1:3])
            clips.append(film[:, y : y + SIDE, x : x + SIDE])
    return clips[:count]


def _read_long(path: Path) -> tuple[Clips, list[Example]]:
    import torch

    from studio.pocket.super_resolver.data import SCALES, Clips

    arrays = np.load(path)
    learnt = {scale: torch.from_numpy(arrays[f"learnt_{scale}"]) for scale in SCALES}
    large = arrays["measured_large"]
    measured = [
        (large[row], {scale: arrays[f"measured_{scale}"][row] for scale in SCALES}) for row in range(len(large))
    ]
    return Clips(large=torch.from_numpy(arrays["learnt_large"]), degraded=learnt), measured


# ---------------------------------------------------------------------------------------------------------------------
# A row


def _row(args: argparse.Namespace, length: int, steps: int) -> dict[str, Any]:
    import torch

    from studio.pipelines.super_resolver import LeastSquaresUpsampler, OneStepDetails, RecurrentRefiner
    from studio.pocket.loop import Plan, Trainee, train_steps
    from studio.pocket.super_resolver import details_recipe as recipe

    torch.set_num_threads(1)
    networks: dict[str, Any] = {"upsampler": LeastSquaresUpsampler(), "restorer": RecurrentRefiner()}
    for name, network in networks.items():
        network.load_state_dict(torch.load(args.folder / f"{name}.pt", weights_only=True))
        network.eval().requires_grad_(False)
    details = OneStepDetails()
    details.load_state_dict(torch.load(args.folder / "details-latent.pt", weights_only=True))
    clips, measured = _read_long(args.long)
    given = recipe.Given(**networks, clips=clips, batch=1, crop=128, length=length)
    seconds = held = 0.0
    if steps:
        torch.manual_seed(0)
        stage = recipe.PixelStage(details)
        plan = Plan(steps=steps, muon_lr=0.003, adam_lr=3e-4, weight_decay=0.0, seed=5)
        trainee = Trainee.of(stage, plan, recipe.is_muon_matrix)
        before, began = _resident("VmRSS"), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.pt"
            for report in train_steps(
                trainee, plan, recipe.pixel_objective(stage, given), stage="pixels", state_path=state
            ):
                print(report, file=sys.stderr, flush=True)
        seconds, held = (time.process_time() - began) / steps, _resident("VmHWM") - before
        trainee.load_average()
    found = _figures(details.eval(), networks["restorer"], given, measured)
    return {"length": length, "steps": steps, "cpu_seconds": seconds, "held_bytes": held} | found


def _resident(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024.0 * int(found[1]) if found else 0.0


def _figures(
    details: OneStepDetails, restorer: RecurrentRefiner, given: Given, measured: list[Example]
) -> dict[str, float]:
    """Means over clips and scales, with D and without: `psnr` and `psnr_without`."""
    import torch

    from studio.metrics.enlargement import Meter

    try:
        from perceptual import hed_distance
    except ImportError:
        hed_distance = None
    each: list[dict[str, float]] = []
    for clip, left in measured:
        for scale, small in left.items():
            tensor = torch.from_numpy(small).permute(0, 3, 1, 2)[None].float().div(255)
            with torch.no_grad():
                enlarged = given.enlarged(tensor, scale)
                added, _ = details(tensor, enlarged, scale)
            made = {"with": _in_bytes(enlarged + added), "without": _in_bytes(enlarged)}
            height, width = clip.shape[1:3]
            with Meter(tuple(made), height=height, width=width, scale=scale, original=True, names=MEASURED) as meter:
                for number, (large, one) in enumerate(zip(clip, small, strict=True)):
                    meter.add({name: frames[number] for name, frames in made.items()}, given=one, original=large)
                found = meter.figures()
            row = {name: found["with"][name] for name in MEASURED}
            row |= {f"{name}_without": found["without"][name] for name in MEASURED}
            if hed_distance is not None:
                row["hed"] = hed_distance(made["with"][::8], clip[::8])
                row["hed_without"] = hed_distance(made["without"][::8], clip[::8])
            each.append(row)
    # Beside an original that stands still, a ratio is infinite.
    finite = {name: [row[name] for row in each if np.isfinite(row[name])] for name in each[0]}
    return {name: float(np.mean(values)) for name, values in finite.items()}


def _in_bytes(pictures: Any) -> np.ndarray:
    """(1, T, 3, H, W) in 0…1 to (T, H, W, 3) uint8."""
    from studio.clips.shrinking import in_8_bits

    return in_8_bits(pictures[0].permute(0, 2, 3, 1).mul(255).numpy())


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| trained on | steps | PSNR | against L + R | HED distance | against L + R | flicker | warping "
        "| CPU seconds a step | memory of a step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        hed = f"{row['hed']:.4f} | {row['hed'] / row['hed_without'] - 1:+.1%}" if "hed" in row else "– | –"
        cost = f"{row['cpu_seconds']:.2f} | {row['held_bytes'] / 1e6:.0f} MB" if row["steps"] else "– | –"
        what = f"{row['length']} pictures" if row["steps"] else "latents alone"
        lines.append(
            f"| {what} | {row['steps']} | {row['psnr']:.2f} dB | {row['psnr'] - row['psnr_without']:+.2f} dB | {hed} "
            f"| {row['flicker']:.2f}× | {row['warping_error']:.2f}× | {cost} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
