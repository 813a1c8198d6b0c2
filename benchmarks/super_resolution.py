"""What enlarging gains, and what it takes: `python benchmarks/super_resolution.py --clip road.mp4`.

A clip is shrunk and enlarged again, and held against what it was:
- shrunk by bicubic interpolation that does not alias (`studio.clips.shrinking.shrunk`) and rounded to 8 bits;
- PSNR and SSIM as `studio.metrics` defines them, means over pictures, and the PSNR's gain over bicubic (OpenCV's and
  torch's, a = -0.75; Pillow's, a = -0.5, has a row of its own);
- shrink-back: PSNR of the result, shrunk again, against what was given;
- flicker: the mean second difference of pixels over time, as a ratio to the original's;
- CPU seconds of a picture in one thread, encoding apart.

Clips: a real one, where one is given (--first and --last say which of its pictures; the project ships none), and
renders of held-out worlds. Memory: the most that `python -m studio upscale` has resident for 48 and for 240 pictures,
the reading process apart. Writes results/super_resolution.md and .json, and README's part between its marks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from marked import write_between

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
MARKS = ("<!-- super-resolution -->", "<!-- /super-resolution -->")
WORLD_SEEDS = range(5)
"""Held-out worlds that are rendered large."""
Row = dict[str, Any]


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a real clip")
    parser.add_argument("--first", type=int, default=150, help="first of its pictures that are measured")
    parser.add_argument("--last", type=int, default=220)
    parser.add_argument("--every", type=int, default=1, help="every how many pictures")
    args = parser.parse_args()
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name, clips in _sources(args):
        for scale in (2, 4):
            rows += [{"clip": name, "scale": scale} | row for row in _rows(clips, scale)]
            print(rows[-1], flush=True)
    memory = {str(count): _resident(count) for count in (48, 240)}
    (RESULTS / "super_resolution.json").write_text(
        json.dumps({"rows": rows, "resident_bytes": memory}, indent=1) + "\n", encoding="utf-8"
    )
    text = table(rows, memory)
    (RESULTS / "super_resolution.md").write_text(f"# What enlarging gains\n\n{text}\n", encoding="utf-8")
    first = [row for row in rows if row["clip"] == rows[0]["clip"]]
    write_between(ROOT / "README.md", MARKS, table(first, memory))
    print(text)


def _sources(args: argparse.Namespace) -> Iterator[tuple[str, list[np.ndarray]]]:
    from studio.clips.read import read_clip
    from studio.driving_world import render, sample_scene

    if args.clip is not None:
        frames = read_clip(args.clip).clip.frames[args.first : args.last + 1 : args.every]
        yield f"road, {len(frames)} pictures", [frames]
    worlds = [render(sample_scene(seed), height=540, width=960, num_frames=5).frames for seed in WORLD_SEEDS]
    yield f"{len(worlds)} worlds of 5 pictures", worlds


def _methods(scale: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    import cv2
    from PIL import Image

    from studio.super_resolve.methods import BackProjection, Interpolation

    def pillow(pictures: np.ndarray) -> np.ndarray:
        height, width = pictures.shape[1:3]
        size = (width * scale, height * scale)
        bicubic = Image.Resampling.BICUBIC
        return np.stack([np.asarray(Image.fromarray(each).resize(size, bicubic)) for each in pictures])

    return {
        "Pillow's bicubic": pillow,
        "bicubic": Interpolation(scale, cv2.INTER_CUBIC),
        "Lanczos": Interpolation(scale, cv2.INTER_LANCZOS4),
        "Lanczos + back-projection": BackProjection(scale, 3),
    }


def _rows(clips: list[np.ndarray], scale: int) -> list[Row]:
    from studio.clips.shrinking import shrunk
    from studio.metrics import score
    from studio.super_resolve.methods import in_8_bits

    clips = [clip[:, : clip.shape[1] // scale * scale, : clip.shape[2] // scale * scale] for clip in clips]
    given = [np.stack([in_8_bits(shrunk(each.astype(np.float32), scale)) for each in clip]) for clip in clips]
    rows: list[Row] = []
    for name, enlarge in _methods(scale).items():
        enlarge(given[0][:1])
        began = time.process_time()
        made = [np.concatenate([enlarge(each[None]) for each in clip]) for clip in given]
        seconds = (time.process_time() - began) / sum(map(len, made))
        scores = [score(one, other, ["psnr", "ssim", "flicker"]) for one, other in zip(made, clips, strict=True)]
        steady = [score(clip, clip, ["flicker"])["flicker"] for clip in clips]
        back = [
            _psnr(shrunk(large.astype(np.float32), scale), small)
            for large_clip, small_clip in zip(made, given, strict=True)
            for large, small in zip(large_clip, small_clip, strict=True)
        ]
        rows.append(
            {
                "method": name,
                "psnr": float(np.mean([each["psnr"] for each in scores])),
                "ssim": float(np.mean([each["ssim"] for each in scores])),
                "flicker": float(np.mean([each["flicker"] for each in scores]) / np.mean(steady)),
                "back": float(np.mean(back)),
                "cpu_seconds": seconds,
            }
        )
    return rows


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def _resident(count: int) -> int:
    """Bytes that enlarging so many pictures of 480×270 four times has resident at the most."""
    from studio.clips.clip import Clip
    from studio.clips.write import write_clip
    from studio.driving_world import render, sample_scene

    frames = render(sample_scene(0), height=270, width=480, num_frames=24).frames
    with TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(Clip(frames=np.concatenate([frames] * (count // 24)), fps=24), clip)
        code = (
            "import resource, sys; from studio.__main__ import main; status = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(status)"
        )
        command = [sys.executable, "-c", code, "upscale", str(clip), "--scale", "4", "--runs", folder]
        done = subprocess.run(command, env=os.environ, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def table(rows: list[Row], memory: dict[str, int]) -> str:
    lines = [
        "| clip | scale | method | PSNR | over bicubic | SSIM | shrink-back | flicker | CPU seconds a picture |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        plain = next(
            each["psnr"]
            for each in rows
            if (each["clip"], each["scale"], each["method"]) == (row["clip"], row["scale"], "bicubic")
        )
        lines.append(
            f"| {row['clip']} | {row['scale']}× | {row['method']} | {row['psnr']:.2f} dB "
            f"| {row['psnr'] - plain:+.2f} dB | {row['ssim']:.4f} | {row['back']:.1f} dB | {row['flicker']:.2f}× "
            f"| {row['cpu_seconds']:.3f} |"
        )
    few, many = memory["48"], memory["240"]
    lines += [
        "",
        f"Memory for 240 pictures is {many / few:.2f}× that for 48 ({many / 1e6:.0f} MB resident, 480×270 at 4×).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
