"""One step of latent diffusion that lights, shades and blends what was pasted into a clip.

    z₁ = encode(source, paste, alpha, zone)   the latent of the paste as it is, taken as the noisy one
    z₀ = z₁ − v(z₁ | surroundings)            one step, as DOVE (arXiv 2505.16239) and SwiftVR take it
    g, o = decode(z₀, given | surroundings)   by a causal decoder that also sees what was given
    made = source + zone · (paste · (1 + g) + o − source)

What the paste is to become is said as a gain and an offset for each value, so that its own detail stays. What hour and
weather it is stands all over the picture and seldom near the paste: the whole of the source, made small, becomes a
factor and a shift for every channel of every block. Denoiser and decoder remember as their blocks do. The last
convolutions begin at zero, so an untrained one gives the paste back, feathered.

Knows tensors. Refuses to know clips, vehicles, and where zones come from (`zone`).

Shapes: B clips, T pictures, H rows and W columns (multiples of 8), n channels, c channels of a latent; values 0…1.
"""

from __future__ import annotations

from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from studio.pipelines.super_resolver.blocks import Memories, RememberingBlocks

GRID = 4
"""Pixels along a side to a place of the decoder's grid."""
FOLD = 2
"""Places of that grid along a side that a latent pixel covers."""
CELL = GRID * FOLD
"""Rows and columns of a picture are multiples of it."""
GIVEN = 8
"""Channels of what is given: the source's colours, the paste's, the paste's alpha, and the zone."""
SURROUNDINGS = 32
"""Rows and columns of the whole picture, made small."""
_BANDS = 4
"""Horizontal bands whose mean colours are told as they are: sky, horizon, road, and the road at our feet."""
_SOURCE, _PASTE, _ZONE = slice(0, 3), slice(3, 6), slice(7, 8)


def given_of(source: Tensor, paste: Tensor, alpha: Tensor, zone: Tensor) -> Tensor:
    """What `Harmoniser` is given, (B, T, 8, H, W), of its parts: the source, the source with the paste over it (both
    (B, T, 3, H, W)), the paste's alpha, and the zone's weight (both (B, T, 1, H, W))."""
    return torch.cat([source, paste, alpha, zone], dim=2)


def composed(given: Tensor, change: Tensor) -> Tensor:
    """source + zone · (paste · (1 + g) + o − source), (B, T, 3, H, W); `change` is g and o, (B, T, 6, H, W)."""
    gain, offset = change.chunk(2, dim=2)
    source, zone = given[:, :, _SOURCE], given[:, :, _ZONE]
    lit = given[:, :, _PASTE] * (1 + gain) + offset
    # Where there is no zone the source is copied: adding zero would do the same, but for what rounding makes of it.
    return torch.where(zone > 0, source + zone * (lit - source), source)


