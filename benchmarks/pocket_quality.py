"""How good the pocket model is: `python benchmarks/pocket_quality.py`, a quarter of an hour on two cores.

On worlds that no part of it was trained on:
- the autoencoder: PSNR and SSIM of reconstructed clips;
- the prompt: a probe that was trained on renders only reads time of day, weather, lanes, vehicle colour and type from
  each generated clip, and is compared with the scene whose caption was the prompt; the same probe's accuracy on the
  scenes' own renders stands beside it, as the most that could be expected;
- motion: flicker (the mean second difference of pixels over time) and expansion (how far optical flow on the road
  points away from the vanishing point), beside those of renders;
- speed: seconds a clip, also as a share of the 15 s that were allowed.

Writes benchmarks/results/pocket_quality.json, .md and contact sheets (each pair of rows is a render above the clip
generated from its caption), and the figures in README and in the checkpoint's card between their marks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from marked import write_between

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

CHECKPOINT = ROOT / "assets/pocket/driving-t2v"
RESULTS = ROOT / "benchmarks/results"
SECONDS_ALLOWED = 15.0
PROBE_WORLDS = 2000
"""Training worlds that the probe learns from."""


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    from studio.pocket.architecture import FLOW_SHIFT, GUIDANCE_SCALE, NUM_INFERENCE_STEPS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--prompts", type=int, default=64, help="held-out worlds, seeds 0 and up")
    parser.add_argument("--steps", type=int, default=NUM_INFERENCE_STEPS)
    parser.add_argument("--guidance-scale", type=float, default=GUIDANCE_SCALE)
    parser.add_argument("--training", type=Path, default=ROOT / "training", help="where the probe is kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    from studio.pocket.data import render_world

    worlds = [render_world(seed) for seed in range(args.prompts)]
    renders = [world.frames for world in worlds]
    wanted = [world.attributes for world in worlds]
    print(f"{len(worlds)} held-out worlds rendered")
    figures: dict[str, Any] = {
        "prompts": args.prompts,
        "steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "flow_shift": FLOW_SHIFT,
    }
    figures["autoencoder"] = reconstruction(args.checkpoint, renders)
    print("autoencoder", figures["autoencoder"])
    started = time.perf_counter()
    clips = generate_all(args.checkpoint, [w.caption for w in worlds], args.steps, args.guidance_scale)
    print(f"{len(clips)} clips generated in {time.perf_counter() - started:.0f} s")
    figures["speed"] = speed(args.checkpoint, worlds[0].caption, args.steps, args.guidance_scale)
    probe = trained_probe(args.training)
    figures["agreement"] = agreements(probe, renders, clips, wanted)
    figures["motion"] = {"renders": motion(renders), "generated": motion(clips)}
    write(args.results, figures, renders, clips)
    print((args.results / "pocket_quality.md").read_text())


def trained_probe(training: Path) -> Any:
    """The probe from `training`, or learnt now from worlds that the benchmark does not use."""
    from studio.pocket.data import TRAINING_SEED, render_worlds
    from studio.pocket.probe import load_probe, save_probe, train_probe

    path = training / "probe.pt"
    if path.is_file():
        return load_probe(path)
    worlds = list(render_worlds(range(TRAINING_SEED + 500_000, TRAINING_SEED + 500_000 + PROBE_WORLDS)))
    frames = np.stack([world.frames for world in worlds])
    probe = train_probe(frames, [world.attributes for world in worlds])
    save_probe(probe, path)
    return probe


def reconstruction(checkpoint: Path, renders: list[np.ndarray]) -> dict[str, float]:
    """PSNR in dB over all clips and as a mean over clips, and mean SSIM."""
    from studio.pocket.autoencoder_recipe import psnr, reconstruct
    from studio.pocket.export import load_pipeline

    again = reconstruct(load_pipeline(checkpoint).vae, np.stack(renders))
    first = reconstruct(load_pipeline(checkpoint).vae, np.stack(renders)[:, :1])
    pairs = list(zip(renders, again, strict=True))
    return {
        "psnr_db": round(psnr(np.stack(renders), again), 2),
        "psnr_db_mean_of_clips": round(float(np.mean([psnr(a, b) for a, b in pairs])), 2),
        "ssim": round(float(np.mean([ssim(a, b) for a, b in pairs])), 4),
        "psnr_db_single_frames": round(psnr(np.stack(renders)[:, :1], first), 2),
    }


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of two clips (F, H, W, 3), on luma, with the usual Gaussian window of 11 pixels."""
    import cv2

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    scores = []
    for a, b in zip(first, second, strict=True):
        x, y = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64) for frame in (a, b))
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        scores.append((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    return float(np.mean(scores))


def generate_all(checkpoint: Path, captions: list[str], steps: int, guidance_scale: float) -> list[np.ndarray]:
    """One clip a caption, its seed the caption's number; one single-threaded process a core."""
    from studio.pocket.data import fresh_processes

    one = partial(generate, checkpoint, steps=steps, guidance_scale=guidance_scale)
    with fresh_processes() as pool:
        return list(pool.map(one, captions, range(len(captions))))


def generate(checkpoint: Path, caption: str, seed: int, *, steps: int, guidance_scale: float) -> np.ndarray:
    """(17, 128, 128, 3) uint8 by WanPipeline in float32."""
    import torch

    torch.set_num_threads(1)
    return run(pipeline_once(checkpoint), caption, seed, steps, guidance_scale)


_ready: dict[Path, Any] = {}


def pipeline_once(checkpoint: Path) -> Any:
    from studio.pocket.export import load_pipeline

    if checkpoint not in _ready:
        _ready[checkpoint] = load_pipeline(checkpoint)
        _ready[checkpoint].set_progress_bar_config(disable=True)
    return _ready[checkpoint]


def run(pipeline: Any, caption: str, seed: int, steps: int, guidance_scale: float) -> np.ndarray:
    import torch

    from studio.pocket.architecture import HEIGHT, MAX_SEQUENCE_LENGTH, NUM_FRAMES, WIDTH

    frames = pipeline(
        caption,
        num_frames=NUM_FRAMES,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        max_sequence_length=MAX_SEQUENCE_LENGTH,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).frames[0]
    return (frames * 255).round().astype(np.uint8)


def speed(checkpoint: Path, caption: str, steps: int, guidance_scale: float) -> dict[str, float]:
    """Seconds for one clip in one process with all cores, the better of two; and CPU seconds."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    pipeline = pipeline_once(checkpoint)
    wall, cpu = [], []
    for _ in range(2):
        began, began_cpu = time.perf_counter(), time.process_time()
        run(pipeline, caption, 0, steps, guidance_scale)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return {
        "seconds_a_clip": round(min(wall), 2),
        "cpu_seconds_a_clip": round(min(cpu), 2),
        "share_of_allowed": round(min(wall) / SECONDS_ALLOWED, 2),
        "cores": os.cpu_count() or 1,
    }


def agreements(
    probe: Any, renders: list[np.ndarray], clips: list[np.ndarray], wanted: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    from studio.pocket.probe import agreement, read_attributes

    on_renders = agreement(read_attributes(probe, renders), wanted)
    on_clips = agreement(read_attributes(probe, clips), wanted)
    return {
        name: {"generated": round(on_clips[name], 3), "probe_on_renders": round(on_renders[name], 3)}
        for name in on_clips
    }


def motion(clips: list[np.ndarray]) -> dict[str, float]:
    """Flicker in grey levels; expansion as the mean cosine between flow and the way from the vanishing point."""
    flicker = [np.abs(np.diff(clip.astype(np.float32), n=2, axis=0)).mean() for clip in clips]
    change = [np.abs(np.diff(clip.astype(np.float32), axis=0)).mean() for clip in clips]
    outward = [expansion(clip) for clip in clips]
    return {
        "flicker": round(float(np.mean(flicker)), 2),
        "change": round(float(np.mean(change)), 2),
        "expansion": round(float(np.mean(outward)), 3),
        "share_moving_forward": round(float(np.mean([value > 0 for value in outward])), 3),
    }


def expansion(clip: np.ndarray) -> float:
    """Mean cosine over the lower half, weighted by the flow's length: 1 is driving straight ahead, -1 backwards."""
    import cv2

    _, height, width, _ = clip.shape
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    y, x = np.mgrid[height // 2 : height, :width].astype(np.float32)
    away = np.stack([x - width / 2, y - 0.45 * height], axis=-1)
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    dots = lengths = 0.0
    for before, after in pairwise(grey):
        flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)[height // 2 :]  # type: ignore[call-overload]
        dots += float((flow * away).sum())
        lengths += float(np.linalg.norm(flow, axis=-1).sum())
    return dots / max(lengths, 1e-6)


def write(folder: Path, figures: dict[str, Any], renders: list[np.ndarray], clips: list[np.ndarray]) -> None:
    from studio.pocket.sheet import write_sheet

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pocket_quality.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "pocket_quality.md").write_text(table(figures))
    if folder.resolve() == RESULTS:
        write_between(ROOT / "README.md", MARKS, readme_figures(figures))
        write_between(CHECKPOINT / "README.md", MARKS, card_figures(figures))
    for number, first in enumerate(range(0, min(32, len(clips)), 8)):
        pairs = zip(renders[first : first + 8], clips[first : first + 8], strict=True)
        write_sheet(folder / f"pocket_quality_{number}.png", [row for pair in pairs for row in pair])


MARKS = ("<!-- pocket-quality -->", "<!-- /pocket-quality -->")
"""In README and in the card: what lies between them is written anew."""


def table(figures: dict[str, Any]) -> str:
    return "# Pocket quality\n\n" + card_figures(figures)


def readme_figures(figures: dict[str, Any]) -> str:
    vae, speed_, motions = figures["autoencoder"], figures["speed"], figures["motion"]
    words = (
        f"The autoencoder reconstructs held-out clips at {vae['psnr_db']} dB PSNR "
        f"({vae['psnr_db_mean_of_clips']} dB as a mean over clips, SSIM {vae['ssim']}; single frames "
        f"{vae['psnr_db_single_frames']} dB), "
        f"{motions['generated']['share_moving_forward']:.0%} of the generated clips move forward, and one clip took "
        f"{speed_['cpu_seconds_a_clip']} CPU seconds in float32. Flicker is {motions['generated']['flicker']} grey "
        f"levels where renders have {motions['renders']['flicker']}."
    )
    return "\n".join([*_agreement(figures), "", textwrap.fill(words, 120)])


def _agreement(figures: dict[str, Any]) -> list[str]:
    lines = ["| agreement with the prompt | generated | the probe on the scenes' own renders |", "| --- | --- | --- |"]
    for name, shares in figures["agreement"].items():
        lines.append(f"| {name.replace('_', ' ')} | {shares['generated']:.0%} | {shares['probe_on_renders']:.0%} |")
    return lines


def card_figures(figures: dict[str, Any]) -> str:
    vae, speed_, motions = figures["autoencoder"], figures["speed"], figures["motion"]
    lines = [
        f"{figures['prompts']} held-out worlds, {figures['steps']} steps, guidance {figures['guidance_scale']}, "
        f"flow shift {figures['flow_shift']}. Written by `benchmarks/pocket_quality.py`.",
        "",
        *_agreement(figures),
    ]
    lines += ["", "| motion | generated | renders |", "| --- | --- | --- |"]
    names = {
        "flicker": "flicker (mean second difference over time, grey levels)",
        "change": "change from frame to frame (grey levels)",
        "expansion": "expansion of the road's flow (cosine)",
        "share_moving_forward": "share of clips that move forward",
    }
    for key, name in names.items():
        lines.append(f"| {name} | {motions['generated'][key]} | {motions['renders'][key]} |")
    lines += [
        "",
        f"Autoencoder on held-out clips: {vae['psnr_db']} dB PSNR over all pixels "
        f"({vae['psnr_db_mean_of_clips']} dB as a mean over clips), SSIM {vae['ssim']}; "
        f"single frames {vae['psnr_db_single_frames']} dB.",
        "",
        f"One clip of 17 frames at 128 x 128 takes {speed_['seconds_a_clip']} s on {speed_['cores']} cores, float32 "
        f"({speed_['cpu_seconds_a_clip']} CPU seconds): {speed_['share_of_allowed']} of the {SECONDS_ALLOWED:.0f} s "
        "that were allowed.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
