"""Wan 2.1 and 2.2, with one denoiser or two."""

from __future__ import annotations

from torch import Tensor

from studio.pipelines.families.video_model import Prompt, VideoModel, per_channel


class Wan(VideoModel):
    """Its latents are normalised channel by channel."""

    pipeline = "WanPipeline"

    def normalised(self, z: Tensor) -> Tensor:
        config = self.vae.config
        return (z - per_channel(config.latents_mean, z)) / per_channel(config.latents_std, z)

    def denormalised(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        return latents * per_channel(config.latents_std, latents) + per_channel(config.latents_mean, latents)

    def embedded(self, caption: str) -> Prompt:
        embedded, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded}
