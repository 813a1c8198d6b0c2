"""A model that enlarges, fine-tuned on somebody's own clips: sharp stretches of them are made smaller, and it learns to
undo that.

    version = begin(request, store=store)        # enlarger_verb
    for event in train(TrainEnlarger(version_id=version.id), store=store, owner="local", stop=never):
        ...

Gradients go back through a stretch a few pictures at a time (`chopgrad`): its memory of the pictures before is the
state that a causal decoder carries, so the gradient is that of the whole stretch, at the memory of a few pictures.

Knows clips, samples and the order of the work. Refuses to know how pictures are enlarged, and the form.

Shapes: F pictures, H rows, W columns, s the scale; B is 1, pixels uint8 in files and 0…1 in a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio import processor
from studio.chopgrad import Backprop, Chunk, PictureByPicture, Region, decode_backward
from studio.clips.film import Film
from studio.clips.scene_cuts import SceneCuts
from studio.errors import NumericalError, RequestError, StudioError, VersionError
from studio.events import (
    CheckpointWritten,
    EnlargerScored,
    EnlargerTrainingEvent,
    EnlargerTrainingStarted,
    EnlargerTrainingStep,
    Notice,
    Stop,
    TrainingFinished,
    TrainingStage,
)
from studio.machine import weights
from studio.machine.environment import environment
from studio.pipelines.super_resolver import SCALES, SuperResolverPipeline, load_super_resolver
from studio.pocket.loop import Plan, StepReport, Trainee, train_steps
from studio.pocket.super_resolver.degradation import degraded
from studio.pocket.super_resolver.recipe import charbonnier, psnr, shrunk
from studio.records.enlarger_versions import NETWORK, STATE, EnlargerVersion, EnlargerVersionStore
from studio.records.event_log import EventLog
from studio.records.folders import LOG
from studio.records.runs import RunStore
from studio.requests.enlarger_training import EnlargerTraining, check_enlarger_training
from studio.requests.work import TrainEnlarger

MOST_BYTES = 1_500_000_000
"""Of pictures held; of longer clips every so many stretches are taken."""
AT_ONCE = 3
"""Pictures through which gradients go back together."""
SCORED = 8
"""Held-out stretches that are scored, at most."""
SAY_SECONDS, SCORE_SECONDS = 2.0, 60.0


def train(work: TrainEnlarger, *, store: RunStore, owner: str, stop: Stop) -> Generator[EnlargerTrainingEvent]:
    """Train a version that was begun, or go on with one; whatever `stop` says, what was learnt is kept.

    Raises:
        VersionError: there is none, it is complete, or somebody is training it.
        StudioError: no clip gives a sample, or the loss became NaN; the record says so too.
    """
    versions = EnlargerVersionStore(store.folder)
    version = versions.get(work.version_id)
    if owner != "local" and version.owner != owner:
        raise VersionError(f"There is no version {work.version_id!r}.", field="version", value=work.version_id)
    if version.state == "complete":
        raise VersionError(
            f"Version {version.id} is complete.",
            field="version",
            value=version.id,
            way_out="Fine-tune anew, with more steps.",
        )
    lock = versions.lock(version.id)
    if not lock.try_acquire():
        raise VersionError(f"Version {version.id} is being trained.", field="version", value=version.id)
    try:
        with closing(EventLog(versions.path(version.id) / LOG)) as log:
            training = _Training(version, versions, stop)
            with training.recorded(), closing(training.events()) as events:
                for event in events:
                    log.write(event)
                    yield event
    finally:
        lock.release()


class _Training:
    """One training on its way."""

    def __init__(self, version: EnlargerVersion, versions: EnlargerVersionStore, stop: Stop) -> None:
        self.version, self.request = version, version.request
        self._versions, self._stop = versions, stop
        self._folder = versions.path(version.id)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """However the work ends, the record says so."""
        self._record(state="training", error=None, environment=environment(torch))
        try:
            yield
        except StudioError as error:
            self._record(state="failed", error=error.to_json())
            raise
        except BaseException:
            if self.version.state != "complete":
                self._record(state="stopped")
            raise

    def _record(self, **changes: Any) -> None:
        self.version = replace(self.version, **changes)
        self._versions.write(self.version)

    def events(self) -> Generator[EnlargerTrainingEvent]:
        processor.settle_threads()
        yield TrainingStage(stage="loading")
        preset = check_enlarger_training(self.request)
        pipeline = load_super_resolver(weights.folder_of(preset))
        yield TrainingStage(stage="reading")
        stretches, notices = stretches_of(self.request)
        held_out = _held_out(stretches, self.request)
        learnt = stretches[: len(stretches) - len(held_out)] if held_out else stretches
        self._record(notices=notices, samples=len(learnt), held_out=bool(held_out))
        for notice in notices:
            yield Notice(text=notice)
        yield from self._train(pipeline, learnt, held_out or stretches[-SCORED:])

    def _train(
        self, pipeline: SuperResolverPipeline, learnt: list[np.ndarray], scored: list[np.ndarray]
    ) -> Generator[EnlargerTrainingEvent]:
        request = self.request
        network = (pipeline.restorer if request.restore else pipeline.refiner).requires_grad_(True)
        plan = Plan(
            steps=request.max_train_steps,
            adam_lr=request.learning_rate,
            weight_decay=0.0,
            warmup_steps=10,
            average_decay=0.99,
            seed=request.seed,
            save_every_seconds=SCORE_SECONDS,
        )
        trainee = Trainee.of(network, plan, lambda name, parameter: False)
        state = self._folder / STATE
        if not self.version.base_psnr:
            yield TrainingStage(stage="scoring")
            self._record(base_psnr=scores(pipeline, scored, request))
        yield EnlargerScored(step=0, psnr=self.version.base_psnr)
        yield EnlargerTrainingStarted(
            version_id=self.version.id,
            total_steps=request.max_train_steps,
            first_step=self.version.step,
            samples=len(learnt),
            held_out=len(scored) if self.version.held_out else 0,
        )
        steps = train_steps(
            trainee,
            plan,
            objective_of(pipeline, learnt, request),
            stage="super-resolution",
            state_path=state,
            report_every_seconds=SAY_SECONDS,
        )
        before, since_scored = self.version.seconds, 0.0
        try:
            for report in _told(steps, request):
                yield self._step(report)
                since_scored += report.seconds_per_step * (report.step - self.version.step)
                self._record(step=report.step, seconds=before + trainee.seconds)
                if self._stop() is not None:
                    break
                if since_scored > SCORE_SECONDS and report.step < request.max_train_steps:
                    since_scored = 0.0
                    yield self._scored(pipeline, trainee, scored)
        finally:
            steps.close()
            if trainee.step:
                trainee.save(state)
                self._keep(trainee)
        yield CheckpointWritten(step=trainee.step)
        yield self._scored(pipeline, trainee, scored)
        if trainee.step < request.max_train_steps:
            self._record(state="stopped")
            return
        self._record(state="complete")
        state.unlink(missing_ok=True)
        yield TrainingFinished(
            version_id=self.version.id, worse_than_base=self.version.worse_than_base, seconds=self.version.seconds
        )

    def _step(self, report: StepReport) -> EnlargerTrainingStep:
        left = report.steps - report.step
        return EnlargerTrainingStep(
            step=report.step,
            loss=report.loss,
            seconds=report.seconds_per_step,
            eta_seconds=left * report.seconds_per_step,
        )

    def _scored(self, pipeline: SuperResolverPipeline, trainee: Trainee, scored: list[np.ndarray]) -> EnlargerScored:
        """By the averaged weights."""
        with _averaged(trainee):
            found = scores(pipeline, scored, self.request)
        self._record(psnr=found)
        return EnlargerScored(step=trainee.step, psnr=found)

    def _keep(self, trainee: Trainee) -> None:
        """The averaged weights, as they are used."""
        network: Any = trainee.module
        with _averaged(trainee):
            network.save_pretrained(self._folder / NETWORK, safe_serialization=True)


def _told(steps: Iterator[StepReport], request: EnlargerTraining) -> Iterator[StepReport]:
    """The reports of a training whose loss is a number. Raises NumericalError where it stops to be one."""
    try:
        yield from steps
    except ArithmeticError as error:
        raise NumericalError(
            "The loss is not a number any more.",
            field="learning_rate",
            value=request.learning_rate,
            way_out="Take a lower one.",
        ) from error


@contextmanager
def _averaged(trainee: Trainee) -> Iterator[None]:
    """With the moving average in the weights' place."""
    kept = {name: parameter.detach().clone() for name, parameter in trainee.module.named_parameters()}
    trainee.load_average()
    try:
        yield
    finally:
        trainee.module.load_state_dict(kept, strict=False)


