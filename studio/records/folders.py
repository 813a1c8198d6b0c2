"""Things that are made over time: one folder each, with a record, a log of what was said, and a lock of whoever works.

Knows folders, their names and what may be wrong with a record. Refuses to know what is made.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from studio.errors import StudioError
from studio.records.codec import from_json, to_json
from studio.records.event_log import EventTail, Numbered
from studio.storage import FileLock, disk_trouble, write_atomically

LOG = "log.jsonl"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


class Recorded(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def created(self) -> str: ...


R = TypeVar("R", bound=Recorded)
M = TypeVar("M", bound="Owned")


def new_id() -> tuple[str, str]:
    """(id, created): a folder's name that sorts by time, and the time in ISO 8601, UTC."""
    now = datetime.now(UTC)
    # To the microsecond: lists are sorted by it, and two may begin within a millisecond.
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}", now.isoformat(timespec="microseconds")


def records_naming_uploads(runs_folder: Path) -> list[Path]:
    """The records that may name what people brought: by convention, of whatever kind."""
    return [*runs_folder.glob(".*/*/*.json")]


class Owned(Recorded, Protocol):
    @property
    def owner(self) -> str: ...

    @property
    def state(self) -> str: ...


class FolderStore(Generic[R]):
    """All things of one kind in a folder."""

    kind: type[R]
    """What a record is read as."""
    noun: ClassVar[str]
    """What one is called."""
    record_name: ClassVar[str]
    """The record's file."""
    lock_name: ClassVar[str]
    """Held by whoever works on it."""
    fault: ClassVar[type[StudioError]]
    """What is raised about one."""
    listed_by: ClassVar[str]
    """The command that lists them."""
    record_version: ClassVar[int] = 1
    """Raised when a key of the record changes its meaning."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, thing_id: Any) -> Path:
        """Where it lies, or would.

        Raises:
            StudioError: that is no id; a path in its place would lead elsewhere.
        """
        if not isinstance(thing_id, str) or not _ID.fullmatch(thing_id):
            raise self._no_such(thing_id)
        return self.folder / thing_id

    def get(self, thing_id: Any) -> R:
        """The one of that id.

        Raises:
            StudioError: there is none, or its record cannot be read.
        """
        path = self.path(thing_id) / self.record_name
        if not path.is_file():
            raise self._no_such(thing_id)
        try:
            thing = from_json(self.kind, json.loads(path.read_text(encoding="utf-8")))
            if thing.id != thing_id:
                raise ValueError(f"it calls itself {thing.id[:40]!r}")
            return thing
        except (OSError, ValueError, RecursionError, StudioError) as error:
            raise self.fault(
                f"The record of {self.noun} {thing_id} cannot be read: {error}.", field=self.noun, value=thing_id
            ) from error

    def events(self, thing_id: str, *, after: int = 0) -> list[Numbered]:
        """What was said of it after that line; one torn by a crash is left out."""
        return EventTail(self.path(thing_id) / LOG, after=after).read()

    def lock(self, thing_id: str) -> FileLock:
        """Held by whoever works on it."""
        return FileLock(self.path(thing_id) / self.lock_name)

    def is_held(self, thing_id: str) -> bool:
        """Whether somebody works on it now."""
        lock = self.lock(thing_id)
        try:
            if not lock.try_acquire():
                return True
        except OSError:  # it was deleted meanwhile
            return False
        lock.release()
        return False

    def write(self, thing: R) -> None:
        """Raises DiskFull where there is no room; the record is then as it was."""
        record = {"record_version": self.record_version} | to_json(thing)
        write_atomically(self.path(thing.id) / self.record_name, json.dumps(record, indent=1).encode())

    def add(self, thing: R) -> None:
        """Open its folder, with its record in it.

        Raises:
            DiskFull: no room.
        """
        try:
            self.path(thing.id).mkdir(parents=True)
        except OSError as error:
            raise disk_trouble(error, self.folder) from error
        self.write(thing)

    def every(self) -> list[R]:
        """All that can be read, newest first."""
        things = []
        for path in self.folder.glob(f"*/{self.record_name}"):
            try:
                things.append(self.get(path.parent.name))
            except StudioError:
                continue
        return sorted(things, key=lambda thing: (thing.created, thing.id), reverse=True)

    def _no_such(self, thing_id: Any) -> StudioError:
        return self.fault(
            f"There is no {self.noun} {str(thing_id)[:60]!r}.",
            field=self.noun,
            value=thing_id,
            way_out=f"List them with `{self.listed_by}`.",
        )


class OwnedStore(FolderStore[M]):
    """All things of one kind that belong to whoever had them made, and are made in one go."""

    def seen_by(self, owner: str | None, thing_id: object) -> M:
        """The one of that id, where this owner may see it; None may see all.

        Raises:
            StudioError: there is none, it is somebody else's, or its record cannot be read.
        """
        thing = self.get(thing_id)
        if owner is not None and thing.owner != owner:
            raise self._no_such(thing_id)
        return thing

    def list(self, *, owner: str | None = None) -> list[M]:
        """All that can be read and seen, newest first."""
        return [each for each in self.every() if owner in (None, each.owner)]

    def is_abandoned(self, thing: M) -> bool:
        """Whether its record says that it is being made, and its maker has died."""
        return thing.state == "running" and not self.is_held(thing.id)

    def delete(self, thing_id: str, *, owner: str | None = None) -> None:
        """Remove one for good.

        Raises:
            StudioError: there is none, it is somebody else's, or it is being made.
        """
        self.seen_by(owner, thing_id)
        lock = self.lock(thing_id)
        if not lock.try_acquire():
            raise self.being_made(thing_id)
        try:
            shutil.rmtree(self.path(thing_id))
        finally:
            lock.release()

    def being_made(self, thing_id: str) -> StudioError:
        """What is raised where one is touched that somebody works on."""
        return self.fault(
            f"{self.noun.capitalize()} {thing_id} is being made.",
            field=self.noun,
            value=thing_id,
            way_out="Stop it first.",
        )
