"""Solid things, low in polygons: vehicles, people, buildings, trees and street furniture, each built once.

Knows points, faces and which paint slot a face takes. Refuses to know colours, light, places and cameras.

Each thing stands at its own origin on the ground: x ahead, y to its left, z up, in metres. Faces are convex, flat and
wound counter-clockwise as seen from outside.

Shapes: V points, N faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import cos, pi, sin

import numpy as np

Point = tuple[float, float, float]


class Paint(IntEnum):
    """Slots that a thing's own colours fill."""

    BODY = 0
    TRIM = 1
    DARK = 2
    GLASS = 3
    TAIL = 4
    HEAD = 5
    LEFT_SIGNAL = 6
    RIGHT_SIGNAL = 7


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A mesh, with two painter's orders: one for an eye behind it, one for an eye ahead of it."""

    points: np.ndarray
    """float32, (V, 3)."""
    swing: np.ndarray
    """float32, (V,): metres that a point swings along x as its owner walks."""
    starts: np.ndarray
    """int, (N + 1,): face n takes points starts[n] to starts[n + 1]."""
    paint: np.ndarray
    """int, (N,): a `Paint` slot."""
    shade: np.ndarray
    """float32, (N,): how much of its colour a face shows."""
    two_sided: np.ndarray
    """bool, (N,): seen from behind as well."""
    detail: np.ndarray
    """bool, (N,): too small to be worth drawing far away."""
    rank_from_behind: np.ndarray
    """int, (N,): place in the painter's order for an eye behind the thing."""
    rank_from_ahead: np.ndarray
    """int, (N,): likewise for an eye ahead of it."""
    radius: float
    """Metres from the origin to the farthest point, on the ground plan."""
    footprint: tuple[float, float, float, float] | None
    """Rear, front, right and left extent of its shadow on the ground; None throws none."""


