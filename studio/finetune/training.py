"""The training itself: a state that can be written at any step, and one step after the other.

Whatever is random in a sample's turn is drawn from a generator seeded by the request's seed and the turn's number, so
that a training that was killed and went on is, on a CPU, bit for bit the one that never stopped. Several processes take
turns in the same order as one process would alone, average their gradients, and share out the frozen denoiser.

Knows models, objectives and files of state. Refuses to know versions, events and where clips come from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.chopgrad import (
    Backprop,
    ChunkedDecoder,
    CropSize,
    Region,
    chunked,
    decode_backward,
    decode_values,
)
from studio.distributed import average_gradients, share_out
from studio.errors import NumericalError
from studio.finetune.objectives import PixelLoss
from studio.metrics.fidelity import lpips_network
from studio.pipelines.adapters import open_adapters, without_adapters
from studio.pipelines.families import Prompt, VideoModel
from studio.records.versions import Scores
from studio.requests.training import FinetuneRequest
from studio.storage import whole

WARM_UP_STEPS = 10
GRADIENT_CLIP = 1.0
SCORED_LEVELS = (0.3, 0.6, 0.85)
"""Noise levels at which samples are scored: fine detail, objects, layout."""
HIGH_LEVEL = 0.95
"""One more, where low noise has a denoiser of its own; it would be all that is scored."""
MOST_SCORED = 8
"""Held-out samples that are scored; more tell little more and cost as much each."""


@dataclass(frozen=True)
class Prepared:
    """Samples as the model sees them; small beside a model, so all of them are held in memory."""

    pixels: Tensor
    """(N, F, H, W, 3), uint8."""
    latents: Tensor
    """(N, c, t, h, w), float32, normalised."""
    prompts: tuple[Prompt, ...]
    """Of each sample."""
    held_out: Tensor
    """(N,), bool."""
    prior_latents: Tensor
    """(P, c, t, h, w): what the model made of other prompts before; P may be 0."""
    prior_prompts: tuple[Prompt, ...]
    """Of each of these."""

    def save(self, path: Path) -> None:
        tensors = {name: value.contiguous() for name, value in vars(self).items() if isinstance(value, Tensor)}
        for which in ("prompts", "prior_prompts"):
            for number, prompt in enumerate(getattr(self, which)):
                # Samples of one caption share it; a file does not know how to.
                tensors |= {f"{which}/{number}/{name}": tensor.clone() for name, tensor in prompt.items()}
        with whole(path) as part:
            save_file(tensors, part)

    @classmethod
    def load(cls, path: Path) -> Prepared:
        tensors = load_file(path)
        prompts: dict[str, dict[int, Prompt]] = {"prompts": {}, "prior_prompts": {}}
        for key in [key for key in tensors if "/" in key]:
            which, number, name = key.split("/")
            prompts[which].setdefault(int(number), {})[name] = tensors.pop(key)
        own, prior = (tuple(each[number] for number in sorted(each)) for each in prompts.values())
        return cls(prompts=own, prior_prompts=prior, **tensors)

    def target(self, number: int) -> Tensor:
        """Pixels (1, 3, F, H, W) in -1..1, float32."""
        return self.pixels[number].permute(3, 0, 1, 2)[None].float() / 127.5 - 1

    @property
    def trained_on(self) -> list[int]:
        kept = torch.nonzero(~self.held_out).flatten().tolist()
        return kept or list(range(len(self.latents)))

    @property
    def scored(self) -> list[int]:
        """Held-out samples, spread over all of them; those trained on where nothing is held out."""
        held = torch.nonzero(self.held_out).flatten().tolist() or list(range(len(self.latents)))
        stride = max(1, len(held) // MOST_SCORED)
        return held[::stride][:MOST_SCORED]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What an optimizer step came to."""

    step: int
    """How many are done."""
    loss: float
    latent: float
    """The part of the model's own loss."""
    pixel: float | None
    """The part of decoded frames; None where the objective has none."""
    learning_rate: float
    seconds: float


