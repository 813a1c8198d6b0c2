"""What the pocket model learns from: clips of the driving world, rendered once and kept in flat files.

Knows seeds, the renderer and numpy files. Refuses to know models. Training worlds have seeds from TRAINING_SEED up;
the seeds below HELD_OUT_SEEDS are for measuring only, and nothing here gives them to a recipe.

Shapes: N clips, F frames, H rows, W columns; pixels are uint8 on disk and -1..1 in a batch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.pocket.architecture import FPS, HEIGHT, NUM_FRAMES, WIDTH

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TRAINING_SEED = 1_000_000
"""First seed of the training worlds."""
HELD_OUT_SEEDS = 10_000
"""Seeds 0 to this, exclusive, are never trained on."""


@dataclass(frozen=True, kw_only=True)
class RenderedWorld:
    """One scene as pixels and words."""

    frames: np.ndarray
    """uint8, (F, H, W, 3)."""
    caption: str
    wordings: tuple[str, ...]
    """The same facts in other words, the caption first."""
    attributes: dict[str, Any]
    """What the caption states, by name."""


def wordings_of(seed: int, count: int = 6) -> tuple[str, ...]:
    """A world's caption, then the same facts in other words."""
    from studio.driving_world import caption, sample_scene

    scene = sample_scene(seed)
    return (caption(scene), *(caption(scene, variant=variant) for variant in range(count - 1)))


def render_world(seed: int, *, num_frames: int = NUM_FRAMES, size: int = HEIGHT) -> RenderedWorld:
    import cv2

    from studio.driving_world import attributes, render, sample_scene

    cv2.setNumThreads(1)  # worlds are rendered side by side, one a core
    scene = sample_scene(seed)
    clip = render(scene, height=size, width=size, num_frames=num_frames, fps=FPS)
    return RenderedWorld(
        frames=clip.frames,
        caption=clip.caption,
        wordings=wordings_of(seed),
        attributes=dict(attributes(scene)),
    )


def render_worlds(seeds: Sequence[int], *, num_frames: int = NUM_FRAMES) -> Iterator[RenderedWorld]:
    """Worlds in the order of their seeds, rendered on every core."""
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(partial(render_world, num_frames=num_frames), seeds, chunksize=8)


def store_worlds(folder: Path, *, clips: int, first_seed: int = TRAINING_SEED) -> Path:
    """Render `clips` worlds into `folder`: frames.npy (N, F, H, W, 3) and worlds.json with captions and attributes."""
    if first_seed < HELD_OUT_SEEDS:
        raise ValueError(f"first_seed {first_seed} is held out; training worlds start at {TRAINING_SEED}")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "worlds.json").is_file() and len(json.loads((folder / "worlds.json").read_text())) >= clips:
        return folder
    frames = np.lib.format.open_memmap(
        folder / "frames.npy", mode="w+", dtype=np.uint8, shape=(clips, NUM_FRAMES, HEIGHT, WIDTH, 3)
    )
    worlds = []
    for index, world in enumerate(render_worlds(range(first_seed, first_seed + clips))):
        frames[index] = world.frames
        worlds.append(
            {
                "seed": first_seed + index,
                "caption": world.caption,
                "attributes": world.attributes,
            }
        )
    frames.flush()
    (folder / "worlds.json").write_text(json.dumps(worlds))
    return folder


def vehicle_cover(seed: int, *, num_frames: int = NUM_FRAMES, size: int = HEIGHT, cell: int = 8) -> np.ndarray:
    """Share of each cell of `cell` x `cell` pixels that vehicles cover, frame by frame: (F, H/cell, W/cell) float32."""
    from studio.driving_world import VEHICLE_TYPES, render_with_maps, sample_scene

    _, maps = render_with_maps(sample_scene(seed), height=size, width=size, num_frames=num_frames, fps=FPS)
    assert maps.semantic is not None
    vehicles = [number for number, label in enumerate(maps.semantic_labels) if label in VEHICLE_TYPES]
    covered = np.isin(maps.semantic, vehicles).astype(np.float32)
    side = size // cell
    return covered.reshape(num_frames, side, cell, side, cell).mean(axis=(2, 4))


def stored_frames(folder: Path) -> np.ndarray:
    """The frames of `store_worlds`, mapped from disk: (N, F, H, W, 3) uint8."""
    return np.load(folder / "frames.npy", mmap_mode="r")


def stored_worlds(folder: Path) -> list[dict[str, Any]]:
    """Seed, caption and attributes of each stored clip."""
    return json.loads((folder / "worlds.json").read_text())


def crops(
    frames: np.ndarray, generator: torch.Generator, *, batch: int, length: int, size: int, busy_share: float = 0.5
) -> Tensor:
    """A batch (B, 3, T, size, size) of random crops in -1..1.

    A `busy_share` of them is the busier of two candidates: most of a road scene is sky and asphalt, which are learnt
    at once, and the vehicles are small.
    """
    import torch

    def below(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    def candidate() -> np.ndarray:
        clip = frames[below(len(frames))]
        t, y, x = (below(extent - part + 1) for extent, part in zip(clip.shape, (length, size, size), strict=False))
        return np.asarray(clip[t : t + length, y : y + size, x : x + size])

    chosen = []
    for index in range(batch):
        crop = candidate()
        if index < busy_share * batch and size < frames.shape[2]:
            crop = max(crop, candidate(), key=_busyness)
        chosen.append(crop)
    return as_video(np.stack(chosen))


def as_video(pixels: np.ndarray) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) in -1..1."""
    import torch

    return torch.from_numpy(np.array(pixels)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def as_pixels(video: Tensor) -> np.ndarray:
    """(B, 3, T, H, W) in -1..1 to (B, T, H, W, 3) uint8."""
    return ((video.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()


def _busyness(crop: np.ndarray) -> float:
    middle = crop[len(crop) // 2].astype(np.int16)
    return float(np.abs(np.diff(middle, axis=1)).mean() + np.abs(np.diff(middle, axis=0)).mean())
