"""How long what the form asks for will take, or what is wrong with it, before the click.

Knows the form and what was measured on this machine. Refuses to measure anything itself.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.events import Dependency

from studio.errors import StudioError
from studio.machine.pace import predict
from studio.ui.components import message
from studio.ui.components.values import Message
from studio.ui.forms.generation import Form, label_of
from studio.ui.listeners import LIGHT, Updates, Values
from studio.ui.wording import seconds_text

UNTIMED = ("prompt", "negative_prompt", "seed")
"""Fields that make no difference to the seconds."""


class EstimatePanel:
    """The line over the button."""

    def __init__(self, form: Form, folder: Path) -> None:
        """Args: folder: where what was measured is kept."""
        self._form = form
        self._folder = folder

    def build(self) -> None:
        self.line = message.message(elem_id="estimate")
        self.until_measured = gr.Timer(5)

    def wire(self) -> None:
        timed = [control for name, control in self._form.controls.items() if name not in UNTIMED]
        gr.on(
            [control.change for control in timed],
            self.of,
            self._form.inputs,
            [self.line],
            trigger_mode="always_last",
            **LIGHT,
        )
        self.until_measured.tick(self.again, {*self._form.inputs}, [self.line, self.until_measured], **LIGHT)

    def after(self, event: Dependency) -> None:
        """Say it anew once something else has happened, which may have taught something."""
        event.then(self.of, self._form.inputs, [self.line], **LIGHT)

    def of(self, values: Values) -> Message:
        try:
            request, _ = self._form.request_of(values, prompt="a prompt")
        except StudioError as error:
            return message.of_error(error, label=label_of(error))
        known = predict(request, self._folder)
        if known is not None:
            span = f"{seconds_text(known.low)} to {seconds_text(known.high)}"
            cached = "" if request.cache is None else " without a cache"
            return message.quiet(f"About {seconds_text(known.seconds)}{cached} ({span}), going by {known.basis}.")
        return message.quiet("Not measured yet on this machine: the first run will tell.")

    def again(self, values: Values) -> Updates:
        """The same while nothing is measured yet: the worker may be measuring behind the page. Then no more."""
        try:
            request, _ = self._form.request_of(values, prompt="a prompt")
        except StudioError:
            return gr.skip()
        if predict(request, self._folder) is None:
            return gr.skip()
        return {self.line: self.of(values), self.until_measured: gr.Timer(active=False)}
