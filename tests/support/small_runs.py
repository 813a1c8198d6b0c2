"""Runs begun in a moment, of clips of no size, and the ways in which their writers die."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from studio.clips.clip import Clip
from studio.preset import Preset
from studio.records.run_writer import RunWriter
from studio.records.runs import RunStore
from studio.requests.generation import request_for


def noise(seed: int = 0) -> Clip:
    """A clip that does not compress, so that its file has some size."""
    return Clip(frames=np.random.default_rng(seed).integers(0, 256, (4, 64, 64, 3), np.uint8), fps=8)


def begin(store: RunStore, preset: Preset, prompt: str = "a road", **how: Any) -> RunWriter:
    return store.begin(request_for(preset, prompt=prompt, seed=1), preset=preset, environment={"torch": "2"}, **how)


def leave_without_a_word(writer: RunWriter) -> None:
    """What the operating system does for a writer that was killed."""
    writer._lock.release()


def in_a_child(work: Callable[[], None]) -> int:
    """Do something in a forked process, which may die of it; returns its exit status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            work()
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_write_point(number: int) -> None:
    """Exit just before the number-th time from here on that something about a file is changed."""
    left = number

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(42)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.truncate", "sqlite3.connect"):
            count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            count()
            result = function(*arguments, **named)
            count()
            return result

        return wrapped

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    sys.addaudithook(audit)
