"""Generate: a request becomes a stream of events. The only place where a pipeline runs.

    for event in generate(request, store=RunStore(folder)):
        ...

The page, the command line, the queue's worker, comparisons and the tests walk this stream. Closing it cancels, within
one transformer block; so does a `stop` that says "cancel". One that says "keep" ends it after the step under way, with
what was reached, decoded and marked partial. Whatever happens, the next run is bit-identical to a first one.

Knows the order of the work and who is told what. Refuses to know how a family's pipeline is called (`pipelines`), what
a step's blocks did (`block_watch`), how a run lies on disk (`records`), and who listens.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studio.clips.clip import Clip
from studio.errors import StudioError
from studio.events import (
    GenerationEvent,
    ModelReady,
    Notice,
    RunFinished,
    RunStarted,
    Stage,
    StageFinished,
    StageStarted,
    Stop,
    never,
)
from studio.machine import hardware, pace, weights
from studio.machine.environment import environment
from studio.preset import Preset, find_preset
from studio.records.profiles import Profile, find_profile
from studio.records.run_writer import RunWriter
from studio.records.runs import RunStore
from studio.records.versions import VersionStore
from studio.requests.checks import check_files, check_request
from studio.requests.generation import GenerationRequest

if TYPE_CHECKING:
    from studio.caching import Cache, CacheRun
    from studio.pipelines import LoadedPipeline

    CacheMaker = Callable[[CacheRun], Cache]

PROFILES = "profiles"
"""In the runs' folder: what profiling measured, for caches to read."""


def generate(
    request: GenerationRequest,
    *,
    store: RunStore,
    owner: str = "local",
    stop: Stop = never,
    presets_folder: Path | None = None,
    cache_for: CacheMaker | None = None,
) -> Generator[GenerationEvent]:
    """Make one clip, saying everything that happens.

    Args:
        request: All that is needed to make it.
        store: Where the run is kept. Its folder is open and the request written before anything is loaded.
        owner: Whose run it is.
        stop: Asked at every block and step, from the thread that works, so it must be quick.
        presets_folder: Another catalogue than the studio's own.
        cache_for: Makes another cache than the request's, for profiling to look at the run through.

    Yields:
        RunStarted first and RunFinished last.

    Raises:
        StudioError: the request does not fit the preset, the weights are missing, memory or disk ran out, NaN turned
            up. The run, if it was begun, is marked failed on disk with the same words.
    """
    preset = find_preset(request.preset, presets_folder)
    check_request(request, preset)
    check_files(request)
    profile = None
    if request.cache is not None or cache_for is not None:
        steps, shift = request.num_inference_steps, request.flow_shift
        profile = find_profile(request.preset, store.folder / PROFILES, total_steps=steps, flow_shift=shift)
    if request.cache is not None:
        request.cache.check_model(measured=profile is not None, blocks=weights.num_blocks(preset))
    adapter = None
    if request.adapter is not None:
        adapter = VersionStore(store.folder).adapter_folder(request.adapter, request.preset)

    import torch  # here, so that importing this module costs nothing, nor does a refusal

    from studio import processor

    processor.settle_threads()
    writer = store.begin(request, preset=preset, owner=owner, environment=environment(torch))
    stream = _Stream(writer, stop)
    make_cache = partial(_cache, request, stream=stream, profile=profile, cache_for=cache_for)
    making = {"adapter": adapter, "store": store, "writer": writer, "stream": stream, "make_cache": make_cache}
    make = partial(_make, request, preset, **making)
    work = threading.Thread(target=stream.run, args=(make,))
    work.start()
    try:
        yield from stream
    finally:
        stream.close()
        work.join()


