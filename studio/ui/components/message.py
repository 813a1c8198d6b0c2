"""One message in place, beside what it is about.

Value:
    tone: "quiet" | "good" | "warn" | "error"
    words: str
    field: str         name of the setting at fault, as the form labels it; empty where there is none
    link?: str         an address of the web that the words end in
    share?: float      of 1, how much is done: drawn as a bar

The tone is also said by a sign, not by colour alone. Knows how a message is drawn; refuses to know its reasons.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui.components.static_html import static_html


def message(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("message", value, elem_id=elem_id)


def quiet(words: str) -> dict[str, Any]:
    return {"tone": "quiet", "words": words, "field": ""}


def good(words: str) -> dict[str, Any]:
    return {"tone": "good", "words": words, "field": ""}


def warn(words: str) -> dict[str, Any]:
    return {"tone": "warn", "words": words, "field": ""}


def of_error(error: StudioError, *, label: str = "") -> dict[str, Any]:
    """An error in the studio's words, with the label of the field it names."""
    return {"tone": "error", "words": str(error), "field": label}
