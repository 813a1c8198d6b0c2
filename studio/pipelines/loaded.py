"""LoadedPipeline: the loaded pipeline. Runs a request, shows where it stands, and forgets it.

Knows how a run of any family is watched from outside: diffusers' pipelines differ in their callbacks (one has none),
but each calls its transformer, then `scheduler.step`, and at last `vae.decode`. Those three are wrapped on the
instances for the time of a run. Refuses to know events, caches and files.

The stages of a run, told to `on_stage` with device-synchronised seconds:

    encoding      from the call to the first pass of the transformer
    denoising     from there to the first call of `vae.decode`
    decoding      from there to the finished frames
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from studio.errors import NumericalError, OutOfMemory, RequestError
from studio.events import Placement, Stage
from studio.family import Branches
from studio.pipelines import compiling, schedules
from studio.pipelines.conditions import Conditions, conditions_of
from studio.pipelines.families import VideoModel, video_models
from studio.pipelines.randomness import private_randomness
from studio.preset import Preset
from studio.requests.generation import GenerationRequest


@dataclass(frozen=True, kw_only=True)
class StepStart:
    """A step about to begin."""

    index: int
    """From 0."""
    total: int
    sigma: float
    """Noise level that the step starts from: the noise's share, 1 to 0 (its deviation with Euler ancestral)."""
    timestep: float
    """As the transformer is told."""


@dataclass(frozen=True, kw_only=True)
class StepState(StepStart):
    """A step that has ended."""

    seconds: float
    """Device-synchronised: every pass and the scheduler's own step."""
    latents: torch.Tensor
    """Latents after the step, as the family lays them out."""
    estimate: Callable[[], torch.Tensor]
    """The clean latents as the transformer saw them at this step; computed when called."""


StageListener = Callable[[Stage, float | None], None]
"""Told that a stage begins (None), or that it has ended after so many seconds."""


class LoadedModel:
    """A preset's pipeline, loaded and placed; what it is for does not matter here."""

    def __init__(
        self,
        *,
        preset: Preset,
        placement: Placement,
        folder: Path,
        pipe: Any,
        adapter: Path | None = None,
    ) -> None:
        self.preset = preset
        self.placement = placement
        self.folder = folder
        self.adapter = adapter
        self.pipe = pipe

    @property
    def models(self) -> dict[str, nn.Module]:
        """Everything with weights, by component."""
        return {name: model for name, model in self.pipe.components.items() if isinstance(model, nn.Module)}

    @property
    def transformers(self) -> tuple[nn.Module, ...]:
        """The denoisers: one, or two where high and low noise have their own."""
        return tuple(model for name, model in self.models.items() if name in ("transformer", "transformer_2"))

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """Every transformer block in the order of one pass; with two denoisers, the second's after the first's."""
        names = self.preset.checkpoint.block_lists
        return tuple(block for model in self.transformers for name in names for block in getattr(model, name))

    @contextmanager
    def asking(self, check: Callable[[], None]) -> Iterator[None]:
        """Within it, `check` is called before every layer, of a compiled block before the block: what it raises ends
        whatever the model is at, within a layer's time."""
        with ExitStack() as handles:
            for model in self.models.values():
                for layer in _layers_of(model):
                    handles.callback(layer.register_forward_pre_hook(lambda *_: check()).remove)
            yield

    def holds(self, preset: Preset, placement: Placement, folder: Path, adapter: Path | None = None) -> bool:
        """Whether this is that preset's model, placed that way; tiling can be changed in place."""

        def settings(placement: Placement) -> tuple[object, ...]:
            return (
                placement.device,
                placement.torch_dtype,
                placement.vae_dtype,
                placement.channels_last,
                placement.planar,
                placement.offload,
                placement.quantization,
                placement.compile,
                placement.attention_backend,
            )

        same_place = settings(self.placement) == settings(placement)
        same_weights = self.folder == folder and self.adapter == adapter
        return self.preset.digest == preset.digest and same_weights and same_place

    def set_tiling(self, placement: Placement) -> None:
        """Take on a placement that differs from the present one in tiling at most."""
        self.placement = placement

    def convolutions(self) -> AbstractContextManager[None]:
        """The same bits every time, and float32 in all its bits: a card's convolutions would round it to ten, so that
        what differs in its last ones (weights that an update was added to, and the update beside them) is seen. An
        autoencoder that is in float32 beside a denoiser in 16 bits is not slowed down for that."""
        rounded = self.placement.torch_dtype != "float32"
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=rounded)


