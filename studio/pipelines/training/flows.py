"""Families that learnt by flow matching: Wan, LTX-Video, HunyuanVideo, Mochi, SANA-Video.

Knows what each one's pipeline does around its denoiser. Refuses to know what they have in common (`trainable`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from studio.pipelines.families import per_channel
from studio.pipelines.loaded import private_randomness
from studio.pipelines.training.trainable import (
    ATTENTION,
    JOINT_ATTENTION,
    JOINT_FEED_FORWARD,
    Prompt,
    Trainable,
)


class Wan(Trainable):
    """Wan 2.1 and 2.2, with one denoiser or two."""

    lora_targets = (*ATTENTION, "ffn.net.0.proj", "ffn.net.2")

    def normalised(self, z: Tensor) -> Tensor:
        config = self.vae.config
        return (z - per_channel(config.latents_mean, z)) / per_channel(config.latents_std, z)

    def for_decoder(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        return latents * per_channel(config.latents_std, latents) + per_channel(config.latents_mean, latents)

    def embedded(self, caption: str) -> Prompt:
        embedded, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded}


class SanaVideo(Wan):
    """SANA-Video with Wan's autoencoder: its feed-forward layers are convolutions, which are left alone."""

    lora_targets = ATTENTION

    @staticmethod
    def why_not(pipe: Any) -> str:
        name = type(pipe.vae).__name__
        return "" if name == "AutoencoderKLWan" else f"its autoencoder is an {name}; the studio knows Wan's."

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, _, _ = self.pipe.encode_prompt(
            caption,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=self.default_of("complex_human_instruction"),
        )
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask}


class LTXVideo(Trainable):
    """LTX-Video: a sequence of tokens (B, t · h · w, c), whose positions hang on the frame rate."""

    def normalised(self, z: Tensor) -> Tensor:
        return self.pipe._normalize_latents(z, *self._statistics)

    def for_decoder(self, latents: Tensor) -> Tensor:
        return self.pipe._denormalize_latents(latents, *self._statistics)

    @property
    def _statistics(self) -> tuple[Any, ...]:
        return self.vae.latents_mean, self.vae.latents_std, self.vae.config.scaling_factor

    def frames_of(self, z: Tensor) -> Tensor:
        with private_randomness(0):  # from 0.9.1 on the decoder adds noise
            return self.ready.family.preview_decode(self.vae, z)

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

    def unpacked(self, latents: Tensor, like: Tensor) -> Tensor:
        return self.pipe._unpack_latents(latents, *like.shape[2:], *self._patches)

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        frames, height, width = noisy.shape[2:]
        side = self.pipe.vae_spatial_compression_ratio
        seconds = self.pipe.vae_temporal_compression_ratio / self.ready.preset.defaults.fps
        return {
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (seconds, side, side),
        }


class HunyuanVideo(Trainable):
    """HunyuanVideo: guidance is an input of the denoiser, and at a scale of 1 it says what it would without any."""

    lora_targets = (*JOINT_ATTENTION, *JOINT_FEED_FORWARD, "proj_mlp", "proj_out")

    def embedded(self, caption: str) -> Prompt:
        embedded, pooled, mask = self.pipe.encode_prompt(caption, max_sequence_length=self.max_sequence_length)
        # The pipeline, too, makes a number of the mask.
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask.float(), "pooled_projections": pooled}

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        return {"guidance": torch.full((len(noisy),), 1000.0, dtype=noisy.dtype, device=noisy.device)}


class HunyuanVideo15(Trainable):
    """HunyuanVideo 1.5: room for a first picture beside the latents, which is empty here."""

    lora_targets = (*JOINT_ATTENTION, *JOINT_FEED_FORWARD)

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, glyphs, glyphs_mask = self.pipe.encode_prompt(caption)
        return {
            "encoder_hidden_states": embedded,
            "encoder_attention_mask": mask,
            "encoder_hidden_states_2": glyphs,
            "encoder_attention_mask_2": glyphs_mask,
        }

    def timestep(self, level: Tensor) -> Tensor:
        return super().timestep(level).to(self.pipe.transformer.dtype)

    def packed(self, latents: Tensor) -> Tensor:
        picture, mask = self.pipe.prepare_cond_latents_and_mask(latents, latents.dtype, latents.device)
        return torch.cat([latents, picture, mask], dim=1)

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        tokens, width = self.pipe.vision_num_semantic_tokens, self.pipe.vision_states_dim
        return {"image_embeds": noisy.new_zeros(len(noisy), tokens, width)}


class Mochi(Trainable):
    """Mochi: its time runs from noise to clip, and so does its velocity, x_0 - e."""

    lora_targets = (*JOINT_ATTENTION, *JOINT_FEED_FORWARD)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return torch.zeros_like(like[:, :, :1, :1, :1]), torch.ones_like(like[:, :, :1, :1, :1])
        return per_channel(config.latents_mean, like), per_channel(config.latents_std, like)

    def normalised(self, z: Tensor) -> Tensor:
        mean, deviation = self._statistics(z)
        return (z - mean) * self.vae.config.scaling_factor / deviation

    def for_decoder(self, latents: Tensor) -> Tensor:
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

    def estimate(self, noisy: Tensor, said: Tensor, level: float) -> Tensor:
        return noisy + level * said
