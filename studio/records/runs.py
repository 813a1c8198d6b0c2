"""Runs: what was asked, what came of it, and in which surroundings, as plain folders that explain themselves.

One run is one folder, named after the run:

    20261121-143015-ab12cd34/
      run.json       the request, the state and every figure; the only file that says whether the run is complete
      events.jsonl   what the stream said, one event a line
      preview.jpg    the latest preview
      video.mp4      the clip, with its settings inside
      poster.jpg     one frame of it
      lock           held by the living writer; a run that says `running` while nobody holds it was interrupted

A run is absent, running, or final, never half: the folder appears by one rename with `run.json` already in it, and
`run.json` says `complete` only once the clip and the poster are in place. The folders are the truth. `index.sqlite`
beside them only makes them quick to search: it is rebuilt from the folders whenever it is missing or damaged.

Knows folders, SQLite and the words. Refuses to know torch, how a clip is made, and who shows it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from studio.clips.clip import Clip
from studio.clips.write import thumbnail_jpeg, write_clip
from studio.errors import DiskFull, RunError, StudioError
from studio.events import (
    BlockComputed,
    BlockReused,
    GenerationEvent,
    Placement,
    PreviewFrame,
    RunStarted,
    StageFinished,
    StepFinished,
)
from studio.preset import Preset
from studio.records.event_log import PREVIEW, EventLog, EventTail
from studio.requests.generation import GenerationRequest, read_request, request_to_json
from studio.storage import (
    MORE_ROOM,
    FileLock,
    disk_trouble,
    is_damage,
    lacks_room,
    no_room_for,
    open_database,
    rename,
    sha256_of,
    transaction,
    write_atomically,
)

T = TypeVar("T")
RunState = Literal["running", "complete", "failed", "cancelled", "interrupted"]

RECORD_VERSION = 1
"""Raised when a key of `run.json` changes its meaning."""
INDEX_VERSION = 1
"""Raised when the index's columns change; an index of another version is rebuilt from the folders."""
MAX_RECORD_BYTES = 32 * 1024 * 1024
"""A `run.json` above this is not ours: the longest trace there can be (200 steps, 100 blocks) stays below a tenth."""
MIN_FREE_BYTES = 200 * 1024 * 1024
"""No run begins with less free disk than this: better refused before an hour of work than after it."""
RESERVE_BYTES = 256 * 1024
"""Disk set aside in the lock file at the start, so that a run can still say that the disk was full."""
ABANDONED_SECONDS = 60
"""Age after which a half-made folder that nobody holds is swept away."""
COMPUTED = -1
"""In a trace: this block ran. A number from 0 is the age in steps of what was reused; None, that it was not reached."""

_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_OUTPUTS = ("video.mp4", "poster.jpg")
EVENTS = "events.jsonl"

log = logging.getLogger(__name__)


def runs_folder() -> Path:
    """Where runs are kept: `$DAILIES_RUNS`, or `runs/` where the studio was started."""
    return Path(os.environ.get("DAILIES_RUNS") or "runs")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A file of a complete run, as it was when the run was completed."""

    size: int
    """Bytes."""
    sha256: str


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
    request: GenerationRequest
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
    scores: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the request came from, where that is another run or a file."""
    outputs: dict[str, Output] = field(default_factory=dict)
    """By file name; empty unless the run is complete."""
    error: dict[str, Any] | None = None
    """`StudioError.to_json` of what ended it."""
    folder: Path

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
        return [event for event in _read_events(self.folder) if not isinstance(event, PreviewFrame)]


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


# ---------------------------------------------------------------------------------------------------------------------
# What a stream says, added up


