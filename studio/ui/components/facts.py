"""A short table of facts: names and values, some of them more important than the others.

Value:
    title: str
    note: str              a sentence under the title
    rows: list of {name, value, strong?: bool}
    notes: list[str]       sentences under the table

Knows how they are drawn; refuses to know what they mean.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def facts(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("facts", value, elem_id=elem_id)
