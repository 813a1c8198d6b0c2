"""SwiftVR: one step of a Wan 2.2 transformer between the latents of a small autoencoder, on a clip without end.

A clip is first enlarged as it is (bilinear, as in training). Of its latents z the transformer says v at t = 1000, and
z - v is clean. The autoencoder carries its state from chunk to chunk; the transformer sees a chunk alone, and within it
only how far pictures are apart, so that chunks need no count.

A latent of four pictures is decoded to the last of them and the three before. So the last three pictures of a chunk lie
in a latent that is not there yet: it is made of the last picture repeated, as at a clip's end, and made again as it
really is when the next chunk comes, for the state alone.

Shapes: n pictures of a chunk, t latents, h rows and w columns of latents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.pipelines.swiftvr import AHEAD, PICTURES_A_LATENT, Memory
from studio.super_resolve.engines.windows import ModelUpscaler, hann, planes, starts

MULTIPLE_OF = 32
"""Sides of enlarged pictures: a latent is 16 pixels, and the transformer's patches are of 2 latents."""
PATCH = 2
TIMESTEP = 1000.0


class Engine(ModelUpscaler):
    # Nine memory blocks of the decoder see 8 latents, so two chunks, further back; the transformer all of the earlier
    # one; and of its first latent the encoder's blocks see 30 pictures.
    memory = 78

    def reset(self) -> None:
        self._encoder: Memory | None = None
        self._decoder: Memory | None = None

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        begins, lacking = self._encoder is None, -len(pictures) % PICTURES_A_LATENT
        # What follows is counted from the first whole chunk on, wherever in the clip a scene began.
        pad = (lacking, 0) if begins else (0, lacking)
        whole = np.pad(pictures, (pad, (0, 0), (0, 0), (0, 0)), mode="edge")
        with self._running(pictures):
            latents = self._clean(torch.cat(list(self._encoded(whole))))
            made = np.concatenate(list(self._decoded(latents, pictures.shape)))
        return made[AHEAD:][pad[0] : pad[0] + len(pictures)]

    def _encoded(self, pictures: np.ndarray) -> Iterator[Tensor]:
        """Latents, one by one; the last one of the last picture alone, which leaves no trace."""
        for first in range(0, len(pictures), PICTURES_A_LATENT):
            given = self._enlarged(pictures[first : first + PICTURES_A_LATENT])
            z, self._encoder = self._pipe.vae.encode(given, self._encoder)
            yield z
        still = self._enlarged(np.repeat(pictures[-1:], PICTURES_A_LATENT, axis=0))
        yield self._pipe.vae.encode(still, self._encoder)[0]

    def _enlarged(self, pictures: np.ndarray) -> Tensor:
        """(n, 3, H, W) in 0…1, on the grid."""
        height, width = (length * self._scale for length in pictures.shape[1:3])
        large = F.interpolate(planes(pictures)[0], (height, width), mode="bilinear", align_corners=False)
        below, beside = -height % MULTIPLE_OF, -width % MULTIPLE_OF
        large = F.pad(large, (0, beside, 0, below), mode="replicate")
        return large.to(self._device, self._pipe.vae.dtype)

    def _clean(self, z: Tensor) -> Tensor:
        """(t, c, h, w), in tiles where a preset's is smaller than the picture."""
        clip = z.transpose(0, 1)[None]
        defaults, ratio = self._loaded.preset.defaults, self._pipe.vae.spatial_compression_ratio
        tile = (defaults.height // ratio, defaults.width // ratio)
        rows, columns = (starts(length, side, PATCH) for length, side in zip(clip.shape[3:], tile, strict=True))
        h, w = (min(length, side) for length, side in zip(clip.shape[3:], tile, strict=True))
        weight = torch.from_numpy(hann(h)[:, None] * hann(w)).to(z)
        total, weights = torch.zeros_like(clip), torch.zeros_like(clip[:, :1])
        for top in rows:
            for left in columns:
                place = np.s_[..., top : top + h, left : left + w]
                part = clip[place]
                total[place] += (part - self._velocity(part)) * weight
                weights[place] += weight
        return (total / weights)[0].transpose(0, 1)

    def _velocity(self, z: Tensor) -> Tensor:
        transformer = self._pipe.transformer
        prompt = self._pipe.prompt.prompt_emb.to(self._device, transformer.dtype)
        return transformer(
            hidden_states=z.to(transformer.dtype),
            timestep=torch.full((1,), TIMESTEP, device=self._device),
            encoder_hidden_states=prompt,
            return_dict=False,
        )[0].to(z.dtype)

    def _decoded(self, latents: Tensor, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """uint8 (4, H, W, 3) of each latent; of the last one nothing is carried on."""
        height, width = (length * self._scale for length in shape[1:3])
        for index, latent in enumerate(latents):
            made, memory = self._pipe.vae.decode(latent[None], self._decoder)
            if index < len(latents) - 1:
                self._decoder = memory
            yield self._in_range(made[:, :, :height, :width].permute(0, 2, 3, 1).float().cpu().numpy())