class Training:
    """Adapters in training on prepared samples."""

    def __init__(self, model: VideoModel, request: FinetuneRequest, prepared: Prepared) -> None:
        self.model = model
        self.request = request
        self.prepared = prepared
        self.step = 0
        self.seconds = 0.0
        self.decoder: ChunkedDecoder | None = None
        if request.objective != "latent":
            model.decode_in_groups()
            self.decoder = chunked(model.vae)
        seen = self.decoder is not None and request.perceptual_weight > 0
        self.perceptual = lpips_network().to(model.device) if seen else None
        self.parameters = open_adapters(model, request)
        if request.checkpoint_blocks:
            for denoiser in model.denoisers.values():
                denoiser.enable_gradient_checkpointing()
        for denoiser in model.denoisers.values():
            share_out(denoiser, model.blocks(denoiser), trained=self.parameters.values())
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=request.learning_rate, weight_decay=0.0)
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    # -- one step -----------------------------------------------------------------------------------------------------

    def take_step(self) -> StepResult:
        """One optimizer step.

        Raises:
            NumericalError: the loss or a gradient is not finite; nothing was changed.
        """
        began = time.perf_counter()
        turns = self.request.gradient_accumulation_steps
        self.optimizer.zero_grad(set_to_none=True)
        latent = pixel = 0.0
        for turn in range(turns):
            number = (self.step * turns + turn) * self.world + self.rank
            parts = self.take_turn(number, 1 / turns)
            latent, pixel = latent + parts[0], pixel + parts[1]
        latent, pixel = self._averaged_over_all(latent, pixel)
        loss = (latent if self.request.objective != "pixel" else 0.0) + pixel
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), GRADIENT_CLIP)
        if not (torch.isfinite(norm) and torch.isfinite(torch.tensor(loss))):
            raise NumericalError(
                f"The loss became {loss:g} at step {self.step + 1}.",
                field="learning_rate",
                value=self.request.learning_rate,
                way_out="Take a smaller learning rate, such as a tenth of it. The last checkpoint is kept.",
            )
        rate = self.request.learning_rate * min(1.0, (self.step + 1) / WARM_UP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        decay = min(self.request.ema_decay, self.step / (self.step + 9))
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return StepResult(
            step=self.step,
            loss=loss,
            latent=latent,
            pixel=None if self.decoder is None else pixel / (self._pixel_weight or 1.0),
            learning_rate=rate,
            seconds=seconds,
        )

    @property
    def _pixel_weight(self) -> float:
        return self.request.pixel_weight if self.request.objective == "mixed" else 1.0

    def take_turn(self, number: int, share: float) -> tuple[float, float]:
        """Add one sample's gradients, times `share`, to the parameters'; its losses times `share`."""
        generator = self._generator(number)
        candidates = self.prepared.trained_on
        chosen = candidates[int(torch.randint(len(candidates), (1,), generator=generator))]
        clean = self.prepared.latents[chosen][None]
        noise = torch.randn(clean.shape, generator=generator)
        level = self._level(generator, clean)
        estimate, latent = self._one_step(chosen, clean, noise, level)
        total = latent * share if self.request.objective != "pixel" else estimate.sum() * 0
        pixel = 0.0
        if self.decoder is not None:
            z = self.model.denormalised(estimate)
            how, part = self.way_back(z, generator)
            target = self.prepared.target(chosen).to(z.device)
            loss = self._pixel_loss(target, weight=self._pixel_weight * share, share=part)
            vae_dtype = next(self.model.vae.parameters()).dtype
            decoded = decode_backward(self.decoder, z.detach().to(vae_dtype), loss, how)
            pixel = float(decoded.loss)
            total = total + (z * decoded.gradient.to(z.dtype)).sum()
        if self.request.prior_loss_weight and len(self.prepared.prior_latents):
            total = total + self.request.prior_loss_weight * share * self._prior_loss(generator)
        total.backward()
        return float(latent.detach()) * share, pixel

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.request.seed * 1_000_003 + number) % 2**63)

    def _level(self, generator: torch.Generator, clean: Tensor) -> float:
        """A noise level to train at. Of two denoisers a step trains one, in which all processes then meet."""
        model = self.model
        level = model.draw_level(generator, clean)
        if len(model.denoisers) > 1:
            wanted = model.denoiser_at(torch.tensor([model.draw_level(self._generator(self.step), clean)]))
            while model.denoiser_at(torch.tensor([level])) is not wanted:
                level = model.draw_level(generator, clean)
        return level

    def _pixel_loss(self, target: Tensor, **how: float) -> PixelLoss:
        return PixelLoss(
            target,
            structure_weight=self.request.structure_weight,
            perceptual_weight=self.request.perceptual_weight,
            perceptual=self.perceptual,
            **how,
        )

    def way_back(self, z: Tensor, generator: torch.Generator) -> tuple[Backprop, float]:
        """How to go through the decoder, and which share of the picture is looked at."""
        request = self.request
        crop, share = None, 1.0
        if request.crop_size is not None:
            squares = CropSize(size=request.crop_size).count(*z.shape[-2:])
            only = int(torch.randint(squares, (1,), generator=generator))
            crop, share = CropSize(size=request.crop_size, only=only), 1 / squares
        how = Backprop(
            mode=request.mode,
            window=request.window,
            context=request.context,
            keep_caches=request.keep_caches,
            checkpoint_blocks=request.checkpoint_blocks,
            crop=crop,
        )
        return how, share

    def _one_step(self, number: int, clean: Tensor, noise: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """The denoised estimate of a sample (1, c, t, h, w), and the model's own loss."""
        model, device = self.model, self.model.device
        clean, noise = clean.to(device), noise.to(device)
        noisy = model.noised(clean, noise, level)
        sigma = torch.tensor([level], device=device)
        prediction = model.predict(noisy, sigma, _on(device, self.prepared.prompts[number]))
        loss = (prediction - model.target(clean, noise, level)).square().mean()
        return model.estimate(noisy, prediction, level), loss

    def _prior_loss(self, generator: torch.Generator) -> Tensor:
        """How far the model has gone from what it said, before, of its own clips of other prompts."""
        model, device = self.model, self.model.device
        chosen = int(torch.randint(len(self.prepared.prior_latents), (1,), generator=generator))
        clean = self.prepared.prior_latents[chosen][None]
        noise = torch.randn(clean.shape, generator=generator)
        level = self._level(generator, clean)
        noisy = model.noised(clean, noise, level).to(device)
        conditions = torch.tensor([level], device=device), _on(device, self.prepared.prior_prompts[chosen])
        with torch.no_grad(), without_adapters(model):
            before = model.predict(noisy, *conditions)
        return (model.predict(noisy, *conditions) - before).square().mean()

    def _averaged_over_all(self, latent: float, pixel: float) -> tuple[float, float]:
        """Means over the processes: gradients in place, and the losses.

        Parameters without a gradient have none anywhere: all are of the denoiser that this step does not train.
        """
        if self.world == 1:
            return latent, pixel
        average_gradients(self.parameters.values())
        losses = torch.tensor([latent, pixel], dtype=torch.float64, device=self.model.device)
        dist.all_reduce(losses)
        return float(losses[0]) / self.world, float(losses[1]) / self.world

    # -- looking ------------------------------------------------------------------------------------------------------

    def averaged(self) -> _Averaged:
        """Within it, the models have the moving average of the weights, which is what is kept."""
        return _Averaged(self)

    @torch.no_grad()
    def scores(self) -> Scores:
        """One-step estimates of held-out samples at fixed noise, by the averaged weights."""
        squared: list[float] = []
        pixels: list[float] = []
        latents: list[float] = []
        with self.averaged():
            for estimate, latent, target in self._estimates():
                frames = torch.cat([part for part, _ in self._decoded(estimate)], dim=2)
                squared.append(float((frames - target).square().mean()) / 4)
                latents.append(latent)
                pixels.append(float(self._pixel_loss(target)(frames, Region(slice(None)))))
        decibels = [-10 * math.log10(max(each, 1e-12)) for each in squared]
        latent, pixel = _mean(latents), _mean(pixels)
        objective = {"latent": latent, "pixel": pixel, "mixed": latent + self._pixel_weight * pixel}
        return Scores(psnr=_mean(decibels), pixel=pixel, latent=latent, objective=objective[self.request.objective])

    @torch.no_grad()
    def _estimates(self) -> Iterator[tuple[Tensor, float, Tensor]]:
        """Denoised estimate, the model's own loss and target of every scored sample at every scored noise level."""
        levels = SCORED_LEVELS if len(self.model.denoisers) == 1 else (*SCORED_LEVELS, HIGH_LEVEL)
        for number in self.prepared.scored:
            clean = self.prepared.latents[number][None]
            target = self.prepared.target(number).to(self.model.device)
            for turn, level in enumerate(levels):
                noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1000 * number + turn))
                estimate, latent = self._one_step(number, clean, noise, level)
                yield estimate, float(latent), target

    def _decoded(self, estimate: Tensor) -> Iterator[tuple[Tensor, object]]:
        if self.decoder is None:
            yield self.model.decoded(estimate), None
            return
        z = self.model.denormalised(estimate).to(next(self.model.vae.parameters()).dtype)
        yield from ((frames.float(), region) for frames, region in decode_values(self.decoder, z))

    # -- state --------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Everything that a later process needs to go on as if nothing had happened; atomically."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        with whole(path) as part:
            torch.save(state, part)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])


class _Averaged:
    """The averaged weights in the models' place, and back."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._own: dict[str, Tensor] = {}

    @torch.no_grad()
    def __enter__(self) -> None:
        for name, parameter in self._training.parameters.items():
            self._own[name] = parameter.detach().clone()
            parameter.copy_(self._training.average[name])

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for name, parameter in self._training.parameters.items():
            parameter.copy_(self._own.pop(name))


def _on(device: torch.device, prompt: Prompt) -> Prompt:
    return {name: tensor.to(device) for name, tensor in prompt.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
