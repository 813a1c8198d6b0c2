"""The record of a comparison: one JSON file in the runs' folder, written after every cell, found again after a restart.

Knows how a comparison lies on disk, whose it is and who may write it. Refuses to know how a cell comes to its figures,
and to touch a run: what was compared is kept and deleted among the runs.
"""

from __future__ import annotations

import json
import re
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from studio.compare.cells import Comparison
from studio.compare.grid import Grid, cells_of
from studio.errors import ComparisonError, RequestError, StudioError
from studio.records import codec
from studio.records.run import utc_now
from studio.records.runs import RunStore
from studio.storage import FileLock, disk_trouble, write_atomically

RECORD_VERSION = 1
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{16}")


class Comparisons:
    """The folder of comparisons: one JSON file each, whole or as it was before.

    Only who holds a comparison's lock writes its record.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.folder = store.folder / ".comparisons"  # with a dot: what has none is a run
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise disk_trouble(error, self.folder) from error

    def begin(self, grid: Grid, *, owner: str = "local", pinned: dict[str, str] | None = None) -> Comparison:
        """Write a new comparison down; nothing is made yet.

        Args:
            grid: What is asked for.
            owner: Whose it is.
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
            ComparisonError: there is none, it is somebody else's, or its file cannot be read.
        """
        unknown = ComparisonError(
            f"There is no comparison {str(comparison_id)[:40]!r}.", field="comparison", value=comparison_id
        )
        if not (isinstance(comparison_id, str) and _ID.fullmatch(comparison_id)):
            raise unknown
        try:
            comparison = _read(json.loads(self.path(comparison_id).read_bytes()))
        except FileNotFoundError:
            raise unknown from None
        except (OSError, ValueError, RecursionError, StudioError) as error:
            message = f"The comparison {comparison_id} cannot be read: {error}."
            raise ComparisonError(message, field="comparison") from error
        if owner is not None and comparison.owner != owner:
            raise unknown
        return comparison

    def list(self, *, owner: str | None = None, limit: int = 20) -> list[Comparison]:
        """Newest first; what cannot be read is left out."""
        comparisons: list[Comparison] = []
        for name in self._ids():
            if len(comparisons) >= limit:
                break
            with suppress(ComparisonError):
                comparisons.append(self.get(name, owner=owner))
        return comparisons

    def _ids(self) -> list[str]:
        return sorted((path.stem for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)), reverse=True)

    def write(self, comparison: Comparison) -> None:
        """Raises DiskFull where there is no room; the record is then as it was."""
        record = json.dumps(_written(comparison), ensure_ascii=False, allow_nan=False)
        write_atomically(self.path(comparison.id), record.encode("utf-8"))

    def lock(self, comparison_id: str) -> FileLock:
        """Held by whoever walks it."""
        return FileLock(self.folder / f"{comparison_id}.lock")

    def is_walked(self, comparison_id: str) -> bool:
        """Whether somebody walks it now."""
        lock = self.lock(comparison_id)
        if not lock.try_acquire():
            return True
        lock.release()
        return False

    def begun(self, comparison_id: str) -> Comparison:
        """The comparison as whoever walks it begins, holding its lock: at work, and nothing half made."""
        comparison = self.get(comparison_id)
        cells = tuple(replace(cell, state="waiting") if cell.state == "running" else cell for cell in comparison.cells)
        begun = replace(comparison, state="running", cells=cells)
        if begun != comparison:
            self.write(begun)
        return begun

    def stop(self, comparison_id: str, *, owner: str | None = None) -> Comparison:
        """Mark as stopped what nobody walks; what somebody walks is left to them."""
        comparison = self.get(comparison_id, owner=owner)
        lock = self.lock(comparison_id)
        if comparison.state == "running" and lock.try_acquire():
            try:
                comparison = replace(self.begun(comparison_id), state="stopped")
                self.write(comparison)
            finally:
                lock.release()
        return comparison

    def go_on(self, comparison_id: str, *, owner: str | None = None, again: bool = False) -> Comparison:
        """Let a stopped comparison run again from where it stood; with `again`, its failed cells too.

        Raises:
            ComparisonError: there is none, or somebody walks it now.
        """
        self.get(comparison_id, owner=owner)
        lock = self.lock(comparison_id)
        if not lock.try_acquire():
            raise ComparisonError("The comparison is under way already.", field="comparison", value=comparison_id)
        try:
            comparison = self.begun(comparison_id)  # under the lock: it may have been deleted meanwhile
            if again:
                cells = tuple(
                    replace(cell, state="waiting", error=None) if cell.state == "failed" else cell
                    for cell in comparison.cells
                )
                comparison = replace(comparison, cells=cells)
                self.write(comparison)
            return comparison
        finally:
            lock.release()

    def delete(self, comparison_id: Any, *, owner: str | None = None) -> None:
        """Remove a comparison's record for good. The clips that it holds stay: they are runs, deleted among the runs.

        Raises:
            ComparisonError: there is none, it is somebody else's, or it is under way.
        """
        self.get(comparison_id, owner=owner)
        lock = self.lock(comparison_id)
        try:
            free = lock.try_acquire()
            self.get(comparison_id, owner=owner)
            if not free:
                raise ComparisonError(
                    "The comparison is under way.", field="comparison", value=comparison_id, way_out="Stop it first."
                )
            self.path(comparison_id).unlink()
        except OSError as error:
            raise disk_trouble(error, self.path(comparison_id)) from error
        finally:
            lock.release()
        with suppress(OSError):  # no id comes twice: whoever waits for this lock finds no record under it
            lock.path.unlink()


def _read(record: object) -> Comparison:
    comparison = codec.from_json(Comparison, record)
    if [cell.number for cell in comparison.cells] != list(range(len(comparison.cells))):
        raise ValueError("its cells are out of order")
    return comparison


def to_json(comparison: Comparison) -> dict[str, JsonValue]:
    """The record, without whose it is: what leaves the house. Infinite scores are the words "inf" and "-inf"."""
    record = _written(comparison)
    del record["owner"]
    return record


def _written(comparison: Comparison) -> dict[str, JsonValue]:
    return {"record_version": RECORD_VERSION} | codec.to_json(comparison)
