"""Events: the union is closed, and every event survives being written down and read."""

import json
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from studio.events import (
    BlockComputed,
    BlockReused,
    CacheDecided,
    GenerationEvent,
    ModelReady,
    Notice,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepStarted,
    event_from_json,
    event_to_json,
)

PLACEMENT = Placement(
    device="cpu",
    device_name="a processor",
    torch_dtype="float32",
    vae_dtype="bfloat16",
    channels_last=True,
    offload="none",
    vae_tiling=False,
    quantization="none",
    reasons=("It is what there is.", "Größe: 45 MB."),
)

EVENTS: list[GenerationEvent] = [
    RunStarted(run_id="r", total_steps=30, placement=PLACEMENT, predicted_seconds=None),
    RunStarted(run_id="r", total_steps=30, placement=PLACEMENT, predicted_seconds=6.5),
    ModelReady(blocks=8, branches="separate"),
    StageStarted(stage="encoding"),
    StageFinished(stage="decoding", seconds=0.25),
    StepStarted(step=0, sigma=1.0, timestep=999.0),
    BlockComputed(step=3, block=7, branch="uncond"),
    BlockComputed(step=3, block=7, branch="cond", distance=0.125),
    BlockReused(step=4, block=0, branch="both", age=2),
    CacheDecided(
        step=4, kind="extrapolated", distance=0.125, threshold=None, rate=3, motion=0.5, why="2 more before the next"
    ),
    StepFinished(step=4, seconds=0.2, peak_bytes=2**40, eta_seconds=5.0),
    PreviewFrame(step=4, jpeg=bytes(range(256))),
    Notice(text="„Regen“ \n <b>"),
    RunFinished(run_id="r", partial=True, seconds=12.5),
]


def test_every_kind_of_event_is_tried_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(GenerationEvent))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_being_written_and_read(event: GenerationEvent) -> None:
    written = json.dumps(event_to_json(event))
    again = event_from_json(json.loads(written))
    assert again == event
    assert json.dumps(event_to_json(again)) == written


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_cannot_be_changed(event: GenerationEvent) -> None:
    with pytest.raises(FrozenInstanceError):
        event.step = 1  # type: ignore[misc]


@pytest.mark.parametrize("record", [{}, {"event": "Nothing"}, {"event": "os.system"}, {"event": None}])
def test_an_unknown_event_is_refused_with_the_known_ones(record: dict) -> None:
    with pytest.raises(ValueError, match="RunStarted"):
        event_from_json(record)
