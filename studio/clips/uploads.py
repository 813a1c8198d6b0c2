"""Uploads: the way in for files that people bring. Each is read once, by the guarded process, hashed once, and kept.

Knows the folder of copies and the reader of clips. Refuses to know what an upload is for, and who may bring one.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.clips.limits import ClipLimits
from studio.clips.read import ClipInfo, read_clip
from studio.clips.reference import FileReference
from studio.clips.write import thumbnail_jpeg
from studio.errors import ClipError
from studio.storage import disk_trouble, sha256_of, whole

FOLDER = ".training-clips"
"""Where the copies stay, within the runs folder: `<FOLDER>/<sha256>/<name>`. Training brought the first."""
SHA256 = "[0-9a-f]{64}"
KEPT_SECONDS = 24 * 3600.0
"""For how long they stay without a record that names them."""


@dataclass(frozen=True, kw_only=True)
class UploadedClip:
    """A clip that was brought, as it lies here, and what reading it has shown."""

    path: Path
    """The copy that stays."""
    sha256: str
    info: ClipInfo
    settings: dict[str, Any] | None
    """What made it, where the studio did; from outside all the same."""
    thumbnail: bytes
    """A small JPEG of its first frame."""

    @property
    def reference(self) -> FileReference:
        """How a request refers to it."""
        return FileReference(path=self.path.absolute(), sha256=self.sha256)


class Uploads:
    """The copies in one runs folder; the same content is kept once, under each name that it came by."""

    def __init__(self, runs: Path) -> None:
        self.folder = runs / FOLDER

    def take(self, path: Path, *, limits: ClipLimits) -> UploadedClip:
        """Read a clip, and keep a copy that stays when the file goes; a copy itself is only read.

        Args:
            path: The file; links, pipes and folders are refused.
            limits: How much it may be. It is only looked at here, so it is read as small as these ask.

        Raises:
            ClipRefused: it cannot be read, or is more than the limits.
            DiskFull: no room for the copy; nothing is left behind.
            StorageError: the folder cannot be written.
        """
        loaded = read_clip(path, limits=limits, fps=1.0, least=(1, 1))  # one picture a second tells as much
        copy = path if _checksum_in(path) else self.keep(path)
        return UploadedClip(
            path=copy,
            sha256=checksum_of(copy),
            info=loaded.info,
            settings=loaded.settings,
            thumbnail=thumbnail_jpeg(loaded.clip.frames[0], longest=96),
        )

    def keep(self, path: Path) -> Path:
        """A copy of a file, whatever is in it.

        Raises:
            ClipError: the file cannot be read.
            DiskFull: no room; nothing is left behind.
            StorageError: the folder cannot be written.
        """
        try:
            sha256 = sha256_of(path)
        except OSError as error:
            raise ClipError(f"{path.name} cannot be read: {error.strerror}.", field="clip", value=path.name) from error
        copy = self.folder / sha256 / _safe_name(path)
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            known = self.find(sha256)
            if known is not None:
                os.utime(known.parent)
            if known is None or (known != copy and not _also_named(known, copy)):
                with whole(copy) as part:
                    shutil.copyfile(path, part)
        except OSError as error:
            raise disk_trouble(error, copy) from error
        return copy

    def refer(self, path: Path) -> FileReference:
        """What refers to the copy of a file. Raises StudioError, as `keep` does."""
        kept = self.keep(path).absolute()
        return FileReference(path=kept, sha256=checksum_of(kept))

    def find(self, sha256: str) -> Path | None:
        """The copy of a content; None where there is none, or where that is no SHA-256."""
        if not re.fullmatch(SHA256, sha256):
            return None
        try:
            names = sorted((self.folder / sha256).iterdir())
        except OSError:
            return None
        return next((path for path in names if not path.name.startswith(".")), None)

    def sweep(self, *, named_in: Iterable[Path]) -> None:
        """Remove the copies that nobody has asked for in `KEPT_SECONDS`, save those whose checksum stands in a record.

        Args:
            named_in: The records. They are read as text, for one that this version of the studio cannot read names its
                clips all the same.
        """
        oldest = time.time() - KEPT_SECONDS
        try:
            old = [home for home in self.folder.iterdir() if home.stat().st_mtime < oldest]
            if not old:
                return
            records = [path.read_text(encoding="utf-8") for path in named_in]
        except OSError:
            return  # what cannot be looked at now may be needed
        needed = {sha256 for record in records for sha256 in re.findall(SHA256, record)}
        for home in old:
            if home.name not in needed:
                shutil.rmtree(home, ignore_errors=True)


def checksum_of(path: Path) -> str:
    """The checksum of a file, which for a copy that is kept here is the name of its folder.

    Raises:
        OSError: as the system says.
    """
    return _checksum_in(path) or sha256_of(path)


def _checksum_in(path: Path) -> str | None:
    """The checksum that a copy's folder bears; None for any other file."""
    home = path.absolute().parent
    return home.name if home.parent.name == FOLDER and re.fullmatch(SHA256, home.name) else None


def _also_named(known: Path, name: Path) -> bool:
    """Give a file a second name; False where the disk has no such thing."""
    try:
        name.hardlink_to(known)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def _safe_name(path: Path) -> str:
    """A file's name in letters that every system takes, short, and never hidden."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")[:80] or "clip"
    return stem + re.sub(r"[^a-z0-9.]", "", path.suffix.lower())[:8]
