"""How L is solved for and R is trained, and the figures by which either is taken or refused.

Two tasks: *enlarge*, what a bicubic filter that does not alias shrank, and *restore*, what was degraded on the way.
Half of the steps are for each scale, with the same body. R learns on clips, so that its memory learns with it.

Shapes: B clips, T pictures, H rows, W columns, s the scale; pixels 0…1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.pipelines.super_resolver import SCALES, LeastSquaresUpsampler, OneStepDetails, RecurrentRefiner
from studio.pipelines.super_resolver.upsampler import LeastSquares
from studio.pocket.super_resolver.data import Clips, Example

Task = Literal["enlarge", "restore"]
BORDER = 8
"""Enlarged pixels at a crop's edge that do not count: what is beyond a crop is unknown there and not in a film."""
SOFT = 1e-3
"""Of the Charbonnier loss √(d² + soft²): where it turns from square to absolute."""


def shrunk(large: Tensor, scale: int) -> Tensor:
    """(B, T, 3, H, W) to (B, T, 3, H/s, W/s), without aliasing and in 8 bits."""
    flat = large.flatten(0, 1)
    size = (large.shape[-2] // scale, large.shape[-1] // scale)
    small = F.interpolate(flat, size=size, mode="bicubic", antialias=True)
    return ((small * 255).round() / 255).clamp(0, 1).unflatten(0, large.shape[:2])


def pairs(
    clips: Clips,
    generator: torch.Generator,
    device: torch.device,
    *,
    task: Task,
    scale: int,
    batch: int,
    crop: int,
    length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Crops of clips, what was left of them (B, T, 3, h, w), and they themselves (B, T, 3, crop, crop).

    Mirrored, turned, played backwards and with colours exchanged at random; their first `length` pictures, or all.
    """
    small, large = [], []
    for _ in range(batch):

        def below(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=generator))

        row, side = below(len(clips.large)), clips.large.shape[2]
        y, x = (4 * below((side - crop) // 4 + 1) for _ in range(2))
        cuts = [clips.large[row, :length, y : y + crop, x : x + crop]]
        if task == "restore":
            top, left, part = y // scale, x // scale, crop // scale
            cuts.append(clips.degraded[scale][row, :length, top : top + part, left : left + part])
        colours = torch.randperm(3, generator=generator)
        mirrored, turned, backwards = below(2), below(2), below(2)
        for place, cut in enumerate(cuts):
            seen = cut.to(device)[..., colours.to(device)]
            seen = seen.flip(2) if mirrored else seen
            seen = seen.transpose(1, 2) if turned else seen
            seen = seen.flip(0) if backwards else seen
            (small if place else large).append(seen)
    wanted = _pictures(torch.stack(large))
    return (_pictures(torch.stack(small)) if small else shrunk(wanted, scale)), wanted


def _pictures(pixels: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, T, 3, H, W)."""
    return pixels.movedim(-1, 2).float().div(255)


def solve(clips: Clips, *, examples: int = 400) -> LeastSquaresUpsampler:
    """L from the first pictures of clips, on what a bicubic filter left of them."""
    upsampler = LeastSquaresUpsampler()
    for scale in SCALES:
        sums = LeastSquares(scale)
        for row in range(0, len(clips.large), max(1, len(clips.large) // examples)):
            large = _pictures(clips.large[row, None, :1])
            sums.add(shrunk(large, scale)[0], large[0])
        with torch.no_grad():
            upsampler.filters[str(scale)].copy_(sums.weights())
    return upsampler


def objective_of(
    refiner: RecurrentRefiner, upsampler: LeastSquaresUpsampler, clips: Clips, *, task: Task, batch: int, crop: int
) -> Callable[[int, torch.Generator], Tensor]:
    """The loss of a step: the share of L's error that R leaves, both as Charbonnier's.

    As a share it weighs both scales and all clips alike, as a gain in decibels does.
    """
    device = next(refiner.parameters()).device

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        scale = SCALES[step % len(SCALES)]
        small, large = pairs(clips, generator, device, task=task, scale=scale, batch=batch, crop=crop)
        with torch.no_grad():
            lacking = large - upsampler(small.flatten(0, 1), scale).unflatten(0, large.shape[:2])
        with torch.autocast(device.type, torch.bfloat16):
            added, _ = refiner(small, scale)
        return charbonnier(added.float() - lacking).mean() / charbonnier(lacking).mean()

    return loss_of


def charbonnier(error: Tensor) -> Tensor:
    """√(d² + soft²) of each value but those at the border (…, H, W)."""
    inner = error[..., BORDER:-BORDER, BORDER:-BORDER]
    return (inner.square() + SOFT**2).sqrt()


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """The body's convolutions; heads and tails, whose channels are pixels, go to AdamW."""
    return parameter.ndim == 4 and name.startswith("blocks")


@torch.no_grad()
def gains(
    upsampler: LeastSquaresUpsampler,
    refiner: RecurrentRefiner,
    held_out: Sequence[Example],
    *,
    task: Task,
    details: OneStepDetails | None = None,
) -> dict[int, tuple[float, float]]:
    """For each scale, the PSNR in dB of L and of L + R, or of L + R + D, means over held-out clips."""
    device = next(refiner.parameters()).device
    found: dict[int, tuple[float, float]] = {}
    for scale in SCALES:
        each: list[tuple[float, float]] = []
        for clip, left in held_out:
            large = _pictures(torch.from_numpy(clip)[None].to(device))
            degraded = _pictures(torch.from_numpy(left[scale])[None].to(device))
            small = degraded if task == "restore" else shrunk(large, scale)
            linear = upsampler(small.flatten(0, 1), scale).unflatten(0, large.shape[:2])
            made = linear + refiner(small, scale)[0]
            if details is not None:
                made = made + details(small, made, scale)[0]
            each.append((psnr(linear, large), psnr(made, large)))
        before, after = np.mean(each, axis=0)
        found[scale] = (float(before), float(after))
    return found


def psnr(made: Tensor, wanted: Tensor) -> float:
    """In dB, of pixels in 0…1 (…, H, W), the border left out."""
    inner = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return -10 * math.log10(max(1e-12, float((made.clamp(0, 1) - wanted)[inner].square().mean())))


class NoGain(ValueError):
    """A network that brings nothing over the linear filter; it is not to be shipped."""


def check_gain(found: Mapping[int, tuple[float, float]], task: str) -> None:
    """Raises NoGain where what is made is below L at some scale on clips that were not trained on."""
    for scale, (linear, refined) in found.items():
        if not refined > linear:
            raise NoGain(
                f"{task} at {scale}×: {refined:.2f} dB with the network, {linear:.2f} dB without; train it longer."
            )
