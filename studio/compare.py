"""Compare: a grid of requests becomes cells, each with its clip, its seconds and its scores against the full clip.

    comparison = Comparisons(store).begin(Grid(base=request, methods=(parse_method("adacache"),)))
    for event in compare(comparison, store=store):
        ...

Within a group (one prompt, one seed, one choice on every further axis) the uncached reference comes first, and every
method starts from its noise. With repeats the whole row is walked again and again, so that what a machine does
meanwhile falls on the reference and on the methods alike. One cell is made at a time and scored before the next one
begins: nothing that is timed has the measuring beside it.

Two ways to walk the cells, one record that they write, `.comparisons/<id>.json` in the runs' folder, after every cell:

    compare     directly, here, as a stream of events        the command line
    Driver      through the job queue, in a thread           the page, which must not know torch

Knows requests, runs and scores. Refuses to know how a clip is made, and how a comparison is shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import platform
import re
import secrets
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

import studio
from studio.cache_settings import METHODS, title_of
from studio.clip import read_clip
from studio.errors import JobError, RequestError, RunError, StudioError, from_json
from studio.events import GenerationEvent, RunFinished, RunStarted
from studio.jobs import JobQueue
from studio.metrics import (
    METRICS,
    computed_share,
    score,
    scores_from_json,
    scores_to_json,
    speed_up,
    spread,
)
from studio.metrics.fidelity import psnr_per_frame
from studio.preset import find_preset
from studio.request import GenerationRequest, check_request, read_request, request_to_json
from studio.runs import Run, RunStore, utc_now
from studio.storage import FileLock, disk_trouble, write_atomically

CellState = Literal["waiting", "running", "complete", "failed"]
ComparisonState = Literal["running", "complete", "stopped"]
Door = Literal["page", "line"]
Pace = Literal["denoising", "whole"]
"""Which seconds a speed-up speaks of: the transformer's steps alone, or the run from the text to the file."""

FULL = "full"
"""The method that changes nothing: the reference of its group."""
SHORT_STEPS, ANY_FIELD = "steps", "set"
MOST_CELLS = 200
MOST_REPEATS = 20
SCORED_HERE = tuple(name for name, metric in METRICS.items() if "torch" not in metric.packages)
"""Metrics that any process can measure; the others wait for one with torch in it."""
SCORED_WITH_TORCH = tuple(name for name in METRICS if name not in SCORED_HERE)
COLD_SECONDS = 0.5
"""A run that spent more on loading came first to its model, and its first step carries one-off costs."""
UNSTEADY = 1.5
"""A timing that is off by more than this factor is told as such."""
LOOK_SECONDS = 0.2
"""How often the driver looks after its comparisons."""
SCORING_SECONDS = 900.0
"""How long the process with torch in it may measure."""
RECORD_VERSION = 1
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{16}")
_APART = ("prompt", "seed")
"""Fields that have an axis of their own; a method may not change them, for a group shares them."""

log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for: methods, axes, the grid


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
        base = "AdaCache + MoReg" if name == "adacache+moreg" else title_of(name).removesuffix(" (the studio's own)")
        return f"{base} ({options.replace('_', ' ').replace(',', ', ')})" if options else base


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
        fields = _options(options, text)
        if not fields:
            raise RequestError(
                f"{text[:60]!r} sets nothing.", field="method", value=text, way_out="Write set:guidance_scale=1."
            )
        _refuse_apart(fields, "method")
        return Method(text=text, fields=fields)
    cache = {"method": "adacache", "moreg": True} if name == "adacache+moreg" else {"method": name}
    if cache["method"] not in METHODS:
        known = ", ".join((FULL, "steps:N", "set:FIELD=VALUE", "adacache+moreg", *METHODS))
        raise RequestError(
            f"No method is called {name[:60]!r}.", field="method", value=text, way_out=f"Known: {known}."
        )
    return Method(text=text, fields={"cache": cache | _options(options, text)})


def method_of(request: GenerationRequest) -> Method:
    """The method that gives a request its cache: the settings that differ from the method's own."""
    if request.cache is None:
        return Method(text=FULL, fields={})
    usual = METHODS[request.cache.method]()
    changed = {
        name: value
        for name, value in request.cache.model_dump(mode="json").items()
        if name != "method" and value != usual.model_dump(mode="json")[name]
    }
    settings = dict(changed)
    name = "adacache+moreg" if request.cache.method == "adacache" and settings.pop("moreg", False) else ""
    options = ",".join(f"{setting}={json.dumps(value)}" for setting, value in settings.items())
    text = (name or request.cache.method) + (f":{options}" if options else "")
    return Method(text=text, fields={"cache": {"method": request.cache.method} | changed})


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
    return name, tuple(dict.fromkeys(_value(part) for part in _parts(values)))


