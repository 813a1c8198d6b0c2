"""Runs: plain folders that explain themselves, found again by anyone who may.

One run is one folder, named after the run:

    20261121-143015-ab12cd34/
      run.json       the request, the state and every figure; the only file that says whether the run is complete
      events.jsonl   what the stream said, one event a line
      preview.jpg    the latest preview
      video.mp4      the clip, with its settings inside
      poster.jpg     one frame of it
      lock           held by the living writer; a run that says `running` while nobody holds it was interrupted

A run is absent, running, or final, never half: the folder appears by one rename with `run.json` already in it, and
`run.json` says `complete` only once the clip and the poster are in place. The folders are the truth; an index beside
them (`run_index.py`) only makes them quick to search.

Knows folders and what a crash leaves in them. Refuses to know torch, how a clip is made, and who shows it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from studio.errors import DiskFull, RunError, StudioError
from studio.preset import Preset
from studio.records.run import RUN_ID, Output, Run, RunState, read_run, utc_now, write_run
from studio.records.run_index import RunIndex
from studio.records.run_writer import RunWriter, end_without_writer
from studio.requests.generation import GenerationRequest
from studio.storage import MORE_ROOM, FileLock, disk_trouble, rename

MIN_FREE_BYTES = 200 * 1024 * 1024
"""No run begins with less free disk than this: better refused before an hour of work than after it."""
RESERVE_BYTES = 256 * 1024
"""Disk set aside in the lock file at the start, so that a run can still say that the disk was full."""
ABANDONED_SECONDS = 60
"""Age after which a half-made folder that nobody holds is swept away."""

log = logging.getLogger(__name__)


def runs_folder() -> Path:
    """Where runs are kept: `$DAILIES_RUNS`, or `runs/` where the studio was started."""
    return Path(os.environ.get("DAILIES_RUNS") or "runs")


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
        self._index = RunIndex(self.folder, self._read_all)

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
            folder=nursery,
        )
        lock = FileLock(nursery / "lock")
        try:
            nursery.mkdir(mode=0o700)
            lock.try_acquire()
            lock.reserve(RESERVE_BYTES)
            write_run(run)
            run = replace(run, folder=self.folder / run_id)
            rename(nursery, run.folder)
            self._index.add(run)
            return RunWriter(run, lock, self._index)
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
        if not (isinstance(run_id, str) and RUN_ID.fullmatch(run_id)):
            raise _no_such_run(run_id)
        folder = self.folder / run_id
        if not folder.is_dir() or folder.is_symlink():
            raise _no_such_run(run_id)
        run = read_run(folder)
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
            elif Output.of(path) != output:
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
        self._index.forget([run_id])
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
        runs, gone = [], []
        for run_id in self._index.search(text, owner, preset, state, limit, offset):
            try:
                runs.append(self.get(run_id, owner=owner))
            except RunError:
                gone.append(run_id)
        if gone:
            self._index.forget(gone)
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
        return self._index.count(text, owner, preset, state)

    def rebuild(self) -> int:
        """Make the index again from the folders; returns how many runs it holds.

        What cannot be read is left where it is and named in `skipped`.
        """
        return self._index.rebuild()

    def sweep(self) -> list[Run]:
        """Put right what a crash left: returns the runs that were `running` with a dead writer, now `interrupted`.

        Half-made and half-deleted folders go away. The index is brought into line with the folders where they can
        differ: folders it does not know, folders that are gone, and runs it holds to be running.
        """
        _remove_abandoned(self.folder)
        known = self._index.states()
        doubtful = [name for name in self._folder_names() if known.get(name, "running") == "running"]
        interrupted = [
            ended
            for run in self._read(doubtful)
            if run.state == "running" and (ended := self.settle(run.id)) is not None
        ]
        self._index.bring_into_line(lambda: self._read(doubtful), known)
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
        return end_without_writer(self.get(run_id), self._index, state, error)

    def _folder_names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def _read_all(self) -> list[Run]:
        runs = self._read(self._folder_names())
        for fault in self.skipped:
            log.warning("skipped: %s", fault)
        return runs

    def _read(self, names: list[str]) -> list[Run]:
        """The runs in those folders; of those that hold none, `skipped` says the reason."""
        runs: list[Run] = []
        skipped: list[RunError] = []
        for name in names:
            folder = self.folder / name
            try:
                if folder.is_symlink() or not RUN_ID.fullmatch(name):
                    raise RunError(f"{name} is not a run's folder.", field=name)
                runs.append(read_run(folder))
            except RunError as fault:
                skipped.append(fault)
        self.skipped = tuple(skipped)
        return runs


def _remove_abandoned(folder: Path) -> None:
    """Remove half-made and half-deleted runs that nobody holds any more."""
    for remains in (*folder.glob(".new-*"), *folder.glob(".deleted-*")):
        with contextlib.suppress(OSError):
            if time.time() - remains.stat().st_mtime < ABANDONED_SECONDS:
                continue
            lock = FileLock(remains / "lock")
            if lock.try_acquire():
                shutil.rmtree(remains, ignore_errors=True)
                lock.release()


def _no_such_run(run_id: Any) -> RunError:
    return RunError(f"There is no run {str(run_id)[:40]!r}.", field="run", value=run_id, way_out="Look in the list.")
