"""What the driver learns from: worlds as latents, and their maps as planes, exact and as a clip's extractors see them.

Half of the clips that maps are extracted from show the same world at another hour or in other weather: geometry is the
same to the pixel, so whoever drops a clip of a sunny road and asks for a rainy night gives what was trained on.

Knows seeds, the renderer, the extractors and numpy files. Refuses to know models; whoever stores brings an encoder.

Shapes: N clips; frames (F, H, W, 3) uint8; planes (C, t, h, w) as `pipelines.driver` folds them, in 127ths as int8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.clips.control_maps import ControlMaps, MapName
from studio.pocket.architecture import FPS, HEIGHT, NUM_FRAMES, WIDTH, PocketSizes, latent_shape
from studio.pocket.data import HELD_OUT_SEEDS, fresh_processes, wordings_of

FIRST_SEED = 8_000_000
"""Of the driver's training worlds."""
SEEN_ANEW: tuple[MapName, ...] = ("layout", "edges", "lane_lines", "depth", "semantic", "optical_flow")
"""Those that extractors make of a clip; boxes are followed from where a person draws them, and are taken as exact."""
STEP = 127
"""Of planes, what 1 is stored as."""
_AT_ONCE = 8
Encode = Callable[[np.ndarray], np.ndarray]
"""Clips (B, F, H, W, 3) uint8 to normalised latents (B, Z, t, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One world."""

    frames: np.ndarray
    exact: np.ndarray
    """Planes of the world's own maps, int8."""
    seen: np.ndarray
    """Planes of what extractors make of it, or of the same world in other light, int8."""
    wordings: tuple[str, ...]


def example(seed: int) -> Example:
    """The world of a seed, with both kinds of maps."""
    import cv2

    from studio.driving_world import render_with_maps, sample_scene
    from studio.pipelines.driver import planes_of

    cv2.setNumThreads(1)
    clip, maps = render_with_maps(sample_scene(seed), height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, fps=FPS)
    source = clip.frames if seed % 2 else _in_other_light(seed)
    exact = with_layout(maps, clip.frames)
    seen = replace(seen_maps(source), boxes=maps.boxes)
    return Example(
        frames=clip.frames, exact=stored(planes_of(exact)), seen=stored(planes_of(seen)), wordings=wordings_of(seed)
    )


def with_layout(maps: ControlMaps, frames: np.ndarray) -> ControlMaps:
    """A world's maps, and beside them the layout of its pictures, which a world does not measure."""
    from studio.control_maps.layout import layout

    return replace(maps, layout=np.stack([layout(frame) for frame in frames]))


def seen_maps(frames: np.ndarray) -> ControlMaps:
    """What the extractors find in a clip."""
    from studio.control_maps import extract

    extraction = extract(frames, fps=FPS, names=SEEN_ANEW)
    while True:
        try:
            next(extraction)
        except StopIteration as ended:
            return ended.value.maps


def _in_other_light(seed: int) -> np.ndarray:
    from studio.driving_world import TIMES_OF_DAY, WEATHERS, render, sample_scene

    dice = np.random.default_rng(seed)
    scene = sample_scene(seed, time_of_day=str(dice.choice(TIMES_OF_DAY)), weather=str(dice.choice(WEATHERS)))
    return render(scene, height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, fps=FPS).frames


def stored(planes: np.ndarray) -> np.ndarray:
    return np.rint(planes * STEP).clip(-STEP, STEP).astype(np.int8)


def store_examples(
    folder: Path, *, clips: int, sizes: PocketSizes, encode: Encode, first_seed: int = FIRST_SEED
) -> Iterator[int]:
    """Render `clips` worlds into `folder`, going on where an earlier call stopped; yields how many are there.

    latents.npy (N, Z, t, h, w) float16, exact.npy and seen.npy (N, C, t, h, w) int8, wordings.json.

    Raises:
        ValueError: the seeds are held out.
    """
    if first_seed < HELD_OUT_SEEDS:
        raise ValueError(f"first_seed {first_seed} is held out; the driver's worlds start at {FIRST_SEED}")
    from studio.pipelines.driver import CHANNELS

    folder.mkdir(parents=True, exist_ok=True)
    shape = latent_shape(sizes, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH)
    cells = (clips, CHANNELS, *shape[1:])
    latents = _array(folder / "latents.npy", np.float16, (clips, *shape))
    exact, seen = (_array(folder / name, np.int8, cells) for name in ("exact.npy", "seen.npy"))
    wordings: list[Sequence[str]] = json.loads(path.read_text()) if (path := folder / "wordings.json").is_file() else []
    with fresh_processes() as pool:
        while len(wordings) < clips:
            rows = range(len(wordings), min(len(wordings) + 8 * _AT_ONCE, clips))
            made = list(pool.map(example, (first_seed + row for row in rows), chunksize=2))
            for first in range(0, len(made), _AT_ONCE):
                some = made[first : first + _AT_ONCE]
                at = slice(rows[first], rows[first] + len(some))
                latents[at] = encode(np.stack([each.frames for each in some]))
                exact[at], seen[at] = (np.stack([getattr(each, kind) for each in some]) for kind in ("exact", "seen"))
            for array in (latents, exact, seen):
                array.flush()
            wordings += [each.wordings for each in made]
            path.write_text(json.dumps(wordings))
            yield len(wordings)


def _array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """One that is there already is gone on with, where it has that shape."""
    if path.is_file() and np.load(path, mmap_mode="r").shape == shape:
        return np.lib.format.open_memmap(path, mode="r+")
    (path.parent / "wordings.json").unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The stored examples, mapped from disk."""

    latents: np.ndarray
    exact: np.ndarray
    seen: np.ndarray
    wordings: list[list[str]]

    def __len__(self) -> int:
        return len(self.wordings)


def read_bank(folder: Path) -> Bank:
    """What `store_examples` has stored so far."""
    arrays = {kind: np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in ("latents", "exact", "seen")}
    return Bank(**arrays, wordings=json.loads((folder / "wordings.json").read_text()))
