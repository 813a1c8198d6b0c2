"""Notebook: what is written of one training. Of several processes the first one writes; the others' calls do nothing.

Knows the version's folder, its record and its log. Refuses to know what is trained.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from studio.errors import VersionError
from studio.events import FinetuneEvent, TrainingSample
from studio.finetune.card import card
from studio.finetune.training import Training
from studio.pipelines.adapters import save_adapters
from studio.preset import Preset
from studio.records.event_log import EventLog
from studio.records.folders import LOG
from studio.records.versions import LORA_2_FILE, LORA_FILE, Version, VersionStore
from studio.storage import write_atomically

STATE, SAMPLES = "state.pt", "samples.safetensors"


class Notebook:
    """The record, the log and the files of a version in training."""

    def __init__(self, version: Version, versions: VersionStore, *, writes: bool) -> None:
        self.version = version
        self.writes = writes
        self.folder = versions.path(version.id)
        self._versions = versions

    @contextmanager
    def open(self) -> Iterator[None]:
        """Raises VersionError where somebody else is training the version."""
        lock = self._versions.lock(self.version.id)
        if self.writes and not lock.try_acquire():
            raise VersionError(f"Version {self.version.id} is being trained.", field="version", value=self.version.id)
        try:
            yield
        finally:
            lock.release()

    def logged(self, events: Generator[FinetuneEvent]) -> Generator[FinetuneEvent]:
        """The events, each written down before it is handed on."""
        if not self.writes:
            yield from events
            return
        with closing(EventLog(self.folder / LOG)) as log, closing(events):
            for event in events:
                log.write(event)
                yield event

    def sampled_first(self) -> set[str]:
        """The prompts of clips that the model made before it learnt anything.

        By the log, for a clip that was being made when the training stopped has left a part of itself.
        """
        events = [event for _, event in self._versions.events(self.version.id)]
        return {event.prompt for event in events if isinstance(event, TrainingSample) and event.step == 0}

    def record(self, **changes: Any) -> None:
        """Change the version's record; every process knows of it."""
        self.version = replace(self.version, **changes)
        if self.writes:
            self._versions.write(self.version)

    def checkpoint(self, training: Training, peak_bytes: int) -> None:
        """What a later process goes on from."""
        if self.writes:
            training.save(self.folder / STATE)
            self.record(step=training.step, seconds=training.seconds, peak_bytes=peak_bytes)

    def keep(self, training: Training) -> None:
        """The averaged update, as it is used."""
        if self.writes:
            with training.averaged():
                save_adapters(training.model, self.version.request, self.folder)

    def finish(self, training: Training, preset: Preset) -> None:
        """The complete version with its card, and nothing of the way there."""
        self.keep(training)
        self.record(state="complete", step=training.step, seconds=training.seconds)
        if not self.writes:
            return
        files = tuple(name for name in (LORA_FILE, LORA_2_FILE) if (self.folder / name).is_file())
        write_atomically(self.folder / "README.md", card(self.version, preset, files).encode())
        for name in (STATE, SAMPLES):
            (self.folder / name).unlink(missing_ok=True)
