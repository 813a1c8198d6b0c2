"""HunyuanVideo: guidance is an input of the denoiser, and at a scale of 1 it says what it would without any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.pipelines.families.video_model import Prompt, VideoModel


class HunyuanVideo(VideoModel):
    """Two text encoders: the words of one, and the other's summary of them."""

    pipeline = "HunyuanVideoPipeline"

    def embedded(self, caption: str) -> Prompt:
        embedded, pooled, mask = self.pipe.encode_prompt(caption, max_sequence_length=self.max_sequence_length)
        # The pipeline, too, makes a number of the mask.
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask.float(), "pooled_projections": pooled}

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        return {"guidance": torch.full((len(noisy),), 1000.0, dtype=noisy.dtype, device=noisy.device)}
