"""A run: what was asked, what came of it, and in which surroundings, as its folder says; and `run.json`, in and out.

Knows one run's folder and the words. Refuses to know who writes it, and where other runs lie.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from studio.errors import ErrorRecord, RunError, StudioError
from studio.events import GenerationEvent, Placement, PreviewFrame
from studio.records.codec import from_json, to_json
from studio.records.event_log import EventTail
from studio.requests.generation import GenerationRequest, RecordedRequest, read_request, request_to_json
from studio.storage import sha256_of, write_atomically

RunState = Literal["running", "complete", "failed", "cancelled", "interrupted"]

RECORD_VERSION = 1
"""Raised when a key of `run.json` changes its meaning."""
MAX_RECORD_BYTES = 32 * 1024 * 1024
"""A `run.json` above this is not ours: the longest trace there can be (200 steps, 100 blocks) stays below a tenth."""
COMPUTED = -1
"""In a trace: this block ran. A number from 0 is the age in steps of what was reused; None, that it was not reached."""
EVENTS = "events.jsonl"
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A file of a complete run, as it was when the run was completed."""

    size: int
    """Bytes."""
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Output:
        """The file as it is now."""
        return cls(size=path.stat().st_size, sha256=sha256_of(path))


@dataclass(frozen=True, kw_only=True)
class BlockTrace:
    """What every transformer block did, in every step and guidance branch.

    Shapes: T steps, B blocks, G branches.
    """

    branches: tuple[str, ...]
    """(G), in the order in which they first ran."""
    ages: tuple[tuple[tuple[int | None, ...], ...], ...]
    """(T, B, G): `COMPUTED`, or the age in steps of the value reused, or None where the block was not reached."""
    distances: tuple[tuple[tuple[float | None, ...], ...], ...] | None = None
    """(T, B, G): what a cache measured before it computed; None as a whole where no cache measured anything."""

    @property
    def reused(self) -> int:
        """How many block passes were saved."""
        return sum(age is not None and age >= 0 for step in self.ages for block in step for age in block)

    @property
    def computed(self) -> int:
        """How many block passes ran."""
        return sum(age == COMPUTED for step in self.ages for block in step for age in block)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, as its folder says."""

    id: str
    """The folder's name: when it began, UTC, and eight random digits. Sorts by time."""
    state: RunState
    partial: bool = False
    """Stopped before the last step, and what it had reached was kept."""
    owner: str
    created: str
    """ISO 8601, UTC."""
    finished: str | None = None
    """ISO 8601, UTC; None while it runs."""
    request: RecordedRequest
    preset_digest: str
    placement: Placement | None = None
    """None where it ended before the model was placed."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds in each stage, as the stream measured them; `writing` as the store did."""
    step_seconds: tuple[float, ...] = ()
    trace: BlockTrace | None = None
    peak_bytes: int = 0
    """Highest memory any step reported; 0 where none did."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions, threads, processor: what bit-identity depends on."""
    outputs: dict[str, Output] = field(default_factory=dict)
    """By file name; empty unless the run is complete."""
    error: ErrorRecord | None = None
    """`StudioError.to_json` of what ended it."""
    folder: Annotated[Path, Field(exclude=True)]

    @property
    def video(self) -> Path:
        return self.folder / "video.mp4"

    @property
    def thumbnail(self) -> Path:
        return self.folder / "poster.jpg"

    @property
    def total_seconds(self) -> float:
        """Seconds in all stages together."""
        return sum(self.stage_seconds.values())

    def events(self) -> list[GenerationEvent]:
        """What the stream said, from the folder; a line torn by a crash ends the list."""
        return [event for event in read_events(self.folder) if not isinstance(event, PreviewFrame)]


def settings_of(run: Run) -> dict[str, Any]:
    """What is written inside the clip so that the file alone is enough to make it again; the owner is left out."""
    return {
        "request": request_to_json(run.request),
        "run_id": run.id,
        "preset_digest": run.preset_digest,
        "environment": run.environment,
    }


def request_in_settings(settings: dict[str, Any]) -> GenerationRequest:
    """The request inside what `settings_of` wrote; it may come from anybody's file.

    Raises:
        RequestError: a field nobody knows, or a value out of range.
    """
    return read_request(settings.get("request", settings))


def read_events(folder: Path) -> Iterator[GenerationEvent]:
    for _, event in EventTail(folder / EVENTS).read():
        yield cast(GenerationEvent, event)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: no `run.json`, or one that is not ours; the message names the folder and the fault.
    """
    path = folder / "run.json"
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"it is larger than {MAX_RECORD_BYTES // 2**20} MB")
        run = from_json(Run, {**json.loads(path.read_bytes()), "folder": folder})
        if run.id != folder.name:
            raise ValueError(f"it calls itself {run.id[:40]!r}")
        return run
    except FileNotFoundError as error:
        raise RunError(f"{folder.name} holds no run.json.", field=folder.name) from error
    except (OSError, ValueError, TypeError, RecursionError, StudioError) as error:
        raise RunError(f"{folder.name}/run.json cannot be read: {error!s}.", field=folder.name) from error


def write_run(run: Run) -> None:
    record = {"record_version": RECORD_VERSION} | to_json(run)
    write_atomically(run.folder / "run.json", json.dumps(record, ensure_ascii=False).encode("utf-8"))
