"""What stands beside the road: buildings, houses, trees, lamps and signs, wherever along it one looks.

Knows where things stand and in which colours. Refuses to know cameras and time. Each is a function of the seed and of
its own place alone, so the world is endless and looks the same however long a clip is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from studio.driving_world import shapes
from studio.driving_world.palette import LEAVES, ROOFS, TRUNK, WALLS, Colour, Palette, mix
from studio.driving_world.road import half_width
from studio.driving_world.scene import SIDE_ROAD_METRES, Scene
from studio.driving_world.shapes import Paint, Shape

PAVEMENT_METRES = 2.6
"""Width of the pavement in a city or suburb."""
CELL_METRES = {"city": 13.0, "suburb": 15.0, "countryside": 11.0, "desert": 13.0}
"""Length of road to which one building or group of plants belongs, by setting."""
_GREY: Colour = (92, 96, 106)
_PANE: Colour = (92, 116, 146)
_LIT_PANE: Colour = (255, 214, 120)
_SNOW: Colour = (240, 244, 250)


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """Something that stands beside the road."""

    kind: str
    """The semantic label: building, tree, sign, lamp, traffic_light or rock."""
    shape: Shape
    s: float
    d: float
    turned: bool
    """Faces the other way: its left side looks to the right of the road."""
    scale: tuple[float, float, float]
    colours: dict[Paint, Colour]
    shining: frozenset[Paint] = frozenset()
    """Slots that give light of their own."""


def has_pavement(scene: Scene) -> bool:
    return scene.setting in ("city", "suburb")


def fixtures(scene: Scene, palette: Palette, s_from: float, s_to: float) -> list[Fixture]:
    """Everything beside the road from `s_from` to `s_to` metres along it."""
    placed: list[Fixture] = []
    cell_metres = CELL_METRES[scene.setting]
    cells = np.arange(int(np.floor(s_from / cell_metres)), int(np.ceil(s_to / cell_metres)) + 1)
    for side in (1, -1):
        chances = _chances(scene.seed, cells, side)
        for cell, chance in zip(cells.tolist(), chances.tolist(), strict=True):
            middle = (cell + 0.5) * cell_metres
            for fixture in _plant(scene, palette, middle, cell_metres, side, cell, chance):
                if abs(fixture.s - scene.junction_at) > SIDE_ROAD_METRES / 2 + 2.0 + _half_length(fixture):
                    placed.append(fixture)
    return placed + list(_junction_lights(scene))


def _half_length(fixture: Fixture) -> float:
    return fixture.scale[0] / 2 + 2.0 if fixture.kind == "building" else 0.8


def _chances(seed: int, cells: np.ndarray, side: int) -> np.ndarray:
    """Eight numbers from 0 to 1 for each cell, (n, 8): a splitmix64 hash of seed, cell and side."""
    key = (cells.astype(np.int64).astype(np.uint64) * np.uint64(2) + np.uint64(side > 0))[:, None] * np.uint64(8)
    key = key + np.arange(8, dtype=np.uint64) + np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    key = (key + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((key ^ (key >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _plant(
    scene: Scene, palette: Palette, middle: float, length: float, side: int, cell: int, chance: list[float]
) -> Iterator[Fixture]:
    edge = half_width(scene.lanes)
    match scene.setting:
        case "city":
            yield _block(palette, middle, side * (edge + PAVEMENT_METRES + 1.0), side, length, chance)
            if (cell + (side > 0)) % 2:
                yield _tree(palette, middle - 4.0, side * (edge + 1.9), 0.62, chance)
            elif chance[6] < 0.8:
                yield _lamp(palette, middle - 4.0, side * (edge + 0.7), side)
        case "suburb":
            yield _cottage(palette, middle, side * (edge + PAVEMENT_METRES + 4.0 + 3 * chance[1]), side, chance)
            yield _tree(palette, middle - 6.5, side * (edge + PAVEMENT_METRES + 1.6), 0.8 + 0.3 * chance[2], chance)
            if (cell + (side > 0)) % 3 == 0:
                yield _lamp(palette, middle + 3.0, side * (edge + 0.7), side)
        case "countryside":
            if chance[0] < 0.75:
                size = 0.85 + 0.5 * chance[2]
                yield _tree(palette, middle, side * (edge + 4.0 + 9 * chance[1]), size, chance)
            if chance[3] < 0.45:
                yield _bush(palette, middle + 5 * chance[4], side * (edge + 2.5 + 6 * chance[5]), chance)
        case _:
            if chance[0] < 0.5:
                size = 0.8 + 0.5 * chance[2]
                yield _cactus(palette, middle, side * (edge + 3.5 + 9 * chance[1]), size)
            if chance[3] < 0.5:
                yield _rock(palette, middle + 5 * chance[4], side * (edge + 3.0 + 9 * chance[5]), 0.7 + chance[6])
    if side < 0 and chance[7] < 0.22:
        yield _sign(middle + 0.4 * length, -(edge + 1.3), chance)


def _block(palette: Palette, s: float, d: float, side: int, length: float, chance: list[float]) -> Fixture:
    floors = 2 + int(chance[0] * 3)
    depth = 9.0
    pane = _LIT_PANE if palette.lamps_lit else _PANE
    wall = WALLS[int(chance[1] * len(WALLS))]
    return Fixture(
        kind="building",
        shape=shapes.building(floors, 3, int(chance[2] * 4)),
        s=s,
        d=d + side * depth / 2,
        turned=side > 0,
        scale=(length - 1.0 - 1.5 * chance[3], depth, 3.1 * floors + 0.8),
        colours={
            Paint.BODY: wall,
            Paint.TRIM: mix(mix(wall, (70, 66, 76), 0.4), _SNOW, palette.snow_cover),
            Paint.GLASS: _PANE if not palette.lamps_lit else mix(_PANE, (40, 46, 66), 0.5),
            Paint.HEAD: pane,
        },
        shining=frozenset({Paint.HEAD}) if palette.lamps_lit else frozenset(),
    )


def _cottage(palette: Palette, s: float, d: float, side: int, chance: list[float]) -> Fixture:
    depth = 7.0
    return Fixture(
        kind="building",
        shape=shapes.house(int(chance[2] * 4)),
        s=s,
        d=d + side * depth / 2,
        turned=side > 0,
        scale=(8.0 + 2 * chance[3], depth, 5.0 + 1.2 * chance[0]),
        colours={
            Paint.BODY: WALLS[int(chance[1] * len(WALLS))],
            Paint.TRIM: mix(ROOFS[int(chance[4] * len(ROOFS))], _SNOW, palette.snow_cover),
            Paint.GLASS: _PANE,
            Paint.HEAD: _LIT_PANE if palette.lamps_lit else _PANE,
        },
        shining=frozenset({Paint.HEAD}) if palette.lamps_lit else frozenset(),
    )


def _tree(palette: Palette, s: float, d: float, size: float, chance: list[float]) -> Fixture:
    leaf = LEAVES[int(chance[4] * len(LEAVES))]
    pointed = chance[5] < 0.4
    return Fixture(
        kind="tree",
        shape=shapes.conifer() if pointed else shapes.round_tree(),
        s=s,
        d=d,
        turned=False,
        scale=(1.0, size, size),
        colours={
            Paint.BODY: mix(leaf, _SNOW, 0.5 * palette.snow_cover),
            Paint.TRIM: mix(mix(leaf, (180, 210, 90), 0.3), _SNOW, palette.snow_cover),
            Paint.DARK: TRUNK,
        },
    )


def _bush(palette: Palette, s: float, d: float, chance: list[float]) -> Fixture:
    leaf = mix(LEAVES[int(chance[6] * len(LEAVES))], _SNOW, 0.6 * palette.snow_cover)
    size = 0.8 + 0.6 * chance[2]
    colours: dict[Paint, Colour] = {Paint.BODY: leaf}
    return Fixture(kind="tree", shape=shapes.bush(), s=s, d=d, turned=False, scale=(1.0, size, size), colours=colours)


def _cactus(palette: Palette, s: float, d: float, size: float) -> Fixture:
    green = mix((66, 138, 86), _SNOW, 0.4 * palette.snow_cover)
    colours: dict[Paint, Colour] = {Paint.BODY: green, Paint.TRIM: mix(green, (190, 220, 130), 0.3)}
    return Fixture(kind="tree", shape=shapes.cactus(), s=s, d=d, turned=False, scale=(1.0, size, size), colours=colours)


def _rock(palette: Palette, s: float, d: float, size: float) -> Fixture:
    colours: dict[Paint, Colour] = {Paint.BODY: mix((186, 112, 80), _SNOW, 0.6 * palette.snow_cover)}
    return Fixture(kind="rock", shape=shapes.rock(), s=s, d=d, turned=False, scale=(1.0, size, size), colours=colours)


def _lamp(palette: Palette, s: float, d: float, side: int) -> Fixture:
    head: Colour = (255, 226, 160) if palette.lamps_lit else (226, 228, 224)
    return Fixture(
        kind="lamp",
        shape=shapes.street_lamp(),
        s=s,
        d=d,
        turned=side > 0,
        scale=(1.0, 1.0, 1.0),
        colours={Paint.DARK: _GREY, Paint.HEAD: head},
        shining=frozenset({Paint.HEAD}) if palette.lamps_lit else frozenset(),
    )


def _sign(s: float, d: float, chance: list[float]) -> Fixture:
    board = chance[6] < 0.4
    return Fixture(
        kind="sign",
        shape=shapes.board_sign() if board else shapes.round_sign(),
        s=s,
        d=d - (0.6 if board else 0.0),
        turned=False,
        scale=(1.0, 1.0, 1.0),
        colours={
            Paint.BODY: (34, 84, 176),
            Paint.TRIM: (246, 246, 242),
            Paint.DARK: _GREY,
            Paint.TAIL: (206, 32, 40),
        },
    )


def _junction_lights(scene: Scene) -> Iterator[Fixture]:
    """The lights that govern our road: one beyond the junction on the right, one on the left."""
    if not scene.has_junction:
        return
    s, d = scene.junction_at + SIDE_ROAD_METRES / 2 + 1.0, half_width(scene.lanes) + 0.9
    dark: Colour = (40, 42, 48)
    for side in (1, -1):
        yield Fixture(
            kind="traffic_light",
            shape=shapes.traffic_light(),
            s=s,
            d=side * d,
            turned=False,
            scale=(1.0, 1.0, 1.0),
            colours={
                Paint.DARK: dark,
                Paint.TAIL: (255, 46, 40),
                Paint.LEFT_SIGNAL: (74, 62, 40),
                Paint.HEAD: (48, 240, 120),
            },
            shining=frozenset({Paint.TAIL, Paint.HEAD}),
        )
