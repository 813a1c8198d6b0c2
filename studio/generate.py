"""Generate: a request becomes a stream of events. The only place where a pipeline runs.

    for event in generate(request, store=RunStore(folder)):
        ...

The page, the command line, the job queue and the tests walk this stream. Closing it cancels, within one transformer
block. Setting `keep` ends it after the current step with what was reached, decoded and marked partial. Whatever
happens, the next run is bit-identical to a first one.

Knows the order of the work and who is told what. Refuses to know how a family's pipeline is called (`pipelines`), how
a run lies on disk (`runs`), and who listens.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from studio.clips.clip import Clip
from studio.clips.write import thumbnail_jpeg
from studio.errors import StudioError
from studio.events import (
    BlockComputed,
    BlockReused,
    Branch,
    CacheDecided,
    GenerationEvent,
    ModelReady,
    Notice,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    Stage,
    StageFinished,
    StageStarted,
    StepFinished,
    StepStarted,
)
from studio.machine import hardware, pace
from studio.machine.environment import environment
from studio.preset import Preset, find_preset
from studio.records.runs import RunStore, RunWriter
from studio.records.versions import VersionStore
from studio.requests.checks import check_request
from studio.requests.generation import GenerationRequest, request_for

if TYPE_CHECKING:
    from torch import nn

    from studio.caching import Cache, Decision, Occasion
    from studio.pipelines import Branches, LoadedPipeline, StepStart, StepState

PREVIEW_SHARE = 0.1
"""Previews may take this share of the time between them, so that watching costs little."""
CALIBRATION_STEPS = 4
"""Steps of a measuring run; the first is not counted."""
PROFILES = "profiles"
"""In the runs' folder: where calibration leaves what it measured, for caches to read."""
MIN_PREVIEW_SECONDS = 0.5
"""No two previews follow each other faster."""


def generate(
    request: GenerationRequest,
    *,
    store: RunStore,
    owner: str = "local",
    keep: threading.Event | None = None,
    presets_folder: Path | None = None,
    measure_with: Callable[[Occasion], Cache] | None = None,
) -> Generator[GenerationEvent, None, None]:
    """Make one clip, saying everything that happens.

    Args:
        request: All that is needed to make it.
        store: Where the run is kept. Its folder is open and the request written before anything is loaded.
        owner: Whose run it is.
        keep: Set from any thread to stop after the current step and keep what was reached.
        presets_folder: Another catalogue than the studio's own.
        measure_with: Makes another cache than the request's, for calibration to look at the run through.

    Yields:
        RunStarted first and RunFinished last.

    Raises:
        StudioError: the request does not fit the preset, the weights are missing, memory or disk ran out, NaN turned
            up. The run, if it was begun, is marked failed on disk with the same words.
    """
    preset = find_preset(request.preset, presets_folder)
    check_request(request, preset)
    _adapter_folder(request, store)
    import torch  # here, so that importing this module costs nothing, nor does a refusal

    writer = store.begin(request, preset=preset, owner=owner, environment=environment(torch))
    stream = _Stream(writer)
    work = threading.Thread(
        target=stream.run,
        args=(_Generation(request, preset, store, writer, stream, keep or threading.Event(), measure_with).run,),
    )
    work.start()
    try:
        yield from stream
    finally:
        stream.close()
        work.join()


def _adapter_folder(request: GenerationRequest, store: RunStore) -> Path | None:
    """Where the version lies that a request asks for; raises RunError where it cannot be used."""
    return (
        None if request.adapter is None else VersionStore(store.folder).adapter_folder(request.adapter, request.preset)
    )


def warm(preset_name: str, *, store: RunStore) -> None:
    """Load a preset before anybody asks for it, so that the first clip need not wait.

    A model that ships with the studio is measured on the way, if nobody has yet: a few steps at its default size, in a
    folder that is thrown away, so that even the first prediction rests on something.

    Raises:
        StudioError: as `generate` would.
    """
    from studio import pipelines
    from studio.machine import weights

    preset = find_preset(preset_name)
    request = request_for(preset, prompt="calibration", seed=0, num_inference_steps=CALIBRATION_STEPS)
    if preset.weights_folder is None or pace.predict(request, store.folder) is not None:
        pipelines.load(preset, pipelines.place(preset, request, hardware.measure()), folder=weights.folder_of(preset))
        return
    with TemporaryDirectory() as scratch:
        for _ in generate(request, store=RunStore(Path(scratch))):
            pass
        for measurement in pace.measurements(Path(scratch)):
            pace.record(measurement, store.folder)


