"""Requests: all that is needed to do a piece of work again.

Knows the fields, their ranges, and how a request is held against a preset. Refuses to know how it is carried out.
Nothing is silently corrected: a value off the model's grid is refused with the nearest valid ones.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from studio.clips.control_maps import MAP_NAMES, SHORT_NAMES, MapName
from studio.clips.reference import FileReference
from studio.errors import RequestError
from studio.preset import Preset
from studio.requests.caches import CacheConfig, cache_fault
from studio.requests.fields import defaults_of

M = TypeVar("M", bound=BaseModel)
SCHEMA_VERSION = 1
"""Raised when a field changes its meaning; `read_request` then translates the older ones."""
MAX_SEED = 2**32 - 1


def _as_strengths(written: object) -> object:
    """`edges, lanes:0.7` as a record: a map without a number is followed wholly."""
    if written is None:
        return {}
    if isinstance(written, str):
        written = dict(_strength_of(part) for part in re.split(r"[,;]", written) if part.strip())
    if not isinstance(written, dict):
        return written
    named = {SHORT_NAMES.get(str(name), str(name)): strength for name, strength in written.items()}
    return {name: named.pop(name) for name in MAP_NAMES if name in named} | named


def _strength_of(part: str) -> tuple[str, object]:
    name, sign, strength = re.fullmatch(r"([^:=]*)([:=]?)(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
    return name.strip(), strength.strip() if sign else 1.0


Strength: TypeAlias = Annotated[float, Field(ge=0, le=1)]
ControlStrengths: TypeAlias = Annotated[dict[MapName, Strength], BeforeValidator(_as_strengths)]
"""By map; what is not named is not followed, unless nothing is."""


class GenerationRequest(BaseModel):
    """One clip to be made. Names are diffusers' own; sizes are pixels, lengths frames."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    preset: str
    """Name of the preset."""
    prompt: str
    """What is to be seen."""
    negative_prompt: str = ""
    """What is not to be seen."""
    height: int = Field(ge=1, le=8192)
    """Rows of a frame."""
    width: int = Field(ge=1, le=8192)
    """Columns of a frame."""
    num_frames: int = Field(title="Frames", ge=1, le=2000)
    """Length of the clip."""
    fps: float = Field(title="Frames a second", gt=0, le=120)
    """Frames a second when shown; the model does not see it."""
    num_inference_steps: int = Field(title="Steps", ge=1, le=200)
    """Denoising steps: more is slower and finer."""
    guidance_scale: float = Field(title="Guidance", ge=0, le=30)
    """How strongly the prompt is followed; 1 or less switches guidance off and halves the work."""
    flow_shift: float | None = Field(default=None, gt=0, le=50)
    """Shift of the flow schedule: larger spends more steps at high noise. None keeps the scheduler as it is."""
    seed: int = Field(ge=0, le=MAX_SEED)
    """Seed of the initial noise, drawn on the CPU so that it is the same on every device."""
    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", title="Number format")
    """Number format of the weights; auto takes what this machine runs best."""
    offload: Literal["auto", "none", "model", "group", "sequential"] = "auto"
    """What is kept off the accelerator while it is not needed: less memory, more time, the same clip."""
    vae_tiling: Literal["auto", "on", "off"] = Field(default="auto", title="VAE tiling")
    """Decode in overlapping tiles: less memory, faint seams."""
    quantization: Literal["auto", "none", "int8"] = "auto"
    """Weights of the transformer in 8 bits: less memory, a slightly different clip."""
    compile: bool = False
    """Compile the transformer's blocks: the first step takes up to minutes longer, the others are faster. For many or
    long clips on a graphics card; other last bits."""
    attention_backend: Literal["auto", "native", "_native_cudnn", "flash", "_flash_3", "sage"] = "auto"
    """Whose kernels compute attention, by diffusers' names; auto takes torch's own. sage rounds to 8 bits."""
    adapter: str | None = Field(default=None, title="Version")
    """Id of the fine-tuned version to use; None takes the model as it came."""
    cache: CacheConfig | None = None
    """How computing is saved by reusing what hardly changes; None computes everything."""
    source: FileReference | None = None
    """The clip or picture to start from; None starts from noise alone."""
    kept_frames: int = Field(default=1, ge=1, le=1000)
    """Of the source: a picture becomes the first frame; of a clip, so many of its last frames become the first ones,
    and are continued."""
    control: FileReference | None = None
    """The maps that the clip is to keep to; None leaves it free."""
    control_strengths: ControlStrengths = Field(default={}, validate_default=False)
    """Which of the maps are followed, and how closely, 0 to 1, such as edges, lanes:0.7. Empty follows all that there
    are."""
    conditioning_scale: float = Field(default=1.0, ge=0, le=2)
    """How closely the maps are followed altogether; 0 leaves the clip free, as if there were none."""


