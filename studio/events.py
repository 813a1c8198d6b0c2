"""Events: everything that a stream of work can say, as closed unions, and how they are written down.

The page, the command line, the job queue, the comparison grid and the tests walk the same streams. Failure is an
exception, not an event; cancelling is closing the stream. Knows nothing of who sends and who listens.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, JsonValue, PlainSerializer, TypeAdapter

StopWish = Literal["cancel", "keep", "give way"]
"""End now and keep nothing; end after the step under way and keep what was reached; or, of work that has parts, leave
off between two of them, to be gone on with."""
Stop = Callable[[], StopWish | None]
"""Asked now and then by whoever works: whether the work is to end, and how."""


def never() -> None:
    """A `Stop` that lets the work come to its end."""


Stage = Literal["loading", "encoding", "denoising", "decoding", "writing"]
Jpeg = Annotated[
    bytes,
    PlainSerializer(lambda picture: base64.b64encode(picture).decode("ascii"), when_used="json"),
    BeforeValidator(lambda written: base64.b64decode(written) if isinstance(written, str) else written),
]
Branch = Literal["cond", "uncond", "both"]
"""Which half of classifier-free guidance a transformer pass belongs to; `both` where one batch holds the two."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a model runs here, as it was decided, with the reasons a person can read."""

    device: str
    """torch's word: cpu, cuda, mps."""
    device_name: str
    """The processor's or accelerator's name."""
    torch_dtype: str
    """Number format of the transformer's weights."""
    vae_dtype: str
    """Number format of the autoencoder's weights."""
    channels_last: bool
    """Whether the autoencoder's convolutions run channels-last."""
    planar: bool = False
    """Whether its 3D convolutions are computed as sums of 2D ones."""
    offload: str
    vae_tiling: bool
    quantization: str
    compile: bool = False
    """Whether the transformer's blocks are compiled."""
    attention_backend: str = "native"
    """Whose kernels compute attention: diffusers' name."""
    reasons: tuple[str, ...] = ()
    """One sentence for each decision that was not plain."""


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The run's folder is open and the request is written in it."""

    run_id: str
    total_steps: int
    placement: Placement
    predicted_seconds: float | None
    """What the calibration says the whole run will take; None before any was measured."""
    uncached_step_seconds: float | None = None
    """What it says a step takes without a cache."""


@dataclass(frozen=True, kw_only=True)
class ModelReady:
    """The weights are loaded and placed."""

    blocks: int
    """Transformer blocks in one pass."""
    branches: Literal["separate", "batched", "none"]
    """How guidance runs: two passes a step, one pass over a batch of two, or one pass without guidance."""


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class StageFinished:
    stage: Stage
    seconds: float
    """Device-synchronised."""


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    step: int
    """From 0."""
    sigma: float
    """Noise level that the step starts from."""
    timestep: float


@dataclass(frozen=True, kw_only=True)
class CacheDecided:
    """What a cache decided about a step, told before the step's blocks."""

    step: int
    kind: Literal["computed", "reused", "extrapolated"]
    distance: float | None
    """What it measured; None where it measured nothing."""
    threshold: float | None
    """What that was held against."""
    rate: int | None
    """Steps from one computed step to the next."""
    motion: float | None
    """Motion score, 0 to 1."""
    why: str
    """One clause for a person."""


@dataclass(frozen=True, kw_only=True)
class BlockComputed:
    step: int
    block: int
    branch: Branch
    distance: float | None = None
    """What a cache measured before it decided to compute; None without a cache."""
    share: float = 1.0
    """How much of the block's layers ran; less than 1 where a cache reuses a part of a block."""


@dataclass(frozen=True, kw_only=True)
class BlockReused:
    step: int
    block: int
    branch: Branch
    age: int
    """Steps since the reused value was computed."""
    extrapolated: bool = False
    """Whether its trend was continued, instead of the value repeated."""


@dataclass(frozen=True, kw_only=True)
class StepFinished:
    step: int
    seconds: float
    """Device-synchronised, both guidance branches and the scheduler's own step."""
    peak_bytes: int
    """Highest accelerator memory so far, or the process's resident memory on a CPU."""
    eta_seconds: float
    """Until the clip is there: the steps left at the pace measured so far, and decoding."""


