"""Checks: a request held against its preset, before anything is begun.

Knows grids and what a prompt is. Refuses to know machines, and how a request is carried out. Nothing is silently
corrected: a value off the model's grid is refused with the nearest valid ones.
"""

from __future__ import annotations

import unicodedata

from studio.clips.control_maps import TITLES, MapName
from studio.clips.map_files import is_file_of_maps, maps_named_in
from studio.clips.reference import check_unchanged
from studio.errors import GridError, PromptError, RequestError
from studio.family import FAMILIES, Condition, family_of
from studio.preset import SIDES, Preset
from studio.requests.caches import why_not
from studio.requests.generation import GenerationRequest

MAX_PROMPT_CHARACTERS = 2000


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
    family_of(preset.pipeline)  # which refuses one that the studio does not call
    _check_what_is_lacking(request, preset)
    _check_conditions(request)
    if request.compile and request.cache is not None and request.cache.looks_into_blocks:
        raise RequestError(
            f"{request.cache.title} skips layers within a block, and a compiled block is one piece.",
            field="compile",
            value=True,
            way_out="Leave compile off, or choose a cache that skips whole blocks, such as Budget.",
        )
    if request.cache is not None and (reason := why_not(request.cache.method, preset.pipeline)) is not None:
        raise RequestError(
            f"{request.cache.title} does not work with {preset.title}: {reason}",
            field="cache",
            value=request.cache.method,
            way_out="Choose another cache, such as AdaCache.",
        )


def check_files(request: GenerationRequest) -> None:
    """Refuse a request whose files are not what they were when it was made.

    Raises:
        RequestError: one is gone, or something else is in it.
    """
    for field in ("source", "control"):
        reference = getattr(request, field)
        if reference is not None:
            check_unchanged(reference, field=field)
    if request.control is not None and is_file_of_maps(request.control.path):
        check_maps_there(request, maps_named_in(request.control.path))


def check_maps_there(request: GenerationRequest, names: tuple[MapName, ...]) -> None:
    """Refuse a request that follows maps which its file does not hold.

    Raises:
        RequestError: one is not there, or there is none at all.
    """
    assert request.control is not None
    missing: list[MapName] = [name for name in request.control_strengths if name not in names]
    if missing or not names:
        raise RequestError(
            f"{request.control.path.name} holds no {TITLES[missing[0]].lower() if missing else 'maps'}.",
            field="control_strengths" if missing else "control",
            value=missing[0] if missing else str(request.control),
            way_out=f"It holds: {', '.join(names)}." if names else "Name a file of maps, or a control video.",
        )


CONDITIONS: dict[str, Condition] = {
    "source": "source",
    "kept_frames": "source",
    "control": "control",
    "control_strengths": "control",
    "conditioning_scale": "control",
}
"""Fields of a request that only those families have a use for that start from a file or keep to one, and which."""
LACKING = ("negative_prompt", "vae_tiling", "flow_shift", *CONDITIONS)
"""Fields of a request that some presets have no use for."""


def why_not_set(field: str, preset: Preset) -> str | None:
    """Why a preset has no use for a request's field, as what is said of it; None where it has.

    Args:
        field: One of `LACKING`; every preset has a use for the others.
        preset: Any; of a pipeline that nobody knows, nothing is known to be lacking.
    """
    if field == "flow_shift" and preset.defaults.flow_shift is None:
        return "has no flow_shift to set."
    family = FAMILIES.get(preset.pipeline)
    if family is None:
        return None
    if field == "negative_prompt" and not family.negative_prompt:
        return "has no negative prompt: its guidance is built in."
    if field == "vae_tiling" and family.decodes_in_tiles_only:
        return "decodes in tiles only."
    condition = CONDITIONS.get(field)
    if condition is not None and condition not in family.conditions:
        return "starts from noise alone, not from a file." if condition == "source" else "takes no maps to keep to."
    return None


def _check_conditions(request: GenerationRequest) -> None:
    """Raises RequestError for what says something of a file that is not named, or keeps all that there is to make."""
    for field, condition in CONDITIONS.items():
        value, unset = getattr(request, field), GenerationRequest.model_fields[field].default
        if value != unset and getattr(request, condition) is None:
            use = "a source is begun from" if condition == "source" else "maps are followed"
            raise RequestError(
                f"{field} = {value} says how {use}, and the request has no {condition}.",
                field=field,
                value=str(value),
                way_out=f"Name a file as {condition}, or leave {field} out.",
            )
    if request.source is not None and request.kept_frames >= request.num_frames:
        raise RequestError(
            f"{request.kept_frames} frames are kept of a clip of {request.num_frames}: none is left to be made.",
            field="kept_frames",
            value=request.kept_frames,
            way_out=f"Keep fewer, or make a longer clip than {request.kept_frames} frames.",
        )


def _check_what_is_lacking(request: GenerationRequest, preset: Preset) -> None:
    """Raises RequestError for what the preset has no use for."""
    for field in LACKING:
        value, unset = getattr(request, field), GenerationRequest.model_fields[field].default
        reason = why_not_set(field, preset)
        # Tiling may be asked for where there is nothing else.
        if reason is None or value == unset or (field == "vae_tiling" and value == "on"):
            continue
        raise RequestError(
            f"{preset.title} {reason}",
            field=field,
            value=str(value),
            way_out=f"Leave {field} at {unset}." if unset else f"Leave {field} empty.",
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
