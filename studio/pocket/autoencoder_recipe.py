"""How the pocket autoencoder is trained: first on single frames, then on clips, then its decoder alone.

Knows the twin, the losses and the order of the stages. Refuses to know where frames come from and who watches.

The three stages share the parameters of one `AutoencoderKLWan`:
1. *frames*: an image autoencoder. A causal convolution over time sees zeros in its past taps, so only the newest tap
   learns; the past taps stay zero.
2. *clips*: the past taps open, starting at a tenth of the newest tap; the halvings of time start as the newest frame
   and the doublings as a repeat.
3. *decoder*: with the encoder frozen the latents stay what they are, so the decoder goes on improving beside the
   denoiser that learns those latents.

Shapes: a batch of crops is (B, 3, T, h, w) in -1..1, a latent (B, Z, t, h/8, w/8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from studio.pocket import twin
from studio.pocket.amounts import CropPlan
from studio.pocket.data import as_pixels, as_video, beside, crops

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan


@dataclass(frozen=True, kw_only=True)
class AutoencoderObjective:
    """Weights of the terms; pixels count from -1 to 1."""

    absolute: float = 1.0
    gradient: float = 0.5
    """On differences between neighbouring pixels: edges."""
    motion: float = 0.5
    """On differences between neighbouring frames."""
    square: float = 1.0
    """What PSNR measures."""
    latent_size: float = 1e-3
    """On the latent's square, so that its scale stays near one."""
    latent_noise: float = 0.1
    """Standard deviation of noise on the latent, so that the decoder forgives a denoiser's small errors."""


LOG_VARIANCE = -6.0
"""What the encoder says everywhere. It is not learnt: the noise above has its place, and a constant keeps the latent
nearly deterministic for pipelines that sample it."""


@torch.no_grad()
def initialise(vae: AutoencoderKLWan, generator: torch.Generator, *, damped: float = 0.2) -> None:
    """Fan-in scaled newest taps, zero past taps, damped ends of residual branches, constant log-variance."""
    for name, parameter in vae.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif "gamma" in name:
            parameter.fill_(1.0)
        elif parameter.ndim >= 4:
            kernel = parameter[:, :, -1] if parameter.ndim == 5 else parameter
            fan_in = kernel[0].numel()
            gain = damped if "conv2" in name or "proj" in name else 1.0
            parameter.zero_()
            kernel.copy_(torch.randn(kernel.shape, generator=generator) * gain / math.sqrt(fan_in))
    fix_log_variance(vae)


@torch.no_grad()
def fix_log_variance(vae: AutoencoderKLWan) -> None:
    conv, z = vae.quant_conv, vae.config["z_dim"]
    conv.weight[z:] = 0.0
    assert conv.bias is not None
    conv.bias[z:] = LOG_VARIANCE


@torch.no_grad()
def open_past_taps(vae: AutoencoderKLWan, *, share: float = 0.1) -> None:
    """From an image autoencoder to a video one whose first output is nearly the same."""
    for name, module in vae.named_modules():
        if "time_conv" in name:
            _start_resampling_time(module)
        elif isinstance(module, nn.Conv3d) and module.weight.shape[2] == 3:
            module.weight[:, :, :-1] = share * module.weight[:, :, -1:]


def _start_resampling_time(conv: nn.Module) -> None:
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    bias.zero_()
    out_channels, in_channels = weight.shape[:2]
    weight.mul_(0.1 if weight.abs().sum() > 0 else 1.0)
    identity = torch.eye(in_channels, device=weight.device).repeat(out_channels // in_channels, 1)
    weight[:, :, -1, 0, 0] += identity


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """Every convolution, as (out, in * taps); the norms' gains have four axes as well but are vectors."""
    return parameter.ndim >= 4 and "gamma" not in name


def objective_of(
    vae: AutoencoderKLWan,
    frames: Tensor,
    crop_plan: Callable[[int], CropPlan],
    objective: AutoencoderObjective,
    *,
    decoder_only: bool = False,
) -> Callable[[int, torch.Generator], Tensor]:
    """The loss of a step, for `train_steps`."""
    device = next(vae.parameters()).device
    z_dim: int = vae.config["z_dim"]

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        plan = crop_plan(step)
        video = crops(frames, generator, batch=plan.batch, length=plan.length, size=plan.size).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.set_grad_enabled(not decoder_only):
                latent = twin.encode(vae, video)[:, :z_dim].float()
            noise = torch.randn(latent.shape, generator=beside(generator, device), device=device)
            decoded = twin.decode(vae, latent + objective.latent_noise * noise).float()
        return reconstruction_loss(decoded - video, objective) + objective.latent_size * latent.square().mean()

    return loss_of


def reconstruction_loss(error: Tensor, objective: AutoencoderObjective) -> Tensor:
    loss = objective.absolute * error.abs().mean() + objective.square * error.square().mean()
    rows, columns = error.diff(dim=-2).abs().mean(), error.diff(dim=-1).abs().mean()
    loss = loss + objective.gradient * (rows + columns)
    if error.shape[2] > 1:
        loss = loss + objective.motion * error.diff(dim=2).abs().mean()
    return loss


@torch.no_grad()
def latent_of(vae: Any, pixels: np.ndarray) -> Tensor:
    """Mean latent (B, Z, t, h, w) of clips (B, T, H, W, 3) uint8, in float32 on the CPU."""
    device = next(vae.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        return twin.encode(vae, as_video(pixels).to(device))[:, : vae.config["z_dim"]].float().cpu()


@torch.no_grad()
def decode_latent(vae: Any, latents: Tensor) -> np.ndarray:
    """Clips (B, T, H, W, 3) uint8 of latents (B, Z, t, h, w), one at a time, through the twin."""
    device = next(vae.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        return np.concatenate([as_pixels(twin.decode(vae, latent[None].to(device))) for latent in latents])


@torch.no_grad()
def reconstruct(vae: Any, pixels: np.ndarray) -> np.ndarray:
    """Clips (B, T, H, W, 3) uint8 through encoder and decoder and back, one at a time, through the twin."""
    device = next(vae.parameters()).device
    out = []
    for clip in pixels:
        with torch.autocast(device.type, torch.bfloat16):
            latent = twin.encode(vae, as_video(clip[None]).to(device))[:, : vae.config["z_dim"]].float()
            out.append(as_pixels(twin.decode(vae, latent))[0])
    return np.stack(out)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Of two arrays of uint8 pixels, in decibels, over all of them at once."""
    mean_square = np.square(first.astype(np.float64) - second.astype(np.float64)).mean()
    return float(10 * np.log10(255.0**2 / max(mean_square, 1e-12)))
