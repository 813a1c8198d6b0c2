"""What is being made, as it is made: the line, the step timeline, then the clip and what can be done with it.

Knows what news of a job looks like. Refuses to know where news comes from, and to carry anything out.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.attachment import News
from studio.ui.components.clip_video import clip_video
from studio.ui.components.static_html import facts, live_status, step_timeline
from studio.ui.listeners import Part, Updates
from studio.ui.panels.run_progress import idle_status, timeline_of
from studio.ui.server.serving import clip_to_serve
from studio.ui.server.visitor import Visitor
from studio.ui.wording import result_facts

IDLE_WORDS = "Nothing is being made."
INVITATION = "Type a prompt, or take one of those under it, and press Generate."


class LivePanel:
    """The live area. Its buttons are connected by the tab, which knows what they do."""

    def __init__(self, *, elem_prefix: str = "", invitation: str = INVITATION) -> None:
        """
        Args:
            elem_prefix: Before the ids of its parts, where the page has another live area.
            invitation: What is said while nothing is being made.
        """
        self._prefix = elem_prefix
        self._idle = idle_status(IDLE_WORDS, invitation)

    def build(self) -> None:
        prefix = self._prefix
        self.video = clip_video(elem_id=f"{prefix}clip", visible=False)
        self.status = live_status(self._idle, elem_id=f"{prefix}live")
        with gr.Row(visible=False, elem_classes="actions", elem_id=f"{prefix}stopping") as self.stopping:
            self.stop = gr.Button("Stop", variant="stop", size="sm", elem_id=f"{prefix}stop")
            self.keep = gr.Button("Stop and keep", size="sm", elem_id=f"{prefix}stop-and-keep")
        self.timeline = step_timeline(elem_id=f"{prefix}timeline")
        with gr.Column(visible=False, elem_id=f"{prefix}result") as self.result:
            with gr.Row(elem_classes="actions"):
                self.again = gr.Button("Once more", size="sm", elem_id=f"{prefix}again")
                self.vary = gr.Button("Vary seed", size="sm", elem_id=f"{prefix}vary")
                self.restore = gr.Button("Restore settings", size="sm", elem_id=f"{prefix}restore")
                self.compare = gr.Button("Compare with full", size="sm", elem_id=f"{prefix}compare-with-full")
                self.download = gr.DownloadButton("Download mp4", size="sm", elem_id=f"{prefix}download")
            self.facts = facts(elem_id=f"{prefix}result-facts")
        self.shown_job = gr.State("")

    @property
    def outputs(self) -> list[Part]:
        seen = [self.status, self.timeline, self.video, self.download, self.stopping, self.result, self.facts]
        return [*seen, self.shown_job]

    def shows(self, visitor: Visitor, news: News) -> Updates:
        """The bars, and what is around them, which changes only when the job's state does."""
        job, progress = news.job, news.progress
        updates: Updates = {
            self.status: progress.status(job, title=news.title, worker=news.worker),
            self.timeline: progress.timeline(),
        }
        if not news.of_state:
            return updates
        run = visitor.run_of(job) if job.final else None
        clip = clip_to_serve(run) if run is not None else None
        if run is not None and not progress.step_milliseconds:
            updates[self.timeline] = timeline_of(run)
        return updates | {
            self.shown_job: job.id,
            self.video: gr.update(value=clip, visible=clip is not None),
            self.download: gr.update(value=clip, visible=clip is not None),
            self.stopping: gr.update(visible=job.state == "running"),
            self.result: gr.update(visible=job.final),
            self.facts: result_facts(run) if run is not None and run.placement is not None else {},
        }

    def idle(self) -> Updates:
        return {
            self.status: self._idle,
            self.timeline: {},
            self.video: gr.update(value=None, visible=False),
            self.stopping: gr.update(visible=False),
            self.result: gr.update(visible=False),
        }
