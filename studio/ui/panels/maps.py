"""What a map set looks like: how far it is, what it shows, what to know about it.

Knows records and events of map sets. Refuses to know the buttons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from studio.clips.control_maps import TITLES, MapName
from studio.errors import from_json
from studio.events import Event, FramesMapped, MapsStarted, Notice
from studio.records.map_sets import MapSet, MapSetState
from studio.ui.components import message
from studio.ui.components.synced_player import MOST_CLIPS
from studio.ui.components.values import Fact, Facts, Message
from studio.ui.wording import seconds_text

MOST_SHOWN = MOST_CLIPS - 1
"""Maps in the player, besides the clip."""
FIRST_SHOWN: tuple[MapName, ...] = ("lane_lines", "edges", "depth")
"""Those that are looked at first."""


@dataclass(frozen=True, kw_only=True)
class MapsProgress:
    """What the log has said so far."""

    map_set: str = ""
    read: int = 0
    """Lines."""
    latest: FramesMapped | None = None
    notices: tuple[str, ...] = ()

    def with_events(self, numbered: list[tuple[int, Event]]) -> MapsProgress:
        progress = self
        for number, event in numbered:
            progress = replace(progress, read=number)
            if isinstance(event, FramesMapped):
                progress = replace(progress, latest=event)
            elif isinstance(event, MapsStarted):
                progress = replace(progress, latest=None, notices=())
            elif isinstance(event, Notice):
                progress = replace(progress, notices=(*progress.notices, event.text))
        return progress


def status_of(map_set: MapSet, state: MapSetState, progress: MapsProgress, *, waits: bool) -> Message:
    """The message over the maps."""
    latest = progress.latest
    if waits:
        return message.quiet("It begins when it is its turn in the queue.")
    if state == "running":
        if latest is None:
            return message.quiet("It begins.")
        what = next((TITLES[name] for name in TITLES if name == latest.what), "Writing")
        words = (
            f"{what}: {100 * latest.done / max(1, latest.total):.0f} % of all, {seconds_text(latest.eta_seconds)} left."
        )
        return {**message.quiet(words), "share": latest.done / max(1, latest.total)}
    if state == "failed":
        return message.of_error(from_json(map_set.error or {"message": "It failed."}))
    if state == "waiting":
        return message.warn("Not begun. Press Extract again.")
    if state == "stopped":
        return message.warn("Stopped: there are no maps. Press Extract again.")
    count = f"{len(map_set.maps)} map{'s' * (len(map_set.maps) != 1)}"
    return message.good(f"{count} of {map_set.num_frames} frames, in {seconds_text(map_set.seconds)}.")


def facts_of(map_set: MapSet, notices: tuple[str, ...]) -> Facts:
    """What they are of, and what was found where."""
    rows: list[Fact] = []
    if map_set.state == "complete":
        listed = ", ".join(TITLES[name].lower() for name in map_set.maps)
        rows = [
            Fact(name="size", value=f"{map_set.width}×{map_set.height}, {map_set.num_frames} frames"),
            Fact(name="maps", value=listed, strong=True),
        ]
    return {"title": map_set.title, "note": "", "rows": rows, "notes": list(map_set.notices or notices)}


def shown_first(map_set: MapSet) -> list[MapName]:
    """The maps that are in the player until somebody chooses others."""
    usual: list[MapName] = [name for name in FIRST_SHOWN if name in map_set.maps]
    return (usual or list(map_set.maps))[:MOST_SHOWN]
