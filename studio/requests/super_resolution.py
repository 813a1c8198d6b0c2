"""SuperResolutionRequest: all that is needed to enlarge a clip again.

Knows fields and ranges. Refuses to know how pictures are enlarged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.clips.reference import FileReference
from studio.errors import RequestError, UnknownPreset
from studio.preset import PRESET_NAME, EnlargerPreset, find_enlarger, list_enlargers
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
    method: str = Field(default="pocket", pattern=PRESET_NAME)
    """How: bicubic is what players do; lanczos is sharper, with faint halos; back-projection corrects lanczos until the
    clip shrunk again is the clip that was given; any other word is the name of a model in presets/super-resolution."""
    back_projections: int = Field(default=3, ge=0, le=50)
    """Corrections made, by back-projection and after the pocket super-resolver where it does not restore: after three
    hardly anything changes."""
    adapter: str | None = Field(default=None, title="Version")
    """A fine-tuned version of the model; None takes it as it came."""
    restore: bool = False
    """Whether the clip is also mended, where the model can: blur, noise and the marks of a codec are taken away. What
    it shows is not kept as it is then."""
    detail: float = Field(default=0.0, ge=0, le=1)
    """How much of what restoring cannot know is made up, where the model can: 0 adds nothing, 1 the most."""


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


WEIGHTLESS = {"back-projection": "Lanczos + back-projection", "lanczos": "Lanczos", "bicubic": "Bicubic"}
"""Methods that need no model, and what they are called on the page; the best first."""


def method_title(name: str) -> str:
    """What a method is called; its own name where it is a model that is not there any more."""
    known = WEIGHTLESS | {preset.name: preset.title for preset in list_enlargers()[0]}
    return known.get(name, name)


def enlarger_of(request: SuperResolutionRequest) -> EnlargerPreset | None:
    """The model that a request names; None where its method needs none.

    Raises:
        RequestError: there is no such method, or the model does not do what is asked for.
        PresetError: its preset cannot be read.
    """
    if request.method in WEIGHTLESS:
        if request.adapter is not None:
            raise RequestError(
                f"{WEIGHTLESS[request.method]} has no versions: it has no model.",
                field="adapter",
                value=request.adapter,
                way_out="Choose the model it is a version of, or leave it off.",
            )
        if request.restore:
            raise RequestError(
                f"{WEIGHTLESS[request.method]} mends nothing: it has no model.",
                field="restore",
                value=True,
                way_out="Choose a model that restores, or leave it off.",
            )
        if request.detail:
            raise RequestError(
                f"{WEIGHTLESS[request.method]} adds no detail: it has no model.",
                field="detail",
                value=request.detail,
                way_out="Set it to 0, or choose a model that adds some.",
            )
        return None
    try:
        preset = find_enlarger(request.method)
    except UnknownPreset:
        known = [*(each.name for each in list_enlargers()[0]), *WEIGHTLESS]
        raise RequestError(
            f"No method is called {request.method[:80]!r}.",
            field="method",
            value=request.method,
            way_out=f"Choose one of: {', '.join(known)}.",
        ) from None
    if request.scale not in preset.scales:
        offered = " or ".join(f"{scale}×" for scale in preset.scales)
        raise RequestError(
            f"{preset.title} enlarges {offered}, not {request.scale}×.",
            field="scale",
            value=request.scale,
            way_out=f"Set it to {offered}.",
        )
    if request.restore and not preset.restores:
        raise RequestError(
            f"{preset.title} has no switch for restoring.",
            field="restore",
            value=True,
            way_out="Choose another model, or leave it off.",
        )
    if request.detail and not (preset.details and request.restore):
        raise RequestError(
            f"{preset.title} adds detail only where it restores."
            if preset.details
            else f"{preset.title} has no knob for detail.",
            field="detail",
            value=request.detail,
            way_out="Set it to 0, or switch restore on." if preset.details else "Set it to 0, or choose another model.",
        )
    return preset


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
