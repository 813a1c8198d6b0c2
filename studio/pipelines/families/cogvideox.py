"""CogVideoX 1.0, which denoises (B, t, c, h, w)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from studio.pipelines.families.diffusion import Diffusion
from studio.pipelines.families.video_model import Prompt
from studio.requests.generation import GenerationRequest


class CogVideoX(Diffusion):
    """The 2b with learnt positions, the 5b with rotary ones."""

    pipeline = "CogVideoXPipeline"

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        # The authors pair dynamic guidance with the DPM sampler (5b) and leave it off with DDIM (2b).
        dynamic = type(self.pipe.scheduler).__name__ == "CogVideoXDPMScheduler"
        return super().arguments(request) | {"use_dynamic_cfg": dynamic}

    def why_not_trained(self) -> str | None:
        if self.pipe.transformer.config.patch_size_t is not None:
            return "it is of version 1.5, which denoises latent frames in groups and fills the first one up."
        return super().why_not_trained()

    def embedded(self, caption: str) -> Prompt:
        embedded, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embedded}

    def packed(self, latents: Tensor) -> Tensor:
        return latents.transpose(1, 2)

    def unpacked(self, latents: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return latents.transpose(1, 2)

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        if not self.pipe.transformer.config.use_rotary_positional_embeddings:
            return {}
        return {"image_rotary_emb": self.rotary(*self.sides(noisy), noisy.shape[2])}
