"""How edges and lane lines get to a driver: the trial that was made before one was trained.

    python benchmarks/control_path.py --minutes 10

Three ways, on the maps of held-out worlds, and the F1 of what arrives against what was given, at the very pixel:
painted as pictures through the pocket's autoencoder; through the same autoencoder after fine-tuning on painted maps for
so many minutes; and folded into planes (`pipelines.driver`), which are read back. A driver is to have 0.85 of each.
Writes results/control_path.md and .json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import Tensor

from studio.clips.control_maps import ControlMaps, MapName
from studio.control_maps import painted
from studio.driving_world import render_with_maps, sample_scene
from studio.machine import hardware
from studio.pipelines.driver import planes_of
from studio.pipelines.driver.planes import CELL, FRAMES, channels_of
from studio.pocket import autoencoder_recipe as recipe
from studio.pocket.amounts import CropPlan
from studio.pocket.architecture import FPS, HEIGHT, NUM_FRAMES, WIDTH
from studio.pocket.export import load_pipeline
from studio.pocket.loop import Plan, Trainee
from studio.preset import PROJECT_FOLDER
from studio.storage import write_atomically

RESULTS = Path(__file__).parent / "results"
LINES: tuple[MapName, ...] = ("edges", "lane_lines")
FIRST_SEED = 900
"""Of the worlds that are measured."""
TRAINED_FROM = 7_000_000
"""Seeds of the worlds whose painted maps the autoencoder is fine-tuned on."""
CROPS = (CropPlan(batch=4, length=9, size=64), CropPlan(batch=16, length=1, size=64))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--worlds", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=10.0, help="of fine-tuning; 0 leaves that way out")
    chosen = parser.parse_args()
    vae: Any = load_pipeline(PROJECT_FOLDER / "assets/pocket/driving-t2v").vae
    worlds = [maps_of(FIRST_SEED + n) for n in range(chosen.worlds)]
    report: dict[str, Any] = {"machine": hardware.measure().cpu_name, "worlds": chosen.worlds, "ways": {}}
    report["ways"]["painted, through the autoencoder"] = through(vae, worlds)
    if chosen.minutes:
        tuned, steps = fine_tuned(vae, chosen.minutes)
        words = f"painted, through the autoencoder fine-tuned on painted maps ({steps} steps, {chosen.minutes:g} min)"
        report["ways"][words] = through(tuned, worlds)
    report["ways"]["folded into planes"] = by_planes(worlds)
    write_atomically(RESULTS / "control_path.json", json.dumps(report, indent=1).encode())
    page = _page(report)
    write_atomically(RESULTS / "control_path.md", page.encode())
    print(page)


def maps_of(seed: int) -> ControlMaps:
    scene = sample_scene(seed)
    return render_with_maps(scene, height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, fps=FPS)[1]


def through(vae: Any, worlds: list[ControlMaps]) -> dict[str, list[float]]:
    """F1 of each world's lines after the autoencoder's round trip: white from half of brightness on."""
    found: dict[str, list[float]] = {name: [] for name in LINES}
    for maps in worlds:
        for name in LINES:
            again = recipe.reconstruct(vae, painted(maps, name)[None])[0]
            found[name].append(f1(getattr(maps, name) > 0, again.mean(axis=-1) > 127))
    return found


def by_planes(worlds: list[ControlMaps]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in LINES}
    for maps in worlds:
        planes = planes_of(maps)
        for name in LINES:
            found[name].append(f1(getattr(maps, name) > 0, unfolded(planes[channels_of(name)][:-1]) > 0.5))
    return found


def unfolded(planes: np.ndarray) -> np.ndarray:
    """(4 * 64, t, h, w) back to (F, H, W)."""
    _, t, h, w = planes.shape
    grouped = planes.reshape(FRAMES, CELL, CELL, t, h, w).transpose(3, 0, 4, 1, 5, 2)
    return grouped.reshape(t * FRAMES, h * CELL, w * CELL)[FRAMES - 1 :]


def f1(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(2 * (wanted & found).sum() / max(wanted.sum() + found.sum(), 1))


def fine_tuned(vae: Any, minutes: float) -> tuple[Any, int]:
    """A copy, trained on painted maps by the recipe that made it, and the steps that fitted in."""
    tuned = copy.deepcopy(vae).requires_grad_(True).train()
    tuned.quant_conv.requires_grad_(False)
    pictures = np.stack([painted(maps_of(TRAINED_FROM + n), LINES[n % 2]) for n in range(128)])
    plan = Plan(steps=100_000, seconds=60 * minutes, muon_lr=0.005, adam_lr=5e-4)
    trainee = Trainee.of(tuned, plan, recipe.is_muon_matrix)
    frames: Tensor = torch.from_numpy(pictures)
    objective = recipe.AutoencoderObjective(square=4.0, latent_noise=0.05)
    loss_of = recipe.objective_of(tuned, frames, lambda step: CROPS[step % 2], objective)
    began, step = time.monotonic(), 0
    while (spent := time.monotonic() - began) < 60 * minutes:
        trainee.optimizer.scale_lr(plan.rate(step, spent))
        loss_of(step, torch.Generator().manual_seed(step)).backward()
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()
        step += 1
    return tuned.eval(), step


def _page(report: dict[str, Any]) -> str:
    lines = [
        "# How lines get to the driver",
        "",
        f"F1 at the very pixel, of what arrives against what was given; mean and spread over {report['worlds']} "
        "held-out worlds, 17 frames of 128×128.",
        "",
        "| way | edges | lane lines |",
        "| --- | --- | --- |",
    ]
    for way, found in report["ways"].items():
        cells = " | ".join(f"{np.mean(found[name]):.3f} ± {np.std(found[name]):.3f}" for name in LINES)
        lines.append(f"| {way} | {cells} |")
    lines += ["", f"Measured on {report['machine']} by `python benchmarks/control_path.py`.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
