"""The Compare tab's controls, and what they say: words and ticks become a grid.

Knows the grid and the Generate tab's form. Refuses to know pages, and what becomes of a grid.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import gradio as gr

from studio.compare import Grid, Method, method_of, parse_axis, parse_method
from studio.errors import RequestError, StudioError
from studio.requests.caches import METHODS, why_not
from studio.requests.generation import MAX_SEED, GenerationRequest
from studio.ui.forms.caches import MOREG
from studio.ui.forms.generation import Form, label_of
from studio.ui.listeners import Part, Values

LABELS = {
    "prompt": "Prompts",
    "seed": "Seeds",
    "method": "Methods",
    "axis": "Further fields",
    "repeats": "Repeats",
    "grid": "Grid",
}
"""What the controls are called, by the field that an error names."""
AS_ON_THE_FORM = "form"


Own: TypeAlias = gr.Textbox | gr.Number | gr.CheckboxGroup
USUAL = ("adacache", MOREG)
"""Methods that are ticked on a new page."""


class GridForm:
    """The grid's own controls, over the Generate tab's form, which says the rest. Made inside a `gr.Blocks`."""

    prompts: gr.Textbox
    seeds: gr.Textbox
    repeats: gr.Number
    methods: gr.CheckboxGroup
    steps: gr.Textbox
    rows: gr.Textbox
    axes: gr.Textbox

    def __init__(self, form: Form) -> None:
        self.form = form

    @property
    def controls(self) -> list[Own]:
        """The grid's own."""
        return [self.prompts, self.seeds, self.repeats, self.methods, self.steps, self.rows, self.axes]

    @property
    def inputs(self) -> set[Part]:
        """The controls that `read` wants the values of."""
        return {*self.controls} | self.form.inputs

    def place(self) -> None:
        self.prompts = _text(
            "prompts",
            LABELS["prompt"],
            "One a line; empty: the Generate tab's.",
            "a red car drives ahead\na blue bus in the snow",
            lines=3,
            max_lines=8,
        )
        with gr.Row(elem_classes="numbers"):
            self.seeds = _text("seeds", LABELS["seed"], "equal for every method", "1, 2, 3", value="1", min_width=96)
            self.repeats = gr.Number(
                label=LABELS["repeats"],
                info="steadier timing",
                value=1,
                step=1,
                minimum=1,
                min_width=96,
                elem_id="compare-repeats",
            )
        first = self.form.first
        self.methods = gr.CheckboxGroup(
            label=LABELS["method"],
            info="Beside the full clip, each with its usual settings.",
            choices=method_choices(first.pipeline if first else ""),
            value=list(USUAL),
            elem_id="compare-methods",
        )
        self.steps = _text(
            "steps", "Fewer steps", "The plain way to be faster: full clips of fewer steps.", "15, 10", value=""
        )
        with gr.Accordion("More rows", open=False, elem_id="compare-more"):
            self._place_rows()

    def _place_rows(self) -> None:
        self.rows = _text(
            "rows",
            "Methods with settings",
            "One a line.",
            "adacache:codebook=slow\nteacache:threshold=0.2\nset:guidance_scale=1",
            lines=3,
            max_lines=10,
        )
        self.axes = _text(
            "axes",
            LABELS["axis"],
            "One a line; each combination has a reference of its own.",
            "guidance_scale=1, 4",
            lines=2,
            max_lines=6,
        )

    def read(self, values: Values, *, prompt: str | None = None) -> Grid:
        """What the controls and the form say.

        Args:
            values: What the browser sent, for `inputs` at least.
            prompt: Taken where neither names one, to count a grid that is not begun yet.

        Raises:
            StudioError: naming the field at fault.
        """
        typed = _lines(values[self.prompts])
        request, _ = self.form.request_of(values, prompt=typed[0] if typed else prompt)
        return Grid(
            base=request,
            prompts=tuple(typed),
            seeds=tuple(_seed(word) for word in _words(values[self.seeds])),
            methods=self._methods(values, request),
            axes=tuple(parse_axis(line) for line in _lines(values[self.axes])),
            repeats=_repeats(values[self.repeats]),
        )

    def _methods(self, values: Values, request: GenerationRequest) -> tuple[Method, ...]:
        methods = [_ticked(name, request) for name in ticked_of(values[self.methods])]
        methods += [parse_method(f"steps:{word}") for word in _words(values[self.steps])]
        methods += [parse_method(line) for line in _lines(values[self.rows])]
        if not any(method.fields for method in methods):
            raise RequestError("No method is chosen.", field="method", way_out="Tick one, or name fewer steps.")
        return tuple(methods)


def _text(name: str, label: str, info: str, placeholder: str, **look: Any) -> gr.Textbox:
    look = {"max_lines": 1, **look}
    return gr.Textbox(label=label, info=info, placeholder=placeholder, elem_id=f"compare-{name}", **look)


def method_choices(pipeline: str) -> list[tuple[str, str]]:
    """Methods that work on a model, by title; the last is whatever cache the Generate tab has."""
    methods = [(parse_method(name).title, name) for name in METHODS if why_not(name, pipeline) is None]
    at = next((place + 1 for place, (_, name) in enumerate(methods) if name == "adacache"), 0)
    methods.insert(at, (parse_method(MOREG).title, MOREG))
    return [*methods, ("The Generate tab's cache", AS_ON_THE_FORM)]


def grid_label(error: StudioError) -> str:
    """The label of the control that an error is about."""
    return LABELS.get(error.field) or label_of(error)


def ticked_of(value: object) -> list[str]:
    """The names that are ticked, of what a browser sent."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _ticked(name: str, request: GenerationRequest) -> Method:
    if name != AS_ON_THE_FORM:
        return parse_method(name)
    if request.cache is None:
        raise RequestError(
            "The Generate tab's cache is off.", field="method", way_out="Choose one there, or untick it here."
        )
    return method_of(request)


def _lines(text: object) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()] if isinstance(text, str) else []


def _words(text: object) -> list[str]:
    return text.replace(",", " ").replace(";", " ").split() if isinstance(text, str) else []


def _repeats(value: object) -> int:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or int(value) != value:
        raise RequestError(f"{value!r} is no number of repeats.", field="repeats", way_out="Choose 1 or more.")
    return int(value)


def _seed(word: str) -> int:
    if not word.isdecimal() or int(word) > MAX_SEED:
        raise RequestError(
            f"{word[:40]!r} is no seed.", field="seed", value=word, way_out=f"Write 0 to {MAX_SEED}, with commas."
        )
    return int(word)
