"""The work on one enlargement: parts that are missing are made, and put together, as a stream of events.

Knows pictures' numbers and parts. Refuses to know how a picture is enlarged (`methods`).
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from studio.clips.film import Film, FilmInfo, Picture, PictureWriter, join
from studio.clips.reference import check_unchanged
from studio.clips.scene_cuts import RECENT, SceneCuts
from studio.clips.write import thumbnail_jpeg
from studio.errors import EnlargementError, RequestError, StudioError
from studio.events import EnlargementEvent, EnlargementFinished, EnlargementStarted, FramesEnlarged, Notice, Stop
from studio.records.enlargements import ALL_STREAMS, EXCERPT, POSTER, TWIN_OF, VIDEO, Enlargement, EnlargementStore
from studio.records.event_log import EventLog
from studio.records.folders import LOG
from studio.requests.super_resolution import Excerpt, SuperResolutionRequest, check_size
from studio.storage import write_atomically
from studio.super_resolve.methods import Upscaler, enlarged, upscaler_for
from studio.super_resolve.verb import Forecast

T = TypeVar("T")
PART = 24
"""Pictures of a part: at most so many are made again after a crash."""
COMPARED = 120
"""Pictures up to which a whole clip is laid beside its bicubic twin, as excerpts are."""
TRIED = 4
"""Pictures on which a forecast is measured."""
SAY_SECONDS = 0.25
"""Between two words on how far it is."""


class _Stopped(Exception):
    """Somebody wants the work to end."""

    def __init__(self, wish: str) -> None:
        super().__init__(wish)
        self.wish = wish


def walk(
    enlargement: Enlargement, store: EnlargementStore, *, excerpt: Excerpt | None, stop: Stop
) -> Generator[EnlargementEvent]:
    """From what lies there to what was asked for. Closing it ends the work; parts that are done are kept."""
    lock = store.lock(enlargement.id)
    if not lock.try_acquire():
        raise EnlargementError(
            f"Enlargement {enlargement.id} is being made.", field="enlargement", value=enlargement.id
        )
    try:
        with closing(EventLog(store.path(enlargement.id) / LOG)) as log:
            making = _Making(enlargement, store, stop)
            with making.recorded(), closing(making.events(excerpt)) as events:
                for event in events:
                    log.write(event)
                    yield event
    finally:
        lock.release()


class _Making:
    """One enlargement in the making."""

    def __init__(self, enlargement: Enlargement, store: EnlargementStore, stop: Stop) -> None:
        self.enlargement = enlargement
        self.request: SuperResolutionRequest = enlargement.request
        self.folder = store.path(enlargement.id)
        self._store = store
        self._stop = stop
        self._info: FilmInfo | None = None
        self._parts = self.folder / "parts"
        self._plain_parts = self.folder / "bicubic"
        self._began = time.perf_counter()
        self._before = enlargement.seconds

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """However the work ends, the record says so."""
        self._record(state="running")
        try:
            yield
        except StudioError as error:
            self._record(state="failed", error=error.to_json())
            raise
        except BaseException:
            self._record(state="stopped")
            raise

    def _record(self, **changes: Any) -> None:
        spent = self._before + time.perf_counter() - self._began
        self.enlargement = replace(self.enlargement, seconds=spent, **changes)
        self._store.write(self.enlargement)

    def events(self, excerpt: Excerpt | None) -> Generator[EnlargementEvent]:
        check_unchanged(self.request.source, field="source")
        self._parts.mkdir(exist_ok=True)
        self._plain_parts.mkdir(exist_ok=True)
        for remains in self.folder.rglob(".*.part"):  # of a file that a killed process was writing
            remains.unlink(missing_ok=True)
        self._excerpt = excerpt
        missing = self._missing()
        self._from_before = self._pictures_in(self._wanted()) - self._pictures_in(missing)
        yield EnlargementStarted(
            enlargement_id=self.enlargement.id,
            num_frames=self._pictures_in(self._wanted()),
            done=self._from_before,
        )
        for notice in self.enlargement.notices:
            yield Notice(text=notice)
        self._made = 0
        try:
            while missing:  # how many pictures there are is known once the film's end was reached
                for first, last in _stretches(missing):
                    yield from self._make(first, last)
                missing = self._missing()
        except _Stopped as stopped:
            yield from self._stopped(stopped.wish)
            return
        yield from self._finish(self._wanted(), VIDEO if excerpt is None else EXCERPT, partial=excerpt is not None)

    def _wanted(self) -> list[int]:
        """The parts that are asked for."""
        parts = -(-self._num_frames // PART)
        if self._excerpt is None:
            return list(range(parts))
        within = [part for part in _parts_within(self._excerpt, self.enlargement.source.fps) if part < parts]
        if not within:
            raise RequestError(
                f"The excerpt begins after the clip's end, at {self.enlargement.source.seconds:.3g} s.",
                field="start",
                value=self._excerpt.start,
                way_out="Begin earlier.",
            )
        return within

    def _missing(self) -> list[int]:
        def lacks(part: int) -> bool:
            return not self._path(part).is_file() or (self._is_compared and not self._plain_path(part).is_file())

        return [part for part in self._wanted() if lacks(part)]

    @property
    def _is_compared(self) -> bool:
        """Whether a bicubic twin is made as well, to be looked at beside it."""
        return self._excerpt is not None or self.enlargement.source.num_frames <= COMPARED

    @property
    def _num_frames(self) -> int:
        return self.enlargement.num_frames or self.enlargement.source.num_frames

    def _path(self, part: int) -> Path:
        return self._parts / f"{part:06d}.nut"

    def _plain_path(self, part: int) -> Path:
        return self._plain_parts / f"{part:06d}.nut"

    def _pictures_in(self, parts: Iterable[int]) -> int:
        return sum(min(PART, self._num_frames - part * PART) for part in parts)

    def _make(self, first: int, last: int) -> Generator[EnlargementEvent]:
        """Parts from `first` to `last`, from one reading of the film."""
        upscaler = upscaler_for(self.request, self._store.folder.parent, check=self._look)
        if not self._made:
            self._since = time.perf_counter()
        start, end = first * PART, (last + 1) * PART
        # What is seen before the first part settles what a method remembers, and whether a new scene began meanwhile.
        before = upscaler.memory + RECENT + 1 if upscaler.memory else 0
        begin = max(0, start - -(-before // upscaler.at_once) * upscaler.at_once)
        said = 0.0
        with Film(self.request.source.path, first=begin) as film:
            check_size(self.request, height=film.info.clip.height, width=film.info.clip.width)
            self._info = film.info
            frames = iter(film)
            pictures = _enlarged(frames, upscaler)
            for part, stretch in _in_parts(pictures, begin, start, end):
                with self._writers(part, film.info) as (writer, plain):
                    for picture, before in stretch:
                        writer.write(picture)
                        if plain is not None:
                            plain.write(Picture(enlarged(before, self.request.scale), picture.pts))
                        self._made += 1
                        if self._made == 1 == upscaler.at_once:  # which waited for what is loaded
                            self._since = time.perf_counter()
                        self._look()
                        now = time.perf_counter()
                        if now - said > SAY_SECONDS and self._made > 1:
                            said = now
                            yield self._progress()
                yield self._progress()
                if (part + 1) * PART < self._num_frames:
                    self._look(between_parts=True)
            if end >= self._num_frames:
                for _ in frames:
                    self._look()
                yield from self._reached_the_end(film)

    def _look(self, *, between_parts: bool = False) -> None:
        """Whoever is to give way does so between two parts: two that wait for each other would finish none."""
        wish = self._stop()
        if wish is not None and (wish != "give way" or between_parts):
            raise _Stopped(wish)

    def _progress(self) -> FramesEnlarged:
        rate = max(1, self._made - 1) / max(1e-6, time.perf_counter() - self._since)
        done, total = self._from_before + self._made, self._pictures_in(self._wanted())
        return FramesEnlarged(
            done=done, num_frames=total, frames_per_second=rate, eta_seconds=max(0, total - done) / max(1e-6, rate)
        )

    @contextmanager
    def _writers(self, part: int, info: FilmInfo) -> Iterator[tuple[PictureWriter, PictureWriter | None]]:
        """Of the enlarged pictures, and of their bicubic twins where there are any."""
        size = {"height": info.clip.height * self.request.scale, "width": info.clip.width * self.request.scale}
        with ExitStack() as stack:
            # The twin is put in place first: where the part is there, so is its twin.
            writer = stack.enter_context(PictureWriter(self._path(part), info, **size))
            if not self._is_compared:
                yield writer, None
                return
            yield writer, stack.enter_context(PictureWriter(self._plain_path(part), info, **size))

    def _reached_the_end(self, film: Film) -> Generator[EnlargementEvent]:
        sentences = tuple(f"{self.enlargement.source.name}: {notice}." for notice in film.notices)
        news = [sentence for sentence in sentences if sentence not in self.enlargement.notices]
        self._record(num_frames=film.count, notices=(*self.enlargement.notices, *news))
        for sentence in news:
            yield Notice(text=sentence)

    def _stopped(self, wish: str) -> Generator[EnlargementEvent]:
        """Parts that are done stay; a video of those from the beginning on is made where it was asked for."""
        done = list(itertools.takewhile(lambda part: self._path(part).is_file(), self._wanted()))
        if wish != "keep" or not done:
            self._record(state="stopped")
            return
        yield from self._finish(done, VIDEO if self._excerpt is None else EXCERPT, partial=True)

    def _finish(self, parts: list[int], name: str, *, partial: bool) -> Generator[EnlargementEvent]:
        """Put parts together, beside the film's other streams where they are the whole of it."""
        rate = self._progress().frames_per_second if self._made > 1 else self.enlargement.frames_per_second
        info = self._info or _info_of(self.request.source.path)
        paths = [self._path(part) for part in parts]
        settings = {"super_resolution": self.request.model_dump(mode="json"), "enlargement_id": self.enlargement.id}
        source = self.request.source.path
        left_out = join(source, paths, self.folder / name, info, settings=settings, others=not partial)
        count = self._pictures_in(parts)
        outputs = self.enlargement.outputs | {name: count, POSTER: 1}
        if self._is_compared:
            plain = [self._plain_path(part) for part in parts]
            join(source, plain, self.folder / TWIN_OF[name], info, others=False)
            outputs[TWIN_OF[name]] = count
        write_atomically(self.folder / POSTER, thumbnail_jpeg(_first_picture(paths[len(paths) // 2])))
        if left_out:
            join(source, paths, self.folder / ALL_STREAMS, info, settings=settings)
            outputs[ALL_STREAMS] = count
            yield Notice(text=f"{ALL_STREAMS} has every stream; in {VIDEO}, {'; '.join(left_out)}.")
        whole = not partial
        self._record(
            state="complete" if whole else "stopped",
            partial=partial if name == VIDEO else self.enlargement.partial,
            frames_per_second=rate,
            outputs=outputs,
        )
        if whole:
            for parts_folder in (self._parts, self._plain_parts):
                shutil.rmtree(parts_folder, ignore_errors=True)
        yield EnlargementFinished(
            enlargement_id=self.enlargement.id,
            path=name,
            partial=partial,
            seconds=time.perf_counter() - self._began,
        )


def _enlarged(pictures: Iterator[Picture], upscaler: Upscaler) -> Generator[tuple[Picture, np.ndarray]]:
    """Each picture enlarged, and as it was; nothing is carried over from one scene into the next."""
    cuts = SceneCuts()
    while together := list(itertools.islice(pictures, upscaler.at_once)):
        begins = [cuts.begins(picture.pixels) for picture in together]
        for first, last in _scenes(begins):
            if begins[first]:
                upscaler.reset()
            scene = together[first:last]
            larger = upscaler(np.stack([picture.pixels for picture in scene]))
            for picture, pixels in zip(scene, larger, strict=True):
                yield Picture(pixels, picture.pts), picture.pixels


def _scenes(begins: list[bool]) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of pictures in a row of which only the first may begin a scene."""
    firsts = [0, *(place for place, new in enumerate(begins) if new and place)]
    return itertools.pairwise([*firsts, len(begins)])


def _in_parts(pictures: Iterator[T], begin: int, start: int, end: int) -> Generator[tuple[int, Iterator[T]]]:
    """(number of a part, its pictures), of those from `start` to `end`; those before it were only to be looked at."""
    if sum(1 for _ in itertools.islice(pictures, start - begin)) < start - begin:
        return
    for part in range(start // PART, end // PART):
        first = next(pictures, None)
        if first is None:
            return
        yield part, itertools.chain([first], itertools.islice(pictures, PART - 1))


def first_picture_of(excerpt: Excerpt | None, fps: float) -> int:
    """The number of the first picture that is made of an excerpt, or of the whole."""
    return 0 if excerpt is None else _parts_within(excerpt, fps).start * PART


def _parts_within(excerpt: Excerpt, fps: float) -> range:
    """Parts that hold an excerpt's pictures, as far as the rate is even."""
    first = int(excerpt.start * fps)
    last = max(first, int((excerpt.start + excerpt.seconds) * fps) - 1)
    return range(first // PART, last // PART + 1)


def _stretches(parts: list[int]) -> list[tuple[int, int]]:
    """(first, last) of parts that follow one another."""
    stretches: list[tuple[int, int]] = []
    for part in parts:
        if stretches and stretches[-1][1] == part - 1:
            stretches[-1] = (stretches[-1][0], part)
        else:
            stretches.append((part, part))
    return stretches


def _info_of(path: Path) -> FilmInfo:
    with Film(path) as film:
        return film.info


def _first_picture(part: Path) -> np.ndarray:
    import av

    with av.open(str(part)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def measured(request: SuperResolutionRequest, folder: Path) -> Forecast:
    """A forecast, from the first pictures of the clip."""
    with TemporaryDirectory(dir=folder, prefix=".forecast-") as scratch:
        with Film(request.source.path) as film:
            clip = film.info.clip
            check_size(request, height=clip.height, width=clip.width)
            height, width = clip.height * request.scale, clip.width * request.scale
            part = Path(scratch) / "part.nut"
            upscaler = upscaler_for(request, folder)
            tried = min(max(TRIED, upscaler.at_once), clip.num_frames)
            began = time.perf_counter()
            with PictureWriter(part, film.info, height=height, width=width) as writer:
                pictures = _enlarged(iter(film), upscaler)
                writer.write(next(pictures)[0])
                # The first one waits for the decoder, and for what is loaded; but where several are made at once, for
                # all of them as well.
                counted = tried if upscaler.at_once > 1 else max(1, tried - 1)
                began = began if upscaler.at_once > 1 else time.perf_counter()
                for _ in range(tried - 1):
                    writer.write(next(pictures)[0])
            # Until the file is closed the encoder may still have been at work.
            seconds = (time.perf_counter() - began) / counted
        a_picture = part.stat().st_size / tried
    others = sum(other.bytes for other in film.info.others)
    return Forecast(
        num_frames=clip.num_frames,
        height=height,
        width=width,
        seconds=seconds * clip.num_frames,
        output_bytes=round(a_picture * clip.num_frames) + others,
        memory_bytes=_HELD_PICTURES * height * width * 3 + getattr(upscaler, "memory_bytes", 0),
        free_bytes=shutil.disk_usage(folder).free,
    )


_HELD_PICTURES = 60
"""Enlarged pictures' worth of memory, the encoder's look-ahead and its references the most of it."""
