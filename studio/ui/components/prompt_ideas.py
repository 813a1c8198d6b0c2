"""Prompts worth trying, as buttons. A click sends the event `idea` with the position of the prompt, not its text.

Value:
    prompts: list[str]
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def prompt_ideas(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("prompt_ideas", value, elem_id=elem_id)
