"""VideoModel: what every family has in common, and flow matching.

    x_s = (1 - s) x_0 + s e,    v = e - x_0,    x_0 = x_s - s v

with s the noise level (sigma of the flow-matching schedulers), e Gaussian noise and x_0 the normalised latent. A level
is 0 for clean and 1 for nothing but noise in every family; families that learnt by diffusion say what lies between.

Shapes: pixels (B, 3, F, H, W) in -1..1, latents (B, c, t, h, w) however a pipeline lays them out. Knows how a pipeline
is called, latents are normalised and a denoiser is asked. Refuses to know losses, optimizers and data.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from studio.family import Family, family_of
from studio.pipelines import schedules
from studio.pipelines.conditions import Conditions
from studio.preset import Preset
from studio.requests.generation import GenerationRequest

TIMESTEPS = 1000.0
"""Timesteps of a noise level of 1."""
LEAST_NOISE, MOST_NOISE = 0.02, 0.98

Prompt = dict[str, Tensor]
"""A caption as the denoiser is told it: arguments of its call, of one sample, by name."""


class VideoModel(ABC):
    """A pipeline's models: called as its pipeline calls them, and seen as one function from noisy latents to what the
    denoiser says of them."""

    pipeline: ClassVar[str]
    """The family's row in `studio.family`."""
    num_frames_name: ClassVar[str] = "num_frames"
    """What the pipeline's call calls a clip's length."""
    decoder_targets: ClassVar[str] = r"decoder\..*(to_qkv|proj|resample\.1)"
    """Convolutions of Wan's decoder that take a low-rank update; the causal ones are no plain convolutions."""

    def __init__(self, preset: Preset, pipe: Any) -> None:
        self.preset = preset
        self.pipe = pipe
        self.vae = pipe.vae
        self.denoisers: dict[str, Any] = {
            name: model
            for name in ("transformer", "transformer_2")
            if isinstance(model := getattr(pipe, name, None), nn.Module)
        }
        """By component; the second is for low noise."""

    @property
    def family(self) -> Family:
        return family_of(self.pipeline)

    @property
    def models(self) -> dict[str, nn.Module]:
        """Everything with weights, by component."""
        return {name: model for name, model in self.pipe.components.items() if isinstance(model, nn.Module)}

    @property
    def device(self) -> torch.device:
        return next(self.denoisers["transformer"].parameters()).device

    def blocks(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        """A denoiser's blocks in the order of a pass."""
        lists = [list(getattr(denoiser, name)) for name in self.family.block_lists]
        if self.family.blocks_alternate:
            return tuple(block for pair in zip(*lists, strict=True) for block in pair)
        return tuple(block for blocks in lists for block in blocks)

    # -- the pipeline's call ------------------------------------------------------------------------------------------

    def arguments(self, request: GenerationRequest) -> dict[str, Any]:
        """The pipeline's keyword arguments for a request, without generator and output."""
        length = self.preset.defaults.max_sequence_length
        wanted: dict[str, Any] = {
            "prompt": request.prompt,
            "height": request.height,
            "width": request.width,
            "num_inference_steps": request.num_inference_steps,
            self.num_frames_name: request.num_frames,
            "guidance_scale": request.guidance_scale,
        }
        if self.family.negative_prompt:
            wanted["negative_prompt"] = request.negative_prompt
        if length is not None:
            wanted["max_sequence_length"] = length
        return wanted

    def conditioned(self, request: GenerationRequest, conditions: Conditions) -> dict[str, Any]:
        """What the pipeline's call is told besides of what a clip starts from and keeps to; most start from noise."""
        return {}

    def prepare(self, request: GenerationRequest) -> None:  # noqa: B027 - most families have nothing to prepare
        """Set on the pipeline what must be before its call."""

    # -- the autoencoder ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def latents_of(self, pixels: Tensor) -> Tensor:
        """Normalised latents (the posterior's mode), float32."""
        return self.normalised(self.encoded(pixels.to(self.device, next(self.vae.parameters()).dtype)).float())

    def encoded(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent_dist.mode()

    def normalised(self, z: Tensor) -> Tensor:
        return z * self.vae.config.scaling_factor

    def denormalised(self, latents: Tensor) -> Tensor:
        """As the decoder takes them; keeps the graph."""
        return latents / self.vae.config.scaling_factor

    def decode_in_groups(self) -> None:
        """Let the decoder take a clip a group of frames at a time, where it has the choice."""
        if hasattr(self.vae, "use_framewise_decoding"):
            self.vae.use_framewise_decoding = True

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Frames, the whole clip at once."""
        return self.frames_of(self.denormalised(latents).to(next(self.vae.parameters()).dtype)).float()

    def frames_of(self, z: Tensor) -> Tensor:
        return self.vae.decode(z).sample

    def preview_latents(self, estimate: Tensor, request: GenerationRequest) -> Tensor:
        """The middle latent frame of a denoised estimate, as the pipeline laid it out, ready for `preview_pixels`."""
        return self.denormalised(middle(self.unpacked(estimate, ())))

    def preview_pixels(self, z: Tensor) -> Tensor:
        """Pixels of that latent frame. The class's own `decode`, because the instance's is watched during a run."""
        return type(self.vae).decode(self.vae, z).sample

    # -- the prompt ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prompt(self, caption: str) -> Prompt:
        """A caption, embedded as for a sampling step without guidance; float32 where it is no mask of truth values."""
        embedded = self.embedded(caption)
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in embedded.items()}

    @abstractmethod
    def embedded(self, caption: str) -> Prompt:
        """The text encoders' part of the denoiser's arguments."""

    @property
    def max_sequence_length(self) -> int:
        return self.preset.defaults.max_sequence_length or self.default_of("max_sequence_length")

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
        return self.preset.defaults.flow_shift or schedules.shift(self.pipe.scheduler)

    def noised(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        return (1 - level) * clean + level * noise

    def target(self, clean: Tensor, noise: Tensor, level: float) -> Tensor:
        """What the denoiser ought to say."""
        return noise - clean

    def estimate(self, noisy: Tensor, prediction: Tensor, level: float) -> Tensor:
        """The clean latents that follow from what the denoiser said; keeps the graph."""
        return noisy - level * prediction

    # -- the denoiser -------------------------------------------------------------------------------------------------

    def predict(self, noisy: Tensor, level: Tensor, prompt: Prompt) -> Tensor:
        """What the denoiser says of latents at noise levels `level` (B,), float32."""
        denoiser = self.denoiser_at(level)
        dtype = denoiser.dtype
        words = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in prompt.items()}
        out = denoiser(
            hidden_states=self.packed(noisy.to(dtype)),
            timestep=self.timestep(level),
            return_dict=False,
            **words,
            **self.conditions(noisy.to(dtype)),
        )[0]
        # Some families say something of the variance behind it, which no sampler here asks for.
        return self.unpacked(out.float(), noisy.shape[2:])[:, : noisy.shape[1]]

    def denoiser_at(self, level: Tensor) -> Any:
        """Where there are two, the second is for levels below the pipeline's boundary."""
        if "transformer_2" not in self.denoisers or self.pipe.config.boundary_ratio is None:
            return self.denoisers["transformer"]
        high = float(self.timestep(level).min()) >= self.pipe.config.boundary_ratio * TIMESTEPS
        return self.denoisers["transformer" if high else "transformer_2"]

    def handover(self, timesteps: Iterable[float]) -> int | None:
        """The first of a schedule's steps that the second denoiser takes; None where one takes them all."""
        if "transformer_2" not in self.denoisers or self.pipe.config.boundary_ratio is None:
            return None
        boundary = self.pipe.config.boundary_ratio * TIMESTEPS
        return next((step for step, timestep in enumerate(timesteps) if timestep < boundary), None) or None

    def timestep(self, level: Tensor) -> Tensor:
        """As the denoiser is told it."""
        return level * TIMESTEPS

    def packed(self, latents: Tensor) -> Tensor:
        """As the pipeline lays them out for its denoiser."""
        return latents

    def unpacked(self, latents: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """(B, c, t, h, w) of what the pipeline or its denoiser laid out.

        Args:
            sizes: t, h and w; read only where the layout does not show them.
        """
        return latents

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        """Arguments of the denoiser's call that follow from the latents' size."""
        return {}

    # -- what is trained ----------------------------------------------------------------------------------------------

    def why_not_trained(self) -> str | None:
        """Why this checkpoint cannot be trained, as a clause about it; None where it can."""
        return None

    @property
    def lora_pattern(self) -> str:
        """The full names of the denoiser's layers that take a low-rank update, as a regular expression."""
        blocks = "|".join(self.family.block_lists)
        return rf"({blocks})\.\d+\.(.*\.)?({'|'.join(map(re.escape, self.family.lora_targets))})"


def middle(latents: Tensor) -> Tensor:
    """The middle latent frame of (1, c, t, h, w), as (1, c, 1, h, w)."""
    frame = latents.shape[2] // 2
    return latents[:, :, frame : frame + 1]


def per_channel(values: Any, like: Tensor) -> Tensor:
    """An autoencoder's statistics, to be laid over latents (B, c, t, h, w)."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)
