"""Checks: a request held against its preset, before anything is begun.

Knows grids and what a prompt is. Refuses to know machines, and how a request is carried out. Nothing is silently
corrected: a value off the model's grid is refused with the nearest valid ones.
"""

from __future__ import annotations

import unicodedata

from studio.errors import GridError, PromptError, RequestError
from studio.family import family_of
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
    _check_family(request, preset)
    if request.cache is not None and (reason := why_not(request.cache.method, preset.pipeline)) is not None:
        raise RequestError(
            f"{request.cache.title} does not work with {preset.title}: {reason}",
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


def _check_family(request: GenerationRequest, preset: Preset) -> None:
    """Raises RequestError for what the family does not have."""
    family = family_of(preset.pipeline)
    if request.negative_prompt and not family.negative_prompt:
        raise RequestError(
            f"{preset.title} has no negative prompt: its guidance is built in.",
            field="negative_prompt",
            value=request.negative_prompt,
            way_out="Leave negative_prompt empty.",
        )
    if request.vae_tiling == "off" and family.decodes_in_tiles_only:
        raise RequestError(
            f"{preset.title} decodes in tiles only.",
            field="vae_tiling",
            value=request.vae_tiling,
            way_out="Leave vae_tiling at auto.",
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