def _layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """What has no layers within it, or none whose hooks would be called."""
    parts = () if hasattr(module, compiling.NAME) else tuple(module.children())
    if not parts:
        yield module
    for part in parts:
        yield from _layers_of(part)


class LoadedPipeline(LoadedModel):
    """A preset's pipeline that makes clips of prompts, loaded and placed."""

    def __init__(
        self,
        *,
        preset: Preset,
        placement: Placement,
        folder: Path,
        pipe: Any,
        adapter: Path | None = None,
    ) -> None:
        super().__init__(preset=preset, placement=placement, folder=folder, pipe=pipe, adapter=adapter)
        self.model: VideoModel = video_models()[preset.pipeline](preset, pipe)
        """How its family's models are called."""
        self._transformers: tuple[nn.Module, ...] = tuple(self.model.denoisers.values())
        self.stacks: tuple[tuple[nn.Module, ...], ...] = tuple(map(self.model.blocks, self.transformers))
        """Each denoiser's blocks in the order of a pass."""
        self._blocks: tuple[nn.Module, ...] = tuple(block for stack in self.stacks for block in stack)
        self.branches: Branches = self.model.family.branches
        """How guidance runs; a request with a guidance scale of 1 or less has one branch whatever this says."""
        self._scheduler = pipe.scheduler
        self._request: GenerationRequest | None = None
        self._undo = ExitStack()

    @property
    def transformers(self) -> tuple[nn.Module, ...]:
        return self._transformers

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        return self._blocks

    def set_tiling(self, placement: Placement) -> None:
        super().set_tiling(placement)
        (self.pipe.vae.enable_tiling if placement.vae_tiling else self.pipe.vae.disable_tiling)()

    def to_train(self) -> VideoModel:
        """Its models, seen as a function to be trained.

        Raises:
            RequestError: weights in 8 bits, or a checkpoint of its family that cannot be trained.
        """
        quantized = self.placement.quantization != "none"
        reason = "its weights are quantised." if quantized else self.model.why_not_trained()
        if reason is not None:
            raise RequestError(
                f"{self.preset.title} cannot be fine-tuned here: {reason}",
                field="preset",
                value=self.preset.name,
                way_out="Choose another preset, such as the pocket model.",
            )
        return self.model

    def run(
        self,
        request: GenerationRequest,
        *,
        generator: torch.Generator,
        on_step: Callable[[StepState], None],
        interrupted: Callable[[], bool],
        on_step_start: Callable[[StepStart], None] | None = None,
        on_stage: StageListener | None = None,
        conditions: Conditions | None = None,
    ) -> np.ndarray:
        """Make a clip.

        Args:
            generator: On the CPU, seeded for this clip alone, so that the noise is the same on every device.
            on_step: Called after each step. What it raises ends the run and passes through untouched.
            interrupted: Asked after each step; once it says yes, the denoised estimate of that step is decoded.
            on_step_start: Called before each step's first pass of the transformer.
            on_stage: Called as encoding, denoising and decoding begin and end.
            conditions: What the request's files are; None reads them.

        Returns:
            uint8 (F, H, W, 3).

        Raises:
            NumericalError: NaN or infinity in the latents after a step, or in the decoded frames.
            OutOfMemory: with the way out.
        """
        self.reset()
        self._request = request
        watch = _Watch(self, on_step, on_step_start, on_stage, interrupted)
        given = conditions_of(request) if conditions is None else conditions
        call = self.model.arguments(request) | self.model.conditioned(request, given)
        with (
            out_of_memory(f"{self.preset.title} at {request.height}×{request.width}, {request.num_frames} frames"),
            private_randomness(request.seed),
            self.convolutions(),
        ):
            # Undone by `reset`, on every way out.
            try:
                watch.begin(schedules.fresh(self._scheduler, request.flow_shift), self._undo)
                self.model.prepare(request)
                frames = self.pipe(**call, generator=generator, output_type="np").frames[0]
                clip = _to_8_bits(np.asarray(frames))
                watch.end()
            finally:
                self.reset()
        return clip

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise level of each step of the run under way; known once its first step begins."""
        scheduler = self.pipe.scheduler
        return tuple(schedules.sigma(scheduler, index) for index in range(len(scheduler.timesteps)))

    @property
    def handover(self) -> int | None:
        """The first step of the run under way that the second denoiser takes, if one does; known as `sigmas` is."""
        return self.model.handover(self.pipe.scheduler.timesteps.tolist())

    def preview(self, estimate: torch.Tensor) -> np.ndarray:
        """The middle latent frame of a denoised estimate as uint8 (H, W, 3).

        Cheap where the autoencoder is at hand; under model or sequential offloading it has to be fetched each time.
        """
        if self._request is None:
            raise ValueError("a preview belongs to a run, and none has begun")
        vae = self.pipe.vae
        with torch.no_grad(), private_randomness(0):
            z = self.model.preview_latents(estimate, self._request)
            decoded = self.model.preview_pixels(z.to(_device_of(vae, self.placement), vae.dtype)).float()
        frame = _first_frame(decoded).permute(1, 2, 0)
        return ((frame / 2 + 0.5).nan_to_num(0).clamp(0, 1) * 255).round().byte().cpu().numpy()

    def reset(self) -> None:
        """Forget everything a run left behind; the next one is bit-identical to a first. Harmless at any time."""
        self._undo.close()
        self.pipe.scheduler = self._scheduler
        self.pipe._interrupt = False
        self.pipe.maybe_free_model_hooks()  # resets the caches on its transformers, too
        clear_cache = getattr(self.pipe.vae, "clear_cache", None)
        if callable(clear_cache):  # Wan's keeps the last frames' features
            clear_cache()


class _Watch:
    """Follows one run through the three calls that every pipeline makes."""

    def __init__(
        self,
        ready: LoadedPipeline,
        on_step: Callable[[StepState], None],
        on_step_start: Callable[[StepStart], None] | None,
        on_stage: StageListener | None,
        interrupted: Callable[[], bool],
    ) -> None:
        self._ready = ready
        self._on_step = on_step
        self._on_step_start = on_step_start
        self._on_stage = on_stage
        self._interrupted = interrupted
        self._scheduler: Any = None
        self._steps = 0
        """Steps that have ended."""
        self._announced = -1
        """The last step whose start was told."""
        self._stage: Stage | None = None
        self._stage_began = 0.0
        self._step_began = 0.0

    def begin(self, scheduler: Any, undo: ExitStack) -> None:
        """Put the wrappers on; `undo` takes them off again."""
        pipe = self._ready.pipe
        self._scheduler = scheduler
        scheduler.step = self._watched_step(scheduler.step)
        pipe.scheduler = scheduler
        for transformer in self._ready.transformers:
            undo.callback(transformer.register_forward_pre_hook(self._before_pass).remove)
        pipe.vae.decode = self._watched_decode(pipe.vae.decode)
        undo.callback(pipe.vae.__dict__.pop, "decode", None)
        undo.callback(pipe.vae.decoder.register_forward_hook(self._after_decoder).remove)
        self._enter("encoding")

    def end(self) -> None:
        self._leave()

    def _before_pass(self, _transformer: nn.Module, _arguments: tuple[Any, ...]) -> None:
        self._enter("denoising")
        if self._announced == self._steps:
            return
        self._announced = self._steps
        if self._on_step_start is not None:
            self._on_step_start(StepStart(**self._position()))
        self._step_began = self._now()

    def _position(self) -> dict[str, Any]:
        index, timesteps = self._steps, self._scheduler.timesteps
        return {
            "index": index,
            "total": len(timesteps),
            "sigma": schedules.sigma(self._scheduler, index),
            "timestep": float(timesteps[index]),
        }

    def _watched_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(step)

        @functools.wraps(step)  # the pipelines read its signature to learn whether it takes a generator
        def watched(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            v, x = given["model_output"], given["sample"]
            position = self._position()
            estimate = functools.cache(functools.partial(schedules.denoised, self._scheduler, position["index"], v, x))
            result = step(*args, **kwargs)
            latents = result[0]
            if not torch.isfinite(latents).all():
                raise NumericalError(
                    f"NaN or infinity in the latents after step {position['index'] + 1} of {position['total']}.",
                    field="num_inference_steps",
                    value=position["index"],
                    way_out="Set torch_dtype to float32, or lower the guidance scale.",
                )
            seconds = self._now() - self._step_began
            self._on_step(StepState(**position, seconds=seconds, latents=latents, estimate=estimate))
            self._steps += 1
            if self._steps < position["total"] and self._interrupted():
                self._ready.pipe._interrupt = True
                result = (estimate(), *result[1:])
            return result

        return watched

    def _watched_decode(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        vae, title = self._ready.pipe.vae, self._ready.preset.title

        @functools.wraps(decode)
        def watched(z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._enter("decoding")
            # Not every pipeline casts, and the autoencoder may have a format of its own.
            with out_of_memory(f"decoding with {title}"):
                return decode(z.to(vae.dtype), *args, **kwargs)

        return watched

    def _after_decoder(self, _decoder: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        """Looks at what the decoder's network returns: Wan's autoencoder clamps it next, and infinity becomes white."""
        if self._stage != "decoding":
            return  # a preview
        frames = output[0] if isinstance(output, tuple) else output
        if not torch.isfinite(frames).all():
            raise NumericalError(
                f"NaN or infinity in the frames that {self._ready.preset.title} decoded.",
                field="torch_dtype",
                value=self._ready.placement.vae_dtype,
                way_out="Set torch_dtype to float32.",
            )

    def _enter(self, stage: Stage) -> None:
        if self._stage == stage:
            return
        self._leave()
        self._stage, self._stage_began = stage, time.perf_counter()
        if self._on_stage is not None:
            self._on_stage(stage, None)

    def _leave(self) -> None:
        if self._stage is None:
            return
        now = self._now()
        stage, self._stage = self._stage, None
        if self._on_stage is not None:
            self._on_stage(stage, now - self._stage_began)

    def _now(self) -> float:
        """Seconds on the clock, once the device has done what it was told."""
        synchronize(self._ready.placement.device)
        return time.perf_counter()


@contextmanager
def out_of_memory(doing: str) -> Iterator[None]:
    """Turn torch's and Python's ways of running out of memory into the studio's one."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(doing) from error
    except RuntimeError as error:
        # The CPU allocator and mps raise plain RuntimeErrors.
        if not any(sign in str(error) for sign in ("DefaultCPUAllocator", "not enough memory", "out of memory")):
            raise
        raise _out_of_memory(doing) from error


