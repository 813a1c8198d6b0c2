"""Insertions: a vehicle put into a clip. One folder each.

    .insertions/<id>/
        insertion.json      the record: request, what there is, state
        result.mp4          the clip with the vehicle in it, lit and shadowed
        paste.mp4           with the vehicle merely pasted
        source.mp4          the frames as they were
        log.jsonl           what the work said
        making.lock         held by whoever makes it

Knows folders and records. Refuses to know how a vehicle is lit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studio.errors import ErrorRecord, InsertionError
from studio.records.folders import OwnedStore, new_id
from studio.requests.insertion import InsertionRequest, RecordedInsertion

InsertionState = Literal["waiting", "running", "stopped", "complete", "failed"]
FOLDER = ".insertions"
RESULT, PASTE, SOURCE = "result.mp4", "paste.mp4", "source.mp4"


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """A vehicle in a clip."""

    id: str
    created: str
    """ISO 8601, UTC."""
    state: InsertionState
    owner: str
    request: RecordedInsertion
    title: str
    """The clip's name, and the vehicle's."""
    height: int = 0
    width: int = 0
    """Of the frames; 0 until they are there."""
    num_frames: int = 0
    fps: float = 0.0
    outputs: tuple[str, ...] = ()
    """The files that are there."""
    notices: tuple[str, ...] = ()
    """What was done to the clip, in sentences."""
    seconds: float = 0.0
    """Spent on it."""
    error: ErrorRecord | None = None
    environment: dict[str, str] = field(default_factory=dict)


class InsertionStore(OwnedStore[Insertion]):
    """All insertions in a runs folder."""

    kind = Insertion
    noun = "insertion"
    record_name = "insertion.json"
    lock_name = "making.lock"
    fault = InsertionError
    listed_by = "python -m studio insertions"

    def __init__(self, runs_folder: Path) -> None:
        super().__init__(runs_folder / FOLDER)

    def begin(self, request: InsertionRequest, *, title: str, owner: str, environment: dict[str, str]) -> Insertion:
        """Write a new one down; nothing is made yet.

        Raises:
            DiskFull: no room.
        """
        insertion_id, created = new_id()
        insertion = Insertion(
            id=insertion_id,
            created=created,
            state="waiting",
            owner=owner,
            request=request,
            title=title,
            environment=environment,
        )
        self.add(insertion)
        return insertion

    def state_of(self, insertion: Insertion) -> InsertionState:
        """What is so by now: one whose maker died was stopped."""
        return "stopped" if self.is_abandoned(insertion) else insertion.state
