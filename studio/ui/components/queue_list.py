"""The queue: who waits, who is at work, what went wrong. A button sends the event `act` with {action, job}.

Value:
    paused: bool
    may_pause: bool          whether this visitor may pause the queue
    jobs: list of
        id, state, position, prompt, line (the settings in one line), note (what went wrong, or where it stands)
        shown: bool          whether this is the one in the live area
        actions: list[str]   of: show, cancel, up, retry

Knows how they are drawn; refuses to carry anything out.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def queue_list(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("queue_list", value, elem_id=elem_id)
