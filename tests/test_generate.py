"""Generate: one stream for everybody, cancelled by closing it, and bit-identical whatever happened before."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from studio import pipelines, processor
from studio.clips.read import read_clip, read_settings
from studio.errors import GridError, NumericalError, OutOfMemory, PromptError, RequestError, StudioError, UnknownPreset
from studio.events import (
    BlockComputed,
    BlockReused,
    CacheDecided,
    GenerationEvent,
    ModelReady,
    Notice,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepStarted,
)
from studio.generate import generate
from studio.machine import hardware, weights
from studio.preset import find_preset
from studio.records.profiles import SHIPPED
from studio.records.run import request_in_settings
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, request_for

SMALL = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 3}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def _request(prompt: str = "a red car drives ahead on a clear day", **fields: object) -> GenerationRequest:
    return request_for(find_preset("pocket"), prompt=prompt, **({"seed": 7} | SMALL | fields))


def _walk(request: GenerationRequest, store: RunStore, **options: object) -> list[GenerationEvent]:
    return list(generate(request, store=store, **options))  # type: ignore[arg-type]


def _frames(store: RunStore, events: list[GenerationEvent]) -> np.ndarray:
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    return read_clip(store.get(finished.run_id).video).clip.frames


def _ready() -> pipelines.LoadedPipeline:
    """The pocket model in the slot, placed as `generate` places it: by what trying the processor has told."""
    preset = find_preset("pocket")
    with TemporaryDirectory() as folder:
        machine = processor.as_tried(hardware.measure(), Path(folder))
    return pipelines.load(preset, pipelines.place(preset, _request(), machine))


@pytest.fixture
def first_frames(tmp_path: Path) -> np.ndarray:
    """What an undisturbed run of `_request()` makes."""
    pipelines.unload()
    store = RunStore(tmp_path / "undisturbed")
    return _frames(store, _walk(_request(), store))


@pytest.fixture
def transformer() -> Iterator[Callable[[Callable[..., object]], None]]:
    """Puts a forward hook on the last block of the loaded pocket transformer, and takes it off again."""
    handles = []

    def hook(with_: Callable[..., object]) -> None:
        handles.append(_ready().blocks[-1].register_forward_hook(with_))

    yield hook
    for handle in handles:
        handle.remove()


def test_the_stream_begins_with_the_run_and_ends_with_the_clip(store: RunStore) -> None:
    events = _walk(_request(), store)
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    ready = next(event for event in events if isinstance(event, ModelReady))
    counted = Counter(type(event) for event in events)
    assert counted[StepStarted] == counted[StepFinished] == 3
    assert counted[BlockComputed] == 3 * ready.blocks * 2
    assert counted[PreviewFrame] >= 1
    stages = [event.stage for event in events if isinstance(event, StageFinished)]
    assert stages == ["loading", "encoding", "denoising", "decoding"]
    sigmas = [event.sigma for event in events if isinstance(event, StepStarted)]
    assert sigmas == sorted(sigmas, reverse=True)
    assert 0.9 < sigmas[0] <= 1


def test_every_step_computes_every_block_once_for_each_branch(store: RunStore) -> None:
    computed = [event for event in _walk(_request(), store) if isinstance(event, BlockComputed)]
    blocks = max(event.block for event in computed) + 1
    expected = [(step, branch, block) for step in range(3) for branch in ("cond", "uncond") for block in range(blocks)]
    assert [(event.step, event.branch, event.block) for event in computed] == expected


def test_without_guidance_the_work_is_halved(store: RunStore) -> None:
    events = _walk(_request(guidance_scale=1.0), store)
    computed = [event for event in events if isinstance(event, BlockComputed)]
    ready = next(event for event in events if isinstance(event, ModelReady))
    assert ready.branches == "none"
    assert len(computed) == 3 * ready.blocks


def test_the_run_on_disk_says_what_was_asked_and_what_came_of_it(store: RunStore) -> None:
    request = _request()
    events = _walk(request, store)
    run = store.get(events[-1].run_id)  # type: ignore[union-attr]
    assert (run.state, run.partial, run.request) == ("complete", False, request)
    assert len(run.step_seconds) == 3
    assert run.placement is not None
    settings = read_settings(run.video)
    assert settings is not None
    assert request_in_settings(settings) == request
    clip = read_clip(run.video).clip
    assert clip.frames.shape == (5, 64, 64, 3)


def test_the_same_request_gives_the_same_bits(store: RunStore, first_frames: np.ndarray) -> None:
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


def test_another_seed_gives_another_clip(store: RunStore, first_frames: np.ndarray) -> None:
    assert not np.array_equal(_frames(store, _walk(_request(seed=8), store)), first_frames)


@pytest.mark.parametrize("block_events", [1, 5, 20])
def test_closing_cancels_within_one_block_and_leaves_no_trace(
    store: RunStore, first_frames: np.ndarray, block_events: int
) -> None:
    stream = generate(_request(), store=store)
    run_id, computed = "", 0
    for event in stream:
        run_id = event.run_id if isinstance(event, RunStarted) else run_id
        computed += isinstance(event, BlockComputed)
        if computed == block_events:
            break
    ran: list[int] = []
    handles = [block.register_forward_hook(lambda *_: ran.append(1)) for block in _ready().blocks]
    threads = threading.active_count()
    stream.close()
    for handle in handles:
        handle.remove()
    # The pipeline ran on while this test was reading: what counts is that no block ends after the closing but one.
    assert len(ran) <= 1
    assert threading.active_count() < threads
    assert store.get(run_id).state == "cancelled"
    assert not store.get(run_id).video.exists()
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


def test_closing_while_a_model_is_loading_loads_no_further(store: RunStore) -> None:
    pipelines.unload()
    stream = generate(_request(), store=store)
    run_id = ""
    for event in stream:
        run_id = event.run_id if isinstance(event, RunStarted) else run_id
        if isinstance(event, StageStarted) and event.stage == "loading":
            break
    stream.close()
    assert store.get(run_id).state == "cancelled"
    preset = find_preset("pocket")
    placement = pipelines.place(preset, _request(), hardware.measure())
    with pytest.raises(InterruptedError):  # the slot is empty: it would have to be read again
        pipelines.load(preset, placement, check=_interrupt)


def _interrupt() -> None:
    raise InterruptedError


def test_stop_and_keep_decodes_what_was_reached(store: RunStore, first_frames: np.ndarray) -> None:
    keep = threading.Event()
    events = []
    for event in generate(_request(num_inference_steps=6), store=store, stop=lambda: "keep" if keep.is_set() else None):
        events.append(event)
        if isinstance(event, StepStarted) and event.step == 1:
            keep.set()
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert finished.partial
    run = store.get(finished.run_id)
    assert (run.state, run.partial) == ("complete", True)
    assert 2 <= len(run.step_seconds) < 6
    frames = read_clip(run.video).clip.frames
    assert frames.shape == (5, 64, 64, 3)
    assert frames.std() > 1
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


def test_nan_stops_the_run_and_leaves_the_next_one_alone(
    store: RunStore, first_frames: np.ndarray, transformer: Callable[[Callable[..., object]], None]
) -> None:
    steps = Counter[str]()

    def poison(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        steps["passes"] += 1
        return output * float("nan") if steps["passes"] == 3 else output

    transformer(poison)
    with pytest.raises(NumericalError, match="step 2"):
        _walk(_request(), store)
    (failed,) = store.search(state="failed")
    assert failed.error is not None
    assert failed.error["code"] == "numerical"
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


@pytest.mark.parametrize("cause", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_is_told_and_leaves_the_next_run_alone(
    store: RunStore,
    first_frames: np.ndarray,
    transformer: Callable[[Callable[..., object]], None],
    cause: BaseException,
) -> None:
    once = [cause]

    def exhaust(*_: object) -> None:
        if once:
            raise once.pop()

    transformer(exhaust)
    with pytest.raises(OutOfMemory) as caught:
        _walk(_request(), store)
    assert caught.value.way_out
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


def test_an_unforeseen_fault_is_told_in_the_studios_words(
    store: RunStore, first_frames: np.ndarray, transformer: Callable[[Callable[..., object]], None]
) -> None:
    once = [RuntimeError("a cable was pulled")]

    def fault(*_: object) -> None:
        if once:
            raise once.pop()

    transformer(fault)
    with pytest.raises(StudioError, match="a cable was pulled"):
        _walk(_request(), store)
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"prompt": "  "}, PromptError, "empty"),
        ({"prompt": "x" * 10_000}, PromptError, "10,000"),
        ({"height": 100}, GridError, "96 and 112"),
        ({"width": 4096}, GridError, "256"),
        ({"num_frames": 18}, GridError, "17 and 21"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_anything_is_begun(
    store: RunStore, fields: dict[str, object], error: type[StudioError], said: str
) -> None:
    with pytest.raises(error, match=said):
        next(generate(_request(**fields), store=store))
    assert store.count() == 0


def test_an_unknown_preset_is_answered_with_the_known_ones(store: RunStore) -> None:
    request = _request().model_copy(update={"preset": "sora-9"})
    with pytest.raises(UnknownPreset, match="pocket"):
        next(generate(request, store=store))


def test_the_next_run_is_predicted_from_the_last(store: RunStore) -> None:
    first = next(event for event in _walk(_request(), store) if isinstance(event, RunStarted))
    second = next(event for event in _walk(_request(), store) if isinstance(event, RunStarted))
    assert first.predicted_seconds is None
    assert second.predicted_seconds is not None
    assert second.predicted_seconds > 0


def test_the_pocket_weights_are_where_the_preset_says() -> None:
    assert (weights.folder_of(find_preset("pocket")) / "model_index.json").is_file()


# Caches


@pytest.mark.parametrize(
    "cache",
    [
        {"method": "adacache", "codebook": "custom", "rates": [3]},
        {"method": "easycache", "threshold": 100.0},
        {"method": "sencache", "threshold": 100.0},
        {"method": "seacache", "threshold": 100.0},
        {"method": "taylorseer", "cache_interval": 2, "disable_cache_before_step": 2},
    ],
    ids=lambda cache: cache["method"],
)
def test_what_a_cache_reused_is_told_and_kept_in_the_trace(store: RunStore, cache: dict[str, object]) -> None:
    events = _walk(_request(num_inference_steps=8, cache=cache), store)
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    run = store.get(finished.run_id)
    assert run.trace is not None
    reused = sum(isinstance(event, BlockReused) for event in events)
    partly = sum(isinstance(event, BlockComputed) and event.share < 1 for event in events)
    assert run.trace.reused == reused
    assert reused + partly > 0
    assert run.trace.computed + run.trace.reused == 8 * 2 * len(_ready().blocks)
    assert not any(isinstance(event, Notice) for event in events)
    assert run.request.cache is not None
    assert request_in_settings(read_settings(run.video) or {}) == run.request


def test_a_decision_is_told_before_its_steps_blocks_with_the_reason(store: RunStore) -> None:
    events = _walk(_request(num_inference_steps=8, cache={"method": "adacache", "moreg": True}), store)
    told = -1
    for event in events:
        if isinstance(event, CacheDecided):
            told = event.step
            assert event.why
        if isinstance(event, (BlockComputed, BlockReused)):
            assert event.step == told
    later = [event for event in events if isinstance(event, CacheDecided) and event.step > 2]
    assert all(event.distance is not None and event.rate is not None and event.motion is not None for event in later)


def test_a_cache_that_skips_nothing_says_so_and_changes_no_bit(store: RunStore, first_frames: np.ndarray) -> None:
    events = _walk(_request(cache={"method": "adacache", "codebook": "custom", "rates": [1]}), store)
    assert any(isinstance(event, Notice) and "skipped nothing" in event.text for event in events)
    assert np.array_equal(_frames(store, events), first_frames)


def test_after_a_cached_run_an_uncached_one_is_bit_identical_to_a_first(
    store: RunStore, first_frames: np.ndarray
) -> None:
    _walk(_request(cache={"method": "easycache", "threshold": 100.0}), store)
    assert np.array_equal(_frames(store, _walk(_request(), store)), first_frames)


def test_a_cache_that_does_not_work_on_the_model_is_refused_by_name(store: RunStore) -> None:
    with pytest.raises(RequestError, match="FasterCache does not work"):
        _walk(_request(cache={"method": "fastercache"}), store)


def test_a_codebook_that_nobody_measured_is_refused_with_the_way_to_measure_it(store: RunStore, tmp_path: Path) -> None:
    from support.tiny_checkpoints import save, write_preset

    write_preset("wan", save("wan", tmp_path), tmp_path / "presets")
    cache = {"method": "adacache", "codebook": "calibrated"}
    preset = find_preset("wan", tmp_path / "presets")
    request = request_for(preset, prompt="a square", seed=1, height=32, width=32, num_frames=5, cache=cache)
    with pytest.raises(RequestError, match="calibrate PRESET") as caught:
        _walk(request, store, presets_folder=tmp_path / "presets")
    assert caught.value.field == "cache.codebook"
    assert not list(store.folder.glob("2*")), "refused before a run is begun"


def test_layers_that_the_model_does_not_have_are_refused_by_number(store: RunStore) -> None:
    cache = {"method": "adacache", "metric_layers": (1, 99)}
    with pytest.raises(RequestError, match="names 99; this model's blocks are 0 to 7") as caught:
        _walk(_request(cache=cache), store)
    assert caught.value.field == "cache.metric_layers"
    assert not list(store.folder.glob("2*")), "refused before a run is begun"


@pytest.mark.parametrize(("measured_on", "told"), [("these", False), ("others", True)])
def test_a_profile_of_other_weights_is_told_of(measured_on: str, told: bool, store: RunStore) -> None:
    shipped = json.loads((SHIPPED / "pocket" / "30-steps-shift-3.json").read_text())
    file = store.folder / "profiles" / "pocket" / "4-steps-shift-3.json"
    file.parent.mkdir(parents=True)
    current = weights.fingerprint(find_preset("pocket")) if measured_on == "these" else "0123456789abcdef"
    file.write_text(json.dumps(shipped | {"weights": current}))
    seen = {}
    for method in ("budget", "easycache"):
        events = _walk(_request(num_inference_steps=4, cache={"method": method}), store)
        seen[method] = any(isinstance(event, Notice) and "other weights" in event.text for event in events)
    assert seen == {"budget": told, "easycache": False}  # EasyCache reads no profile
