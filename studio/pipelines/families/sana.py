"""SANA-Video, which comes with three autoencoders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from studio.pipelines.families import wan
from studio.pipelines.families.video_model import Prompt, per_channel
from studio.requests.generation import GenerationRequest


class SanaVideo(wan.Wan):
    """Trained with Wan's autoencoder; clips are made with all three."""

    pipeline = "SanaVideoPipeline"
    num_frames_name = "frames"

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        # Binning would render another size and stretch the result to the one that was asked for.
        return super().arguments(request) | {"use_resolution_binning": False}

    @property
    def _autoencoder(self) -> str:
        return type(self.vae).__name__

    def denormalised(self, latents: Tensor) -> Tensor:
        if self._autoencoder == "AutoencoderKLWan":
            return super().denormalised(latents)
        if self._autoencoder == "AutoencoderKLLTX2Video":
            deviation, mean = self.vae.latents_std, self.vae.latents_mean
            return latents * per_channel(deviation, latents) + per_channel(mean, latents)
        return latents  # DC-AE's are not normalised

    def embedded(self, caption: str) -> Prompt:
        embedded, mask, _, _ = self.pipe.encode_prompt(
            caption,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=self.default_of("complex_human_instruction"),
        )
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask}

    def why_not_trained(self) -> str | None:
        known = self._autoencoder == "AutoencoderKLWan"
        return None if known else f"its autoencoder is an {self._autoencoder}; the studio knows Wan's."