def _refuse_apart(names: Iterable[str], where: str) -> None:
    for name in names:
        if name in _APART:
            raise RequestError(
                f"{name} is an axis of its own.", field=where, value=name, way_out=f"Give several of --{name} instead."
            )


def _options(text: str, whole: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _parts(text):
        name, sign, value = part.partition("=")
        if not sign:
            raise RequestError(
                f"{part[:60]!r} in {whole[:60]!r} is no NAME=VALUE.",
                field="method",
                value=whole,
                way_out="Write adacache:moreg=true.",
            )
        found[name.strip()] = _value(value)
    return found


def _parts(text: str) -> list[str]:
    """Cut at commas, but not inside brackets: `[0.1, 0.2]` is one value."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _value(text: str) -> Any:
    """A value as JSON where it is some, and as the words themselves otherwise."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
    return tuple(value) if isinstance(value, list) else value


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


# ---------------------------------------------------------------------------------------------------------------------
# What comes of it: cells and comparisons


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What a run took, device-synchronised. Loading is left out, for it depends on what was done before; so are the
    previews between the steps, which only whoever watches needs."""

    encoding: float
    """The text encoders."""
    denoising: float
    """All steps: the transformer's passes and the scheduler."""
    decoding: float
    """The autoencoder, latents to frames."""
    whole: float
    """These three and writing the file."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One clip of a grid: what was asked, the run that answers, what it scored, or what went wrong."""

    number: int
    """From 0, in the order in which they are made."""
    group: int
    """Cells of one group share prompt, seed and axes."""
    repeat: int
    reference: int
    """Number of the uncached cell of the same group and repeat; its own, where it is that cell."""
    method: str
    """`Method.text`."""
    request: GenerationRequest
    state: CellState = "waiting"
    job_id: str | None = None
    """The job under way, where there is one."""
    run_id: str | None = None
    reused: bool = False
    """The run was there before the comparison, and was timed then."""
    cold: bool = False
    """The run loaded the model first: its seconds carry one-off costs."""
    seconds: Seconds | None = None
    computed_share: float | None = None
    """Share of the block passes that ran; None where no trace was kept."""
    scores: dict[str, float] = field(default_factory=dict)
    """By metric; may be infinite or NaN."""
    frame_psnr: tuple[float, ...] = ()
    """dB, one for each frame, against the reference's."""
    notices: tuple[str, ...] = ()
    """What a reader of the figures should know, such as why a score is missing."""
    error: dict[str, Any] | None = None
    """`StudioError.to_json`."""

    @property
    def is_reference(self) -> bool:
        return self.number == self.reference

    @property
    def ended(self) -> bool:
        return self.state in ("complete", "failed")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A reference and cells, for each group."""

    id: str
    owner: str
    door: Door
    """Which way it is walked; neither touches the other's."""
    created: str
    """ISO 8601, UTC."""
    state: ComparisonState = "running"
    methods: tuple[str, ...]
    """`Method.text` in the order of the grid, the reference first."""
    cells: tuple[Cell, ...]

    def cell(self, number: int) -> Cell:
        """The cell of that number.

        Raises:
            RequestError: there is none.
        """
        if not (isinstance(number, int) and 0 <= number < len(self.cells)):
            raise RequestError(f"There is no cell {str(number)[:20]}.", field="cell", value=number)
        return self.cells[number]

    def with_cell(self, cell: Cell) -> Comparison:
        return replace(self, cells=(*self.cells[: cell.number], cell, *self.cells[cell.number + 1 :]))

    @property
    def next_cell(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.state == "waiting"), None)

    @property
    def ended(self) -> int:
        """How many cells have."""
        return sum(cell.ended for cell in self.cells)


# ---------------------------------------------------------------------------------------------------------------------
# The record


