"""Enlargements: what super-resolution makes. One folder each, whose parts outlive whoever makes them.

    .enlargements/<id>/
        enlargement.json    the record: request, what the clip holds, state
        parts/000003.nut    the pictures of one stretch of the clip, whole or not there; removed when all is complete
        bicubic/000003.nut  the same by bicubic interpolation, where they are to be compared
        excerpt.mp4         the part that was tried first
        video.mp4           the enlarged clip, with its settings inside
        video.mkv           the same, where the clip has streams that MP4 cannot hold
        …_bicubic.mp4       their twins
        …_original.mp4      the same pictures of the clip's large original, where one was given
        poster.jpg          a picture of it
        log.jsonl           what the work said
        making.lock         held by whoever makes it

Knows folders and records. Refuses to know how pictures are enlarged.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studio.clips.reference import FileReference
from studio.errors import EnlargementError, ErrorRecord
from studio.records.codec import Score
from studio.records.folders import FolderStore, new_id
from studio.requests.super_resolution import RecordedSuperResolution, SuperResolutionRequest

EnlargementState = Literal["waiting", "running", "stopped", "complete", "failed"]
FOLDER = ".enlargements"
VIDEO, ALL_STREAMS, EXCERPT, POSTER = "video.mp4", "video.mkv", "excerpt.mp4", "poster.jpg"
TWIN_OF = {VIDEO: "video_bicubic.mp4", EXCERPT: "excerpt_bicubic.mp4"}
"""The same pictures by bicubic interpolation, to be looked at beside them; of a long clip the excerpt alone."""
ORIGINAL_OF = {VIDEO: "video_original.mp4", EXCERPT: "excerpt_original.mp4"}
"""The same pictures of the original, wherever there is a twin."""


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What is known of the clip that is enlarged."""

    name: str
    container: str
    codec: str
    width: int
    height: int
    """Pixels as stored, upright."""
    fps: float
    constant_rate: bool
    num_frames: int
    """As the file says; how many there are is known once all were read."""
    seconds: float
    others: tuple[str, ...] = ()
    """Its other streams, such as “audio: aac”."""
    chapters: int = 0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a video is found to be worth, as it lies on the disk, the way a viewer sees it."""

    num_frames: int
    """Pictures that were measured."""
    against_original: bool
    """Whether it was held against the original; else against the small clip alone."""
    figures: dict[str, dict[str, Score]] = field(default_factory=dict)
    """By whose pictures they are (`MADE`, `BICUBIC`) and the figure's name."""
    lacking: dict[str, str] = field(default_factory=dict)
    """Why a figure could not be measured, by its name."""
    error: ErrorRecord | None = None
    """Why nothing could."""


MADE, BICUBIC = "made", "bicubic"


@dataclass(frozen=True, kw_only=True)
class Enlargement:
    """A clip and what becomes of it."""

    id: str
    created: str
    """ISO 8601, UTC."""
    state: EnlargementState
    owner: str
    request: RecordedSuperResolution
    source: SourceRecord
    original: FileReference | None = None
    """A larger clip that the small one came from, to hold the result against."""
    num_frames: int | None = None
    """Pictures in the clip, counted; None until its end was reached."""
    partial: bool = False
    """Whether the video ends before the clip does."""
    seconds: float = 0.0
    """Spent on it."""
    frames_per_second: float = 0.0
    """At which its pictures were made, read and written, loading apart; 0 where it is not known."""
    notices: tuple[str, ...] = ()
    outputs: dict[str, int] = field(default_factory=dict)
    """The files that are there, and how many pictures each shows."""
    measurements: dict[str, Measurement] = field(default_factory=dict)
    """By the file that was measured."""
    error: ErrorRecord | None = None
    environment: dict[str, str] = field(default_factory=dict)


class EnlargementStore(FolderStore[Enlargement]):
    """All enlargements in a runs folder."""

    kind = Enlargement
    noun = "enlargement"
    record_name = "enlargement.json"
    lock_name = "making.lock"
    fault = EnlargementError
    listed_by = "python -m studio enlargements"

    def __init__(self, runs_folder: Path) -> None:
        super().__init__(runs_folder / FOLDER)

    def begin(
        self,
        request: SuperResolutionRequest,
        *,
        source: SourceRecord,
        owner: str,
        environment: dict[str, str],
        original: FileReference | None = None,
    ) -> Enlargement:
        """Write a new one down; nothing is made yet.

        Raises:
            DiskFull: no room.
        """
        enlargement_id, created = new_id()
        enlargement = Enlargement(
            id=enlargement_id,
            created=created,
            state="waiting",
            owner=owner,
            request=request,
            source=source,
            original=original,
            environment=environment,
        )
        self.add(enlargement)
        return enlargement

    def seen_by(self, owner: str | None, enlargement_id: object) -> Enlargement:
        """The one of that id, where this owner may see it; None may see all.

        Raises:
            EnlargementError: there is none, it is somebody else's, or its record cannot be read.
        """
        enlargement = self.get(enlargement_id)
        if owner is not None and enlargement.owner != owner:
            raise self._no_such(enlargement_id)
        return enlargement

    def list(self, *, owner: str | None = None) -> list[Enlargement]:
        """All that can be read and seen, newest first."""
        return [each for each in self.every() if owner in (None, each.owner)]

    def state_of(self, enlargement: Enlargement) -> EnlargementState:
        """What is so by now: one whose maker died was stopped."""
        if enlargement.state != "running" or self.is_held(enlargement.id):
            return enlargement.state
        return "stopped"

    def delete(self, enlargement_id: str, *, owner: str | None = None) -> None:
        """Remove one for good.

        Raises:
            EnlargementError: there is none, it is somebody else's, or it is being made.
        """
        self.seen_by(owner, enlargement_id)
        lock = self.lock(enlargement_id)
        if not lock.try_acquire():
            raise EnlargementError(
                f"Enlargement {enlargement_id} is being made.",
                field=self.noun,
                value=enlargement_id,
                way_out="Stop it first.",
            )
        try:
            shutil.rmtree(self.path(enlargement_id))
        finally:
            lock.release()
