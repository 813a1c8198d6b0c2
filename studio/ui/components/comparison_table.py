"""A comparison as a table that fills: by method, then every clip beside its reference.

Value:
    heads: list[str]         names of the scores, with their units
    summary: list of {shape, title, clips, denoising, whole, computed, scores: list[str]}
    groups: list of
        title, line          the prompt, and what else its cells share
        rows: list of
            cell: int, shape: int (the method's mark), title, state, reference: bool
            denoising, whole, faster, computed: str; scores: list[str]
            parts: str           what the whole run is made of, said when it is pointed at
            marks: list[str]     such as "stored"
            note: str            what went wrong, or what to know about the figures
    picked: list[int]        cells shown in the player
    most: int                how many may be picked
    empty: str               said where there are no groups

A tick sends the event `pick` with {cell, on}; a button sends `restore` with {cell}. Knows how they are drawn;
refuses to know what a figure means.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def comparison_table(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("comparison_table", value, elem_id=elem_id)
