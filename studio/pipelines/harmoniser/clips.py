"""The harmoniser over the pictures of a clip, a few at a time.

Knows arrays in eight bits and how they become tensors. Refuses to know files. Outside the zone the source's own bytes
are copied: they never become floats.

Shapes: F pictures of H rows and W columns, multiples of 8; uint8 RGB, but alpha and zone, which are float32 in 0…1.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.machine import hardware
from studio.pipelines.harmoniser.harmoniser import Harmoniser, composed, given_of
from studio.pipelines.super_resolver.blocks import Memories

AT_ONCE = 8
"""Pictures that are made together."""
LOOKS = 256
"""Rows and columns that the network looks at where a crop is larger."""


def harmonised(
    network: Harmoniser,
    source: np.ndarray,
    paste: np.ndarray,
    alpha: np.ndarray,
    zone: np.ndarray,
    around: np.ndarray,
    *,
    strength: float = 1.0,
    state: Memories | None = None,
) -> tuple[np.ndarray, Memories | None]:
    """The source with what was pasted into it harmonised.

    Args:
        source: (F, H, W, 3).
        paste: The same with the paste over it, (F, H, W, 3).
        alpha: The paste's, (F, H, W).
        zone: As `zone_of` gives it, (F, H, W).
        around: The whole source pictures made small, (F, 32, 32, 3).
        strength: 0…1, by which gains and offsets are multiplied; at 0 the paste comes out as it is.
        state: What came back with the pictures before them.
        on_pictures: Called with the number of pictures made so far.

    Returns:
        (F, H, W, 3), of which every pixel outside the zone is the source's, and the state for the pictures after them.
    """
    made = paste.copy()
    made[zone == 0] = source[zone == 0]
    device = next(network.parameters()).device
    # Half as many bits are enough for gains and offsets, and twice as fast where the hardware multiplies them.
    half = torch.autocast(device.type, torch.bfloat16, enabled=hardware.measure().bf16)
    for start in range(0, len(source), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        colours = [_pictures(array[part], device) for array in (source, paste, around)]
        planes = [torch.from_numpy(array[part]).to(device)[None, :, None] for array in (alpha, zone)]
        with torch.no_grad(), half:
            given = given_of(*colours[:2], *planes)
            change, state = network.change(given, colours[2], state)
        lit = composed(given, strength * change)
        bytes_ = lit[0].clamp(0, 1).mul(255).round().byte().movedim(1, -1).cpu().numpy()
        inside = zone[part] > 0
        made[part][inside] = bytes_[inside]
    return made, state


def _pictures(pixels: np.ndarray, device: torch.device) -> Tensor:
    """(F, H, W, 3) uint8 to (1, F, 3, H, W) in 0…1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).movedim(-1, 1)[None].float().div(255)


class HarmonisedCrops:
    """The harmoniser over crops that follow a paste, one picture at a time, each of whatever size it has.

    The network looks at no more than `LOOKS` rows and columns: a larger crop is shrunk for it, and the gains and
    offsets that it says are stretched over the crop, so that neither the paste nor the source loses detail.
    """

    def __init__(self, network: Harmoniser, *, strength: float = 1.0) -> None:
        self._network, self._strength = network, strength
        self._state: Memories | None = None
        self._half = hardware.measure().bf16

    def __call__(
        self, source: np.ndarray, paste: np.ndarray, alpha: np.ndarray, zone: np.ndarray, around: np.ndarray
    ) -> np.ndarray:
        """Arguments and result as `harmonised` has them, without F."""
        device = next(self._network.parameters()).device
        planes = [alpha[..., None], zone[..., None]]
        given = _plane(np.concatenate([source / 255.0, paste / 255.0, *planes], axis=2, dtype=np.float32), device)
        height, width = source.shape[:2]
        factor = min(1.0, LOOKS / max(height, width))
        small_height, small_width = round(height * factor), round(width * factor)
        small = given
        if factor < 1:
            shrunk = [_shrunk(array, small_height, small_width) for array in (source, paste, alpha, zone)]
            colours, others = [each / 255.0 for each in shrunk[:2]], [each[..., None] for each in shrunk[2:]]
            small = _plane(np.concatenate([*colours, *others], axis=2, dtype=np.float32), device)
        # What is remembered is remembered in place, so that all crops of a clip are looked at in one size.
        framed = F.pad(small[0], (0, LOOKS - small_width, 0, LOOKS - small_height), mode="replicate")[None]
        seen = _plane(around.astype(np.float32) / 255, device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            change, self._state = self._network.change(framed, seen, self._state)
        change = change[0, :, :, :small_height, :small_width]
        if factor < 1:
            change = F.interpolate(change, size=(height, width), mode="bilinear", align_corners=False)
        lit = composed(given, self._strength * change[None])
        made = lit[0, 0].clamp(0, 1).mul(255).round().byte().movedim(0, -1).cpu().numpy()
        return np.where(zone[..., None] > 0, made, source)


def _plane(pixels: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, c) float32 to (1, 1, c, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).movedim(-1, 0)[None, None]


def _shrunk(array: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)
