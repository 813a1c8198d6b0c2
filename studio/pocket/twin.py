"""The exact 2D twin of Wan's video autoencoder: the same parameters, every 3D convolution written as a 2D one.

Knows the parameters of an `AutoencoderKLWan` and what its chunked `encode` and `decode` compute with them. Refuses to
know losses, data and devices. It exists because 2D convolutions in bf16 and channels-last are tens of times faster on
a CPU than the 3D ones, and because one call over all frames beats a loop over chunks on every device.

How it stays exact (the chunk loop of diffusers, written without the loop):
- a causal convolution over time with taps (t-2, t-1, t) is one 2D convolution over three frames stacked in channels;
- for a single frame the two past taps only ever see zeros, so the newest tap alone is a 2D convolution;
- halving time keeps frame 0 as it is and takes windows (2i-2, 2i-1, 2i) for i >= 1;
- doubling time keeps frame 0 as it is and doubles frames 1.. with zeros, not frame 0, before them.

Shapes: B clips, T frames, C channels, H rows, W columns. Inside, a `FrameStack` is (B*T, C, H, W) with its B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class FrameStack:
    """Frames of several clips, one after the other."""

    frames: Tensor
    """(B*T, C, H, W)."""
    clips: int
    """B."""

    @property
    def length(self) -> int:
        return self.frames.shape[0] // self.clips

    def like(self, frames: Tensor) -> FrameStack:
        return FrameStack(frames=frames, clips=self.clips)

    def by_clip(self) -> Tensor:
        """(B, T, C, H, W)."""
        return self.frames.unflatten(0, (self.clips, self.length))


def encode(vae: nn.Module, video: Tensor) -> Tensor:
    """Mean and log-variance of the latent: (B, 2Z, 1+(T-1)/4, H/8, W/8) for a video (B, 3, T, H, W) in -1..1."""
    model: Any = vae
    clips, _, length, _, _ = video.shape
    frames = video.transpose(1, 2).flatten(0, 1)
    stack = FrameStack(frames=_patchify(frames, model.config.patch_size or 1), clips=clips)
    encoder = model.encoder
    stack = _causal(encoder.conv_in, stack)
    for block in encoder.down_blocks:
        stack = _down(block, stack) if hasattr(block, "avg_shortcut") else _plain(block, stack)
    stack = _middle(encoder.mid_block, stack)
    stack = _causal(encoder.conv_out, stack.like(_norm_silu(encoder.norm_out, stack.frames)))
    moments = _pointwise(model.quant_conv, stack.frames)
    assert length % 4 == 1, f"a clip has 4k+1 frames, not {length}"
    return moments.unflatten(0, (clips, -1)).transpose(1, 2)


def decode(vae: nn.Module, latent: Tensor) -> Tensor:
    """Video (B, 3, 1+4(t-1), 8h, 8w) for a latent (B, Z, t, h, w). Unclamped, unlike `vae.decode`."""
    model: Any = vae
    clips = latent.shape[0]
    stack = FrameStack(frames=latent.transpose(1, 2).flatten(0, 1), clips=clips)
    stack = stack.like(_pointwise(model.post_quant_conv, stack.frames))
    decoder = model.decoder
    stack = _causal(decoder.conv_in, stack)
    stack = _middle(decoder.mid_block, stack)
    for block in decoder.up_blocks:
        stack = _up(block, stack)
    stack = _causal(decoder.conv_out, stack.like(_norm_silu(decoder.norm_out, stack.frames)))
    frames = _unpatchify(stack.frames, model.config.patch_size or 1)
    return frames.unflatten(0, (clips, -1)).transpose(1, 2)


def _dtype(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: int = 0) -> Tensor:
    dtype = _dtype(x)
    weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.to(dtype)
    return F.conv2d(x.to(dtype), weight, bias, stride=stride, padding=padding)


def _pointwise(conv: Any, x: Tensor) -> Tensor:
    return _conv(x, conv.weight[:, :, 0], conv.bias)


def _causal(conv: Any, stack: FrameStack) -> FrameStack:
    """`WanCausalConv3d` with a kernel 3 in time and k in space, zeros before the first frame."""
    padding = conv.weight.shape[-1] // 2
    if stack.length == 1:
        return stack.like(_conv(stack.frames, conv.weight[:, :, -1], conv.bias, padding=padding))
    window = _past_in_channels(stack.by_clip().to(_dtype(stack.frames)))
    return stack.like(_conv(window, conv.weight.transpose(1, 2).flatten(1, 2), conv.bias, padding=padding))


def _past_in_channels(x: Tensor) -> Tensor:
    """(B*T, 3C, H, W) of the frames t-2, t-1 and t, for x (B, T, C, H, W)."""
    zeros = torch.zeros_like(x[:, :1])
    before = torch.cat([zeros, x[:, :-1]], dim=1)
    before_that = torch.cat([zeros, before[:, :-1]], dim=1)
    return torch.cat([before_that, before, x], dim=2).flatten(0, 1)


def _norm_silu(norm: Any, x: Tensor) -> Tensor:
    return F.silu(_norm(norm, x))


def _norm(norm: Any, x: Tensor) -> Tensor:
    """`WanRMS_norm` over channels."""
    wide = x.float()
    inverse = wide.square().sum(dim=1, keepdim=True).clamp_min(1e-24).rsqrt()
    return (wide * (inverse * norm.scale) * norm.gamma.float().reshape(1, -1, 1, 1)).to(x.dtype)


def _residual(block: Any, stack: FrameStack) -> FrameStack:
    shortcut = (
        stack.frames if isinstance(block.conv_shortcut, nn.Identity) else _pointwise(block.conv_shortcut, stack.frames)
    )
    inner = _causal(block.conv1, stack.like(_norm_silu(block.norm1, stack.frames)))
    inner = _causal(block.conv2, stack.like(_norm_silu(block.norm2, inner.frames)))
    return stack.like(inner.frames + shortcut)


def _attention(block: Any, stack: FrameStack) -> FrameStack:
    x = _norm(block.norm, stack.frames)
    qkv = _conv(x, block.to_qkv.weight, block.to_qkv.bias).flatten(2).transpose(1, 2)
    q, k, v = qkv.unsqueeze(1).chunk(3, dim=-1)
    attended = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).unflatten(2, x.shape[-2:])
    return stack.like(_conv(attended, block.proj.weight, block.proj.bias) + stack.frames)


def _middle(block: Any, stack: FrameStack) -> FrameStack:
    stack = _residual(block.resnets[0], stack)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        stack = _residual(resnet, _attention(attention, stack))
    return stack


def _plain(block: Any, stack: FrameStack) -> FrameStack:
    """A member of the flat list of a Wan 2.1 encoder."""
    if hasattr(block, "conv1"):
        return _residual(block, stack)
    return _halve(block, stack) if hasattr(block, "resample") else _attention(block, stack)


def _down(block: Any, stack: FrameStack) -> FrameStack:
    """`WanResidualDownBlock`: two residual blocks and a halving beside an average of what came in."""
    shortcut = _average_down(block.avg_shortcut, stack)
    for resnet in block.resnets:
        stack = _residual(resnet, stack)
    if block.downsampler is not None:
        stack = _halve(block.downsampler, stack)
    return stack.like(stack.frames + shortcut)


def _up(block: Any, stack: FrameStack) -> FrameStack:
    entry = stack
    for resnet in block.resnets:
        stack = _residual(resnet, stack)
    upsamplers = getattr(block, "upsamplers", None)
    upsampler = upsamplers[0] if upsamplers is not None else getattr(block, "upsampler", None)
    if upsampler is not None:
        stack = _double(upsampler, stack)
    shortcut = getattr(block, "avg_shortcut", None)
    return stack if shortcut is None else stack.like(stack.frames + _duplicate_up(shortcut, entry))


def _halve(resample: Any, stack: FrameStack) -> FrameStack:
    conv = resample.resample[1]
    frames = _conv(F.pad(stack.frames, (0, 1, 0, 1)), conv.weight, conv.bias, stride=2)
    stack = stack.like(frames)
    if resample.mode == "downsample2d" or stack.length == 1:
        return stack
    x = stack.by_clip()
    window = torch.cat([x[:, 0:-2:2], x[:, 1:-1:2], x[:, 2::2]], dim=2)
    clips, kept = window.shape[:2]
    conv = resample.time_conv
    later = _conv(window.flatten(0, 1), conv.weight.transpose(1, 2).flatten(1, 2), conv.bias)
    return stack.like(torch.cat([x[:, :1], later.unflatten(0, (clips, kept))], dim=1).flatten(0, 1))


def _double(resample: Any, stack: FrameStack) -> FrameStack:
    if resample.mode == "upsample3d" and stack.length > 1:
        x = stack.by_clip()
        conv = resample.time_conv
        window = _past_in_channels(x[:, 1:])
        pairs = _conv(window, conv.weight.transpose(1, 2).flatten(1, 2), conv.bias)
        later = pairs.unflatten(1, (2, x.shape[2])).unflatten(0, (stack.clips, -1)).flatten(1, 2)
        stack = stack.like(torch.cat([x[:, :1], later], dim=1).flatten(0, 1))
    conv = resample.resample[1]
    # Doubling by a broadcast fuses with what comes before it; interpolate() would be a kernel of its own.
    return stack.like(_conv(_nearest(stack.frames), conv.weight, conv.bias, padding=1))


def _nearest(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _average_down(shortcut: Any, stack: FrameStack) -> Tensor:
    """`AvgDown3D`: with a time factor, zeros stand before frame 0."""
    x = stack.by_clip()
    t, s = shortcut.factor_t, shortcut.factor_s
    if t == 2:
        x = torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)
    b, length, c, h, w = x.shape
    x = x.reshape(b, length // t, t, c, h // s, s, w // s, s).permute(0, 1, 3, 2, 5, 7, 4, 6)
    return x.reshape(-1, shortcut.out_channels, shortcut.group_size, h // s, w // s).mean(dim=2)


def _duplicate_up(shortcut: Any, stack: FrameStack) -> Tensor:
    """`DupUp3D`: with a time factor, frame 0 becomes one frame and the others two."""
    x = stack.frames.repeat_interleave(shortcut.repeats, dim=1)
    t, s, out = shortcut.factor_t, shortcut.factor_s, shortcut.out_channels
    h, w = x.shape[-2:]
    x = x.reshape(stack.clips, stack.length, out, t, s, s, h, w).permute(0, 1, 3, 2, 6, 4, 7, 5)
    x = x.reshape(stack.clips, stack.length * t, out, h * s, w * s)
    return x[:, t - 1 :].flatten(0, 1)


def _patchify(x: Tensor, p: int) -> Tensor:
    """(N, C*p*p, H/p, W/p), column offset before row offset as `patchify` of diffusers orders them."""
    if p == 1:
        return x
    n, c, h, w = x.shape
    return x.reshape(n, c, h // p, p, w // p, p).permute(0, 1, 5, 3, 2, 4).reshape(n, c * p * p, h // p, w // p)


def _unpatchify(x: Tensor, p: int) -> Tensor:
    if p == 1:
        return x
    n, c, h, w = x.shape
    c //= p * p
    return x.reshape(n, c, p, p, h, w).permute(0, 1, 4, 3, 5, 2).reshape(n, c, h * p, w * p)
