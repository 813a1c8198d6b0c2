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

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studio.clips.control_maps import MapName
from studio.errors import ErrorRecord, MapsError
from studio.records.folders import OwnedStore, new_id
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


class MapSetStore(OwnedStore[MapSet]):
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

    def state_of(self, map_set: MapSet) -> MapSetState:
        """What is so by now: one whose maker died was stopped."""
        return "stopped" if self.is_abandoned(map_set) else map_set.state
