"""Putting a vehicle into a clip: begin, insert.

Knows where the vehicle stands in each frame, which part of the picture the harmoniser is to see of it, and what is
written down. Refuses to know how light and shadow come about (`pipelines.harmoniser`). Outside the vehicle's zone the
frames stay the clip's, bit for bit, until the video is encoded.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from studio.clips.clip import Clip
from studio.clips.cut_out import CutOut, read_cut_out
from studio.clips.film import Film
from studio.clips.reference import check_unchanged
from studio.clips.write import write_clip
from studio.drive.frames import read_stretch
from studio.drive.making import Making, environment
from studio.drive.vehicles import Pasted, pasted_at, places, rendered
from studio.errors import InsertionError, RequestError, WeightsMissing
from studio.events import (
    FramesHarmonised,
    InsertionEvent,
    InsertionFinished,
    InsertionStarted,
    Notice,
    Stop,
    never,
)
from studio.preset import PROJECT_FOLDER
from studio.records.event_log import EventLog
from studio.records.folders import LOG
from studio.records.insertions import PASTE, RESULT, SOURCE, Insertion, InsertionStore
from studio.records.runs import RunStore
from studio.requests.insertion import InsertionRequest, PathPoint
from studio.requests.work import InsertVehicle

if TYPE_CHECKING:
    from studio.pipelines.harmoniser import Harmoniser

HARMONISER = PROJECT_FOLDER / "assets" / "pocket" / "harmoniser"
MOST_PIXELS = 320_000_000
"""Frames × height × width that lie in memory, twice: under 2 GB."""
SAY_SECONDS = 0.25
SEEN = 2.0
"""Sides of the square that the harmoniser sees, in those of the vehicle with its zone."""


def insert_vehicle(
    request: InsertionRequest, *, store: RunStore, owner: str = "local", stop: Stop = never
) -> Generator[InsertionEvent]:
    """Put a vehicle into a clip, saying everything that happens.

    Yields:
        InsertionStarted first and InsertionFinished last.

    Raises:
        StudioError: the clip, the vehicle or its path is refused, or memory or disk ran out.
    """
    insertion = begin_insertion(request, store=store, owner=owner)
    yield from insert(InsertVehicle(insertion_id=insertion.id), store=store, owner=owner, stop=stop)


def begin_insertion(request: InsertionRequest, *, store: RunStore, owner: str = "local") -> Insertion:
    """Write an insertion down, for `insert` to make. Reads the clip's head, and the vehicle.

    Raises:
        ClipRefused: the clip is none that is read.
        InsertionError: the vehicle is none that is read.
        RequestError: a file is gone or has changed, or the path does not fit the clip.
        DiskFull: no room.
    """
    check_unchanged(request.source, field="source")
    name = str(request.render)
    if request.vehicle is not None:
        check_unchanged(request.vehicle, field="vehicle")
        read_cut_out(request.vehicle.path, field="vehicle")
        name = request.vehicle.path.name
    with Film(request.source.path) as film:
        info = film.info
    if request.start >= info.clip.seconds:
        raise RequestError(
            f"{request.source.path.name} ends after {info.clip.seconds:.3g} s.",
            field="start",
            value=request.start,
            way_out="Begin earlier.",
        )
    available = max(1, info.clip.num_frames - round(request.start * info.clip.fps))
    num_frames = min(request.num_frames, available)
    width, height = round(info.clip.width * float(info.sample_aspect_ratio)), info.clip.height
    _check_path(request.path, num_frames=num_frames, height=height, width=width)
    most = max(1, MOST_PIXELS // (height * width))
    if num_frames > most:
        raise RequestError(
            f"{num_frames} frames of {width}×{height} are too many to lie in memory.",
            field="num_frames",
            value=num_frames,
            way_out=f"Take at most {most}.",
        )
    title = f"{request.source.path.name}: {name}"
    return InsertionStore(store.folder).begin(request, title=title, owner=owner, environment=environment())


def insert(work: InsertVehicle, *, store: RunStore, owner: str, stop: Stop) -> Generator[InsertionEvent]:
    """Make an insertion that was written down; one that was stopped begins anew.

    Raises:
        InsertionError: there is none, it is complete, or somebody is making it.
        StudioError: as `insert_vehicle`; the record says so too.
    """
    insertions = InsertionStore(store.folder)
    insertion = insertions.seen_by(None if owner == "local" else owner, work.insertion_id)
    if insertion.state == "complete":
        raise InsertionError(
            f"Insertion {insertion.id} is complete.",
            field="insertion",
            value=insertion.id,
            way_out="Put the vehicle in anew, with other settings.",
        )
    lock = insertions.lock(insertion.id)
    if not lock.try_acquire():
        raise insertions.being_made(insertion.id)
    try:
        with closing(EventLog(insertions.path(insertion.id) / LOG)) as log:
            inserting = _Inserting(insertion, insertions, stop)
            with inserting.recorded(), closing(inserting.events()) as events:
                for event in events:
                    log.write(event)
                    yield event
    finally:
        lock.release()


def _check_path(path: tuple[PathPoint, ...], *, num_frames: int, height: int, width: int) -> None:
    """Refuse a path that leaves the clip."""
    for point in path:
        if point.frame >= num_frames:
            raise RequestError(
                f"The path names frame {point.frame}, and {num_frames} frames are taken, from 0 on.",
                field="path",
                value=str(point),
                way_out=f"End it at frame {num_frames - 1}, or take more frames.",
            )
        # Part of a vehicle may be beyond an edge; that it stands somewhere in the picture's height is asked for.
        if point.x + point.width / 2 <= 0 or point.x - point.width / 2 >= width or not 0 < point.y <= 2 * height:
            raise RequestError(
                f"At {point} nothing of the vehicle is in the picture, which has {width}×{height} pixels.",
                field="path",
                value=str(point),
                way_out="Name the middle of its lower edge, in pixels from the top left corner.",
            )
        if point.width > 2 * width:
            raise RequestError(
                f"At {point} the vehicle is more than twice as wide as the picture.",
                field="path",
                value=str(point),
                way_out=f"Take a width of at most {2 * width}.",
            )


class _Inserting(Making[Insertion]):
    """One insertion in the making."""

    def __init__(self, insertion: Insertion, store: InsertionStore, stop: Stop) -> None:
        super().__init__(insertion, store, stop)
        self.request = insertion.request

    def events(self) -> Generator[InsertionEvent]:
        request = self.request
        check_unchanged(request.source, field="source")
        vehicle = self._vehicle()
        stretch = read_stretch(
            request.source.path, start=request.start, num_frames=request.num_frames, largest_side=None
        )
        clip = stretch.clip
        yield InsertionStarted(
            insertion_id=self.thing.id, num_frames=clip.num_frames, height=clip.height, width=clip.width
        )
        for notice in stretch.notices:
            yield Notice(text=notice)
        pasted, made = clip.frames.copy(), clip.frames.copy()
        standing = places(request.path, clip.num_frames)
        self._look()
        inserted = Inserter(_network(), strength=request.strength)
        began, spoken = time.perf_counter(), 0.0
        for number, (place, frame) in enumerate(zip(standing, clip.frames, strict=True)):
            self._look()
            if place is not None:
                pasted[number], made[number] = inserted(frame, vehicle, place)
            now = time.perf_counter()
            if now - spoken > SAY_SECONDS or number + 1 == clip.num_frames:
                spoken, done = now, number + 1
                left = (now - began) / done * (clip.num_frames - done)
                yield FramesHarmonised(done=done, total=clip.num_frames, eta_seconds=left)
        for name, frames in ((SOURCE, clip.frames), (PASTE, pasted), (RESULT, made)):
            self._look()
            write_clip(Clip(frames=frames, fps=clip.fps), self.folder / name)
        self._record(
            state="complete",
            height=clip.height,
            width=clip.width,
            num_frames=clip.num_frames,
            fps=clip.fps,
            outputs=(RESULT, PASTE, SOURCE),
            notices=stretch.notices,
        )
        yield InsertionFinished(insertion_id=self.thing.id, path=RESULT, seconds=self.thing.seconds)

    def _vehicle(self) -> CutOut:
        if self.request.vehicle is not None:
            check_unchanged(self.request.vehicle, field="vehicle")
            return read_cut_out(self.request.vehicle.path, field="vehicle")
        assert self.request.render is not None
        return rendered(self.request.render)


class Inserter:
    """Vehicles into frames that follow one another."""

    def __init__(self, network: Harmoniser, *, strength: float = 1.0) -> None:
        from studio.pipelines.harmoniser import HarmonisedCrops

        self._harmonised = HarmonisedCrops(network, strength=strength)

    def __call__(self, frame: np.ndarray, vehicle: CutOut, place: PathPoint) -> tuple[np.ndarray, np.ndarray]:
        """A frame, uint8 (H, W, 3), with the vehicle pasted, and with it lit and shadowed."""
        from studio.pipelines.harmoniser import SURROUNDINGS, surroundings_of, zone_of

        height, width = frame.shape[:2]
        paste = pasted_at(vehicle, place, height=height, width=width)
        if paste is None:
            return frame, frame
        pasted, made = paste.over(frame), frame.copy()
        part = seen_part(paste, height=height, width=width)
        alpha = np.zeros((height, width), np.float32)
        alpha[paste.rows, paste.columns] = paste.alpha
        around = surroundings_of(frame, SURROUNDINGS)
        made[part] = self._harmonised(frame[part], pasted[part], alpha[part], zone_of(alpha[part]), around)
        return pasted, made


def seen_part(paste: Pasted, *, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns about a paste that the harmoniser sees: a square, at least as large as it looks at, and
    moved into the picture where it would stick out."""
    from studio.pipelines.harmoniser import LOOKS

    extents = [part.stop - part.start for part in (paste.rows, paste.columns)]
    side = max(LOOKS, round(SEEN * max(extents)))
    parts = []
    for part, whole in ((paste.rows, height), (paste.columns, width)):
        start = (part.start + part.stop - side) // 2
        start = max(0, min(start, whole - side))
        parts.append(slice(start, min(whole, start + side)))
    return parts[0], parts[1]


@cache
def _network() -> Harmoniser:
    from studio.pipelines.harmoniser import load_harmoniser

    if not HARMONISER.is_dir():
        raise WeightsMissing(
            f"The harmoniser ships with the studio, and {HARMONISER} is not there.",
            field="weights",
            value=str(HARMONISER),
            way_out="Get the project again with its assets, or train it: python -m studio pocket harmoniser all.",
        )
    return load_harmoniser(HARMONISER)
