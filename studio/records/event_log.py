"""Event logs: what a stream said, one event a line, in the folder of the thing that is made.

Whoever makes it writes; whoever looks on, in any process, tails the file. Knows lines and events. Refuses to know what
they are about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from studio.events import Event, PreviewFrame, event_from_json, event_to_json

Numbered = tuple[int, Event]
"""An event, and its line's number from 1."""
PREVIEW = "preview.jpg"
"""Beside a run's log: the latest preview. In the log itself pictures would take room, and only the last is of use."""


class EventLog:
    """A log to be written. Raises OSError where the disk is full."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # a crash tore the last line
                self._file.write(b"\n")

    def write(self, event: Event, *, at_once: bool = True) -> None:
        """Add an event; one that is not written `at_once` reaches the disk with a later one."""
        self._file.write(json.dumps(event_to_json(event)).encode() + b"\n")
        if at_once:
            self._file.flush()

    def flush(self) -> None:
        """Onto the disk, so that a power cut takes nothing."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class EventTail:
    """A log to be read from where it was left; a line that is not whole yet waits. A log that is not there is empty."""

    def __init__(self, path: Path, *, after: int = 0) -> None:
        """Read what comes after the line of that number."""
        self.path = path
        self.number = 0
        self._offset = 0
        self._after = after

    def read(self) -> list[Numbered]:
        """What was said since; lines that a crash tore, or another version wrote, are left out."""
        events: list[Numbered] = []
        for number, line in self._new_lines():
            if number <= self._after:
                continue
            try:
                event = event_from_json(json.loads(line))
            except (ValueError, TypeError, AttributeError):
                continue
            if isinstance(event, PreviewFrame):
                events = [each for each in events if not isinstance(each[1], PreviewFrame)]
                event = PreviewFrame(step=event.step, jpeg=self._latest_preview())
            events.append((number, event))
        return events

    def _new_lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                written = file.read()
        except OSError:
            return
        for line in written[: written.rfind(b"\n") + 1].splitlines(keepends=True):
            self.number += 1
            self._offset += len(line)
            yield self.number, line

    def _latest_preview(self) -> bytes:
        try:
            return self.path.with_name(PREVIEW).read_bytes()
        except OSError:
            return b""