class Comparisons:
    """The folder of comparisons: one JSON file each, whole or as it was before.

    Only who holds a comparison's lock writes its record. Whoever else wants it to end leaves a note beside it.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.folder = store.folder / ".comparisons"  # with a dot: what has none is a run
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise disk_trouble(error, self.folder) from error

    def begin(
        self, grid: Grid, *, owner: str = "local", door: Door = "line", pinned: dict[str, str] | None = None
    ) -> Comparison:
        """Write a new comparison down; nothing is made yet.

        Args:
            grid: What is asked for.
            owner: Whose it is.
            door: Who will walk it.
            pinned: Runs to be taken as they are, by `Method.text`: the clip that somebody looks at and asks about.

        Raises:
            StudioError: as `cells_of`; or no room on the disk.
        """
        cells = cells_of(grid)
        if len(cells) == len({cell.number for cell in cells if cell.is_reference}):
            raise RequestError(
                "There is nothing to compare with the full clips.",
                field="method",
                way_out="Choose a method, such as adacache.",
            )
        pinned = pinned or {}
        cells = tuple(replace(cell, run_id=pinned.get(cell.method)) for cell in cells)
        comparison = Comparison(
            id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(8)}",
            owner=owner,
            door=door,
            created=utc_now(),
            methods=tuple(dict.fromkeys(cell.method for cell in cells)),
            cells=cells,
        )
        self.write(comparison)
        return comparison

    def path(self, comparison_id: str) -> Path:
        return self.folder / f"{comparison_id}.json"

    def get(self, comparison_id: Any, *, owner: str | None = None) -> Comparison:
        """The comparison of that id.

        Raises:
            RunError: there is none, it is somebody else's, or its file cannot be read.
        """
        unknown = RunError(
            f"There is no comparison {str(comparison_id)[:40]!r}.", field="comparison", value=comparison_id
        )
        if not (isinstance(comparison_id, str) and _ID.fullmatch(comparison_id)):
            raise unknown
        try:
            found = _from_record(json.loads(self.path(comparison_id).read_bytes()))
        except FileNotFoundError:
            raise unknown from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, StudioError) as error:
            raise RunError(f"The comparison {comparison_id} cannot be read: {error}.", field="comparison") from error
        if owner is not None and found.owner != owner:
            raise unknown
        return found

    def list(self, *, owner: str | None = None, limit: int = 20) -> list[Comparison]:
        """Newest first; what cannot be read is left out."""
        found: list[Comparison] = []
        for name in self._ids():
            if len(found) >= limit:
                break
            with suppress(RunError):
                found.append(self.get(name, owner=owner))
        return found

    def _ids(self) -> list[str]:
        return sorted((path.stem for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)), reverse=True)

    def write(self, comparison: Comparison) -> None:
        """Raises DiskFull where there is no room; the record is then as it was."""
        record = json.dumps(_to_record(comparison), ensure_ascii=False, allow_nan=False)
        write_atomically(self.path(comparison.id), record.encode("utf-8"))

    def lock(self, comparison_id: str) -> FileLock:
        """Held by whoever walks it."""
        return FileLock(self.folder / f"{comparison_id}.lock")

    def ask_to_stop(self, comparison_id: str, *, owner: str | None = None) -> None:
        if self.get(comparison_id, owner=owner).state == "running":
            (self.folder / f"{comparison_id}.stop").touch()

    def take_stop(self, comparison_id: str) -> bool:
        """Whether somebody asked; the note is struck out."""
        note = self.folder / f"{comparison_id}.stop"
        if not note.exists():
            return False
        note.unlink(missing_ok=True)
        return True

    def go_on(self, comparison_id: str, *, owner: str | None = None, again: bool = False) -> Comparison:
        """Let a stopped comparison run again from where it stood; with `again`, its failed cells too.

        Raises:
            RunError: there is none, or somebody walks it now.
        """
        comparison = self.get(comparison_id, owner=owner)
        lock = self.lock(comparison_id)
        if not lock.try_acquire():
            raise RunError("The comparison is under way already.", field="comparison", value=comparison_id)
        try:
            self.take_stop(comparison_id)
            cells = tuple(
                replace(cell, state="waiting", error=None, job_id=None)
                if cell.state == "running" or (again and cell.state == "failed")
                else cell
                for cell in comparison.cells
            )
            comparison = replace(comparison, state="running", cells=cells)
            self.write(comparison)
            return comparison
        finally:
            lock.release()

    def unfinished(self) -> list[Comparison]:
        """The page's own that still run, oldest first."""
        found: list[Comparison] = []
        for name in reversed(self._ids()):
            with suppress(RunError):
                comparison = self.get(name)
                if comparison.state == "running" and comparison.door == "page":
                    found.append(comparison)
        return found


def _to_record(comparison: Comparison) -> dict[str, Any]:
    return {
        "record_version": RECORD_VERSION,
        **{name: getattr(comparison, name) for name in ("id", "owner", "door", "created", "state")},
        "methods": list(comparison.methods),
        "cells": [_cell_to_record(cell) for cell in comparison.cells],
    }


_PLAIN = ("number", "group", "repeat", "reference", "method", "state", "job_id", "run_id", "reused", "cold", "error")


def _cell_to_record(cell: Cell) -> dict[str, Any]:
    return {
        **{name: getattr(cell, name) for name in _PLAIN},
        "request": request_to_json(cell.request),
        "seconds": None if cell.seconds is None else vars(cell.seconds),
        "computed_share": cell.computed_share,
        "scores": scores_to_json(cell.scores),
        "frame_psnr": list(scores_to_json({str(index): value for index, value in enumerate(cell.frame_psnr)}).values()),
        "notices": list(cell.notices),
    }


def _from_record(record: dict[str, Any]) -> Comparison:
    if record["state"] not in get_args(ComparisonState):
        raise ValueError(f"unknown state {str(record['state'])[:40]!r}")
    cells = tuple(_cell_from_record(cell) for cell in record["cells"])
    if [cell.number for cell in cells] != list(range(len(cells))):
        raise ValueError("its cells are out of order")
    return Comparison(
        **{name: record[name] for name in ("id", "owner", "door", "created", "state")},
        methods=tuple(record["methods"]),
        cells=cells,
    )


