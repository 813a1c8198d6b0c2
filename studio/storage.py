"""Storage: files that are whole or not there, locks that die with their holder, and SQLite as the studio keeps it.

Knows the file system and SQLite. Refuses to know what is stored.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from studio.errors import DiskFull, StorageError, StudioError

MORE_ROOM = "Delete what you do not need, or choose a folder on a larger disk."
NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Error numbers that mean that the disk, the quota or the file-size limit is used up."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file that is put in place whole, or not at all.

    Within it, write what is to be there into the temporary that it hands out, in the same folder. Then: fsync, replace,
    fsync of the folder. After a crash there is the old file or the new.

    Raises:
        DiskFull: no room; what was there is untouched and no temporary is left.
        StorageError: the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise disk_trouble(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Put these bytes in place; see `whole`."""
    with whole(path) as part:
        part.write_bytes(content)


def rename(old: Path, new: Path) -> None:
    """Give a file or folder another name, at once and for good; what bore that name is gone.

    Raises:
        OSError: as the system says.
    """
    os.replace(old, new)
    fsync_folder(new.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename last; Windows neither needs it nor allows it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The checksum of a file, which is not held in memory for it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_room_for(what: str, folder: Path) -> DiskFull:
    return DiskFull(f"There is no room on the disk for {what}.", field=str(folder), way_out=MORE_ROOM)


def disk_trouble(error: OSError, path: Path) -> StudioError:
    """The system's refusal to write, in the studio's words; whoever knows what was written may say the way out."""
    if error.errno in NO_ROOM:
        return no_room_for(path.name, path.parent)
    return StorageError(
        f"{path.name} cannot be written: {error.strerror or error}.",
        field=str(path.parent),
        way_out="Choose a folder that you may write to.",
    )


class FileLock:
    """An exclusive lock that the operating system drops when its holder dies, however it dies.

    Two openings of one file exclude each other even within a process. Descriptors are closed on exec, so a program
    that the holder starts does not keep the lock alive; a plain fork would.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it.

        Raises:
            OSError: the file cannot be opened.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def reserve(self, size: int) -> None:
        """Let the file hold that many bytes of disk, or none (0)."""
        if self._descriptor is None:
            return
        if not size:
            os.ftruncate(self._descriptor, 0)
        elif sys.platform == "linux":
            os.posix_fallocate(self._descriptor, 0, size)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def open_database(path: Path) -> sqlite3.Connection:
    """An SQLite file as the studio keeps it: write-ahead log, every commit on the disk, five seconds' patience.

    Where the file system cannot hold a write-ahead log (network file systems), the rollback journal stays.
    Transactions are begun and ended by the caller.
    """
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA busy_timeout = 5000")
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing; the write lock is taken at once, so that what is read inside stays true until the commit."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk SQLite may have rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault (not a full disk, a lock or a permission)."""
    code = getattr(error, "sqlite_errorcode", None)
    return (code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)) or str(
        error
    ).startswith(("no such table", "no such column"))


def lacks_room(error: sqlite3.Error) -> bool:
    """Whether SQLite could not write for want of disk; a size limit on the process shows as a failed write."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
