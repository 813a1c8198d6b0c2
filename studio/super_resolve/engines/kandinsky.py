"""Kandinsky 6 video super-resolution: its pipeline, called a window at a time.

The pipeline tiles each window itself: encodes it, enlarges the latents, adds noise, takes a few steps and decodes, tile
after tile, blended by their distance to the border. It wants pictures that are no smaller than a tile.
"""

from __future__ import annotations

import numpy as np

from studio.super_resolve.engines.windows import Windowed, edges_repeated, planes


class Engine(Windowed):
    def _enlarged(self, window: np.ndarray, wanted: slice) -> np.ndarray:
        _, height, width, _ = window.shape
        made = self._pipe(
            video=planes(self._no_smaller_than_a_tile(window)),
            resolution_scale=self._scale,
            num_inference_steps=self._loaded.preset.defaults.num_inference_steps,
            generator=self._generator(),
            output_type="np",
        ).frames[0]
        return self._in_range(made[wanted, : height * self._scale, : width * self._scale])

    def _no_smaller_than_a_tile(self, window: np.ndarray) -> np.ndarray:
        """On the autoencoder's grid. The pipeline takes the tile whose shape is most like the pictures', so another
        one may be meant once they have grown; they only grow, to one of a few sizes, and so this ends."""
        while True:
            _, height, width, _ = window.shape
            tile = min(self._pipe.transformer_tile_sizes, key=lambda size: abs(size[1] / size[0] - width / height))
            least = (tile[0] // self._scale, tile[1] // self._scale)
            grown = edges_repeated(window, self._pipe.vae_scale_factor_spatial, least=least)
            if grown.shape == window.shape:
                return window
            window = grown
