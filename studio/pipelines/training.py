"""What training asks of a family: latents of frames, embedded prompts, a velocity, and where adapters sit.

    x_s = (1 - s) x_0 + s e,    v = e - x_0,    x_0 = x_s - s v

with s the noise level (sigma of the flow-matching schedulers), e Gaussian noise and x_0 the normalised latent.

Shapes: pixels (B, 3, F, H, W) in -1..1, latents (B, c, t, h, w), prompts (B, L, d). Knows how a family normalises its
latents and calls its denoiser. Refuses to know losses, optimizers and data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.errors import RequestError
from studio.pipelines.ready import Ready

TIMESTEPS = 1000.0
"""Timesteps of a noise level of 1."""


class Trainable:
    """A loaded flow-matching pipeline of Wan's kind, seen as a function to be trained."""

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
    """Linear layers of a block that take a low-rank update."""
    decoder_targets = r"decoder\..*(to_qkv|proj|resample\.1)"
    """Convolutions of the decoder that do; the causal ones are no plain convolutions."""

    def __init__(self, ready: Ready) -> None:
        """See a loaded pipeline so.

        Raises:
            RequestError: a family that the studio does not train yet, or one with two denoisers.
        """
        reason = why_not(ready)
        if reason:
            raise RequestError(
                f"{ready.preset.title} cannot be fine-tuned here: {reason}",
                field="preset",
                value=ready.preset.name,
                way_out="Choose the pocket model or a Wan model with one denoiser.",
            )
        self.ready = ready
        self.pipe: Any = ready.pipe
        self.vae: Any = ready.pipe.vae
        self.transformer: Any = ready.pipe.transformer

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def _per_channel(self, name: str, like: Tensor) -> Tensor:
        values = getattr(self.vae.config, name)
        return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def latents_of(self, pixels: Tensor) -> Tensor:
        """Normalised latents (the posterior's mode), float32."""
        vae_dtype = next(self.vae.parameters()).dtype
        z = self.vae.encode(pixels.to(self.device, vae_dtype)).latent_dist.mode().float()
        return (z - self._per_channel("latents_mean", z)) / self._per_channel("latents_std", z)

    def for_decoder(self, latents: Tensor) -> Tensor:
        """As the decoder takes them; keeps the graph."""
        return latents * self._per_channel("latents_std", latents) + self._per_channel("latents_mean", latents)

    @torch.no_grad()
    def prompt(self, caption: str) -> Tensor:
        """A caption, embedded: (1, L, d), float32."""
        length = self.ready.preset.defaults.max_sequence_length
        more = {} if length is None else {"max_sequence_length": length}
        embedded, _ = self.pipe.encode_prompt(caption, do_classifier_free_guidance=False, **more)
        return embedded.float()

    def velocity(self, noisy: Tensor, sigma: Tensor, prompt: Tensor) -> Tensor:
        """v for latents at noise levels `sigma` (B,), float32."""
        dtype = self.transformer.dtype
        out = self.transformer(
            hidden_states=noisy.to(dtype),
            timestep=sigma * TIMESTEPS,
            encoder_hidden_states=prompt.to(dtype),
            return_dict=False,
        )[0]
        return out.float()


def why_not(ready: Ready) -> str:
    """Why a pipeline cannot be trained; empty where it can."""
    if ready.preset.pipeline != "WanPipeline":
        return "the studio trains Wan's kind of models so far."
    if len(ready.transformers) != 1:
        return "it has two denoisers, one for high and one for low noise."
    if ready.placement.quantization != "none":
        return "its weights are quantised."
    return ""
