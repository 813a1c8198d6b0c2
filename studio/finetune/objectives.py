"""What is minimised: the distance of velocities, of decoded frames, or both.

    latent    || v_theta(x_s, s, text) - (e - x_0) ||^2
    pixel     (1 - w) | D(x_0^) - y |  +  w (1 - SSIM(D(x_0^), y))  +  p LPIPS(D(x_0^), y),     x_0^ = x_s - s v_theta

with D the decoder, y the clip's own frames, w the structure weight and p the perceptual one. Knows tensors and
torchmetrics. Refuses to know models and data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from studio.chopgrad import Region


class PixelLoss:
    """Distance from a clip, as a sum over frames divided by what is the same for the whole clip."""

    def __init__(
        self,
        target: Tensor,
        *,
        structure_weight: float,
        perceptual_weight: float = 0.0,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight: float = 1.0,
        share: float = 1.0,
    ) -> None:
        """Hold a clip's frames.

        Args:
            target: (B, 3, F, H, W) in -1..1.
            structure_weight: Of 1 - SSIM; the rest is L1.
            perceptual_weight: Of LPIPS, beside these two.
            perceptual: `lpips_network()`, where that weight is not 0.
            weight: Of the whole loss.
            share: Of the picture that the loss looks at, where it is one crop of several.
        """
        self.target = target
        self.structure_weight = structure_weight
        self.perceptual_weight = perceptual_weight
        self.perceptual = perceptual
        self.weight = weight
        self.count = target.numel() * share
        self.pictures = target.shape[0] * target.shape[2]
        self.pixels = target.shape[3] * target.shape[4] * share

    def __call__(self, frames: Tensor, region: Region) -> Tensor:
        frames, wanted = frames.float(), region.of(self.target)
        covered = frames.shape[3] * frames.shape[4] / self.pixels
        loss = (1 - self.structure_weight) * (frames - wanted).abs().sum() / self.count
        if self.structure_weight:
            alike: Any = structural_similarity_index_measure(
                _pictures(frames), _pictures(wanted), data_range=2.0, reduction="none"
            )
            loss = loss + self.structure_weight * (1 - alike).sum() * covered / self.pictures
        if self.perceptual is not None:
            distances = self.perceptual(_pictures(frames), _pictures(wanted))
            loss = loss + self.perceptual_weight * distances.sum() * covered / self.pictures
        return self.weight * loss


def _pictures(frames: Tensor) -> Tensor:
    """(B, C, F, H, W) -> (B F, C, H, W)."""
    return frames.transpose(1, 2).flatten(0, 1)
