"""The line at the top: the studio's name, the machine it runs on, and what the worker process is doing.

Value:
    machine: str
    worker: str
    worker_state: "starting" | "ready" | "busy" | "paused" | "dead"
    hosted: bool

Knows how they are drawn; refuses to know how they were found out.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def masthead(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("masthead", value, elem_id=elem_id)