def _make(
    request: GenerationRequest,
    preset: Preset,
    *,
    adapter: Path | None,
    store: RunStore,
    writer: RunWriter,
    stream: _Stream,
    make_cache: Callable[[LoadedPipeline], Cache | None],
) -> RunFinished:
    """From the request to the finished folder; `adapter` is that of the fine-tuned version that is put in."""
    import torch

    from studio import pipelines, processor
    from studio.block_watch import BlockWatch, branches_of

    began = time.perf_counter()
    machine = processor.as_tried(hardware.measure(), store.folder)
    placement = pipelines.place(preset, request, machine)
    prediction = pace.predict(
        request, store.folder, device_name=placement.device_name, torch_dtype=placement.torch_dtype
    )
    stream.emit(
        RunStarted(
            run_id=writer.id,
            total_steps=request.num_inference_steps,
            placement=placement,
            predicted_seconds=prediction.seconds if prediction else None,
            uncached_step_seconds=prediction.step_seconds if prediction else None,
        )
    )
    conditions = pipelines.conditions_of(request)
    for sentence in conditions.notices:
        stream.emit(Notice(text=sentence))
    with _stage("loading", stream):
        folder = weights.folder_of(preset)
        model = pipelines.load(preset, placement, folder=folder, adapter=adapter, check=stream.check)
    stream.emit(ModelReady(blocks=len(model.blocks), branches=branches_of(model, request)))

    cache = make_cache(model)
    finish_seconds = prediction.finish_seconds if prediction else 0.0
    watch = BlockWatch(model, request, stream, cache=cache, finish_seconds=finish_seconds)
    try:
        with cache.attached() if cache else nullcontext(), watch.attached():
            frames = model.run(
                request,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                on_stage=stream.tell_stage,
                on_step_start=watch.step_started,
                on_step=watch.step_finished,
                interrupted=lambda: stream.stop() == "keep",
                conditions=conditions,
            )
    finally:
        model.reset()

    if request.cache is not None and not watch.saved:
        stream.emit(Notice(text=_SAVED_NOTHING))
    stopped = len(watch.step_seconds) < request.num_inference_steps
    stream.emit(StageStarted(stage="writing"))
    run = writer.complete(Clip(frames=frames, fps=request.fps, caption=request.prompt), partial=stopped)
    if cache is None and not request.compile:
        pace.remember(run, store.folder)
    return RunFinished(run_id=run.id, partial=stopped, seconds=time.perf_counter() - began)


def _cache(
    request: GenerationRequest,
    model: LoadedPipeline,
    *,
    stream: _Stream,
    profile: Profile | None,
    cache_for: CacheMaker | None,
) -> Cache | None:
    """The cache that the request asks for, ready to be attached."""
    if request.cache is None and cache_for is None:
        return None
    from studio import caching
    from studio.block_watch import passes_of

    if request.cache is not None and request.cache.reads_profile and profile is not None:
        if request.adapter is not None:
            stream.emit(Notice(text=_OTHER_WEIGHTS.format("without the fine-tuned version")))
        elif profile.weights != weights.fingerprint(model.preset):
            stream.emit(Notice(text=_OTHER_WEIGHTS.format("with other weights, so measure it again")))
    stacks = zip(model.transformers, model.stacks, strict=True)
    cache_run = caching.CacheRun(
        pipe=model.pipe,
        stacks=tuple(caching.Stack(transformer=transformer, blocks=blocks) for transformer, blocks in stacks),
        total_steps=request.num_inference_steps,
        sigmas=lambda: model.sigmas,
        handover=lambda: model.handover,
        passes=len(passes_of(model, request)),
        profile=profile,
    )
    if cache_for is not None:
        return cache_for(cache_run)
    assert request.cache is not None
    return caching.cache_for(request.cache, cache_run)


class _Closed(BaseException):
    """The listener has gone. Not an Exception, so that no library on the way swallows it."""


class _Stream:
    """Carries events from the thread that works to the generator that yields them, and the closing back.

    A pipeline is one long call; a generator must hand out control in the middle of it. So the call has a thread of its
    own, and an emit is where it learns that nobody listens any more.
    """

    def __init__(self, writer: RunWriter, stop: Stop) -> None:
        self.stop = stop
        self._writer = writer
        self._events: queue.SimpleQueue[GenerationEvent | BaseException | None] = queue.SimpleQueue()
        self._closed = threading.Event()

    def check(self) -> None:
        """Raises _Closed where the listener has gone, or asks to cancel."""
        if self._closed.is_set() or self.stop() == "cancel":
            raise _Closed

    def emit(self, event: GenerationEvent) -> None:
        self.check()
        self._writer.record(event)
        self._events.put(event)

    def tell_stage(self, stage: Stage, seconds: float | None) -> None:
        """A stage begins (None), or has ended after so many synchronised seconds."""
        self.emit(StageStarted(stage=stage) if seconds is None else StageFinished(stage=stage, seconds=seconds))

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


@contextmanager
def _stage(stage: Stage, stream: _Stream) -> Iterator[None]:
    began = time.perf_counter()
    stream.tell_stage(stage, None)
    yield
    stream.tell_stage(stage, time.perf_counter() - began)


_SAVED_NOTHING = (
    "The cache skipped nothing: every block of every step was computed, so this clip cost what it costs without one. "
    "Raise the cache's threshold, or take more steps."
)
_OTHER_WEIGHTS = "The cache's figures come from a profile that was measured {}: they are near, not exact."


def _unexpected(error: BaseException) -> StudioError:
    """A fault nobody foresaw, in the studio's words; the original hangs on as its cause."""
    failure = StudioError(
        f"Something unforeseen went wrong: {type(error).__name__}: {str(error)[:500]}",
        way_out="Please report it with the run's folder.",
    )
    failure.__cause__ = error
    return failure