def _out_of_memory(doing: str) -> OutOfMemory:
    return OutOfMemory(
        f"Memory ran out: {doing}.",
        way_out="Choose a smaller size or length, switch vae_tiling on, or offload more.",
    )


def synchronize(device: str) -> None:
    """Wait until a device has done all that it was told; a processor already has."""
    if waits := SYNCHRONIZE.get(device.partition(":")[0]):
        waits()


SYNCHRONIZE: dict[str, Callable[[], None]] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
"""By torch's name of the kind of device; what is not here works before it answers."""


def _device_of(vae: nn.Module, placement: Placement) -> torch.device:
    return torch.device(placement.device) if placement.offload != "none" else next(vae.parameters()).device


def _first_frame(decoded: torch.Tensor) -> torch.Tensor:
    """(3, H, W) of what an autoencoder returned: (1, 3, f, H, W), or (1, 3, H, W) from one that knows images only."""
    return decoded[0] if decoded.ndim == 4 else decoded[0, :, 0]


def _to_8_bits(frames: np.ndarray) -> np.ndarray:
    """uint8 (F, H, W, 3) of values in [0, 1], frame by frame so that no second clip in float is held."""
    clip = np.empty(frames.shape, dtype=np.uint8)
    for target, frame in zip(clip, frames, strict=True):
        np.rint(frame * 255, out=target, casting="unsafe")
    return clip