def _cell_from_record(record: dict[str, Any]) -> Cell:
    seconds = record.get("seconds")
    return Cell(
        **{name: record[name] for name in _PLAIN},
        request=read_request(record["request"]),
        seconds=None if seconds is None else Seconds(**seconds),
        computed_share=record.get("computed_share"),
        scores=scores_from_json(record.get("scores", {})),
        frame_psnr=tuple(float(value) for value in record.get("frame_psnr", ())),
        notices=tuple(record.get("notices", ())),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The record, without whose it is: what leaves the house. Infinite scores are the words "inf" and "-inf"."""
    record = _to_record(comparison)
    del record["owner"]
    return record


# ---------------------------------------------------------------------------------------------------------------------
# Runs that are there already


def surroundings() -> dict[str, str]:
    """The part of a run's environment that can be known without torch: versions, Python and the platform."""
    return {
        "dailies": studio.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def find_stored(
    request: GenerationRequest,
    store: RunStore,
    *,
    owner: str | None,
    environment: dict[str, str],
    like: Run | None = None,
    taken: Iterable[str] = (),
) -> Run | None:
    """The newest complete run that is what this request would make here: same request, preset, and surroundings.

    Args:
        request: What is wanted.
        store: Where to look.
        owner: Whose runs may be taken.
        environment: What a run's environment must say, as far as it is known here.
        like: The reference's run: the whole environment and the device must then be its own.
        taken: Runs that are not to be taken.
    """
    digest = find_preset(request.preset).digest
    words = " ".join(request.prompt.split()[:8])
    for run in store.search(words, owner=owner, preset=request.preset, state="complete", limit=200):
        same_place = like is None or (
            run.environment == like.environment
            and (run.placement and run.placement.device_name) == (like.placement and like.placement.device_name)
        )
        if (
            run.request == request
            and run.preset_digest == digest
            and not run.partial
            and run.id not in taken
            and same_place
            and all(run.environment.get(name) == value for name, value in environment.items())
            and run.video.is_file()
        ):
            return run
    return None


def _stored_for(comparison: Comparison, cell: Cell, store: RunStore, environment: dict[str, str]) -> Run | None:
    """A run to take in place of making one. With repeats timing is the point, and nothing old is taken."""
    if cell.run_id is not None:  # pinned
        with suppress(RunError):
            run = store.get(cell.run_id, owner=comparison.owner)
            if run.state == "complete" and run.video.is_file():
                return run
    if any(each.repeat for each in comparison.cells):
        return None
    reference = comparison.cells[cell.reference]
    like = None if cell.is_reference else _run_of(reference, store)
    if cell.is_reference:  # a pinned clip says in which surroundings its reference must have been made
        pins = [each for each in comparison.cells if each.reference == cell.number and each.run_id and not each.ended]
        like = _run_of(pins[0], store) if pins else None
    taken = {each.run_id for each in comparison.cells if each.run_id}
    return find_stored(
        cell.request,
        store,
        owner=comparison.owner,
        environment={} if like is not None and cell.is_reference else environment,
        like=like,
        taken=[run_id for run_id in taken if run_id],
    )


def _run_of(cell: Cell, store: RunStore) -> Run | None:
    with suppress(RunError):
        return store.get(cell.run_id) if cell.run_id else None
    return None


# ---------------------------------------------------------------------------------------------------------------------
# A cell ends


def seconds_of(run: Run) -> Seconds:
    stages, denoising = run.stage_seconds, math.fsum(run.step_seconds)
    encoding, decoding = stages.get("encoding", 0.0), stages.get("decoding", 0.0)
    whole = encoding + denoising + decoding + stages.get("writing", 0.0)
    return Seconds(encoding=encoding, denoising=denoising, decoding=decoding, whole=whole)


def completed(cell: Cell, run: Run, reference: Run | None, *, reused: bool, names: Sequence[str]) -> Cell:
    """The cell with its run's figures, scored as its clip lies on the disk, the way a viewer sees it.

    Args:
        cell: Which.
        run: The run that answers it.
        reference: The run of its reference; None where that failed, or where the cell is the reference.
        reused: Whether the run was there before.
        names: Metrics to be measured now; what cannot be measured is told in the notices.
    """
    notices: list[str] = []
    if run.partial:
        notices.append("The run was stopped early: it has fewer steps than were asked for.")
    if run.request.cache is not None and run.trace is not None and computed_share(run.trace) == 1:
        notices.append("The cache skipped nothing: every block of every step was computed.")
    if reference is not None and run.environment != reference.environment:
        differing = sorted(
            name
            for name in run.environment.keys() | reference.environment.keys()
            if run.environment.get(name) != reference.environment.get(name)
        )
        notices.append(f"Made in other surroundings than its reference: {', '.join(differing)} differ.")
    notices += _timing_notices(run, reference)
    ended = replace(
        cell,
        state="complete",
        job_id=None,
        run_id=run.id,
        reused=reused,
        cold=run.stage_seconds.get("loading", 0.0) > COLD_SECONDS,
        seconds=seconds_of(run),
        computed_share=None if run.trace is None else computed_share(run.trace),
        error=None,
    )
    try:
        frames = read_clip(run.video).clip.frames
        meant = None if reference is None else read_clip(reference.video).clip.frames
        if meant is not None and meant.shape != frames.shape:
            notices.append("Another size or length than its reference: there is nothing to hold it against.")
            meant = None
        elif reference is None and not cell.is_reference:
            notices.append("Its reference is missing: there is nothing to hold it against.")
        scores, lacking = _measured(frames, meant, names)
        per_frame = () if meant is None else tuple(float(value) for value in psnr_per_frame(frames, meant))
        return replace(ended, scores=scores, frame_psnr=per_frame, notices=(*notices, *lacking))
    except StudioError as error:
        return replace(ended, notices=(*notices, f"Not scored: {error}"))


def _timing_notices(run: Run, reference: Run | None) -> list[str]:
    """Where a timing cannot be what it says: something else was at work on this machine meanwhile."""
    later = run.step_seconds[1:]
    if run.request.cache is None and len(later) >= 4 and min(later) > 0:
        steps = spread(later)
        if steps.upper_quartile > UNSTEADY * steps.lower_quartile:
            return [
                f"Unsteady timing: equal steps took {steps.lower_quartile:.3f} to {steps.upper_quartile:.3f} s. "
                "Something else was at work; repeats help."
            ]
    if reference is None or run.trace is None or not run.step_seconds or not reference.step_seconds:
        return []
    share, taken, meant = computed_share(run.trace), math.fsum(run.step_seconds), math.fsum(reference.step_seconds)
    if not (share > 0 and taken > 0 and meant > 0):
        return []
    most = len(reference.step_seconds) / len(run.step_seconds) / share
    if meant / taken > UNSTEADY * most:
        return [
            f"{meant / taken:.1f}× as fast cannot be: what it skipped explains {most:.1f}×. "
            "Something else was at work while one of the two was made; repeats help."
        ]
    return []


def _measured(
    frames: np.ndarray, reference: np.ndarray | None, names: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """Scores by name, and a sentence for each that a small or short clip does not allow."""
    scores: dict[str, float] = {}
    lacking: list[str] = []
    for name in names:
        try:
            scores |= score(frames, reference, [name])
        except StudioError as error:
            lacking.append(str(error))
    return scores, lacking


def failed(cell: Cell, error: StudioError) -> Cell:
    return replace(cell, state="failed", job_id=None, error=error.to_json())


# ---------------------------------------------------------------------------------------------------------------------
# Figures over cells


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A speed-up with its spread, above 1 where faster."""

    median: float
    low: float
    high: float
    """Quartiles: over groups where there are several, and over the repeats of the one group otherwise."""
    count: int
    """Over how many groups, or repeats."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One method in one group, its repeats together: a dot of the plot."""

    group: int
    method: str
    cell: int
    """Number of the first complete cell among its repeats."""
    denoising: Ratio | None
    """None where nothing was timed, or the reference is missing."""
    whole: Ratio | None
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over all groups."""

    method: str
    complete: int
    failed: int
    denoising: Ratio | None
    whole: Ratio | None
    seconds: Seconds | None
    """Medians over its complete cells."""
    computed_share: float | None
    scores: dict[str, float]
    """Medians over the groups."""


def points_of(comparison: Comparison) -> list[Point]:
    """One point for each group and method with a clip."""
    points: list[Point] = []
    for group in sorted({cell.group for cell in comparison.cells}):
        for method in comparison.methods:
            cells = _complete(comparison, group, method)
            if not cells:
                continue
            full = _complete(comparison, group, FULL)
            points.append(
                Point(
                    group=group,
                    method=method,
                    cell=cells[0].number,
                    denoising=_speed(full, cells, "denoising"),
                    whole=_speed(full, cells, "whole"),
                    scores=_medians(cells),
                )
            )
    return points


def summaries_of(comparison: Comparison) -> list[MethodSummary]:
    """One line for each method, in the grid's order."""
    points, lines = points_of(comparison), []
    for method in comparison.methods:
        mine = [point for point in points if point.method == method]
        cells = [cell for cell in comparison.cells if cell.method == method]
        complete = [cell for cell in cells if cell.state == "complete"]
        shares = [cell.computed_share for cell in complete if cell.computed_share is not None]
        lines.append(
            MethodSummary(
                method=method,
                complete=len(complete),
                failed=sum(cell.state == "failed" for cell in cells),
                denoising=_over_groups([point.denoising for point in mine if point.denoising]),
                whole=_over_groups([point.whole for point in mine if point.whole]),
                seconds=_median_seconds(complete),
                computed_share=statistics.median(shares) if shares else None,
                scores=_medians(mine),
            )
        )
    return lines


def plotted(comparison: Comparison) -> tuple[list[Point], list[Point]]:
    """What a plot shows: a point for each group and method, and where there are several groups each method's medians.

    The reference equals itself, which gives every front its end at 1×.
    """
    points = [_equal_to_itself(point) for point in points_of(comparison)]
    if len({point.group for point in points}) < 2:
        return points, []
    medians = [
        _equal_to_itself(
            Point(group=-1, method=line.method, cell=-1, denoising=line.denoising, whole=line.whole, scores=line.scores)
        )
        for line in summaries_of(comparison)
        if line.complete
    ]
    return points, medians


_PERFECT = {"psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0, "lpips": 0.0}


def _equal_to_itself(point: Point) -> Point:
    return replace(point, scores=_PERFECT | point.scores) if point.method == FULL else point


def pareto_front(points: Sequence[Point], metric: str, pace: Pace = "denoising") -> list[Point]:
    """The points that no other beats in both speed and score, slowest first; equal ones all stay.

    The metric's own direction counts; points without the figure, or with NaN, take no part.
    """
    sign = -1.0 if METRICS[metric].higher_is_better is False else 1.0
    placed = [
        (ratio.median, sign * point.scores[metric], point)
        for point in points
        if (ratio := getattr(point, pace)) is not None and not math.isnan(point.scores.get(metric, math.nan))
    ]
    front = [
        (speed, value, point)
        for speed, value, point in placed
        if not any(
            (faster >= speed and better >= value) and (faster > speed or better > value) for faster, better, _ in placed
        )
    ]
    return [point for _, _, point in sorted(front, key=lambda each: (each[0], -each[1]))]


def _complete(comparison: Comparison, group: int, method: str) -> list[Cell]:
    return [
        cell
        for cell in comparison.cells
        if cell.group == group and cell.method == method and cell.state == "complete" and cell.seconds is not None
    ]


def _speed(full: Sequence[Cell], cells: Sequence[Cell], pace: Pace) -> Ratio | None:
    baseline, other = _timings(full, pace), _timings(cells, pace)
    if not baseline or not other:
        return None
    found = speed_up(baseline, other)
    return Ratio(median=found.ratio, low=found.lowest, high=found.highest, count=found.other.count)


def _timings(cells: Sequence[Cell], pace: Pace) -> list[float]:
    """Seconds above 0. A cold run counts only where there is no other."""
    warm = [cell for cell in cells if not cell.cold] or list(cells)
    seconds = [getattr(cell.seconds, pace) for cell in warm if cell.seconds is not None]
    return [each for each in seconds if each > 0]


def _over_groups(ratios: Sequence[Ratio]) -> Ratio | None:
    if len(ratios) < 2:
        return ratios[0] if ratios else None
    found = spread([ratio.median for ratio in ratios])
    return Ratio(median=found.median, low=found.lower_quartile, high=found.upper_quartile, count=found.count)


def _median_seconds(cells: Sequence[Cell]) -> Seconds | None:
    timed = [cell.seconds for cell in cells if cell.seconds is not None]
    if not timed:
        return None
    parts = ("encoding", "denoising", "decoding", "whole")
    return Seconds(**{part: statistics.median(getattr(each, part) for each in timed) for part in parts})


def _medians(scored: Sequence[Cell] | Sequence[Point]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in METRICS:
        values = [each.scores[name] for each in scored if not math.isnan(each.scores.get(name, math.nan))]
        if values:
            found[name] = values[0] if len(set(values)) == 1 else statistics.median(values)  # inf - inf is no number
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Directly: the command line


@dataclass(frozen=True, kw_only=True)
class CellStarted:
    cell: Cell
    of: int
    """Cells in all."""


@dataclass(frozen=True, kw_only=True)
class CellSaid:
    """What the stream of the cell under way says."""

    number: int
    event: GenerationEvent


@dataclass(frozen=True, kw_only=True)
class CellFinished:
    """The cell is complete or failed, and written down."""

    cell: Cell
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class ComparisonFinished:
    comparison: Comparison


ComparisonEvent = CellStarted | CellSaid | CellFinished | ComparisonFinished


def compare(
    comparison: Comparison,
    *,
    store: RunStore,
    generate: Callable[..., Generator[GenerationEvent, None, None]] | None = None,
    environment: dict[str, str] | None = None,
    names: Sequence[str] = tuple(METRICS),
) -> Generator[ComparisonEvent, None, None]:
    """Walk the cells that wait, here. Closing the stream cancels the cell under way and stops the comparison, which
    `Comparisons.go_on` takes up again.

    Args:
        comparison: As `Comparisons.begin`, `get` or `go_on` returned it.
        store: Where runs are found and kept.
        generate: What makes a clip; None takes `studio.generate.generate`.
        environment: What a stored run's environment must say to be taken; None takes this process's whole one.
        names: Metrics to be measured.

    Raises:
        RunError: somebody else walks it.
        DiskFull: no room for the record.
    """
    if generate is None or environment is None:
        from studio import generate as verb

        generate, environment = generate or verb.generate, environment or verb.environment()
    book = Comparisons(store)
    lock = book.lock(comparison.id)
    if not lock.try_acquire():
        raise RunError("The comparison is under way already.", field="comparison", value=comparison.id)
    try:
        while (cell := comparison.next_cell) is not None:
            yield CellStarted(cell=cell, of=len(comparison.cells))
            try:
                run = _stored_for(comparison, cell, store, environment)
                reused = run is not None
                if run is None:
                    run = yield from _made(cell, store, comparison.owner, generate)
                reference = None if cell.is_reference else _run_of(comparison.cells[cell.reference], store)
                ended = completed(cell, run, reference, reused=reused, names=names)
            except StudioError as error:
                ended = failed(cell, error)
            comparison = comparison.with_cell(ended)
            book.write(comparison)
            yield CellFinished(cell=ended, comparison=comparison)
        comparison = replace(comparison, state="complete")
        book.write(comparison)
        yield ComparisonFinished(comparison=comparison)
    except (GeneratorExit, KeyboardInterrupt):
        book.write(replace(comparison, state="stopped"))
        raise
    finally:
        lock.release()


def _made(
    cell: Cell, store: RunStore, owner: str, generate: Callable[..., Generator[GenerationEvent, None, None]]
) -> Generator[ComparisonEvent, None, Run]:
    run_id = ""
    stream = generate(cell.request, store=store, owner=owner)
    try:
        for event in stream:
            if isinstance(event, (RunStarted, RunFinished)):
                run_id = event.run_id
            yield CellSaid(number=cell.number, event=event)
    finally:
        stream.close()
    return store.get(run_id, owner=owner)


# ---------------------------------------------------------------------------------------------------------------------
# Through the queue: the page


class Driver:
    """Walks the page's comparisons through the job queue, each one cell at a time, in a thread of this process.

    What is written down is enough to go on after a restart: a job that the restart interrupted is asked for again.
    """

    def __init__(
        self,
        book: Comparisons,
        queue: JobQueue,
        *,
        environment: dict[str, str] | None = None,
        with_torch: bool = True,
    ) -> None:
        """A driver, not yet at work.

        Args:
            book: Where comparisons are written.
            queue: What makes the clips.
            environment: See `find_stored`; None takes `surroundings`.
            with_torch: Whether the scores that need torch are measured too, at the end, in a process of their own.
        """
        self.book = book
        self.queue = queue
        self.store = queue.store
        self.environment = surroundings() if environment is None else environment
        self.with_torch = with_torch
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._locks: dict[str, FileLock] = {}
        self._seen: tuple[int, bool] = (-1, True)

    def __enter__(self) -> Driver:
        self._closing.clear()
        self._thread = threading.Thread(target=self._work, name="comparisons", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    def _work(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            try:
                self.look()
            except StudioError as error:  # a full disk: tried again at the next look
                log.warning("comparisons wait: %s", error)
            except Exception:
                log.exception("comparisons wait")
                self._closing.wait(5)

    def look(self) -> bool:
        """Bring every unfinished comparison one move on; False where there is nothing to look after."""
        changed = self.book.folder.stat().st_mtime_ns
        if self._seen == (changed, False):  # nothing unfinished, and nothing written since
            return False
        unfinished = self.book.unfinished()
        for comparison in unfinished:
            if self._holds(comparison.id):
                # Read again under the lock: another process may have brought it on meanwhile.
                self._advance(self.book.get(comparison.id))
        self._seen = (changed, bool(unfinished))
        return bool(unfinished)

    def _holds(self, comparison_id: str) -> bool:
        lock = self._locks.setdefault(comparison_id, self.book.lock(comparison_id))
        return lock.held or lock.try_acquire()

    def _let_go(self, comparison_id: str) -> None:
        lock = self._locks.pop(comparison_id, None)
        if lock is not None:
            lock.release()

    def _advance(self, comparison: Comparison) -> None:
        under_way = next((cell for cell in comparison.cells if cell.state == "running"), None)
        if self.book.take_stop(comparison.id):
            if under_way is not None:
                with suppress(JobError):
                    self.queue.cancel(under_way.job_id or "")
                comparison = comparison.with_cell(replace(under_way, state="waiting", job_id=None))
            self.book.write(replace(comparison, state="stopped"))
            self._let_go(comparison.id)
        elif under_way is not None:
            ended = self._looked_at(comparison, under_way)
            if ended is not None:
                self.book.write(comparison.with_cell(ended))
        elif (cell := comparison.next_cell) is not None:
            begun = self._begun(comparison, cell)
            if begun is not None:
                self.book.write(comparison.with_cell(begun))
        else:
            if self.with_torch:
                comparison = scored_with_torch(comparison, self.book, self._closing)
            if not self._closing.is_set():
                self.book.write(replace(comparison, state="complete"))
                self._let_go(comparison.id)

    def _begun(self, comparison: Comparison, cell: Cell) -> Cell | None:
        """The cell with a stored run, or with a job; None where the queue takes no more from this owner yet."""
        try:
            run = _stored_for(comparison, cell, self.store, self.environment)
            if run is not None:
                return self._completed(comparison, cell, run, reused=True)
            job = self.queue.submit(cell.request, owner=comparison.owner)
            return replace(cell, state="running", job_id=job.id, run_id=None)
        except JobError:
            return None
        except StudioError as error:
            return failed(cell, error)

    def _looked_at(self, comparison: Comparison, cell: Cell) -> Cell | None:
        """The cell when its job has ended; None while it goes on."""
        try:
            job = self.queue.get(cell.job_id or "")
        except JobError:  # the queue was begun anew
            return replace(cell, state="waiting", job_id=None)
        match job.state:
            case "complete":
                try:
                    run = self.store.get(job.run_id or "")
                except RunError as error:
                    return failed(cell, error)
                return self._completed(comparison, cell, run, reused=False)
            case "interrupted":
                return replace(cell, state="waiting", job_id=None)
            case "failed":
                return failed(cell, from_json(job.error or {}))
            case "cancelled":
                return failed(cell, JobError("The job was cancelled by hand.", way_out="Run the failed cells again."))
            case _:
                return None

    def _completed(self, comparison: Comparison, cell: Cell, run: Run, *, reused: bool) -> Cell:
        reference = None if cell.is_reference else _run_of(comparison.cells[cell.reference], self.store)
        return completed(cell, run, reference, reused=reused, names=SCORED_HERE)


def scored_with_torch(comparison: Comparison, book: Comparisons, closing: threading.Event) -> Comparison:
    """The comparison with the scores that need torch, measured by a process that may have it and is gone afterwards.

    Where that process fails, the cells say so and keep their other scores.
    """
    if not any(_to_be_scored(cell) for cell in comparison.cells):
        return comparison
    command = [sys.executable, "-m", "studio.compare", "--runs", str(book.store.folder), "--score", comparison.id]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    waited = 0.0
    while True:
        try:
            said, complained = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            waited += 0.5
            if closing.is_set() or waited > SCORING_SECONDS:
                process.kill()
                said, complained = process.communicate()
                if closing.is_set():
                    return comparison
                break
    try:
        found = {int(number): told for number, told in json.loads(said).items()}
    except (ValueError, AttributeError):
        log.warning("the scores that need torch could not be measured: %s", complained[-500:])
        notice = f"{', '.join(METRICS[name].title for name in SCORED_WITH_TORCH)} could not be measured."
        found = {cell.number: {"scores": {}, "notices": [notice]} for cell in comparison.cells if _to_be_scored(cell)}
    for number, told in found.items():
        cell = comparison.cell(number)
        comparison = comparison.with_cell(
            replace(
                cell,
                scores=cell.scores | scores_from_json(told["scores"]),
                notices=(*cell.notices, *told["notices"]),
            )
        )
    return comparison


def _to_be_scored(cell: Cell) -> bool:
    return bool(cell.frame_psnr) and not any(name in cell.scores for name in SCORED_WITH_TORCH)


def _score_apart(arguments: Sequence[str] | None = None) -> None:
    """`python -m studio.compare`: print the scores that need torch, as JSON by cell. Only `scored_with_torch` asks."""
    parser = argparse.ArgumentParser(prog="python -m studio.compare", description=_score_apart.__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--score", required=True)
    asked = parser.parse_args(arguments)
    book = Comparisons(RunStore(asked.runs))
    comparison = book.get(asked.score)
    found: dict[int, dict[str, Any]] = {}
    for cell in comparison.cells:
        run, reference = _run_of(cell, book.store), _run_of(comparison.cells[cell.reference], book.store)
        if not _to_be_scored(cell) or run is None or reference is None:
            continue
        try:
            frames, meant = (read_clip(each.video).clip.frames for each in (run, reference))
            scores, lacking = _measured(frames, meant, SCORED_WITH_TORCH)
        except StudioError as error:
            scores, lacking = {}, [f"Not scored: {error}"]
        found[cell.number] = {"scores": scores_to_json(scores), "notices": lacking}
    print(json.dumps(found))


if __name__ == "__main__":
    _score_apart()
