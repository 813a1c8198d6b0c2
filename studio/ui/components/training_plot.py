"""A training as it goes: losses as lines over the steps, scores of held-out samples as points on a second axis, and
what is held in memory for the way back through the decoder.

Value:
    total: int               steps that were asked for
    lines: list of {name: "latent" | "pixel", points: list of [step, loss]}
    scores: list of [step, PSNR in dB]        step 0 is the model as it was
    mean_of: int             neighbouring steps that each point of a line is the mean of
    memory: {held, full (bytes), held_words, full_words} | None

The losses' axis is logarithmic where they are far apart, and says so. Pointing at the plot, or the arrow keys, read the
nearest step out. Knows how they are drawn; refuses to compute a figure.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def training_plot(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("training_plot", value, elem_id=elem_id)