class _Mason:
    """Gathers faces. Those of one part are drawn in the order given; parts go from the front of the thing to its rear
    for an eye behind it, and the other way round for an eye ahead."""

    def __init__(self) -> None:
        self._faces: list[tuple[np.ndarray, Paint, float, bool, bool, int, float]] = []
        self._part = 0

    def next_part(self) -> None:
        self._part += 1

    def face(
        self,
        points: np.ndarray | list[Point],
        paint: Paint,
        shade: float = 1.0,
        *,
        two_sided: bool = False,
        detail: bool = False,
        swing: float = 0.0,
    ) -> np.ndarray:
        corners = np.array(points, np.float32)
        self._faces.append((corners, paint, shade, two_sided, detail, self._part, swing))
        return corners

    def block(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        paint: Paint,
        *,
        top_x: tuple[float, float] | None = None,
        top_y: tuple[float, float] | None = None,
        top_paint: Paint | None = None,
        detail: bool = False,
        swing: float = 0.0,
    ) -> dict[str, np.ndarray]:
        """A box, or a stump of a pyramid when its top is smaller; gives back its faces by name."""
        (xa, xb), (ya, yb), (za, zb) = x, y, z
        (ta, tb), (ua, ub) = top_x or x, top_y or y
        low = {"rl": (xa, yb, za), "rr": (xa, ya, za), "fl": (xb, yb, za), "fr": (xb, ya, za)}
        high = {"rl": (ta, ub, zb), "rr": (ta, ua, zb), "fl": (tb, ub, zb), "fr": (tb, ua, zb)}
        sides = {"rear": ("rl", "rr", 0.9), "front": ("fr", "fl", 0.88), "left": ("fl", "rl", 0.7)}
        sides["right"] = ("rr", "fr", 0.76)
        faces = {
            name: self.face([low[a], low[b], high[b], high[a]], paint, shade, detail=detail, swing=swing)
            for name, (a, b, shade) in sides.items()
        }
        top = [high["rr"], high["fr"], high["fl"], high["rl"]]
        faces["top"] = self.face(top, paint if top_paint is None else top_paint, 1.08, detail=detail, swing=swing)
        return faces

    def patch(
        self,
        quad: np.ndarray,
        across: tuple[float, float],
        up: tuple[float, float],
        paint: Paint,
        shade: float = 1.0,
    ) -> np.ndarray:
        """A smaller quadrilateral lying on a four-cornered face, in shares of its width and height."""
        bottom_left, bottom_right, top_right, top_left = quad
        corners = []
        for u, v in ((across[0], up[0]), (across[1], up[0]), (across[1], up[1]), (across[0], up[1])):
            low = bottom_left + (bottom_right - bottom_left) * u
            high = top_left + (top_right - top_left) * u
            corners.append(low + (high - low) * v)
        return self.face(np.array(corners), paint, shade, detail=True)

    def wheel(self, x: float, y: float, radius: float) -> None:
        """A tyre and its hub, standing along x, seen from the side on which y lies."""
        side = 1 if y > 0 else -1
        self.face(_ring(x, y, radius, radius, side), Paint.DARK, 0.8)
        self.face(_ring(x, y, radius, radius * 0.5, side), Paint.TRIM, 0.7, detail=True)

    def blob(self, x: float, y: float, z: float, wide: float, high: float, paint: Paint, shade: float) -> None:
        """A flat octagon that faces along x: foliage, a head."""
        turns = [pi / 8 + k * pi / 4 for k in range(8)]
        self.face([(x, y - wide * cos(a), z + high * sin(a)) for a in turns], paint, shade, two_sided=True)

    def pole(self, x: float, y: float, z: tuple[float, float], wide: float, paint: Paint, shade: float = 1.0) -> None:
        """A thin upright strip that faces along x."""
        low, high = z
        half = wide / 2
        corners = [(x, y + half, low), (x, y - half, low), (x, y - half, high), (x, y + half, high)]
        self.face(corners, paint, shade, two_sided=True)

    def finish(self, footprint: tuple[float, float, float, float] | None = None) -> Shape:
        sizes = [len(face[0]) for face in self._faces]
        points = np.concatenate([face[0] for face in self._faces])
        part = np.array([face[5] for face in self._faces])
        number = np.arange(len(self._faces))
        from_behind, from_ahead = np.empty_like(number), np.empty_like(number)
        from_behind[np.lexsort((number, part))] = number
        from_ahead[np.lexsort((number, -part))] = number
        return Shape(
            points=points,
            swing=np.repeat(np.array([face[6] for face in self._faces], np.float32), sizes)
            * np.maximum(1 - points[:, 2] / 0.85, 0),
            starts=np.concatenate([[0], np.cumsum(sizes)]),
            paint=np.array([face[1] for face in self._faces]),
            shade=np.array([face[2] for face in self._faces], np.float32),
            two_sided=np.array([face[3] for face in self._faces]),
            detail=np.array([face[4] for face in self._faces]),
            rank_from_behind=from_behind,
            rank_from_ahead=from_ahead,
            radius=float(np.hypot(points[:, 0], points[:, 1]).max()),
            footprint=footprint,
        )


def _ring(x: float, y: float, z: float, radius: float, side: int) -> list[Point]:
    """An octagon in the plane of x and z, facing +y when `side` is 1 and -y when it is -1."""
    turns = [pi / 8 + k * pi / 4 for k in range(8)]
    return [(x - side * radius * cos(a), y, z + radius * sin(a)) for a in turns]


def _rear_tyres(mason: _Mason, x: float, inner: float, outer: float, high: float) -> None:
    """Tyres as seen from straight behind or ahead: strips below the body."""
    for low, far in ((-outer, -inner), (inner, outer)):
        mason.face([(x, far, 0), (x, low, 0), (x, low, high), (x, far, high)], Paint.DARK, 0.8, two_sided=True)


