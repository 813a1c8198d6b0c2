"""A run that is being written: its figures are its stream's, and it ends complete or given up, whatever happens."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import pytest
from support.small_runs import begin, die_at_write_point, in_a_child, noise

from studio.clips.read import read_settings
from studio.errors import ClipError, DiskFull, OutOfMemory, RunError
from studio.events import (
    BlockComputed,
    BlockReused,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StageFinished,
    StepFinished,
)
from studio.preset import Preset
from studio.records.run import COMPUTED, request_in_settings
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest

PLACEMENT = Placement(
    device="cpu",
    device_name="a processor",
    torch_dtype="float32",
    vae_dtype="bfloat16",
    channels_last=True,
    offload="none",
    vae_tiling=False,
    quantization="none",
    reasons=("because",),
)


def test_a_complete_run_has_its_outputs_as_they_were_written(store: RunStore, preset: Preset) -> None:
    run = begin(store, preset).complete(noise())
    assert run == store.get(run.id)
    assert run.state == "complete"
    assert not run.partial
    assert set(run.outputs) == {"video.mp4", "poster.jpg"}
    assert run.video.stat().st_size == run.outputs["video.mp4"].size > 1000
    assert run.thumbnail.read_bytes()[:2] == b"\xff\xd8"
    assert run.stage_seconds["writing"] > 0
    assert store.verify(run.id) == []
    run.thumbnail.unlink()
    run.video.write_bytes(run.video.read_bytes()[:-1] + b"?")
    assert store.verify(run.id) == ["video.mp4 is not the file that was written.", "poster.jpg is missing."]


def test_the_settings_inside_a_clip_make_the_same_request_and_keep_the_owner_out(
    store: RunStore, preset: Preset, request_: GenerationRequest
) -> None:
    run = store.begin(request_, preset=preset, owner="somebody", environment={}).complete(noise())
    written = read_settings(run.video)
    assert written is not None
    assert request_in_settings(written) == request_
    assert (written["run_id"], written["preset_digest"]) == (run.id, preset.digest)
    assert b"somebody" not in run.video.read_bytes()


def test_the_figures_are_those_of_the_stream(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    said = [
        RunStarted(run_id=writer.id, total_steps=2, placement=PLACEMENT, predicted_seconds=None),
        StageFinished(stage="encoding", seconds=0.5),
        BlockComputed(step=0, block=0, branch="cond"),
        BlockComputed(step=0, block=1, branch="cond", distance=0.25),
        BlockComputed(step=0, block=0, branch="uncond"),
        StepFinished(step=0, seconds=2.0, peak_bytes=30, eta_seconds=1.0),
        PreviewFrame(step=0, jpeg=b"a picture"),
        BlockReused(step=1, block=0, branch="cond", age=1),
        StepFinished(step=1, seconds=1.0, peak_bytes=20, eta_seconds=0.0),
    ]
    for event in said:
        writer.record(event)
    run = writer.fail(OutOfMemory("Memory ran out.", way_out="Fewer frames."))
    assert run == store.get(run.id)
    assert (run.step_seconds, run.stage_seconds, run.peak_bytes) == ((2.0, 1.0), {"encoding": 0.5}, 30)
    assert run.placement == PLACEMENT
    assert run.error is not None
    assert run.error["code"] == "out_of_memory"
    assert run.trace is not None
    assert run.trace.branches == ("cond", "uncond")
    assert run.trace.ages == (((COMPUTED, COMPUTED), (COMPUTED, None)), ((1, None), (None, None)))
    assert run.trace.distances is not None
    assert run.trace.distances[0] == ((None, None), (0.25, None))
    assert (run.trace.computed, run.trace.reused) == (3, 1)
    assert run.events() == [event for event in said if not isinstance(event, PreviewFrame)]


def test_nothing_is_written_once_a_run_is_final(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    run = writer.complete(noise())
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    writer.record(StageFinished(stage="writing", seconds=1.0))
    writer.record(RunFinished(run_id=run.id, partial=False, seconds=1.0))
    for end in (writer.cancel, lambda: writer.complete(noise(1)), lambda: writer.fail(RunError("late"))):
        with pytest.raises(RunError, match="ended already"):
            end()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_a_disk_that_fills_up_fails_the_run_and_nothing_else(store: RunStore, preset: Preset) -> None:
    old = begin(store, preset, "older").complete(noise())

    def fill_up_while_writing() -> None:
        writer = begin(store, preset, "too much")
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        with pytest.raises(DiskFull) as caught:
            writer.complete(noise())
        assert sorted(path.name for path in writer.folder.iterdir()) == ["events.jsonl", "lock", "run.json"]
        assert writer.fail(caught.value).state == "failed"

    def fill_up_at_once() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))
        with pytest.raises(DiskFull):
            begin(store, preset)

    assert in_a_child(fill_up_while_writing) == 0
    before = sorted(store.folder.iterdir())
    assert in_a_child(fill_up_at_once) == 0
    assert sorted(store.folder.iterdir()) == before, "nothing is left of a run that could not begin"
    store.sweep()
    assert {run.request.prompt: run.state for run in store.search()} == {"older": "complete", "too much": "failed"}
    assert store.verify(old.id) == []
    assert begin(store, preset).complete(noise()).state == "complete"


def test_a_clip_that_cannot_be_written_leaves_the_run_to_be_failed(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    odd = replace(noise(), frames=np.zeros((2, 15, 15, 3), np.uint8))
    with pytest.raises(ClipError):
        writer.complete(odd)
    assert store.get(writer.id).state == "running"
    assert writer.fail(ClipError("odd")).state == store.get(writer.id).state == "failed"


@pytest.mark.thorough
def test_a_kill_at_any_write_point_of_completing_leaves_running_or_complete(store: RunStore, preset: Preset) -> None:
    seen, number, status = [], 0, 42
    while status == 42:

        def complete_and_die(number: int = number) -> None:
            writer = begin(store, preset, f"point {number}")
            writer.record(StepFinished(step=0, seconds=1.0, peak_bytes=1, eta_seconds=0))
            die_at_write_point(number)
            writer.complete(noise())

        status = in_a_child(complete_and_die)
        (run,) = (run for run in store.search("point", limit=1))
        assert run.request.prompt == f"point {number}"
        assert run.state in ("running", "complete")
        assert store.verify(run.id) == []
        store.sweep()
        run = store.get(run.id)
        assert run.state in ("interrupted", "complete")
        assert run.video.exists() == run.thumbnail.exists() == (run.state == "complete")
        assert not list(run.folder.glob(".*")), "no temporary is left"
        assert run.step_seconds == (1.0,)
        seen.append(run.state)
        number += 1
    assert status == 0, "the last child reached the end"
    assert number > 12, "there are more write points than that"
    assert seen == sorted(seen, reverse=True), "once complete, always complete"
    assert {"interrupted", "complete"} == set(seen)
