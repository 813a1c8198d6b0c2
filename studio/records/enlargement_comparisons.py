"""Comparisons of enlargements: which of them somebody looks at side by side.

    .enlargement-comparisons/<id>/
        comparison.json    the record

What each of them is, how far it is and what it is worth stands in its own record. Refuses to repeat any of that.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import ComparisonError, StudioError
from studio.records.folders import FolderStore, new_id
from studio.storage import disk_trouble

FOLDER = ".enlargement-comparisons"


@dataclass(frozen=True, kw_only=True)
class EnlargementComparison:
    """Several methods on several clips."""

    id: str
    created: str
    """ISO 8601, UTC."""
    owner: str
    enlargements: tuple[str, ...]
    """Their ids: clip by clip, the methods of each in one order."""
    notices: tuple[str, ...] = ()
    """What was asked for besides, and why it could not be."""


class EnlargementComparisonStore(FolderStore[EnlargementComparison]):
    """All such comparisons in a runs folder."""

    kind = EnlargementComparison
    noun = "comparison"
    record_name = "comparison.json"
    lock_name = "writing.lock"
    fault = ComparisonError
    listed_by = "python -m studio enlargements"

    def __init__(self, runs_folder: Path) -> None:
        super().__init__(runs_folder / FOLDER)

    def begin(self, enlargements: Iterable[str], *, notices: Iterable[str] = (), owner: str) -> EnlargementComparison:
        """Write a new one down. Raises DiskFull where there is no room."""
        comparison_id, created = new_id()
        comparison = EnlargementComparison(
            id=comparison_id,
            created=created,
            owner=owner,
            enlargements=tuple(enlargements),
            notices=tuple(notices),
        )
        self.add(comparison)
        return comparison

    def seen_by(self, owner: str, comparison_id: Any) -> EnlargementComparison:
        """The one of that id, where it is this owner's. Raises ComparisonError otherwise."""
        comparison = self.get(comparison_id)
        if comparison.owner != owner:
            raise self._no_such(comparison_id)
        return comparison

    def list(self, *, owner: str) -> list[EnlargementComparison]:
        """All of an owner's that can be read, newest first."""
        return [each for each in self.every() if each.owner == owner]

    def delete(self, comparison_id: Any, *, owner: str) -> None:
        """Remove the record; the enlargements stay. Raises ComparisonError where there is none of this owner's."""
        path = self.path(self.seen_by(owner, comparison_id).id)
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise disk_trouble(error, path) from error

    def _no_such(self, thing_id: Any) -> StudioError:
        return ComparisonError(
            f"There is no comparison {str(thing_id)[:60]!r}.",
            field=self.noun,
            value=thing_id,
            way_out="Choose one of those in the list, or begin one.",
        )