@lru_cache(maxsize=1)
def car() -> Shape:
    mason = _Mason()
    _rear_tyres(mason, 1.75, 0.56, 0.84, 0.36)
    _rear_tyres(mason, -1.75, 0.56, 0.84, 0.36)
    body = mason.block((-2.1, 2.15), (-0.9, 0.9), (0.26, 0.88), Paint.BODY, top_x=(-2.02, 1.95), top_y=(-0.86, 0.86))
    for side in (-0.905, 0.905):
        for x in (-1.3, 1.35):
            mason.wheel(x, side, 0.34)
    mason.patch(body["rear"], (0.0, 1.0), (0.0, 0.2), Paint.DARK)
    mason.patch(body["rear"], (0.36, 0.64), (0.36, 0.62), Paint.TRIM)
    mason.patch(body["rear"], (0.03, 0.25), (0.56, 0.88), Paint.TAIL)
    mason.patch(body["rear"], (0.75, 0.97), (0.56, 0.88), Paint.TAIL)
    mason.patch(body["rear"], (0.0, 0.08), (0.3, 0.54), Paint.LEFT_SIGNAL)
    mason.patch(body["rear"], (0.92, 1.0), (0.3, 0.54), Paint.RIGHT_SIGNAL)
    mason.patch(body["front"], (0.0, 1.0), (0.0, 0.2), Paint.DARK)
    mason.patch(body["front"], (0.28, 0.72), (0.3, 0.62), Paint.DARK)
    mason.patch(body["front"], (0.03, 0.25), (0.5, 0.85), Paint.HEAD)
    mason.patch(body["front"], (0.75, 0.97), (0.5, 0.85), Paint.HEAD)
    cabin = mason.block((-1.75, 1.0), (-0.82, 0.82), (0.88, 1.45), Paint.BODY, top_x=(-1.2, 0.2), top_y=(-0.62, 0.62))
    for name in ("rear", "front"):
        mason.patch(cabin[name], (0.08, 0.92), (0.1, 0.86), Paint.GLASS)
    for name in ("left", "right"):
        mason.patch(cabin[name], (0.12, 0.52), (0.12, 0.86), Paint.GLASS)
        mason.patch(cabin[name], (0.56, 0.9), (0.12, 0.86), Paint.GLASS)
    return mason.finish((-2.2, 2.25, -0.98, 0.98))


@lru_cache(maxsize=1)
def truck() -> Shape:
    """A lorry: a cab, and a tall cargo box in the body's colour, its rear doors framed."""
    mason = _Mason()
    _rear_tyres(mason, 3.2, 0.75, 1.15, 0.6)
    cab = mason.block((1.9, 3.9), (-1.15, 1.15), (0.5, 2.55), Paint.BODY, top_x=(1.9, 3.6))
    mason.patch(cab["front"], (0.08, 0.92), (0.5, 0.88), Paint.GLASS)
    mason.patch(cab["front"], (0.04, 0.2), (0.08, 0.24), Paint.HEAD)
    mason.patch(cab["front"], (0.8, 0.96), (0.08, 0.24), Paint.HEAD)
    mason.patch(cab["front"], (0.28, 0.72), (0.1, 0.36), Paint.DARK)
    for name, across in (("left", (0.1, 0.6)), ("right", (0.4, 0.9))):
        mason.patch(cab[name], across, (0.5, 0.86), Paint.GLASS)
    for side in (-1.16, 1.16):
        mason.wheel(2.9, side, 0.5)
    mason.next_part()
    mason.block((-3.9, 1.9), (-0.95, 0.95), (0.5, 0.95), Paint.DARK)
    _rear_tyres(mason, -3.1, 0.62, 1.16, 0.72)
    for side in (-1.16, 1.16):
        mason.wheel(-2.7, side, 0.5)
        mason.wheel(-1.4, side, 0.5)
    box = mason.block((-4.0, 1.7), (-1.25, 1.25), (0.95, 3.4), Paint.BODY)
    rear = box["rear"]
    mason.patch(rear, (0.05, 0.95), (0.09, 0.95), Paint.BODY, 0.78)
    mason.patch(rear, (0.075, 0.48), (0.115, 0.925), Paint.BODY, 0.92)
    mason.patch(rear, (0.52, 0.925), (0.115, 0.925), Paint.BODY, 0.92)
    for name in ("left", "right"):
        mason.patch(box[name], (0.02, 0.98), (0.44, 0.56), Paint.TRIM, 0.85)
    bumper = [(-4.02, 1.2, 0.5), (-4.02, -1.2, 0.5), (-4.02, -1.2, 0.95), (-4.02, 1.2, 0.95)]
    quad = mason.face(bumper, Paint.DARK, 1.1)
    mason.patch(quad, (0.03, 0.2), (0.3, 0.9), Paint.TAIL)
    mason.patch(quad, (0.8, 0.97), (0.3, 0.9), Paint.TAIL)
    mason.patch(quad, (0.21, 0.28), (0.3, 0.9), Paint.LEFT_SIGNAL)
    mason.patch(quad, (0.72, 0.79), (0.3, 0.9), Paint.RIGHT_SIGNAL)
    mason.patch(quad, (0.42, 0.58), (0.2, 0.8), Paint.TRIM)
    return mason.finish((-4.1, 4.0, -1.3, 1.3))


