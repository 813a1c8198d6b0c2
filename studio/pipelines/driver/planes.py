"""Planes: control maps folded onto a latent's grid, so that a denoiser is told them without loss.

A map that goes through an autoencoder as a painted picture comes out of a small one blurred: edges and lane lines, a
pixel wide, are what it keeps worst. Here each value of a map becomes a channel of the latent cell that it falls in:
lines keep every pixel, what is large is averaged over a few places of a cell. Knows numpy and which map is folded how.
Refuses to know the denoiser, torch, and where maps come from.

Shapes: F = 4k + 1 frames of H x W pixels; t = k + 1 latent frames, of which the first stands for one frame and each of
the others for four; h = H / 8 rows and w = W / 8 columns of cells; C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from studio.clips.control_maps import ControlMaps, MapName

CELL, FRAMES = 8, 4
"""Pixels along a side, and frames, that one latent place stands for."""
FAR_METRES = 12.0
"""Depth at which nearness is a half."""
FAST_PIXELS = 8.0
"""Motion from a frame to the next at which its plane is a half."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "sky": ("sky",),
    "road": ("road", "lane_line", "road_marking"),
    "ground": ("ground", "pavement", "hill", "rock"),
    "built": ("building", "lamp", "sign", "traffic_light"),
    "plants": ("tree", "vegetation", "terrain"),
    "movers": ("car", "truck", "bus", "motorbike", "pedestrian", "person", "rider", "motorcycle", "bicycle"),
}
"""The groups that a driver tells apart, and the names of classes that belong to each; others belong to none."""


@dataclass(frozen=True, kw_only=True)
class Folding:
    """How one map lies in the channels."""

    values: int
    """Of a pixel."""
    places: int
    """Along each side of a cell, that are told apart; pixels between them are averaged."""

    @property
    def channels(self) -> int:
        """One for each value and place of each frame, and one that says how much the map counts."""
        return self.values * self.places**2 * FRAMES + 1


FOLDINGS: Mapping[MapName, Folding] = {
    "layout": Folding(values=1, places=2),
    "edges": Folding(values=1, places=8),
    "lane_lines": Folding(values=1, places=8),
    "depth": Folding(values=1, places=2),
    "semantic": Folding(values=len(GROUPS), places=2),
    "optical_flow": Folding(values=3, places=2),
    "boxes": Folding(values=1, places=4),
}
"""The maps that a driver follows, in the order of their channels."""
FOLLOWED: tuple[MapName, ...] = tuple(FOLDINGS)
CHANNELS = sum(folding.channels for folding in FOLDINGS.values())


def channels_of(name: MapName) -> slice:
    """Where a map lies among the channels."""
    first = 0
    for other, folding in FOLDINGS.items():
        if other == name:
            return slice(first, first + folding.channels)
        first += folding.channels
    raise KeyError(name)


def channels_of_group(name: str) -> slice:
    """Where one of the groups lies among the channels."""
    of_group = FOLDINGS["semantic"].places ** 2 * FRAMES
    first = channels_of("semantic").start + list(GROUPS).index(name) * of_group
    return slice(first, first + of_group)


def planes_of(
    maps: ControlMaps, strengths: Mapping[MapName, float] | None = None, *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Maps that have exactly the clip's size and length, as float32 (C, t, h, w).

    Args:
        strengths: How much each map counts, 0 to 1; one that is not named counts in full. A map that counts nothing is
            as one that is not there.
        size: Height and width that boxes are of, where no map is a picture.

    Raises:
        ValueError: nothing says which size they have, or it is off the grid.
    """
    size = maps.size or size
    if size is None or size[0] % CELL or size[1] % CELL or maps.num_frames % FRAMES != 1:
        raise ValueError(f"maps must have a size, sides that {CELL} divides and 4k + 1 frames, not {size}")
    height, width = size
    steps = (maps.num_frames - 1) // FRAMES + 1
    planes = np.zeros((CHANNELS, steps, height // CELL, width // CELL), np.float32)
    for name, folding in FOLDINGS.items():
        weight = 1.0 if strengths is None else strengths.get(name, 1.0)
        values = _values(maps, name, size) if weight > 0 else None
        if values is None:
            continue
        here = planes[channels_of(name)]
        here[:-1] = weight * folded(values, folding.places)
        here[-1] = weight
    return planes


def folded(values: np.ndarray, places: int) -> np.ndarray:
    """(F, H, W, n) to (n * 4 * places², t, h, w); the first frame stands in all four of its latent frame's places."""
    frames, height, width, count = values.shape
    rows = height // CELL, places, CELL // places
    columns = width // CELL, places, CELL // places
    averaged = values.reshape(frames, *rows, *columns, count).mean(axis=(3, 6), dtype=np.float32)
    first = np.repeat(averaged[:1], FRAMES, axis=0)
    grouped = np.concatenate([first, averaged[1:]]).reshape(-1, FRAMES, *averaged.shape[1:])
    t, _, h, _, w, _, _ = grouped.shape
    return grouped.transpose(6, 1, 3, 5, 0, 2, 4).reshape(count * FRAMES * places**2, t, h, w)


def _values(maps: ControlMaps, name: MapName, size: tuple[int, int]) -> np.ndarray | None:
    """Of a map, (F, H, W, n), about -1 to 1; None where it is not there."""
    if getattr(maps, name) is None:
        return None
    if name == "semantic":
        return _grouped(maps)
    if name == "optical_flow":
        return _motion(maps)
    if name == "boxes":
        return _covered(maps, size)
    if name == "depth":
        assert maps.depth is not None
        nearness = 1 / (1 + maps.depth / FAR_METRES)
        return np.nan_to_num(nearness, nan=0.0)[..., None]
    return getattr(maps, name)[..., None].astype(np.float32) / 255


def _grouped(maps: ControlMaps) -> np.ndarray:
    assert maps.semantic is not None
    member = np.array([[label in names for names in GROUPS.values()] for label in maps.semantic_labels], np.float32)
    return member[maps.semantic]


def _motion(maps: ControlMaps) -> np.ndarray:
    """dx and dy, small where they are small and never above 1, and where they are known; 0 where they are not."""
    flow, known = maps.optical_flow, maps.optical_flow_known
    assert flow is not None
    if known is None:
        known = np.ones(flow.shape[:3], bool)
        known[-1] = False  # nothing follows the last frame
    trusted = np.where(known[..., None], flow, 0)
    return np.concatenate([trusted / (FAST_PIXELS + np.abs(trusted)), known[..., None]], axis=-1)


def _covered(maps: ControlMaps, size: tuple[int, int]) -> np.ndarray:
    assert maps.boxes is not None
    covered = np.zeros((maps.num_frames, *size, 1), np.float32)
    for frame, boxes in enumerate(maps.boxes):
        for box in boxes:
            if box.label in GROUPS["movers"]:
                left, top, right, bottom = (round(edge) for edge in (box.left, box.top, box.right, box.bottom))
                covered[frame, top:bottom, left:right] = 1
    return covered
