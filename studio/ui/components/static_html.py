"""The one way the page draws what Gradio has no component for.

Gradio evaluates a `gr.HTML` template as a JavaScript template literal, and its escaping leaves `${…}` alone: a prompt
interpolated there runs as code. So a component here has a template without placeholders, lying beside it as
`<name>.html`, and a script `<name>.js` that reads the value (plain data) and writes it with `textContent`; what scripts
share stands in front of them.

Knows how these files become a component. Refuses templates that interpolate, and to subclass `gr.HTML`: Gradio writes
a stub file beside every component class that it sees, in the middle of an import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import gradio as gr

from studio.ui.components import values

FOLDER = Path(__file__).parent
SCRIPTS = {
    "pareto_plot": ("plot", "pareto_plot"),
    "training_plot": ("plot", "training_plot"),
    "synced_player": ("player_frames", "player_view", "player_scores", "player_keys"),
}
"""Whose script is more than one file; `dom` stands before every one."""


Value = TypeVar("Value", bound=Mapping[str, object])


@dataclass(frozen=True)
class StaticHtml(Generic[Value]):
    """A component whose value `<name>.js` draws into `<name>.html`; called, it puts itself on the page."""

    name: str

    def __call__(self, value: Value | None = None, *, elem_id: str) -> gr.HTML:
        """Raises ValueError where the template interpolates."""
        template = (FOLDER / f"{self.name}.html").read_text(encoding="utf-8")
        if "{{" in template or "${" in template:
            raise ValueError(f"{self.name}.html interpolates; let {self.name}.js write the value with textContent")
        return gr.HTML(
            value=value or {},
            elem_id=elem_id,
            html_template=template,
            js_on_load=script_of(self.name),
            apply_default_css=False,
        )


def script_of(name: str) -> str:
    """A component's whole script."""
    parts = ("dom", *SCRIPTS.get(name, (name,)))
    return "\n".join((FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in parts)


clip_list = StaticHtml[values.ClipList]("clip_list")
comparison_table = StaticHtml[values.ComparisonTable]("comparison_table")
facts = StaticHtml[values.Facts]("facts")
figure_table = StaticHtml[values.FigureTable]("figure_table")
live_status = StaticHtml[values.LiveStatus]("live_status")
masthead = StaticHtml[values.Masthead]("masthead")
pareto_plot = StaticHtml[values.ParetoPlot]("pareto_plot")
prompt_ideas = StaticHtml[values.PromptIdeas]("prompt_ideas")
queue_list = StaticHtml[values.QueueList]("queue_list")
run_grid = StaticHtml[values.RunGrid]("run_grid")
step_timeline = StaticHtml[values.StepTimeline]("step_timeline")
training_plot = StaticHtml[values.TrainingPlot]("training_plot")
version_list = StaticHtml[values.VersionList]("version_list")
