"""What making maps is called by: begin, make, export.

Knows where frames and maps come from and where they go. Refuses to know how a map is found or painted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.clips.clip import Clip
from studio.clips.control_maps import TITLES, ControlMaps, only
from studio.clips.film import Film
from studio.clips.limits import ClipLimits
from studio.clips.map_files import is_file_of_maps, read_maps, write_maps
from studio.clips.reference import FileReference, check_unchanged
from studio.clips.write import write_clip
from studio.drive.frames import Stretch, read_stretch
from studio.drive.making import Making, environment
from studio.errors import MapsError, RequestError
from studio.events import FramesMapped, MapsEvent, MapsFinished, MapsStarted, Notice, Stop, never
from studio.records.event_log import EventLog
from studio.records.folders import LOG
from studio.records.map_sets import NUMBERS, SOURCE, MapSet, MapSetStore, video_of
from studio.records.runs import RunStore
from studio.requests.maps import MOST_FRAMES, MapsRequest
from studio.requests.work import MakeMaps
from studio.storage import disk_trouble

SAY_SECONDS = 0.25
"""Between two words on how far it is."""


@dataclass(frozen=True, kw_only=True)
class _Made:
    maps: ControlMaps
    clip: Clip | None
    """What they are of; None where nobody has brought it."""
    notices: tuple[str, ...]


def make_maps(
    request: MapsRequest, *, store: RunStore, owner: str = "local", stop: Stop = never
) -> Generator[MapsEvent]:
    """The maps of a clip, of a world, or from elsewhere, saying everything that happens.

    Yields:
        MapsStarted first and MapsFinished last.

    Raises:
        StudioError: the clip or the maps are refused or have changed, or memory or disk ran out.
    """
    map_set = begin(request, store=store, owner=owner)
    yield from make(MakeMaps(map_set_id=map_set.id), store=store, owner=owner, stop=stop)


def begin(request: MapsRequest, *, store: RunStore, owner: str = "local") -> MapSet:
    """Write a map set down, for `make` to make. Reads no more than a clip's head.

    Raises:
        ClipRefused: the clip is none that is read.
        RequestError: it is gone or has changed, or a box lies outside of it.
        DiskFull: no room.
    """
    title = f"world {request.world}"
    for field in ("source", "given"):
        reference: FileReference | None = getattr(request, field)
        if reference is not None:
            check_unchanged(reference, field=field)
            title = reference.path.name
    if request.source is not None:
        with Film(request.source.path) as film:
            found = film.info.clip
        _check_boxes(request, width=found.width, height=found.height)
        if request.start >= found.seconds:
            raise RequestError(
                f"{title} ends after {found.seconds:.3g} s.",
                field="start",
                value=request.start,
                way_out="Begin earlier.",
            )
    return MapSetStore(store.folder).begin(request, title=title, owner=owner, environment=environment())


def make(work: MakeMaps, *, store: RunStore, owner: str, stop: Stop) -> Generator[MapsEvent]:
    """Make a map set that was written down; one that was stopped begins anew.

    Raises:
        MapsError: there is none, it is complete, or somebody is making it.
        StudioError: as `make_maps`; the record says so too.
    """
    map_sets = MapSetStore(store.folder)
    map_set = map_sets.seen_by(None if owner == "local" else owner, work.map_set_id)
    if map_set.state == "complete":
        raise MapsError(
            f"Map set {map_set.id} is complete.",
            field="map set",
            value=map_set.id,
            way_out="Have the maps made anew, with other settings.",
        )
    lock = map_sets.lock(map_set.id)
    if not lock.try_acquire():
        raise MapsError(f"Map set {map_set.id} is being made.", field="map set", value=map_set.id)
    try:
        with closing(EventLog(map_sets.path(map_set.id) / LOG)) as log:
            making = _Making(map_set, map_sets, stop)
            with making.recorded(), closing(making.events()) as events:
                for event in events:
                    log.write(event)
                    yield event
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True)
class Size:
    """What maps are to be brought to, exactly."""

    height: int
    width: int
    num_frames: int


def export(map_set_id: str, folder: Path, *, store: RunStore, size: Size | None = None) -> tuple[str, ...]:
    """Write a map set into a folder: the numbers, and a control video for each map.

    Args:
        folder: It is made where it is not there.
        size: What they are brought to first; None leaves them as they are.

    Returns:
        What was done to the maps, in sentences.

    Raises:
        MapsError: there is no such map set, or it is not complete.
        DiskFull, StorageError
    """
    map_sets = MapSetStore(store.folder)
    map_set = map_sets.seen_by(None, map_set_id)
    if map_set.state != "complete":
        raise MapsError(f"Map set {map_set_id} is not complete.", field="map set", value=map_set_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if size is None:
            for name in map_set.outputs:
                shutil.copyfile(map_sets.path(map_set_id) / name, folder / name)
            return ()
    except OSError as error:
        raise disk_trouble(error, folder) from error
    from studio.control_maps import fitted, write_control_video

    own = (map_set.height, map_set.width)
    brought = fitted(
        read_maps(map_sets.path(map_set_id) / NUMBERS),
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        size=own,
    )
    write_maps(brought.maps, folder / NUMBERS)
    for name in brought.maps.names:
        write_control_video(brought.maps, name, folder / video_of(name), size=(size.height, size.width))
    return brought.done


class _Making(Making[MapSet]):
    """One map set in the making."""

    def __init__(self, map_set: MapSet, store: MapSetStore, stop: Stop) -> None:
        super().__init__(map_set, store, stop)
        self.request = map_set.request

    def events(self) -> Generator[MapsEvent]:
        request = self.request
        if request.given is not None:
            made = yield from self._taken(request.given)
        elif request.world is not None:
            made = yield from self._of_world(request.world)
        else:
            assert request.source is not None
            made = yield from self._extracted(request.source)
        for notice in made.notices:
            yield Notice(text=notice)
        yield from self._written(made)
        yield MapsFinished(map_set_id=self.thing.id, maps=made.maps.names, seconds=self.thing.seconds)

    # -- where maps come from -----------------------------------------------------------------------------------------

    def _extracted(self, source: FileReference) -> Generator[MapsEvent, None, _Made]:
        from studio.control_maps import DrawnBox, extract

        check_unchanged(source, field="source")
        stretch = read_stretch(source.path, start=self.request.start, num_frames=self.request.num_frames)
        clip = stretch.clip
        yield self._started(clip)
        boxes = [
            DrawnBox(frame=box.frame, box=_scaled(box.as_box(number), stretch))
            for number, box in enumerate(self.request.boxes, 1)
        ]
        late = next((box for box in boxes if box.frame >= clip.num_frames), None)
        if late is not None:
            raise RequestError(
                f"A box is drawn in frame {late.frame}, and {clip.num_frames} frames are measured, from 0 on.",
                field="boxes",
                value=late.frame,
                way_out="Draw it in an earlier frame, or measure more of them.",
            )
        extraction = extract(clip.frames, fps=clip.fps, names=self.request.maps, drawn=boxes)
        began, said = time.perf_counter(), 0.0
        while True:
            try:
                progress = next(extraction)
            except StopIteration as ended:
                found = ended.value
                break
            self._look()
            now = time.perf_counter()
            if now - said > SAY_SECONDS:
                said = now
                left = (now - began) / progress.done * (progress.total - progress.done)
                yield FramesMapped(what=progress.what, done=progress.done, total=progress.total, eta_seconds=left)
        return _Made(maps=found.maps, clip=clip, notices=(*stretch.notices, *found.notices))

    def _of_world(self, seed: int) -> Generator[MapsEvent, None, _Made]:
        from studio.control_maps.layout import layout
        from studio.driving_world import render_with_maps, sample_scene

        request = self.request
        clip, maps = render_with_maps(
            sample_scene(seed),
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            fps=request.fps,
        )
        yield self._started(clip)
        self._look()
        maps = replace(maps, layout=np.stack([layout(frame) for frame in clip.frames]))
        words = f"These maps are exact: they are measured in the world that the clip shows. {clip.caption}"
        return _Made(maps=only(maps, request.maps), clip=clip, notices=(words,))

    def _taken(self, given: FileReference) -> Generator[MapsEvent, None, _Made]:
        from studio.control_maps import read_control_video

        check_unchanged(given, field="given")
        if is_file_of_maps(given.path):
            maps = read_maps(given.path)
            if not maps.names or not maps.num_frames:
                raise MapsError(f"{given.path.name} holds no maps.", field="given", value=given.path.name)
            listed = ", ".join(TITLES[name].lower() for name in maps.names)
            notices: tuple[str, ...] = (f"{given.path.name} holds {listed}.",)
        else:
            taken = read_control_video(given.path, kind=self.request.kind, limits=_LIMITS)
            maps, notices = taken.maps, taken.notices
        height, width = maps.size or _NO_PICTURE
        yield MapsStarted(map_set_id=self.thing.id, num_frames=maps.num_frames, height=height, width=width)
        return _Made(maps=maps, clip=None, notices=notices)

    def _started(self, clip: Clip) -> MapsStarted:
        return MapsStarted(map_set_id=self.thing.id, num_frames=clip.num_frames, height=clip.height, width=clip.width)

    # -- where they go ------------------------------------------------------------------------------------------------

    def _written(self, made: _Made) -> Generator[MapsEvent]:
        from studio.control_maps import write_control_video

        maps, clip = made.maps, made.clip
        size = maps.size or ((clip.height, clip.width) if clip is not None else _NO_PICTURE)
        began = time.perf_counter()
        write_maps(maps, self.folder / NUMBERS)
        outputs = [NUMBERS]
        if clip is not None:
            write_clip(clip, self.folder / SOURCE)
            outputs.append(SOURCE)
        for done, name in enumerate(maps.names, 1):
            self._look()
            write_control_video(maps, name, self.folder / video_of(name), size=size)
            outputs.append(video_of(name))
            left = (time.perf_counter() - began) / done * (len(maps.names) - done)
            yield FramesMapped(what="writing", done=done, total=len(maps.names), eta_seconds=left)
        self._record(
            state="complete",
            height=size[0],
            width=size[1],
            num_frames=maps.num_frames,
            fps=maps.fps or (clip.fps if clip is not None else 0.0),
            maps=maps.names,
            outputs=tuple(outputs),
            notices=made.notices,
        )


_NO_PICTURE = (256, 256)
"""Size at which boxes and motion are painted that came without any picture."""
_LIMITS = ClipLimits(frames=MOST_FRAMES, cut=True)
"""Of a control video: of a longer one the beginning is read, and it says so."""


def _scaled(box: Any, stretch: Stretch) -> Any:
    across, down = stretch.scale
    return replace(box, left=box.left * across, right=box.right * across, top=box.top * down, bottom=box.bottom * down)


def _check_boxes(request: MapsRequest, *, width: int, height: int) -> None:
    for box in request.boxes:
        if box.left >= width or box.top >= height:
            raise RequestError(
                f"The box {box.left:g},{box.top:g},{box.right:g},{box.bottom:g} lies outside of the clip, which has "
                f"{width}×{height} pixels.",
                field="boxes",
                value=f"{box.left:g},{box.top:g},{box.right:g},{box.bottom:g}",
                way_out="Draw it within.",
            )
