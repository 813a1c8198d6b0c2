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
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.pocket.architecture import FPS, HEIGHT, NUM_FRAMES, WIDTH

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TRAINING_SEED = 1_000_000
"""First seed of the training worlds."""
STILLS_SEED = 5_000_000
"""First seed of the worlds of which only one frame is rendered."""
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


def fresh_processes() -> ProcessPoolExecutor:
    """A pool with one process a core.

    Spawned, not forked: a fork of a process whose libraries have run threads may wait for these for ever.
    """
    return ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn"))


def render_worlds(seeds: Sequence[int], *, num_frames: int = NUM_FRAMES) -> Iterator[RenderedWorld]:
    """Worlds in the order of their seeds, rendered on every core."""
    with fresh_processes() as pool:
        yield from pool.map(partial(render_world, num_frames=num_frames), seeds, chunksize=8)


CELL = 8
"""Pixels, along a row and a column, that one place of the latent stands for."""


@dataclass(frozen=True, kw_only=True)
class TrainingWorld:
    """A world, and where in it the small things are that most of a prompt is about."""

    world: RenderedWorld
    covers: np.ndarray
    """float32 (F, 2, H / 8, W / 8): the share of each cell that vehicles cover, and that lane lines do."""


def render_training_world(seed: int, *, num_frames: int = NUM_FRAMES, size: int = HEIGHT) -> TrainingWorld:
    import cv2

    from studio.driving_world import VEHICLE_TYPES, attributes, render_with_maps, sample_scene

    cv2.setNumThreads(1)
    scene = sample_scene(seed)
    clip, maps = render_with_maps(scene, height=size, width=size, num_frames=num_frames, fps=FPS)
    assert maps.semantic is not None
    labels = maps.semantic_labels
    kinds = ([labels.index(name) for name in VEHICLE_TYPES if name in labels], [labels.index("lane_line")])
    covered = np.stack([np.isin(maps.semantic, kind) for kind in kinds], axis=1).astype(np.float32)
    side = size // CELL
    return TrainingWorld(
        world=RenderedWorld(
            frames=clip.frames, caption=clip.caption, wordings=wordings_of(seed), attributes=dict(attributes(scene))
        ),
        covers=covered.reshape(num_frames, 2, side, CELL, side, CELL).mean(axis=(3, 5)),
    )


def store_worlds(folder: Path, *, clips: int, first_seed: int = TRAINING_SEED, num_frames: int = NUM_FRAMES) -> Path:
    """Render `clips` worlds into `folder`: frames.npy (N, F, H, W, 3), covers.npy (N, F, 2, H/8, W/8), and worlds.json
    with seeds, wordings and attributes."""
    if first_seed < HELD_OUT_SEEDS:
        raise ValueError(f"first_seed {first_seed} is held out; training worlds start at {TRAINING_SEED}")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "worlds.json").is_file() and len(stored_worlds(folder)) >= clips:
        return folder
    create = partial(np.lib.format.open_memmap, mode="w+")
    frames = create(folder / "frames.npy", dtype=np.uint8, shape=(clips, num_frames, HEIGHT, WIDTH, 3))
    cells = (HEIGHT // CELL, WIDTH // CELL)
    covers = create(folder / "covers.npy", dtype=np.float16, shape=(clips, num_frames, 2, *cells))
    worlds = []
    with fresh_processes() as pool:
        seeds = range(first_seed, first_seed + clips)
        rendered = pool.map(partial(render_training_world, num_frames=num_frames), seeds, chunksize=8)
        for index, (seed, made) in enumerate(zip(seeds, rendered, strict=True)):
            frames[index], covers[index] = made.world.frames, made.covers
            said = {"seed": seed, "wordings": made.world.wordings, "attributes": made.world.attributes}
            worlds.append(said)
    frames.flush()
    covers.flush()
    (folder / "worlds.json").write_text(json.dumps(worlds))
    return folder


def stored_frames(folder: Path) -> Tensor:
    """The frames of `store_worlds`, mapped from disk: (N, F, H, W, 3) uint8."""
    import torch

    # "c": torch wants an array that could be written to, and what is written stays in memory.
    return torch.from_numpy(np.load(folder / "frames.npy", mmap_mode="c"))


def stored_covers(folder: Path) -> Tensor:
    """(N, F, 2, H/8, W/8) float16, as `TrainingWorld` has them."""
    import torch

    return torch.from_numpy(np.load(folder / "covers.npy"))


def stored_worlds(folder: Path) -> list[dict[str, Any]]:
    """Seed, wordings (the caption first) and attributes of each stored clip."""
    return json.loads((folder / "worlds.json").read_text())


def crops(
    frames: Tensor, generator: torch.Generator, *, batch: int, length: int, size: int, busy_share: float = 0.5
) -> Tensor:
    """A batch (B, 3, T, size, size) of random crops in -1..1 of frames (N, F, H, W, 3), on the frames' own device.

    A `busy_share` of them is the busier of two candidates: most of a road scene is sky and asphalt, which are learnt
    at once, and the vehicles are small.
    """
    import torch

    def below(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    def candidate() -> Tensor:
        clip = frames[below(len(frames))]
        t, y, x = (below(extent - part + 1) for extent, part in zip(clip.shape, (length, size, size), strict=False))
        return clip[t : t + length, y : y + size, x : x + size]

    chosen = []
    for index in range(batch):
        crop = candidate()
        if index < busy_share * batch and size < frames.shape[2]:
            other = candidate()
            crop = torch.where(_busyness(crop) < _busyness(other), other, crop)  # a card need not be waited for
        chosen.append(crop)
    return video_of(torch.stack(chosen))


def beside(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded by this one's next draw: large noise is made where it is used."""
    import torch

    if device.type == "cpu":
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))


def as_video(pixels: np.ndarray) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) in -1..1."""
    import torch

    return video_of(torch.from_numpy(np.array(pixels)))


def video_of(pixels: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) in -1..1, on the pixels' device."""
    return pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def as_pixels(video: Tensor) -> np.ndarray:
    """(B, 3, T, H, W) in -1..1 to (B, T, H, W, 3) uint8."""
    return ((video.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()


def _busyness(crop: Tensor) -> Tensor:
    middle = crop[len(crop) // 2].float()
    return middle.diff(dim=1).abs().mean() + middle.diff(dim=0).abs().mean()
