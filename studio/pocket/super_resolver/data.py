"""What the super-resolver learns from: short clips of photographs and of the driving world, gathered once.

Knows seeds, photographs and numpy files. Refuses to know models. Worlds have seeds from `TRAINING_SEED` up, as all that
pocket models are trained on; a photograph that is held out gives no clip. Frames of real footage are in none of it.

Shapes: N clips, T pictures of SIDE rows and columns, uint8 RGB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from studio.pocket.data import TRAINING_SEED, fresh_processes
from studio.pocket.super_resolver.degradation import degraded
from studio.pocket.super_resolver.photographs import Moving, present, read
from studio.storage import whole

if TYPE_CHECKING:
    from torch import Tensor

LENGTH, SIDE = 5, 192
SCALES = (2, 4)
OF_A_WORLD = 6
"""Clips that are cut from one render."""
OF_A_PHOTOGRAPH = 8
"""Clips that one task makes; a photograph has several tasks."""
LARGE = "large.npy"
Example: TypeAlias = tuple[np.ndarray, dict[int, np.ndarray]]
"""A clip (T, SIDE, SIDE, 3), and what was left of it at each scale (T, SIDE/s, SIDE/s, 3)."""


def _degraded_name(scale: int) -> str:
    return f"degraded_{scale}.npy"


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The gathered clips, mapped from disk."""

    large: Tensor
    """(N, T, SIDE, SIDE, 3) uint8."""
    degraded: dict[int, Tensor]
    """By scale, (N, T, SIDE/s, SIDE/s, 3) uint8."""


def store_clips(folder: Path, *, photographs: Path | None, of_photographs: int, of_worlds: int) -> list[str]:
    """Gather clips into `folder`: large.npy, degraded_2.npy, degraded_4.npy, and which photographs are in them.

    Returns:
        The `file` of each photograph.

    Raises:
        ValueError: no photograph lies below `photographs`.
    """
    listed = folder / "photographs.json"
    if listed.is_file():
        return json.loads(listed.read_text())
    found = present(photographs) if photographs is not None else []
    if photographs is not None and not found:
        raise ValueError(f"none of the listed photographs lies below {photographs}; install their packages, or unpack")
    folder.mkdir(parents=True, exist_ok=True)
    of_photographs = of_photographs if found else 0
    count = of_photographs + of_worlds
    create = partial(np.lib.format.open_memmap, mode="w+", dtype=np.uint8)
    large = create(folder / LARGE, shape=(count, LENGTH, SIDE, SIDE, 3))
    small = {
        scale: create(folder / _degraded_name(scale), shape=(count, LENGTH, SIDE // scale, SIDE // scale, 3))
        for scale in SCALES
    }
    for place, (clip, left) in enumerate(_examples([path for _, path in found], of_photographs, of_worlds)):
        large[place] = clip
        for scale in SCALES:
            small[scale][place] = left[scale]
    files = [each.file for each, _ in found]
    listed.write_text(json.dumps(files))
    return files


def _examples(paths: Sequence[Path], of_photographs: int, of_worlds: int) -> Iterator[Example]:
    """In a fixed order, made on every core."""
    rounds = -(-of_photographs // OF_A_PHOTOGRAPH)
    tasks = [(paths[number % len(paths)], number) for number in range(rounds)]
    with fresh_processes() as pool:
        yield from _first(of_photographs, pool.map(_of_photograph, tasks))
        worlds = range(-(-of_worlds // OF_A_WORLD))
        yield from _first(of_worlds, pool.map(_of_world, worlds))


def _first(count: int, several: Iterator[list[Example]]) -> Iterator[Example]:
    left = count
    for examples in several:
        yield from examples[:left]
        left -= min(left, len(examples))


def _of_photograph(task: tuple[Path, int]) -> list[Example]:
    import cv2

    cv2.setNumThreads(1)
    path, number = task
    rng = np.random.default_rng([1, number])
    moving = Moving(read(path))
    return [_example(moving.clip(rng, length=LENGTH, side=SIDE), rng) for _ in range(OF_A_PHOTOGRAPH)]


def _of_world(number: int) -> list[Example]:
    import cv2

    from studio.driving_world import render, sample_scene

    cv2.setNumThreads(1)
    rng = np.random.default_rng([2, number])
    film = render(sample_scene(TRAINING_SEED + number), height=544, width=960, num_frames=LENGTH, fps=25.0).frames
    return [_example(_window(film, rng), rng) for _ in range(OF_A_WORLD)]


def _window(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The busiest of four windows: most of a road scene is sky and asphalt."""

    def one() -> np.ndarray:
        y, x = (int(rng.integers(extent - SIDE + 1)) for extent in film.shape[1:3])
        return film[:, y : y + SIDE, x : x + SIDE]

    return max(
        (one() for _ in range(4)), key=lambda clip: float(np.abs(np.diff(clip[0].astype(np.int16), axis=1)).mean())
    )


def _example(clip: np.ndarray, rng: np.random.Generator) -> Example:
    return clip, {scale: degraded(clip, scale, rng) for scale in SCALES}


def held_out_examples(path: Path, *, photographs: Path | None, worlds: int) -> None:
    """Write the clips by which weights are judged: of held-out photographs, and of held-out worlds."""
    from studio.driving_world import render, sample_scene

    if path.is_file():
        return
    examples: list[Example] = []
    rng = np.random.default_rng(3)
    for _, picture in present(photographs, held_out=True) if photographs is not None else []:
        moving = Moving(read(picture))
        examples += [_example(moving.clip(rng, length=LENGTH, side=SIDE), rng) for _ in range(OF_A_PHOTOGRAPH)]
    for seed in range(worlds):
        film = render(sample_scene(seed), height=544, width=960, num_frames=LENGTH, fps=25.0).frames
        examples += [_example(_window(film, rng), rng) for _ in range(OF_A_WORLD)]
    arrays = {LARGE: np.stack([clip for clip, _ in examples])}
    arrays |= {_degraded_name(scale): np.stack([left[scale] for _, left in examples]) for scale in SCALES}
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_examples(path: Path) -> list[Example]:
    """What `held_out_examples` wrote."""
    arrays = np.load(path)
    small = {scale: arrays[_degraded_name(scale)] for scale in SCALES}
    return [(clip, {scale: small[scale][place] for scale in SCALES}) for place, clip in enumerate(arrays[LARGE])]


def stored_clips(folder: Path) -> Clips:
    import torch

    # "c": torch wants an array that could be written to, and what is written stays in memory.
    def mapped(name: str) -> Tensor:
        return torch.from_numpy(np.load(folder / name, mmap_mode="c"))

    return Clips(large=mapped(LARGE), degraded={scale: mapped(_degraded_name(scale)) for scale in SCALES})
