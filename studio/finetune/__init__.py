"""Fine-tune: clips become a low-rank update of a preset's model, as a version that every tab can use.

    for event in finetune(request, store=RunStore(folder)):
        ...
    for event in go_on(version_id, store=RunStore(folder)):
        ...

Under `torchrun` several processes train as one: each takes its own samples and holds its share of the frozen denoiser;
the first one writes.
Closing the stream stops after the step under way and keeps what was learnt. A killed process loses at most the steps
since the last checkpoint; what goes on from there is, on a CPU, bit for bit what would have been.

    clips.py         files become samples
    objectives.py    what is minimised
    training.py      steps, scores, state

Knows the order of the work. Refuses to know how gradients go through a decoder (`chopgrad`), how a family is called
(`pipelines`), and who listens.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from studio.errors import OutOfMemory, RequestError, StudioError, VersionError
from studio.events import (
    CheckpointWritten,
    FinetuneEvent,
    Notice,
    RunFinished,
    StepFinished,
    Stop,
    TrainingFinished,
    TrainingForecast,
    TrainingSample,
    TrainingScored,
    TrainingStage,
    TrainingStarted,
    TrainingStep,
)
from studio.family import family_of
from studio.generate import generate
from studio.machine.environment import environment
from studio.machine.hardware import Machine, measure
from studio.preset import Preset, find_preset
from studio.records.event_log import EventLog
from studio.records.runs import RunStore
from studio.records.versions import LOG, LORA_2_FILE, LORA_FILE, Scores, Version, VersionStore
from studio.requests.generation import GenerationRequest, request_for
from studio.requests.training import FinetuneRequest, check_finetune_request
from studio.requests.work import TrainVersion

if TYPE_CHECKING:
    from studio.finetune.training import Prepared, Step, Training
    from studio.pipelines import LoadedPipeline
    from studio.pipelines.families import Prompt, VideoModel

STATE, SAMPLES = "state.pt", "samples.safetensors"
PRIOR_CLIPS = 4
"""Clips of other prompts that hold the model to what it was, where that is asked for."""
PRIOR_STEPS = 12
FORECAST_STEPS = 2


def finetune(request: FinetuneRequest, *, store: RunStore) -> Generator[FinetuneEvent]:
    """Train a new version, saying everything that happens.

    Args:
        request: What to learn from, and how.
        store: Runs' folder; versions lie beside the runs.

    Yields:
        TrainingStarted early and TrainingFinished last.

    Raises:
        StudioError: the request does not fit the preset, no clip is usable, memory or disk ran out, the loss became
            NaN. The version keeps its last checkpoint and says what happened.
    """
    from studio.distributed import from_the_first, join

    first = join()[0] == 0
    version_id = from_the_first(begin(request, store=store).id if first else "")
    yield from go_on(version_id, store=store)


def begin(request: FinetuneRequest, *, store: RunStore) -> Version:
    """Write a new version down, for `go_on` to train. Loads nothing.

    Raises:
        StudioError: the request does not fit the preset, or there is no room.
    """
    preset = find_preset(request.preset)
    check_finetune_request(request, preset)
    _check_perceptual(request)
    return VersionStore(store.folder).begin(request, preset_digest=preset.digest)


def _check_perceptual(request: FinetuneRequest) -> None:
    """LPIPS can be had, if it is asked for."""
    if request.perceptual_weight == 0 or request.objective == "latent":
        return
    from studio.metrics.fidelity import LPIPS_LEAST_SIDE, lpips_missing

    missing = lpips_missing()
    if missing is None and min(request.height, request.width) < LPIPS_LEAST_SIDE:
        missing = f"LPIPS needs frames of at least {LPIPS_LEAST_SIDE} pixels."
    if missing is not None:
        raise RequestError(
            missing, field="perceptual_weight", value=request.perceptual_weight, way_out="Set it to 0, or mend that."
        )


def forecast(request: FinetuneRequest) -> TrainingForecast:
    """What a training would take, measured on two steps; nothing is kept.

    Raises:
        StudioError: as `finetune` would, up to its second step.
    """
    with TemporaryDirectory(prefix="forecast-") as scratch:
        store = RunStore(Path(scratch))
        with closing(go_on(begin(request, store=store).id, store=store, predict=True)) as events:
            return next(event for event in events if isinstance(event, TrainingForecast))


def go_on(version_id: str, *, store: RunStore, predict: bool = False) -> Generator[FinetuneEvent]:
    """Train a version that was begun, or go on with one that was stopped, from its last checkpoint.

    Args:
        version_id: Which.
        store: Runs' folder.
        predict: Only say what the steps to come would take, measured on two that are not kept. The version is left
            stopped where it was, with its samples prepared; training it later is as if nothing had happened.

    Raises:
        VersionError: there is none, it is complete, or somebody is training it.
        StudioError: as `finetune` would.
    """
    versions = VersionStore(store.folder)
    version = versions.get(version_id)
    if version.state == "complete":
        raise VersionError(
            f"Version {version_id} is complete.",
            field="version",
            value=version_id,
            way_out="Fine-tune anew, with more steps.",
        )
    try:
        preset = preset_of(version)
    except StudioError as error:  # said in the record too, for the worker that trains has nobody to tell
        versions.write(replace(version, state="failed", error=error.to_json()))
        raise
    yield from _Finetune(preset, version, versions, predicts=predict).run()


def train(work: TrainVersion, *, store: RunStore, owner: str, stop: Stop) -> Generator[FinetuneEvent]:
    """`go_on` as the queue calls it; whatever `stop` says, what was learnt is kept."""
    with closing(go_on(work.version_id, store=store, predict=work.predict)) as events:
        for event in events:
            yield event
            if stop() is not None:
                return


def preset_of(version: Version) -> Preset:
    """The preset that a version was begun with.

    Raises:
        StudioError: there is none by now, or it has changed.
    """
    preset = find_preset(version.request.preset)
    if preset.digest != version.preset_digest:
        raise VersionError(
            f"The preset {preset.name} has changed since version {version.id} was begun.",
            field="version",
            value=version.id,
            way_out="Fine-tune anew.",
        )
    return preset


class _Finetune:
    """One training, from the request or the last checkpoint to the finished version."""

    def __init__(self, preset: Preset, version: Version, versions: VersionStore, *, predicts: bool) -> None:
        from studio.distributed import join

        self.leads = join()[0] == 0
        """Whether this process writes; of several, the first one does."""
        self.predicts = predicts
        """Whether only to measure; no step is kept then."""
        self.preset = preset
        self.version = version
        self.versions = versions
        self.request = version.request
        self.folder = versions.path(version.id)
        self._clips = RunStore(self.folder / "clips")
        self._peak_bytes = 0
        self._step_seconds: list[float] = []
        self._other_seconds = 0.0

    def run(self) -> Generator[FinetuneEvent]:
        """What happens, written into the version's log as well."""
        if not self.leads:
            yield from self._run()
            return
        with closing(EventLog(self.folder / LOG)) as log, closing(self._run()) as events:
            for event in events:
                log.write(event)
                yield event

    def _run(self) -> Generator[FinetuneEvent]:
        lock = self.versions.lock(self.version.id)
        if self.leads and not lock.try_acquire():
            raise VersionError(f"Version {self.version.id} is being trained.", field="version", value=self.version.id)
        training: Training | None = None
        model: VideoModel | None = None
        try:
            import torch

            self._record(state="training", error=None, environment=environment(torch))
            yield TrainingStage(stage="loading")
            from studio.distributed import wait_for_all
            from studio.finetune.training import Prepared, Training

            loaded = self._load()
            model = loaded.to_train()
            if self.leads:
                prepared = yield from self._prepared(model)
                wait_for_all()
            else:
                wait_for_all()
                prepared = Prepared.load(self.folder / SAMPLES)
            training = Training(model, self.request, prepared)
            if (self.folder / STATE).is_file():
                training.load(self.folder / STATE)
            yield TrainingStarted(
                version_id=self.version.id,
                total_steps=self.request.max_train_steps,
                first_step=training.step,
                samples=len(prepared.latents),
                held_out=int(prepared.held_out.sum()),
                placement=loaded.placement,
            )
            if self.predicts:
                yield from self._predict(training)
                self._record(state="stopped")
                return
            yield from self._before(training)
            yield from self._train(training)
            yield from self._after(training)
        except GeneratorExit:
            self._stopped(training)
            raise
        except StudioError as error:
            self._record(state="failed", error=error.to_json())
            raise
        except BaseException as error:
            failure = StudioError(f"Something unforeseen went wrong: {type(error).__name__}: {str(error)[:500]}")
            self._record(state="failed", error=failure.to_json())
            raise
        finally:
            lock.release()
            if model is not None:
                from studio.pipelines import unload
                from studio.pipelines.adapters import close_adapters

                close_adapters(model)
                unload()

    # -- before -------------------------------------------------------------------------------------------------------

    def _load(self) -> LoadedPipeline:
        from studio import pipelines
        from studio.machine import weights

        placement = pipelines.place(self.preset, self._request_of("a clip"), self._machine)
        return pipelines.load(self.preset, placement, folder=weights.folder_of(self.preset))

    @cached_property
    def _machine(self) -> Machine:
        """Looked at once: a slow graphics driver takes seconds to answer."""
        return measure()

    def _request_of(self, prompt: str, **fields: Any) -> GenerationRequest:
        """A clip at the training's size; its placement is the training's too, so that one loaded model serves both."""
        cpu = self._machine.accelerator is None
        same = {name: getattr(self.request, name) for name in ("height", "width", "num_frames", "fps", "seed")}
        # Tiles would each have a graph of their own; a family that knows no other way keeps them.
        tiling = "auto" if family_of(self.preset.pipeline).decodes_in_tiles_only else "off"
        placement = {"torch_dtype": "float32" if cpu else "auto", "offload": "none", "vae_tiling": tiling}
        return request_for(self.preset, prompt=prompt, quantization="none", **same, **placement, **fields)

    def _prepared(self, model: VideoModel) -> Generator[FinetuneEvent, None, Prepared]:
        """The samples as the model sees them; read from the version's folder where they were made before."""
        from studio.finetune.training import Prepared

        if (self.folder / SAMPLES).is_file():
            return Prepared.load(self.folder / SAMPLES)
        import numpy as np
        import torch

        from studio.finetune.clips import samples_of

        yield TrainingStage(stage="reading", total=len(self.request.clips))
        samples, records, notices = samples_of(self.request)
        held_out = any(sample.held_out for sample in samples)
        self._record(clips=records, notices=notices, held_out=held_out)
        for notice in notices:
            yield Notice(text=notice)
        latents, prompts = [], {}
        with self._room():
            for number, sample in enumerate(samples):
                yield TrainingStage(stage="preparing", done=number, total=len(samples))
                pixels = torch.from_numpy(sample.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
                latents.append(model.latents_of(pixels).cpu())
                if sample.caption not in prompts:
                    prompts[sample.caption] = _in_memory(model.prompt(sample.caption))
            prior = yield from self._prior(model, like=latents[0])
        prepared = Prepared(
            pixels=torch.from_numpy(np.stack([sample.frames for sample in samples])),
            latents=torch.cat(latents),
            prompts=tuple(prompts[sample.caption] for sample in samples),
            held_out=torch.tensor([sample.held_out for sample in samples]),
            prior_latents=prior[0],
            prior_prompts=prior[1],
        )
        prepared.save(self.folder / SAMPLES)
        return prepared

    def _prior(self, model: VideoModel, *, like: Any) -> Generator[FinetuneEvent, None, tuple[Any, Any]]:
        """Latents of clips that the model makes of the preset's own prompts, before it learns anything."""
        import torch

        known = self.preset.defaults.prompts
        if not self.request.prior_loss_weight or not known:
            return torch.zeros(0), ()
        latents, prompts = [], []
        for number in range(PRIOR_CLIPS):
            yield TrainingStage(stage="preparing", done=number, total=PRIOR_CLIPS)
            request = self._request_of(known[number % len(known)], num_inference_steps=PRIOR_STEPS)
            model.prepare(request)
            generator = torch.Generator().manual_seed(self.request.seed + number)
            made = model.pipe(**model.arguments(request), generator=generator, output_type="latent")
            latents.append(model.unpacked(made.frames, like.shape[2:]).float().cpu())
            prompts.append(_in_memory(model.prompt(request.prompt)))
        return torch.cat(latents), tuple(prompts)

    def _before(self, training: Training) -> Iterator[FinetuneEvent]:
        """Score and sample the model as it was, once."""
        from studio.distributed import from_the_first

        if from_the_first(self.version.base_scores is None):
            yield TrainingStage(stage="scoring")
            began = time.perf_counter()
            with self._room():
                scores = training.scores()
            self._other_seconds += time.perf_counter() - began
            self._record(base_scores=scores)
            yield _scored(0, scores)
        # By the log, for a clip that was being made when the training stopped has left a part of itself.
        events = [event for _, event in self.versions.events(self.version.id)]
        there = {event.prompt for event in events if isinstance(event, TrainingSample) and event.step == 0}
        missing = from_the_first(tuple(prompt for prompt in self._sample_prompts() if prompt not in there))
        if missing and training.step == 0:
            yield from self._sample(training, missing)

    # -- training -----------------------------------------------------------------------------------------------------

    def _predict(self, training: Training) -> Iterator[FinetuneEvent]:
        first = training.step
        for number in range(FORECAST_STEPS):
            yield TrainingStage(stage="measuring", done=number, total=FORECAST_STEPS)
            self._step(training)
        yield self._forecast(training, done=first)

    def _train(self, training: Training) -> Iterator[FinetuneEvent]:
        request, first = self.request, training.step
        while training.step < request.max_train_steps:
            step = self._step(training)
            yield TrainingStep(**vars(step), eta_seconds=self._eta(training.step), peak_bytes=self._peak_bytes)
            if self.leads and training.step == first + FORECAST_STEPS:
                yield self._forecast(training, done=training.step)
            last = training.step == request.max_train_steps
            if self.leads and (training.step % request.checkpointing_steps == 0 or last):
                self._checkpoint(training)
                yield CheckpointWritten(step=training.step)
            if training.step % request.validation_steps == 0 and not last:
                yield TrainingStage(stage="scoring")
                with self._room():
                    scores = training.scores()
                self._record(scores=scores)
                yield _scored(training.step, scores)

    def _step(self, training: Training) -> Step:
        with self._room():
            step = training.take_step()
        self._peak_bytes = max(self._peak_bytes, _memory_bytes(training.model.device.type))
        self._step_seconds.append(step.seconds)
        return step

    def _forecast(self, training: Training, *, done: int) -> TrainingForecast:
        held, full = training.decoder_bytes()
        return TrainingForecast(
            step_seconds=self._typical_seconds(),
            eta_seconds=self._eta(done),
            decoder_bytes=held,
            full_decoder_bytes=full,
            peak_bytes=self._peak_bytes,
        )

    def _typical_seconds(self) -> float:
        """The median step; the first one carries one-off costs."""
        steps = sorted(self._step_seconds[1:] or self._step_seconds)
        return steps[len(steps) // 2]

    def _eta(self, done: int) -> float:
        request = self.request
        scorings = (request.max_train_steps - 1) // request.validation_steps - done // request.validation_steps + 1
        return (request.max_train_steps - done) * self._typical_seconds() + max(0, scorings) * self._other_seconds

    def _checkpoint(self, training: Training) -> None:
        training.save(self.folder / STATE)
        self._record(step=training.step, seconds=training.seconds, peak_bytes=self._peak_bytes)

    # -- after --------------------------------------------------------------------------------------------------------

    def _after(self, training: Training) -> Iterator[FinetuneEvent]:
        from studio.distributed import from_the_first
        from studio.pipelines.adapters import save_adapters

        yield TrainingStage(stage="scoring")
        with self._room():
            scores = training.scores()
        yield _scored(training.step, scores)
        self._record(scores=scores)
        yield from self._sample(training, from_the_first(self._sample_prompts()))
        if not self.leads:
            return
        yield TrainingStage(stage="saving")
        with training.averaged():
            save_adapters(training.model, self.request, self.folder)
        self._record(state="complete", step=training.step, seconds=training.seconds)
        self._write_card()
        for name in (STATE, SAMPLES):
            (self.folder / name).unlink(missing_ok=True)
        yield TrainingFinished(
            version_id=self.version.id, worse_than_base=self.version.worse_than_base, seconds=training.seconds
        )

    def _stopped(self, training: Training | None) -> None:
        """The listener has gone: keep what was learnt, usable at once, and to go on from."""
        if self.leads and not self.predicts and training is not None and training.step:
            from studio.pipelines.adapters import save_adapters

            self._checkpoint(training)
            with training.averaged():
                save_adapters(training.model, self.request, self.folder)
        self._record(state="stopped")

    def _sample(self, training: Training, prompts: tuple[str, ...]) -> Iterator[FinetuneEvent]:
        """Generate with the averaged weights, in a store of the version's own: these are no runs of the bare preset.

        Processes that share the weights out all take part; what the first one makes is kept.
        """
        with TemporaryDirectory(prefix="samples-") as scratch, training.averaged():
            clips = self._clips if self.leads else RunStore(Path(scratch))
            for prompt in prompts:
                request = self._request_of(prompt)
                for event in generate(request, store=clips):
                    if isinstance(event, StepFinished):
                        yield TrainingStage(stage="sampling", done=event.step + 1, total=request.num_inference_steps)
                    elif isinstance(event, RunFinished) and self.leads:
                        path = clips.get(event.run_id).video
                        yield TrainingSample(step=training.step, prompt=prompt, path=str(path))

    def _sample_prompts(self) -> tuple[str, ...]:
        if self.request.sample_prompts:
            return self.request.sample_prompts
        held = next((clip.caption for clip in self.version.clips if clip.held_out), None)
        return (held or self.request.clips[0].caption,)

    # -- keeping ------------------------------------------------------------------------------------------------------

    def _record(self, **changes: Any) -> None:
        self.version = replace(self.version, **changes)
        if self.leads:
            self.versions.write(self.version)

    def _write_card(self) -> None:
        from studio.finetune.card import card
        from studio.storage import write_atomically

        files = tuple(name for name in (LORA_FILE, LORA_2_FILE) if (self.folder / name).is_file())
        write_atomically(self.folder / "README.md", card(self.version, self.preset, files).encode())

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Memory that runs out is told with the settings that need less."""
        from studio.pipelines.loaded import out_of_memory

        try:
            with out_of_memory("fine-tuning"):
                yield
        except OutOfMemory as error:
            raise OutOfMemory(
                error.message, field="mode", value=self.request.mode, way_out=leaner(self.request, self.preset)
            ) from error


def leaner(request: FinetuneRequest, preset: Preset) -> str:
    """What to set so that a training needs less memory, the least costly first."""
    if request.objective != "latent":
        if request.mode == "full":
            return "Set mode to exact: the same gradients, one group of frames at a time."
        if request.mode == "exact" and request.keep_caches == "device":
            return "Set keep_caches to auto: the same gradients, a little slower."
        if not request.checkpoint_blocks:
            return "Set checkpoint_blocks: the same gradients with less memory, a little slower."
        in_tiles = family_of(preset.pipeline).decoding == "fixed tiles"
        if not in_tiles and (request.crop_size is None or request.crop_size > 8):
            return f"Set crop_size to {8 if request.crop_size is None else request.crop_size // 2}."
        if request.mode == "exact":
            return "Set mode to truncated with window 1 and context 1."
    return f"Take fewer frames than {request.num_frames}, or a smaller size than {request.width}×{request.height}."


def _in_memory(prompt: Prompt) -> Prompt:
    return {name: tensor.cpu() for name, tensor in prompt.items()}


def _scored(step: int, scores: Scores) -> TrainingScored:
    return TrainingScored(step=step, **asdict(scores))


def _memory_bytes(device: str) -> int:
    """Most memory so far: what the accelerator gave out, or what this process had resident."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


__all__ = ["begin", "finetune", "forecast", "go_on", "leaner", "preset_of"]
