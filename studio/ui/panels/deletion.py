"""A button that deletes, and the question that has to be answered first.

Knows two rows of buttons. Refuses to know what is deleted.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.components import message
from studio.ui.listeners import LIGHT, Updates


class DeletionPanel:
    """The button and the question, each placed where the tab wants it; `really` is connected by who deletes."""

    def __init__(self, name: str, question: str) -> None:
        """Args: name: before the parts' ids on the page. question: what is asked."""
        self._name = name
        self._question = question

    def place_button(self, *, visible: bool = True) -> None:
        self.button = gr.Button("Delete", size="sm", visible=visible, elem_id=f"{self._name}-delete")

    def place_question(self) -> None:
        with gr.Row(visible=False, elem_classes="actions", elem_id=f"{self._name}-confirm") as self.question:
            message.message(message.warn(self._question), elem_id=f"{self._name}-question")
            self.really = gr.Button("Delete it", variant="stop", size="sm", elem_id=f"{self._name}-delete-really")
            self.keep = gr.Button("Keep it", size="sm", elem_id=f"{self._name}-keep")

    def wire(self) -> None:
        self.button.click(self.opened, None, [self.question], **LIGHT)
        self.keep.click(self.closed, None, [self.question], **LIGHT)

    def opened(self) -> Updates:
        return {self.question: gr.update(visible=True)}

    def closed(self) -> Updates:
        return {self.question: gr.update(visible=False)}