@lru_cache(maxsize=1)
def bus() -> Shape:
    """A city bus: low floor, long windows, a wide rear window over an amber number board."""
    mason = _Mason()
    _rear_tyres(mason, 4.0, 0.8, 1.18, 0.5)
    _rear_tyres(mason, -4.0, 0.8, 1.18, 0.5)
    body = mason.block((-5.2, 5.2), (-1.27, 1.27), (0.34, 3.1), Paint.BODY, top_x=(-5.1, 5.0), top_y=(-1.15, 1.15))
    for name in ("left", "right"):
        mason.patch(body[name], (0.02, 0.98), (0.0, 0.1), Paint.DARK)
        mason.patch(body[name], (0.0, 1.0), (0.3, 0.36), Paint.TRIM)
        for k in range(5):
            mason.patch(body[name], (0.03 + 0.19 * k, 0.2 + 0.19 * k), (0.46, 0.84), Paint.GLASS)
    for side in (-1.28, 1.28):
        mason.wheel(-3.1, side, 0.48)
        mason.wheel(3.2, side, 0.48)
    rear = body["rear"]
    mason.patch(rear, (0.0, 1.0), (0.0, 0.1), Paint.DARK)
    mason.patch(rear, (0.09, 0.91), (0.5, 0.82), Paint.GLASS)
    mason.patch(rear, (0.3, 0.7), (0.86, 0.95), Paint.DARK)
    mason.patch(rear, (0.0, 1.0), (0.36, 0.42), Paint.TRIM)
    mason.patch(rear, (0.03, 0.15), (0.13, 0.33), Paint.TAIL)
    mason.patch(rear, (0.85, 0.97), (0.13, 0.33), Paint.TAIL)
    mason.patch(rear, (0.16, 0.23), (0.13, 0.24), Paint.LEFT_SIGNAL)
    mason.patch(rear, (0.77, 0.84), (0.13, 0.24), Paint.RIGHT_SIGNAL)
    mason.patch(rear, (0.4, 0.6), (0.14, 0.22), Paint.TRIM)
    front = body["front"]
    mason.patch(front, (0.06, 0.94), (0.36, 0.82), Paint.GLASS)
    mason.patch(front, (0.2, 0.8), (0.86, 0.96), Paint.DARK)
    mason.patch(front, (0.04, 0.2), (0.12, 0.24), Paint.HEAD)
    mason.patch(front, (0.8, 0.96), (0.12, 0.24), Paint.HEAD)
    return mason.finish((-5.3, 5.3, -1.35, 1.35))


