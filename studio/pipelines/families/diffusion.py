"""What families have in common that learnt by diffusion in discrete steps.

    x_t = √ᾱ x_0 + √(1 - ᾱ) e
    e       predicted as such ("epsilon"):           x_0 = (x_t - √(1 - ᾱ) e) / √ᾱ
    v = √ᾱ e - √(1 - ᾱ) x_0 ("v_prediction"):        x_0 = √ᾱ x_t - √(1 - ᾱ) v

with ᾱ (`alphas_cumprod`) of the pipeline's own scheduler at timestep t, and the noise level t / 1000. Refuses to know
any one family.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.pipelines.families.video_model import LEAST_NOISE, MOST_NOISE, TIMESTEPS, VideoModel


class Diffusion(VideoModel):
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
    def _prediction_type(self) -> str:
        return self.pipe.scheduler.config.prediction_type

    def noised(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        signal, rest = self._shares(level)
        return signal * clean + rest * noise

    def target(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        signal, rest = self._shares(level)
        return signal * noise - rest * clean if self._prediction_type == "v_prediction" else noise

    def estimate(self, noisy: Tensor, prediction: Tensor, level: float) -> Tensor:
        signal, rest = self._shares(level)
        if self._prediction_type == "v_prediction":
            return signal * noisy - rest * prediction
        return (noisy - rest * prediction) / signal

    def why_not_trained(self) -> str | None:
        known = self._prediction_type in ("epsilon", "v_prediction")
        return None if known else f"its denoiser predicts {self._prediction_type!r}."

    def rotary(self, *sizes: int) -> Any:
        """Rotary positions, for which pipelines have a method that takes sizes in pixels."""
        return self.pipe._prepare_rotary_positional_embeddings(*sizes, self.device)

    def sides(self, latents: Tensor) -> tuple[int, int]:
        """Height and width in pixels."""
        ratio = self.pipe.vae_scale_factor_spatial
        return latents.shape[-2] * ratio, latents.shape[-1] * ratio