class _Tally:
    """The figures of a run, collected event by event."""

    def __init__(self) -> None:
        self.placement: Placement | None = None
        self.stage_seconds: dict[str, float] = {}
        self.step_seconds: dict[int, float] = {}
        self.peak_bytes = 0
        self._decisions: dict[tuple[int, int, str], tuple[int, float | None]] = {}

    def add(self, event: GenerationEvent) -> None:
        match event:
            case RunStarted():
                self.placement = event.placement
            case StageFinished():
                self.stage_seconds[event.stage] = self.stage_seconds.get(event.stage, 0.0) + event.seconds
            case StepFinished():
                self.step_seconds[event.step] = event.seconds
                self.peak_bytes = max(self.peak_bytes, event.peak_bytes)
            case BlockComputed():
                self._decisions[event.step, event.block, event.branch] = (COMPUTED, event.distance)
            case BlockReused():
                self._decisions[event.step, event.block, event.branch] = (event.age, None)

    def trace(self) -> BlockTrace | None:
        if not self._decisions:
            return None
        steps = 1 + max(step for step, _, _ in self._decisions)
        blocks = 1 + max(block for _, block, _ in self._decisions)
        branches = tuple(dict.fromkeys(branch for _, _, branch in self._decisions))

        def table(part: Literal[0, 1]) -> tuple[tuple[tuple[Any, ...], ...], ...]:
            unreached = (None, None)
            return tuple(
                tuple(
                    tuple(self._decisions.get((step, block, branch), unreached)[part] for branch in branches)
                    for block in range(blocks)
                )
                for step in range(steps)
            )

        measured = any(distance is not None for _, distance in self._decisions.values())
        return BlockTrace(branches=branches, ages=table(0), distances=table(1) if measured else None)

    def onto(self, run: Run) -> Run:
        return replace(
            run,
            placement=self.placement,
            stage_seconds=dict(self.stage_seconds),
            step_seconds=tuple(self.step_seconds[step] for step in sorted(self.step_seconds)),
            trace=self.trace(),
            peak_bytes=self.peak_bytes,
        )


def _read_events(folder: Path) -> Iterator[GenerationEvent]:
    for _, event in EventTail(folder / EVENTS).read():
        yield cast(GenerationEvent, event)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# ---------------------------------------------------------------------------------------------------------------------
# run.json


def _to_record(run: Run) -> dict[str, Any]:
    record = {
        "record_version": RECORD_VERSION,
        **{name: getattr(run, name) for name in ("id", "state", "partial", "owner", "created", "finished")},
        "request": request_to_json(run.request),
        "preset_digest": run.preset_digest,
        "placement": None if run.placement is None else asdict(run.placement),
        "stage_seconds": run.stage_seconds,
        "step_seconds": run.step_seconds,
        "trace": None if run.trace is None else asdict(run.trace),
        "peak_bytes": run.peak_bytes,
        "environment": run.environment,
        "scores": run.scores,
        "provenance": run.provenance,
        "outputs": {name: asdict(output) for name, output in run.outputs.items()},
        "error": run.error,
    }
    return record


def _tuples(nested: Any) -> Any:
    return tuple(_tuples(part) for part in nested) if isinstance(nested, (list, tuple)) else nested


def _from_record(record: dict[str, Any], folder: Path) -> Run:
    if record["id"] != folder.name:
        raise ValueError(f"it calls itself {str(record['id'])[:40]!r}")
    if record["state"] not in get_args(RunState):
        raise ValueError(f"unknown state {str(record['state'])[:40]!r}")
    placement, trace = record.get("placement"), record.get("trace")
    return Run(
        id=record["id"],
        state=record["state"],
        partial=bool(record["partial"]),
        owner=str(record["owner"]),
        created=str(record["created"]),
        finished=record.get("finished"),
        request=read_request(record["request"]),
        preset_digest=str(record["preset_digest"]),
        placement=None if placement is None else Placement(**(placement | {"reasons": tuple(placement["reasons"])})),
        stage_seconds=dict(record.get("stage_seconds", {})),
        step_seconds=tuple(record.get("step_seconds", ())),
        trace=None if trace is None else BlockTrace(**{name: _tuples(value) for name, value in trace.items()}),
        peak_bytes=int(record.get("peak_bytes", 0)),
        environment=dict(record.get("environment", {})),
        scores=dict(record.get("scores", {})),
        provenance=dict(record.get("provenance", {})),
        outputs={name: Output(**output) for name, output in record.get("outputs", {}).items()},
        error=record.get("error"),
        folder=folder,
    )


