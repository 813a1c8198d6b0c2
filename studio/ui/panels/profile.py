"""What the caches know of the chosen model, and measuring it: one click, told clip by clip, stopped when wanted.

A measuring is a job like any other. Knows the queue and where profiles lie. Refuses to measure anything on
a hosted page, whose visitors share one set of profiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import gradio as gr
from gradio.components import Component

from studio.errors import StudioError, from_json
from studio.events import ProfilingStep
from studio.generate import PROFILES
from studio.jobs import JobState
from studio.preset import Preset, find_preset
from studio.records.event_log import EventTail
from studio.records.profiles import ProfileFile, profile_files, profiling_log
from studio.requests.generation import read_as
from studio.requests.work import ProfileModel
from studio.ui.components import message
from studio.ui.components.values import Message
from studio.ui.listeners import LIGHT, Part, Sent, Updates
from studio.ui.server.page_context import PageContext


@dataclass(frozen=True, kw_only=True)
class Profiling:
    """The measuring that waits or is under way, or the one that ended last."""

    job_id: str
    preset: str
    state: JobState
    done: int = 0
    total: int = 0
    error: str = ""

    @property
    def under_way(self) -> bool:
        return self.state in ("queued", "running")


class MeasurePanel:
    """The line under the cache, its two buttons and the plot of what was measured.

    Keeps nothing of its own: what is so stands in the queue, and what a tab was shown last is the tab's.
    """

    def __init__(self, context: PageContext) -> None:
        self._context = context

    def build(self, first: Preset | None) -> None:
        now, files = self._now(), self._files(first)
        with gr.Accordion("What the caches know of this model", open=False, elem_id="measured"):
            self.line = message.message(_line(first, now, files) if first else None, elem_id="measured-line")
            self.plot = gr.HTML(_plot_of(files), elem_id="measured-plot")
            with gr.Row(elem_classes="actions"):
                self.measure = gr.Button("Measure this model", size="sm", elem_id="measure", visible=self._may())
                self.cancel = gr.Button("Stop measuring", size="sm", visible=False, elem_id="stop-measuring")
            # Nothing at first: the page was drawn when the server started, and much may have been measured since.
            self.seen = gr.State(None)

    @property
    def outputs(self) -> list[Part]:
        return [self.line, self.plot, self.measure, self.cancel, self.seen]

    def wire(self, preset: Component, steps: Component, flow_shift: Component, timer: gr.Timer) -> None:
        """Args: preset, steps, flow_shift: the form's controls."""
        self.measure.click(self.begin, [preset, steps, flow_shift], self.outputs, **LIGHT)
        self.cancel.click(self.stop, [preset], self.outputs, **LIGHT)
        timer.tick(self.look, [preset, self.seen], self.outputs, **LIGHT)

    # -- what the buttons do ------------------------------------------------------------------------------------------

    def begin(self, name: Sent, steps: Sent, flow_shift: Sent) -> Updates:
        """Ask for the preset to be measured at the form's number of steps and shift."""
        if not self._may():
            return self.shows(name)
        try:
            at = {"num_inference_steps": steps or None, "flow_shift": flow_shift or None}
            self._context.queue.submit(read_as(ProfileModel, {"preset": find_preset(str(name)).name} | at))
        except StudioError as error:
            return self.shows(name) | {self.line: message.of_error(error)}
        return self.shows(name)

    def stop(self, name: Sent) -> Updates:
        if not self._may():
            return self.shows(name)
        now = self._now()
        if now is not None and now.under_way:
            self._context.queue.cancel(now.job_id)
        stopping = {self.line: message.quiet("Stopping.")} if now is not None and now.state == "running" else {}
        return self._shows(name, self._now()) | stopping

    def look(self, name: Sent, seen: Sent) -> Updates:
        """What a tab has not seen yet; nothing otherwise, so that an answer given stays to be read."""
        now = self._now()
        return dict.fromkeys(self.outputs, gr.skip()) if now == seen else self._shows(name, now)

    def shows(self, name: Sent) -> Updates:
        """The line, the plot and the buttons for the preset of that name."""
        return self._shows(name, self._now())

    def _shows(self, name: Sent, now: Profiling | None) -> Updates:
        try:
            preset = find_preset(str(name))
        except StudioError:
            return {self.line: {}, self.plot: "", self.measure: gr.update(visible=False), self.seen: now}
        files = self._files(preset)
        return {
            self.line: _line(preset, now, files),
            self.plot: _plot_of(files),
            self.measure: gr.update(visible=self._may() and not (now is not None and now.under_way)),
            self.cancel: gr.update(visible=self._may() and now is not None and now.under_way),
            self.seen: now,
        }

    # -- what is so ---------------------------------------------------------------------------------------------------

    def _may(self) -> bool:
        return not self._context.hosted

    def _now(self) -> Profiling | None:
        newest = self._context.queue.jobs(kinds=("profile",), limit=1)
        if not newest or not isinstance(work := newest[0].work, ProfileModel):
            return None
        job = newest[0]
        now = Profiling(
            job_id=job.id,
            preset=work.preset,
            state=job.state,
            error=str(from_json(job.error)) if job.error else "",
        )
        if job.state != "running":
            return now
        log = profiling_log(
            self._context.store.folder / PROFILES, work.preset, work.num_inference_steps, work.flow_shift
        )
        steps = [event for _, event in EventTail(log).read() if isinstance(event, ProfilingStep)]
        return replace(now, done=steps[-1].done, total=steps[-1].total) if steps else now

    def _files(self, preset: Preset | None) -> list[ProfileFile]:
        return profile_files(preset.name, self._context.store.folder / PROFILES) if preset is not None else []


def _line(preset: Preset, now: Profiling | None, files: list[ProfileFile]) -> Message:
    """What is under way comes first, whichever model it is for: its button stands below."""
    if now is not None and now.state == "running":
        what = "Measuring" if now.preset == preset.name else f"Measuring {now.preset}"
        share = now.done / now.total if now.total else 0.0
        words = f"{what}: {now.done} of {now.total or '…'} clips. Clips asked for meanwhile wait."
        return {**message.quiet(words), "share": share}
    if now is not None and now.state == "queued":
        what = "The measuring" if now.preset == preset.name else f"The measuring of {now.preset}"
        return message.quiet(f"{what} begins when it is its turn.")
    if now is not None and now.preset == preset.name and now.state == "cancelled":
        return message.warn("The measuring was stopped; nothing was changed.")
    if now is not None and now.preset == preset.name and now.error:
        return message.warn(now.error)
    if not files:
        return message.warn(
            "Not measured yet: Budget plans with the pocket model's profile, AdaCache with its authors' codebook."
        )
    at = " and ".join(str(steps) for steps in sorted({file.total_steps for file in files}))
    where = "on this machine" if any(not file.shipped for file in files) else "by the studio"
    return message.quiet(f"Measured {where} at {at} steps. Other numbers of steps are read off the nearest.")


def _plot_of(files: list[ProfileFile]) -> str:
    """The first profile's plot, which holds figures and a preset's name only; empty where there is none."""
    for file in files:
        try:
            return file.plot.read_text(encoding="utf-8")
        except OSError:
            continue
    return ""