@lru_cache(maxsize=1)
def motorbike() -> Shape:
    """A motorbike with its rider, whose jacket has the fairing's colour."""
    mason = _Mason()
    # Front to rear, so that an eye behind sees the rear wheel last.
    for side in (-0.07, 0.07):
        mason.wheel(0.78, side, 0.33)
    _narrow_tyre(mason, 0.95)
    fairing = mason.block((0.35, 0.8), (-0.24, 0.24), (0.55, 1.05), Paint.BODY, top_x=(0.45, 0.62), top_y=(-0.2, 0.2))
    mason.patch(fairing["front"], (0.2, 0.8), (0.3, 0.8), Paint.HEAD)
    mason.next_part()
    mason.block((-0.55, 0.5), (-0.18, 0.18), (0.34, 0.82), Paint.DARK, top_paint=Paint.DARK)
    mason.block((-0.2, 0.3), (-0.3, 0.3), (0.35, 0.72), Paint.DARK, top_y=(-0.24, 0.24))
    mason.block((-0.38, 0.05), (-0.3, 0.3), (0.76, 1.42), Paint.BODY, top_x=(-0.18, 0.14), top_y=(-0.26, 0.26))
    for low, high in ((-0.44, -0.28), (0.28, 0.44)):
        mason.block((-0.12, 0.3), (low, high), (0.92, 1.34), Paint.BODY, top_x=(-0.12, 0.1))
    mason.blob(0.06, 0.0, 1.6, 0.17, 0.19, Paint.TRIM, 1.0)
    mason.face(_ring(0.06, 0.0, 1.6, 0.19, 1), Paint.TRIM, 0.85, two_sided=True)
    mason.blob(0.05, 0.0, 1.57, 0.12, 0.07, Paint.GLASS, 1.0)
    mason.next_part()
    for side in (-0.09, 0.09):
        mason.wheel(-0.72, side, 0.34)
    _narrow_tyre(mason, -0.85)
    tail = mason.block((-1.0, -0.5), (-0.2, 0.2), (0.62, 0.88), Paint.BODY)
    mason.patch(tail["rear"], (0.15, 0.85), (0.25, 0.85), Paint.TAIL)
    mason.patch(tail["rear"], (-0.25, 0.05), (0.3, 0.8), Paint.LEFT_SIGNAL)
    mason.patch(tail["rear"], (0.95, 1.25), (0.3, 0.8), Paint.RIGHT_SIGNAL)
    return mason.finish((-1.0, 1.0, -0.35, 0.35))


def _narrow_tyre(mason: _Mason, x: float) -> None:
    mason.face([(x, 0.1, 0), (x, -0.1, 0), (x, -0.1, 0.62), (x, 0.1, 0.62)], Paint.DARK, 0.7, two_sided=True)


@lru_cache(maxsize=1)
def pedestrian() -> Shape:
    mason = _Mason()
    mason.block((-0.1, 0.1), (-0.19, -0.02), (0.0, 0.86), Paint.DARK, swing=0.34)
    mason.block((-0.1, 0.1), (0.02, 0.19), (0.0, 0.86), Paint.DARK, swing=-0.34)
    mason.block((-0.15, 0.15), (-0.27, 0.27), (0.78, 1.46), Paint.BODY, top_y=(-0.22, 0.22))
    mason.blob(0.0, 0.0, 1.62, 0.15, 0.17, Paint.TRIM, 1.0)
    mason.face(_ring(0.0, 0.0, 1.62, 0.17, 1), Paint.TRIM, 0.95, two_sided=True)
    mason.blob(-0.01, 0.0, 1.71, 0.15, 0.09, Paint.GLASS, 1.0)
    return mason.finish((-0.3, 0.3, -0.3, 0.3))


