"""Tiny autoencoders of the real classes, one for each way to decode, with latents to put through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders import (
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
)
from torch import Tensor, nn

WAN: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}


def wan_21() -> nn.Module:
    return AutoencoderKLWan(**WAN)


def wan_22() -> nn.Module:
    changes = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "decoder_base_dim": 8}
    return AutoencoderKLWan(**(WAN | changes))


def qwen_image() -> nn.Module:
    return AutoencoderKLQwenImage(**WAN)


def cogvideox() -> nn.Module:
    return AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )


def hunyuan_video() -> nn.Module:
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
    )
    vae.use_framewise_decoding = True
    return vae


def hunyuan_video_in_squares() -> nn.Module:
    vae: Any = hunyuan_video()
    vae.enable_tiling(
        tile_sample_min_height=32,
        tile_sample_min_width=32,
        tile_sample_stride_height=24,
        tile_sample_stride_width=16,
    )
    return vae


def ltx() -> nn.Module:
    vae = AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        decoder_spatio_temporal_scaling=(True, True, True, False),
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
    )
    vae.use_framewise_decoding = True
    return vae


def allegro() -> nn.Module:
    vae: Any = AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2, sample_size=32
    )
    # Tiles small enough that several of them make a tiny clip, in time and in space.
    vae.kernel, vae.stride = (12, 32, 32), (8, 16, 24)
    vae.enable_tiling()
    return vae


@dataclass(frozen=True)
class Kind:
    make: Callable[[], nn.Module]
    latents: tuple[int, int, int, int]
    """Channels, latent frames, height and width: enough for four chunks or more."""


KINDS = {
    "wan 2.1": Kind(wan_21, (4, 5, 4, 3)),
    "wan 2.2": Kind(wan_22, (4, 5, 3, 4)),
    "qwen image": Kind(qwen_image, (4, 4, 4, 3)),
    "cogvideox odd": Kind(cogvideox, (4, 7, 3, 2)),
    "cogvideox even": Kind(cogvideox, (4, 6, 2, 3)),
    "hunyuan video": Kind(hunyuan_video, (4, 8, 2, 3)),
    "hunyuan video in squares": Kind(hunyuan_video_in_squares, (4, 7, 5, 2)),
    "ltx": Kind(ltx, (4, 6, 1, 2)),
    "allegro": Kind(allegro, (4, 7, 6, 4)),
}
CAUSAL = ("wan 2.1", "wan 2.2", "qwen image", "cogvideox odd", "cogvideox even")


def tiny(name: str) -> tuple[nn.Module, Tensor]:
    """An autoencoder with its own random weights, in `eval()`, and latents for it."""
    torch.manual_seed(0)
    vae = KINDS[name].make().eval()
    return vae, torch.randn(1, *KINDS[name].latents)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """What `vae.decode` gives, (B, C, F, H, W) for all of them."""
    frames = vae.decode(latents).sample
    return frames.transpose(1, 2) if type(vae).__name__ == "AutoencoderKLAllegro" else frames
