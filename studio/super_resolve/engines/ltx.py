"""LTX-2's latent upsampler: latents twice as large, by a convolutional network between the model's encoder and decoder.

It was made for drafts that the big model refines afterwards; alone it restores nothing.
"""

from __future__ import annotations

import numpy as np

from studio.super_resolve.engines.windows import Windowed


class Engine(Windowed):
    frames_multiple = 8
    least_frames = 9  # its norms want more than one value, and a small picture alone is one

    def _enlarged(self, window: np.ndarray, wanted: slice) -> np.ndarray:
        defaults = self._loaded.preset.defaults
        return self._tiled(
            window,
            wanted,
            tile=(defaults.height // self._scale, defaults.width // self._scale),
            multiple_of=self._pipe.vae_spatial_compression_ratio,
            scale=self._scale,
            made=self._made,
        )

    def _made(self, tile: np.ndarray) -> np.ndarray:
        _, height, width, _ = tile.shape
        frames = [picture.astype(np.float32) / 255 for picture in tile]
        made = self._pipe(video=frames, height=height, width=width, generator=self._generator(), output_type="np")
        return made.frames[0]
