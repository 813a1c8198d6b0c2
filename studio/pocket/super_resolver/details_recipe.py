"""How D is trained: what latents carry, then the step between them, then pixels, by ChopGrad, on clips.

    autoencoder   encoder and decoder learn to carry what L + R lacks through noisy latents
    latent        the denoiser learns z₀ from z₁: of the large clip's latent from that of L + R
    pixels        denoiser and decoder learn together what the clip should look like; the encoder stays as it is

In the last stage a mean error alone would blur, so an adversary weighs in. Gradients go back through whole clips by
`chopgrad`, a few pictures alive at a time.

Shapes: B clips, T pictures, H rows, W columns, s the scale; pixels 0…1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from studio.chopgrad import Backprop, Chunk, PictureByPicture, Region, decode_backward
from studio.pipelines.super_resolver import SCALES, LeastSquaresUpsampler, OneStepDetails, RecurrentRefiner
from studio.pocket.super_resolver.adversary import Adversary
from studio.pocket.super_resolver.data import Clips
from studio.pocket.super_resolver.recipe import charbonnier, pairs

NOISE = 0.05
"""Deviation of what is added to latents while the decoder learns, so that near misses of the denoiser are forgiven."""
TIGHT = 1e-3
"""Weight of the latents' mean square, which keeps them from outgrowing the noise."""
ADVERSARIAL = 0.03
"""Weight of the adversary beside the share of L + R's error that is left. Ten times as much, and it had the better of D
within a hundred steps."""
AT_ONCE = 5
"""Pictures through which gradients go back together."""
Loss = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What D adds to, and the clips it learns on."""

    upsampler: LeastSquaresUpsampler
    restorer: RecurrentRefiner
    clips: Clips
    batch: int
    crop: int
    """Rows and columns of what is enlarged to."""
    length: int | None = None
    """Pictures of a clip that are used; None for all."""

    def example(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
        """Small pictures, L + R of them, the large ones, and the scale, which alternates."""
        scale = SCALES[step % len(SCALES)]
        device = next(self.restorer.parameters()).device
        drawn = {"task": "restore", "scale": scale, "batch": self.batch, "crop": self.crop}
        small, large = pairs(self.clips, generator, device, length=self.length, **drawn)
        return small, self.enlarged(small, scale), large, scale

    @torch.no_grad()
    def enlarged(self, small: Tensor, scale: int) -> Tensor:
        """L + R, (B, T, 3, H, W)."""
        base = self.upsampler(small.flatten(0, 1), scale).unflatten(0, small.shape[:2])
        with torch.autocast(small.device.type, torch.bfloat16):
            added, _ = self.restorer(small, scale)
        return base + added.float()


def autoencoder_objective(details: OneStepDetails, given: Given) -> Loss:
    """The share of L + R's error that is left where the decoder is given the large clip's own latents."""

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        small, enlarged, large, scale = given.example(step, generator)
        with torch.autocast(small.device.type, torch.bfloat16):
            latents = details.encode(large)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            added, _ = details.decode(latents + NOISE * noise, small, scale)
        return _share(enlarged + added.float(), enlarged, large) + TIGHT * latents.float().square().mean()

    return loss_of


def latent_objective(details: OneStepDetails, given: Given) -> Loss:
    """The share of the distance between both latents that the step leaves."""

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        _, enlarged, large, _ = given.example(step, generator)
        with torch.autocast(large.device.type, torch.bfloat16):
            with torch.no_grad():
                known, wanted = details.encode(enlarged).float(), details.encode(large).float()
            denoised, _ = details.denoise(known)
        return (denoised.float() - wanted).square().mean() / (known - wanted).square().mean()

    return loss_of


def pixel_objective(
    trainee: PixelStage, given: Given, *, adversarial: float = ADVERSARIAL, how: Backprop | None = None
) -> Loss:
    """The share of L + R's error that is left, and what the adversary says; its own loss beside it."""

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        small, enlarged, large, scale = given.example(step, generator)
        of_enlarged = charbonnier(enlarged - large).sum()
        target, base = large.transpose(1, 2), enlarged.transpose(1, 2)
        batch, length = large.shape[:2]

        def frame_loss(frames: Tensor, region: Region) -> Tensor:
            real, beside = region.of(target), region.of(base)
            made = beside + frames.float()
            judged = tuple(each.transpose(1, 2).flatten(0, 1) for each in (made, real, beside))
            weight = len(judged[0]) / (batch * length)  # so that all regions add up to the mean over the clip
            with torch.autocast(large.device.type, torch.bfloat16):
                fooled = trainee.adversary.fooled(judged[0], judged[2]).float()
                learns = trainee.adversary.learns(*judged).float()
            left = charbonnier(made - real).sum() / of_enlarged
            return left + weight * (adversarial * fooled + learns)

        walker = DetailedPictures(trainee.details, enlarged, scale)
        decoded = decode_backward(walker, small.transpose(1, 2), frame_loss, how or Backprop(mode="exact"))
        # Backward has been: what is handed on is only the number.
        return decoded.loss.requires_grad_()

    return loss_of


class PixelStage(nn.Module):
    """D and its adversary, trained side by side."""

    def __init__(self, details: OneStepDetails) -> None:
        super().__init__()
        self.details = details
        self.adversary = Adversary()
        self.details.encoder.requires_grad_(False)


class DetailedPictures(PictureByPicture):
    """D, a few pictures at a time: “latents” are the small pictures (B, 3, F, h, w), frames what is added to L + R."""

    def __init__(self, details: OneStepDetails, enlarged: Tensor, scale: int) -> None:
        super().__init__(details, at_once=AT_ONCE)
        self._enlarged, self._scale = enlarged, scale

    def step(self, latents: Tensor, state: Any, chunk: Chunk) -> tuple[Tensor, Any]:
        enlarged = self._enlarged[:, chunk.start : chunk.stop]
        with torch.autocast(latents.device.type, torch.bfloat16):
            added, state = self.vae(latents.transpose(1, 2), enlarged, self._scale, state)
        return added.transpose(1, 2), state


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """The bodies' convolutions; those whose channels are pixels or latents go to AdamW, as the adversary does."""
    return parameter.ndim == 4 and ".blocks." in name and "adversary" not in name


def _share(made: Tensor, enlarged: Tensor, large: Tensor) -> Tensor:
    return charbonnier(made - large).mean() / charbonnier(enlarged - large).mean()