class Harmoniser(ModelMixin, ConfigMixin):
    """Encoder, denoiser of one step, decoder that remembers, and an eye for the surroundings."""

    @register_to_config
    def __init__(
        self,
        channels: int = 40,
        latent_channels: int = 24,
        denoiser_channels: int = 64,
        num_denoiser_blocks: int = 6,
        num_decoder_blocks: int = 2,
        surroundings_channels: int = 96,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(GRID),
            nn.Conv2d(GIVEN * GRID**2, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.PixelUnshuffle(FOLD),
            nn.Conv2d(channels * FOLD**2, latent_channels, 1),
        )
        for layer in self.encoder:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                nn.init.zeros_(cast(Tensor, layer.bias))
        self.surroundings = _Surroundings(surroundings_channels)
        self.denoiser = _Denoiser(latent_channels, denoiser_channels, num_denoiser_blocks, surroundings_channels)
        self.decoder = _Decoder(latent_channels, channels, num_decoder_blocks, surroundings_channels)

    @property
    def memory(self) -> int:
        """Pictures before one on which it depends."""
        return self.denoiser.blocks.memory + self.decoder.blocks.memory

    def encode(self, given: Tensor) -> Tensor:
        """(B, T, 8, H, W) to latents (B, T, c, H/8, W/8)."""
        return self.encoder(given.flatten(0, 1) - 0.5).unflatten(0, given.shape[:2])

    def denoise(self, latents: Tensor, seen: Tensor, before: Memories | None = None) -> tuple[Tensor, Memories]:
        """z₀ of z₁, both (B, T, c, H/8, W/8), where `seen` (B · T, s) is known of the surroundings."""
        velocity, after = self.denoiser(latents.flatten(0, 1), seen, latents.shape[1], before)
        return latents - velocity.unflatten(0, latents.shape[:2]), after

    def decode(
        self, latents: Tensor, given: Tensor, seen: Tensor, before: Memories | None = None
    ) -> tuple[Tensor, Memories]:
        """The change, as `composed` takes it, and what the decoder remembers."""
        change, after = self.decoder(latents.flatten(0, 1), given.flatten(0, 1), seen, latents.shape[1], before)
        return change.float().unflatten(0, latents.shape[:2]), after

    def change(self, given: Tensor, around: Tensor, state: Memories | None = None) -> tuple[Tensor, Memories]:
        """The change alone, (B, T, 6, H, W), and the state; all else as `forward`."""
        count = self.denoiser.blocks.memory
        seen = self.surroundings(around.flatten(0, 1))
        denoised, of_denoiser = self.denoise(self.encode(given), seen, state[:count] if state is not None else None)
        change, of_decoder = self.decode(denoised, given, seen, state[count:] if state is not None else None)
        return change, tuple(chain(of_denoiser, of_decoder))

    def forward(self, given: Tensor, around: Tensor, state: Memories | None = None) -> tuple[Tensor, Memories]:
        """Harmonise pictures that follow one another.

        Args:
            given: As `given_of` puts it together.
            around: The whole source pictures, made small, (B, T, 3, 32, 32).
            state: What came back with the pictures before them, the denoiser's and then the decoder's; None before the
                first.

        Returns:
            (B, T, 3, H, W), not clamped, the source itself wherever the zone is 0; and the state for the pictures
            after them.
        """
        change, state = self.change(given, around, state)
        return composed(given, change), state


class _Surroundings(nn.Module):
    """What hour and weather it is, (N, s), from whole pictures (N, 3, 32, 32)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
        )
        self.mixed = nn.Linear(2 * 64 + 3 * _BANDS + 3, channels)

    def forward(self, pictures: Tensor) -> Tensor:
        centred = pictures - 0.5
        maps = self.layers(centred).float()
        bands = F.adaptive_avg_pool2d(centred, (_BANDS, 1)).flatten(1)
        # A root has no slope at zero, where a sky without a cloud may well be.
        spread = [(each.var(dim=(2, 3)) + 1e-5).sqrt() for each in (maps, centred)]
        told = [maps.mean(dim=(2, 3)), spread[0], bands, spread[1]]
        return F.leaky_relu(self.mixed(torch.cat(told, dim=1)), 0.1)


class _Tuning(nn.ModuleList):
    """From what is seen of the surroundings to a factor and a shift of each channel, for each block; zero at first."""

    def __init__(self, seen: int, channels: int, num_blocks: int) -> None:
        super().__init__(nn.Linear(seen, 2 * channels) for _ in range(num_blocks))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, seen: Tensor) -> list[Tensor]:
        return [layer(seen) for layer in self]


class _Denoiser(nn.Module):
    """v of z₁, on the latents' own grid."""

    def __init__(self, latent_channels: int, channels: int, num_blocks: int, seen: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(latent_channels, channels, 3, padding=1)
        self.blocks = RememberingBlocks(channels, num_blocks)
        self.tuning = _Tuning(seen, channels, num_blocks)
        self.tail = nn.Conv2d(channels, latent_channels, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latents: Tensor, seen: Tensor, length: int, before: Memories | None) -> tuple[Tensor, Memories]:
        earlier = iter(before) if before is not None else None
        x, after = self.blocks(self.head(latents), length, earlier, self.tuning(seen))
        return self.tail(x), tuple(after)


class _Decoder(nn.Module):
    """Latents, unfolded, and features of what was given add up; then blocks that remember; a gain and an offset come
    out, (N, 6, H, W)."""

    def __init__(self, latent_channels: int, channels: int, num_blocks: int, seen: int) -> None:
        super().__init__()
        self.unfolded = nn.Conv2d(latent_channels, channels * FOLD**2, 3, padding=1)
        self.head = nn.Conv2d(GIVEN * GRID**2, channels, 3, padding=1)
        self.blocks = RememberingBlocks(channels, num_blocks)
        self.tuning = _Tuning(seen, channels, num_blocks)
        self.tail = nn.Conv2d(channels, 6 * GRID**2, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, latents: Tensor, given: Tensor, seen: Tensor, length: int, before: Memories | None
    ) -> tuple[Tensor, Memories]:
        earlier = iter(before) if before is not None else None
        folded = F.pixel_unshuffle(given - 0.5, GRID)
        x = F.pixel_shuffle(self.unfolded(latents), FOLD) + self.head(folded)
        x, after = self.blocks(x, length, earlier, self.tuning(seen))
        return F.pixel_shuffle(self.tail(F.leaky_relu(x, 0.1)), GRID), tuple(after)
