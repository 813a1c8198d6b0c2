"""How well the pocket driver obeys: `python benchmarks/driving.py`, half an hour on two cores.

On worlds that no part of it was trained on, held to all their maps at strength 1, with the scene's caption:

    obedience = (measured - floor) / (ceiling - floor)

the floor is what another held-out world scores, the ceiling what the source itself scores after the autoencoder's round
trip. Edges are extracted from source and result alike and compared at the very pixel; regions (six groups) are read by
a probe that was trained on other worlds; lane lines are extracted and held against the world's own, within the road.
Beside these: how far our lane's lines and the centre of expansion lie off, turning, vehicles, what strength does,
whether the prompt still counts, what a given first frame is worth, other light, and the time of a pass.

Writes results/driving.md, .json and contact sheets (a render, and below it the clip that was held to its maps).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pocket_quality import trained_probe

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "assets/pocket/driver"
RESULTS = ROOT / "benchmarks/results"
FIRST_SEED = 100
"""Of the worlds that are measured."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
PROBE_WORLDS = 240
LARGE_PIXELS = 12
"""Vehicles at least this wide or high are looked for."""
WHOLLY_SEEN = 0.75
NEAR_PIXELS = 3.0
NIGHT = {"time_of_day": "night", "weather": "rain"}
"""The other light that clear days are asked for in."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One clip to be made."""

    name: str
    caption: str
    seed: int
    planes: np.ndarray | None
    strength: float = 1.0
    first_frame: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class World:
    """A held-out world, with all that is known of it."""

    seed: int
    frames: np.ndarray
    caption: str
    attributes: dict[str, Any]
    maps: Any


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--worlds", type=int, default=32)
    parser.add_argument("--strengths", type=int, default=8, help="of the worlds, how many are made at every strength")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    parser.add_argument("--training", type=Path, default=ROOT / "training", help="where the probes are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    worlds = [world(FIRST_SEED + n) for n in range(args.worlds)]
    asks = asked(worlds, args.strengths)
    began = time.perf_counter()
    clips = made(args.checkpoint, asks, args.steps, args.guidance_scale)
    print(f"{len(clips)} clips in {time.perf_counter() - began:.0f} s")
    figures: dict[str, Any] = {"worlds": args.worlds, "steps": args.steps, "guidance_scale": args.guidance_scale}
    again = round_trips(args.checkpoint, [each.frames for each in worlds])
    held = [clips[f"held {each.seed}"] for each in worlds]
    figures["obedience"] = obedience(worlds, held, again, region_probe(args.training, args.checkpoint))
    figures["places"] = places(worlds, held, again)
    figures["vehicles"] = vehicles(worlds, held, again, region_probe(args.training, args.checkpoint))
    figures["strength"] = strength(worlds[: args.strengths], clips)
    figures["prompt"] = prompts(worlds, clips, trained_probe(args.training))
    figures["first_frame"] = first_frames(worlds, clips, again)
    figures["other_light"] = other_light(worlds, clips)
    figures["pass"] = pass_time(args.checkpoint)
    write(args.results, figures, worlds, clips)
    print((args.results / "driving.md").read_text())


# worlds and clips ----------------------------------------------------------------------------------------------------


def world(seed: int, *, time_of_day: str | None = None, weather: str | None = None) -> World:
    from studio.driving_world import attributes, render_with_maps, sample_scene
    from studio.pocket.architecture import FPS, HEIGHT, NUM_FRAMES, WIDTH
    from studio.pocket.driver.data import with_layout

    scene = sample_scene(seed, time_of_day=time_of_day, weather=weather)
    clip, maps = render_with_maps(scene, height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, fps=FPS)
    return World(
        seed=seed,
        frames=clip.frames,
        caption=clip.caption,
        attributes=dict(attributes(scene)),
        maps=with_layout(maps, clip.frames),
    )


def asked(worlds: Sequence[World], at_every_strength: int) -> list[Ask]:
    from studio.pipelines.driver import planes_of
    from studio.pocket.driver.data import seen_maps

    asks = []
    for number, each in enumerate(worlds):
        planes = planes_of(each.maps)
        common = {"caption": each.caption, "seed": each.seed}
        asks.append(Ask(name=f"held {each.seed}", planes=planes, **common))
        asks.append(Ask(name=f"free {each.seed}", planes=None, **common))
        asks.append(Ask(name=f"first {each.seed}", planes=None, first_frame=each.frames[0], **common))
        dark = world(each.seed, **NIGHT)
        seen = planes_of(replace(seen_maps(each.frames), boxes=each.maps.boxes))
        asks.append(Ask(name=f"night {each.seed}", caption=dark.caption, seed=each.seed, planes=seen))
        if number < at_every_strength:
            asks += [
                Ask(name=f"held {each.seed} at {strength}", planes=planes, strength=strength, **common)
                for strength in STRENGTHS[:-1]
            ]
    return asks


def made(checkpoint: Path, asks: Sequence[Ask], steps: int, guidance_scale: float) -> dict[str, np.ndarray]:
    """One single-threaded process a core."""
    from functools import partial

    from studio.pocket.data import fresh_processes

    with fresh_processes() as pool:
        one = partial(make, checkpoint, steps=steps, guidance_scale=guidance_scale)
        return dict(zip([each.name for each in asks], pool.map(one, asks), strict=True))


_ready: dict[Path, Any] = {}


def pipeline_once(checkpoint: Path) -> Any:
    import torch

    from studio.pipelines.driver import DrivingPipeline

    if checkpoint not in _ready:
        pipe = DrivingPipeline.from_pretrained(
            checkpoint, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        pipe.set_progress_bar_config(disable=True)
        _ready[checkpoint] = pipe
    return _ready[checkpoint]


def make(checkpoint: Path, ask: Ask, *, steps: int, guidance_scale: float) -> np.ndarray:
    """(17, 128, 128, 3) uint8."""
    import torch

    from studio.pocket.architecture import HEIGHT, MAX_SEQUENCE_LENGTH, NUM_FRAMES, WIDTH
    from studio.pocket.driver.train import normalised_latents

    torch.set_num_threads(1)
    pipe = pipeline_once(checkpoint)
    kept = None
    if ask.first_frame is not None:
        kept = torch.from_numpy(normalised_latents(pipe.vae, ask.first_frame[None, None]).astype(np.float32))
    frames = pipe(
        ask.caption,
        planes=None if ask.planes is None else torch.from_numpy(ask.planes),
        kept=kept,
        conditioning_scale=ask.strength,
        num_frames=NUM_FRAMES,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        max_sequence_length=MAX_SEQUENCE_LENGTH,
        generator=torch.Generator().manual_seed(ask.seed),
        output_type="np",
    ).frames[0]
    return (frames * 255).round().astype(np.uint8)


def round_trips(checkpoint: Path, renders: Sequence[np.ndarray]) -> list[np.ndarray]:
    from studio.pocket.autoencoder_recipe import reconstruct

    return list(reconstruct(pipeline_once(checkpoint).vae, np.stack(renders)))


def region_probe(training: Path, checkpoint: Path) -> Any:
    """The probe from `training`, or learnt now from worlds that nothing else uses."""
    from studio.pocket.driver.probe import FIRST_SEED, groups_of, load_probe, save_probe, train_probe

    path = training / "region_probe.pt"
    if path.is_file():
        return load_probe(path)
    frames, groups = [], []
    for number in range(PROBE_WORLDS):
        each = world(FIRST_SEED + number)
        # As rendered and as decoded, of a few frames each.
        frames += [each.frames[::4], *(again[::4] for again in round_trips(checkpoint, [each.frames]))]
        groups += [groups_of(each.maps)[::4]] * 2
    probe = train_probe(np.concatenate(frames), np.concatenate(groups))
    save_probe(probe, path)
    return probe


# what is measured ----------------------------------------------------------------------------------------------------


def obedience(
    worlds: Sequence[World], held: Sequence[np.ndarray], again: Sequence[np.ndarray], probe: Any
) -> dict[str, dict[str, Any]]:
    """By kind of map: floor, measured, ceiling, each a list over worlds."""
    from studio.metrics.obedience import mean_iou
    from studio.pipelines.driver import GROUPS
    from studio.pocket.driver.probe import groups_of, read_groups

    others = [worlds[(n + 1) % len(worlds)].frames for n in range(len(worlds))]
    found: dict[str, dict[str, Any]] = {}
    for name, clips in (("floor", others), ("measured", held), ("ceiling", again)):
        regions = [
            mean_iou(groups_of(each.maps), read_groups(probe, clip), len(GROUPS))
            for each, clip in zip(worlds, clips, strict=True)
        ]
        edges = [edges_alike(each.frames, clip) for each, clip in zip(worlds, clips, strict=True)]
        lanes = [lanes_alike(each, clip) for each, clip in zip(worlds, clips, strict=True)]
        for kind, values in (("edges", edges), ("layout, six groups", regions), ("lane lines", lanes)):
            found.setdefault(kind, {})[name] = values
    return found


def edges_alike(source: np.ndarray, clip: np.ndarray) -> float:
    from studio.control_maps.edges import edges
    from studio.metrics.obedience import f1

    return float(np.nanmean([f1(edges(a) > 0, edges(b) > 0) for a, b in zip(source, clip, strict=True)]))


def lanes_alike(each: World, clip: np.ndarray) -> float:
    """F1 within a pixel, inside the road, of lane lines as extracted against the world's own."""
    from studio.metrics.obedience import f1
    from studio.pipelines.driver import GROUPS

    maps = found_in(clip, ("lane_lines",))
    labels = each.maps.semantic_labels
    road = np.isin(each.maps.semantic, [labels.index(name) for name in GROUPS["road"]])
    pairs = zip(each.maps.lane_lines > 0, maps.lane_lines > 0, road, strict=True)
    return float(np.nanmean([f1(a & inside, b & inside, tolerance=1) for a, b, inside in pairs]))


def found_in(clip: np.ndarray, names: Sequence[Any]) -> Any:
    from studio.control_maps import extract
    from studio.driving_world.camera import Camera
    from studio.pocket.architecture import FPS

    focal = Camera(height=clip.shape[1], width=clip.shape[2]).focal
    work = extract(clip, fps=FPS, names=tuple(names), focal=focal)
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return ended.value.maps


def places(
    worlds: Sequence[World], held: Sequence[np.ndarray], again: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    """Median lane offset and distance of the centre of expansion in pixels, and how often the sign of turning is right;
    of the clips, and of the sources after the round trip."""
    from studio.metrics.obedience import lane_offsets

    rows: dict[str, dict[str, float]] = {}
    for name, clips in (("measured", held), ("after the round trip", again)):
        offsets: list[float] = []
        centres: list[float] = []
        signs: list[bool] = []
        for each, clip in zip(worlds, clips, strict=True):
            maps = found_in(clip, ("lane_lines", "ego_motion"))
            offsets += lane_offsets(each.maps.own_lane, maps.own_lane).tolist()
            away = np.linalg.norm(maps.expansion_centre - each.maps.expansion_centre, axis=-1)
            centres.append(float(np.nanmedian(away)) if np.isfinite(away).any() else float("nan"))
            true, seen = (np.nanmean(m.ego_motion[:, 1]) for m in (each.maps, maps))
            if abs(true) > TURNS and np.isfinite(seen):
                signs.append(bool(np.sign(true) == np.sign(seen)))
        rows[name] = {
            "lane offset, median": float(np.nanmedian(offsets)),
            "frames with a lane found": float(np.isfinite(offsets).mean()),
            "expansion centre, median": float(np.nanmedian(centres)),
            "sign of turning": float(np.mean(signs)) if signs else float("nan"),
            "worlds that turn": float(len(signs)),
        }
    return rows


TURNS = 0.02
"""Radians a second above which a world counts as turning."""


def vehicles(
    worlds: Sequence[World], held: Sequence[np.ndarray], again: Sequence[np.ndarray], probe: Any
) -> dict[str, dict[str, float]]:
    """Of large vehicles that are wholly seen, those whose region's middle the probe finds near enough."""
    from studio.driving_world import VEHICLE_TYPES
    from studio.pipelines.driver import GROUPS
    from studio.pocket.driver.probe import read_groups

    movers = list(GROUPS).index("movers")
    rows = {}
    for name, clips in (("measured", held), ("after the round trip", again)):
        hits = total = 0
        for each, clip in zip(worlds, clips, strict=True):
            seen = read_groups(probe, clip) == movers
            for frame, boxes in enumerate(each.maps.boxes):
                for box in boxes:
                    large = max(box.width, box.height) >= LARGE_PIXELS and box.visible_fraction >= WHOLLY_SEEN
                    if box.label in VEHICLE_TYPES and large:
                        total += 1
                        hits += _found(seen[frame], box)
        rows[name] = {"found": hits / max(total, 1), "vehicles": float(total)}
    return rows


def _found(seen: np.ndarray, box: Any) -> bool:
    """Whether the probe's pixels in the box and a little around it have their middle near the box's."""
    margin = 4
    top, bottom = max(0, round(box.top) - margin), round(box.bottom) + margin
    left, right = max(0, round(box.left) - margin), round(box.right) + margin
    rows, columns = np.nonzero(seen[top:bottom, left:right])
    if len(rows) < 0.3 * box.width * box.height:
        return False
    x, y = (columns.min() + columns.max() + 1) / 2 + left, (rows.min() + rows.max() + 1) / 2 + top
    return bool(np.hypot(x - (box.left + box.right) / 2, y - (box.top + box.bottom) / 2) <= NEAR_PIXELS)


def strength(worlds: Sequence[World], clips: dict[str, np.ndarray]) -> dict[str, Any]:
    """Edges kept at each strength, Spearman's rank correlation of each world, and whether 0 is as if nothing were
    given."""
    by_world, ranks, equal = [], [], []
    for each in worlds:
        found = [clips[f"held {each.seed} at {s}"] for s in STRENGTHS[:-1]] + [clips[f"held {each.seed}"]]
        values = [edges_alike(each.frames, clip) for clip in found]
        by_world.append(values)
        ranks.append(float(np.corrcoef(np.argsort(np.argsort(values)), np.arange(len(values)))[0, 1]))
        equal.append(bool(np.array_equal(found[0], clips[f"free {each.seed}"])))
    return {"edges": np.mean(by_world, axis=0).tolist(), "spearman": ranks, "zero_is_free": all(equal)}


def prompts(worlds: Sequence[World], clips: dict[str, np.ndarray], probe: Any) -> dict[str, dict[str, float]]:
    from studio.pocket.probe import agreement, read_attributes

    wanted = [each.attributes for each in worlds]
    return {
        name: agreement(read_attributes(probe, [clips[f"{key} {each.seed}"] for each in worlds]), wanted)
        for name, key in (("held", "held"), ("free", "free"))
    }


def first_frames(
    worlds: Sequence[World], clips: dict[str, np.ndarray], again: Sequence[np.ndarray]
) -> dict[str, list[float]]:
    """PSNR of the first frame against the one that was given, and of the autoencoder's own round trip of it."""
    from studio.pocket.autoencoder_recipe import psnr

    return {
        "made": [psnr(clips[f"first {each.seed}"][0], each.frames[0]) for each in worlds],
        "autoencoder": [psnr(trip[0], each.frames[0]) for each, trip in zip(worlds, again, strict=True)],
    }


def other_light(worlds: Sequence[World], clips: dict[str, np.ndarray]) -> dict[str, Any]:
    """Maps seen in a clip, and a prompt for a rainy night: PSNR against the true night, beside that of the source."""
    from studio.pocket.autoencoder_recipe import psnr

    nights = {each.seed: world(each.seed, **NIGHT) for each in worlds}
    others = {a.seed: nights[b.seed].frames for a, b in zip(worlds, [*worlds[1:], worlds[0]], strict=True)}
    lit = [each for each in worlds if not np.array_equal(each.frames, nights[each.seed].frames)]
    return {
        "worlds": [each.seed for each in lit],
        "made": [psnr(clips[f"night {each.seed}"], nights[each.seed].frames) for each in lit],
        "source": [psnr(each.frames, nights[each.seed].frames) for each in lit],
        "other_night": [psnr(others[each.seed], nights[each.seed].frames) for each in lit],
    }


def pass_time(checkpoint: Path, repeats: int = 7) -> dict[str, Any]:
    """CPU seconds of a pass, driver and text-to-video pocket in turn."""
    import torch

    from studio.pipelines.driver import CONTROL_CHANNELS
    from studio.pocket.export import load_pipeline

    torch.set_num_threads(1)
    driver = pipeline_once(checkpoint).transformer
    base: Any = load_pipeline(ROOT / "assets/pocket/driving-t2v").transformer
    noisy, words = torch.randn(1, 16, 5, 16, 16), torch.randn(1, 64, 192)
    control, timestep = torch.randn(1, CONTROL_CHANNELS, 5, 16, 16), torch.tensor([500.0])
    spent: dict[str, list[float]] = {"driver": [], "text_to_video": []}
    with torch.no_grad():
        for _ in range(repeats + 1):
            for name, one in (
                ("driver", lambda: driver(noisy, timestep, words, control_hidden_states=control)),
                ("text_to_video", lambda: base(noisy, timestep, words)),
            ):
                began = time.process_time()
                one()
                spent[name].append(time.process_time() - began)
    ratios = [a / b for a, b in zip(spent["driver"][1:], spent["text_to_video"][1:], strict=True)]
    return {"ratio": float(np.median(ratios)), "least": min(ratios), "most": max(ratios), "n": repeats}


# the page ------------------------------------------------------------------------------------------------------------


def write(folder: Path, figures: dict[str, Any], worlds: Sequence[World], clips: dict[str, np.ndarray]) -> None:
    from studio.pocket.sheet import write_sheet

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "driving.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "driving.md").write_text(page(figures))
    for number, first in enumerate(range(0, min(16, len(worlds)), 8)):
        rows = []
        for each in worlds[first : first + 8]:
            rows.append(np.concatenate([each.frames, clips[f"held {each.seed}"]], axis=1))
            rows[-1] = np.concatenate([rows[-1], clips[f"night {each.seed}"]], axis=1)
        write_sheet(folder / f"driving_{number}.png", rows)


def page(figures: dict[str, Any]) -> str:
    lines = [
        "# How well the pocket driver obeys",
        "",
        f"{figures['worlds']} held-out worlds, 17 frames of 128×128, {figures['steps']} steps, guidance "
        f"{figures['guidance_scale']:g}; all maps at strength 1. Obedience is (measured − floor) / (ceiling − floor).",
        "",
        "| maps | floor: another world | measured | ceiling: round trip | obedience |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, found in figures["obedience"].items():
        floor, measured, ceiling = (float(np.mean(found[name])) for name in ("floor", "measured", "ceiling"))
        spread = float(np.std(found["measured"]))
        share = (measured - floor) / (ceiling - floor)
        lines.append(f"| {kind} | {floor:.3f} | {measured:.3f} ± {spread:.3f} | {ceiling:.3f} | **{share:.2f}** |")
    lines += ["", "| | held to maps | the source after the round trip |", "| --- | --- | --- |"]
    measured, trip = figures["places"]["measured"], figures["places"]["after the round trip"]
    for name in measured:
        lines.append(f"| {name} | {measured[name]:.2f} | {trip[name]:.2f} |")
    found, trip = figures["vehicles"]["measured"], figures["vehicles"]["after the round trip"]
    lines.append(
        f"| vehicles of {LARGE_PIXELS} px or more found within {NEAR_PIXELS:g} px ({found['vehicles']:.0f}) | "
        f"{found['found']:.1%} | {trip['found']:.1%} |"
    )
    by = figures["strength"]
    lines += [
        "",
        f"Strength {', '.join(f'{s:g}' for s in STRENGTHS)}: edges F1 "
        f"{', '.join(f'{value:.3f}' for value in by['edges'])}; Spearman's rank correlation a world "
        f"{np.mean(by['spearman']):.2f} (least {min(by['spearman']):.2f}, n = {len(by['spearman'])}); strength 0 is "
        f"{'bit for bit' if by['zero_is_free'] else 'NOT'} the clip without maps.",
        "",
        "| prompt, read by a probe | " + " | ".join(figures["prompt"]["held"]) + " |",
        "| --- |" + " --- |" * len(figures["prompt"]["held"]),
    ]
    for name, words in (("held", "held to maps"), ("free", "no maps")):
        lines.append(f"| {words} | " + " | ".join(f"{value:.0%}" for value in figures["prompt"][name].values()) + " |")
    first, light, passed = figures["first_frame"], figures["other_light"], figures["pass"]
    lines += [
        "",
        f"First frame given: {np.mean(first['made']):.2f} dB against it, the autoencoder's own round trip "
        f"{np.mean(first['autoencoder']):.2f} dB.",
        "",
        f"Maps as extracted from the clip, and a prompt for a rainy night (the {len(light['made'])} worlds that are "
        f"none): {np.mean(light['made']):.2f} dB against the true night; the source {np.mean(light['source']):.2f}, "
        f"another world's night {np.mean(light['other_night']):.2f}.",
        "",
        f"A pass takes {passed['ratio']:.2f} times the CPU seconds of the text-to-video pocket's (n = {passed['n']}, "
        f"{passed['least']:.2f} to {passed['most']:.2f}).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