def _read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: no `run.json`, or one that is not ours; the message names the folder and the fault.
    """
    path = folder / "run.json"
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"it is larger than {MAX_RECORD_BYTES // 2**20} MB")
        return _from_record(json.loads(path.read_bytes()), folder)
    except FileNotFoundError as error:
        raise RunError(f"{folder.name} holds no run.json.", field=folder.name) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, StudioError) as error:
        raise RunError(f"{folder.name}/run.json cannot be read: {error!s}.", field=folder.name) from error


def _write_run(run: Run) -> None:
    write_atomically(run.folder / "run.json", json.dumps(_to_record(run), ensure_ascii=False).encode("utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# Writing one run


class RunWriter:
    """The one hand that writes a run. After `complete`, `fail` or `cancel` nothing more is written."""

    def __init__(self, store: RunStore, run: Run, lock: FileLock) -> None:
        self._store = store
        self._run = run
        self._lock = lock
        self._tally = _Tally()
        self._log = EventLog(run.folder / EVENTS)

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def folder(self) -> Path:
        return self._run.folder

    @property
    def final(self) -> bool:
        return not self._lock.held

    def record(self, event: GenerationEvent) -> None:
        """Add an event to the log and to the figures.

        Block events reach the disk with their step. Of previews the log says when they came, and the latest is a file
        beside it. Once the run is final, what still arrives is let go by.

        Raises:
            DiskFull: no room for the log.
        """
        if self.final:
            return
        self._tally.add(event)
        if isinstance(event, PreviewFrame):
            write_atomically(self.folder / PREVIEW, event.jpeg)
            event = replace(event, jpeg=b"")
        try:
            self._log.write(event, at_once=not isinstance(event, (BlockComputed, BlockReused)))
        except OSError as error:
            raise disk_trouble(error, self.folder / EVENTS) from error

    def complete(self, clip: Clip, *, partial: bool = False) -> Run:
        """Write the clip and its poster, then say that the run is complete.

        Raises:
            DiskFull, ClipError: the clip could not be written; the run is still `running` and wants `fail`.
        """
        self._must_be_open()
        began = time.perf_counter()
        run = self._tally.onto(self._run)
        write_clip(clip, run.video, settings=settings_of(run))
        write_atomically(run.thumbnail, thumbnail_jpeg(clip.frames[clip.num_frames // 2]))
        outputs = {name: _measure(self.folder / name) for name in _OUTPUTS}
        seconds = {**run.stage_seconds, "writing": time.perf_counter() - began}
        return self._end(replace(run, state="complete", partial=partial, outputs=outputs, stage_seconds=seconds))

    def fail(self, error: StudioError) -> Run:
        """End the run with the reason."""
        self._must_be_open()
        return self._give_up(replace(self._tally.onto(self._run), state="failed", error=error.to_json()))

    def cancel(self) -> Run:
        """End the run because somebody stopped it."""
        self._must_be_open()
        return self._give_up(replace(self._tally.onto(self._run), state="cancelled"))

    def _must_be_open(self) -> None:
        if self.final:
            raise RunError(f"Run {self.id} has ended already.", field="run", value=self.id)

    def _give_up(self, run: Run) -> Run:
        """End without a clip. Never raises for the disk: that would hide the reason for which the run ends.

        A run that cannot even say how it ended is found by the next `sweep`.
        """
        try:
            _drop_outputs(run.folder)
            return self._end(run)
        except (OSError, StudioError) as error:
            log.warning("run %s is left to the next sweep: %s", run.id, error)
            return run
        finally:
            self._lock.release()

    def _end(self, run: Run) -> Run:
        run = replace(run, finished=utc_now())
        # A log that could not be written is no reason to lose a clip that could.
        with contextlib.suppress(OSError):
            self._log.flush()
        with contextlib.suppress(OSError):
            self._lock.reserve(0)
        _write_run(run)
        with contextlib.suppress(OSError):
            self._log.close()
        self._store._remember(run)
        self._lock.release()
        return run


def _measure(path: Path) -> Output:
    return Output(size=path.stat().st_size, sha256=sha256_of(path))


def _drop_outputs(folder: Path) -> None:
    """Remove what only a complete run may have, and temporaries that a killed writer left."""
    for path in (*(folder / name for name in _OUTPUTS), *folder.glob(".*")):
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# All runs

_INDEX_SCHEMA = (
    "DROP TABLE IF EXISTS runs",
    f"""CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ({", ".join(repr(state) for state in get_args(RunState))})),
        created TEXT NOT NULL,
        preset TEXT NOT NULL,
        words TEXT NOT NULL
    )""",
    "CREATE INDEX runs_by_owner ON runs (owner, created)",
    "CREATE INDEX runs_by_time ON runs (created)",
    f"PRAGMA user_version = {INDEX_VERSION}",
)


class RunStore:
    """The folder of runs and its index.

    Connections live for one operation, so a store may be shared by threads and carried across a fork. `owner=None`
    means whoever asks may see every run (one person's own machine); any other owner sees only their own, and a run of
    somebody else's is answered like one that does not exist.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or runs_folder()).absolute()
        self.skipped: tuple[RunError, ...] = ()
        """Folders that the last `rebuild` or `sweep` could not read, with the reason."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            trouble = disk_trouble(error, self.folder)
            trouble.way_out = "Set DAILIES_RUNS to a folder that you may write to."
            raise trouble from error

    def __reduce__(self) -> tuple[type[RunStore], tuple[Path]]:
        return RunStore, (self.folder,)

    # -- one run ------------------------------------------------------------------------------------------------------

    def begin(
        self,
        request: GenerationRequest,
        *,
        preset: Preset,
        owner: str = "local",
        environment: dict[str, str],
        provenance: dict[str, Any] | None = None,
    ) -> RunWriter:
        """Open a run: its folder appears with the whole request in it.

        Raises:
            DiskFull: less than `MIN_FREE_BYTES` left, or no room for the first record; nothing is left behind.
        """
        free = shutil.disk_usage(self.folder).free
        if free < MIN_FREE_BYTES:
            raise DiskFull(
                f"Only {free / 1e6:.0f} MB are left on the disk; a run begins with at least "
                f"{MIN_FREE_BYTES / 1e6:.0f} MB.",
                field=str(self.folder),
                value=free,
                way_out=MORE_ROOM,
            )
        run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        # Made under another name and renamed: nobody ever sees a run's folder without its record and its lock.
        nursery = self.folder / f".new-{run_id}"
        run = Run(
            id=run_id,
            state="running",
            owner=owner,
            created=utc_now(),
            request=request,
            preset_digest=preset.digest,
            environment=dict(environment),
            provenance=dict(provenance or {}),
            folder=nursery,
        )
        lock = FileLock(nursery / "lock")
        try:
            nursery.mkdir(mode=0o700)
            lock.try_acquire()
            lock.reserve(RESERVE_BYTES)
            _write_run(run)
            run = replace(run, folder=self.folder / run_id)
            rename(nursery, run.folder)
            self._use_index(lambda index: _insert(index, run))
            return RunWriter(self, run, lock)
        except BaseException as error:
            lock.release()
            for remains in (nursery, run.folder):
                shutil.rmtree(remains, ignore_errors=True)
            if isinstance(error, OSError):
                raise disk_trouble(error, run.folder) from error
            raise

    def get(self, run_id: str, *, owner: str | None = None) -> Run:
        """The run of that id, from its folder.

        Raises:
            RunError: no such run, not this owner's, or a folder that cannot be read.
        """
        if not (isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)):
            raise _no_such_run(run_id)
        folder = self.folder / run_id
        if not folder.is_dir() or folder.is_symlink():
            raise _no_such_run(run_id)
        run = _read_run(folder)
        if owner is not None and run.owner != owner:
            raise _no_such_run(run_id)
        return run

    def verify(self, run_id: str, *, owner: str | None = None) -> list[str]:
        """What is wrong with a complete run's files, one sentence each: missing, or not what was written."""
        run = self.get(run_id, owner=owner)
        faults = []
        for name, output in run.outputs.items():
            path = run.folder / name
            if not path.is_file():
                faults.append(f"{name} is missing.")
            elif _measure(path) != output:
                faults.append(f"{name} is not the file that was written.")
        return faults

    def delete(self, run_id: str, *, owner: str | None = None) -> None:
        """Remove a run for good.

        Raises:
            RunError: no such run, not this owner's, or still being written.
        """
        run = self.get(run_id, owner=owner)
        lock = FileLock(run.folder / "lock")
        # Gone by one rename; what takes longer happens to a folder that is no run any more.
        grave = self.folder / f".deleted-{run_id}"
        try:
            if not lock.try_acquire():
                raise RunError(
                    f"Run {run_id} is still being made.", field="run", value=run_id, way_out="Stop it first."
                )
            rename(run.folder, grave)
        except OSError as error:
            raise disk_trouble(error, run.folder) from error
        finally:
            lock.release()
        self._forget([run_id])
        shutil.rmtree(grave, ignore_errors=True)

    # -- many runs ----------------------------------------------------------------------------------------------------

    def search(
        self,
        text: str = "",
        *,
        owner: str | None = None,
        preset: str | None = None,
        state: RunState | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[Run]:
        """Runs whose prompt, preset or id hold every word of `text`, newest first."""
        condition, values = _where(text, owner, preset, state)
        found = self._use_index(
            lambda index: index.execute(
                f"SELECT id FROM runs WHERE {condition} ORDER BY created DESC, id DESC LIMIT ? OFFSET ?",
                (*values, max(limit, 0), max(offset, 0)),
            ).fetchall()
        )
        runs, gone = [], []
        for row in found:
            try:
                runs.append(self.get(row["id"], owner=owner))
            except RunError:
                gone.append(row["id"])
        if gone:
            self._forget(gone)
        return runs

    def count(
        self,
        text: str = "",
        *,
        owner: str | None = None,
        preset: str | None = None,
        state: RunState | None = None,
    ) -> int:
        """How many runs `search` would find without a limit."""
        condition, values = _where(text, owner, preset, state)
        return self._use_index(
            lambda index: index.execute(f"SELECT count(*) FROM runs WHERE {condition}", values).fetchone()[0]
        )

    def rebuild(self) -> int:
        """Make the index again from the folders; returns how many runs it holds.

        What cannot be read is left where it is and named in `skipped`.
        """
        try:
            try:
                runs = self._rebuild_in_place()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                # The log goes first: beside a new file it would be taken for that file's own.
                for ending in ("-wal", "-shm", "-journal", ""):
                    self._index_path.with_name(self._index_path.name + ending).unlink(missing_ok=True)
                runs = self._rebuild_in_place()
        except sqlite3.Error as error:
            raise _index_trouble(error, self.folder) from error
        for fault in self.skipped:
            log.warning("skipped: %s", fault)
        return runs

    def _rebuild_in_place(self) -> int:
        with contextlib.closing(open_database(self._index_path)) as index, transaction(index):
            # Read under the write lock: a writer that ends meanwhile brings its own row up to date afterwards.
            runs, self.skipped = self._read_folders(self._folder_names())
            for statement in _INDEX_SCHEMA:
                index.execute(statement)
            for run in runs:
                _insert(index, run)
        return len(runs)

    def sweep(self) -> list[Run]:
        """Put right what a crash left: returns the runs that were `running` with a dead writer, now `interrupted`.

        Half-made and half-deleted folders go away. The index is brought into line with the folders where they can
        differ: folders it does not know, folders that are gone, and runs it holds to be running.
        """
        self._remove_abandoned()
        rows = self._use_index(lambda index: index.execute("SELECT id, state FROM runs").fetchall())
        settled = {row["id"] for row in rows if row["state"] != "running"}
        doubtful = [name for name in self._folder_names() if name not in settled]
        interrupted = []
        for run in self._read_folders(doubtful)[0]:
            if run.state == "running" and (ended := self.settle(run.id)) is not None:
                interrupted.append(ended)

        def bring_into_line(index: sqlite3.Connection) -> None:
            with transaction(index):
                runs, self.skipped = self._read_folders(doubtful)
                for run in runs:
                    _insert(index, run)
                gone = [row["id"] for row in rows if not (self.folder / row["id"]).is_dir()]
                index.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in gone])

        self._use_index(bring_into_line)
        return interrupted

    def settle(
        self,
        run_id: str,
        *,
        state: Literal["interrupted", "cancelled", "failed"] = "interrupted",
        error: StudioError | None = None,
    ) -> Run | None:
        """End a run whose writer died without a word; None where the run is final or its writer lives.

        The figures come from the events it had logged.
        """
        run = self.get(run_id)
        lock = FileLock(run.folder / "lock")
        if run.state != "running" or not lock.try_acquire():
            return None
        try:
            run = _read_run(run.folder)
            if run.state != "running":
                return None
            tally = _Tally()
            for event in _read_events(run.folder):
                tally.add(event)
            if error is None and state == "interrupted":
                error = RunError("The studio stopped while this run was being made.", way_out="Run it again.")
            run = replace(
                tally.onto(run), state=state, finished=utc_now(), error=None if error is None else error.to_json()
            )
            lock.reserve(0)
            _drop_outputs(run.folder)
            _write_run(run)
            self._remember(run)
            return run
        finally:
            lock.release()

    # -- the index ----------------------------------------------------------------------------------------------------

    @property
    def _index_path(self) -> Path:
        return self.folder / "index.sqlite"

    def _use_index(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Do one thing with the index; where it is missing, damaged or outdated, rebuild it and do the thing again."""
        for attempt in (1, 2):
            try:
                with contextlib.closing(open_database(self._index_path)) as index:
                    if index.execute("PRAGMA user_version").fetchone()[0] == INDEX_VERSION:
                        return operation(index)
            except sqlite3.Error as error:
                if attempt == 2 or not is_damage(error):
                    raise _index_trouble(error, self.folder) from error
                log.warning("the index is damaged and is rebuilt: %s", error)
            if attempt == 1:
                self.rebuild()
        raise RunError("The index of runs cannot be used.", field=str(self._index_path), way_out="Remove the file.")

    def _remember(self, run: Run) -> None:
        """Bring the index up to date. The folder already says it, so an index that cannot be written is no failure."""
        try:
            self._use_index(lambda index: _insert(index, run))
        except StudioError as error:
            log.warning("run %s is on disk, but in the index only after the next sweep: %s", run.id, error)

    def _forget(self, run_ids: list[str]) -> None:
        def drop(index: sqlite3.Connection) -> None:
            with transaction(index):
                index.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in run_ids])

        try:
            self._use_index(drop)
        except StudioError as error:
            log.warning("the index names runs that are gone, until the next sweep: %s", error)

    def _folder_names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def _read_folders(self, names: list[str]) -> tuple[list[Run], tuple[RunError, ...]]:
        """The runs in those folders, and the reasons for those that hold none."""
        runs: list[Run] = []
        skipped: list[RunError] = []
        for name in names:
            folder = self.folder / name
            if folder.is_symlink() or not _RUN_ID.fullmatch(name):
                skipped.append(RunError(f"{name} is not a run's folder.", field=name))
                continue
            try:
                runs.append(_read_run(folder))
            except RunError as fault:
                skipped.append(fault)
        return runs, tuple(skipped)

    def _remove_abandoned(self) -> None:
        for folder in (*self.folder.glob(".new-*"), *self.folder.glob(".deleted-*")):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime < ABANDONED_SECONDS:
                    continue
                lock = FileLock(folder / "lock")
                if lock.try_acquire():
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.release()


def _insert(index: sqlite3.Connection, run: Run) -> None:
    words = "\n".join((run.id, run.request.preset, run.request.prompt, run.request.negative_prompt)).casefold()
    index.execute(
        "INSERT OR REPLACE INTO runs (id, owner, state, created, preset, words) VALUES (?, ?, ?, ?, ?, ?)",
        (run.id, run.owner, run.state, run.created, run.request.preset, words),
    )


def _where(text: str, owner: str | None, preset: str | None, state: str | None) -> tuple[str, tuple[str, ...]]:
    conditions, values = ["1"], []
    for column, value in (("owner", owner), ("preset", preset), ("state", state)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    for word in text.encode("utf-8", "replace").decode("utf-8").casefold().split()[:20]:
        conditions.append("instr(words, ?)")
        values.append(word)
    return " AND ".join(conditions), tuple(values)


def _no_such_run(run_id: Any) -> RunError:
    return RunError(f"There is no run {str(run_id)[:40]!r}.", field="run", value=run_id, way_out="Look in the list.")


def _index_trouble(error: sqlite3.Error, folder: Path) -> StudioError:
    if lacks_room(error):
        return no_room_for("the index of runs", folder)
    return RunError(f"The index of runs cannot be used: {error}.", field=str(folder), way_out="Try again.")
