"""Planar: an autoencoder's 3D convolutions, computed as sums of 2D ones.

A convolution over kt frames is the sum of kt convolutions over planes, one for each tap in time:

    y[t] = W[0] * x[t] + W[1] * x[t+1] + … + W[kt-1] * x[t+kt-1]

The same products are added in another order, so results agree to rounding. It exists because processors without
bfloat16 in hardware run 2D convolutions several times faster than 3D ones. Planes lie channels-last, so that a frame of
a clip and a tap of a kernel are views: weights are laid out anew, not copied a second time, and nothing is stacked.

Knows torch's convolutions. Refuses to know autoencoders: how they cut a clip into chunks, what they keep from one to
the next and what they put around it happens around these layers, and stays theirs.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_planar(model: nn.Module) -> None:
    """Let a model compute its 3D convolutions in planes from now on, and its 2D ones by the same kernels."""
    for module in model.modules():
        if not isinstance(module, nn.Conv3d | nn.Conv2d) or not _is_plain(module):
            continue
        if isinstance(module, nn.Conv3d):
            module.weight.data = _taps_outermost(module.weight.data)
            computed = functools.partial(_in_planes, module)
        else:
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
            computed = functools.partial(_plane, module)
        # Where torch's `forward`, and that of every class derived from it, arrives once it has padded.
        module.__dict__["_conv_forward"] = computed


def _is_plain(conv: nn.Conv3d | nn.Conv2d) -> bool:
    zeros = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return zeros and conv.groups == 1 and set(conv.dilation) == {1}


def _taps_outermost(weight: Tensor) -> Tensor:
    """The same (out, in, kt, kh, kw), of which each tap in time lies in memory as a channels-last 2D kernel."""
    return weight.permute(2, 0, 3, 4, 1).contiguous().permute(1, 4, 0, 2, 3)


def _in_planes(conv: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.ndim == 4:
        return _in_planes(conv, x[None], weight, bias)[0]
    in_time, *in_plane = (int(each) for each in conv.padding)  # pyright: ignore[reportArgumentType]
    stride, *plane_stride = conv.stride
    if in_time:
        x = F.pad(x, (0, 0, 0, 0, in_time, in_time))
    frames = x.contiguous(memory_format=torch.channels_last_3d).transpose(1, 2)
    taps = weight.shape[2]
    length = (frames.shape[1] - taps) // stride + 1
    y: Tensor | None = None
    for tap in range(taps):
        seen = frames[:, tap : tap + stride * (length - 1) + 1 : stride].flatten(0, 1)
        plane = _convolve(seen, weight[:, :, tap], bias if y is None else None, plane_stride, in_plane)
        y = plane if y is None else y.add_(plane)
    assert y is not None
    return y.unflatten(0, (frames.shape[0], length)).transpose(1, 2)


def _plane(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.ndim == 3:
        return _plane(conv, x[None], weight, bias)[0]
    return _convolve(x, weight, bias, list(conv.stride), list(conv.padding))  # pyright: ignore[reportArgumentType]


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int]) -> Tensor:
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # conv2d() takes another kernel for small planes when there is one thread, and bits would depend on how many.
        operation: Any = torch.mkldnn_convolution
        return operation(x, weight, bias, padding, stride, [1, 1], 1)
    return F.conv2d(x, weight, bias, stride=stride, padding=padding)
