"""What the page shows of a stream of events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from studio.events import (
    BlockComputed,
    BlockReused,
    Branch,
    GenerationEvent,
    ModelReady,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepStarted,
)
from studio.preset import find_preset
from studio.requests.generation import GenerationRequest, request_for
from studio.ui.panels.run_progress import Progress, kind_of

PLACEMENT = Placement(
    device="cpu",
    device_name="a processor",
    torch_dtype="float32",
    vae_dtype="bfloat16",
    channels_last=True,
    offload="none",
    vae_tiling=False,
    quantization="none",
)
BRANCHES: tuple[Branch, ...] = ("cond", "uncond")


@dataclass(frozen=True, kw_only=True)
class _Job:
    state: str
    request: GenerationRequest
    position: int | None = None
    error: dict[str, Any] | None = None
    started: str | None = None
    finished: str | None = None


def job(state: str = "running", **changes: Any) -> _Job:
    return _Job(state=state, request=request_for(find_preset("pocket"), prompt="a red car", seed=7), **changes)


def step(index: int, *, seconds: float = 0.25, reused: int = 0, blocks: int = 3) -> list[GenerationEvent]:
    """One step's events; the last `reused` blocks of both branches are taken from before."""
    events: list[GenerationEvent] = [StepStarted(step=index, sigma=1 - index / 10, timestep=1000.0)]
    for branch in BRANCHES:
        for block in range(blocks):
            if block < blocks - reused:
                events.append(BlockComputed(step=index, block=block, branch=branch))
            else:
                events.append(BlockReused(step=index, block=block, branch=branch, age=1))
    return [*events, StepFinished(step=index, seconds=seconds, peak_bytes=1000, eta_seconds=2.5)]


def told(*events: GenerationEvent) -> Progress:
    progress = Progress()
    for event in events:
        progress.add(event)
    return progress


def started(total: int = 4) -> list[GenerationEvent]:
    return [
        RunStarted(run_id="r", total_steps=total, placement=PLACEMENT, predicted_seconds=9.0),
        StageStarted(stage="loading"),
        StageFinished(stage="loading", seconds=1.5),
        ModelReady(blocks=3, branches="separate"),
        StageStarted(stage="denoising"),
    ]


def test_every_finished_step_becomes_a_bar_with_its_real_milliseconds_sigma_and_blocks() -> None:
    timeline = told(*started(), *step(0, seconds=0.4), *step(1, seconds=0.25, reused=1), *step(2, reused=3)).timeline()
    assert timeline["total"] == 4
    assert timeline["branches"] == ["cond", "uncond"]
    assert [bar["ms"] for bar in timeline["steps"]] == [400.0, 250.0, 250.0]
    assert [bar["kind"] for bar in timeline["steps"]] == ["computed", "half", "reused"]
    assert [bar["blocks"] for bar in timeline["steps"]] == [["ccc", "ccc"], ["ccr", "ccr"], ["rrr", "rrr"]]
    assert timeline["steps"][1]["sigma"] == 0.9
    assert timeline["current"] is None


def test_the_step_under_way_is_no_bar_yet() -> None:
    timeline = told(*started(), *step(0), *step(1)[:-1]).timeline()
    assert len(timeline["steps"]) == 1
    assert timeline["current"] == {"step": 1, "sigma": 0.9}


def test_block_decisions_alone_do_not_bother_the_page() -> None:
    progress = told(*started())
    assert [progress.add(event) for event in step(0)] == [True, *[False] * 6, True]


@pytest.mark.parametrize(
    ("letters", "kind"),
    [
        ("", "computed"),
        ("ccc", "computed"),
        ("rrr", "reused"),
        ("crc", "half"),
        ("xxx", "extrapolated"),
        ("hhh", "half"),
    ],
)
def test_a_step_is_named_after_what_its_blocks_did(letters: str, kind: str) -> None:
    assert kind_of(letters) == kind


def test_replaying_from_the_start_gives_the_same_picture() -> None:
    events = [*started(), *step(0), *step(1)]
    assert told(*events).timeline() == told(*events).timeline()


def test_a_whole_run_of_200_steps_and_60_blocks_stays_a_small_payload() -> None:
    events = [*started(200)]
    for index in range(200):
        events += step(index, blocks=60)
    assert len(json.dumps(told(*events).timeline())) < 64 * 1024


def test_the_status_says_stage_time_left_and_where_the_picture_is_from() -> None:
    progress = told(*started(), *step(0), PreviewFrame(step=0, jpeg=b"\xff\xd8"))
    status = progress.status(job(started="2026-01-01T00:00:00+00:00"), title="a road")
    assert status["headline"] == "Denoising, step 2 of 4"
    assert status["eta"] == 2.5
    assert status["elapsed"] > 0
    assert status["stages"] == [{"name": "model", "seconds": 1.5}, {"name": "denoise", "seconds": None}]
    assert status["preview"].startswith("data:image/jpeg;base64,")
    assert status["preview_step"] == 0


def test_until_the_first_step_the_calibration_says_how_long() -> None:
    assert told(*started()).status(job(), title="a road")["eta"] == 9.0


@pytest.mark.parametrize(
    ("state", "changes", "headline"),
    [
        ("queued", {"position": 0}, "Next in the queue"),
        ("queued", {"position": 1}, "Waiting behind 1 other"),
        ("queued", {"position": 3}, "Waiting behind 3 others"),
        ("running", {}, "Starting"),
        ("complete", {}, "Finished"),
        ("cancelled", {}, "Stopped"),
        ("failed", {"error": {"message": "No room.", "way_out": "Make some."}}, "This did not work"),
        ("interrupted", {"error": {"message": "Stopped.", "way_out": ""}}, "Interrupted"),
    ],
)
def test_every_state_of_a_job_has_words(state: str, changes: dict[str, Any], headline: str) -> None:
    status = Progress().status(job(state, **changes), worker="Starting up", title="a road")
    assert status["headline"] == headline
    if "error" in changes:
        assert changes["error"]["message"] in status["detail"]
    if state in ("queued", "running"):
        assert status["detail"] == "Starting up"


def test_a_kept_partial_run_is_not_called_finished() -> None:
    progress = told(*started(), *step(0), RunFinished(run_id="r", partial=True, seconds=3.0))
    assert "kept" in progress.status(job("complete"), title="a road")["headline"]