class _Closed(BaseException):
    """The listener has gone. Not an Exception, so that no library on the way swallows it."""


class _Stream:
    """Carries events from the thread that works to the generator that yields them, and the closing back.

    A pipeline is one long call; a generator must hand out control in the middle of it. So the call has a thread of its
    own, and an emit is where it learns that nobody listens any more.
    """

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._events: queue.SimpleQueue[GenerationEvent | BaseException | None] = queue.SimpleQueue()
        self._closed = threading.Event()

    def check(self) -> None:
        """Raises _Closed where the listener has gone."""
        if self._closed.is_set():
            raise _Closed

    def emit(self, event: GenerationEvent) -> None:
        self.check()
        self._writer.record(event)
        self._events.put(event)

    def close(self) -> None:
        self._closed.set()

    def run(self, work: Callable[[], RunFinished]) -> None:
        """The thread's whole life: work, and mark the run with how it ended."""
        try:
            finished = work()
        except _Closed:
            self._writer.cancel()
            self._events.put(None)
        except BaseException as error:
            failure = error if isinstance(error, StudioError) else _unexpected(error)
            self._writer.fail(failure)
            self._events.put(failure)
        else:
            self._events.put(finished)  # past cancelling: the clip is on disk
            self._events.put(None)

    def __iter__(self) -> Iterator[GenerationEvent]:
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event


class _Generation:
    """One run, from the request to the finished folder."""

    def __init__(
        self,
        request: GenerationRequest,
        preset: Preset,
        store: RunStore,
        writer: RunWriter,
        stream: _Stream,
        keep: threading.Event,
        measure_with: Callable[[Occasion], Cache] | None,
    ) -> None:
        self.measure_with = measure_with
        self.request = request
        self.preset = preset
        self.store = store
        self.writer = writer
        self.stream = stream
        self.keep = keep
        self.adapter = _adapter_folder(request, store)

    def run(self) -> RunFinished:
        import torch  # here, so that importing this module costs nothing

        from studio import pipelines
        from studio.machine import weights

        began = time.perf_counter()
        placement = pipelines.place(self.preset, self.request, hardware.measure())
        prediction = pace.predict(
            self.request,
            self.store.folder,
            device_name=placement.device_name,
            torch_dtype=placement.torch_dtype,
        )
        self.stream.emit(
            RunStarted(
                run_id=self.writer.id,
                total_steps=self.request.num_inference_steps,
                placement=placement,
                predicted_seconds=prediction.seconds if prediction else None,
                uncached_step_seconds=prediction.step_seconds if prediction else None,
            )
        )
        with self._stage("loading"):
            ready = pipelines.load(
                self.preset,
                placement,
                folder=weights.folder_of(self.preset),
                adapter=self.adapter,
                check=self.stream.check,
            )
        self.stream.emit(ModelReady(blocks=len(ready.blocks), branches=_branches(ready, self.request)))

        cache = self._cache(ready)
        steps = _Steps(ready, self.request, self.stream, prediction, cache)
        generator = torch.Generator("cpu").manual_seed(self.request.seed)
        try:
            with cache.attached() if cache else nullcontext(), steps.watching_blocks():
                frames = ready.run(
                    self.request,
                    generator=generator,
                    on_stage=self._on_stage,
                    on_step_start=steps.started,
                    on_step=steps.finished,
                    interrupted=self.keep.is_set,
                )
        finally:
            ready.reset()

        if self.request.cache is not None and not steps.saved:
            self.stream.emit(Notice(text=_SAVED_NOTHING))
        partial = steps.count < self.request.num_inference_steps
        self.stream.emit(StageStarted(stage="writing"))
        run = self.writer.complete(
            Clip(frames=frames, fps=self.request.fps, caption=self.request.prompt), partial=partial
        )
        if not partial and cache is None:
            self._remember(placement, run.stage_seconds, steps.seconds)
        return RunFinished(run_id=run.id, partial=partial, seconds=time.perf_counter() - began)

    def _cache(self, ready: LoadedPipeline) -> Cache | None:
        """The cache that the request asks for, ready to be attached."""
        if self.request.cache is None and self.measure_with is None:
            return None
        from studio import caching

        stacks = zip(ready.transformers, ready.stacks, strict=True)
        occasion = caching.Occasion(
            pipe=ready.pipe,
            stacks=tuple(caching.Stack(transformer=transformer, blocks=blocks) for transformer, blocks in stacks),
            total_steps=self.request.num_inference_steps,
            sigmas=lambda: ready.sigmas,
            passes=len(_BRANCHES[_branches(ready, self.request)]),
            profile=caching.find_profile(
                self.preset.name,
                self.store.folder / PROFILES,
                total_steps=self.request.num_inference_steps,
                flow_shift=self.request.flow_shift,
            ),
        )
        if self.measure_with is not None:
            return self.measure_with(occasion)
        assert self.request.cache is not None
        return caching.cache_for(self.request.cache, occasion)

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        began = time.perf_counter()
        self.stream.emit(StageStarted(stage=stage))
        yield
        self.stream.emit(StageFinished(stage=stage, seconds=time.perf_counter() - began))

    def _on_stage(self, stage: Stage, seconds: float | None) -> None:
        """Told by the pipeline: a stage begins (None) or has ended after so many synchronised seconds."""
        if seconds is None:
            self.stream.emit(StageStarted(stage=stage))
        else:
            self.stream.emit(StageFinished(stage=stage, seconds=seconds))

    def _remember(self, placement: Placement, stages: dict[str, float], step_seconds: list[float]) -> None:
        pace.record(
            pace.Measurement(
                preset=self.preset.name,
                device_name=placement.device_name,
                torch_dtype=placement.torch_dtype,
                volume=self.request.num_frames * self.request.height * self.request.width,
                guided=self.request.guidance_scale > 1,
                load_seconds=stages.get("loading", 0.0),
                encode_seconds=stages.get("encoding", 0.0),
                step_seconds=pace.median_step(step_seconds),
                finish_seconds=stages.get("decoding", 0.0) + stages.get("writing", 0.0),
            ),
            self.store.folder,
        )


