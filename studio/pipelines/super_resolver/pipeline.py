"""L + R as a diffusers pipeline: pictures in, larger pictures out, what is remembered handed on.

There are two R: the refiner, for clips that are merely small, and the restorer, for those that were degraded.

Knows both summands. Refuses to know scenes and parts: whoever calls says when the past is to be forgotten.

Shapes: B clips, T pictures, H rows, W columns, s the scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from studio.pipelines.super_resolver.refiner import GRID, RecurrentRefiner, RefinerState
from studio.pipelines.super_resolver.upsampler import LeastSquaresUpsampler


class SuperResolverPipeline(DiffusionPipeline):
    """L and R, from a folder that `save_pretrained` wrote."""

    model_cpu_offload_seq = "upsampler->refiner->restorer"

    upsampler: LeastSquaresUpsampler
    refiner: RecurrentRefiner
    restorer: RecurrentRefiner

    def __init__(self, upsampler: LeastSquaresUpsampler, refiner: RecurrentRefiner, restorer: RecurrentRefiner) -> None:
        super().__init__()
        self.register_modules(upsampler=upsampler, refiner=refiner, restorer=restorer)

    @torch.no_grad()
    def __call__(
        self, pictures: Tensor, scale: int, state: RefinerState = None, *, restore: bool = False
    ) -> tuple[Tensor, RefinerState]:
        """Enlarge pictures that follow one another.

        Args:
            pictures: (B, T, 3, H, W) in 0…1.
            scale: 2 or 4.
            state: What came back with the pictures before them; None where a scene begins.
            restore: Whether they are degraded: blurred, noisy, or marked by a codec.

        Returns:
            (B, T, 3, sH, sW), not clamped, and the state for the pictures after them.
        """
        height, width = pictures.shape[-2:]
        padded = _padded(pictures, GRID // scale)
        base = self.upsampler(padded.flatten(0, 1), scale).unflatten(0, pictures.shape[:2])
        added, state = (self.restorer if restore else self.refiner)(padded, scale, state)
        return (base + added)[..., : scale * height, : scale * width], state


def _padded(pictures: Tensor, multiple_of: int) -> Tensor:
    """With rows and columns repeated at the bottom and the right, up to the next multiples."""
    height, width = pictures.shape[-2:]
    below, beside = -height % multiple_of, -width % multiple_of
    if not below and not beside:
        return pictures
    return F.pad(pictures.flatten(0, 1), (0, beside, 0, below), mode="replicate").unflatten(0, pictures.shape[:2])
