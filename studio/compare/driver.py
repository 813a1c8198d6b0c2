"""Walking comparisons through the job queue, behind the page, which must not know torch.

Knows the queue and the records. Refuses to make a clip: a job does.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace

from studio.compare.cells import Cell, Comparison
from studio.compare.record import Comparisons
from studio.compare.scoring import SCORED_HERE, completed, failed, scored_with_torch
from studio.compare.stored import run_of, stored_for
from studio.errors import JobError, RunError, StudioError, from_json
from studio.jobs import JobQueue
from studio.machine.environment import environment as here
from studio.records.runs import Run
from studio.storage import FileLock

LOOK_SECONDS = 0.2
"""How often the driver looks after its comparisons."""

log = logging.getLogger(__name__)


class Driver:
    """Walks the page's comparisons through the job queue, each one cell at a time, in a thread of this process.

    What is written down is enough to go on after a restart: a job that the restart interrupted is asked for again.
    """

    def __init__(
        self,
        book: Comparisons,
        queue: JobQueue,
        *,
        environment: dict[str, str] | None = None,
        with_torch: bool = True,
    ) -> None:
        """A driver, not yet at work.

        Args:
            book: Where comparisons are written.
            queue: What makes the clips.
            environment: See `find_stored`; None takes what is so here without torch.
            with_torch: Whether the scores that need torch are measured too, at the end, in a process of their own.
        """
        self.book = book
        self.queue = queue
        self.store = queue.store
        self.environment = here() if environment is None else environment
        self.with_torch = with_torch
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._locks: dict[str, FileLock] = {}
        self._seen: tuple[int, bool] = (-1, True)

    def __enter__(self) -> Driver:
        self._closing.clear()
        self._thread = threading.Thread(target=self._work, name="comparisons", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    def _work(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            try:
                self.look()
            except StudioError as error:  # a full disk: tried again at the next look
                log.warning("comparisons wait: %s", error)
            except Exception:
                log.exception("comparisons wait")
                self._closing.wait(5)

    def look(self) -> bool:
        """Bring every unfinished comparison one move on; False where there is nothing to look after."""
        changed = self.book.folder.stat().st_mtime_ns
        if self._seen == (changed, False):  # nothing unfinished, and nothing written since
            return False
        unfinished = self.book.unfinished()
        for comparison in unfinished:
            if self._holds(comparison.id):
                # Read again under the lock: another process may have brought it on meanwhile.
                self._advance(self.book.get(comparison.id))
        self._seen = (changed, bool(unfinished))
        return bool(unfinished)

    def _holds(self, comparison_id: str) -> bool:
        lock = self._locks.setdefault(comparison_id, self.book.lock(comparison_id))
        return lock.held or lock.try_acquire()

    def _let_go(self, comparison_id: str) -> None:
        lock = self._locks.pop(comparison_id, None)
        if lock is not None:
            lock.release()

    def _advance(self, comparison: Comparison) -> None:
        under_way = next((cell for cell in comparison.cells if cell.state == "running"), None)
        if self.book.take_stop(comparison.id):
            if under_way is not None:
                with suppress(JobError):
                    self.queue.cancel(under_way.job_id or "")
                comparison = comparison.with_cell(replace(under_way, state="waiting", job_id=None))
            self.book.write(replace(comparison, state="stopped"))
            self._let_go(comparison.id)
        elif under_way is not None:
            ended = self._looked_at(comparison, under_way)
            if ended is not None:
                self.book.write(comparison.with_cell(ended))
        elif (cell := comparison.next_cell) is not None:
            begun = self._begun(comparison, cell)
            if begun is not None:
                self.book.write(comparison.with_cell(begun))
        else:
            if self.with_torch:
                comparison = scored_with_torch(comparison, self.book, self._closing)
            if not self._closing.is_set():
                self.book.write(replace(comparison, state="complete"))
                self._let_go(comparison.id)

    def _begun(self, comparison: Comparison, cell: Cell) -> Cell | None:
        """The cell with a stored run, or with a job; None where the queue takes no more from this owner yet."""
        try:
            run = stored_for(comparison, cell, self.store, self.environment)
            if run is not None:
                return self._completed(comparison, cell, run, reused=True)
            job = self.queue.submit(cell.request, owner=comparison.owner)
            return replace(cell, state="running", job_id=job.id, run_id=None)
        except JobError:
            return None
        except StudioError as error:
            return failed(cell, error)

    def _looked_at(self, comparison: Comparison, cell: Cell) -> Cell | None:
        """The cell when its job has ended; None while it goes on."""
        try:
            job = self.queue.get(cell.job_id or "")
        except JobError:  # the queue was begun anew
            return replace(cell, state="waiting", job_id=None)
        match job.state:
            case "complete":
                try:
                    run = self.store.get(job.run_id or "")
                except RunError as error:
                    return failed(cell, error)
                return self._completed(comparison, cell, run, reused=False)
            case "interrupted":
                return replace(cell, state="waiting", job_id=None)
            case "failed":
                return failed(cell, from_json(job.error or {}))
            case "cancelled":
                return failed(cell, JobError("The job was cancelled by hand.", way_out="Run the failed cells again."))
            case _:
                return None

    def _completed(self, comparison: Comparison, cell: Cell, run: Run, *, reused: bool) -> Cell:
        reference = None if cell.is_reference else run_of(comparison.cells[cell.reference], self.store)
        return completed(cell, run, reference, reused=reused, names=SCORED_HERE)
