"""The live line: what is being done now, for how long, how long it will still take, and the picture so far.

Value:
    state: "idle" | "queued" | "starting" | "running" | "complete" | "failed" | "cancelled" | "interrupted"
    headline: str            one short sentence
    detail: str              what else a person should know
    prompt: str
    stages: list of {name, seconds | None}     those begun, in order; the one under way has None
    elapsed: float | None    seconds since the job was started, when this value was made
    eta: float | None        seconds until the clip is there
    preview: str             a data: address of a JPEG, or empty
    preview_step: int | None
    notices: list[str]

Knows how they are drawn; refuses to know jobs and events.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def live_status(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("live_status", value, elem_id=elem_id)
