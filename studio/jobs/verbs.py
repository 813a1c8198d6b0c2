"""What does each kind of work: a verb by its name, imported where it runs.

Each is called `verb(work, *, store, owner, stop)` and returns a stream of events. Failure is an exception; closing the
stream ends the work, and so does `stop` (`studio.events.Stop`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping
from typing import Protocol

from studio.events import Event, Stop
from studio.records.runs import RunStore
from studio.requests.work import Work, WorkKind

VERBS: Mapping[WorkKind, str] = {
    "clip": "studio.generate:generate",
    "training": "studio.finetune:train",
    "profile": "studio.profiling:profile",
    "comparison": "studio.compare:walk",
    "enlargement": "studio.super_resolve:enlarge",
    "enlarger training": "studio.finetune.enlarger:train",
    "maps": "studio.drive:make",
    "insertion": "studio.drive:insert",
}
PRELOAD = "studio.jobs.preload:preload"
"""What loads a preset ahead of time, for the next clip."""


class Verb(Protocol):
    def __call__(self, work: Work, /, *, store: RunStore, owner: str, stop: Stop) -> Generator[Event]: ...


def imported(name: str) -> Callable[..., object]:
    """The function that `module:function` names."""
    module_name, _, function_name = name.partition(":")
    return getattr(importlib.import_module(module_name), function_name)
