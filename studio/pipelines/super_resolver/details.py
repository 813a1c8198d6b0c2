"""D: one step of latent diffusion that adds to L + R the detail which degraded pictures have lost.

    z₁ = encode(L + R)        the latent of what is known, taken as the noisy one at a fixed noise level
    z₀ = z₁ − v(z₁)           one step, as DOVE (arXiv 2505.16239) and SwiftVR take it
    D  = decode(z₀, given)    what is to be added, by a causal decoder that also sees the small picture

The decoder works on R's grid, the latents lie on one of half its rows and columns. Denoiser and decoder remember as
their blocks do. What cannot be known is made up here, so D is weighed by the user: 0 is the regression alone. The
decoder's last convolutions begin at zero, as R's do, and so does the denoiser's.

Shapes: B clips, T pictures, c channels of a latent, h rows and w columns of the grid (both even); enlarged pictures
(B, T, 3, 4h, 4w), latents (B, T, c, h/2, w/2).
"""

from __future__ import annotations

from itertools import chain
from typing import cast

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from studio.pipelines.super_resolver.blocks import Memories, RememberingBlocks
from studio.pipelines.super_resolver.refiner import GRID

FOLD = 2
"""Places of the grid along a side that a latent pixel covers."""


class OneStepDetails(ModelMixin, ConfigMixin):
    """An encoder of enlarged pictures, a denoiser of one step, and a decoder that remembers."""

    @register_to_config
    def __init__(
        self,
        channels: int = 48,
        latent_channels: int = 16,
        denoiser_channels: int = 64,
        num_denoiser_blocks: int = 4,
        num_decoder_blocks: int = 3,
        scales: tuple[int, ...] = (2, 4),
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(GRID),
            nn.Conv2d(3 * GRID**2, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.PixelUnshuffle(FOLD),
            nn.Conv2d(channels * FOLD**2, latent_channels, 1),
        )
        for layer in self.encoder:
            if isinstance(layer, nn.Conv2d):  # as loud behind as before: latents drown in no noise from the start
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                nn.init.zeros_(cast(Tensor, layer.bias))
        self.denoiser = _Denoiser(latent_channels, denoiser_channels, num_denoiser_blocks)
        self.decoder = _Decoder(latent_channels, channels, num_decoder_blocks, scales)

    @property
    def memory(self) -> int:
        """Pictures before one on which it depends."""
        return self.denoiser.blocks.memory + self.decoder.blocks.memory

    @property
    def reach(self) -> int:
        """Places of the grid to each side on which a place depends, at most: a whole number of latent pixels."""
        of_latents = 2 + self.denoiser.blocks.reach + 1
        return FOLD * (of_latents + 2) + _up(2 + self.decoder.blocks.reach, FOLD)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, T, 3, 4h, 4w) in 0…1 to latents (B, T, c, h/2, w/2)."""
        return self.encoder(pictures.flatten(0, 1) - 0.5).unflatten(0, pictures.shape[:2])

    def denoise(self, latents: Tensor, before: Memories | None = None) -> tuple[Tensor, Memories]:
        """z₀ of z₁, both (B, T, c, h/2, w/2), and what the denoiser remembers."""
        velocity, after = self.denoiser(latents.flatten(0, 1), latents.shape[1], before)
        return latents - velocity.unflatten(0, latents.shape[:2]), after

    def decode(
        self, latents: Tensor, pictures: Tensor, scale: int, before: Memories | None = None
    ) -> tuple[Tensor, Memories]:
        """What is to be added, (B, T, 3, 4h, 4w), for latents and small pictures, and what the decoder remembers."""
        folded = F.pixel_unshuffle(pictures.flatten(0, 1), GRID // scale)
        added, after = self.decoder(latents.flatten(0, 1), folded, scale, latents.shape[1], before)
        return added.unflatten(0, latents.shape[:2]), after

    def forward(
        self, pictures: Tensor, enlarged: Tensor, scale: int, state: Memories | None = None
    ) -> tuple[Tensor, Memories]:
        """What is to be added to L + R, for pictures that follow one another.

        Args:
            pictures: The small ones (B, T, 3, 4h/s, 4w/s) in 0…1.
            enlarged: L + R of them, (B, T, 3, 4h, 4w).
            scale: 2 or 4.
            state: What came back with the pictures before them, the denoiser's and then the decoder's; None before the
                first.

        Returns:
            (B, T, 3, 4h, 4w), and the state for the pictures after them.
        """
        return self.from_latents(self.encode(enlarged), pictures, scale, state)

    def from_latents(
        self, latents: Tensor, pictures: Tensor, scale: int, state: Memories | None = None
    ) -> tuple[Tensor, Memories]:
        """As `forward`, from z₁ on: what its training goes back through."""
        count = self.denoiser.blocks.memory
        denoised, of_denoiser = self.denoise(latents, state[:count] if state is not None else None)
        added, of_decoder = self.decode(denoised, pictures, scale, state[count:] if state is not None else None)
        return added, tuple(chain(of_denoiser, of_decoder))


class _Denoiser(nn.Module):
    """v of z₁, on the latents' own grid."""

    def __init__(self, latent_channels: int, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(latent_channels, channels, 3, padding=1)
        self.blocks = RememberingBlocks(channels, num_blocks)
        self.tail = nn.Conv2d(channels, latent_channels, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latents: Tensor, length: int, before: Memories | None) -> tuple[Tensor, Memories]:
        x, after = self.blocks(self.head(latents), length, iter(before) if before is not None else None)
        return self.tail(x), tuple(after)


class _Decoder(nn.Module):
    """Latents, unfolded, and features of the small picture add up; then blocks that remember."""

    def __init__(self, latent_channels: int, channels: int, num_blocks: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.unfolded = nn.Conv2d(latent_channels, channels * FOLD**2, 3, padding=1)
        self.heads = nn.ModuleDict({str(s): nn.Conv2d(3 * (GRID // s) ** 2, channels, 3, padding=1) for s in scales})
        self.blocks = RememberingBlocks(channels, num_blocks)
        self.tails = nn.ModuleDict({str(s): nn.Conv2d(channels, 3 * GRID**2, 3, padding=1) for s in scales})
        for parameter in self.tails.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, latents: Tensor, folded: Tensor, scale: int, length: int, before: Memories | None
    ) -> tuple[Tensor, Memories]:
        x = F.pixel_shuffle(self.unfolded(latents), FOLD) + self.heads[str(scale)](folded)
        x, after = self.blocks(x, length, iter(before) if before is not None else None)
        return F.pixel_shuffle(self.tails[str(scale)](x), GRID), tuple(after)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
