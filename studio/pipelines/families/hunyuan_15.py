"""HunyuanVideo 1.5: room for a first picture beside the latents, which is empty here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.pipelines.families.video_model import Prompt, VideoModel
from studio.requests.generation import GenerationRequest


class HunyuanVideo15(VideoModel):
    """Guidance is a component of the pipeline, not an argument of its call."""

    pipeline = "HunyuanVideo15Pipeline"

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        theirs = ("guidance_scale", "max_sequence_length")
        return {name: value for name, value in super().arguments(request).items() if name not in theirs}

    def prepare(self, request: GenerationRequest) -> None:
        # Below 1 the guider would push away from the prompt.
        self.pipe.guider = self.pipe.guider.new(guidance_scale=max(request.guidance_scale, 1.0))

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
