"""How the pocket denoiser and its text encoder are trained: together, from nothing, on single frames, then on clips.

Knows flow matching, captions as token ids, and latents as stored numbers. Refuses to know pixels and the renderer.

    x_s = (1 - s) x_0 + s e,    v = e - x_0,    loss = || v_theta(x_s, 1000 s, text) - v ||^2

s is the noise level (sigma of the flow-matching schedulers), e Gaussian noise, x_0 the normalised latent. A share of
the captions is replaced by the empty prompt, which is what guidance subtracts.

Shapes: a latent is (B, Z, t, h, w); token ids and their mask are (B, L).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from studio.pocket import denoiser_twin
from studio.pocket.data import beside

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel


@dataclass(frozen=True, kw_only=True)
class DenoiserObjective:
    """What a training sample looks like."""

    noise_shift: float = 2.0
    """Larger means more samples at high noise, where a scene's layout is decided."""
    uniform_share: float = 0.1
    """Share of noise levels drawn uniformly, so that the ends are seen too; the rest are logit-normal."""
    empty_prompt_share: float = 0.1
    vehicle_weight: float = 8.0
    """Added where vehicles are: few of the pixels, and most of what a prompt says. The best prediction at each place
    stays the same; only the effort moves."""
    lane_weight: float = 3.2
    """Added where lane lines cover a third of a cell or more; less where they cover less."""

    def weights(self, covers: Tensor) -> Tensor:
        """(B, 1, t, h, w) for covers (B, 2, t, h, w)."""
        vehicles, lanes = covers.chunk(2, dim=1)
        return 1 + torch.maximum(self.vehicle_weight * vehicles, self.lane_weight * (3 * lanes).clamp(max=1))


