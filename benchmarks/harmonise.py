"""Vehicles put into held-out worlds, against the truth: `benchmarks/harmonise.py [--worlds 12]`.

A vehicle is cut out of the clear day by its exact cover and pasted into the same drive at another hour or in other
weather, where the world knows what it would look like. Worlds have seeds from 500 on, which no model was trained on nor
watched by; 17 frames of 256×256. PSNR of a clip is taken over the vehicle's pixels (cover above a half) of all its
frames, and over the zone around it, where its shadow and the light of its lamps fall; figures are means over clips,
with their standard deviation.

    paste            as it is cut out
    gain transfer    per channel, mean and deviation of the source around the vehicle (its box, half as large again on
                     each side), frame by frame
    seamless clone   cv2.seamlessClone, frame by frame, from the picture that the vehicle is cut out of
    harmonised       assets/pocket/harmoniser
    colour matrix    the best 3×4 matrix a clip's vehicle could be multiplied by, found with the truth in hand: what no
                     method that only recolours can pass

Time is of 17 frames of 256×256, zones and surroundings included, in this process's threads. Writes
results/harmonise.md and .json, and, with --sheet, a picture of source, paste, result and truth.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
FIRST_SEED = 500
SIZE, NUM_FRAMES = 256, 17
CONDITIONS = {
    "night": ("night", "clear"),
    "dusk": ("dusk", "clear"),
    "fog": ("day", "fog"),
    "snow": ("day", "snow"),
    "rain": ("day", "rain"),
    "night, rain": ("night", "rain"),
    "dusk, fog": ("dusk", "fog"),
}
ASKED = ("night", "dusk", "fog", "snow")
"""Those whose mean is the target; the rest is shown beside them."""

if TYPE_CHECKING:
    from studio.pipelines.harmoniser import Harmoniser
    from studio.pocket.harmoniser.data import Pair


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--weights", type=Path, default=ROOT / "assets/pocket/harmoniser")
    parser.add_argument("--sheet", type=Path, help="a picture of some clips: source, paste, result, truth")
    args = parser.parse_args()
    from studio.pipelines.harmoniser import load_harmoniser

    network = load_harmoniser(args.weights)
    cells: list[dict[str, Any]] = []
    strips: list[np.ndarray] = []
    for seed in _seeds(args.worlds):
        for condition in CONDITIONS:
            cell, strip = measured(network, seed, condition)
            cells.append(cell)
            strips.append(strip)
            print(json.dumps(cell), flush=True)
    record = {"clips": cells, "threads": _threads(), "processor": _processor()}
    (RESULTS / "harmonise.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = tables(cells, record["processor"], record["threads"])
    (RESULTS / "harmonise.md").write_text(text, encoding="utf-8")
    print(text)
    if args.sheet:
        _write_sheet(strips, args.sheet)


def _seeds(count: int) -> list[int]:
    """Worlds whose main vehicle shows well throughout."""
    from studio.driving_world import render_cover, sample_scene
    from studio.pocket.harmoniser.data import FPS, shows_well

    found: list[int] = []
    seed = FIRST_SEED
    while len(found) < count:
        cover = render_cover(sample_scene(seed), 1, height=SIZE, width=SIZE, num_frames=NUM_FRAMES, fps=FPS)
        if shows_well(cover):
            found.append(seed)
        seed += 1
    return found


def measured(network: Harmoniser, seed: int, condition: str) -> tuple[dict[str, Any], np.ndarray]:
    """What each method comes to in one clip, and a strip of pictures of it."""
    from studio.driving_world import sample_scene
    from studio.pipelines.harmoniser import SURROUNDINGS, harmonised, surroundings_of, zone_of
    from studio.pocket.harmoniser.data import CUT_FROM, pair_of

    hour, weather = CONDITIONS[condition]
    into = sample_scene(seed, time_of_day=hour, weather=weather)
    cut_from = sample_scene(seed, time_of_day=CUT_FROM[0], weather=CUT_FROM[1])
    pair = pair_of((into, cut_from), 1, height=SIZE, width=SIZE, num_frames=NUM_FRAMES)
    alpha = pair.cover.astype(np.float32) / 255
    paste = _over(pair.source, pair.vehicle, alpha)
    began, spent = time.perf_counter(), time.process_time()
    zone = np.stack([zone_of(each) for each in alpha])
    around = np.stack([surroundings_of(each, SURROUNDINGS) for each in pair.source])
    made, _ = harmonised(network, pair.source, paste, alpha, zone, around)
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    on, beside = alpha > 0.5, (zone > 0) & (alpha <= 0.5)
    cloned, failures = _cloned(pair, on)
    ways = {
        "paste": paste,
        "gain transfer": _gained(pair, alpha, on),
        "seamless clone": cloned,
        "harmonised": made,
        "colour matrix": _recoloured(pair, paste, alpha, on),
    }
    cell = {
        "seed": seed,
        "condition": condition,
        "on": {name: _psnr(clip, pair.wanted, on) for name, clip in ways.items()},
        "beside": {name: _psnr(clip, pair.wanted, beside) for name, clip in ways.items()},
        "outside_equal": bool(np.array_equal(made[zone == 0], pair.source[zone == 0])),
        "outside_off": float((pair.wanted != pair.source)[zone == 0].mean()),
        "clone_failures": failures,
        "seconds": seconds,
        "processor_seconds": spent,
    }
    middle = NUM_FRAMES // 2
    return cell, np.concatenate([clip[middle] for clip in (pair.source, paste, made, pair.wanted)], axis=1)


def _over(source: np.ndarray, vehicle: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None]
    return np.rint(source * (1 - share) + np.clip(vehicle, 0, 255) * share).astype(np.uint8)


def _gained(pair: Pair, alpha: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Each frame's vehicle with the mean and the deviation of the source about it."""
    lit = pair.vehicle.astype(np.float32)
    for number, mask in enumerate(on):
        if not mask.any():
            continue
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        parts = []
        for places, extent in ((rows, SIZE), (columns, SIZE)):
            more = (places[-1] - places[0] + 1) // 2
            parts.append(slice(max(0, places[0] - more), min(extent, places[-1] + 1 + more)))
        ring = ~mask[tuple(parts)]
        near = pair.source[number][tuple(parts)][ring].astype(np.float32)
        own = lit[number][mask]
        factor = near.std(axis=0) / np.maximum(own.std(axis=0), 1)
        lit[number] = (lit[number] - own.mean(axis=0)) * factor + near.mean(axis=0)
    return _over(pair.source, lit, alpha)


