"""A loaded pipeline as a function to be trained: what every family has in common, and flow matching.

    x_s = (1 - s) x_0 + s e,    v = e - x_0,    x_0 = x_s - s v

with s the noise level (sigma of the flow-matching schedulers), e Gaussian noise and x_0 the normalised latent. A level
is 0 for clean and 1 for nothing but noise in every family; families that learnt by diffusion say what lies between.

Shapes: pixels (B, 3, F, H, W) in -1..1, latents (B, c, t, h, w) however a pipeline lays them out. Knows how latents are
normalised and a denoiser is called. Refuses to know losses, optimizers and data.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from studio.pipelines import schedules
from studio.pipelines.loaded import LoadedPipeline

TIMESTEPS = 1000.0
"""Timesteps of a noise level of 1."""
LEAST_NOISE, MOST_NOISE = 0.02, 0.98

Prompt = dict[str, Tensor]
"""A caption as the denoiser is told it: arguments of its call, of one sample, by name."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT_ATTENTION = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Of blocks in which text and clip attend to each other, each by layers of its own."""
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
JOINT_FEED_FORWARD = (*FEED_FORWARD, "ff_context.net.0.proj", "ff_context.net.2")


class Trainable(ABC):
    """A pipeline's models, seen as one function from noisy latents to what the denoiser says of them."""

    lora_targets: tuple[str, ...] = (*ATTENTION, *FEED_FORWARD)
    """Linear layers of a block that take a low-rank update."""
    decoder_targets = r"decoder\..*(to_qkv|proj|resample\.1)"
    """Convolutions of Wan's decoder that do; the causal ones are no plain convolutions."""

    def __init__(self, ready: LoadedPipeline) -> None:
        self.ready = ready
        self.pipe: Any = ready.pipe
        self.vae: Any = ready.pipe.vae
        self.denoisers: dict[str, Any] = dict(zip(("transformer", "transformer_2"), ready.transformers, strict=False))
        """By component; the second is for low noise."""

    @staticmethod
    def why_not(pipe: Any) -> str:
        """Why a checkpoint of this family cannot be trained; empty where it can."""
        return ""

    @property
    def device(self) -> torch.device:
        return next(self.denoisers["transformer"].parameters()).device

    @property
    def lora_pattern(self) -> str:
        """The full names of those layers, as a regular expression."""
        blocks = "|".join(self.ready.family.block_lists)
        return rf"({blocks})\.\d+\.(.*\.)?({'|'.join(map(re.escape, self.lora_targets))})"

    # -- the autoencoder ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def latents_of(self, pixels: Tensor) -> Tensor:
        """Normalised latents (the posterior's mode), float32."""
        return self.normalised(self.encoded(pixels.to(self.device, next(self.vae.parameters()).dtype)).float())

    def encoded(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent_dist.mode()

    def normalised(self, z: Tensor) -> Tensor:
        return z * self.vae.config.scaling_factor

    def for_decoder(self, latents: Tensor) -> Tensor:
        """As the decoder takes them; keeps the graph."""
        return latents / self.vae.config.scaling_factor

    def decode_in_groups(self) -> None:
        """Let the decoder take a clip a group of frames at a time, where it has the choice."""
        if hasattr(self.vae, "use_framewise_decoding"):
            self.vae.use_framewise_decoding = True

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Frames, the whole clip at once."""
        return self.frames_of(self.for_decoder(latents).to(next(self.vae.parameters()).dtype)).float()

    def frames_of(self, z: Tensor) -> Tensor:
        return self.vae.decode(z).sample

    # -- the prompt ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prompt(self, caption: str) -> Prompt:
        """A caption, embedded as for a sampling step without guidance; float32 where it is no mask of truth values."""
        told = self.embedded(caption)
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in told.items()}

    @abstractmethod
    def embedded(self, caption: str) -> Prompt:
        """The text encoders' part of the denoiser's arguments."""

    @property
    def max_sequence_length(self) -> int:
        return self.ready.preset.defaults.max_sequence_length or self.default_of("max_sequence_length")

    def default_of(self, argument: str) -> Any:
        """What the pipeline's call takes where nothing is said; `encode_prompt` may have a default of its own."""
        return inspect.signature(type(self.pipe).__call__).parameters[argument].default

    # -- noise --------------------------------------------------------------------------------------------------------

    def draw_level(self, generator: torch.Generator, clean: Tensor) -> float:
        """A noise level to train at: logit-normal, shifted as the schedule is."""
        shift = self.shift(clean)
        level = float(torch.randn((), generator=generator).sigmoid())
        return min(max(shift * level / (1 + (shift - 1) * level), LEAST_NOISE), MOST_NOISE)

    def shift(self, clean: Tensor) -> float:
        """Of the flow schedule, for latents of this size."""
        return self.ready.preset.defaults.flow_shift or schedules.shift(self.pipe.scheduler)

    def noised(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        return (1 - level) * clean + level * noise

    def target(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        """What the denoiser ought to say."""
        return noise - clean

    def estimate(self, noisy: Tensor, said: Tensor, level: float) -> Tensor:
        """The clean latents that follow from what the denoiser said; keeps the graph."""
        return noisy - level * said

    # -- the denoiser -------------------------------------------------------------------------------------------------

    def predict(self, noisy: Tensor, level: Tensor, prompt: Prompt) -> Tensor:
        """What the denoiser says of latents at noise levels `level` (B,), float32."""
        denoiser = self.denoiser_at(level)
        dtype = denoiser.dtype
        told = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in prompt.items()}
        out = denoiser(
            hidden_states=self.packed(noisy.to(dtype)),
            timestep=self.timestep(level),
            return_dict=False,
            **told,
            **self.conditions(noisy.to(dtype)),
        )[0]
        # Some families say something of the variance behind it, which no sampler here asks for.
        return self.unpacked(out.float(), noisy)[:, : noisy.shape[1]]

    def denoiser_at(self, level: Tensor) -> Any:
        """Where there are two, the second is for levels below the pipeline's boundary."""
        if "transformer_2" not in self.denoisers or self.pipe.config.boundary_ratio is None:
            return self.denoisers["transformer"]
        high = float(self.timestep(level).min()) >= self.pipe.config.boundary_ratio * TIMESTEPS
        return self.denoisers["transformer" if high else "transformer_2"]

    def timestep(self, level: Tensor) -> Tensor:
        """As the denoiser is told it."""
        return level * TIMESTEPS

    def packed(self, latents: Tensor) -> Tensor:
        """As the pipeline lays them out for its denoiser."""
        return latents

    def unpacked(self, latents: Tensor, like: Tensor) -> Tensor:
        """(B, c, t, h, w) of what the pipeline or its denoiser laid out; `like` has the t, h and w."""
        return latents

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        """Arguments of the denoiser's call that follow from the latents' size."""
        return {}
