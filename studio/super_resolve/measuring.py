"""Measuring an enlargement: the file that a viewer sees, held against the original and the clip that was given.

Bicubic is measured beside it, from a file that went through the same encoder: what H.264 takes away, it takes from
both. All films pass picture by picture, side by side. Whoever is stopped measures from the beginning another time.

Knows an enlargement's files and its record. Refuses to know what a figure means (`metrics.enlargement`).
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from studio.clips.film import Film, FilmInfo, Picture, PictureWriter, join
from studio.clips.reference import check_unchanged
from studio.errors import EnlargementError, RequestError, StudioError
from studio.events import EnlargementEvent, FramesMeasured, Notice, Stop
from studio.metrics.enlargement import Meter
from studio.records.enlargements import (
    BICUBIC,
    MADE,
    ORIGINAL_OF,
    TWIN_OF,
    Enlargement,
    EnlargementStore,
    Measurement,
)
from studio.records.event_log import EventLog
from studio.records.folders import LOG
from studio.super_resolve.methods import enlarged

SAY_SECONDS = 0.25
"""Between two words on how far it is."""
_SCRATCH = ".measuring-"


class _LeftOff(Exception):
    """Somebody wants the work to end."""


def measure(
    enlargement: Enlargement, store: EnlargementStore, *, name: str, first: int, stop: Stop
) -> Generator[EnlargementEvent, None, bool]:
    """Measure one of an enlargement's files, and write the figures into its record.

    A failure to measure is written there too: it takes nothing from what was made.

    Args:
        enlargement: As its record stands.
        store: Where it lies.
        name: The file, which shows the clip's pictures from number `first` on.
        first: That number.
        stop: Asked after every picture; measuring is left off, save where it is only to give way.

    Returns:
        Whether it came to its end.

    Raises:
        EnlargementError: somebody works on it.
    """
    lock = store.lock(enlargement.id)
    if not lock.try_acquire():
        raise EnlargementError(
            f"Enlargement {enlargement.id} is being made.", field="enlargement", value=enlargement.id
        )
    folder = store.path(enlargement.id)
    try:
        for remains in folder.glob(f"{_SCRATCH}*"):  # of a process that was killed
            shutil.rmtree(remains, ignore_errors=True)
        scratch = Path(mkdtemp(dir=folder, prefix=_SCRATCH))
        try:
            with closing(EventLog(folder / LOG)) as log:
                measuring = _Measuring(enlargement, folder, scratch, name=name, first=first, stop=stop)
                for event in measuring.events():
                    log.write(event)
                    yield event
                store.write(measuring.enlargement)
                return True
        except _LeftOff:
            return False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        lock.release()


class _Measuring:
    """One file that is being measured."""

    def __init__(
        self, enlargement: Enlargement, folder: Path, scratch: Path, *, name: str, first: int, stop: Stop
    ) -> None:
        self.enlargement = enlargement
        self._request, self._original = enlargement.request, enlargement.original
        self._folder, self._scratch = folder, scratch
        self._name, self._first, self._count = name, first, enlargement.outputs[name]
        self._stop = stop

    def events(self) -> Generator[EnlargementEvent]:
        try:
            if self._original is not None:
                check_unchanged(self._original, field="original")
            twin = self._twin()
            measurement = yield from self._measured(twin)
        except StudioError as error:
            yield Notice(text=f"It could not be measured: {error}")
            measurement = Measurement(num_frames=0, against_original=self._original is not None, error=error.to_json())
        measurements = self.enlargement.measurements | {self._name: measurement}
        self.enlargement = replace(self.enlargement, measurements=measurements)

    def _look(self) -> None:
        if self._stop() not in (None, "give way"):  # what was measured so far would be lost
            raise _LeftOff

    # -- bicubic ------------------------------------------------------------------------------------------------------

    def _twin(self) -> Path | None:
        """The bicubic twin. Of a long clip none is kept: one is made to be measured, if there is an original."""
        if TWIN_OF[self._name] in self.enlargement.outputs:
            return self._folder / TWIN_OF[self._name]
        if self._original is None:
            return None
        with Film(self._request.source.path, first=self._first) as film:
            with self._writer(BICUBIC, film.info) as writer:
                for picture in itertools.islice(film, self._count):
                    writer.write(Picture(enlarged(picture.pixels, self._request.scale), picture.pts))
                    self._look()
            return self._joined(BICUBIC, film.info, self._scratch / TWIN_OF[self._name])

    def _writer(self, name: str, info: FilmInfo) -> PictureWriter:
        height, width = self._size(info)
        return PictureWriter(self._scratch / f"{name}.nut", info, height=height, width=width)

    def _joined(self, name: str, info: FilmInfo, path: Path) -> Path:
        join(self._request.source.path, [self._scratch / f"{name}.nut"], path, info, others=False)
        return path

    def _size(self, info: FilmInfo) -> tuple[int, int]:
        return info.clip.height * self._request.scale, info.clip.width * self._request.scale

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _measured(self, twin: Path | None) -> Generator[EnlargementEvent, None, Measurement]:
        """All films side by side. Where there is a twin to look at, the original's pictures are kept for it as well."""
        videos = {MADE: self._folder / self._name} | ({} if twin is None else {BICUBIC: twin})
        shown = self._original is not None and TWIN_OF[self._name] in self.enlargement.outputs
        with ExitStack() as stack:
            source = stack.enter_context(Film(self._request.source.path, first=self._first))
            films = {whose: stack.enter_context(Film(path)) for whose, path in videos.items()}
            original = None
            if self._original is not None:
                original = stack.enter_context(Film(self._original.path, first=self._first))
            height, width = self._size(source.info)
            meter = stack.enter_context(
                Meter(
                    list(films),
                    height=height,
                    width=width,
                    scale=self._request.scale,
                    original=original is not None,
                )
            )
            writer = stack.enter_context(self._writer("original", source.info)) if shown else None
            streams = {whose: iter(film) for whose, film in films.items()}
            originals = None if original is None else iter(original)
            began, said = time.perf_counter(), 0.0
            for given in itertools.islice(source, self._count):
                pictures = {whose: self._next(stream, whose) for whose, stream in streams.items()}
                meant = None if originals is None else self._next(originals, "original")
                meter.add(
                    {whose: picture.pixels for whose, picture in pictures.items()},
                    given=given.pixels,
                    original=None if meant is None else meant.pixels,
                )
                if writer is not None and meant is not None:
                    writer.write(Picture(meant.pixels, given.pts))
                self._look()
                now = time.perf_counter()
                if now - said > SAY_SECONDS:
                    said = now
                    left = (now - began) / meter.count * (self._count - meter.count)
                    yield FramesMeasured(done=meter.count, num_frames=self._count, eta_seconds=left)
            figures = meter.figures()
            lacking = meter.lacking if self._original is not None else {}
        if shown:
            path = self._joined("original", source.info, self._folder / ORIGINAL_OF[self._name])
            self.enlargement = replace(self.enlargement, outputs=self.enlargement.outputs | {path.name: self._count})
        return Measurement(
            num_frames=meter.count,
            against_original=self._original is not None,
            figures=figures,
            lacking=lacking,
        )

    def _next(self, pictures: Iterator[Picture], whose: str) -> Picture:
        """Raises RequestError where a film has fewer pictures than the clip."""
        picture = next(pictures, None)
        if picture is None:
            raise RequestError(
                f"Fewer pictures can be read of the {whose} than of {self._request.source.path.name}.",
                field=whose,
                way_out="Give an original that is whole.",
            )
        return picture
