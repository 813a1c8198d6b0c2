"""Runs as small pictures with their prompt. A click sends the event `choose` with {run}.

Value:
    total: int               how many there are
    chosen: str              id of the one shown beside the grid
    runs: list of {id, prompt, line, state, partial, poster (a data: address, or empty)}

Knows how they are drawn; refuses to know where they are kept.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def run_grid(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("run_grid", value, elem_id=elem_id)
