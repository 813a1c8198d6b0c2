"""The Pareto plot: measured speed-up to the right, a score upwards, one mark for each method and group.

Value:
    methods: list of {shape, title}       in the grid's order; the shape is the method's mark and hue
    metrics: list of {name, title, unit, higher_is_better}
    points: list of
        cell: int, shape: int, title: str, line: str (the prompt and the seed)
        speeds: {denoising, whole}        a number, or None
        scores: {name: number | "inf"}
    medians: the same, without a cell: one for each method where there are several groups
    fronts: {pace: {metric: list of [speed, score | "inf"]}}    what nothing beats in both
    chosen: int | None       cell of the point that was clicked

Better is always up: an axis whose figure is better when small is turned about. A click, or Enter, sends the event
`choose` with {cell}. Knows how they are drawn; refuses to compute a front.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def pareto_plot(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("pareto_plot", value, elem_id=elem_id)
