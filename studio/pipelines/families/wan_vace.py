"""Wan VACE, with one denoiser or two: Wan, and control blocks beside it that look at a control video.

The control video holds what is to be followed, painted, and frames that are kept as they are; a mask says which is
which: black is kept, white is made anew. What the control blocks say of it, their hints, is added to Wan's own stream,
times a scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from studio.clips.control_maps import MapName
from studio.pipelines.conditions import Conditions
from studio.pipelines.families import wan
from studio.preset import Preset
from studio.requests.generation import GenerationRequest

NEITHER = 127
"""Grey: of these pixels the control video says nothing."""


class WanVACE(wan.Wan):
    """Without anything to keep to its hints count nothing, and it is Wan, bit for bit."""

    pipeline = "WanVACEPipeline"

    def __init__(self, preset: Preset, pipe: Any) -> None:
        super().__init__(preset, pipe)
        # diffusers counts the autoencoder's steps in time, and one that takes patches has fewer than it halves sides.
        config = self.vae.config
        pipe.vae_scale_factor_temporal = config.scale_factor_temporal
        pipe.vae_scale_factor_spatial = config.scale_factor_spatial
        pipe.video_processor = VideoProcessor(vae_scale_factor=config.scale_factor_spatial)
        self._grey: tuple[tuple[int, ...], Tensor] | None = None
        """For latents of that size, what control blocks are shown where there is nothing to show."""

    def conditioned(self, request: GenerationRequest, conditions: Conditions) -> dict[str, Any]:
        kept = 0 if conditions.kept is None else len(conditions.kept)
        if conditions.maps is None and not kept:
            return {"conditioning_scale": 0.0}
        video = self.control_video(request, conditions)
        mask = np.full(video.shape[:3], 255, np.uint8)
        mask[:kept] = 0
        return {
            "video": [Image.fromarray(frame) for frame in video],
            "mask": [Image.fromarray(frame) for frame in mask],
            "conditioning_scale": self.hint_scale(request, conditions),
        }

    def control_video(self, request: GenerationRequest, conditions: Conditions) -> np.ndarray:
        """The maps, painted into one picture each, and in front the frames that are kept; uint8 (F, H, W, 3)."""
        from studio.control_maps import painted_together  # here, so that other families are not held up by it

        size = request.height, request.width
        if conditions.maps is None:
            video = np.full((request.num_frames, *size, 3), NEITHER, np.uint8)
        else:
            most = max(conditions.strengths.values())
            shares: dict[MapName, float] = {name: strength / most for name, strength in conditions.strengths.items()}
            video = painted_together(conditions.maps, shares, size=size).copy()
        if conditions.kept is not None:
            video[: len(conditions.kept)] = conditions.kept
        return video

    def hint_scale(self, request: GenerationRequest, conditions: Conditions) -> Tensor:
        """By what hints are multiplied, (control blocks,) or (control blocks, 1, N, 1): as closely as the maps are to
        be followed, save on tokens that hold kept frames, where it is 1. How maps share that among them is painted."""
        layers = len(self.denoisers["transformer"].config.vace_layers)
        closely = 1.0 if conditions.maps is None else self.closely(request, conditions)
        if conditions.kept is None:
            return torch.full((layers,), closely)
        temporal, spatial = self.pipe.vae_scale_factor_temporal, self.pipe.vae_scale_factor_spatial
        _, down, across = self.denoisers["transformer"].config.patch_size
        tokens = (request.height // spatial // down) * (request.width // spatial // across)
        scale = torch.full((layers, 1, _latent_frames(request.num_frames, temporal) * tokens, 1), closely)
        scale[:, :, : _latent_frames(len(conditions.kept), temporal) * tokens] = 1.0
        return scale

    def closely(self, request: GenerationRequest, conditions: Conditions) -> float:
        """By what the hints of maps are multiplied."""
        return request.conditioning_scale * max(conditions.strengths.values())

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        """As without anything to keep to."""
        layers = len(self.denoisers["transformer"].config.vace_layers)
        grey = self._nothing_to_show(tuple(noisy.shape[2:])).to(noisy)
        return {
            "control_hidden_states": grey.expand(noisy.shape[0], *grey.shape[1:]),
            "control_hidden_states_scale": noisy.new_zeros(layers),
        }

    @torch.no_grad()
    def _nothing_to_show(self, size: tuple[int, ...]) -> Tensor:
        """(1, 2c + s², t, h, w), as the pipeline makes it."""
        if self._grey is None or self._grey[0] != size:
            frames, height, width = size
            temporal, spatial = self.pipe.vae_scale_factor_temporal, self.pipe.vae_scale_factor_spatial
            shape = (1, 3, (frames - 1) * temporal + 1, height * spatial, width * spatial)
            video, mask = torch.zeros(shape, device=self.device), torch.ones(shape, device=self.device)
            latents = self.pipe.prepare_video_latents(video, mask, [[]], None, self.device)
            self._grey = size, torch.cat([latents, self.pipe.prepare_masks(mask, [[]])], dim=1)
        return self._grey[1]

    @property
    def lora_pattern(self) -> str:
        """Wan's own blocks alone: what is learnt without maps has nothing to say to control blocks."""
        return super().lora_pattern.replace(self.family.control_blocks + "|", "")


def _latent_frames(frames: int, temporal: int) -> int:
    """That hold so many frames, whole or in part."""
    return (frames - 2) // temporal + 2 if frames > 1 else 1
