"""DOVE: CogVideoX 1.5, taught to restore in one step what was enlarged before.

A clip is enlarged bicubically and encoded; of its latents z the transformer says v at t = 399 with an empty prompt, and
the scheduler's formula makes of both the clean ones: √ᾱ z - √(1 - ᾱ) v. No noise is added. Where latents are taken in
pairs and are odd, the first one stands twice.

Shapes: T pictures of a window, h rows and w columns of a tile; latents are (1, t, c, h / 8, w / 8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor

from studio.pipelines import LoadedModel
from studio.super_resolve.engines.windows import Windowed, planes
from studio.super_resolve.methods import enlarged

TIMESTEP = 399


class Engine(Windowed):
    frames_multiple = 8

    def __init__(self, loaded: LoadedModel, scale: int, check: Callable[[], None] = lambda: None) -> None:
        super().__init__(loaded, scale, check)
        self._config: Any = self._pipe.transformer.config
        self._prompt = self._empty_prompt()

    @torch.no_grad()
    def _empty_prompt(self) -> Tensor:
        embedded, _ = self._pipe.encode_prompt(
            "",
            do_classifier_free_guidance=False,
            max_sequence_length=self._config.max_text_seq_length,
            device=self._device,
        )
        return embedded

    def _enlarged(self, window: np.ndarray, wanted: slice) -> np.ndarray:
        defaults = self._loaded.preset.defaults
        return self._tiled(
            np.stack([enlarged(picture, self._scale) for picture in window]),
            wanted,
            tile=(defaults.height, defaults.width),
            multiple_of=self._pipe.vae_scale_factor_spatial * self._config.patch_size,
            scale=1,
            made=self._restored,
        )

    def _restored(self, tile: np.ndarray) -> np.ndarray:
        vae, transformer = self._pipe.vae, self._pipe.transformer
        pixels = (2 * planes(tile) - 1).transpose(1, 2).to(self._device, vae.dtype)
        z = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        z = z.transpose(1, 2)
        twice = -z.shape[1] % (self._config.patch_size_t or 1)
        z = torch.cat([z[:, :1].expand(-1, twice, -1, -1, -1), z], dim=1).to(transformer.dtype)
        timestep = torch.tensor([TIMESTEP], device=self._device)
        v = transformer(
            hidden_states=z,
            encoder_hidden_states=self._prompt.to(transformer.dtype),
            timestep=timestep,
            image_rotary_emb=self._positions(z),
            return_dict=False,
        )[0]
        clean = self._pipe.scheduler.get_velocity(v, z, timestep)[:, twice:]
        made = self._pipe.decode_latents(clean.to(vae.dtype))
        return (made[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).cpu().numpy()

    def _positions(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self._config.use_rotary_positional_embeddings:
            return None
        rows, columns = (length // self._config.patch_size for length in z.shape[3:])
        cosines, sines = get_3d_rotary_pos_embed(
            embed_dim=self._config.attention_head_dim,
            crops_coords=None,  # pyright: ignore[reportArgumentType]
            grid_size=(rows, columns),
            temporal_size=z.shape[1] // (self._config.patch_size_t or 1),
            grid_type="slice",
            max_size=(rows, columns),
            device=self._device,
        )
        return cosines, sines
