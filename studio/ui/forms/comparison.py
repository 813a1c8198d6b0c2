"""What the Compare tab's controls say: words and ticks become a grid.

Knows the grid and the Generate tab's form. Refuses to know pages, and what becomes of a grid.
"""

from __future__ import annotations

import math
from typing import Any

from studio.compare import Grid, Method, method_of, parse_axis, parse_method
from studio.errors import RequestError, StudioError
from studio.requests.caches import METHODS, why_not
from studio.requests.generation import MAX_SEED, GenerationRequest
from studio.ui.forms.caches import MOREG
from studio.ui.forms.generation import label_of, request_of

LABELS = {
    "prompt": "Prompts",
    "seed": "Seeds",
    "method": "Methods",
    "axis": "Further fields",
    "repeats": "Repeats",
    "grid": "Grid",
}
AS_ON_THE_FORM = "form"


def method_choices(pipeline: str) -> list[tuple[str, str]]:
    """Methods that work on a model, by title; the last is whatever cache the Generate tab has."""
    found = [(parse_method(name).title, name) for name in METHODS if why_not(name, pipeline) is None]
    at = next((place + 1 for place, (_, name) in enumerate(found) if name == "adacache"), 0)
    found.insert(at, (parse_method(MOREG).title, MOREG))
    return [*found, ("The Generate tab's cache", AS_ON_THE_FORM)]


def grid_of(values: tuple[Any, ...], *, prompt: str | None = None) -> Grid:
    """What the tab's controls and the form say.

    Args:
        values: The grid's own controls in the order of `CompareTab._asked`, then the form's.
        prompt: Taken where neither names one, to count a grid that is not begun yet.

    Raises:
        StudioError: naming the field at fault.
    """
    prompts, seeds, repeats, ticked, steps, rows, axes = values[:7]
    typed = _lines(prompts)
    request, _ = request_of(values[7:], prompt=typed[0] if typed else prompt)
    if not isinstance(repeats, (int, float)) or not math.isfinite(repeats) or int(repeats) != repeats:
        raise RequestError(f"{repeats!r} is no number of repeats.", field="repeats", way_out="Choose 1 or more.")
    methods = [_ticked(name, request) for name in ticked or [] if isinstance(name, str)]
    methods += [parse_method(f"steps:{word}") for word in _words(steps)]
    methods += [parse_method(line) for line in _lines(rows)]
    if not any(method.fields for method in methods):
        raise RequestError("No method is chosen.", field="method", way_out="Tick one, or name fewer steps.")
    return Grid(
        base=request,
        prompts=tuple(typed),
        seeds=tuple(_seed(word) for word in _words(seeds)),
        methods=tuple(methods),
        axes=tuple(parse_axis(line) for line in _lines(axes)),
        repeats=int(repeats),
    )


def grid_label(error: StudioError) -> str:
    """The label of the control that an error is about."""
    return LABELS.get(error.field) or label_of(error)


def _ticked(name: str, request: GenerationRequest) -> Method:
    if name != AS_ON_THE_FORM:
        return parse_method(name)
    if request.cache is None:
        raise RequestError(
            "The Generate tab's cache is off.", field="method", way_out="Choose one there, or untick it here."
        )
    return method_of(request)


def _lines(text: Any) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()] if isinstance(text, str) else []


def _words(text: Any) -> list[str]:
    return text.replace(",", " ").replace(";", " ").split() if isinstance(text, str) else []


def _seed(word: str) -> int:
    if not word.isdecimal() or int(word) > MAX_SEED:
        raise RequestError(
            f"{word[:40]!r} is no seed.", field="seed", value=word, way_out=f"Write 0 to {MAX_SEED}, with commas."
        )
    return int(word)