@lru_cache(maxsize=32)
def building(floors: int, columns: int, pattern: int) -> Shape:
    """A unit block, one metre each way, to be scaled; some windows (`pattern`) are of the kind that is lit at night."""
    mason = _Mason()
    walls = mason.block((-0.5, 0.5), (-0.5, 0.5), (0.0, 1.0), Paint.BODY, top_paint=Paint.TRIM)
    for name, count in (("left", columns), ("rear", 2), ("front", 2)):
        for floor in range(floors):
            low = (floor + 0.32) / (floors + 0.15)
            high = (floor + 0.82) / (floors + 0.15)
            for column in range(count):
                lit = (floor * 7 + column * 5 + pattern * 3 + len(name)) % 5 < 3
                across = ((column + 0.24) / count, (column + 0.76) / count)
                mason.patch(walls[name], across, (low, high), Paint.HEAD if lit else Paint.GLASS)
    for name in ("left", "rear", "front"):
        mason.patch(walls[name], (0.0, 1.0), (0.955, 1.0), Paint.TRIM, 0.9)
    return mason.finish()


@lru_cache(maxsize=4)
def house(pattern: int) -> Shape:
    """A unit cottage with a ridge along x, to be scaled."""
    mason = _Mason()
    walls = mason.block((-0.5, 0.5), (-0.5, 0.5), (0.0, 0.6), Paint.BODY)
    for x, order in ((-0.5, 1), (0.5, -1)):
        gable = [(x, 0.5, 0.6), (x, -0.5, 0.6), (x, 0.0, 1.0)][::order]
        mason.face(gable, Paint.BODY, 0.9)
    for side, order in ((1, 1), (-1, -1)):
        low, ridge = side * 0.6, 0.0
        slope = [(0.55, low, 0.53), (-0.55, low, 0.53), (-0.55, ridge, 1.02), (0.55, ridge, 1.02)][::order]
        mason.face(slope, Paint.TRIM, 1.0 if side > 0 else 0.85)
    lit = (Paint.HEAD, Paint.GLASS)
    mason.patch(walls["left"], (0.12, 0.34), (0.32, 0.76), lit[pattern % 2])
    mason.patch(walls["left"], (0.66, 0.88), (0.32, 0.76), lit[pattern // 2])
    mason.patch(walls["left"], (0.43, 0.57), (0.0, 0.72), Paint.TRIM, 0.8)
    for name in ("rear", "front"):
        mason.patch(walls[name], (0.34, 0.66), (0.32, 0.76), lit[(pattern + 1) % 2])
    return mason.finish()


@lru_cache(maxsize=1)
def round_tree() -> Shape:
    mason = _Mason()
    mason.pole(0.0, 0.0, (0.0, 2.2), 0.32, Paint.DARK)
    mason.blob(0.02, 0.0, 3.5, 1.75, 1.7, Paint.BODY, 0.82)
    mason.blob(0.0, 0.25, 4.0, 1.3, 1.2, Paint.BODY, 1.0)
    mason.blob(-0.02, 0.45, 4.35, 0.75, 0.65, Paint.TRIM, 1.0)
    return mason.finish()


@lru_cache(maxsize=1)
def conifer() -> Shape:
    mason = _Mason()
    mason.pole(0.0, 0.0, (0.0, 1.0), 0.3, Paint.DARK)
    for low, high, wide, shade in ((0.8, 3.0, 1.6, 0.78), (2.0, 4.2, 1.25, 0.9), (3.2, 5.6, 0.9, 1.02)):
        mason.face([(0.0, wide, low), (0.0, -wide, low), (0.0, 0.0, high)], Paint.BODY, shade, two_sided=True)
    mason.face([(0.0, 0.42, 4.5), (0.0, -0.42, 4.5), (0.0, 0.0, 5.65)], Paint.TRIM, 1.0, two_sided=True)
    return mason.finish()


@lru_cache(maxsize=1)
def bush() -> Shape:
    mason = _Mason()
    mason.blob(0.0, 0.0, 0.45, 0.95, 0.62, Paint.BODY, 0.85)
    mason.blob(-0.01, 0.2, 0.65, 0.6, 0.45, Paint.BODY, 1.05)
    return mason.finish()


@lru_cache(maxsize=1)
def cactus() -> Shape:
    mason = _Mason()
    mason.pole(0.0, 0.0, (0.0, 3.2), 0.62, Paint.BODY)
    mason.blob(0.0, 0.0, 3.2, 0.335, 0.3, Paint.BODY, 1.0)
    for near, far, low, high in ((0.0, 1.0, 1.3, 2.5), (-1.0, 0.0, 1.0, 2.0)):
        elbow = [(0.0, far, low), (0.0, near, low), (0.0, near, low + 0.42), (0.0, far, low + 0.42)]
        mason.face(elbow, Paint.BODY, 0.9, two_sided=True)
        mason.pole(-0.01, 0.9 * (near + far), (low, high), 0.42, Paint.BODY, 0.9)
    mason.pole(-0.02, 0.12, (0.0, 3.2), 0.14, Paint.TRIM)
    return mason.finish()


@lru_cache(maxsize=1)
def rock() -> Shape:
    mason = _Mason()
    outline = [(0.0, 1.2, 0.0), (0.0, -1.3, 0.0), (0.0, -0.9, 0.8), (0.0, -0.1, 1.3), (0.0, 0.8, 1.0)]
    mason.face(outline, Paint.BODY, 0.8, two_sided=True)
    mason.face([(0.0, 0.3, 0.0), *outline[1:4]], Paint.BODY, 1.0, two_sided=True)
    return mason.finish()


@lru_cache(maxsize=1)
def street_lamp() -> Shape:
    """A mast whose arm reaches to its left, over the road."""
    mason = _Mason()
    mason.pole(0.0, 0.0, (0.0, 6.4), 0.16, Paint.DARK)
    mason.face([(0, 1.6, 6.3), (0, 0.0, 6.3), (0, 0.0, 6.46), (0, 1.6, 6.46)], Paint.DARK, 1.0, two_sided=True)
    mason.face([(0, 1.8, 6.12), (0, 1.0, 6.12), (0, 1.0, 6.34), (0, 1.8, 6.34)], Paint.HEAD, 1.0, two_sided=True)
    return mason.finish()


@lru_cache(maxsize=1)
def round_sign() -> Shape:
    """A speed limit: a white disc with a red rim."""
    mason = _Mason()
    mason.pole(0.0, 0.0, (0.0, 2.0), 0.1, Paint.DARK)
    mason.blob(0.0, 0.0, 2.4, 0.55, 0.55, Paint.TAIL, 1.0)
    mason.blob(-0.01, 0.0, 2.4, 0.38, 0.38, Paint.TRIM, 1.0)
    return mason.finish()


@lru_cache(maxsize=1)
def board_sign() -> Shape:
    """A blue direction board on two posts."""
    mason = _Mason()
    for y in (-0.6, 0.6):
        mason.pole(0.0, y, (0.0, 2.0), 0.1, Paint.DARK)
    mason.face([(0, 1.05, 1.7), (0, -1.05, 1.7), (0, -1.05, 3.0), (0, 1.05, 3.0)], Paint.BODY, 1.0, two_sided=True)
    mason.face([(-0.01, 0.75, 2.2), (-0.01, -0.75, 2.2), (-0.01, -0.75, 2.5), (-0.01, 0.75, 2.5)], Paint.TRIM)
    return mason.finish()


@lru_cache(maxsize=1)
def traffic_light() -> Shape:
    mason = _Mason()
    mason.pole(0.0, 0.0, (0.0, 3.0), 0.18, Paint.DARK)
    mason.face([(0, 0.5, 2.9), (0, -0.5, 2.9), (0, -0.5, 5.3), (0, 0.5, 5.3)], Paint.DARK, 1.0, two_sided=True)
    for z, paint in ((4.88, Paint.TAIL), (4.1, Paint.LEFT_SIGNAL), (3.32, Paint.HEAD)):
        corners = [(-0.01, -0.33 * cos(pi / 8 + k * pi / 4), z + 0.33 * sin(pi / 8 + k * pi / 4)) for k in range(8)]
        mason.face(corners, paint)
    return mason.finish()


VEHICLE_SHAPES = {"car": car, "truck": truck, "bus": bus, "motorbike": motorbike}
"""How each type of vehicle is built."""