@dataclass(frozen=True, kw_only=True)
class PreviewFrame:
    """The denoised estimate after a step, as a small JPEG."""

    step: int
    jpeg: Jpeg
    """Empty in a run's log: the latest one is a file beside it."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something a person should know that is no failure."""

    text: str


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The clip is on disk."""

    run_id: str
    partial: bool
    """True where the run was stopped and what it had reached was kept."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """The version's folder is open, and its clips are read."""

    version_id: str
    total_steps: int
    first_step: int
    """Steps already done, where a stopped training goes on."""
    samples: int
    held_out: int
    placement: Placement


@dataclass(frozen=True, kw_only=True)
class TrainingForecast:
    """What the training will take, measured on two steps."""

    step_seconds: float
    eta_seconds: float
    """To the end, scoring and samples included as far as they were measured."""
    decoder_bytes: int
    """Held for the way back through the decoder, as asked for; 0 for latent objectives."""
    full_decoder_bytes: int
    """What plain backpropagation through the whole clip would hold."""
    peak_bytes: int = 0
    """Most memory so far: the accelerator's, or the process's."""


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """Where the work is besides training steps."""

    stage: Literal["loading", "reading", "preparing", "measuring", "scoring", "sampling", "saving"]
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """An optimizer step is done."""

    step: int
    """How many are done."""
    loss: float
    latent: float
    """The part of the model's own loss."""
    pixel: float | None
    """The part of decoded frames; None where the objective has none."""
    learning_rate: float
    seconds: float
    eta_seconds: float
    peak_bytes: int
    """Most memory so far: the accelerator's, or the process's."""


@dataclass(frozen=True, kw_only=True)
class TrainingScored:
    """Held-out samples, denoised in one step by the averaged weights."""

    step: int
    psnr: float
    """Decibels of decoded one-step estimates."""
    pixel: float
    latent: float
    objective: float


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """A clip was generated with the weights as they are."""

    step: int
    prompt: str
    path: str
    """The clip's file."""


@dataclass(frozen=True, kw_only=True)
class CheckpointWritten:
    """What was learnt so far survives whatever happens next."""

    step: int


@dataclass(frozen=True, kw_only=True)
class TrainingFinished:
    """The version is complete."""

    version_id: str
    worse_than_base: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EnlargerTrainingStarted:
    """The clips are read, and the model that enlarges begins to learn."""

    version_id: str
    total_steps: int
    first_step: int
    samples: int
    """Stretches of clips that are learnt from."""
    held_out: int


@dataclass(frozen=True, kw_only=True)
class EnlargerTrainingStep:
    """Some optimizer steps are done."""

    step: int
    """How many are done."""
    loss: float
    """The share of the linear filter's error that the model leaves, mean since the last word."""
    seconds: float
    """Of a step."""
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class EnlargerScored:
    """Held-out stretches, enlarged by the averaged weights."""

    step: int
    psnr: dict[str, float]
    """In dB, by scale."""


@dataclass(frozen=True, kw_only=True)
class ProfilingStep:
    """One clip has been made for a profile."""

    done: int
    total: int
    what: str


@dataclass(frozen=True, kw_only=True)
class ProfilingFinished:
    """The profile is on disk, with the plot of its distances beside it."""

    path: str
    plot: str
    skipped_share: float
    """Seconds of a skipped step against those of a computed one."""


@dataclass(frozen=True, kw_only=True)
class CellStarted:
    """A clip of a comparison is looked for, or made."""

    comparison_id: str
    cell: int
    of: int
    """Cells in all."""


@dataclass(frozen=True, kw_only=True)
class CellFinished:
    """The cell is complete or failed, and written down."""

    comparison_id: str
    cell: int
    of: int


@dataclass(frozen=True, kw_only=True)
class ComparisonFinished:
    comparison_id: str


@dataclass(frozen=True, kw_only=True)
class EnlargementStarted:
    """The clip is read, and its pictures begin to be enlarged."""

    enlargement_id: str
    num_frames: int
    """Pictures to be made, those that lie there already included."""
    done: int
    """How many lie there from before."""


