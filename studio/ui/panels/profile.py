"""What the caches know of the chosen model, and measuring it: one click, told clip by clip, stopped when wanted.

The worker measures, when it has no clip to make. Knows the queue and where profiles lie. Refuses to measure anything on
a hosted page, whose visitors share one set of profiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from studio.errors import StudioError
from studio.generate import PROFILES
from studio.preset import Preset, find_preset
from studio.records.profile_files import ProfileFile, profile_files
from studio.ui.components import message
from studio.ui.server.page_context import PageContext


class _Now(NamedTuple):
    """All there is to tell of measuring."""

    waits: str | None
    """The preset that was asked for and is not begun."""
    told: dict[str, Any] | None
    """What the worker says of the one that it measures, or measured last."""

    @property
    def running(self) -> bool:
        return self.told is not None and self.told["running"]

    @property
    def under_way(self) -> bool:
        return self.waits is not None or self.running


class MeasurePanel:
    """The line under the cache, its two buttons and the plot of what was measured.

    Keeps nothing of its own: what is so stands in the queue's book, and what a tab was shown last is the tab's.
    """

    def __init__(self, rooms: PageContext) -> None:
        self._rooms = rooms

    def build(self, first: Preset | None) -> None:
        now, files = self._now(), self._files(first)
        with gr.Accordion("What the caches know of this model", open=False, elem_id="measured"):
            self.line = message.message(_line(first, now, files) if first else {}, elem_id="measured-line")
            self.plot = gr.HTML(_plot_of(files), elem_id="measured-plot")
            with gr.Row(elem_classes="actions"):
                self.measure = gr.Button("Measure this model", size="sm", elem_id="measure", visible=self._may())
                self.cancel = gr.Button("Stop measuring", size="sm", visible=False, elem_id="stop-measuring")
            # Nothing at first: the page was drawn when the server started, and much may have been measured since.
            self.seen = gr.State(None)

    @property
    def outputs(self) -> list[Any]:
        return [self.line, self.plot, self.measure, self.cancel, self.seen]

    def wire(self, asked: list[Any], timer: gr.Timer, light: dict[str, Any]) -> None:
        """Args: asked: the form's preset, number of steps and shift."""
        self.measure.click(self.begin, asked, self.outputs, **light)
        self.cancel.click(self.stop, asked[:1], self.outputs, **light)
        timer.tick(self.look, [*asked[:1], self.seen], self.outputs, **light)

    # -- what the buttons do ------------------------------------------------------------------------------------------

    def begin(self, name: Any, steps: Any, flow_shift: Any) -> dict[Any, Any]:
        """Ask for the preset to be measured at the form's number of steps and shift."""
        if not self._may():
            return self.shows(name)
        try:
            preset = find_preset(str(name))
            fields = {"num_inference_steps": steps, "flow_shift": flow_shift or None}
            self._rooms.queue.measure(preset.name, **{field: value for field, value in fields.items() if value})
        except StudioError as error:
            return self.shows(name) | {self.line: message.of_error(error)}
        return self.shows(name)

    def stop(self, name: Any) -> dict[Any, Any]:
        if not self._may():
            return self.shows(name)
        self._rooms.queue.stop_measuring()
        now = self._now()
        stopping = {self.line: message.quiet("Stopping.")} if now.running else {}
        return self._shows(name, now) | stopping

    def look(self, name: Any, seen: Any) -> Any:
        """What a tab has not seen yet; nothing otherwise, so that an answer given stays to be read."""
        now = self._now()
        return dict.fromkeys(self.outputs, gr.skip()) if now == seen else self._shows(name, now)

    def shows(self, name: Any) -> dict[Any, Any]:
        """The line, the plot and the buttons for the preset of that name."""
        return self._shows(name, self._now())

    def _shows(self, name: Any, now: _Now) -> dict[Any, Any]:
        try:
            preset = find_preset(str(name))
        except StudioError:
            return {self.line: {}, self.plot: "", self.measure: gr.update(visible=False), self.seen: now}
        files = self._files(preset)
        return {
            self.line: _line(preset, now, files),
            self.plot: _plot_of(files),
            self.measure: gr.update(visible=self._may() and not now.under_way),
            self.cancel: gr.update(visible=self._may() and now.under_way),
            self.seen: now,
        }

    # -- what is so ---------------------------------------------------------------------------------------------------

    def _may(self) -> bool:
        return not self._rooms.hosted

    def _now(self) -> _Now:
        queue = self._rooms.queue
        # In the worker's order: it takes what was asked for, and then says what it measures.
        return _Now(waits=queue.waits_to_be_measured(), told=queue.worker_state()["measuring"])

    def _files(self, preset: Preset | None) -> list[ProfileFile]:
        return profile_files(preset.name, self._rooms.store.folder / PROFILES) if preset is not None else []


def _line(preset: Preset, now: _Now, files: list[ProfileFile]) -> dict[str, Any]:
    """What is under way comes first, whichever model it is for: its button stands below."""
    told = now.told
    if told is not None and told["running"]:
        what = "Measuring" if told["preset"] == preset.name else f"Measuring {told['preset']}"
        share = told["done"] / told["total"] if told["total"] else 0.0
        words = f"{what}: {told['done']} of {told['total'] or '…'} clips. Clips asked for meanwhile wait."
        return message.quiet(words) | {"share": share}
    if now.waits is not None:
        what = "The measuring" if now.waits == preset.name else f"The measuring of {now.waits}"
        return message.quiet(f"{what} begins when no clip is being made.")
    if told is not None and told["preset"] == preset.name and told["error"]:
        return message.warn(told["error"])
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
