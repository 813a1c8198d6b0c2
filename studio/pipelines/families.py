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
from studio.requests.generation import GenerationRequest

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
    always_tiles: bool = False
    """Whether diffusers decodes this family in tiles only."""
    extra: Extra = lambda pipe, preset, request: {}
    """Arguments that only this family has."""
    preview_latents: Callable[[Any, torch.Tensor, GenerationRequest], torch.Tensor]
    """One latent frame of a denoised estimate, ready for `vae.decode`."""
    preview_decode: Callable[[Any, torch.Tensor], torch.Tensor] = lambda vae, z: type(vae).decode(vae, z).sample
    """Pixels of that latent frame. The class's own `decode`, because the instance's is watched during a run."""
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


def per_channel(values: Any, like: torch.Tensor) -> torch.Tensor:
    """An autoencoder's statistics, to be laid over latents (B, c, t, h, w)."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)


# Each of these inverts how the family normalises its latents, as its pipeline does before it decodes.


def _scaled_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    return _middle(estimate) / pipe.vae.config.scaling_factor


def _wan_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    z, config = _middle(estimate), pipe.vae.config
    return z * per_channel(config.latents_std, z) + per_channel(config.latents_mean, z)


def _ltx_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    """LTX-Video denoises a sequence of tokens (1, T · h · w, C)."""
    z = pipe._unpack_latents(
        estimate,
        (request.num_frames - 1) // pipe.vae_temporal_compression_ratio + 1,
        request.height // pipe.vae_spatial_compression_ratio,
        request.width // pipe.vae_spatial_compression_ratio,
        pipe.transformer_spatial_patch_size,
        pipe.transformer_temporal_patch_size,
    )
    vae = pipe.vae
    return pipe._denormalize_latents(_middle(z), vae.latents_mean, vae.latents_std, vae.config.scaling_factor)


def _cogvideox_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    """CogVideoX denoises (1, T, C, h, w)."""
    return _middle(estimate.permute(0, 2, 1, 3, 4)) / pipe.vae_scaling_factor_image


def _latte_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    """Latte's autoencoder knows images only: (1, C, h, w)."""
    return _scaled_latents(pipe, estimate, request)[:, :, 0]


def _mochi_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    z, config = _middle(estimate), pipe.vae.config
    if config.latents_mean is None or config.latents_std is None:
        return z / config.scaling_factor
    return z * per_channel(config.latents_std, z) / config.scaling_factor + per_channel(config.latents_mean, z)


def _sana_latents(pipe: Any, estimate: torch.Tensor, request: GenerationRequest) -> torch.Tensor:
    """SANA-Video comes with three autoencoders; DC-AE's latents are not normalised."""
    kind = type(pipe.vae).__name__
    if kind == "AutoencoderKLWan":
        return _wan_latents(pipe, estimate, request)
    z = _middle(estimate)
    if kind == "AutoencoderKLLTX2Video":
        return z * per_channel(pipe.vae.latents_std, z) + per_channel(pipe.vae.latents_mean, z)
    return z


def _ltx_decode(vae: Any, z: torch.Tensor) -> torch.Tensor:
    """From 0.9.1 on the autoencoder finishes the denoising itself and wants to know from where."""
    timestep = torch.full((1,), LTX_DECODE_TIMESTEP, device=z.device, dtype=z.dtype)
    return type(vae).decode(vae, z, timestep if vae.config.timestep_conditioning else None).sample


def _allegro_decode(vae: Any, z: torch.Tensor) -> torch.Tensor:
    """One latent frame is shorter than the tiles, without which diffusers does not decode; so past them."""
    return vae.decoder(vae.post_quant_conv(z[:, :, 0])[:, :, None])


def _ltx_extra(pipe: Any, preset: Preset, request: GenerationRequest) -> dict[str, Any]:
    return {
        # The rate it was trained at shapes the positions of the tokens; `request.fps` is for showing only.
        "frame_rate": preset.defaults.fps,
        # Ignored by the autoencoder of 0.9.0; as the model cards of the later ones say.
        "decode_timestep": LTX_DECODE_TIMESTEP,
        "decode_noise_scale": LTX_DECODE_NOISE_SCALE,
    }


