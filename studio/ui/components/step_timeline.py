"""The step timeline: a bar a step, as high as its real milliseconds, over a strip that shows what each block did.

Value:
    total: int                      steps that there will be
    branches: list[str]             names of the passes a step has, such as ["cond", "uncond"]
    steps: list of
        ms: float                   device-synchronised
        kind: "computed" | "reused" | "half" | "extrapolated"
        sigma: float                noise level that the step started from
        blocks: list[str]           a word per branch, a letter per block: c(omputed) r(eused) h(alf) (e)x(trapolated)
        why: str                    why a cache did what it did; empty without one
    current: {step, sigma} | None   the step under way
    uncached_ms: float | None       what a step takes here without a cache, drawn as a line where steps were saved

Colour and hatch both tell the kinds apart. Knows how steps are drawn; refuses to know where they come from.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.components.static_html import static_html


def step_timeline(value: dict[str, Any] | None = None, *, elem_id: str) -> gr.HTML:
    return static_html("step_timeline", value, elem_id=elem_id)
