"""Writing one run: what its stream says is logged and added up, until it is complete or given up.

Knows the order in which a run's files appear, so that it is never half. Refuses to know where runs are kept, and how a
clip is made.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from studio.clips.clip import Clip
from studio.clips.write import thumbnail_jpeg, write_clip
from studio.errors import RunError, StudioError
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
from studio.records.event_log import PREVIEW, EventLog
from studio.records.run import (
    COMPUTED,
    EVENTS,
    BlockTrace,
    Output,
    Run,
    read_events,
    read_run,
    settings_of,
    utc_now,
    write_run,
)
from studio.records.run_index import RunIndex
from studio.storage import FileLock, disk_trouble, write_atomically

T = TypeVar("T")
_Decision = tuple[int, float | None]
"""A block's age, or `COMPUTED`; and the distance that was measured before it ran."""
_OUTPUTS = ("video.mp4", "poster.jpg")

log = logging.getLogger(__name__)


class Tally:
    """The figures of a run, collected event by event."""

    def __init__(self) -> None:
        self.placement: Placement | None = None
        self.stage_seconds: dict[str, float] = {}
        self.step_seconds: dict[int, float] = {}
        self.peak_bytes = 0
        self._decisions: dict[tuple[int, int, str], _Decision] = {}

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

        def table(part: Callable[[_Decision], T]) -> tuple[tuple[tuple[T | None, ...], ...], ...]:
            def at(step: int, block: int, branch: str) -> T | None:
                decision = self._decisions.get((step, block, branch))
                return None if decision is None else part(decision)

            return tuple(
                tuple(tuple(at(step, block, branch) for branch in branches) for block in range(blocks))
                for step in range(steps)
            )

        measured = any(distance is not None for _, distance in self._decisions.values())
        return BlockTrace(
            branches=branches,
            ages=table(lambda decision: decision[0]),
            distances=table(lambda decision: decision[1]) if measured else None,
        )

    def onto(self, run: Run) -> Run:
        return replace(
            run,
            placement=self.placement,
            stage_seconds=dict(self.stage_seconds),
            step_seconds=tuple(self.step_seconds[step] for step in sorted(self.step_seconds)),
            trace=self.trace(),
            peak_bytes=self.peak_bytes,
        )


class RunWriter:
    """The one hand that writes a run. After `complete`, `fail` or `cancel` nothing more is written."""

    def __init__(self, run: Run, lock: FileLock, index: RunIndex) -> None:
        self._run = run
        self._lock = lock
        self._index = index
        self._tally = Tally()
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
        outputs = {name: Output.of(self.folder / name) for name in _OUTPUTS}
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
            drop_outputs(run.folder)
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
        write_run(run)
        with contextlib.suppress(OSError):
            self._log.close()
        self._index.remember(run)
        self._lock.release()
        return run


def end_without_writer(
    run: Run, index: RunIndex, state: Literal["interrupted", "cancelled", "failed"], error: StudioError | None
) -> Run | None:
    """End a run whose writer died without a word; None where it is final or its writer lives."""
    lock = FileLock(run.folder / "lock")
    if run.state != "running" or not lock.try_acquire():
        return None
    try:
        run = read_run(run.folder)
        if run.state != "running":
            return None
        tally = Tally()
        for event in read_events(run.folder):
            tally.add(event)
        if error is None and state == "interrupted":
            error = RunError("The studio stopped while this run was being made.", way_out="Run it again.")
        run = replace(
            tally.onto(run), state=state, finished=utc_now(), error=None if error is None else error.to_json()
        )
        lock.reserve(0)
        drop_outputs(run.folder)
        write_run(run)
        index.remember(run)
        return run
    finally:
        lock.release()


def drop_outputs(folder: Path) -> None:
    """Remove what only a complete run may have, and temporaries that a killed writer left."""
    for path in (*(folder / name for name in _OUTPUTS), *folder.glob(".*")):
        path.unlink(missing_ok=True)
