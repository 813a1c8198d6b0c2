"""The cache on the form: a choice of method, and each method's settings drawn from its own class.

Knows Gradio's controls and the fields of the cache settings. Refuses to know what a method does with them. A new
method needs nothing here: its fields' types and docstrings become controls.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from studio.errors import RequestError
from studio.requests.caches import METHODS, CacheConfig, title_of, why_not
from studio.ui.components import message

OFF, MOREG, MORE = "off", "adacache:moreg=true", "more"
"""Choices that are no method's name: no cache, AdaCache with one of its settings switched on, and the rivals."""
FIRST = {"adacache": "AdaCache", MOREG: "AdaCache + MoReg", "budget": "Budget"}
"""What can be chosen with one click, in order."""
RIVALS = tuple(method for method in METHODS if method not in FIRST)
OPEN_FIELDS = 2
"""Settings of a method that are seen at once; the others lie folded under them."""
HIDDEN = {"method", "moreg", "thresholds", "rates"}
"""Fields that the choice itself decides, or that only a file sets."""


class CacheForm:
    """The controls. Made inside a `gr.Blocks`."""

    def __init__(self) -> None:
        self.choice: Any = None
        self.rival: Any = None
        self.note: Any = None
        self.groups: dict[str, Any] = {}
        self.controls: list[Any] = []
        """In the order of `_fields`."""

    def place(self, pipeline: str) -> None:
        """The choice, and under it the settings of the method that is chosen."""
        self.choice = gr.Radio(
            label="Cache",
            info="Reuse what hardly changes from step to step.",
            choices=[("Off", OFF), *((title, choice) for choice, title in FIRST.items()), ("More…", MORE)],
            value=OFF,
            elem_id="cache",
        )
        self.rival = gr.Dropdown(
            label="Method",
            choices=rivals(pipeline),
            value=RIVALS[0],
            filterable=False,
            visible=False,
            elem_id="cache-rival",
        )
        self.note = message.message(elem_id="cache-note")
        for method, settings in METHODS.items():
            fields = [(name, field) for name, field in settings.model_fields.items() if name not in HIDDEN]
            with gr.Column(visible=False, elem_id=f"cache-{method}", elem_classes="cache-settings") as group:
                self._place_settings(method, fields[:OPEN_FIELDS])
                if len(fields) > OPEN_FIELDS:
                    with gr.Accordion(f"More of {title_of(method)}", open=False):
                        self._place_settings(method, fields[OPEN_FIELDS:])
            self.groups[method] = group

    def _place_settings(self, method: str, fields: list[tuple[str, FieldInfo]]) -> None:
        for pair in range(0, len(fields), 2):
            with gr.Row(elem_classes="numbers"):
                self.controls.extend(_control(method, name, field) for name, field in fields[pair : pair + 2])

    @property
    def inputs(self) -> list[Any]:
        """In the order in which `cache_of` takes their values."""
        return [self.choice, self.rival, *self.controls]

    @property
    def opening(self) -> list[Any]:
        """Everything that `opened` changes."""
        return [self.rival, self.note, *self.groups.values()]

    @property
    def outputs(self) -> list[Any]:
        """Everything that `shows` may change."""
        return [*self.inputs, self.note, *self.groups.values()]

    def shows(self, cache: CacheConfig | None, pipeline: str) -> dict[Any, Any]:
        """What makes the controls show a request's cache."""
        choice, rival = choice_of(cache)
        updates: dict[Any, Any] = {self.choice: choice}
        for (method, name), control in zip(_fields(), self.controls, strict=True):
            chosen = cache if cache is not None and cache.method == method else METHODS[method].model_validate({})
            value = getattr(chosen, name)
            # A dropdown's choices are words, numbers too.
            literal = get_origin(METHODS[method].model_fields[name].annotation) is Literal
            updates[control] = str(value) if literal else _written(value)
        return updates | self.opened(choice, rival, pipeline)

    def opened(self, choice: str, rival: str, pipeline: str) -> dict[Any, Any]:
        """The settings of the method that was just chosen, and a line about it."""
        method = method_of(choice, rival)
        updates: dict[Any, Any] = {group: gr.update(visible=name == method) for name, group in self.groups.items()}
        picker = gr.update(choices=rivals(pipeline), value=rival, visible=choice == MORE)
        return updates | {self.note: about(method, pipeline), self.rival: picker}


