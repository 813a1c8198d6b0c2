"""The denoiser's forward pass written for fast training: the parameters of `WanTransformer3DModel`, fewer kernels.

Knows the parameters of a Wan transformer, or of one grown by control blocks (`WanVACETransformer3DModel`), and what its
forward computes. Refuses to know losses and data. What differs is only the order of the work: queries, keys and values
come from one product; the text's keys and values of all layers from another; and each head's channels are reordered
(the same way in queries and keys, so that their products stay) until the rotary turn acts on two halves instead of on
neighbours. `block.compile()` does the rest.

Shapes: B samples, N latent tokens, L text tokens, D channels, h heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def velocity(
    transformer: nn.Module,
    noisy: Tensor,
    timestep: Tensor,
    words: Tensor,
    block: Any = None,
    *,
    control: Tensor | None = None,
    control_scale: Tensor | float = 1.0,
) -> Tensor:
    """What `transformer(noisy, timestep, words)` returns.

    Args:
        block: `run_block`, or that compiled.
        control: What a grown transformer's control blocks read, (B, C, t, h, w).
        control_scale: By what their hints are multiplied; one number, or one a sample (B, 1, 1).
    """
    model: Any = transformer
    block = block or run_block
    dtype = torch.get_autocast_dtype(noisy.device.type) if torch.is_autocast_enabled(noisy.device.type) else noisy.dtype
    heads = model.config.num_attention_heads
    cos, sin = _halved_rotation(model, noisy, dtype)
    x = model.patch_embedding(noisy).flatten(2).transpose(1, 2)
    time, time_six, text, _ = model.condition_embedder(timestep, words, None)
    six = time_six.unflatten(1, (6, -1)).float()
    text = text.to(dtype)
    order = _halves_first(model.config.attention_head_dim, heads, noisy.device)
    x = x.to(dtype)

    def run(layer: Any, x: Tensor, text_key_value: tuple[Tensor, Tensor]) -> Tensor:
        return block(x, six, *text_key_value, cos, sin, *_weights(layer, order, dtype), heads)

    hints: dict[int, Tensor] = {}
    if control is not None:
        c = model.vace_patch_embedding(control).flatten(2).transpose(1, 2).to(dtype)
        of_control = _text_keys_values(model.vace_blocks, text, heads, dtype)
        for at, layer, text_key_value in zip(model.config.vace_layers, model.vace_blocks, of_control, strict=True):
            if layer.proj_in is not None:
                c = layer.proj_in(c) + x
            c = run(layer, c, text_key_value)
            hints[at] = layer.proj_out(c) * control_scale
    keys_values = _text_keys_values(model.blocks, text, heads, dtype)
    for at, (layer, text_key_value) in enumerate(zip(model.blocks, keys_values, strict=True)):
        x = run(layer, x, text_key_value)
        if at in hints:
            x = x + hints[at].to(dtype)
    shift, scale = (model.scale_shift_table + time.float().unsqueeze(1)).chunk(2, dim=1)
    x = (_layer_norm(x.float()) * (1 + scale) + shift).to(dtype)
    patches = model.proj_out(x)
    batch, _, frames, height, width = noisy.shape
    patches = patches.reshape(batch, frames, height // 2, width // 2, 1, 2, 2, -1)
    return patches.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(batch, -1, frames, height, width)


def run_block(
    x: Tensor,
    six: Tensor,
    text_key: Tensor,
    text_value: Tensor,
    cos: Tensor,
    sin: Tensor,
    table: Tensor,
    qkv: Tensor,
    qkv_bias: Tensor,
    gain_q: Tensor,
    gain_k: Tensor,
    out: Tensor,
    out_bias: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    cross_q: Tensor,
    cross_q_bias: Tensor,
    cross_gain: Tensor,
    cross_out: Tensor,
    cross_out_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    down: Tensor,
    down_bias: Tensor,
    heads: int,
) -> Tensor:
    """One layer, (B, N, D) to (B, N, D); text keys and values are (B, h, L, D/h)."""
    dtype = x.dtype
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (table + six).chunk(6, dim=1)
    h = (_layer_norm(x.float()) * (1 + scale) + shift).to(dtype)
    q, k, v = F.linear(h, qkv, qkv_bias).chunk(3, dim=-1)
    q = _turn(_split(_rms(q, gain_q), heads), cos, sin)
    k = _turn(_split(_rms(k, gain_k), heads), cos, sin)
    h = F.linear(_attend(q, k, _split(v, heads)), out, out_bias)
    x = (x.float() + h.float() * gate).to(dtype)
    h = (_layer_norm(x.float()) * norm + norm_bias).to(dtype)
    q = _split(_rms(F.linear(h, cross_q, cross_q_bias), cross_gain), heads)
    x = x + F.linear(_attend(q, text_key, text_value), cross_out, cross_out_bias)
    h = (_layer_norm(x.float()) * (1 + mlp_scale) + mlp_shift).to(dtype)
    h = F.linear(F.gelu(F.linear(h, up, up_bias), approximate="tanh"), down, down_bias)
    return (x.float() + h.float() * mlp_gate).to(dtype)


def _weights(layer: Any, order: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    own, cross = layer.attn1, layer.attn2
    qkv = torch.cat([own.to_q.weight[order], own.to_k.weight[order], own.to_v.weight])
    qkv_bias = torch.cat([own.to_q.bias[order], own.to_k.bias[order], own.to_v.bias])
    mlp_up, mlp_down = layer.ffn.net[0].proj, layer.ffn.net[2]
    halves = (
        qkv, qkv_bias, own.norm_q.weight[order], own.norm_k.weight[order], own.to_out[0].weight, own.to_out[0].bias,
        layer.norm2.weight, layer.norm2.bias, cross.to_q.weight, cross.to_q.bias, cross.norm_q.weight,
        cross.to_out[0].weight, cross.to_out[0].bias, mlp_up.weight, mlp_up.bias, mlp_down.weight, mlp_down.bias,
    )  # fmt: skip
    return layer.scale_shift_table, *(part.to(dtype) for part in halves)


def _text_keys_values(layers: Any, text: Tensor, heads: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    attentions = [layer.attn2 for layer in layers]
    weight = torch.cat([w.weight for a in attentions for w in (a.to_k, a.to_v)]).to(dtype)
    bias = torch.cat([w.bias for a in attentions for w in (a.to_k, a.to_v)]).to(dtype)
    parts = F.linear(text, weight, bias).chunk(2 * len(attentions), dim=-1)
    return [
        (_split(_rms(k, a.norm_k.weight.to(dtype)), heads), _split(v, heads))
        for a, k, v in zip(attentions, parts[0::2], parts[1::2], strict=True)
    ]


def _halves_first(head_width: int, heads: int, device: torch.device) -> Tensor:
    """Channel order (D,) that puts each head's even channels before its odd ones."""
    within = torch.cat([torch.arange(0, head_width, 2), torch.arange(1, head_width, 2)])
    return (torch.arange(heads)[:, None] * head_width + within).flatten().to(device)


def _halved_rotation(model: Any, noisy: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, 1, N, D/h), each half-width written twice; the first half's sine is negative."""
    cos, sin = model.rope(noisy)
    cos, sin = cos[0, :, 0, 0::2], sin[0, :, 0, 1::2]
    return torch.cat([cos, cos], dim=-1)[None, None].to(dtype), torch.cat([-sin, sin], dim=-1)[None, None].to(dtype)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    # Compiled for a processor, the product that is written out fuses with its neighbours.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores.float().softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


def _rms(x: Tensor, gain: Tensor, eps: float = 1e-6) -> Tensor:
    wide = x.float()
    return (wide * (wide.square().mean(dim=-1, keepdim=True) + eps).rsqrt()).to(x.dtype) * gain


def _layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)
