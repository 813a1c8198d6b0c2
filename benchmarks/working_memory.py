"""Working memory of the real models, counted on the meta device: nothing is computed, nothing is downloaded.

    python benchmarks/working_memory.py

Each model is built at its published size with diffusers' own class on torch's meta device, is run once at the preset's
native size, and every tensor alive is counted after every operation. The figures are lower bounds: the libraries'
scratch memory and the allocator's fragmentation come on top. They stand in the presets as `decode_bytes`,
`decode_clip_bytes` and `denoise_bytes`. Attention is taken for fused, as it is on an accelerator. The transformers of
Mochi and HunyuanVideo 1.5 ask for values while they run, so theirs cannot be counted this way.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CLIP_BYTES = 12
"""The decoded clip itself, float32 in three colours; counted apart from the decoder's working memory."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every tensor made inside that is still alive."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return output


WAN_22_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
LTX_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "decoder_block_out_channels": (128, 256, 512, 512),
    "layers_per_block": (4, 3, 3, 3, 4),
    "decoder_layers_per_block": (4, 3, 3, 3, 4),
}
IMAGE_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}

DECODERS: tuple[tuple[str, str, dict[str, Any], tuple[int, ...], tuple[int, int, int]], ...] = (
    # title, class, sizes, latents, (frames, height, width)
    ("Wan 2.1", "AutoencoderKLWan", {}, (1, 16, 4, 60, 104), (13, 480, 832)),
    ("Wan 2.2 TI2V", "AutoencoderKLWan", WAN_22_VAE, (1, 48, 4, 44, 80), (13, 704, 1280)),
    ("LTX-Video", "AutoencoderKLLTXVideo", LTX_VAE, (1, 128, 11, 16, 22), (81, 512, 704)),
    ("LTX-Video", "AutoencoderKLLTXVideo", LTX_VAE, (1, 128, 21, 16, 22), (161, 512, 704)),
    ("CogVideoX", "AutoencoderKLCogVideoX", {}, (1, 16, 13, 60, 90), (49, 480, 720)),
    ("Latte", "AutoencoderKL", IMAGE_VAE, (14, 4, 64, 64), (14, 512, 512)),
    ("HunyuanVideo", "AutoencoderKLHunyuanVideo", {}, (1, 16, 33, 90, 160), (129, 720, 1280)),
    ("HunyuanVideo 1.5", "AutoencoderKLHunyuanVideo15", {}, (1, 32, 31, 30, 53), (121, 480, 848)),
    ("Mochi", "AutoencoderKLMochi", {}, (1, 12, 14, 60, 106), (79, 480, 848)),
)


def _wan(heads: int, ffn: int, channels: int = 16) -> dict[str, Any]:
    return {
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "ffn_dim": ffn,
        "in_channels": channels,
        "out_channels": channels,
    }


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _inputs(latents: tuple[int, ...], text: tuple[int, int], **more: Any) -> dict[str, Any]:
    """The arguments of a pass; guidance in one batch of two shows in the latents' first dimension."""
    return {
        "hidden_states": _empty(*latents),
        "encoder_hidden_states": _empty(latents[0], *text),
        "timestep": _empty(latents[0], dtype=torch.int64),
    } | more


LATTE: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "sample_size": 64,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "caption_channels": 4096,
}
T5 = (226, 4096)

TRANSFORMERS: tuple[tuple[str, str, dict[str, Any], dict[str, Any], tuple[int, int, int]], ...] = (
    # title, class, sizes (two layers: they take turns), arguments, (frames, height, width)
    ("Wan 1.3B", "Wan", _wan(12, 8960), _inputs((1, 16, 21, 60, 104), (512, 4096)), (81, 480, 832)),
    ("Wan 14B", "Wan", _wan(40, 13824), _inputs((1, 16, 21, 60, 104), (512, 4096)), (81, 480, 832)),
    (
        "Wan 2.2 TI2V",
        "Wan",
        _wan(24, 14336, 48),
        # a timestep for each token
        _inputs((1, 48, 31, 44, 80), (512, 4096)) | {"timestep": _empty(1, 31 * 22 * 40)},
        (121, 704, 1280),
    ),
    (
        "LTX-Video",
        "LTXVideo",
        {},
        _inputs((2, 21 * 16 * 22, 128), (128, 4096))
        | {"encoder_attention_mask": _empty(2, 128), "num_frames": 21, "height": 16, "width": 22},
        (161, 512, 704),
    ),
    ("CogVideoX 2b", "CogVideoX", {}, _inputs((2, 13, 16, 60, 90), T5), (49, 480, 720)),
    ("CogVideoX 5b", "CogVideoX", {"num_attention_heads": 48}, _inputs((2, 13, 16, 60, 90), T5), (49, 480, 720)),
    ("Latte", "Latte", LATTE, _inputs((2, 4, 16, 64, 64), (120, 4096)), (16, 512, 512)),
    (
        "HunyuanVideo",
        "HunyuanVideo",
        {"num_single_layers": 2},
        _inputs((1, 16, 33, 90, 160), (256, 4096))
        | {
            "encoder_attention_mask": _empty(1, 256),
            "pooled_projections": _empty(1, 768),
            "guidance": _empty(1),
        },
        (129, 720, 1280),
    ),
    (
        "Allegro",
        "Allegro",
        {},
        {
            "hidden_states": _empty(2, 4, 22, 90, 160),
            "encoder_hidden_states": _empty(2, 1, 512, 4096),
            "timestep": _empty(2, dtype=torch.int64),
            "encoder_attention_mask": _empty(2, 512),
        },
        (88, 720, 1280),
    ),
    (
        "SANA-Video",
        "SanaVideo",
        {},
        _inputs((2, 16, 21, 60, 104), (300, 2304)) | {"encoder_attention_mask": _empty(2, 300)},
        (81, 480, 832),
    ),
)


def _fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """On the meta device torch would spell attention out, scores and all."""
    return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)


def count_decoders() -> None:
    print(f"{'float32 decoding':20s} {'clip':>14s} {'GB':>7s} {'bytes/pixel':>12s} {'bytes/pixel/frame':>18s}")
    for title, kind, sizes, latents, (frames, height, width) in DECODERS:
        with torch.device("meta"):
            vae = getattr(diffusers, kind)(**sizes).eval()
        with torch.no_grad(), LiveBytes() as live:
            vae.decode(torch.empty(latents, device="meta"))
        pixels = height * width
        working = live.peak - CLIP_BYTES * pixels * frames
        print(
            f"{title:20s} {f'{frames}×{height}×{width}':>14s} {live.peak / 1e9:7.2f} {working / pixels:12.0f} "
            f"{working / pixels / frames:18.1f}"
        )


def count_transformers() -> None:
    torch.nn.functional.scaled_dot_product_attention = _fused_attention
    print(f"{'bfloat16 denoising':20s} {'clip':>14s} {'GB':>7s} {'bytes/pixel/frame':>18s}")
    for title, kind, sizes, arguments, (frames, height, width) in TRANSFORMERS:
        with torch.device("meta"):
            model = getattr(diffusers, f"{kind}Transformer3DModel")(**({"num_layers": 2} | sizes))
        with torch.no_grad(), LiveBytes() as live:
            model.to(torch.bfloat16).eval()(**arguments)
        print(
            f"{title:20s} {f'{frames}×{height}×{width}':>14s} {live.peak / 1e9:7.2f} "
            f"{live.peak / frames / height / width:18.1f}"
        )


if __name__ == "__main__":
    diffusers.utils.logging.set_verbosity_error()
    count_decoders()
    count_transformers()
