"""Clips to learn from: a picture, what is known of each, its caption and whether it is held out.

Value:
    clips: list of
        id, state: "reading" | "ready" | "left out"
        name, line (size and length), note (why it was left out)
        picture: str             a `data:` address, or nothing
        caption: str | None       None until the file was read or something was typed
        held_out: bool

What is typed and ticked is written into the value, so that it goes along with whatever is sent next, and it wins over
what arrives meanwhile; each change sends the event `edit`, a button sends `remove` with {clip}. Knows how they are
drawn; refuses to read a file.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def clip_list(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("clip_list", value, elem_id=elem_id)
