"""Tiny checkpoints of models that enlarge, with random weights: the real classes, a few thousand parameters each.

As `tiny_checkpoints`, for the other table of families: `save(name, folder)` writes one as it is published, and
`preset_for(name, folder)` is the preset that offers it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTX2Video,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    Kandinsky6SRLatentUpscalerBank,
    Kandinsky6SRPipeline,
    Kandinsky6SRTransformer3DModel,
    Kandinsky6SRVAE,
    LTX2LatentUpsamplePipeline,
    PiflowScheduler,
)
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel
from safetensors.torch import save_file

from studio.pipelines.swiftvr import EmptyPrompt, ReAE, SwiftVRPipeline
from studio.preset import EnlargerPreset
from support.tiny_checkpoints import TEXT_WIDTH, enliven, t5_encoder, t5_tokenizer, wan_transformer


def kandinsky() -> Kandinsky6SRPipeline:
    """As the distilled one: ten predictions a step, and latent upscalers for both scales."""
    return Kandinsky6SRPipeline(
        transformer=Kandinsky6SRTransformer3DModel(
            in_visual_dim=4,
            out_visual_dim=40,
            time_dim=8,
            model_dim=24,
            ff_dim=32,
            num_visual_blocks=2,
            axes_dims=(4, 4, 4),
            tile_sizes=((32, 32), (32, 64)),
        ),
        vae=Kandinsky6SRVAE(
            latent_channels=4,
            encoder_block_out_channels=(4, 8, 16),
            decoder_block_out_channels=(8, 16, 32),
            layers_per_block=1,
            temporal_compression_start_level=0,
        ),
        scheduler=PiflowScheduler(num_policy_substeps=4),
        latent_upscaler=Kandinsky6SRLatentUpscalerBank(
            in_channels=4,
            stage_channels=(16, 8, 8),
            num_pre_blocks=1,
            num_mid_blocks=1,
            num_post_blocks=1,
            num_x2_adapter_blocks=1,
        ),
    )


def swiftvr() -> SwiftVRPipeline:
    vae = ReAE(latent_channels=4, encoder_channels=6, decoder_channels=(8, 8, 6, 6))
    with torch.no_grad():
        for name, tensor in vae.named_parameters():
            tensor.mul_(2.0 if name.endswith("weight") else 1.0)  # or every picture would be grey
        vae.decoder[-1].bias.fill_(0.5)
    return SwiftVRPipeline(
        transformer=wan_transformer(channels=4),
        vae=vae,
        prompt=EmptyPrompt(torch.randn(1, 5, TEXT_WIDTH)),
    )


def dove() -> CogVideoXPipeline:
    """As CogVideoX 1.5: latents in pairs, rotary positions."""
    return CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=4,
            text_embed_dim=TEXT_WIDTH,
            num_layers=2,
            patch_size=2,
            patch_size_t=2,
            patch_bias=False,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            max_text_seq_length=16,
            use_rotary_positional_embeddings=True,
        ),
        scheduler=CogVideoXDPMScheduler(
            prediction_type="v_prediction",
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=1.0,
        ),
    )


def ltx() -> LTX2LatentUpsamplePipeline:
    return LTX2LatentUpsamplePipeline(
        vae=AutoencoderKLLTX2Video(
            latent_channels=8,
            block_out_channels=(8, 16, 32, 64),
            decoder_block_out_channels=(8, 16, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        ),
        latent_upsampler=LTX2LatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1),
    )


def write_swiftvr(pipe: Any, folder: Path) -> None:
    """Two files of tensors beside the transformer's folder, and no index."""
    pipe.transformer.save_pretrained(folder / "transformer")
    save_file(pipe.vae.state_dict(), folder / "reae.safetensors")
    save_file(pipe.prompt.state_dict(), folder / "prompt_embedding.safetensors")


def write_ltx(pipe: Any, folder: Path) -> None:
    """Two folders of a repository whose index, if there is one, is another pipeline's."""
    pipe.vae.save_pretrained(folder / "vae")
    pipe.latent_upsampler.save_pretrained(folder / "latent_upsampler")


def write_pipeline(pipe: Any, folder: Path) -> None:
    """With an index, as diffusers writes it."""
    pipe.save_pretrained(folder, safe_serialization=True)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A checkpoint to be made."""

    build: Callable[[], Any]
    write: Callable[[Any, Path], None] = write_pipeline
    pipeline: str
    steps: int = 1


TINY: dict[str, Tiny] = {
    "kandinsky": Tiny(build=kandinsky, pipeline="Kandinsky6SRPipeline", steps=2),
    "swiftvr": Tiny(build=swiftvr, write=write_swiftvr, pipeline="SwiftVRPipeline"),
    "dove": Tiny(build=dove, pipeline="CogVideoXPipeline"),
    "ltx": Tiny(build=ltx, write=write_ltx, pipeline="LTX2LatentUpsamplePipeline"),
}


def save(name: str, folder: Path) -> Path:
    """Write a checkpoint below `folder`."""
    tiny = TINY[name]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(20)
        pipe = tiny.build()
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                enliven(component)
        tiny.write(pipe, folder / name)
    return folder / name


def preset_for(name: str, folder: Path) -> EnlargerPreset:
    """The preset that offers the checkpoint saved in `folder`."""
    tiny = TINY[name]
    return EnlargerPreset.model_validate(
        {
            "name": f"tiny-{name}",
            "title": f"Tiny {name}",
            "summary": "Random weights.",
            "tasks": ["super-resolution"],
            "pipeline": tiny.pipeline,
            "torch_dtype": "float32",
            "weights": {"folder": str(folder), "licence": "Apache-2.0"},
            "scales": [2] if name == "ltx" else [2, 4],
            "memory": {"parameters": 3, "first_parameters": 1, "vae_parameters": 1, "source": "Tiny."},
            "window": {"height": 64, "width": 64, "num_frames": 33, "num_inference_steps": tiny.steps},
        }
    )