_LEFT_OUT_WHERE_UNSET = (
    *("source", "control", "compile", "attention_backend"),
    *("kept_frames", "control_strengths", "conditioning_scale"),
)
"""They came later: an earlier studio still reads a request that has none of them."""


def new_seed() -> int:
    """A seed nobody chose."""
    return secrets.randbelow(MAX_SEED + 1)


def request_for(preset: Preset, *, prompt: str, seed: int | None = None, **fields: Any) -> GenerationRequest:
    """The preset's defaults with the given fields over them; a field that is None keeps the default.

    Raises:
        RequestError: a field nobody knows, or a value out of range.
    """
    chosen = {name: value for name, value in fields.items() if value is not None}
    apart = {"preset": preset.name, "prompt": prompt, "seed": new_seed() if seed is None else seed}
    return read_request(defaults_of(preset, GenerationRequest) | chosen | apart)


def read_request(written: dict[str, Any] | str | bytes) -> GenerationRequest:
    """A request from a record or JSON that came from outside (a file, a form, an older version).

    Raises:
        RequestError: not JSON, a field nobody knows (the known ones are named), or a value out of range.
    """
    written = {name: value for name, value in record_of(written).items() if name != "schema_version"}
    try:
        return GenerationRequest.model_validate(written)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        if field.startswith("cache"):
            raise cache_fault(written.get("cache"), fault) from error
        raise fault_in(GenerationRequest, written, error) from error


def record_of(written: dict[str, Any] | str | bytes) -> dict[str, Any]:
    """Settings from outside as a record; raises RequestError where they are none."""
    if isinstance(written, (str, bytes)):
        try:
            written = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                "The settings are not JSON.", field="settings", way_out="Choose a file the studio wrote."
            ) from error
    if not isinstance(written, dict):
        raise RequestError(f"The settings are a {type(written).__name__}, not a record.", field="settings")
    return written


def read_as(model: type[M], written: dict[str, Any]) -> M:
    """A record that came from outside, as a model.

    Raises:
        RequestError: a field nobody knows, or a value out of range; the field is named.
    """
    try:
        return model.model_validate(written)
    except ValidationError as error:
        raise fault_in(model, written, error) from error


def fault_in(model: type[BaseModel], written: dict[str, Any], error: ValidationError) -> RequestError:
    """What pydantic found in a record first, with the field, the value and the fields there are."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return RequestError(f"Unknown setting {field!r}.", field=field, way_out=f"Known settings: {known}.")
    value = written.get(field, fault["input"])
    return RequestError(f"{field} = {str(value)[:80]!r} will not do: {fault['msg']}.", field=field, value=value)


def request_to_json(request: GenerationRequest) -> dict[str, Any]:
    """As a record that `read_request` reads back, today and later."""
    record = request.model_dump(mode="json")
    for name in _LEFT_OUT_WHERE_UNSET:
        if record[name] == GenerationRequest.model_fields[name].default:
            del record[name]
    return {"schema_version": SCHEMA_VERSION} | record


RecordedRequest: TypeAlias = Annotated[
    GenerationRequest,
    BeforeValidator(read_request),
    PlainSerializer(request_to_json, when_used="json"),
]
"""A request as a field of something that is written down."""
