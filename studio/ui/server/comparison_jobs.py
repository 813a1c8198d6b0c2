"""A visitor's comparisons as jobs of the queue: begun, stopped, gone on with, deleted.

Knows records of comparisons, the queue, and how much a stranger may ask for at a time. Refuses to know how a comparison
is walked, and how it is shown.
"""

from __future__ import annotations

from studio.compare import Comparison, Comparisons, Grid, cells_of, method_of
from studio.errors import JobError, RequestError, RunError, StudioError
from studio.jobs import Job
from studio.records.run import Run
from studio.requests.work import WalkComparison
from studio.ui.listeners import Sent
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor

MOST_CELLS_OF_A_VISITOR = 24
"""Where strangers share the machine."""
LISTED = 12
"""Earlier comparisons to choose among."""


class ComparisonJobs:
    """Everything takes the visitor first, and raises StudioError where it is not theirs or cannot be done."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self.book = Comparisons(context.store)

    def get(self, visitor: Visitor, comparison_id: Sent) -> Comparison:
        return self.book.get(comparison_id, owner=visitor.owner)

    def latest(self, visitor: Visitor) -> list[Comparison]:
        """Newest first."""
        return self.book.list(owner=visitor.owner, limit=LISTED)

    def job(self, comparison_id: str) -> Job | None:
        """The job that walks a comparison, or is to."""
        return self._context.queue.job_for(WalkComparison(comparison_id=comparison_id))

    def begin(self, visitor: Visitor, grid: Grid, *, pinned: dict[str, str] | None = None) -> Comparison:
        """A grid is written down, and a job that walks it.

        Args:
            visitor: Whose it is.
            grid: What is compared.
            pinned: Runs that are there already, by method.
        """
        owner = visitor.owner
        self._refuse_too_much(owner, grid)
        comparison = self.book.begin(grid, owner=owner, pinned=pinned)
        try:
            self._context.queue.submit(WalkComparison(comparison_id=comparison.id), owner=owner)
        except StudioError:
            self.book.delete(comparison.id)
            raise
        return comparison

    def begin_twin(self, visitor: Visitor, run: Run) -> Comparison:
        """A finished clip and its uncached twin of the same seed, which is made where it is not here yet."""
        if run.state != "complete":
            raise RunError("There is no clip to compare.", field="run", way_out="Choose a finished one.")
        if run.request.cache is None:
            raise RequestError(
                "This clip was computed in full: there is nothing to hold it against.",
                field="cache",
                way_out="Open the Compare tab, and choose methods to hold against it.",
            )
        for earlier in self.latest(visitor):
            if len(earlier.cells) == 2 and earlier.cells[1].run_id == run.id and earlier.cells[0].state != "failed":
                return earlier
        method = method_of(run.request)
        return self.begin(visitor, Grid(base=run.request, methods=(method,)), pinned={method.text: run.id})

    def stop(self, visitor: Visitor, comparison_id: Sent) -> None:
        comparison = self.get(visitor, comparison_id)
        job = self.job(comparison.id)
        if job is not None:
            self._context.queue.cancel(job.id)
        self.book.stop(comparison.id)  # which only does something where nobody walks it

    def go_on(self, visitor: Visitor, comparison_id: Sent) -> Comparison:
        """A stopped comparison goes on, and its failed cells are tried again."""
        comparison = self.book.go_on(self.get(visitor, comparison_id).id, again=True)
        self._context.queue.submit(WalkComparison(comparison_id=comparison.id), owner=comparison.owner)
        return comparison

    def delete(self, visitor: Visitor, comparison_id: Sent) -> None:
        """The record goes; its clips stay among the runs."""
        comparison = self.get(visitor, comparison_id)
        if self.job(comparison.id) is not None:
            raise JobError("The comparison is under way.", field="comparison", way_out="Stop it first.")
        self.book.delete(comparison.id, owner=visitor.owner)

    def _refuse_too_much(self, owner: str, grid: Grid) -> None:
        if not self._context.hosted:
            return
        if len(cells_of(grid)) > MOST_CELLS_OF_A_VISITOR:
            raise RequestError(
                f"On this shared page a grid has at most {MOST_CELLS_OF_A_VISITOR} clips.",
                field="grid",
                way_out="Leave out prompts, seeds or methods.",
            )
        if any(each.state == "running" for each in self.book.list(owner=owner)):
            raise JobError("Your last comparison is still under way.", way_out="Wait for it, or stop it.")
