"""The index of runs: `index.sqlite` beside the folders, which makes them quick to search and can always be made again.

Knows SQLite and which of a run's words are looked for. Refuses to be believed over a folder: where it is missing,
damaged or outdated, it is rebuilt from what the folders say.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, get_args

from studio.errors import RunError, StudioError
from studio.records.run import Run, RunState
from studio.storage import is_damage, lacks_room, no_room_for, open_database, transaction

T = TypeVar("T")
Reading = Callable[[], list[Run]]
"""Reads runs from their folders when it is called."""

INDEX_VERSION = 1
"""Raised when the index's columns change; an index of another version is rebuilt from the folders."""

_SCHEMA = (
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

log = logging.getLogger(__name__)


class RunIndex:
    """`index.sqlite` of one folder of runs. Connections live for one operation."""

    def __init__(self, folder: Path, read_all: Reading) -> None:
        self.folder = folder
        self._path = folder / "index.sqlite"
        self._read_all = read_all

    def search(
        self, text: str, owner: str | None, preset: str | None, state: RunState | None, limit: int, offset: int
    ) -> list[str]:
        """Ids of the runs that hold every word, newest first."""
        condition, values = _where(text, owner, preset, state)
        statement = f"SELECT id FROM runs WHERE {condition} ORDER BY created DESC, id DESC LIMIT ? OFFSET ?"
        values = (*values, max(limit, 0), max(offset, 0))
        return self._use(lambda index: [row["id"] for row in index.execute(statement, values)])

    def count(self, text: str, owner: str | None, preset: str | None, state: RunState | None) -> int:
        condition, values = _where(text, owner, preset, state)
        return self._use(
            lambda index: index.execute(f"SELECT count(*) FROM runs WHERE {condition}", values).fetchone()[0]
        )

    def states(self) -> dict[str, RunState]:
        """Of every run that it knows, by id."""
        return self._use(lambda index: {row["id"]: row["state"] for row in index.execute("SELECT id, state FROM runs")})

    def add(self, run: Run) -> None:
        """Write a run down, or write it anew."""
        self._use(lambda index: _insert(index, run))

    def remember(self, run: Run) -> None:
        """Bring it up to date. The folder already says it, so an index that cannot be written is no failure."""
        try:
            self.add(run)
        except StudioError as error:
            log.warning("run %s is on disk, but in the index only after the next sweep: %s", run.id, error)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Leave out runs that are gone; where that fails, they are left out at the next sweep."""

        def drop(index: sqlite3.Connection) -> None:
            with transaction(index):
                _delete(index, run_ids)

        try:
            self._use(drop)
        except StudioError as error:
            log.warning("the index names runs that are gone, until the next sweep: %s", error)

    def bring_into_line(self, read: Reading, known: Iterable[str]) -> None:
        """Write down the runs that are read under the write lock, and leave out those known whose folder is gone."""

        def correct(index: sqlite3.Connection) -> None:
            with transaction(index):
                for run in read():
                    _insert(index, run)
                _delete(index, [run_id for run_id in known if not (self.folder / run_id).is_dir()])

        self._use(correct)

    def rebuild(self) -> int:
        """Make it again from the folders; returns how many runs it holds."""
        try:
            try:
                return self._rebuild_in_place()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                # The log goes first: beside a new file it would be taken for that file's own.
                for ending in ("-wal", "-shm", "-journal", ""):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
                return self._rebuild_in_place()
        except sqlite3.Error as error:
            raise _trouble(error, self.folder) from error

    def _rebuild_in_place(self) -> int:
        with contextlib.closing(open_database(self._path)) as index, transaction(index):
            # Read under the write lock: a writer that ends meanwhile brings its own row up to date afterwards.
            runs = self._read_all()
            for statement in _SCHEMA:
                index.execute(statement)
            for run in runs:
                _insert(index, run)
        return len(runs)

    def _use(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Do one thing with the index; where it is missing, damaged or outdated, rebuild it and do the thing again."""
        for attempt in (1, 2):
            try:
                with contextlib.closing(open_database(self._path)) as index:
                    if index.execute("PRAGMA user_version").fetchone()[0] == INDEX_VERSION:
                        return operation(index)
            except sqlite3.Error as error:
                if attempt == 2 or not is_damage(error):
                    raise _trouble(error, self.folder) from error
                log.warning("the index is damaged and is rebuilt: %s", error)
            if attempt == 1:
                self.rebuild()
        raise RunError("The index of runs cannot be used.", field=str(self._path), way_out="Remove the file.")


def _insert(index: sqlite3.Connection, run: Run) -> None:
    words = "\n".join((run.id, run.request.preset, run.request.prompt, run.request.negative_prompt)).casefold()
    index.execute(
        "INSERT OR REPLACE INTO runs (id, owner, state, created, preset, words) VALUES (?, ?, ?, ?, ?, ?)",
        (run.id, run.owner, run.state, run.created, run.request.preset, words),
    )


def _delete(index: sqlite3.Connection, run_ids: Iterable[str]) -> None:
    index.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in run_ids])


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


def _trouble(error: sqlite3.Error, folder: Path) -> StudioError:
    if lacks_room(error):
        return no_room_for("the index of runs", folder)
    return RunError(f"The index of runs cannot be used: {error}.", field=str(folder), way_out="Try again.")
