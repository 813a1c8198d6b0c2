"""Everything on the Generate tab that is about the chosen preset and no setting of a clip.

Its prompts worth trying, whether it runs here, its weights, its card, and what the caches know of it. Knows presets and
the machine. Refuses to know what the form says besides.
"""

from __future__ import annotations

import gradio as gr

from studio.errors import StudioError
from studio.preset import Preset, find_preset
from studio.ui.components import message
from studio.ui.components.static_html import facts, prompt_ideas
from studio.ui.components.values import PromptIdeas
from studio.ui.forms.generation import Form
from studio.ui.listeners import LIGHT, Part, Sent, Updates, sent_by
from studio.ui.panels.preset_card import card, verdict_line
from studio.ui.panels.profile import MeasurePanel
from studio.ui.panels.weights import WeightsPanel
from studio.ui.server.page_context import PageContext


class PresetPanel:
    """The parts, each placed where the tab wants it."""

    def __init__(self, context: PageContext, first: Preset | None) -> None:
        """Args: first: what is shown on a new page."""
        self._machine = context.machine
        self._first = first
        self.weights = WeightsPanel(hosted=context.hosted)
        self.measuring = MeasurePanel(context)

    def place_ideas(self) -> None:
        first = self._first
        self.ideas = prompt_ideas({"prompts": list(first.defaults.prompts) if first else []}, elem_id="ideas")

    def place_card(self) -> None:
        first = self._first
        with gr.Column(elem_classes="tight"):
            self.verdict = message.message(verdict_line(first, self._machine) if first else None, elem_id="verdict")
            self.weights.build(first)
        with gr.Accordion("About this preset", open=False, elem_id="about-preset"):
            self.card = facts(card(first, self._machine) if first else None, elem_id="preset-card")

    def place_measuring(self) -> None:
        self.measuring.build(self._first)

    @property
    def outputs(self) -> list[Part]:
        return [self.card, self.verdict, self.ideas, *self.weights.outputs, *self.measuring.outputs]

    def wire(self, form: Form, timer: gr.Timer) -> None:
        """Args: form: whose preset it is about. timer: ticks when there may be news."""
        self.ideas.idea(self.take_idea, [form.preset], [form.prompt], **LIGHT)
        self.weights.wire(form.preset, timer)
        steps, flow_shift = form.controls["num_inference_steps"], form.controls["flow_shift"]
        self.measuring.wire(form.preset, steps, flow_shift, timer)

    def shows(self, preset: Preset) -> Updates:
        return (
            {
                self.card: card(preset, self._machine),
                self.verdict: verdict_line(preset, self._machine),
                self.ideas: PromptIdeas(prompts=list(preset.defaults.prompts)),
            }
            | self.weights.shows(preset.name)
            | self.measuring.shows(preset.name)
        )

    def take_idea(self, name: Sent, event: gr.EventData) -> object:
        """The prompt at the position that was clicked; a position that is not there changes nothing."""
        try:
            prompts = find_preset(str(name)).defaults.prompts
        except StudioError:
            return gr.skip()
        index = sent_by(event).get("index")
        return prompts[index] if isinstance(index, int) and 0 <= index < len(prompts) else gr.skip()
