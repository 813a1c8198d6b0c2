"""SwiftVR: the parts of it that diffusers does not have, as models of diffusers' kind.

ReAE, its small autoencoder (arXiv:2606.09516; after TAEHV), looks at a picture and the one before, layer by layer, and
at nothing that comes later: it can be run a few pictures at a time, with what its layers saw last carried on
(`Memory`), and gives what the whole clip at once would give. Its denoiser is Wan 2.2's, without changes: as published
it attends within windows, as it was first trained to everything, with weights of the same names; this is the latter. An
empty prompt lies beside it, embedded.

What is published has no configuration: widths are read off the tensors, and tensors that do not fit are refused.

Shapes: B clips, T pictures, t latents (4 pictures each), H rows, W columns, p pixels of a patch a side (2).
The first latent of a clip decodes to four pictures, of which the first three lie before the clip.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

Memory = dict[int, Tensor]
"""By a layer's place, the last picture it was given."""
PICTURES_A_LATENT = 4
AHEAD = PICTURES_A_LATENT - 1
"""Pictures that a clip's first latent decodes to before the clip begins."""


class MemoryBlock(nn.Module):
    """A residual block that sees a picture's features beside those of the picture before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU(), _conv(channels, channels)
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Both (T, c, h, w)."""
        return F.relu(self.conv(torch.cat([x, before], dim=1)) + x)


class Gather(nn.Module):
    """So many pictures become one."""

    def __init__(self, channels: int, pictures: int) -> None:
        super().__init__()
        self.pictures = pictures
        self.conv = nn.Conv2d(channels * pictures, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unflatten(0, (-1, self.pictures)).flatten(1, 2))


class Spread(nn.Module):
    """A picture becomes two, or stays one."""

    def __init__(self, channels: int, *, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        if twice:
            self.conv3d = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        else:
            self.proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.twice:
            return self.proj(x)
        pair = x[:, :, None].expand(-1, -1, 2, -1, -1)
        return self.conv3d(pair).transpose(1, 2).flatten(0, 1)


class SoftClamp(nn.Module):
    """Latents, held within ±3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class ReAE(ModelMixin, ConfigMixin):
    """SwiftVR's autoencoder: 16 × 16 × 4 pixels a latent."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 48,
        encoder_channels: int = 64,
        decoder_channels: tuple[int, int, int, int] = (512, 256, 128, 64),
        patch_size: int = 2,
    ) -> None:
        super().__init__()
        e, (a, b, c, d), pixels = encoder_channels, decoder_channels, 3 * patch_size**2
        self.spatial_compression_ratio = 8 * patch_size
        levels = [_encoder_level(e, pictures) for pictures in (2, 2, 1)]
        self.encoder = nn.Sequential(
            _conv(pixels, e), nn.ReLU(), *(layer for level in levels for layer in level), _conv(e, latent_channels)
        )
        self.decoder = nn.Sequential(
            SoftClamp(),
            _conv(latent_channels, a),
            nn.ReLU(),
            *_decoder_level(a, b, twice=False),
            *_decoder_level(b, c, twice=True),
            *_decoder_level(c, d, twice=True),
            nn.ReLU(),
            _conv(d, pixels),
        )

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> ReAE:
        """The autoencoder that a file of tensors holds.

        Raises:
            KeyError, RuntimeError: a tensor is missing, or one too many, or of another shape.
        """
        first, last = tensors["encoder.0.weight"], tensors["decoder.1.weight"]
        widths = [tensors[f"decoder.{place}.weight"].shape[0] for place in (1, 8, 14, 20)]
        a, b, c, d = (int(width) for width in widths)
        autoencoder = cls(
            latent_channels=last.shape[1],
            encoder_channels=first.shape[0],
            decoder_channels=(a, b, c, d),
            patch_size=round((first.shape[1] / 3) ** 0.5),
        )
        autoencoder.load_state_dict(dict(tensors), strict=True)
        return autoencoder

    @apply_forward_hook
    def encode(self, pictures: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Latents (t, c, H/16, W/16) of pictures (4t, 3, H, W) in 0…1, and what the next ones need."""
        return _through(self.encoder, F.pixel_unshuffle(pictures, self.config["patch_size"]), memory or {})

    @apply_forward_hook
    def decode(self, latents: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Pictures (4t, 3, H, W) in 0…1 of latents (t, c, H/16, W/16), and what the next ones need."""
        made, memory = _through(self.decoder, latents, memory or {})
        return F.pixel_shuffle(made.clamp(0, 1), self.config["patch_size"]), memory


class EmptyPrompt(nn.Module):
    """An empty prompt as Wan's text encoder embeds it."""

    def __init__(self, embedded: Tensor) -> None:
        super().__init__()
        self.register_buffer("prompt_emb", embedded)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> EmptyPrompt:
        """Raises KeyError or ValueError where the file holds something else."""
        embedded = tensors["prompt_emb"]
        if len(tensors) > 1 or embedded.ndim not in (2, 3):
            raise ValueError(f"prompt_emb is {tuple(embedded.shape)}, among {len(tensors)} tensors")
        return cls(embedded if embedded.ndim == 3 else embedded[None])


class SwiftVRPipeline(DiffusionPipeline):
    """Its models. How they are called is the engine's to know: it enlarges a clip that never ends."""

    model_cpu_offload_seq = "transformer->vae"

    def __init__(self, transformer: nn.Module, vae: ReAE, prompt: EmptyPrompt) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, prompt=prompt)


def _conv(given: int, made: int, **more: bool | int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1, **more)  # pyright: ignore[reportArgumentType]


def _encoder_level(channels: int, pictures: int) -> list[nn.Module]:
    blocks = [MemoryBlock(channels) for _ in range(3)]
    return [Gather(channels, pictures), _conv(channels, channels, stride=2, bias=False), *blocks]


def _decoder_level(given: int, made: int, *, twice: bool) -> list[nn.Module]:
    blocks = [MemoryBlock(given) for _ in range(3)]
    return [*blocks, nn.Upsample(scale_factor=2), Spread(given, twice=twice), _conv(given, made, bias=False)]


def _through(layers: nn.Sequential, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """`x` through all layers, and each memory block's last picture; before a clip's first picture there is black."""
    carried: Memory = {}
    for place, layer in enumerate(layers):
        if isinstance(layer, MemoryBlock):
            first = memory[place] if place in memory else torch.zeros_like(x[:1])
            before, carried[place] = torch.cat([first, x[:-1]]), x[-1:].clone()
            x = layer(x, before)
        else:
            x = layer(x)
    return x, carried
