"""Families: what differs between diffusers' video pipelines, one entry each.

Knows the classes a checkpoint of each family may name, how each pipeline's call is spelled, where its transformer
blocks are and how its latents become the autoencoder's input. Refuses to know memory, files and requests' validity.

Shapes: latents are (1, C, T, h, w) unless a family says otherwise; T latent frames, h × w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from studio.errors import PresetError
from studio.preset import Preset
from studio.request import GenerationRequest

Branches = Literal["separate", "batched", "none"]
"""How classifier-free guidance runs: two passes a step (cond, then uncond), one pass of two (uncond first), or one."""

TOKENIZERS = frozenset(
    {
        "ByT5Tokenizer",
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "GemmaTokenizer",
        "GemmaTokenizerFast",
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "PreTrainedTokenizerFast",
        "Qwen2Tokenizer",
        "Qwen2TokenizerFast",
        "T5Tokenizer",
        "T5TokenizerFast",
        "TokenizersBackend",
    }
)
"""Tokenizer classes a checkpoint may name."""

Extra = Callable[[Any, Preset, GenerationRequest], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One diffusers pipeline class as the studio calls it."""

    transformer: str
    vae: frozenset[str]
    text_encoders: frozenset[str]
    branches: Branches
    """How the family runs guidance; at a guidance scale of 1 or less there is one branch whatever this says."""
    block_lists: tuple[str, ...]
    """The transformer's lists of blocks, in the order of a pass."""
    blocks_alternate: bool = False
    """Whether a pass takes one block from each list in turn, instead of list after list."""
    frames_argument: str = "num_frames"
    takes_negative_prompt: bool = True
    takes_guidance_scale: bool = True
    takes_max_sequence_length: bool = True
    float32_vae: bool = False
    """Whether the autoencoder is meant to run in float32 on an accelerator, as the model card says."""
    extra: Extra = lambda pipe, preset, request: {}
    """Arguments that only this family has."""
    preview_latents: Callable[[Any, torch.Tensor, GenerationRequest], torch.Tensor]
    """One latent frame of a denoised estimate, ready for `vae.decode`."""
    decode_extra: Callable[[Any, torch.Tensor], dict[str, Any]] = lambda pipe, z: {}
    """Arguments of `vae.decode` that only this family has."""
    prepare: Callable[[Any, GenerationRequest], None] = lambda pipe, request: None
    """What must be set on the pipeline before its call."""
    components: dict[str, frozenset[str]] = field(default_factory=dict)
    """Components besides the usual ones, and the classes they may name."""

    def blocks(self, transformer: nn.Module) -> tuple[nn.Module, ...]:
        """The transformer's blocks in the order of a pass."""
        lists = [list(getattr(transformer, name)) for name in self.block_lists]
        if self.blocks_alternate:
            return tuple(block for pair in zip(*lists, strict=True) for block in pair)
        return tuple(block for blocks in lists for block in blocks)

    def arguments(self, pipe: Any, preset: Preset, request: GenerationRequest) -> dict[str, Any]:
        """The pipeline's keyword arguments for a request, without generator and output."""
        call: dict[str, Any] = {
            "prompt": request.prompt,
            "height": request.height,
            "width": request.width,
            "num_inference_steps": request.num_inference_steps,
            self.frames_argument: request.num_frames,
        }
        if self.takes_guidance_scale:
            call["guidance_scale"] = request.guidance_scale
        if self.takes_negative_prompt:
            call["negative_prompt"] = request.negative_prompt
        if self.takes_max_sequence_length and preset.defaults.max_sequence_length is not None:
            call["max_sequence_length"] = preset.defaults.max_sequence_length
        return call | self.extra(pipe, preset, request)


def family_of(preset: Preset) -> Family:
    """The family of a preset's pipeline.

    Raises:
        PresetError: a pipeline class the studio does not call.
    """
    if preset.pipeline not in FAMILIES:
        raise PresetError(
            f"The studio has no pipeline {preset.pipeline}.",
            field="pipeline",
            value=preset.pipeline,
            way_out=f"Known pipelines: {', '.join(FAMILIES)}.",
        )
    return FAMILIES[preset.pipeline]


def _middle(latents: torch.Tensor) -> torch.Tensor:
    """The middle latent frame of (1, C, T, h, w), as (1, C, 1, h, w)."""
    middle = latents.shape[2] // 2
    return latents[:, :, middle : middle + 1]


def _wan_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    """z · std + mean, the inverse of how the transformer's latents were normalised."""
    z = _middle(estimate)
    mean, std = (_per_channel(values, z) for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std))
    return z * std + mean


def _per_channel(values: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)


FAMILIES: dict[str, Family] = {
    "WanPipeline": Family(
        transformer="WanTransformer3DModel",
        vae=frozenset({"AutoencoderKLWan"}),
        text_encoders=frozenset({"UMT5EncoderModel"}),
        branches="separate",
        block_lists=("blocks",),
        float32_vae=True,
        preview_latents=_wan_latents,
    ),
}
"""By diffusers' pipeline class."""
