"""The cache on the form: a choice of method, and each method's settings drawn from its own class.

Knows Gradio's controls and the fields of the cache settings. Refuses to know what a method does with them. A new
method needs nothing here: its fields' types and docstrings become controls.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from studio.cache_settings import METHODS, CacheConfig, title_of, why_not
from studio.errors import RequestError

OFF, MOREG = "off", "adacache+moreg"
"""Choices that are not the name of a method: no cache, and AdaCache with one of its settings switched on."""
HIDDEN = {"method", "moreg", "thresholds", "rates"}
"""Fields that the choice itself decides, or that only a file sets."""


class CacheForm:
    """The controls. Made inside a `gr.Blocks`."""

    def __init__(self) -> None:
        self.method: Any = None
        self.note: Any = None
        self.groups: dict[str, Any] = {}
        self.controls: list[Any] = []
        """In the order of `_fields`."""

    def place(self, pipeline: str) -> None:
        """The choice, and under it the settings of the method that is chosen."""
        self.method = gr.Dropdown(
            label="Cache",
            info="Reuse what hardly changes from step to step.",
            choices=choices(pipeline),
            value=OFF,
            filterable=False,
            elem_id="cache",
        )
        self.note = gr.Markdown(about(OFF, pipeline), elem_id="cache-note")
        for method, settings in METHODS.items():
            with gr.Group(visible=False, elem_id=f"cache-{method}") as group:
                for name, field in settings.model_fields.items():
                    if name not in HIDDEN:
                        self.controls.append(_control(method, name, field))
            self.groups[method] = group

    @property
    def inputs(self) -> list[Any]:
        """In the order in which `cache_of` takes their values."""
        return [self.method, *self.controls]

    @property
    def outputs(self) -> list[Any]:
        """Everything that `shows` may change."""
        return [*self.inputs, self.note, *self.groups.values()]

    def shows(self, cache: CacheConfig | None, pipeline: str) -> dict[Any, Any]:
        """What makes the controls show a request's cache."""
        choice = choice_of(cache)
        updates: dict[Any, Any] = {self.method: gr.update(choices=choices(pipeline), value=choice)}
        for (method, name), control in zip(_fields(), self.controls, strict=True):
            chosen = cache if cache is not None and cache.method == method else METHODS[method]()
            updates[control] = _written(getattr(chosen, name))
        return updates | self.opened(choice, pipeline)

    def opened(self, choice: str, pipeline: str) -> dict[Any, Any]:
        """The settings of the method that was just chosen, and a line about it."""
        method = method_of(choice)
        updates: dict[Any, Any] = {group: gr.update(visible=name == method) for name, group in self.groups.items()}
        return updates | {self.note: about(choice, pipeline)}


def choices(pipeline: str) -> list[tuple[str, str]]:
    """What can be chosen; a method that does not work on this model says so in its name."""
    found = [("Off: compute everything", OFF)]
    for method in METHODS:
        title = title_of(method) + ("" if why_not(method, pipeline) is None else " (not with this model)")
        found.append((title, method))
        if method == "adacache":
            found.append(("AdaCache + MoReg", MOREG))
    return found


def about(choice: str, pipeline: str) -> str:
    """One line under the choice: what the method does, or why it does not work here."""
    method = method_of(choice)
    if method is None:
        return "Every block of every step is computed."
    reason = why_not(method, pipeline)
    if reason is not None:
        return f"Does not work with this model: {reason}"
    return (METHODS[method].__doc__ or "").split("\n", maxsplit=1)[0]


def method_of(choice: str) -> str | None:
    return None if choice == OFF else "adacache" if choice == MOREG else choice


def choice_of(cache: CacheConfig | None) -> str:
    if cache is None:
        return OFF
    return MOREG if cache.method == "adacache" and cache.moreg else cache.method


def cache_of(values: tuple[Any, ...]) -> dict[str, Any] | None:
    """What the controls say, as a record for `read_request`.

    Args:
        values: The controls' values, in the order of `CacheForm.inputs`.

    Raises:
        RequestError: a number that is none.
    """
    choice = str(values[0] or OFF)
    method = method_of(choice)
    if method is None:
        return None
    record: dict[str, Any] = {"method": method}
    if method == "adacache":
        record["moreg"] = choice == MOREG
    for (owner, name), value in zip(_fields(), values[1:], strict=True):
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
        return gr.Number(value=default, step=1 if annotation is int else None, **place)
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
