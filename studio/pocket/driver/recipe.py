"""How the driver's control blocks learn: flow matching, as the text-to-video pocket did, with maps beside the noise.

    loss = || v(x_s, 1000 s, text, control) - (e - x_0) ||²

Only what the text-to-video pocket has not is trained, so that the driver without control stays that model. Which maps
a sample is given, how much each counts, whether they are the world's own or what extractors see, and whether first
frames are kept, is drawn anew each time: a person may give any of it.

Knows flow matching and planes as stored numbers. Refuses to know pixels and the renderer.

Shapes: B samples; latents (B, Z, t, h, w), planes (B, C, t, h, w), token ids (B, L).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from studio.clips.control_maps import MapName
from studio.pipelines.driver import CHANNELS, CONTROL_CHANNELS, FOLLOWED, GROUPS, channels_of, channels_of_group
from studio.pocket import denoiser_twin
from studio.pocket.data import beside
from studio.pocket.denoiser_recipe import DenoiserObjective, noise_levels
from studio.pocket.driver.architecture import is_control
from studio.pocket.driver.data import STEP, Bank

if TYPE_CHECKING:
    from diffusers import WanVACETransformer3DModel
    from transformers import UMT5EncoderModel

SEEN_GROUPS = ("sky", "road")
"""Those that the extractors tell apart; of the others they say nothing."""


@dataclass(frozen=True, kw_only=True)
class ControlDraw:
    """Shares of samples that are given what."""

    none: float = 0.08
    """No map at all: what guidance and a first frame alone need."""
    all: float = 0.3
    one: float = 0.3
    """A single map; the rest are given each map with `each`."""
    each: float = 0.5
    weak: float = 0.2
    """Of the maps that are given, those that count between a tenth and all."""
    seen: float = 0.5
    """Maps as extractors see them, instead of the world's own."""
    coarse: float = 0.3
    """Of the exact regions, those of which only road and sky are told, as of a clip."""
    first_frame: float = 0.25
    two_latents: float = 0.1
    """The first five frames are kept."""
    context_noise: float = 0.1
    """Largest deviation of noise on kept latents: in a window of a long clip they are self-made."""


class Driver(nn.Module):
    """The grown transformer, of which the control blocks learn, and the text encoder, which does not."""

    def __init__(self, transformer: WanVACETransformer3DModel, text_encoder: UMT5EncoderModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.requires_grad_(False)
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_(is_control(name))
        self.run_block = denoiser_twin.run_block

    def forward(self, noisy: Tensor, sigma: Tensor, ids: Tensor, control: Tensor, scale: float = 1.0) -> Tensor:
        """Velocity (B, Z, t, h, w) for a noisy latent at noise levels `sigma` (B,)."""
        mask = (ids != 0).long()
        with torch.no_grad():
            states: Any = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        words = states * mask[..., None].to(states.dtype)
        return denoiser_twin.velocity(
            self.transformer, noisy, sigma * 1000.0, words, self.run_block, control=control, control_scale=scale
        )

    def compile_blocks(self) -> None:
        self.run_block = torch.compile(denoiser_twin.run_block, dynamic=False)


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """The square-ish matrices of control blocks; what reads planes goes to AdamW."""
    return "vace_blocks" in name and parameter.ndim == 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step trains on."""

    clean: Tensor
    control: Tensor
    """(B, CONTROL_CHANNELS, t, h, w)."""
    covers: Tensor
    """(B, 2, t, h, w): the share of each cell that vehicles cover, and that lane lines do."""
    ids: Tensor


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The bank with its captions as token ids."""

    bank: Bank
    ids: Tensor
    """(N, V, L)."""
    empty: Tensor
    """(L,)."""

    def draw(self, generator: torch.Generator, batch: int, draw: ControlDraw, empty_share: float) -> Batch:
        dice = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        rows = dice.integers(len(self.bank), size=batch)
        clean = torch.from_numpy(self.bank.latents[rows].astype(np.float32))
        exact = self.bank.exact[rows].astype(np.float32) / STEP
        covers = _covers(exact)
        planes = np.stack(
            [
                _given(self.bank.seen[row].astype(np.float32) / STEP if dice.random() < draw.seen else mine, dice, draw)
                for row, mine in zip(rows, exact, strict=True)
            ]
        )
        control = torch.zeros(batch, CONTROL_CHANNELS, *clean.shape[2:])
        control[:, -CHANNELS:] = torch.from_numpy(planes)
        for place in range(batch):
            chance = dice.random()
            kept = 1 if chance < draw.first_frame else 2 if chance < draw.first_frame + draw.two_latents else 0
            if kept:
                noise = dice.standard_normal(clean[place, :, :kept].shape).astype(np.float32)
                context = clean[place, :, :kept] + dice.random() * draw.context_noise * torch.from_numpy(noise)
                control[place, : clean.shape[1], :kept] = context
                control[place, clean.shape[1], :kept] = 1
        ids = self.ids[torch.from_numpy(rows), torch.from_numpy(dice.integers(self.ids.shape[1], size=batch))].clone()
        ids[torch.from_numpy(dice.random(batch) < empty_share)] = self.empty
        return Batch(clean=clean, control=control, covers=torch.from_numpy(covers), ids=ids)


def _given(planes: np.ndarray, dice: np.random.Generator, draw: ControlDraw) -> np.ndarray:
    """Some of the maps (C, t, h, w), each as much as it counts."""
    out = np.zeros_like(planes)
    for name in _chosen(dice, draw):
        weight = dice.uniform(0.1, 1.0) if dice.random() < draw.weak else 1.0
        at = channels_of(name)
        out[at] = weight * planes[at]
        if name == "semantic" and dice.random() < draw.coarse:
            for group in GROUPS.keys() - SEEN_GROUPS:
                out[channels_of_group(group)] = 0
    return out


def _chosen(dice: np.random.Generator, draw: ControlDraw) -> list[MapName]:
    chance = dice.random()
    if chance < draw.none:
        return []
    if chance < draw.none + draw.all:
        return list(FOLLOWED)
    if chance < draw.none + draw.all + draw.one:
        return [FOLLOWED[dice.integers(len(FOLLOWED))]]
    return [name for name in FOLLOWED if dice.random() < draw.each]


def _covers(exact: np.ndarray) -> np.ndarray:
    """(B, 2, t, h, w) of the world's own planes: the denoiser's effort goes where vehicles and lane lines are."""
    lanes = channels_of("lane_lines")
    movers = exact[:, channels_of_group("movers")].mean(axis=1)
    return np.stack([movers, exact[:, lanes.start : lanes.stop - 1].mean(axis=1)], axis=1)


def objective_of(
    driver: Driver, stored: Stored, *, batch: int, objective: DenoiserObjective, draw: ControlDraw
) -> Callable[[int, torch.Generator], Tensor]:
    """The loss of a step, for `train_steps`."""
    device = next(driver.parameters()).device

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        drawn = stored.draw(generator, batch, draw, objective.empty_prompt_share)
        clean, control, covers, ids = (
            each.to(device) for each in (drawn.clean, drawn.control, drawn.covers, drawn.ids)
        )
        sigma = noise_levels(generator, batch, objective).to(device)
        noise = torch.randn(clean.shape, generator=beside(generator, device), device=device)
        level = sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = driver((1 - level) * clean + level * noise, sigma, ids, control)
        error = (velocity.float() - (noise - clean)).square()
        weight = objective.weights(covers)
        return (error * weight / weight.mean()).mean()

    return loss_of
