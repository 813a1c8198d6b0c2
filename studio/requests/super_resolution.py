"""SuperResolutionRequest: all that is needed to enlarge a clip again.

Knows fields and ranges. Refuses to know how pictures are enlarged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.clips.reference import FileReference
from studio.errors import RequestError
from studio.requests.generation import read_as, record_of

LARGEST_SIDE = 8192
"""Of an enlarged picture."""


def _as_number(written: object) -> object:
    """What was typed, which is text, as a number."""
    return int(written) if isinstance(written, str) and written.isdigit() else written


class SuperResolutionRequest(BaseModel):
    """One clip to be enlarged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: FileReference
    """The clip."""
    scale: Annotated[Literal[2, 4], BeforeValidator(_as_number)] = 2
    """How many times as high and as wide it becomes."""
    method: Literal["bicubic", "lanczos", "back-projection"] = "back-projection"
    """How: bicubic is what players do; lanczos is sharper, with faint halos; back-projection corrects lanczos until the
    clip shrunk again is the clip that was given."""
    back_projections: int = Field(default=3, ge=1, le=50)
    """Corrections that back-projection makes: after three hardly anything changes."""


class Excerpt(BaseModel):
    """A part of a clip, to be tried first."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    start: float = Field(ge=0)
    """Seconds from the beginning."""
    seconds: float = Field(gt=0, le=60)
    """How long."""


def read_super_resolution_request(written: dict[str, Any] | str | bytes) -> SuperResolutionRequest:
    """A request from a record or JSON that came from outside.

    Raises:
        RequestError: not JSON, a field nobody knows, or a value out of range; the field is named.
    """
    return read_as(SuperResolutionRequest, record_of(written))


RecordedSuperResolution: TypeAlias = Annotated[SuperResolutionRequest, BeforeValidator(read_super_resolution_request)]
"""A request as a field of something that is written down."""


def check_size(request: SuperResolutionRequest, *, height: int, width: int) -> None:
    """Refuse a clip that would become larger than any picture may be.

    Raises:
        RequestError: the larger side would exceed `LARGEST_SIDE`.
    """
    factor = request.scale
    if max(height, width) * factor > LARGEST_SIDE:
        smaller = f"Set scale to {factor // 2}, or s" if factor > 2 else "S"
        raise RequestError(
            f"{width}×{height} at {factor}× would be {width * factor}×{height * factor}; "
            f"at most {LARGEST_SIDE} pixels a side are made.",
            field="scale",
            value=request.scale,
            way_out=f"{smaller}cale the clip down first.",
        )
