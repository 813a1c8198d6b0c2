"""What the caches know of the chosen model, and measuring it: one click, told clip by clip, stopped when wanted.

The worker measures, when it has no clip to make. Knows the queue and where profiles lie. Refuses to measure anything on
a hosted page, whose visitors share one set of profiles.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.generate import PROFILES
from studio.preset import Preset, find_preset
from studio.profile_files import ProfileFile, profile_files
from studio.ui.components import message
from studio.ui.rooms import Rooms


class MeasurePanel:
    """The line under the cache, its two buttons and the plot of what was measured."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._told: dict[str, Any] | None = None
        """What the worker said last; what it says again is no news."""
        self._asked = False
        """Whether a measuring was asked for that the worker has not begun."""

    def build(self, first: Preset | None) -> None:
        with gr.Accordion("What the caches know of this model", open=False, elem_id="measured"):
            self.line = message.message(self._line(first) if first else {}, elem_id="measured-line")
            self.plot = gr.HTML(_plot_of(self._files(first)), elem_id="measured-plot")
            with gr.Row(elem_classes="actions"):
                self.measure = gr.Button("Measure this model", size="sm", elem_id="measure", visible=self._may())
                self.cancel = gr.Button("Stop measuring", size="sm", visible=False, elem_id="stop-measuring")

    @property
    def outputs(self) -> list[Any]:
        return [self.line, self.plot, self.measure, self.cancel]

    def wire(self, asked: list[Any], timer: gr.Timer, light: dict[str, Any]) -> None:
        """Args: asked: the form's preset, number of steps and shift."""
        self.measure.click(self.begin, asked, self.outputs, **light)
        self.cancel.click(self.stop, asked[:1], self.outputs, **light)
        timer.tick(self.look, asked[:1], self.outputs, **light)

    # -- what the buttons do ------------------------------------------------------------------------------------------

    def begin(self, name: Any, steps: Any, flow_shift: Any) -> dict[Any, Any]:
        """Ask for the preset to be measured at the form's number of steps and shift."""
        if self._rooms.hosted:
            return self.shows(name)
        try:
            preset = find_preset(str(name))
            fields = {"num_inference_steps": steps, "flow_shift": flow_shift or None}
            self._rooms.queue.measure(preset.name, **{field: value for field, value in fields.items() if value})
        except StudioError as error:
            return self.shows(name) | {self.line: message.of_error(error)}
        self._asked = True
        return self.shows(name) | {self.line: message.quiet("The measuring begins when no clip is being made.")}

    def stop(self, name: Any) -> dict[Any, Any]:
        self._rooms.queue.stop_measuring()
        self._asked = False
        return self.shows(name) | {self.line: message.quiet("Stopping." if self._running() else "Not measured.")}

    def look(self, name: Any) -> Any:
        """News of a measuring under way; nothing otherwise, so that an answer given stays to be read."""
        told = self._rooms.queue.worker_state()["measuring"]
        if told == self._told:
            return dict.fromkeys(self.outputs, gr.skip())
        self._told, self._asked = told, False
        return self.shows(name)

    def shows(self, name: Any) -> dict[Any, Any]:
        """The line, the plot and the buttons for the preset of that name."""
        try:
            preset = find_preset(str(name))
        except StudioError:
            return {self.line: {}, self.plot: "", self.measure: gr.update(visible=False)}
        under_way = self._asked or self._running() is not None
        return {
            self.line: self._line(preset),
            self.plot: _plot_of(self._files(preset)),
            self.measure: gr.update(visible=self._may() and not under_way),
            self.cancel: gr.update(visible=under_way),
        }

    # -- what is so ---------------------------------------------------------------------------------------------------

    def _may(self) -> bool:
        return not self._rooms.hosted

    def _running(self) -> dict[str, Any] | None:
        told = self._rooms.queue.worker_state()["measuring"]
        return told if told is not None and told["running"] else None

    def _files(self, preset: Preset | None) -> list[ProfileFile]:
        return profile_files(preset.name, self._rooms.store.folder / PROFILES) if preset is not None else []

    def _line(self, preset: Preset) -> dict[str, Any]:
        told = self._rooms.queue.worker_state()["measuring"]
        if told is not None and told["preset"] == preset.name:
            if told["running"]:
                share = told["done"] / told["total"] if told["total"] else 0.0
                words = f"Measuring: {told['done']} of {told['total'] or '…'} clips. Clips asked for meanwhile wait."
                return message.quiet(words) | {"share": share}
            if told["error"]:
                return message.warn(told["error"])
        files = self._files(preset)
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