def _cloned(pair: Pair, on: np.ndarray) -> tuple[np.ndarray, int]:
    """OpenCV's Poisson cloning, and in how many frames it refused; there the paste stands."""
    frames, failures = [], 0
    for source, vehicle, mask in zip(pair.source, pair.vehicle, on, strict=True):
        bytes_ = cv2.dilate(mask.astype(np.uint8) * 255, np.ones((3, 3), np.uint8))
        bytes_[[0, -1]] = 0  # its solver takes no mask that touches the picture's edge
        bytes_[:, [0, -1]] = 0
        left, top, width, height = cv2.boundingRect(bytes_)
        try:
            middle = (left + width // 2, top + height // 2)
            frames.append(cv2.seamlessClone(vehicle, source, bytes_, middle, cv2.NORMAL_CLONE))
        except cv2.error:
            failures += 1
            frames.append(np.where(mask[..., None], vehicle, source))
    return np.stack(frames), failures


def _recoloured(pair: Pair, paste: np.ndarray, alpha: np.ndarray, on: np.ndarray) -> np.ndarray:
    own = np.concatenate([paste[on], np.ones((int(on.sum()), 1))], axis=1).astype(np.float64)
    matrix = np.linalg.lstsq(own, pair.wanted[on].astype(np.float64), rcond=None)[0]
    return _over(pair.source, pair.vehicle @ matrix[:3] + matrix[3], alpha)


def _psnr(made: np.ndarray, wanted: np.ndarray, mask: np.ndarray) -> float:
    error = (made[mask].astype(np.float64) - wanted[mask]) / 255
    return -10 * math.log10(max(1e-12, float(np.square(error).mean())))


def tables(cells: list[dict[str, Any]], processor: str, threads: int) -> str:
    ways = list(cells[0]["on"])
    count = len({cell["seed"] for cell in cells})
    lines = [
        "# A vehicle put into a clip",
        "",
        f"{count} held-out worlds, {NUM_FRAMES} frames of {SIZE}×{SIZE}; PSNR against the truth, mean over clips ± "
        "their standard deviation; in brackets the gain over the paste.",
        "",
    ]
    for place, title in (("on", "On the vehicle"), ("beside", "Around it: shadow and lamps")):
        lines += [f"## {title}", "", f"| condition | n | {' | '.join(ways)} |", "| --- " * (len(ways) + 2) + "|"]
        for name in CONDITIONS:
            lines.append(_row(name, [cell for cell in cells if cell["condition"] == name], place, ways))
        asked = [cell for cell in cells if cell["condition"] in ASKED]
        lines += [_row(f"**mean of {', '.join(ASKED)}**", asked, place, ways), ""]
    same = sum(cell["outside_equal"] for cell in cells)
    seconds = np.array([cell["seconds"] for cell in cells])
    spent = np.array([cell["processor_seconds"] for cell in cells])
    beyond = np.mean([cell["outside_off"] for cell in cells])
    failures = sum(cell["clone_failures"] for cell in cells)
    lines += [
        f"Outside the zone the source is bit for bit the same in {same} of {len(cells)} clips. "
        f"{beyond:.2%} of the values out there differ between truth and source: light that reaches beyond the zone.",
        "",
        f"Time for {NUM_FRAMES} frames of {SIZE}×{SIZE}: median {np.median(seconds):.2f} s, best {seconds.min():.2f} "
        f"s, worst {seconds.max():.2f} s by the clock, with other work beside it; median {np.median(spent):.2f} s of a "
        f"processor ({processor}; {threads} threads).",
        "",
        f"Seamless cloning refused {failures} of {len(cells) * NUM_FRAMES} frames, which count as pasted.",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, cells: list[dict[str, Any]], place: str, ways: list[str]) -> str:
    def cell_of(way: str) -> str:
        values = np.array([cell[place][way] for cell in cells])
        gains = np.array([cell[place][way] - cell[place]["paste"] for cell in cells])
        text = f"{values.mean():.1f} ± {values.std():.1f}"
        return text if way == "paste" else f"{text} ({gains.mean():+.1f})"

    return f"| {name} | {len(cells)} | {' | '.join(map(cell_of, ways))} |"


def _write_sheet(strips: list[np.ndarray], path: Path) -> None:
    rows = [np.concatenate(strips[at : at + 2], axis=1) for at in range(0, len(strips) - 1, 2)]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _processor() -> str:
    from studio.machine import hardware

    here = hardware.measure()
    return f"{here.accelerator_name or here.cpu_name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