def rivals(pipeline: str) -> list[tuple[str, str]]:
    """The rivals; one that does not work on this model says so in its name."""
    return [
        (title_of(method) + ("" if why_not(method, pipeline) is None else " (not with this model)"), method)
        for method in RIVALS
    ]


def about(method: str | None, pipeline: str) -> dict[str, Any]:
    """One line under the choice: what the method does, or why it does not work here."""
    if method is None:
        return {}
    reason = why_not(method, pipeline)
    if reason is not None:
        return message.warn(f"Does not work with this model: {reason}")
    return message.quiet((METHODS[method].__doc__ or "").split("\n", maxsplit=1)[0])


def method_of(choice: str, rival: str) -> str | None:
    """The settings' `method` of what was chosen; None for no cache."""
    return {OFF: None, MORE: rival}.get(choice, choice.partition(":")[0])


def choice_of(cache: CacheConfig | None) -> tuple[str, str]:
    """What must be chosen, and which rival, for a request's cache."""
    if cache is None:
        return OFF, RIVALS[0]
    if cache.method in RIVALS:
        return MORE, cache.method
    return (MOREG if cache.method == "adacache" and cache.moreg else cache.method), RIVALS[0]


def cache_of(values: tuple[Any, ...]) -> dict[str, Any] | None:
    """What the controls say, as a record for `read_request`.

    Args:
        values: The controls' values, in the order of `CacheForm.inputs`.

    Raises:
        RequestError: a number that is none.
    """
    choice = str(values[0] or OFF)
    method = method_of(choice, str(values[1]))
    if method is None:
        return None
    record: dict[str, Any] = {"method": method}
    if method == "adacache":
        record["moreg"] = choice == MOREG
    for (owner, name), value in zip(_fields(), values[2:], strict=True):
        if owner == method:
            record[name] = _read(METHODS[method].model_fields[name], name, value)
    return record


def _fields() -> list[tuple[str, str]]:
    return [
        (method, name) for method, settings in METHODS.items() for name in settings.model_fields if name not in HIDDEN
    ]


def _control(method: str, name: str, field: FieldInfo) -> Any:
    label, info = name.replace("_", " ").capitalize(), (field.description or "").replace("\n", " ")
    place: dict[str, Any] = {"label": label, "info": info, "elem_id": f"cache-{method}-{name.replace('_', '-')}"}
    annotation, default = field.annotation, field.get_default()
    if get_origin(annotation) is Literal:
        return gr.Dropdown(choices=[str(choice) for choice in get_args(annotation)], value=str(default), **place)
    if annotation is bool:
        return gr.Checkbox(value=default, **place)
    if annotation in (int, float):
        return gr.Number(value=default, step=1 if annotation is int else 0.01, **place)
    return gr.Textbox(value=_written(default), max_lines=1, placeholder="empty: as the method has it", **place)


def _written(value: Any) -> Any:
    """A setting as its control shows it: several numbers with commas, nothing as nothing."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value)
    return value


def _read(field: FieldInfo, name: str, value: Any) -> Any:
    """A control's value as the setting wants it; pydantic says the rest."""
    annotation = field.annotation
    if get_origin(annotation) is Literal and isinstance(value, str):
        return next((choice for choice in get_args(annotation) if str(choice) == value), value)
    if annotation in (int, float, bool) or not isinstance(value, str):
        if value is None:
            raise RequestError(f"{name} is empty.", field=f"cache.{name}", way_out="Fill it in.")
        return value
    optional = get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)
    words = [word for word in value.replace(";", ",").split(",") if word.strip()]
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise RequestError(
            f"{value[:40]!r} are no numbers.", field=f"cache.{name}", value=value, way_out="Write 1, 2, 3."
        ) from error
    inner = [each for each in get_args(annotation) if each is not type(None)] if optional else [annotation]
    if optional and not numbers:
        return None
    if get_origin(inner[0]) is not tuple:
        return numbers[0] if numbers else None
    whole = get_args(inner[0])[0] is int
    return [int(number) if whole and number.is_integer() else number for number in numbers]
