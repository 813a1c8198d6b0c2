"""Mochi: its time runs from noise to clip, and so does its velocity, x_0 - e."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.pipelines.families.video_model import Prompt, VideoModel, per_channel


class Mochi(VideoModel):
    """Its latents are normalised channel by channel and scaled, where its autoencoder has statistics."""

    pipeline = "MochiPipeline"

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return torch.zeros_like(like[:, :, :1, :1, :1]), torch.ones_like(like[:, :, :1, :1, :1])
        return per_channel(config.latents_mean, like), per_channel(config.latents_std, like)

    def normalised(self, z: Tensor) -> Tensor:
        mean, deviation = self._statistics(z)
        return (z - mean) * self.vae.config.scaling_factor / deviation

    def denormalised(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics(latents)
        return latents * deviation / self.vae.config.scaling_factor + mean

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, _, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask}

    def timestep(self, level: Tensor) -> Tensor:
        return super().timestep(1 - level).to(self.pipe.transformer.dtype)

    def target(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        return clean - noise

    def estimate(self, noisy: Tensor, prediction: Tensor, level: float) -> Tensor:
        return noisy + level * prediction
