"""What the page works with: where runs are kept, the queue, the machine, and whether strangers may come."""

from __future__ import annotations

from dataclasses import dataclass

from studio.jobs import JobQueue
from studio.machine.hardware import Machine
from studio.records.runs import RunStore


@dataclass(frozen=True, kw_only=True)
class PageContext:
    store: RunStore
    queue: JobQueue
    machine: Machine
    hosted: bool
    """Visitors are kept apart, and may neither download weights nor pause the queue."""
