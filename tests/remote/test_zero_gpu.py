"""ZeroGPU: the same stream where a fork does the work. The fork itself exists on such a Space only: not tried here."""

import pickle
import threading
from pathlib import Path

from studio.events import RunFinished, RunStarted, StepFinished
from studio.machine.pace import RunPace, add
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.remote import zero_gpu
from studio.requests.generation import request_for

SMALL = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 4}


def test_the_stream_is_the_same_and_keeping_crosses_over(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    request = request_for(find_preset("pocket"), prompt="a road", seed=1, **SMALL)
    keep = threading.Event()
    events = []
    for event in zero_gpu.generate(request, store=store, stop=lambda: "keep" if keep.is_set() else None):
        events.append(event)
        if isinstance(event, RunStarted):
            keep.set()
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert finished.partial
    assert sum(isinstance(event, StepFinished) for event in events) < 4


def test_closing_the_stream_cancels(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    stream = zero_gpu.generate(request_for(find_preset("pocket"), prompt="a road", seed=1, **SMALL), store=store)
    first = next(stream)
    assert isinstance(first, RunStarted)
    stream.close()
    assert store.get(first.run_id).state == "cancelled"


def test_what_goes_into_the_fork_can_be_pickled(tmp_path: Path) -> None:
    request = request_for(find_preset("pocket"), prompt="a road", seed=1)
    again, store, marker = pickle.loads(pickle.dumps((request, RunStore(tmp_path), tmp_path / "keep")))
    assert again == request
    assert store.folder == tmp_path
    assert marker == tmp_path / "keep"


def test_the_card_is_asked_for_as_long_as_was_measured(tmp_path: Path) -> None:
    store, request = RunStore(tmp_path), request_for(find_preset("pocket"), prompt="a road", seed=1)
    assert zero_gpu.seconds_to_ask_for(request, store, "local", tmp_path) == zero_gpu.UNMEASURED_SECONDS
    add(
        RunPace(
            preset="pocket",
            device_name="a card",
            torch_dtype="bfloat16",
            volume=request.num_frames * request.height * request.width,
            guided=True,
            load_seconds=1,
            encode_seconds=0,
            step_seconds=1,
            finish_seconds=0,
        ),
        tmp_path,
    )
    assert 45 <= zero_gpu.seconds_to_ask_for(request, store, "local", tmp_path) <= 90
