"""Latte, whose autoencoder knows pictures only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.pipelines.families.diffusion import Diffusion
from studio.pipelines.families.video_model import Prompt
from studio.requests.generation import GenerationRequest

ENCODED_TOGETHER = 4
"""Frames that the autoencoder takes at once."""


class Latte(Diffusion):
    """Its blocks look along space and along time in turn."""

    pipeline = "LattePipeline"
    num_frames_name = "video_length"

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        wanted = super().arguments(request)
        wanted.pop("max_sequence_length", None)
        # Cleaning captions needs beautifulsoup4, and is silently left out without it; a clip must not hang on that.
        return wanted | {"clean_caption": False}

    def encoded(self, pixels: Tensor) -> Tensor:
        pictures = pixels.transpose(1, 2).flatten(0, 1).split(ENCODED_TOGETHER)
        z = torch.cat([super(Latte, self).encoded(each) for each in pictures])
        return z.unflatten(0, (len(pixels), -1)).transpose(1, 2)

    def frames_of(self, z: Tensor) -> Tensor:
        return self.pipe.decode_latents(z * self.vae.config.scaling_factor, z.shape[2])

    def preview_pixels(self, z: Tensor) -> Tensor:
        return super().preview_pixels(z[:, :, 0])

    def embedded(self, caption: str) -> Prompt:
        embedded, _ = self.pipe.encode_prompt(caption, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embedded}
