"""Work: what a job does, as a union: a clip, a training, a profile, a comparison, an enlargement, maps, an insertion.

Another kind is one class here and one line in `jobs/verbs.py`. Knows what has to be said to do each again. Refuses to
know who does it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from studio.errors import RequestError
from studio.requests.generation import GenerationRequest, read_as, read_request, record_of, request_to_json
from studio.requests.super_resolution import Excerpt


class _Work(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TrainVersion(_Work):
    """Train a version that was begun, or go on with one that was stopped."""

    version_id: str
    predict: bool = False
    """Only say what the training would take, measured on two steps that are not kept."""


class ProfileModel(_Work):
    """Measure a preset for its caches, at a number of steps and a shift."""

    preset: str
    num_inference_steps: int | None = Field(default=None, ge=1, le=200)
    """Denoising steps; None takes the preset's own."""
    flow_shift: float | None = Field(default=None, gt=0, le=50)
    """Shift of the flow schedule; None takes the preset's own."""


class WalkComparison(_Work):
    """Make the cells of a comparison that wait."""

    comparison_id: str


class EnlargeClip(_Work):
    """Enlarge a clip as it was written down, or go on with it."""

    enlargement_id: str
    excerpt: Excerpt | None = None
    """Only this part, to be looked at first; what is made of it is kept for the whole."""


class TrainEnlarger(_Work):
    """Train a version of a model that enlarges, or go on with one that was stopped."""

    version_id: str


class MakeMaps(_Work):
    """Make the maps of a clip as they were written down."""

    map_set_id: str


class InsertVehicle(_Work):
    """Put a vehicle into a clip as it was written down."""

    insertion_id: str


Work: TypeAlias = (
    GenerationRequest
    | TrainVersion
    | ProfileModel
    | WalkComparison
    | EnlargeClip
    | TrainEnlarger
    | MakeMaps
    | InsertVehicle
)
WorkKind = Literal["clip", "training", "profile", "comparison", "enlargement", "enlarger training", "maps", "insertion"]

KINDS: dict[WorkKind, type[Work]] = {
    "clip": GenerationRequest,
    "training": TrainVersion,
    "profile": ProfileModel,
    "comparison": WalkComparison,
    "enlargement": EnlargeClip,
    "enlarger training": TrainEnlarger,
    "maps": MakeMaps,
    "insertion": InsertVehicle,
}
"""What the queue calls each."""


def kind_of(work: Work) -> WorkKind:
    return next(kind for kind, of_kind in KINDS.items() if isinstance(work, of_kind))


def work_to_json(work: Work) -> dict[str, JsonValue]:
    """As a record that `read_work` reads back."""
    return request_to_json(work) if isinstance(work, GenerationRequest) else work.model_dump(mode="json")


def read_work(kind: str, written: str) -> Work:
    """Work of that kind, as it was written down.

    Raises:
        RequestError: a kind nobody knows, or a record that is none of it.
    """
    of_kind = next((of_kind for name, of_kind in KINDS.items() if name == kind), None)
    if of_kind is None:
        raise RequestError(f"There is no work {kind[:40]!r}.", field="kind", value=kind)
    if of_kind is GenerationRequest:
        return read_request(written)
    return read_as(of_kind, record_of(written))
