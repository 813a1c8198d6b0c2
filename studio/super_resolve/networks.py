"""The pocket super-resolver as a method: pictures become tensors, tile by tile, and what comes out is corrected.

A tile is computed with all that its pixels depend on around it, so where tiles meet nothing can be seen: they are the
picture that would have been computed whole. Each keeps its own memory of the pictures before.

Knows the pipeline and its reach. Refuses to know parts and scenes.

Shapes: N pictures, H rows, W columns, s the scale; pixels uint8 outside, 0…1 inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from studio.family import SUPER_RESOLVERS
from studio.machine import weights
from studio.pipelines.super_resolver import (
    FOLD,
    GRID,
    SuperResolverPipeline,
    SuperResolverState,
    load_super_resolver,
)
from studio.preset import EnlargerPreset
from studio.requests.super_resolution import SuperResolutionRequest
from studio.super_resolve.methods import Upscaler, back_project, in_8_bits

TILE = 256
"""Places of the network's grid along a side of a tile, what it depends on apart: 1,024 enlarged pixels."""


def network_for(
    preset: EnlargerPreset,
    request: SuperResolutionRequest,
    network: Path | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> Upscaler:
    """The model of a preset, loaded.

    Args:
        network: Folder of a fine-tuned network, which takes the place of the one that is asked for.
        check: Called while a model is loaded or makes pictures, where that takes long; what it raises ends it.

    Raises:
        WeightsMissing, WeightsCorrupt
        DoesNotFit: it is too large for this machine.
    """
    if preset.pipeline in SUPER_RESOLVERS or preset.weights.package is not None:
        from studio.super_resolve.engines import upscaler_of

        return upscaler_of(preset, request.scale, check=check)
    return PocketSuperResolver(
        load_super_resolver(weights.folder_of(preset), network, restore=request.restore),
        request.scale,
        restore=request.restore,
        detail=request.detail,
        back_projections=0 if request.restore else request.back_projections,
    )


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """A stretch of the given picture, along rows and columns."""

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]
    """With what the inner pixels depend on."""


class PocketSuperResolver:
    """L + R, then back-projection; or L + R + g · D."""

    at_once = 1

    def __init__(
        self,
        pipeline: SuperResolverPipeline,
        scale: int,
        *,
        restore: bool = False,
        detail: float = 0.0,
        back_projections: int = 1,
        tile: int = TILE,
    ) -> None:
        self._pipeline, self._scale, self._restore, self._detail = pipeline, scale, restore, detail
        self._rounds = back_projections
        network = pipeline.restorer if restore else pipeline.refiner
        details = pipeline.details if detail else None
        self.memory = network.memory + (details.memory if details is not None else 0)
        reach = network.reach + (details.reach if details is not None else 0)
        self._tile, self._reach = (-(-places // FOLD) * FOLD for places in (tile, reach))
        """Tiles begin where a latent pixel does."""
        self._states: dict[int, SuperResolverState] = {}
        """By the tile's number."""

    def reset(self) -> None:
        self._states = {}

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([self._enlarged(picture) for picture in pictures])

    def _enlarged(self, picture: np.ndarray) -> np.ndarray:
        scale = self._scale
        height, width = picture.shape[:2]
        large = np.empty((height * scale, width * scale, 3), np.float32)
        for number, tile in enumerate(self._tiles(height, width)):
            large[tuple(_times(part, scale) for part in tile.inner)] = self._enlarged_tile(picture, number, tile)
        back_project(large, picture.astype(np.float32), scale, self._rounds)
        return in_8_bits(large)

    def _enlarged_tile(self, picture: np.ndarray, number: int, tile: _Tile) -> np.ndarray:
        """The inner pixels of a tile, enlarged, in 0…255."""
        pixels = torch.from_numpy(np.ascontiguousarray(picture[tile.outer])).to(self._pipeline.device)
        given = pixels.permute(2, 0, 1).float().div(255)[None, None]
        enlarged, self._states[number] = self._pipeline(
            given, self._scale, self._states.get(number), restore=self._restore, detail=self._detail
        )
        inner = tuple(
            _times(_within(part, whole), self._scale) for part, whole in zip(tile.inner, tile.outer, strict=True)
        )
        return enlarged[0, 0].permute(1, 2, 0)[inner].mul(255).cpu().numpy()

    def _tiles(self, height: int, width: int) -> Iterator[_Tile]:
        """In the order of their numbers; tiles lie on the network's grid."""
        to_a_place = GRID // self._scale
        extent, around = self._tile * to_a_place, self._reach * to_a_place
        for top in range(0, height, extent):
            for left in range(0, width, extent):
                begin, end = (top, left), (min(top + extent, height), min(left + extent, width))
                rows, columns = (slice(*ends) for ends in zip(begin, end, strict=True))
                wider = [
                    slice(max(0, part.start - around), min(part.stop + around, whole))
                    for part, whole in ((rows, height), (columns, width))
                ]
                yield _Tile(inner=(rows, columns), outer=(wider[0], wider[1]))


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
