"""References: a file that a request starts from, by where it lies and by what is in it.

Knows paths and checksums. Refuses to know what the file shows, and who may name it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.errors import RequestError
from studio.storage import sha256_of


class FileReference(BaseModel):
    """A file as it was when it was named. Spelled in one line as `sha256sum` does: checksum, two spaces, path."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: Path
    """Where it lies."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The checksum of what is in it."""

    @model_validator(mode="before")
    @classmethod
    def _from_line(cls, written: object) -> object:
        if not isinstance(written, str):
            return written
        sha256, _, path = written.strip().partition("  ")
        return {"sha256": sha256, "path": path.strip()}

    def __str__(self) -> str:
        return f"{self.sha256}  {self.path}"


def reference_to(path: Path, *, field: str) -> FileReference:
    """What refers to a file as it is now.

    Args:
        path: The file.
        field: The request's field that it is for, which a refusal names.

    Raises:
        RequestError: there is no file that can be read.
    """
    try:
        return FileReference(path=path.absolute(), sha256=sha256_of(path))
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read: {error.strerror or error}.",
            field=field,
            value=str(path),
            way_out="Name a file that is there.",
        ) from error


def check_unchanged(reference: FileReference, *, field: str) -> None:
    """Refuse a file that is not what it was when it was named.

    Raises:
        RequestError: it is gone, or something else is in it.
    """
    if reference_to(reference.path, field=field).sha256 != reference.sha256:
        raise RequestError(
            f"{reference.path.name} is not what it was when it was named: its checksum is another.",
            field=field,
            value=str(reference),
            way_out="Name it anew, or put the earlier file back.",
        )
