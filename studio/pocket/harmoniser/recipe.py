"""How the harmoniser is trained: what latents carry, then the step between them, then pixels, by ChopGrad, on clips.

    autoencoder   encoder and decoder learn to carry what a paste lacks through noisy latents of the wanted picture
    latent        the denoiser learns z₀ from z₁: of the wanted picture's latent from that of the paste
    pixels        all of it learns together what the clip should look like; gradients go back through whole clips by
                  `chopgrad`, a few pictures alive at a time

The loss is the share of the paste's error that is left, on the vehicle and on the zone around it, so that a night in
which nearly all is wrong weighs no more than a dusk in which little is; half of it in absolute errors, half in squares.
A paste that is right already, of a clear day into a clear day, counts as if it were off by a little.

Shapes: B clips, T pictures, H rows, W columns; pixels 0…1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.chopgrad import Backprop, Chunk, PictureByPicture, Region, decode_backward
from studio.pipelines.harmoniser import Harmoniser, composed, given_of
from studio.pocket.harmoniser.data import MEASURED, Pairs

NOISE = 0.05
"""Deviation of what is added to latents while the decoder learns, so that near misses of the denoiser are forgiven."""
TIGHT = 1e-3
"""Weight of the latents' mean square, which keeps them from outgrowing the noise."""
SOFT = 1e-3
"""Of the Charbonnier error √(d² + soft²): where it turns from square to absolute."""
RIGHT = 0.04
"""An error of a paste below which it counts as this large: else what is right already would drown all the rest."""
ZONE_WEIGHT = 1.0
"""Of the share around the vehicle beside the share on it."""
AT_ONCE = 3
"""Pictures through which gradients go back together."""
Loss = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A batch, all of it floats in 0…1."""

    source: Tensor
    """(B, T, 3, H, W)."""
    paste: Tensor
    """(B, T, 3, H, W): the source with the vehicle over it."""
    alpha: Tensor
    """(B, T, 1, H, W): of the paste."""
    zone: Tensor
    """(B, T, 1, H, W): the weight of what is made."""
    wanted: Tensor
    """(B, T, 3, H, W)."""
    on: Tensor
    """(B, T, 1, H, W): 1 on the vehicle."""
    around: Tensor
    """(B, T, 3, 32, 32)."""

    @property
    def given(self) -> Tensor:
        return given_of(self.source, self.paste, self.alpha, self.zone)

    @property
    def ideal(self) -> Tensor:
        """What would be given had the paste been right."""
        return given_of(self.source, self.wanted, self.alpha, self.zone)

    @property
    def beside(self) -> Tensor:
        """(B, T, 1, H, W): 1 in the zone, but off the vehicle."""
        return (self.zone > 0).float() * (1 - self.on)


def examples(pairs: Pairs, generator: torch.Generator, device: torch.device, *, batch: int, crop: int) -> Example:
    """Crops of pairs at random: mirrored or not, in another exposure as a whole, with the vehicle from another camera
    and cut out in another manner."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    drawn: dict[str, list[Tensor]] = {name: [] for name in ("source", "vehicle", "wanted", "cover", "zone", "around")}
    for _ in range(batch):
        row, side = below(len(pairs.source)), pairs.source.shape[2]
        top, left, mirrored = below(side - crop + 1), below(side - crop + 1), below(2)
        for name, several in drawn.items():
            array = getattr(pairs, name)[row]
            part = array if name == "around" else array[:, top : top + crop, left : left + crop]
            part = part.to(device)
            several.append(part.flip(2) if mirrored else part)
    colours = {name: _pictures(torch.stack(drawn[name])) for name in ("source", "vehicle", "wanted", "around")}
    cover, zone = (torch.stack(drawn[name])[:, :, None].float().div(255) for name in ("cover", "zone"))
    exposure = _cast(generator, batch, spread=0.15, tint=0.05, often=0.4).to(device)
    for name in ("source", "wanted", "around"):
        colours[name] = (colours[name] * exposure).clamp(0, 1)
    camera = _cast(generator, batch, spread=0.15, tint=0.08, often=0.5).to(device)
    vehicle = (colours["vehicle"] * camera).clamp(0, 1)
    alpha = _cut_out(cover, below(4))
    return Example(
        source=colours["source"],
        paste=colours["source"] + alpha * (vehicle - colours["source"]),
        alpha=alpha,
        zone=zone,
        wanted=colours["wanted"],
        on=(cover > 0.5).float(),
        around=colours["around"],
    )


