"""Making: a thing that was written down is made, and its record says how far that went.

Knows records and the wish to stop. Refuses to know what is made.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import studio
from studio.errors import StudioError
from studio.events import Stop
from studio.records.folders import OwnedStore
from studio.records.insertions import Insertion
from studio.records.map_sets import MapSet

R = TypeVar("R", MapSet, Insertion)


class Stopped(Exception):
    """Somebody wants the work to end."""


class Making(Generic[R]):
    """One thing in the making."""

    def __init__(self, thing: R, store: OwnedStore[R], stop: Stop) -> None:
        self.thing = thing
        self.folder = store.path(thing.id)
        self._store, self._stop = store, stop
        self._began = time.perf_counter()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """However the work ends, the record says so."""
        self._record(state="running", error=None)
        try:
            yield
        except Stopped:
            self._record(state="stopped")
        except StudioError as error:
            self._record(state="failed", error=error.to_json())
            raise
        except BaseException:
            self._record(state="stopped")
            raise

    def _record(self, **changes: Any) -> None:
        self.thing = replace(self.thing, seconds=time.perf_counter() - self._began, **changes)
        self._store.write(self.thing)

    def _look(self) -> None:
        if self._stop() is not None:
            raise Stopped


def environment() -> dict[str, str]:
    """What a record says of where its thing was made."""
    import cv2

    return {"dailies": studio.__version__, "python": platform.python_version(), "opencv": cv2.__version__}