@dataclass(frozen=True, kw_only=True)
class FramesEnlarged:
    """Some more pictures are made; they are kept from the end of their part on."""

    done: int
    """Pictures, those from before included."""
    num_frames: int
    frames_per_second: float
    """At which they were made since this work began."""
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class FramesMeasured:
    """What was made is measured, picture by picture."""

    done: int
    num_frames: int
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class EnlargementFinished:
    """What was asked for is on disk."""

    enlargement_id: str
    path: str
    """The file, by its name in the enlargement's folder."""
    partial: bool
    """True where only a part of the clip was made, as asked or because it was stopped and kept."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MapsStarted:
    """The frames are there, and begin to be measured."""

    map_set_id: str
    num_frames: int
    height: int
    width: int
    """Of the maps."""


@dataclass(frozen=True, kw_only=True)
class FramesMapped:
    """Some more of one map is there."""

    what: str
    """The map, by its name."""
    done: int
    total: int
    """Of all that is to be done, in frames of single maps."""
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class MapsFinished:
    """The maps are on disk, and as pictures beside it."""

    map_set_id: str
    maps: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class InsertionStarted:
    """The frames are there, and so is the vehicle."""

    insertion_id: str
    num_frames: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class FramesHarmonised:
    """The vehicle is lit in some more frames."""

    done: int
    total: int
    eta_seconds: float


@dataclass(frozen=True, kw_only=True)
class InsertionFinished:
    """The clip with the vehicle in it is on disk."""

    insertion_id: str
    path: str
    """The video, within its folder."""
    seconds: float


GenerationEvent: TypeAlias = (
    RunStarted
    | ModelReady
    | StageStarted
    | StageFinished
    | StepStarted
    | CacheDecided
    | BlockComputed
    | BlockReused
    | StepFinished
    | PreviewFrame
    | Notice
    | RunFinished
)
FinetuneEvent: TypeAlias = (
    TrainingStarted
    | TrainingForecast
    | TrainingStage
    | TrainingStep
    | TrainingScored
    | TrainingSample
    | CheckpointWritten
    | Notice
    | TrainingFinished
)
EnlargerTrainingEvent: TypeAlias = (
    EnlargerTrainingStarted
    | TrainingStage
    | EnlargerTrainingStep
    | EnlargerScored
    | CheckpointWritten
    | Notice
    | TrainingFinished
)
ProfilingEvent: TypeAlias = ProfilingStep | ProfilingFinished
ComparisonEvent: TypeAlias = CellStarted | CellFinished | ComparisonFinished | GenerationEvent
EnlargementEvent: TypeAlias = EnlargementStarted | FramesEnlarged | FramesMeasured | Notice | EnlargementFinished
MapsEvent: TypeAlias = MapsStarted | FramesMapped | Notice | MapsFinished
InsertionEvent: TypeAlias = InsertionStarted | FramesHarmonised | Notice | InsertionFinished
Event: TypeAlias = (
    GenerationEvent
    | FinetuneEvent
    | EnlargerTrainingEvent
    | ProfilingEvent
    | ComparisonEvent
    | EnlargementEvent
    | MapsEvent
    | InsertionEvent
)

_EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


@cache
def _adapter(kind: type[Event]) -> TypeAdapter[Event]:
    return TypeAdapter(kind)


def event_to_json(event: Event) -> dict[str, JsonValue]:
    """As a record with the event's name under `event`; pictures are base64."""
    return {"event": type(event).__name__} | _adapter(type(event)).dump_python(event, mode="json")


def event_from_json(record: Mapping[str, object]) -> Event:
    """The event that `event_to_json` wrote.

    Raises:
        ValueError: no event has that name, or its fields are not such.
    """
    kind = _EVENT_TYPES.get(str(record.get("event")))
    if kind is None:
        raise ValueError(f"no event is called {record.get('event')!r}; known: {', '.join(_EVENT_TYPES)}")
    return _adapter(kind).validate_python({name: value for name, value in record.items() if name != "event"})
