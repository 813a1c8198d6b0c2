"""EnlargerTraining: all that is needed to fine-tune a model that enlarges, on somebody's own clips.

Knows fields and ranges. Refuses to know how training is carried out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.clips.reference import FileReference
from studio.errors import RequestError
from studio.preset import PRESET_NAME, EnlargerPreset, find_enlarger
from studio.requests.generation import MAX_SEED, read_as, record_of

MAX_CLIPS = 50
TRAINED = "SuperResolverPipeline"
"""The pipeline that can be fine-tuned."""


class EnlargerTraining(BaseModel):
    """One fine-tune: a model that enlarges, and sharp clips to learn from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    clips: tuple[FileReference, ...] = Field(min_length=1, max_length=MAX_CLIPS)
    """Sharp clips; they are made smaller here, and the model learns to undo that."""
    method: str = Field(default="pocket", pattern=PRESET_NAME)
    """The model, by the name of its preset."""
    title: str = Field(default="", max_length=120)
    """How the version is called; empty takes the first clip's name."""
    restore: bool = False
    """Whether it learns to restore: clips are blurred, made noisy and encoded as well as made smaller."""
    num_frames: int = Field(default=9, title="Frames", ge=1, le=129)
    """Pictures of a training sample, which follow one another. Memory does not grow with them: gradients go back
    through them a few at a time (ChopGrad)."""
    crop_size: int = Field(default=192, title="Crop", ge=64, le=512, multiple_of=16)
    """Rows and columns of the part of each picture that a sample shows."""
    gradient_accumulation_steps: int = Field(default=2, title="Samples a step", ge=1, le=64)
    """Samples that make one optimizer step."""
    max_train_steps: int = Field(default=400, title="Steps", ge=1, le=100_000)
    """Optimizer steps."""
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    """Of AdamW, after a short rise, falling to nothing over the second half."""
    mode: Literal["exact", "truncated", "full"] = Field(default="exact", title="Gradients through the pictures")
    """How gradients go back from picture to picture: exact is right and lean; truncated stops after a few; full for
    reference, with memory that grows with the sample."""
    validation_share: float = Field(default=0.1, title="Held out", ge=0, le=0.5)
    """Share of the samples held out for scoring: the last ones."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Of everything that is drawn."""


def read_enlarger_training(written: dict[str, Any] | str | bytes) -> EnlargerTraining:
    """A request from a record or JSON that came from outside.

    Raises:
        RequestError: not JSON, a field nobody knows, or a value out of range; the field is named.
    """
    return read_as(EnlargerTraining, record_of(written))


RecordedEnlargerTraining: TypeAlias = Annotated[EnlargerTraining, BeforeValidator(read_enlarger_training)]
"""A request as a field of something that is written down."""


def check_enlarger_training(request: EnlargerTraining) -> EnlargerPreset:
    """The preset of the model that is to learn.

    Raises:
        UnknownPreset: there is none.
        RequestError: it cannot be fine-tuned here.
    """
    preset = find_enlarger(request.method)
    if preset.pipeline != TRAINED:
        raise RequestError(
            f"{preset.title} cannot be fine-tuned here.", field="method", value=request.method, way_out="Take pocket."
        )
    return preset
