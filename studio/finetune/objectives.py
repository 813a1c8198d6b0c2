"""What is minimised: the distance of velocities, of decoded frames, or both.

    latent    || v_theta(x_s, s, text) - (e - x_0) ||^2
    pixel     (1 - w) | D(x_0^) - y |  +  w (1 - SSIM(D(x_0^), y)),     x_0^ = x_s - s v_theta

with D the decoder, y the clip's own frames, and w the structure weight. Knows tensors and torchmetrics. Refuses to know
models and data.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from studio.chopgrad import Region


class PixelLoss:
    """L1 and structure against a clip, as a sum over frames divided by what is the same for the whole clip."""

    def __init__(self, target: Tensor, *, structure_weight: float, weight: float = 1.0, share: float = 1.0) -> None:
        """Hold a clip's frames.

        Args:
            target: (B, 3, F, H, W) in -1..1.
            structure_weight: Of 1 - SSIM; the rest is L1.
            weight: Of the whole loss.
            share: Of the picture that the loss looks at, where it is one crop of several.
        """
        self.target = target
        self.structure_weight = structure_weight
        self.weight = weight
        self.count = target.numel() * share
        self.pictures = target.shape[0] * target.shape[2]
        self.pixels = target.shape[3] * target.shape[4] * share

    def __call__(self, frames: Tensor, region: Region) -> Tensor:
        wanted = region.of(self.target)
        loss = (1 - self.structure_weight) * (frames - wanted).abs().sum() / self.count
        if self.structure_weight:
            alike: Any = structural_similarity_index_measure(
                _pictures(frames), _pictures(wanted), data_range=2.0, reduction="none"
            )
            covered = frames.shape[3] * frames.shape[4] / self.pixels
            loss = loss + self.structure_weight * (1 - alike).sum() * covered / self.pictures
        return self.weight * loss


def _pictures(frames: Tensor) -> Tensor:
    """(B, C, F, H, W) -> (B F, C, H, W)."""
    return frames.transpose(1, 2).flatten(0, 1)
