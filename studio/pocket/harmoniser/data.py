"""What the harmoniser learns from: the same drive with a vehicle and without it, at another hour or in other weather.

The driving world gives exact pairs for nothing. Geometry is a matter of the seed alone, so a vehicle that is cut out of
the clear day's picture lies, pixel for pixel, where it drives at night in the rain; and had it never come, its shadow
and the light of its lamps would be gone as well.

    source    the world at its hour and in its weather, without the vehicle
    vehicle   the same drive on another day, from which the vehicle is cut by its cover
    wanted    the world at its hour and in its weather, with the vehicle

Knows seeds, the renderer and numpy files. Refuses to know models. Worlds have seeds from `TRAINING_SEED` up, as all
that pocket models are trained on.

Shapes: N pairs, T pictures, SIDE rows and columns; uint8, RGB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studio.pipelines.harmoniser import SURROUNDINGS, surroundings_of, zone_of
from studio.pocket.data import TRAINING_SEED, fresh_processes
from studio.storage import whole

if TYPE_CHECKING:
    from torch import Tensor

    from studio.driving_world import Scene

LENGTH, SIDE = 6, 160
FPS = 12.0
Condition = tuple[str, str]
"""An hour and a weather."""
CUT_FROM: Condition = ("day", "clear")
"""Where vehicles are cut out of, mostly."""
MEASURED: dict[str, Condition] = {
    "night": ("night", "clear"),
    "dusk": ("dusk", "clear"),
    "fog": ("day", "fog"),
    "snow": ("day", "snow"),
}
"""Conditions that weights are judged in, by name."""
_OTHERS: tuple[Condition, ...] = (
    ("day", "rain"),
    ("dusk", "rain"),
    ("dusk", "fog"),
    ("dusk", "snow"),
    ("night", "rain"),
    ("night", "fog"),
    ("night", "snow"),
    ("day", "clear"),
)
_MEASURED_SHARE = 0.55
"""Of pairs that are in a condition which is measured; the rest is in any other."""
_ODD_SHARE = 0.2
"""Of vehicles that are cut out of another hour or weather than the clear day."""
SIZES = ((160, 160), (192, 192), (256, 256), (256, 256), (256, 448))
"""Rows and columns that worlds are rendered at."""
SMALLEST = 12
"""Rows that a vehicle shows at the least, in the middle picture."""
OF_A_WORLD = 2
"""Pairs of one vehicle, each in another condition."""
_MAIN_SHARE = 0.7
"""Of worlds whose main vehicle is the first to be looked at."""
ARRAYS = ("source", "vehicle", "wanted", "cover", "zone", "around")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One paste, and what it should have become."""

    source: np.ndarray
    """(T, H, W, 3), without the vehicle."""
    vehicle: np.ndarray
    """(T, H, W, 3), the picture that the vehicle is cut from."""
    wanted: np.ndarray
    """(T, H, W, 3), with the vehicle."""
    cover: np.ndarray
    """(T, H, W): how much of a pixel the vehicle covers, 0 to 255."""
    zone: np.ndarray
    """(T, H, W): the weight of what is made, 0 to 255."""
    around: np.ndarray
    """(T, 32, 32, 3): the whole source, made small."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Many, mapped from disk; fields as a `Pair`'s, with N in front."""

    source: Tensor
    vehicle: Tensor
    wanted: Tensor
    cover: Tensor
    zone: Tensor
    around: Tensor


def pair_of(
    scenes: tuple[Scene, Scene], instance_id: int, *, height: int, width: int, num_frames: int, fps: float = FPS
) -> Pair:
    """The whole pictures of a scene, and of the scene that its vehicle is cut from: the same seed, at another hour or
    in other weather."""
    from studio.driving_world import render_cover, render_frames, without

    scene, cut_from = scenes
    as_clip = {"height": height, "width": width, "num_frames": num_frames, "fps": fps}
    source = render_frames(without(scene, instance_id), **as_clip)
    cover = render_cover(scene, instance_id, **as_clip)
    return Pair(
        source=source,
        vehicle=render_frames(cut_from, **as_clip),
        wanted=render_frames(scene, **as_clip),
        cover=in_8_bits(cover),
        zone=in_8_bits(np.stack([zone_of(alpha) for alpha in cover])),
        around=np.stack([surroundings_of(picture, SURROUNDINGS) for picture in source]),
    )


def in_8_bits(plane: np.ndarray) -> np.ndarray:
    """0…1 to 0…255; what is above nothing stays above it."""
    return np.where(plane > 0, np.maximum(np.rint(255 * plane), 1), 0).astype(np.uint8)


def store_pairs(folder: Path, *, count: int, first_seed: int = TRAINING_SEED) -> None:
    """Render `count` pairs into `folder`, one file for each array of a `Pair`."""
    done = folder / "pairs.json"
    if done.is_file() and json.loads(done.read_text())["count"] >= count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"cover": (SIDE, SIDE), "zone": (SIDE, SIDE), "around": (SURROUNDINGS, SURROUNDINGS, 3)}
    create = partial(np.lib.format.open_memmap, mode="w+", dtype=np.uint8)
    files = {
        name: create(folder / f"{name}.npy", shape=(count, LENGTH, *sides.get(name, (SIDE, SIDE, 3))))
        for name in ARRAYS
    }
    for place, pair in enumerate(_rendered(count, first_seed)):
        for name, file in files.items():
            file[place] = getattr(pair, name)
    for file in files.values():
        file.flush()
    done.write_text(json.dumps({"count": count, "first_seed": first_seed}))


