"""Map sets: the control maps of a clip. One folder each.

    .maps/<id>/
        map_set.json        the record: request, what there is, state
        maps.npz            the maps' exact numbers
        source.mp4          the frames that they are of, where there are any
        edges.mp4 …         each map as a control video
        log.jsonl           what the work said
        making.lock         held by whoever makes it

Knows folders and records. Refuses to know how a map is found.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studio.clips.control_maps import MapName
from studio.errors import ErrorRecord, MapsError
from studio.records.folders import FolderStore, new_id
from studio.requests.maps import MapsRequest, RecordedMaps

MapSetState = Literal["waiting", "running", "stopped", "complete", "failed"]
FOLDER = ".maps"
NUMBERS, SOURCE = "maps.npz", "source.mp4"


def video_of(name: MapName) -> str:
    """The file that shows a map."""
    return f"{name}.mp4"


@dataclass(frozen=True, kw_only=True)
class MapSet:
    """The maps of one clip."""

    id: str
    created: str
    """ISO 8601, UTC."""
    state: MapSetState
    owner: str
    request: RecordedMaps
    title: str
    """What they are of: a file's name, or a world and its seed."""
    height: int = 0
    width: int = 0
    """Of the maps; 0 until they are there."""
    num_frames: int = 0
    fps: float = 0.0
    maps: tuple[MapName, ...] = ()
    """Those that are there."""
    outputs: tuple[str, ...] = ()
    """The files that are there."""
    notices: tuple[str, ...] = ()
    """What was found where, and what was done to the clip, in sentences."""
    seconds: float = 0.0
    """Spent on them."""
    error: ErrorRecord | None = None
    environment: dict[str, str] = field(default_factory=dict)


class MapSetStore(FolderStore[MapSet]):
    """All map sets in a runs folder."""

    kind = MapSet
    noun = "map set"
    record_name = "map_set.json"
    lock_name = "making.lock"
    fault = MapsError
    listed_by = "python -m studio map-sets"

    def __init__(self, runs_folder: Path) -> None:
        super().__init__(runs_folder / FOLDER)

    def begin(self, request: MapsRequest, *, title: str, owner: str, environment: dict[str, str]) -> MapSet:
        """Write a new one down; nothing is made yet.

        Raises:
            DiskFull: no room.
        """
        map_set_id, created = new_id()
        map_set = MapSet(
            id=map_set_id,
            created=created,
            state="waiting",
            owner=owner,
            request=request,
            title=title,
            environment=environment,
        )
        self.add(map_set)
        return map_set

    def seen_by(self, owner: str | None, map_set_id: object) -> MapSet:
        """The one of that id, where this owner may see it; None may see all.

        Raises:
            MapsError: there is none, it is somebody else's, or its record cannot be read.
        """
        map_set = self.get(map_set_id)
        if owner is not None and map_set.owner != owner:
            raise self._no_such(map_set_id)
        return map_set

    def list(self, *, owner: str | None = None) -> list[MapSet]:
        """All that can be read and seen, newest first."""
        return [each for each in self.every() if owner in (None, each.owner)]

    def state_of(self, map_set: MapSet) -> MapSetState:
        """What is so by now: one whose maker died was stopped."""
        if map_set.state != "running" or self.is_held(map_set.id):
            return map_set.state
        return "stopped"

    def delete(self, map_set_id: str, *, owner: str | None = None) -> None:
        """Remove one for good.

        Raises:
            MapsError: there is none, it is somebody else's, or it is being made.
        """
        self.seen_by(owner, map_set_id)
        lock = self.lock(map_set_id)
        if not lock.try_acquire():
            raise MapsError(
                f"Map set {map_set_id} is being made.", field=self.noun, value=map_set_id, way_out="Stop it first."
            )
        try:
            shutil.rmtree(self.path(map_set_id))
        finally:
            lock.release()
