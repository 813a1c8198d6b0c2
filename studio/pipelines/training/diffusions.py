"""Families that learnt by diffusion in discrete steps: CogVideoX, Latte, Allegro.

    x_t = √ᾱ x_0 + √(1 - ᾱ) e
    e       predicted as such ("epsilon"):           x_0 = (x_t - √(1 - ᾱ) e) / √ᾱ
    v = √ᾱ e - √(1 - ᾱ) x_0 ("v_prediction"):        x_0 = √ᾱ x_t - √(1 - ᾱ) v

with ᾱ (`alphas_cumprod`) of the pipeline's own scheduler at timestep t, and the noise level t / 1000. Knows what each
one's pipeline does around its denoiser. Refuses to know what they have in common (`trainable`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.pipelines.training.trainable import LEAST_NOISE, MOST_NOISE, TIMESTEPS, Prompt, Trainable

ENCODED_TOGETHER = 4
"""Frames that an autoencoder of pictures takes at once."""


class Diffusion(Trainable):
    """A family with a schedule of ᾱ."""

    def draw_level(self, generator: torch.Generator, clean: Tensor) -> float:
        """Uniform, as these were trained."""
        return min(max(float(torch.rand((), generator=generator)), LEAST_NOISE), MOST_NOISE)

    def timestep(self, level: Tensor) -> Tensor:
        return (level * TIMESTEPS).round().long().clamp(0, len(self.pipe.scheduler.alphas_cumprod) - 1)

    def _shares(self, level: float) -> tuple[float, float]:
        """√ᾱ and √(1 - ᾱ)."""
        alpha = float(self.pipe.scheduler.alphas_cumprod[self.timestep(torch.tensor(level))])
        return alpha**0.5, (1 - alpha) ** 0.5

    @property
    def _says_velocity(self) -> bool:
        return self.pipe.scheduler.config.prediction_type == "v_prediction"

    def noised(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        signal, rest = self._shares(level)
        return signal * clean + rest * noise

    def target(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        signal, rest = self._shares(level)
        return signal * noise - rest * clean if self._says_velocity else noise

    def estimate(self, noisy: Tensor, said: Tensor, level: float) -> Tensor:
        signal, rest = self._shares(level)
        return signal * noisy - rest * said if self._says_velocity else (noisy - rest * said) / signal

    @staticmethod
    def why_not(pipe: Any) -> str:
        said = pipe.scheduler.config.prediction_type
        return "" if said in ("epsilon", "v_prediction") else f"its denoiser predicts {said!r}."

    def _rotary(self, *sizes: int) -> Any:
        """Rotary positions, for which pipelines have a method that takes sizes in pixels."""
        return self.pipe._prepare_rotary_positional_embeddings(*sizes, self.device)

    def _sides(self, latents: Tensor) -> tuple[int, int]:
        """Height and width in pixels."""
        ratio = self.pipe.vae_scale_factor_spatial
        return latents.shape[-2] * ratio, latents.shape[-1] * ratio


class CogVideoX(Diffusion):
    """CogVideoX 1.0, which denoises (B, t, c, h, w)."""

    @staticmethod
    def why_not(pipe: Any) -> str:
        if pipe.transformer.config.patch_size_t is not None:
            return "it is of version 1.5, which denoises latent frames in groups and fills the first one up."
        return Diffusion.why_not(pipe)

    def embedded(self, caption: str) -> Prompt:
        embedded, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded}

    def packed(self, latents: Tensor) -> Tensor:
        return latents.transpose(1, 2)

    def unpacked(self, latents: Tensor, like: Tensor) -> Tensor:
        return latents.transpose(1, 2)

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        if not self.pipe.transformer.config.use_rotary_positional_embeddings:
            return {}
        return {"image_rotary_emb": self._rotary(*self._sides(noisy), noisy.shape[2])}


class Latte(Diffusion):
    """Latte, whose autoencoder knows pictures only."""

    def encoded(self, pixels: Tensor) -> Tensor:
        pictures = pixels.transpose(1, 2).flatten(0, 1).split(ENCODED_TOGETHER)
        z = torch.cat([super(Latte, self).encoded(each) for each in pictures])
        return z.unflatten(0, (len(pixels), -1)).transpose(1, 2)

    def frames_of(self, z: Tensor) -> Tensor:
        return self.pipe.decode_latents(z * self.vae.config.scaling_factor, z.shape[2])

    def embedded(self, caption: str) -> Prompt:
        embedded, _ = self.pipe.encode_prompt(caption, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embedded}


class Allegro(Diffusion):
    """Allegro, whose autoencoder works in tiles only, and gives frames before colours."""

    def frames_of(self, z: Tensor) -> Tensor:
        return super().frames_of(z).transpose(1, 2)

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, _, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded[:, None], "encoder_attention_mask": mask}

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        return {"image_rotary_emb": self._rotary(len(noisy), *self._sides(noisy), noisy.shape[2])}