class TextToLatent(nn.Module):
    """The two modules that learn together, so that one optimizer and one checkpoint hold both."""

    def __init__(self, text_encoder: UMT5EncoderModel, transformer: WanTransformer3DModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.transformer = transformer
        self.run_block = denoiser_twin.run_block

    def forward(self, noisy: Tensor, sigma: Tensor, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Velocity (B, Z, t, h, w) for a noisy latent at noise levels `sigma` (B,)."""
        states: Any = self.text_encoder(token_ids, attention_mask=mask).last_hidden_state
        # WanPipeline cuts each prompt at its length and pads with zeros; the same here, or generation sees other text.
        words = states * mask[..., None].to(states.dtype)
        return denoiser_twin.velocity(self.transformer, noisy, sigma * 1000.0, words, self.run_block)

    def compile_blocks(self) -> None:
        """Worth a minute's wait: it fuses norms, modulation, softmax and casts."""
        self.run_block = torch.compile(denoiser_twin.run_block, dynamic=False)


@dataclass(frozen=True, kw_only=True)
class LatentBank:
    """Latents and the captions that go with them, in memory or mapped from disk."""

    latents: Tensor
    """(N, Z, t, h, w), any float type, normalised to zero mean and unit variance a channel."""
    covers: Tensor
    """(N, 2, t, h, w), 0 to 1: the share of each cell that vehicles cover, and that lane lines do."""
    token_ids: Tensor
    """(N, V, L): V wordings of each caption."""
    empty: Tensor
    """(L,): ids of the empty prompt."""

    def to(self, device: torch.device) -> LatentBank:
        parts = {name: getattr(self, name).to(device) for name in ("latents", "covers", "token_ids", "empty")}
        return LatentBank(**parts)

    def draw(self, generator: torch.Generator, *, batch: int, empty_share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, Z, t, h, w) and covers (B, 2, t, h, w) in float32, and token ids (B, L), on the bank's device."""
        device = self.latents.device
        rows = torch.randint(len(self.latents), (batch,), generator=generator).to(device)
        wordings = torch.randint(self.token_ids.shape[1], (batch,), generator=generator).to(device)
        ids = self.token_ids[rows, wordings].clone()
        ids[(torch.rand(batch, generator=generator) < empty_share).to(device)] = self.empty
        return self.latents[rows].float(), self.covers[rows].float(), ids


@torch.no_grad()
def initialise(model: TextToLatent, generator: torch.Generator) -> None:
    """Residual branches begin at zero behind open gates, and the time step says nothing yet."""
    for name, parameter in model.transformer.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif "scale_shift_table" in name:
            parameter.zero_()
            if parameter.shape[1] == 6:  # shift, scale, gate of attention, then of the feed-forward
                parameter[:, 2] = parameter[:, 5] = 1.0
        elif "time_proj" in name or "to_out" in name or "ffn.net.2" in name or name.startswith("proj_out"):
            parameter.zero_()
        elif parameter.ndim >= 2:
            _fan_in(parameter, generator)
    initialise_text_encoder(model.text_encoder, generator)


@torch.no_grad()
def initialise_text_encoder(text_encoder: UMT5EncoderModel, generator: torch.Generator) -> None:
    for name, parameter in text_encoder.named_parameters():
        if "shared" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        elif "relative_attention_bias" in name:
            parameter.zero_()
        elif parameter.ndim == 2:
            _fan_in(parameter, generator, 0.5 if name.endswith((".o.weight", ".wo.weight")) else 1.0)


def _fan_in(weight: Tensor, generator: torch.Generator, gain: float = 1.0) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * gain / math.sqrt(weight[0].numel()))


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """The square-ish matrices inside blocks; what touches latents, words or time directly goes to AdamW."""
    inside = "blocks." in name or "encoder.block." in name
    return inside and parameter.ndim == 2 and "relative_attention_bias" not in name


def noise_levels(generator: torch.Generator, batch: int, objective: DenoiserObjective) -> Tensor:
    """Sigma (B,) in 0..1."""
    normal = torch.randn(batch, generator=generator)
    uniform = torch.rand(batch, generator=generator)
    sigma = torch.where(torch.rand(batch, generator=generator) < objective.uniform_share, uniform, normal.sigmoid())
    shift = objective.noise_shift
    return (shift * sigma / (1 + (shift - 1) * sigma)).clamp(1e-3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one step trains on."""

    bank: LatentBank
    batch: int


def objective_of(
    model: TextToLatent, choose: Callable[[int], Draw], objective: DenoiserObjective
) -> Callable[[int, torch.Generator], Tensor]:
    """The loss of a step, for `train_steps`; the banks are on the model's device."""
    device = next(model.parameters()).device

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        draw = choose(step)
        clean, covers, ids = draw.bank.draw(generator, batch=draw.batch, empty_share=objective.empty_prompt_share)
        sigma = noise_levels(generator, draw.batch, objective).to(device)
        noise = torch.randn(clean.shape, generator=beside(generator, device), device=device)
        level = sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = model((1 - level) * clean + level * noise, sigma, ids, (ids != 0).long())
            error = (velocity.float() - (noise - clean)).square()
            weight = objective.weights(covers)
            return (error * weight / weight.mean()).mean()

    return loss_of


@torch.no_grad()
def sample(
    model: TextToLatent,
    token_ids: Tensor,
    empty: Tensor,
    shape: tuple[int, int, int, int],
    generator: torch.Generator,
    *,
    steps: int = 20,
    guidance_scale: float = 4.0,
    flow_shift: float = 3.0,
) -> Tensor:
    """Normalised latents (B, Z, t, h, w) for token ids (B, L), by Euler steps with guidance, to look at while training.

    What ships is sampled by `WanPipeline`; this one takes all prompts at once.
    """
    device = next(model.parameters()).device
    both = torch.cat([token_ids, empty.expand_as(token_ids)]).to(device)
    x = torch.randn((len(token_ids), *shape), generator=generator).to(device)
    line = torch.linspace(1, 0, steps + 1)
    levels = (flow_shift * line / (1 + (flow_shift - 1) * line)).tolist()
    for now, then in pairwise(levels):
        with torch.autocast(device.type, torch.bfloat16):
            sigma = torch.full((len(both),), now, device=device)
            wanted, unprompted = model(torch.cat([x, x]), sigma, both, (both != 0).long()).float().chunk(2)
        x = x + (then - now) * (unprompted + guidance_scale * (wanted - unprompted))
    return x.cpu()
