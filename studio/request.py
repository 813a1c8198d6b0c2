"""Requests: all that is needed to do a piece of work again.

Knows the fields, their ranges, and how a request is held against a preset. Refuses to know how it is carried out.
Nothing is silently corrected: a value off the model's grid is refused with the nearest valid ones.
"""

from __future__ import annotations

import json
import secrets
import unicodedata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.cache_settings import METHODS, CacheConfig, title_of, why_not
from studio.errors import GridError, PromptError, RequestError
from studio.preset import SIDES, Preset

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning; `read_request` then translates the older ones."""
MAX_PROMPT_CHARACTERS = 2000
MAX_SEED = 2**32 - 1


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
    num_frames: int = Field(ge=1, le=2000)
    """Length of the clip."""
    fps: float = Field(gt=0, le=120)
    """Frames a second when shown; the model does not see it."""
    num_inference_steps: int = Field(ge=1, le=200)
    """Denoising steps: more is slower and finer."""
    guidance_scale: float = Field(ge=0, le=30)
    """How strongly the prompt is followed; 1 or less switches guidance off and halves the work."""
    flow_shift: float | None = Field(default=None, gt=0, le=50)
    """Shift of the flow schedule: larger spends more steps at high noise. None keeps the scheduler as it is."""
    seed: int = Field(ge=0, le=MAX_SEED)
    """Seed of the initial noise, drawn on the CPU so that it is the same on every device."""
    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto takes what this machine runs best."""
    offload: Literal["auto", "none", "model", "group", "sequential"] = "auto"
    """What is kept off the accelerator while it is not needed: less memory, more time, the same clip."""
    vae_tiling: Literal["auto", "on", "off"] = "auto"
    """Decode in overlapping tiles: less memory, faint seams."""
    quantization: Literal["auto", "none", "int8"] = "auto"
    """Weights of the transformer in 8 bits: less memory, a slightly different clip."""
    adapter: str | None = None
    """Id of the fine-tuned version to use; None takes the model as it came."""
    cache: CacheConfig | None = None
    """How computing is saved by reusing what hardly changes; None computes everything."""


def new_seed() -> int:
    """A seed nobody chose."""
    return secrets.randbelow(MAX_SEED + 1)


def request_for(preset: Preset, *, prompt: str, seed: int | None = None, **fields: Any) -> GenerationRequest:
    """The preset's defaults with the given fields over them; a field that is None keeps the default.

    Raises:
        RequestError: a field nobody knows, or a value out of range.
    """
    defaults = preset.defaults.model_dump(exclude={"prompts", "max_sequence_length"})
    chosen = {name: value for name, value in fields.items() if value is not None}
    return read_request(
        defaults | chosen | {"preset": preset.name, "prompt": prompt, "seed": new_seed() if seed is None else seed}
    )


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
            raise _cache_fault(written.get("cache"), fault) from error
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


def fault_in(model: type[BaseModel], written: dict[str, Any], error: ValidationError) -> RequestError:
    """What pydantic found in a record first, with the field, the value and the fields there are."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return RequestError(f"Unknown setting {field!r}.", field=field, way_out=f"Known settings: {known}.")
    value = written.get(field)
    return RequestError(f"{field} = {str(value)[:80]!r} will not do: {fault['msg']}.", field=field, value=value)


def _cache_fault(cache: Any, fault: Any) -> RequestError:
    """What is wrong with a cache, in the words of its own settings."""
    if not isinstance(cache, dict):
        return RequestError(
            f"The cache is a {type(cache).__name__}, not a record.",
            field="cache",
            value=cache,
            way_out='Write {"method": …}.',
        )
    method = cache.get("method")
    if method not in METHODS:
        return RequestError(
            f"There is no cache {str(method)[:40]!r}.",
            field="cache",
            value=method,
            way_out=f"Known caches: {', '.join(METHODS)}.",
        )
    name = ".".join(str(part) for part in fault["loc"][2:])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(name for name in METHODS[method].model_fields if name != "method")
        return RequestError(f"{method} has no setting {name!r}.", field=f"cache.{name}", way_out=f"It has: {known}.")
    value = cache.get(name)
    of_value = f" = {str(value)[:80]!r}" if name else ""
    return RequestError(
        f"{name or method}{of_value} will not do: {fault['msg']}.", field=f"cache.{name}".rstrip("."), value=value
    )


def request_to_json(request: GenerationRequest) -> dict[str, Any]:
    """As a record that `read_request` reads back, today and later."""
    return {"schema_version": SCHEMA_VERSION} | request.model_dump()


def check_request(request: GenerationRequest, preset: Preset) -> None:
    """Hold a request against its preset.

    Raises:
        PromptError: empty, longer than 2,000 characters, or with characters that are not text.
        GridError: a size or length off the preset's grid; the nearest valid ones are named.
        RequestError: a setting this model does not have.
    """
    check_prompt(request.prompt, field="prompt")
    if request.negative_prompt:
        check_prompt(request.negative_prompt, field="negative_prompt")
    for side in SIDES:
        length = getattr(request, side)
        check_on_grid(side, length, preset.size.nearest(length, side), preset)
    check_on_grid("num_frames", request.num_frames, preset.frames.nearest(request.num_frames), preset)
    pixels = request.height * request.width
    if preset.size.max_pixels is not None and pixels > preset.size.max_pixels:
        most = f"{preset.title} takes at most {preset.size.max_pixels:,}"
        raise GridError(
            f"{request.height}×{request.width} is {pixels:,} pixels; {most}.",
            field="height",
            value=request.height,
            way_out="Choose a smaller size"
            + (f", such as {preset.size.native[0][0]}×{preset.size.native[0][1]}." if preset.size.native else "."),
        )
    if request.cache is not None and (reason := why_not(request.cache.method, preset.pipeline)) is not None:
        raise RequestError(
            f"{title_of(request.cache.method)} does not work with {preset.title}: {reason}",
            field="cache",
            value=request.cache.method,
            way_out="Choose another cache, such as AdaCache.",
        )
    if request.flow_shift is not None and preset.defaults.flow_shift is None:
        raise RequestError(
            f"{preset.title} has no flow_shift to set.",
            field="flow_shift",
            value=request.flow_shift,
            way_out="Leave flow_shift empty.",
        )


def check_on_grid(field: str, value: int, nearest: tuple[int, ...], preset: Preset) -> None:
    """Raises GridError with the nearest valid values."""
    if nearest != (value,):
        raise GridError(
            f"{field} = {value} is off {preset.title}'s grid.",
            field=field,
            value=value,
            way_out=f"Nearest valid: {' and '.join(map(str, nearest))}.",
        )


def check_prompt(prompt: str, *, field: str = "prompt") -> None:
    """Refuse what is not a prompt.

    Raises:
        PromptError: empty, longer than 2,000 characters, or with control characters or broken surrogates.
    """
    if not prompt.strip():
        raise PromptError(f"The {field} is empty.", field=field, value=prompt, way_out="Say what is to be seen.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise PromptError(
            f"The {field} has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken.",
            field=field,
            value=prompt,
            way_out="Shorten it.",
        )
    for character in prompt:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t\r":
            raise PromptError(
                f"The {field} holds the character U+{ord(character):04X}, which is not text.",
                field=field,
                value=prompt,
                way_out="Remove it.",
            )
