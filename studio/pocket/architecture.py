"""The pocket model's configurations: tiny sizes of the real diffusers and transformers classes.

Knows the constructors and the sizes. Refuses to know weights, data, training and where anything is stored.
`PocketSizes` is the whole choice; `POCKET` is what ships, `SPECK` is the smallest that still has every part, for tests.

Shapes: a clip is (B, 3, F, H, W) with F = 4k+1 and H, W multiples of 16; its latent is (B, Z, 1+(F-1)/4, H/8, W/8); the
denoiser reads it in patches of 1 x 2 x 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
    from transformers import UMT5EncoderModel

MAX_SEQUENCE_LENGTH = 64
"""Tokens a prompt is padded to. Wan's cross-attention has no mask, so training and generation must use the same."""
NUM_FRAMES, HEIGHT, WIDTH, FPS = 17, 128, 128, 12.0
"""The clip the pocket model was trained on."""
NUM_INFERENCE_STEPS, GUIDANCE_SCALE, FLOW_SHIFT = 30, 4.0, 3.0
"""Defaults of its preset."""


@dataclass(frozen=True, kw_only=True)
class PocketSizes:
    """Every number that shapes the weights."""

    vocabulary: int = 512
    """Tokens the tokenizer knows."""
    text_width: int = 192
    text_layers: int = 2
    latent_channels: int = 16
    """Z."""
    encoder_width: int = 16
    """Channels of the encoder's first level; the two below have twice and four times as many."""
    decoder_width: int = 24
    width: int = 192
    """Channels of the denoiser."""
    layers: int = 8
    head_width: int = 64


POCKET = PocketSizes()
SPECK = PocketSizes(
    vocabulary=320,
    text_width=32,
    text_layers=1,
    latent_channels=8,
    encoder_width=8,
    decoder_width=8,
    width=48,
    layers=2,
    head_width=24,
)


def build_autoencoder(sizes: PocketSizes) -> AutoencoderKLWan:
    """A causal video autoencoder, 8 x 8 x 4, that works on patches of 2 x 2 pixels."""
    from diffusers import AutoencoderKLWan

    z = sizes.latent_channels
    return AutoencoderKLWan(
        base_dim=sizes.encoder_width,
        decoder_base_dim=sizes.decoder_width,
        z_dim=z,
        dim_mult=[1, 2, 4],
        num_res_blocks=2,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * z,
        latents_std=[1.0] * z,
        # Wan 2.2's averaging shortcuts were tried: a step costs more, and for the same time they reconstruct worse.
        is_residual=False,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


def build_text_encoder(sizes: PocketSizes) -> UMT5EncoderModel:
    from transformers import UMT5Config, UMT5EncoderModel

    heads = max(1, sizes.text_width // 32)
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=sizes.vocabulary,
            d_model=sizes.text_width,
            d_kv=sizes.text_width // heads,
            d_ff=2 * sizes.text_width,
            num_layers=sizes.text_layers,
            num_heads=heads,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=128,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def build_denoiser(sizes: PocketSizes) -> WanTransformer3DModel:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=sizes.width // sizes.head_width,
        attention_head_dim=sizes.head_width,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        text_dim=sizes.text_width,
        freq_dim=256,
        ffn_dim=4 * sizes.width,
        num_layers=sizes.layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=1e-6,
        rope_max_seq_len=256,
    )


def build_scheduler(flow_shift: float = FLOW_SHIFT) -> UniPCMultistepScheduler:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=flow_shift
    )


def latent_shape(sizes: PocketSizes, *, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
    """(Z, t, h, w) of a clip."""
    return sizes.latent_channels, 1 + (num_frames - 1) // 4, height // 8, width // 8


def with_vocabulary(sizes: PocketSizes, vocabulary: int) -> PocketSizes:
    """The same sizes for a tokenizer that found fewer words than it was allowed; a multiple of 32 for fast kernels."""
    return replace(sizes, vocabulary=32 * math.ceil(vocabulary / 32))
