"""L + R + g · D as a diffusers pipeline: pictures in, larger pictures out, what is remembered handed on.

There are two R: the refiner, for clips that are merely small, and the restorer, for those that were degraded; D belongs
to the second.

Knows all summands. Refuses to know scenes and parts: whoever calls says when the past is to be forgotten.

Shapes: B clips, T pictures, H rows, W columns, s the scale.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from studio.pipelines.super_resolver.blocks import Memories
from studio.pipelines.super_resolver.details import FOLD, OneStepDetails
from studio.pipelines.super_resolver.refiner import GRID, RecurrentRefiner
from studio.pipelines.super_resolver.upsampler import LeastSquaresUpsampler

SuperResolverState: TypeAlias = tuple[Memories, Memories] | None
"""R's, then D's, which is empty where D was not asked; None before the first picture."""


class SuperResolverPipeline(DiffusionPipeline):
    """L, R and, where there is one, D; from a folder that `save_pretrained` wrote."""

    model_cpu_offload_seq = "upsampler->refiner->restorer->details"
    _optional_components = ["details"]  # noqa: RUF012 (diffusers' own way to say so)

    upsampler: LeastSquaresUpsampler
    refiner: RecurrentRefiner
    restorer: RecurrentRefiner
    details: OneStepDetails | None

    def __init__(
        self,
        upsampler: LeastSquaresUpsampler,
        refiner: RecurrentRefiner,
        restorer: RecurrentRefiner,
        details: OneStepDetails | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(upsampler=upsampler, refiner=refiner, restorer=restorer, details=details)

    @torch.no_grad()
    def __call__(
        self,
        pictures: Tensor,
        scale: int,
        state: SuperResolverState = None,
        *,
        restore: bool = False,
        detail: float = 0.0,
    ) -> tuple[Tensor, SuperResolverState]:
        """Enlarge pictures that follow one another.

        Args:
            pictures: (B, T, 3, H, W) in 0…1.
            scale: 2 or 4.
            state: What came back with the pictures before them; None where a scene begins.
            restore: Whether they are degraded: blurred, noisy, or marked by a codec.
            detail: g in 0…1, the weight of D; 0 is L + R alone, exactly.

        Returns:
            (B, T, 3, sH, sW), not clamped, and the state for the pictures after them.

        Raises:
            ValueError: detail is asked for without `restore`, or there is no D.
        """
        if detail and not (restore and self.details is not None):
            raise ValueError(f"detail is {detail}, but D only adds to what is restored, and only where there is one")
        height, width = pictures.shape[-2:]
        padded = _padded(pictures, FOLD * GRID // scale if detail else GRID // scale)
        of_refiner, of_details = state if state is not None else (None, None)
        base = self.upsampler(padded.flatten(0, 1), scale).unflatten(0, pictures.shape[:2])
        added, of_refiner = (self.restorer if restore else self.refiner)(padded, scale, of_refiner)
        enlarged = base + added
        of_details = of_details or None
        if detail and self.details is not None:
            invented, of_details = self.details(padded, enlarged, scale, of_details)
            enlarged = enlarged + detail * invented
        return enlarged[..., : scale * height, : scale * width], (of_refiner or (), of_details or ())


def _padded(pictures: Tensor, multiple_of: int) -> Tensor:
    """With rows and columns repeated at the bottom and the right, up to the next multiples."""
    height, width = pictures.shape[-2:]
    below, beside = -height % multiple_of, -width % multiple_of
    if not below and not beside:
        return pictures
    return F.pad(pictures.flatten(0, 1), (0, beside, 0, below), mode="replicate").unflatten(0, pictures.shape[:2])