class _Steps:
    """What happens inside the pipeline, measured and told: steps, blocks, previews."""

    def __init__(
        self,
        ready: LoadedPipeline,
        request: GenerationRequest,
        stream: _Stream,
        prediction: pace.Prediction | None,
        cache: Cache | None,
    ) -> None:
        self.seconds: list[float] = []
        self.saved = 0
        """Block passes that were reused, in whole or in part."""
        self._cache = cache
        self._decided: Decision | None = None
        """The cache's last decision that was told."""
        self._ready = ready
        self._total = request.num_inference_steps
        self._stream = stream
        self._finish_seconds = prediction.finish_seconds if prediction else 0.0
        self._branches: tuple[Branch, ...] = _BRANCHES[_branches(ready, request)]
        self._step = 0
        self._passes = [0] * len(ready.blocks)
        self._ran = [0] * len(ready.blocks)
        """Of each block's looked-at layers, how many ran in the pass under way."""
        self._computed_at: dict[tuple[int, int], int] = {}
        """By block and pass: the step in which it last ran."""
        self._began = 0.0
        self._peak_bytes = 0
        self._previewed = -float("inf")
        self._preview_seconds = 0.0

    @property
    def count(self) -> int:
        """Steps finished."""
        return len(self.seconds)

    def started(self, start: StepStart) -> None:
        self._step = start.index
        self._passes = [0] * len(self._passes)
        self._stream.emit(StepStarted(step=start.index, sigma=start.sigma, timestep=start.timestep))
        if self._cache is not None:
            self._cache.begin_step(start.index, start.sigma)
        self._began = self._now()

    def finished(self, state: StepState) -> None:
        self.seconds.append(self._now() - self._began)
        if self._cache is not None:
            self._cache.end_step(state.latents)
        self._peak_bytes = max(self._peak_bytes, self._memory_bytes())
        left = self._total - self.count
        self._stream.emit(
            StepFinished(
                step=state.index,
                seconds=self.seconds[-1],
                peak_bytes=self._peak_bytes,
                eta_seconds=left * self._pace() + self._finish_seconds,
            )
        )
        self._preview(state, last=left == 0)

    def _pace(self) -> float:
        """Seconds of a step to come. With a cache steps differ by plan, and their mean says more than their median."""
        if self._cache is None:
            return pace.median_step(self.seconds)
        after_the_first = self.seconds[1:] or self.seconds
        return sum(after_the_first) / len(after_the_first)

    @contextmanager
    def watching_blocks(self) -> Iterator[None]:
        """Hooks on the transformer's blocks say what was computed; hooks on the other layers let a cancel through."""
        handles = []
        for block, module in enumerate(self._ready.blocks):
            handles.append(module.register_forward_pre_hook(self._about_to(block)))
            layers = _looked_at(module) if self._cache is not None else ()
            handles.extend(layer.register_forward_hook(self._counting(block)) for layer in layers)
            handles.append(module.register_forward_hook(self._told_of(block, len(layers))))
        for layer in _other_layers(self._ready):
            handles.append(layer.register_forward_pre_hook(lambda *_: self._stream.check()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _about_to(self, block: int) -> Callable[..., None]:
        def about_to(*_: Any) -> None:
            self._stream.check()
            self._ran[block] = 0

        return about_to

    def _counting(self, block: int) -> Callable[..., None]:
        def ran(*_: Any) -> None:
            self._ran[block] += 1

        return ran

    def _told_of(self, block: int, layers: int) -> Callable[..., None]:
        """What a block did is read off its own layers, so that every cache is told about in the same way."""

        def ended(*_: Any) -> None:
            number = self._passes[block]
            branch = self._branches[min(number, len(self._branches) - 1)]
            self._passes[block] += 1
            decision = self._told_decision()
            share = min(1.0, self._ran[block] / layers) if layers else 1.0
            self.saved += share < 1
            if share:
                self._computed_at[block, number] = self._step
                distance = None if decision is None else decision.distance
                self._stream.emit(
                    BlockComputed(step=self._step, block=block, branch=branch, distance=distance, share=share)
                )
            else:
                age = self._step - self._computed_at.get((block, number), self._step)
                extrapolated = decision is not None and decision.action.value == "extrapolated"
                self._stream.emit(
                    BlockReused(step=self._step, block=block, branch=branch, age=age, extrapolated=extrapolated)
                )

        return ended

    def _told_decision(self) -> Decision | None:
        """The cache's decision about this step, told once."""
        decision = self._cache.decision if self._cache is not None else None
        if decision is not None and decision is not self._decided:
            self._stream.emit(
                CacheDecided(
                    step=self._step,
                    kind=decision.action.value,
                    distance=decision.distance,
                    threshold=decision.threshold,
                    rate=decision.rate,
                    motion=decision.motion,
                    why=decision.why,
                )
            )
        self._decided = decision
        return decision

    def _preview(self, state: StepState, *, last: bool) -> None:
        began = time.perf_counter()
        pause = max(MIN_PREVIEW_SECONDS, self._preview_seconds / PREVIEW_SHARE)
        if began - self._previewed < pause and not last:
            return
        picture = self._ready.preview(state.estimate())
        self._stream.emit(PreviewFrame(step=state.index, jpeg=thumbnail_jpeg(picture)))
        self._previewed = time.perf_counter()
        self._preview_seconds = self._previewed - began

    def _now(self) -> float:
        """Seconds on the clock, once the device has done what it was told."""
        import torch

        if self._ready.placement.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _memory_bytes(self) -> int:
        import psutil
        import torch

        if self._ready.placement.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return psutil.Process().memory_info().rss


_BRANCHES: dict[Branches, tuple[Branch, ...]] = {
    "separate": ("cond", "uncond"),
    "batched": ("both",),
    "none": ("cond",),
}
"""The branches of the passes of one step, in order."""


def _branches(ready: LoadedPipeline, request: GenerationRequest) -> Branches:
    """How guidance runs for this request."""
    return ready.branches if request.guidance_scale > 1 else "none"


_SAVED_NOTHING = (
    "The cache skipped nothing: every block of every step was computed, so this clip cost what it costs without one. "
    "Raise the cache's threshold, or take more steps."
)


def _looked_at(block: nn.Module) -> tuple[nn.Module, ...]:
    """A layer of the block's attention, and one of its feed-forward part: what ran, and what was foretold."""
    from torch import nn

    from studio.caching.block_stack import part_of

    weighty = (nn.Linear, nn.Conv1d, nn.Conv2d)
    parts = (part_of(block, part) for part in ("attention", "mlp"))
    return tuple(next(layer for layer in part.modules() if isinstance(layer, weighty)) for part in parts)


def _other_layers(ready: LoadedPipeline) -> Iterator[nn.Module]:
    """The layers of the text encoders and the autoencoder, each short enough to wait for when somebody cancels."""
    from torch import nn

    for model in ready.models.values():
        if model not in ready.transformers:
            for module in model.modules():
                if isinstance(module, nn.ModuleList):
                    yield from (layer for layer in module if layer is not None)  # Mochi's has gaps


def _unexpected(error: BaseException) -> StudioError:
    """A fault nobody foresaw, in the studio's words; the original hangs on as its cause."""
    failure = StudioError(
        f"Something unforeseen went wrong: {type(error).__name__}: {str(error)[:500]}",
        way_out="Please report it with the run's folder.",
    )
    failure.__cause__ = error
    return failure
