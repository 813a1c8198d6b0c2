"""A model's fields as controls: labels, choices and defaults are the model's own, and so is the way back.

Knows Gradio's controls. Refuses to know what a model is for, and which values are in range: the model says so.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, get_args, get_origin

import gradio as gr
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio.errors import RequestError
from studio.requests.fields import choices_of, help_of, kinds_of, label_of, largest, may_be_none
from studio.ui.listeners import Updates, Values

Control: TypeAlias = gr.Textbox | gr.Number | gr.Slider | gr.Dropdown | gr.Radio | gr.Checkbox
C = TypeVar("C", gr.Textbox, gr.Number, gr.Slider, gr.Dropdown, gr.Radio, gr.Checkbox)


class FieldControls:
    """The controls of a model's fields, by field. Each is made where it is asked for, inside a `gr.Blocks`."""

    def __init__(self, model: type[BaseModel], *, elem_prefix: str = "", path: str = "") -> None:
        """
        Args:
            model: Whose fields.
            elem_prefix: Before the field's name in a control's id on the page.
            path: Before the field's name in what an error names.
        """
        self.model = model
        self.by_field: dict[str, Control] = {}
        self._elem_prefix = elem_prefix
        self._path = path

    # -- drawing ------------------------------------------------------------------------------------------------------

    def place(self, kind: type[C], name: str, **look: Any) -> C:
        """A control of that kind, with the field's label; `look` is what Gradio's class takes besides."""
        field = self._field(name)
        label, elem_id = label_of(self.model, name), self._elem_prefix + name.replace("_", "-")
        value = shown_by(kind, None if field.is_required() else field.default)
        control = kind(**{"label": label, "value": value, "elem_id": elem_id, **look})
        self.by_field[name] = control
        return control

    def number(self, name: str, **look: Any) -> None:
        # No precision: 128.5 must arrive as it was typed, to be refused and not rounded.
        self.place(gr.Number, name, **{"min_width": 96, **look})

    def text(self, name: str, **look: Any) -> gr.Textbox:
        """Words, or numbers that may be left out: an empty number box shows 0, which may be a value like any other."""
        return self.place(gr.Textbox, name, **{"max_lines": 1, **look})

    def choice(self, name: str, **look: Any) -> gr.Dropdown:
        """One of the field's own choices, or of those given."""
        return self.place(gr.Dropdown, name, **{"choices": list(choices_of(self._field(name))), **look})

    def drawn(self, name: str) -> None:
        """The control that a field's type asks for, explained in the field's own words."""
        field = self._field(name)
        if choices_of(field):
            self.choice(name, info=help_of(field))
        elif field.annotation is bool:
            self.place(gr.Checkbox, name, info=help_of(field))
        elif field.annotation in (int, float):
            self.place(gr.Number, name, info=help_of(field), step=1 if field.annotation is int else 0.01)
        else:
            self.text(name, info=help_of(field), placeholder="empty: as the method has it")

    def shows(self, filled: BaseModel) -> Updates:
        """What makes the controls show a model that is filled in."""
        return {control: shown_by(type(control), getattr(filled, name)) for name, control in self.by_field.items()}

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, values: Values) -> dict[str, object]:
        """What the controls say, as a record for the model; what may be left out and was is None.

        Raises:
            RequestError: one is empty that may not be, or holds no number where there should be one.
        """
        return {name: self._read(name, values[control]) for name, control in self.by_field.items()}

    def _read(self, name: str, value: object) -> object:
        if isinstance(self.by_field[name], gr.Textbox):
            return self._typed(name, "" if value is None else str(value))
        field = self._field(name)
        if value is None or value == "":
            if not may_be_none(field):
                label = label_of(self.model, name)
                raise RequestError(f"{label} is empty.", field=self._path + name, way_out="Fill it in.")
            return None
        chosen = zip(choices_of(field), get_args(field.annotation), strict=False)
        return next((choice for word, choice in chosen if word == value), value)

    def _typed(self, name: str, text: str) -> object:
        """What a text stands for, by the field's type."""
        field = self._field(name)
        (kind,) = kinds_of(field)
        if kind is str:
            return text
        if kind is int:
            return whole_number(text, self._path + name, most=largest(field))
        if get_args(kind)[:1] == (str,):
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        if kind is float or get_origin(kind) is tuple:
            numbers = self._numbers(name, text)
            if not numbers and may_be_none(field):
                return None
            return numbers[0] if kind is float and numbers else numbers
        return text.strip() or None

    def _numbers(self, name: str, text: str) -> list[float]:
        words = [word for word in text.replace(";", ",").split(",") if word.strip()]
        try:
            return [int(word) if word.strip().isdecimal() else float(word) for word in words]
        except ValueError as error:
            raise RequestError(
                f"{text[:40]!r} are no numbers.", field=self._path + name, value=text, way_out="Write 1, 2, 3."
            ) from error

    def _field(self, name: str) -> FieldInfo:
        return self.model.model_fields[name]


def shown_by(kind: type[Control], value: object) -> object:
    """A field's value as a control of that kind shows it: text for all but numbers and ticks, nothing as nothing."""
    if kind in (gr.Number, gr.Slider, gr.Checkbox):
        return value
    if value is None:
        return None if kind is gr.Radio else ""
    if isinstance(value, dict):
        return ", ".join(f"{name}:{number:g}" for name, number in value.items())
    return ", ".join(f"{each:g}" for each in value) if isinstance(value, tuple) else str(value)


def whole_number(text: str, field: str, *, most: float | None) -> int | None:
    """What was typed for a number that may be left out; None where nothing was.

    Raises:
        RequestError: no whole number, or a larger one.
    """
    text = text.strip()
    if not text:
        return None
    if not text.isdecimal() or (most is not None and int(text) > most):
        to = "" if most is None else f" to {most:.0f}"
        raise RequestError(
            f"{text[:40]!r} is no whole number.", field=field, value=text, way_out=f"Type 0{to}, or nothing."
        )
    return int(text)
