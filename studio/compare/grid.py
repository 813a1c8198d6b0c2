"""What is asked for: methods and axes around a base request, and the cells that they come to.

Knows requests, and how a person writes a method. Refuses to know what becomes of a cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from studio.compare.cells import FULL, Cell
from studio.errors import RequestError
from studio.preset import find_preset
from studio.requests.caches import (
    METHODS,
    SPELLED_SO_BEFORE,
    cache_text,
    cache_title,
    parse_cache,
    parse_options,
    parts_of,
    spelled,
    split_cache,
    value_of,
)
from studio.requests.checks import check_request
from studio.requests.generation import GenerationRequest, read_request

SHORT_STEPS, ANY_FIELD = "steps", "set"
MOST_CELLS = 200
MOST_REPEATS = 20
_APART = ("prompt", "seed")
"""Fields that have an axis of their own; a method may not change them, for a group shares them."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One column of a grid: what it changes in the request of its group."""

    text: str
    """As a person writes it and `parse_method` reads it; names the method everywhere."""
    fields: dict[str, Any]
    """Request fields and their values; empty for the reference."""

    @property
    def title(self) -> str:
        """As a person reads it."""
        name, _, options = self.text.partition(":")
        if name == FULL:
            return "Full"
        if name == SHORT_STEPS:
            return f"{options} steps"
        if name == ANY_FIELD:
            return options.replace(",", ", ").replace("_", " ")
        try:
            method, settings = split_cache(self.text)
        except RequestError:  # of another version
            return self.text
        title = cache_title(method).removesuffix(" (the studio's own)")
        if method == "adacache" and settings.pop("moreg", False):
            title += " + MoReg"
        words = ", ".join(f"{setting.replace('_', ' ')}={spelled(value)}" for setting, value in settings.items())
        return f"{title} ({words})" if words else title


def parse_method(text: str) -> Method:
    """`full`, `adacache`, `adacache:moreg=true,codebook=slow`, `steps:15`, `set:guidance_scale=1`.

    Raises:
        RequestError: not of that form, or no such method; the known ones are named.
    """
    text = text.strip()
    name, _, options = text.partition(":")
    if name == FULL and not options:
        return Method(text=FULL, fields={})
    if name == SHORT_STEPS:
        if not options.strip().isdecimal():
            raise RequestError(
                f"{text[:60]!r} names no number of steps.", field="method", value=text, way_out="Write steps:15."
            )
        return Method(text=f"{SHORT_STEPS}:{int(options)}", fields={"num_inference_steps": int(options)})
    if name == ANY_FIELD:
        fields = parse_options(options, text)
        if not fields:
            raise RequestError(
                f"{text[:60]!r} sets nothing.", field="method", value=text, way_out="Write set:guidance_scale=1."
            )
        _refuse_apart(fields, "method")
        return Method(text=text, fields=fields)
    if name not in METHODS and name not in SPELLED_SO_BEFORE:
        known = ", ".join((FULL, "steps:N", "set:FIELD=VALUE", *METHODS))
        raise RequestError(
            f"No method is called {name[:60]!r}.", field="method", value=text, way_out=f"Known: {known}."
        )
    return Method(text=text, fields={"cache": parse_cache(text).model_dump()})


def method_of(request: GenerationRequest) -> Method:
    """The method that gives a request its cache."""
    if request.cache is None:
        return Method(text=FULL, fields={})
    return Method(text=cache_text(request.cache), fields={"cache": request.cache.model_dump()})


def parse_axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """`guidance_scale=1,3`: a request field and the values it is to take.

    Raises:
        RequestError: not of that form, or no such field.
    """
    name, sign, values = text.strip().partition("=")
    name = name.strip()
    if not sign or not values.strip():
        raise RequestError(
            f"{text[:60]!r} is no FIELD=VALUE,VALUE.", field="axis", value=text, way_out="Write guidance_scale=1,3."
        )
    if name not in GenerationRequest.model_fields:
        known = ", ".join(field for field in GenerationRequest.model_fields if field not in _APART)
        raise RequestError(f"Unknown setting {name[:60]!r}.", field="axis", value=text, way_out=f"Known: {known}.")
    _refuse_apart((name,), "axis")
    return name, tuple(dict.fromkeys(value_of(part) for part in parts_of(values)))


def _refuse_apart(names: Iterable[str], where: str) -> None:
    for name in names:
        if name in _APART:
            raise RequestError(
                f"{name} is an axis of its own.", field=where, value=name, way_out=f"Give several of --{name} instead."
            )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Axes around a base request: prompts × seeds × further fields × methods."""

    base: GenerationRequest
    """Whose other fields every cell has; its cache is left out, for the methods say it."""
    prompts: tuple[str, ...] = ()
    """Empty takes the base's."""
    seeds: tuple[int, ...] = ()
    """Empty takes the base's."""
    methods: tuple[Method, ...] = ()
    """The reference belongs to every group, whether it is named or not."""
    axes: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Further fields and their values; each combination is a group with a reference of its own."""
    repeats: int = 1
    """How often each cell is made, interleaved with its reference."""


def cells_of(grid: Grid) -> tuple[Cell, ...]:
    """All cells in the order in which they are made: by group, by repeat, the reference first.

    Raises:
        StudioError: a value out of range, a reference that its preset refuses, a method that changes nothing, or more
            cells than are taken. A method's own refusal is its cell's matter, and comes when the cell does.
    """
    if not 1 <= grid.repeats <= MOST_REPEATS:
        raise RequestError(
            f"repeats = {grid.repeats} will not do.",
            field="repeats",
            value=grid.repeats,
            way_out=f"Choose 1 to {MOST_REPEATS}.",
        )
    prompts = tuple(dict.fromkeys(grid.prompts)) or (grid.base.prompt,)
    seeds = tuple(dict.fromkeys(grid.seeds)) or (grid.base.seed,)
    methods = tuple({method.text: method for method in grid.methods if method.fields}.values())
    choices = list(itertools.product(*(tuple((name, value) for value in values) for name, values in grid.axes)))
    count = len(prompts) * len(seeds) * len(choices) * grid.repeats * (1 + len(methods))
    if count > MOST_CELLS:
        raise RequestError(
            f"The grid has {count} cells; at most {MOST_CELLS} are taken.",
            field="grid",
            value=count,
            way_out="Leave out prompts, seeds, methods or repeats.",
        )
    base = grid.base.model_dump() | {"cache": None}
    cells: list[Cell] = []
    for group, (prompt, seed, chosen) in enumerate(itertools.product(prompts, seeds, choices)):
        shared = base | {"prompt": prompt, "seed": seed} | dict(chosen)
        full = read_request(shared).model_copy(update={"cache": None})
        check_request(full, find_preset(full.preset))
        row = [(FULL, full)]
        for method in methods:
            request = read_request(full.model_dump() | method.fields)
            if request == full:
                raise RequestError(
                    f"{method.title} is what the reference does already.",
                    field="method",
                    value=method.text,
                    way_out="Leave it out: the reference is always made.",
                )
            row.append((method.text, request))
        for repeat in range(grid.repeats):
            reference = len(cells)
            for text, request in row:
                cells.append(
                    Cell(
                        number=len(cells),
                        group=group,
                        repeat=repeat,
                        reference=reference,
                        method=text,
                        request=request,
                    )
                )
    return tuple(cells)
