"""The queue as a visitor sees it, its buttons, and the masthead, which says what the worker does.

Knows the queue and whose a job is. Refuses to know what a job does, and to let a visitor of a shared page pause it.
"""

from __future__ import annotations

import gradio as gr

from studio.compare import Comparisons
from studio.jobs import Job, Ready
from studio.requests.work import WalkComparison
from studio.ui.components.static_html import queue_list
from studio.ui.components.values import Masthead, QueueList
from studio.ui.listeners import Part, Sent, Updates, text_of
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor
from studio.ui.wording import WATCHED, job_row, machine_line, worker_words

ENDED_JOBS_LISTED = 4
"""Jobs that have ended and are still listed under the queue."""


class QueuePanel:
    """The list; the masthead is the page's."""

    def __init__(self, context: PageContext, masthead: gr.HTML) -> None:
        self._context = context
        self.masthead = masthead

    def build(self) -> None:
        self.list = queue_list(elem_id="queue")
        self.chose = gr.State(False)

    @property
    def outputs(self) -> list[Part]:
        return [self.list, self.masthead]

    def look(self, browser: Sent, shown: Sent) -> Updates:
        """The queue and the worker as they are now."""
        return self.shows(Visitor(self._context, browser), text_of(shown))

    def shows(self, visitor: Visitor, shown: str) -> Updates:
        """Both, with the job marked that is in the live area."""
        return {self.list: self._listed(visitor, shown), self.masthead: self._headed()}

    def _listed(self, visitor: Visitor, shown: str) -> QueueList:
        jobs = visitor.jobs(ended=ENDED_JOBS_LISTED)
        return {
            "paused": self._context.queue.paused,
            "may_pause": not self._context.hosted,
            "jobs": [job_row(job, self._context.store, shown=shown, may_move=True) for job in jobs],
        }

    def _headed(self) -> Masthead:
        worker = self._context.queue.worker_state()
        paused = self._context.queue.paused
        return {
            "machine": machine_line(self._context.machine),
            "worker": worker_words(worker, paused=paused),
            "worker_state": "paused" if paused and isinstance(worker, Ready) else worker.state,
        }

    def act(self, visitor: Visitor, sent: dict[str, Sent]) -> Job | None:
        """Do what a button sent; unknown words do nothing, jobs are looked up.

        Returns:
            The job to show from now on; None where none was chosen.

        Raises:
            StudioError: it cannot be done.
        """
        queue, owner, job_id = self._context.queue, visitor.owner, text_of(sent.get("job"))
        match sent.get("action"):
            case "pause" if not self._context.hosted:
                queue.pause()
            case "resume" if not self._context.hosted:
                queue.resume()
            case "show":
                return queue.get(job_id, owner=owner)
            case "cancel":
                job = queue.cancel(job_id, owner=owner)
                if isinstance(job.work, WalkComparison) and job.final:  # it had not begun: nobody else will say so
                    Comparisons(self._context.store).stop(job.work.comparison_id)
            case "up":
                queue.move(job_id, self._place_among_theirs(owner, job_id) - 1, owner=owner)
            case "retry":
                again = queue.retry(job_id, owner=owner)
                return again if again.kind in WATCHED else None
        return None

    def _place_among_theirs(self, owner: str, job_id: str) -> int:
        waiting = [job.id for job in self._context.queue.jobs(owner=owner, states=("queued",))]
        return max(1, waiting.index(job_id)) if job_id in waiting else 1
