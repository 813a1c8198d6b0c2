"""LTX-Video: a sequence of tokens (B, t · h · w, c), whose positions hang on the frame rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from studio.pipelines.families.video_model import Prompt, VideoModel, middle
from studio.pipelines.randomness import private_randomness
from studio.requests.generation import GenerationRequest

DECODE_TIMESTEP = 0.05
DECODE_NOISE_SCALE = 0.025
"""As the model cards from 0.9.1 on say; the autoencoder of 0.9.0 ignores them."""


class LTXVideo(VideoModel):
    """Its autoencoder finishes the denoising itself from 0.9.1 on, and wants to know from where."""

    pipeline = "LTXPipeline"

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        return super().arguments(request) | {
            # The rate it was trained at shapes the positions of the tokens; `request.fps` is for showing only.
            "frame_rate": self.preset.defaults.fps,
            "decode_timestep": DECODE_TIMESTEP,
            "decode_noise_scale": DECODE_NOISE_SCALE,
        }

    @property
    def _statistics(self) -> tuple[Any, ...]:
        return self.vae.latents_mean, self.vae.latents_std, self.vae.config.scaling_factor

    def normalised(self, z: Tensor) -> Tensor:
        return self.pipe._normalize_latents(z, *self._statistics)

    def denormalised(self, latents: Tensor) -> Tensor:
        return self.pipe._denormalize_latents(latents, *self._statistics)

    def frames_of(self, z: Tensor) -> Tensor:
        with private_randomness(0):  # from 0.9.1 on the decoder adds noise
            return self.preview_pixels(z)

    def preview_latents(self, estimate: Tensor, request: GenerationRequest) -> Tensor:
        per, side = self.pipe.vae_temporal_compression_ratio, self.pipe.vae_spatial_compression_ratio
        sizes = ((request.num_frames - 1) // per + 1, request.height // side, request.width // side)
        return self.denormalised(middle(self.unpacked(estimate, sizes)))

    def preview_pixels(self, z: Tensor) -> Tensor:
        timestep = torch.full((1,), DECODE_TIMESTEP, device=z.device, dtype=z.dtype)
        return type(self.vae).decode(self.vae, z, timestep if self.vae.config.timestep_conditioning else None).sample

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, _, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask}

    def shift(self, clean: Tensor) -> float:
        from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift  # there already, where there is an LTX-Video

        config = self.pipe.scheduler.config
        if not config.use_dynamic_shifting:
            return super().shift(clean)
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        return math.exp(calculate_shift(math.prod(clean.shape[2:]), *(config[name] for name in names)))

    @property
    def _patches(self) -> tuple[int, int]:
        return self.pipe.transformer_spatial_patch_size, self.pipe.transformer_temporal_patch_size

    def packed(self, latents: Tensor) -> Tensor:
        return self.pipe._pack_latents(latents, *self._patches)

    def unpacked(self, latents: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return self.pipe._unpack_latents(latents, *sizes, *self._patches)

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        frames, height, width = noisy.shape[2:]
        side = self.pipe.vae_spatial_compression_ratio
        seconds = self.pipe.vae_temporal_compression_ratio / self.preset.defaults.fps
        return {
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (seconds, side, side),
        }
