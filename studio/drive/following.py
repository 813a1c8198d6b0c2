"""A clip that follows maps: what it is asked for by, besides what its preset proposes.

It is a request like every other, whose control is a file of maps; it is as long as they are, and shown at their speed,
so that it can be laid beside the clip that they are of. Knows presets, map sets and files of maps. Refuses to know how
a clip is made (`generate`), and who asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.clips.control_maps import TITLES, ControlMaps, MapName, only
from studio.clips.map_files import read_maps
from studio.clips.read import read_clip
from studio.clips.reference import FileReference, reference_to
from studio.errors import MapsError, PresetError
from studio.preset import Preset, list_presets
from studio.records.map_sets import NUMBERS, SOURCE, MapSet, MapSetStore, video_of
from studio.records.runs import RunStore
from studio.requests.checks import why_not_set
from studio.requests.generation import GenerationRequest

USUAL: tuple[MapName, ...] = ("edges", "lane_lines")
"""What of a clip holds where nobody says."""
CONTINUED = 5
"""Frames of a clip that are kept where it is continued, unless somebody says how many."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Maps, to be followed."""

    control: FileReference
    maps: tuple[MapName, ...]
    num_frames: int
    fps: float
    """0 where nobody has said."""


def drivers(folder: Path | None = None) -> list[Preset]:
    """The models that are offered for driving, those that ship with the studio first.

    Args:
        folder: Another catalogue than the studio's own.
    """
    return [preset for preset in list_presets(folder)[0] if "driving" in preset.tasks]


def check_driver(preset: Preset) -> None:
    """Raises PresetError where a model follows no maps."""
    reason = why_not_set("control", preset)
    if reason is not None:
        known = ", ".join(each.name for each in drivers()) or "none"
        raise PresetError(
            f"{preset.title} {reason}", field="preset", value=preset.name, way_out=f"Those that follow maps: {known}."
        )


def of_map_set(map_set_id: str, *, store: RunStore, owner: str | None = None) -> Followed:
    """A map set, to be followed; None as owner may see all.

    Raises:
        MapsError: there is none, it is somebody else's, or it is not complete.
    """
    map_sets = MapSetStore(store.folder)
    map_set = map_sets.seen_by(owner, map_set_id)
    if map_set.state != "complete":
        raise MapsError(
            f"Map set {map_set.id} is not complete.",
            field="map set",
            value=map_set.id,
            way_out="Wait until it is, or have it made anew.",
        )
    control = reference_to(map_sets.path(map_set.id) / NUMBERS, field="control")
    return Followed(control=control, maps=map_set.maps, num_frames=map_set.num_frames, fps=map_set.fps)


def of_file(path: Path) -> Followed:
    """A file of maps, to be followed.

    Raises:
        MapsError: it is none.
        RequestError: it cannot be read.
    """
    maps = read_maps(path)
    control = reference_to(path, field="control")
    return Followed(control=control, maps=maps.names, num_frames=maps.num_frames, fps=maps.fps or 0.0)


def proposed(preset: Preset, followed: Followed) -> dict[str, Any]:
    """Fields of a request that follow from what is followed: as many frames as there are, as far as the model makes
    them, shown at the same speed."""
    longest = min(followed.num_frames, preset.defaults.num_frames)
    fields: dict[str, Any] = {"control": followed.control, "num_frames": preset.frames.nearest(longest)[0]}
    return fields | ({"fps": followed.fps} if 0 < followed.fps <= 120 else {})


def followed_by(request: GenerationRequest, *, store: RunStore, owner: str | None = None) -> MapSet | None:
    """The map set whose maps a request follows, where this owner may see it; None where there is none here."""
    if request.control is None:
        return None
    map_sets, path = MapSetStore(store.folder), request.control.path
    try:
        map_set = map_sets.seen_by(owner, path.parent.name)
    except MapsError:
        return None
    return map_set if (map_sets.path(map_set.id) / NUMBERS).absolute() == path else None


def write_beside(
    request: GenerationRequest, map_set: MapSet, folder: Path, *, store: RunStore, most: int
) -> list[tuple[str, Path]]:
    """What a clip followed, as films of its own size, length and speed, to be laid beside it: the clip that the maps
    are of, where there is one, and the maps that it followed most closely.

    Args:
        folder: They are written there.
        most: How many at most.

    Returns:
        Each film, with what it is called.

    Raises:
        StudioError: a file of the map set cannot be read, or there is no room.
    """
    from studio.control_maps import fitted, write_control_video

    place = MapSetStore(store.folder).path(map_set.id)
    size = {"height": request.height, "width": request.width, "num_frames": request.num_frames}
    films: list[tuple[str, Path]] = []

    def write(maps: ControlMaps, name: MapName, title: str, file: str) -> None:
        brought = fitted(maps, **size, size=(map_set.height, map_set.width)).maps
        films.append((title, folder / file))
        write_control_video(replace(brought, fps=request.fps), name, films[-1][1], size=(request.height, request.width))

    if SOURCE in map_set.outputs:
        frames = read_clip(place / SOURCE).clip.frames
        write(ControlMaps(control_video=frames), "control_video", map_set.title, SOURCE)
    maps = read_maps(place / NUMBERS)
    strengths = request.control_strengths or dict.fromkeys(maps.names, 1.0)
    there: list[MapName] = [name for name in maps.names if strengths.get(name, 0) > 0]
    for name in sorted(there, key=lambda name: -strengths[name])[: most - len(films)]:
        write(only(maps, (name,)), name, TITLES[name], video_of(name))
    return films