def _pictures(pixels: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 to (B, T, 3, H, W)."""
    return pixels.movedim(-1, 2).float().div(255)


def _cast(generator: torch.Generator, batch: int, *, spread: float, tint: float, often: float) -> Tensor:
    """Factors on colours, (B, 1, 3, 1, 1), some of them 1."""
    light = 1 + spread * (2 * torch.rand(batch, 1, generator=generator) - 1)
    colour = 1 + tint * (2 * torch.rand(batch, 3, generator=generator) - 1)
    here = torch.rand(batch, 1, generator=generator) < often
    return torch.where(here, light * colour, torch.ones(())).view(batch, 1, 3, 1, 1)


def _cut_out(cover: Tensor, manner: int) -> Tensor:
    """An alpha (B, T, 1, H, W) as one would have it of a cover: exact, hard, blurred, or with a rim too many."""
    flat = cover.flatten(0, 1)
    match manner:
        case 1:
            flat = (flat > 0.5).float()
        case 2:
            flat = F.avg_pool2d(flat, 3, stride=1, padding=1, count_include_pad=False)
        case 3:
            flat = F.max_pool2d(flat, 3, stride=1, padding=1)
        case _:
            pass
    return flat.unflatten(0, cover.shape[:2])


# ------------------------------------------------------------------------------------------------------------- losses


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of a batch, what is to be weighed: error of the paste on the vehicle and beside it, as sums over each clip."""

    example: Example

    def of(self, made: Tensor, frames: slice = slice(None)) -> Tensor:
        """The share of the paste's error that some pictures of what was made (B, t, 3, H, W) leave; over all pictures
        they add up."""
        wanted = self.example.wanted[:, frames]
        total = made.new_zeros(())
        for mask, weight in ((self.example.on, 1.0), (self.example.beside, ZONE_WEIGHT)):
            for error, least in ((_charbonnier, RIGHT), (torch.square, RIGHT**2)):
                left = (mask[:, frames] * error(made - wanted)).sum(dim=(1, 2, 3, 4))
                before = (mask * error(self.example.paste - self.example.wanted)).sum(dim=(1, 2, 3, 4))
                floor = 3 * least * mask.sum(dim=(1, 2, 3, 4)).clamp_min(1)
                total = total + 0.5 * weight * (left / torch.maximum(before, floor)).mean()
        return total / (1 + ZONE_WEIGHT)


def _charbonnier(error: Tensor) -> Tensor:
    return (error.square() + SOFT**2).sqrt()


@dataclass(frozen=True, kw_only=True)
class Given:
    """The pairs that are learnt from, and how much of them at once."""

    pairs: Pairs
    batch: int
    crop: int

    def example(self, generator: torch.Generator, device: torch.device) -> Example:
        return examples(self.pairs, generator, device, batch=self.batch, crop=self.crop)


def _device(network: Harmoniser) -> torch.device:
    return next(network.parameters()).device


def autoencoder_objective(network: Harmoniser, given: Given) -> Loss:
    """The share that is left where the decoder has the latents of what is wanted."""

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        example = given.example(generator, _device(network))
        with torch.autocast(example.wanted.device.type, torch.bfloat16):
            latents = network.encode(example.ideal)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            seen = network.surroundings(example.around.flatten(0, 1))
            change, _ = network.decode(latents + NOISE * noise, example.given, seen)
        return Shares(example=example).of(composed(example.given, change)) + TIGHT * latents.float().square().mean()

    return loss_of


def latent_objective(network: Harmoniser, given: Given) -> Loss:
    """The share of the distance between both latents that the step leaves."""

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        example = given.example(generator, _device(network))
        with torch.autocast(example.wanted.device.type, torch.bfloat16):
            with torch.no_grad():
                known, wanted = network.encode(example.given).float(), network.encode(example.ideal).float()
            denoised, _ = network.denoise(known, network.surroundings(example.around.flatten(0, 1)))
        # A crop may show nothing of a paste, and then both latents are one.
        apart = (known - wanted).square().mean().clamp_min(1e-6)
        return (denoised.float() - wanted).square().mean() / apart

    return loss_of


def pixel_objective(network: Harmoniser, given: Given, *, how: Backprop | None = None) -> Loss:
    """The share that is left, through whole clips."""

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        example = given.example(generator, _device(network))
        shares = Shares(example=example)

        def frame_loss(frames: Tensor, region: Region) -> Tensor:
            return shares.of(frames.transpose(1, 2).float(), region.frames)

        walker = HarmonisedPictures(network, example.around)
        decoded = decode_backward(walker, example.given.transpose(1, 2), frame_loss, how or Backprop(mode="exact"))
        # Backward has been: what is handed on is only the number.
        return decoded.loss.requires_grad_()

    return loss_of


class HarmonisedPictures(PictureByPicture):
    """The harmoniser, a few pictures at a time: “latents” are what is given (B, 8, F, H, W), frames what is made."""

    def __init__(self, network: Harmoniser, around: Tensor) -> None:
        super().__init__(network, at_once=AT_ONCE)
        self._around = around

    def step(self, latents: Tensor, state: Any, chunk: Chunk) -> tuple[Tensor, Any]:
        around = self._around[:, chunk.start : chunk.stop]
        with torch.autocast(latents.device.type, torch.bfloat16):
            made, state = self.vae(latents.transpose(1, 2), around, state)
        return made.transpose(1, 2), state


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """The bodies' convolutions; those whose channels are pixels or latents, and the linear layers, go to AdamW."""
    return parameter.ndim == 4 and ".blocks." in name


# ------------------------------------------------------------------------------------------------------------ figures


@dataclass(frozen=True, kw_only=True)
class Gain:
    """PSNR in dB, means over clips: of the paste, and of what was made of it."""

    paste: float
    made: float
    paste_beside: float
    """In the zone, off the vehicle."""
    made_beside: float

    @property
    def on(self) -> float:
        return self.made - self.paste

    @property
    def beside(self) -> float:
        return self.made_beside - self.paste_beside


@torch.no_grad()
def gains(network: Harmoniser, held_out: Pairs) -> dict[str, Gain]:
    """For each measured condition, what is gained on held-out pairs; the vehicle is cut by its exact cover."""
    device, names = _device(network), tuple(MEASURED)
    each: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for number in range(len(held_out.source)):
        row = slice(number, number + 1)
        source, vehicle, wanted, around = (
            _pictures(array[row].to(device))
            for array in (held_out.source, held_out.vehicle, held_out.wanted, held_out.around)
        )
        cover, zone = (plane[row, :, None].to(device).float().div(255) for plane in (held_out.cover, held_out.zone))
        paste = source + cover * (vehicle - source)
        with torch.autocast(device.type, torch.bfloat16):
            made, _ = network(given_of(source, paste, cover, zone), around)
        on = cover > 0.5
        masks = (on, (zone > 0) & ~on)
        each[names[number % len(names)]].append(
            tuple(psnr(clip.float(), wanted, mask) for mask in masks for clip in (paste, made))
        )
    means = {name: torch.tensor(rows).mean(dim=0).tolist() for name, rows in each.items()}
    return {
        name: Gain(paste=on_0, made=on_1, paste_beside=by_0, made_beside=by_1)
        for name, (on_0, on_1, by_0, by_1) in means.items()
    }


def psnr(made: Tensor, wanted: Tensor, mask: Tensor) -> float:
    """In dB, of pixels in 0…1 (B, T, 3, H, W) where a mask (B, T, 1, H, W) is true."""
    square = (made.clamp(0, 1) - wanted).square() * mask
    return -10 * math.log10(max(1e-12, float(square.sum() / (3 * mask.sum()).clamp_min(1))))


class NoGain(ValueError):
    """A network that makes it worse than the paste is; it is not to be shipped."""


def check_gain(found: Mapping[str, Gain]) -> None:
    """Raises NoGain where what is made is no better than the paste in some condition, on the vehicle or beside it."""
    for name, gain in found.items():
        for place, gained in (("on the vehicle", gain.on), ("around it", gain.beside)):
            if not gained > 0:
                raise NoGain(f"{name}: {gained:+.2f} dB {place} against the paste; train it longer.")
