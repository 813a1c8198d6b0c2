"""Windows: what engines have in common, and those the most that are given pictures a window at a time.

A window is the pictures that are asked for and a few before them, so that what is made goes on from there; those are
made again and left out. Models take lengths and sizes of their own: the last picture is repeated, and the edges, and
what came of that is cut off. Every window begins from the same seed. So a window depends on its own pictures and on
`CONTEXT` before them, wherever the work began.

Where a picture is too much at once it is made in tiles that overlap, each with most weight in its middle.

Shapes: T pictures of a window, H rows, W columns, s the scale; a tile has h rows and w columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from studio.clips.shrinking import in_8_bits
from studio.errors import NumericalError
from studio.machine.memory import need_of
from studio.pipelines import LoadedModel
from studio.pipelines.loaded import out_of_memory
from studio.pipelines.randomness import private_randomness
from studio.preset import Dtype

CONTEXT = 9
"""Pictures before those that are asked for: with 24 new ones they are 33, which is 4k + 1 and 8k + 1."""
SEED = 0
OVERLAP = 0.2
"""Of a tile, shared with the next one, at least."""


class ModelUpscaler:
    """A loaded model as a method of enlarging."""

    at_once: int = 24
    memory: int

    def __init__(self, loaded: LoadedModel, scale: int, check: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            loaded: The model.
            scale: How many times as large pictures become.
            check: Called between its layers, for a window may take minutes; what it raises ends the window, and the
                pictures before it are as if it had never begun.
        """
        self._loaded, self._check = loaded, check
        self._pipe: Any = loaded.pipe
        self._scale = scale
        self.reset()

    @property
    def memory_bytes(self) -> int:
        """What the model holds while it works, in main memory and on a card together."""
        preset, placement = self._loaded.preset, self._loaded.placement
        need = need_of(
            preset,
            height=preset.defaults.height,
            width=preset.defaults.width,
            num_frames=preset.defaults.num_frames,
            dtype=cast(Dtype, placement.torch_dtype),
            vae_dtype=cast(Dtype, placement.vae_dtype),
            tiled=False,
        )
        return need.total

    def reset(self) -> None:
        """Forget the pictures before."""
        raise NotImplementedError

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """The next pictures, enlarged; fewer than `at_once` are the first of a scene or the last."""
        raise NotImplementedError

    @contextmanager
    def _running(self, pictures: np.ndarray) -> Iterator[None]:
        _, height, width, _ = pictures.shape
        doing = f"{self._loaded.preset.title}, {len(pictures)} pictures of {height}×{width} at {self._scale}×"
        model = self._loaded
        deterministic, asked = model.convolutions(), model.asking(self._check)
        with out_of_memory(doing), private_randomness(SEED), deterministic, torch.no_grad(), asked:
            yield

    def _generator(self) -> torch.Generator:
        """On the processor, so that the noise is the same on every device."""
        return torch.Generator().manual_seed(SEED)

    @property
    def _device(self) -> torch.device:
        return torch.device(self._loaded.placement.device)

    def _in_range(self, made: np.ndarray) -> np.ndarray:
        """uint8 of pictures in 0…1.

        Raises:
            NumericalError: NaN or infinity among them.
        """
        if not np.isfinite(made).all():
            raise NumericalError(
                f"NaN or infinity in the pictures that {self._loaded.preset.title} made.",
                field="method",
                value=self._loaded.preset.name,
                way_out="Choose another method; the weights or this machine's 16 bits may be at fault.",
            )
        return np.stack([in_8_bits(picture * np.float32(255)) for picture in made])


