"""Photographs become clips: a window that pans, turns and zooms a little over a picture, with writing on some.

Knows which photographs are learnt from, and their licences (`photographs.toml`). Refuses to know models. A photograph
is first made smaller, so that what its lens, sensor and JPEG left unsharp is not taken for sharpness.

Shapes: T pictures of `side` rows and columns, uint8 RGB.
"""

from __future__ import annotations

import string
import tomllib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from studio.clips.shrinking import in_8_bits, shrunk

LIST = Path(__file__).parent / "photographs.toml"
SHRUNK = (2.0, 3.0, 4.0, 6.0)
"""How many times smaller a photograph is made."""
WRITTEN_ON = 0.2
"""Share of clips with writing and lines, as signs have them."""
_DRAWN_LARGER = 2
"""A window is cut out so many times as large and then made smaller, which keeps its edges crisp."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """One picture, and whose it is."""

    file: str
    """Below /usr/share."""
    title: str
    author: str
    licence: str
    """SPDX, as its package states it."""
    package: str
    held_out: bool = False
    """Whether it is for measuring only."""


def listed() -> list[Photograph]:
    packages = tomllib.loads(LIST.read_text(encoding="utf-8"))["package"]
    return [Photograph(package=each["name"], **one) for each in packages for one in each["photographs"]]


def present(root: Path, *, held_out: bool = False) -> list[tuple[Photograph, Path]]:
    """Those that lie below `root`, which is / where the packages are installed, or where they were unpacked."""
    found = [(each, root / "usr/share" / each.file) for each in listed() if each.held_out == held_out]
    return [(each, path) for each, path in found if path.is_file()]


def read(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} cannot be read as a picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


class Moving:
    """Clips of one photograph."""

    def __init__(self, photograph: np.ndarray) -> None:
        self._photograph = photograph
        self._smaller: dict[float, np.ndarray] = {}

    def clip(self, rng: np.random.Generator, *, length: int, side: int) -> np.ndarray:
        """(T, side, side, 3): the busiest of three places, most of the time."""
        moves = _Moves.of(rng)
        large = side * _DRAWN_LARGER
        source = self._shrunk(rng, least=large + 2 * round(moves.reach(length, large)) + 2)
        places = [_place(rng, source, large, round(moves.reach(length, large))) for _ in range(3)]
        if rng.random() < 0.7:
            places.sort(key=lambda place: -_busyness(source, place, large))
        if rng.random() < WRITTEN_ON:
            source = _written_on(source, rng, places[0], large)
        return np.stack([moves.window(source, places[0], time, large, side) for time in range(length)])

    def _shrunk(self, rng: np.random.Generator, *, least: int) -> np.ndarray:
        """The photograph at one of the sizes that still hold a window."""
        extent = min(self._photograph.shape[:2])
        fitting = [each for each in SHRUNK if extent * _DRAWN_LARGER / each >= least] or [extent * 2.0 / least]
        times = float(rng.choice(fitting))
        if times not in self._smaller:
            height, width = self._photograph.shape[:2]
            factor = _DRAWN_LARGER / times
            size = (max(least, round(width * factor)), max(least, round(height * factor)))
            how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            self._smaller[times] = cv2.resize(self._photograph, size, interpolation=how)
        return self._smaller[times]


@dataclass(frozen=True, kw_only=True)
class _Moves:
    """How a window moves from one picture to the next, in pixels of the clip."""

    right: float
    down: float
    zoom: float
    turn: float
    """Degrees."""
    crisp: bool
    """Whether it is made smaller by a filter that keeps edges, as most clips were, or by plain means."""

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Moves:
        crisp = bool(rng.random() < 0.8)
        if rng.random() < 0.15:
            return cls(right=0.0, down=0.0, zoom=0.0, turn=0.0, crisp=crisp)
        speed, way = min(8.0, rng.exponential(2.5)), rng.uniform(0, 2 * np.pi)
        return cls(
            right=speed * np.cos(way),
            down=speed * np.sin(way),
            zoom=rng.normal(0, 0.006),
            turn=rng.normal(0, 0.15),
            crisp=crisp,
        )

    def reach(self, length: int, extent: int) -> float:
        """How far beyond its first place the window may come to look, in pixels of what it is cut from."""
        pans = _DRAWN_LARGER * max(abs(self.right), abs(self.down)) * length
        return pans + extent * length * (abs(self.zoom) + np.deg2rad(abs(self.turn))) + 2

    def window(self, source: np.ndarray, place: tuple[int, int], time: int, large: int, side: int) -> np.ndarray:
        top, left = place
        middle = ((large - 1) / 2, (large - 1) / 2)
        matrix = cv2.getRotationMatrix2D(middle, self.turn * time, (1 + self.zoom) ** time)
        matrix[:, 2] += (_DRAWN_LARGER * self.right * time + left, _DRAWN_LARGER * self.down * time + top)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        cut = cv2.warpAffine(source, matrix, (large, large), flags=flags, borderMode=cv2.BORDER_REFLECT)
        return in_8_bits(shrunk(cut.astype(np.float32), _DRAWN_LARGER) if self.crisp else _halved(cut))


def _halved(cut: np.ndarray) -> np.ndarray:
    size = (cut.shape[1] // _DRAWN_LARGER, cut.shape[0] // _DRAWN_LARGER)
    return cv2.resize(cut, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _place(rng: np.random.Generator, source: np.ndarray, large: int, margin: int) -> tuple[int, int]:
    """Top and left of a window that stays within the picture as it moves, where there is room for that."""

    def along(extent: int) -> int:
        low, high = min(margin, extent - large), max(extent - large - margin, 0)
        return int(rng.integers(low, high + 1)) if low <= high else (extent - large) // 2

    return along(source.shape[0]), along(source.shape[1])


def _busyness(source: np.ndarray, place: tuple[int, int], large: int) -> float:
    cut = source[place[0] : place[0] + large : 2, place[1] : place[1] + large : 2].astype(np.int16)
    return float(np.abs(np.diff(cut, axis=0)).mean() + np.abs(np.diff(cut, axis=1)).mean())


def _written_on(source: np.ndarray, rng: np.random.Generator, place: tuple[int, int], large: int) -> np.ndarray:
    """Words, boards and lines within a window, drawn on a copy."""
    drawn = source.copy()
    letters = list(string.ascii_letters + string.digits)
    for _ in range(int(rng.integers(2, 6))):
        y, x = place[0] + int(rng.integers(large)), place[1] + int(rng.integers(large))
        ink, board = (tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(2))
        thick = int(rng.integers(2, 10))
        if rng.random() < 0.4:
            end = (x + int(rng.integers(-large, large)), y + int(rng.integers(-large, large)))
            cv2.line(drawn, (x, y), end, ink, thick, cv2.LINE_AA)
            continue
        words = "".join(rng.choice(letters, int(rng.integers(2, 9))))
        face, size = int(rng.choice([0, 1, 2, 3, 4])), float(rng.uniform(0.8, 4.0))
        (width, height), _ = cv2.getTextSize(words, face, size, thick)
        if rng.random() < 0.5:
            corner = (x - 8, y - height - 8)
            cv2.rectangle(drawn, corner, (x + width + 8, y + 8), board, cv2.FILLED, cv2.LINE_AA)
        cv2.putText(drawn, words, (x, y), face, size, ink, thick, cv2.LINE_AA)
    return drawn