# ---------------------------------------------------------------------------------------------------------------------
# Samples


def stretches_of(request: EnlargerTraining) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """What the clips give, each (F, H, W, 3) and of one scene, in their order; and what was left out, with the reason.

    Raises:
        RequestError: they give nothing.
    """
    stretches: list[np.ndarray] = []
    notices: list[str] = []
    for clip in request.clips:
        try:
            own = _stretches_in(clip.path, request, MOST_BYTES // len(request.clips))
        except StudioError as error:
            notices.append(f"{clip.path.name} was left out: {error}")
            continue
        if not own:
            notices.append(
                f"{clip.path.name} was left out: it has no {request.num_frames} pictures of one scene in a row."
            )
        stretches += own
    if not stretches:
        raise RequestError(
            f"None of the {len(request.clips)} clips can be used. {' '.join(notices)}",
            field="clips",
            way_out="Give sharp clips, or fewer frames a sample.",
        )
    return stretches, tuple(notices)


def _stretches_in(path: Any, request: EnlargerTraining, most_bytes: int) -> list[np.ndarray]:
    with Film(path) as film:
        info = film.info.clip
        if min(info.height, info.width) < request.crop_size:
            raise RequestError(
                f"its pictures are {info.width}×{info.height}, smaller than the part that a sample shows.",
                field="crop_size",
                value=request.crop_size,
                way_out=f"Set the crop to at most {min(info.height, info.width) // 16 * 16}.",
            )
        of_all = info.num_frames * info.height * info.width * 3
        every = max(1, -(-of_all // most_bytes))
        stretches = [each for number, each in enumerate(_of_one_scene(film, request.num_frames)) if number % every == 0]
    return stretches


def _of_one_scene(film: Film, length: int) -> Iterator[np.ndarray]:
    cuts, pictures = SceneCuts(), list[np.ndarray]()
    for picture in film:
        if cuts.begins(picture.pixels):
            pictures = []
        pictures.append(picture.pixels)
        if len(pictures) == length:
            yield np.stack(pictures)
            pictures = []


def _held_out(stretches: list[np.ndarray], request: EnlargerTraining) -> list[np.ndarray]:
    """The last ones, if anything is left to learn from."""
    count = min(round(request.validation_share * len(stretches)), len(stretches) - 1)
    if request.validation_share > 0 and len(stretches) > 2:
        count = max(1, count)
    return stretches[len(stretches) - count :][:SCORED] if count else []


def _pair(pictures: np.ndarray, scale: int, restore: bool, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(1, F, 3, h, w) and (1, F, 3, sh, sw) in 0…1."""
    large = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)[None].float().div(255)
    if not restore:
        return shrunk(large, scale), large
    small = torch.from_numpy(degraded(pictures, scale, rng)).permute(0, 3, 1, 2)[None].float().div(255)
    return small, large


# ---------------------------------------------------------------------------------------------------------------------
# Loss and figures


class EnlargedPictures(PictureByPicture):
    """L + R, a few pictures at a time: what R remembers is the state. “Latents” are the small pictures (B, 3, F, h, w),
    frames the large ones."""

    def __init__(self, pipeline: SuperResolverPipeline, scale: int, *, restore: bool, at_once: int = AT_ONCE) -> None:
        super().__init__(pipeline.restorer if restore else pipeline.refiner, at_once=at_once)
        self._upsampler, self._scale = pipeline.upsampler, scale

    def step(self, latents: Tensor, state: Any, chunk: Chunk) -> tuple[Tensor, Any]:
        pictures = latents.transpose(1, 2)
        base = self._upsampler(pictures.flatten(0, 1), self._scale).unflatten(0, pictures.shape[:2])
        added, state = self.vae(pictures, self._scale, state)
        return (base + added).transpose(1, 2), state


def objective_of(
    pipeline: SuperResolverPipeline, stretches: list[np.ndarray], request: EnlargerTraining
) -> Callable[[int, torch.Generator], Tensor]:
    """The loss of a step, its gradients already in the weights: the share of L's error that L + R leaves."""
    count = request.gradient_accumulation_steps

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        total = torch.zeros(())
        for number in range(count):
            scale = SCALES[(step * count + number) % len(SCALES)]
            pictures = _part_of(stretches[int(rng.integers(len(stretches)))], request.crop_size, rng)
            small, large = _pair(pictures, scale, request.restore, rng)
            total += _backward(pipeline, small.to(pipeline.device), large.to(pipeline.device), scale, request).cpu()
        # Backward has been: what is handed on is only the number.
        return total.div(count).requires_grad_()

    return loss_of


def _backward(
    pipeline: SuperResolverPipeline, small: Tensor, large: Tensor, scale: int, request: EnlargerTraining
) -> Tensor:
    with torch.no_grad():
        linear = pipeline.upsampler(small.flatten(0, 1), scale).unflatten(0, large.shape[:2])
        of_linear = charbonnier(linear - large).sum() * request.gradient_accumulation_steps
    target = large.transpose(1, 2)

    def frame_loss(frames: Tensor, region: Region) -> Tensor:
        return charbonnier(frames - region.of(target)).sum() / of_linear

    decoder = EnlargedPictures(pipeline, scale, restore=request.restore)
    decoded = decode_backward(decoder, small.transpose(1, 2), frame_loss, Backprop(mode=request.mode))
    return decoded.loss * request.gradient_accumulation_steps


def _part_of(pictures: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A square of a stretch, on the network's grid, mirrored at random."""
    y, x = (4 * int(rng.integers((extent - size) // 4 + 1)) for extent in pictures.shape[1:3])
    part = pictures[:, y : y + size, x : x + size]
    return part[:, :, ::-1] if rng.random() < 0.5 else part


@torch.no_grad()
def scores(pipeline: SuperResolverPipeline, stretches: list[np.ndarray], request: EnlargerTraining) -> dict[str, float]:
    """PSNR in dB of L + R on stretches, by scale: the mean over them without the border."""
    found: dict[str, float] = {}
    for scale in SCALES:
        each: list[float] = []
        for number, pictures in enumerate(stretches):
            height, width = (extent // 4 * 4 for extent in pictures.shape[1:3])
            whole = pictures[:, :height, :width]
            small, large = _pair(whole, scale, request.restore, np.random.default_rng(number))
            state, errors = None, []
            for at in range(0, len(whole), AT_ONCE):
                part = slice(at, at + AT_ONCE)
                given = small[:, part].to(pipeline.device)
                made, state = pipeline(given, scale, state, restore=request.restore)
                errors.append(psnr(made.cpu(), large[:, part]))
            each.append(float(np.mean(errors)))
        found[str(scale)] = float(np.mean(each))
    return found
