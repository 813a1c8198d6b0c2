"""One training, from the models' loading to the finished version.

Knows the order of the work. Refuses to know how a step is taken (`training`), and what is written (`notebook`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from studio import pipelines, processor
from studio.distributed import from_the_first, join, wait_for_all
from studio.errors import StudioError
from studio.events import (
    CheckpointWritten,
    FinetuneEvent,
    TrainingFinished,
    TrainingForecast,
    TrainingScored,
    TrainingStage,
    TrainingStarted,
    TrainingStep,
)
from studio.finetune.decoder_memory import decoder_bytes
from studio.finetune.notebook import SAMPLES, STATE, Notebook
from studio.finetune.preparing import prepare
from studio.finetune.room import peak_bytes, room
from studio.finetune.sampling import clip_request, sample, sample_prompts
from studio.finetune.training import Prepared, StepResult, Training
from studio.machine import weights
from studio.machine.environment import environment
from studio.machine.hardware import Machine, measure
from studio.pipelines.adapters import close_adapters
from studio.pipelines.families import VideoModel
from studio.preset import Preset
from studio.records.runs import RunStore
from studio.records.versions import Scores, Version, VersionStore
from studio.requests.generation import GenerationRequest

FORECAST_STEPS = 2


def walk(preset: Preset, version: Version, versions: VersionStore, *, predict: bool) -> Generator[FinetuneEvent]:
    """Train a version, as `go_on` says; what happens is written into its log as well."""
    leads = join()[0] == 0
    notebook = Notebook(version, versions, writes=leads)
    here = versions.folder.parent
    with closing(_Walk(preset, notebook, leads=leads, predicts=predict, runs_folder=here).run()) as events:
        yield from notebook.logged(events)


class _Walk:
    """The state of one training on its way."""

    def __init__(self, preset: Preset, notebook: Notebook, *, leads: bool, predicts: bool, runs_folder: Path) -> None:
        self.preset = preset
        self.notebook = notebook
        self.request = notebook.version.request
        self.leads = leads
        """Whether this process is the first of several, whose word goes."""
        self.predicts = predicts
        """Whether only to measure; no step is kept then."""
        self.runs_folder = runs_folder
        self._peak_bytes = 0
        self._step_seconds: list[float] = []
        self._other_seconds = 0.0

    def run(self) -> Generator[FinetuneEvent]:
        with self.notebook.open():
            training: Training | None = None
            model: VideoModel | None = None
            try:
                processor.settle_threads()
                self.notebook.record(state="training", error=None, environment=environment(torch))
                yield TrainingStage(stage="loading")
                loaded = self._load()
                model = loaded.to_train()
                training = yield from self._begin(model)
                yield self._started(training, loaded)
                if self.predicts:
                    yield from self._predict(training)
                    self.notebook.record(state="stopped")
                    return
                yield from self._before(training)
                yield from self._train(training)
                yield from self._after(training)
            except GeneratorExit:
                self._stopped(training)
                raise
            except StudioError as error:
                self.notebook.record(state="failed", error=error.to_json())
                raise
            except BaseException as error:
                failure = StudioError(f"Something unforeseen went wrong: {type(error).__name__}: {str(error)[:500]}")
                self.notebook.record(state="failed", error=failure.to_json())
                raise
            finally:
                if model is not None:
                    close_adapters(model)
                    pipelines.unload()

    # -- before -------------------------------------------------------------------------------------------------------

    @cached_property
    def _machine(self) -> Machine:
        """Looked at once: a slow graphics driver takes seconds to answer."""
        return processor.as_tried(measure(), self.runs_folder)

    def _request_of(self, prompt: str) -> GenerationRequest:
        return clip_request(self.request, self.preset, self._machine, prompt)

    def _load(self) -> pipelines.LoadedPipeline:
        placement = pipelines.place(self.preset, self._request_of("a clip"), self._machine)
        return pipelines.load(self.preset, placement, folder=weights.folder_of(self.preset))

    def _begin(self, model: VideoModel) -> Generator[FinetuneEvent, None, Training]:
        if self.leads:
            prepared = yield from prepare(model, self.notebook, self._machine)
            wait_for_all()
        else:
            wait_for_all()
            prepared = Prepared.load(self.notebook.folder / SAMPLES)
        training = Training(model, self.request, prepared)
        if (self.notebook.folder / STATE).is_file():
            training.load(self.notebook.folder / STATE)
        return training

    def _started(self, training: Training, loaded: pipelines.LoadedPipeline) -> TrainingStarted:
        return TrainingStarted(
            version_id=self.notebook.version.id,
            total_steps=self.request.max_train_steps,
            first_step=training.step,
            samples=len(training.prepared.latents),
            held_out=int(training.prepared.held_out.sum()),
            placement=loaded.placement,
        )

    def _before(self, training: Training) -> Iterator[FinetuneEvent]:
        """Score and sample the model as it was, once."""
        if from_the_first(self.notebook.version.base_scores is None):
            yield TrainingStage(stage="scoring")
            began = time.perf_counter()
            scores = self._scores(training)
            self._other_seconds += time.perf_counter() - began
            self.notebook.record(base_scores=scores)
            yield _scored(0, scores)
        there = self.notebook.sampled_first()
        prompts = tuple(prompt for prompt in sample_prompts(self.notebook.version) if prompt not in there)
        missing = from_the_first(prompts)
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
                self.notebook.checkpoint(training, self._peak_bytes)
                yield CheckpointWritten(step=training.step)
            if training.step % request.validation_steps == 0 and not last:
                yield TrainingStage(stage="scoring")
                scores = self._scores(training)
                self.notebook.record(scores=scores)
                yield _scored(training.step, scores)

    def _step(self, training: Training) -> StepResult:
        with room(self.request, self.preset):
            step = training.take_step()
        self._peak_bytes = max(self._peak_bytes, peak_bytes(training.model.device.type))
        self._step_seconds.append(step.seconds)
        return step

    def _scores(self, training: Training) -> Scores:
        with room(self.request, self.preset):
            return training.scores()

    def _forecast(self, training: Training, *, done: int) -> TrainingForecast:
        held, full = decoder_bytes(training)
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

    # -- after --------------------------------------------------------------------------------------------------------

    def _after(self, training: Training) -> Iterator[FinetuneEvent]:
        yield TrainingStage(stage="scoring")
        scores = self._scores(training)
        yield _scored(training.step, scores)
        self.notebook.record(scores=scores)
        yield from self._sample(training, from_the_first(sample_prompts(self.notebook.version)))
        if not self.leads:
            return
        yield TrainingStage(stage="saving")
        self.notebook.finish(training, self.preset)
        version = self.notebook.version
        yield TrainingFinished(version_id=version.id, worse_than_base=version.worse_than_base, seconds=training.seconds)

    def _stopped(self, training: Training | None) -> None:
        """The listener has gone: keep what was learnt, usable at once, and to go on from."""
        if not self.predicts and training is not None and training.step:
            self.notebook.checkpoint(training, self._peak_bytes)
            self.notebook.keep(training)
        self.notebook.record(state="stopped")

    def _sample(self, training: Training, prompts: tuple[str, ...]) -> Iterator[FinetuneEvent]:
        """Clips of the averaged weights; what the first process makes is kept."""
        requests = [self._request_of(prompt) for prompt in prompts]
        with TemporaryDirectory(prefix="samples-") as scratch, training.averaged():
            store = RunStore(self.notebook.folder / "clips" if self.leads else Path(scratch))
            yield from sample(requests, store=store, step=training.step, kept=self.leads)


def _scored(step: int, scores: Scores) -> TrainingScored:
    return TrainingScored(step=step, **asdict(scores))