def _guider(pipe: Any, request: GenerationRequest) -> None:
    """HunyuanVideo 1.5 takes its guidance as a component. Below 1 the guider would push away from the prompt."""
    pipe.guider = pipe.guider.new(guidance_scale=max(request.guidance_scale, 1.0))


LTX_DECODE_TIMESTEP = 0.05
LTX_DECODE_NOISE_SCALE = 0.025
# Cleaning captions needs beautifulsoup4, and is silently left out without it; a clip must not hang on that.
_NO_CLEANING = {"clean_caption": False}

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
    "LTXPipeline": Family(
        transformer="LTXVideoTransformer3DModel",
        vae=frozenset({"AutoencoderKLLTXVideo"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        extra=_ltx_extra,
        preview_latents=_ltx_latents,
        preview_decode=_ltx_decode,
    ),
    "CogVideoXPipeline": Family(
        transformer="CogVideoXTransformer3DModel",
        vae=frozenset({"AutoencoderKLCogVideoX"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        # The authors pair dynamic guidance with the DPM sampler (5b) and leave it off with DDIM (2b).
        extra=lambda pipe, preset, request: {
            "use_dynamic_cfg": type(pipe.scheduler).__name__ == "CogVideoXDPMScheduler"
        },
        preview_latents=_cogvideox_latents,
    ),
    "LattePipeline": Family(
        transformer="LatteTransformer3DModel",
        vae=frozenset({"AutoencoderKL"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks", "temporal_transformer_blocks"),
        blocks_alternate=True,
        frames_argument="video_length",
        takes_max_sequence_length=False,
        extra=lambda pipe, preset, request: _NO_CLEANING,
        preview_latents=_latte_latents,
    ),
    "HunyuanVideoPipeline": Family(
        transformer="HunyuanVideoTransformer3DModel",
        vae=frozenset({"AutoencoderKLHunyuanVideo"}),
        text_encoders=frozenset({"LlamaModel", "CLIPTextModel"}),
        # Guidance is distilled into the model: the scale is an input, and there is no second pass to negate with.
        branches="none",
        block_lists=("transformer_blocks", "single_transformer_blocks"),
        takes_negative_prompt=False,
        preview_latents=_scaled_latents,
    ),
    "HunyuanVideo15Pipeline": Family(
        transformer="HunyuanVideo15Transformer3DModel",
        vae=frozenset({"AutoencoderKLHunyuanVideo15"}),
        text_encoders=frozenset({"Qwen2_5_VLTextModel", "T5EncoderModel"}),
        branches="separate",
        block_lists=("transformer_blocks",),
        takes_guidance_scale=False,
        takes_max_sequence_length=False,
        prepare=_guider,
        preview_latents=_scaled_latents,
        components={"guider": frozenset({"ClassifierFreeGuidance"})},
    ),
    "MochiPipeline": Family(
        transformer="MochiTransformer3DModel",
        vae=frozenset({"AutoencoderKLMochi"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        preview_latents=_mochi_latents,
    ),
    "AllegroPipeline": Family(
        transformer="AllegroTransformer3DModel",
        vae=frozenset({"AutoencoderKLAllegro"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        float32_vae=True,
        always_tiles=True,
        extra=lambda pipe, preset, request: _NO_CLEANING,
        preview_latents=_scaled_latents,
        preview_decode=_allegro_decode,
    ),
    "SanaVideoPipeline": Family(
        transformer="SanaVideoTransformer3DModel",
        vae=frozenset({"AutoencoderKLWan", "AutoencoderDC", "AutoencoderKLLTX2Video"}),
        text_encoders=frozenset({"Gemma2Model"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        frames_argument="frames",
        float32_vae=True,
        # Binning would render another size and stretch the result to the one that was asked for.
        extra=lambda pipe, preset, request: {"use_resolution_binning": False},
        preview_latents=_sana_latents,
    ),
}
"""By diffusers' pipeline class."""
