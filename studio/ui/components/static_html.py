"""The one way the page draws what Gradio has no component for.

Gradio evaluates a `gr.HTML` template as a JavaScript template literal, and its escaping leaves `${…}` alone: a prompt
interpolated there runs as code. So a component here has a template without placeholders, lying beside it as
`<name>.html`, and a script `<name>.js` that reads the value (plain data) and writes it with `textContent`; what scripts
share stands in front of them.

Knows how these files become a component. Refuses templates that interpolate, and to subclass `gr.HTML`: Gradio writes
a stub file beside every component class that it sees, in the middle of an import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent
SCRIPTS = {
    "pareto_plot": ("plot", "pareto_plot"),
    "training_plot": ("plot", "training_plot"),
    "synced_player": ("player_frames", "player_view", "player_scores", "player_keys"),
}
"""Whose script is more than one file; `dom` stands before every one."""


def static_html(name: str, value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    """A component whose value is JSON-able data, drawn by `<name>.js` into `<name>.html`.

    Raises:
        ValueError: the template interpolates.
    """
    template = (FOLDER / f"{name}.html").read_text(encoding="utf-8")
    if "{{" in template or "${" in template:
        raise ValueError(f"{name}.html interpolates; write the value with textContent in {name}.js instead")
    return gr.HTML(
        value=value or {},
        elem_id=elem_id,
        html_template=template,
        js_on_load=script_of(name),
        apply_default_css=False,
    )


def script_of(name: str) -> str:
    """A component's whole script."""
    parts = ("dom", *SCRIPTS.get(name, (name,)))
    return "\n".join((FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in parts)