def held_out_pairs(path: Path, *, worlds: int) -> None:
    """Write the pairs by which weights are judged: so many held-out worlds, each in all measured conditions."""
    from studio.driving_world import render_cover, sample_scene

    if path.is_file():
        return
    found: list[Pair] = []
    seed = 0
    while len(found) < worlds * len(MEASURED):
        as_clip = {"height": SIDE, "width": SIDE, "num_frames": LENGTH, "fps": FPS}
        if shows_well(render_cover(sample_scene(seed), 1, **as_clip)):
            for hour, weather in MEASURED.values():
                into = sample_scene(seed, time_of_day=hour, weather=weather)
                cut_from = sample_scene(seed, time_of_day=CUT_FROM[0], weather=CUT_FROM[1])
                found.append(pair_of((into, cut_from), 1, height=SIDE, width=SIDE, num_frames=LENGTH))
        seed += 1
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.stack([getattr(p, name) for p in found]) for name in ARRAYS})


def read_pairs(path: Path) -> Pairs:
    """What `held_out_pairs` wrote: pair n is in the measured condition n modulo their number."""
    import torch

    arrays = np.load(path)
    return Pairs(**{name: torch.from_numpy(arrays[name]) for name in ARRAYS})


def stored_pairs(folder: Path) -> Pairs:
    import torch

    # "c": torch wants an array that could be written to, and what is written stays in memory.
    return Pairs(**{name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ARRAYS})


def _rendered(count: int, first_seed: int) -> Iterator[Pair]:
    """In the order of their seeds, made on every core. A world that shows no vehicle well is passed over."""
    left, first = count, first_seed
    with fresh_processes() as pool:
        while left:
            worlds = -(-left // OF_A_WORLD)
            for several in pool.map(_of_world, range(first, first + worlds), chunksize=4):
                yield from several[:left]
                left -= min(left, len(several))
            first += worlds


def _of_world(seed: int) -> list[Pair]:
    """Pairs of one vehicle of a world, cut to squares around it; none where no vehicle shows well."""
    import cv2

    from studio.driving_world import render_cover, sample_scene

    cv2.setNumThreads(1)  # worlds are rendered side by side, one a core
    rng = np.random.default_rng([5, seed])
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    scene = sample_scene(seed)
    numbers = rng.permutation([each.instance_id for each in scene.vehicles]).tolist()
    if rng.random() < _MAIN_SHARE:
        numbers.sort(key=lambda number: number != scene.vehicles[0].instance_id)
    for instance_id in numbers:
        cover = render_cover(scene, instance_id, height=height, width=width, num_frames=LENGTH, fps=FPS)
        if shows_well(cover):
            return [_cut(_in_condition(seed, instance_id, height, width, rng), rng) for _ in range(OF_A_WORLD)]
    return []


def shows_well(cover: np.ndarray) -> bool:
    """Whether a vehicle is in all pictures (T, H, W), and large enough in the middle one."""
    shown = cover > 0.5
    rows = np.flatnonzero(shown[len(shown) // 2].any(axis=1))
    return bool(len(rows) and rows[-1] - rows[0] + 1 >= SMALLEST and shown.any(axis=(1, 2)).all())


def _in_condition(seed: int, instance_id: int, height: int, width: int, rng: np.random.Generator) -> Pair:
    from studio.driving_world import sample_scene

    def drawn(conditions: tuple[Condition, ...]) -> Condition:
        return conditions[int(rng.integers(len(conditions)))]

    into = drawn(tuple(MEASURED.values())) if rng.random() < _MEASURED_SHARE else drawn(_OTHERS)
    everywhere = (*MEASURED.values(), *_OTHERS)
    cut_from = drawn(everywhere) if rng.random() < _ODD_SHARE else CUT_FROM
    scenes = [sample_scene(seed, time_of_day=hour, weather=weather) for hour, weather in (into, cut_from)]
    return pair_of((scenes[0], scenes[1]), instance_id, height=height, width=width, num_frames=LENGTH)


def _cut(pair: Pair, rng: np.random.Generator) -> Pair:
    """A square of SIDE, somewhere about the vehicle; what lies beyond a smaller picture is its edge, repeated."""
    shown = (pair.cover > 127).any(axis=0)

    def start(places: np.ndarray, extent: int) -> int:
        middle = int(rng.integers(places[0], places[-1] + 1))
        begin = middle - SIDE // 2 + int(rng.integers(-SIDE // 4, SIDE // 4 + 1))
        return int(np.clip(begin, 0, max(0, extent - SIDE)))

    rows, columns = np.nonzero(shown)
    top, left = (start(np.unique(places), extent) for places, extent in zip((rows, columns), shown.shape, strict=True))

    def cut(array: np.ndarray) -> np.ndarray:
        part = array[:, top : top + SIDE, left : left + SIDE]
        short = [(0, SIDE - extent) for extent in part.shape[1:3]]
        return np.pad(part, [(0, 0), *short, *[(0, 0)] * (part.ndim - 3)], mode="edge")

    cuts = {name: cut(getattr(pair, name)) for name in ARRAYS if name != "around"}
    return Pair(**cuts, around=pair.around)