class Windowed(ModelUpscaler):
    """An engine that is given pictures a window at a time."""

    memory = CONTEXT
    frames_multiple: ClassVar[int] = 4
    """Windows are made as long as this, times any number, plus 1."""
    least_frames: ClassVar[int] = 1

    def reset(self) -> None:
        self._before: np.ndarray | None = None

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        window = pictures if self._before is None else np.concatenate([self._before, pictures])
        seen = len(window) - len(pictures)
        self._before = window[-CONTEXT:].copy()
        length = max(len(window), self.least_frames)
        length += -(length - 1) % self.frames_multiple
        whole = np.pad(window, ((0, length - len(window)), (0, 0), (0, 0), (0, 0)), mode="edge")
        with self._running(pictures):
            return self._enlarged(whole, slice(seen, len(window)))

    def _enlarged(self, window: np.ndarray, wanted: slice) -> np.ndarray:
        """A window, uint8 (T, H, W, 3), of valid length; of what is made, the wanted pictures, (N, sH, sW, 3)."""
        raise NotImplementedError

    def _tiled(
        self,
        window: np.ndarray,
        wanted: slice,
        *,
        tile: tuple[int, int],
        multiple_of: int,
        scale: int,
        made: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """As `tiled`, uint8."""
        return self._in_range(tiled(window, wanted, tile=tile, multiple_of=multiple_of, scale=scale, made=made))


def tiled(
    window: np.ndarray,
    wanted: slice,
    *,
    tile: tuple[int, int],
    multiple_of: int,
    scale: int,
    made: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """A window made tile after tile, (N, sH, sW, 3) as float32 tiles are.

    Args:
        wanted: The pictures of it that are kept.
        tile: Rows and columns of a tile at most, before it is enlarged.
        multiple_of: The grid that a tile's sides lie on.
        scale: How many times as large a tile becomes.
        made: A tile (T, h, w, 3) enlarged, float32 (T, sh, sw, 3).
    """
    _, height, width, _ = window.shape
    window = edges_repeated(window, multiple_of)
    tile = (tile[0] // multiple_of * multiple_of, tile[1] // multiple_of * multiple_of)
    rows, columns = (starts(length, side, multiple_of) for length, side in zip(window.shape[1:3], tile, strict=True))
    h, w = (min(length, side) for length, side in zip(window.shape[1:3], tile, strict=True))
    if len(rows) == len(columns) == 1:
        return made(window)[wanted, : height * scale, : width * scale]
    weight = (hann(h * scale)[:, None] * hann(w * scale))[..., None]
    count = len(range(*wanted.indices(len(window))))
    total = np.zeros((count, *(length * scale for length in window.shape[1:3]), 3), np.float32)
    weights = np.zeros((*total.shape[1:3], 1), np.float32)
    for top in rows:
        for left in columns:
            place = np.s_[top * scale : (top + h) * scale, left * scale : (left + w) * scale]
            total[:, *place] += made(window[:, top : top + h, left : left + w])[wanted] * weight
            weights[place] += weight
    total /= weights
    return total[:, : height * scale, : width * scale]


def edges_repeated(window: np.ndarray, multiple_of: int, *, least: tuple[int, int] = (1, 1)) -> np.ndarray:
    """(T, H, W, 3) with its last rows and columns repeated, until both are on the grid and at least so many."""
    sides = [max(length, low) for length, low in zip(window.shape[1:3], least, strict=True)]
    below, beside = (
        -(-side // multiple_of) * multiple_of - length for side, length in zip(sides, window.shape[1:3], strict=True)
    )
    return np.pad(window, ((0, 0), (0, below), (0, beside), (0, 0)), mode="edge")


def hann(length: int) -> np.ndarray:
    """A window that is nowhere zero, so that what one tile alone covers has its weight."""
    return np.hanning(length + 2)[1:-1].astype(np.float32)


def starts(length: int, tile: int, multiple_of: int) -> list[int]:
    """Where tiles begin: the fewest that overlap enough, evenly spread, on the grid."""
    if length <= tile:
        return [0]
    steps = (length - tile) // multiple_of
    most = max(1, int(tile * (1 - OVERLAP)) // multiple_of)
    count = -(-steps // most)
    return [round(steps * index / count) * multiple_of for index in range(count + 1)]


def planes(window: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 as (1, T, 3, H, W) float32 in 0…1."""
    return torch.from_numpy(np.ascontiguousarray(window)).permute(0, 3, 1, 2)[None].float() / 255
