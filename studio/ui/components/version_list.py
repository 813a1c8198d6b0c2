"""Versions as a table, one of them chosen: what each learnt, and what it scores beside the model it came from.

Value:
    versions: list of
        id, title, line (preset, date), state, steps, base, own, gain: str
        worse: bool          than the model it came from
        promoted: bool       whether new requests start from it
    chosen: str
    empty: str               said where there are none

A click sends the event `choose` with {version}. Knows how they are drawn; refuses to know what a figure means.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def version_list(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("version_list", value, elem_id=elem_id)
