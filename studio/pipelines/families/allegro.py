"""Allegro, whose autoencoder works in tiles only, and gives frames before colours."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from studio.pipelines.families.diffusion import Diffusion
from studio.pipelines.families.video_model import Prompt
from studio.requests.generation import GenerationRequest


class Allegro(Diffusion):
    """Its prompts and their masks are handed on together."""

    pipeline = "AllegroPipeline"

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        # Cleaning captions needs beautifulsoup4, and is silently left out without it; a clip must not hang on that.
        return super().arguments(request) | {"clean_caption": False}

    def frames_of(self, z: Tensor) -> Tensor:
        return super().frames_of(z).transpose(1, 2)

    def preview_pixels(self, z: Tensor) -> Tensor:
        """One latent frame is shorter than the tiles, without which diffusers does not decode; so past them."""
        return self.vae.decoder(self.vae.post_quant_conv(z[:, :, 0])[:, :, None])

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, _, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded[:, None], "encoder_attention_mask": mask}

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        return {"image_rotary_emb": self.rotary(len(noisy), *self.sides(noisy), noisy.shape[2])}
