"""What a browser sends, made by hand: values by component, pressed buttons, typed numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from studio.ui.forms.generation import Form

AT_HOME = {"owner": "", "job": ""}


def values_of(controls: Iterable[Any]) -> dict[Any, Any]:
    """What controls say as they were made."""
    return {control: control.value for control in controls}


def typed(form: Form, **changes: Any) -> dict[Any, Any]:
    """The form's values as Gradio hands them over, with the pocket preset's defaults."""
    small = {"prompt": "a red car", "num_inference_steps": 6, "seed": "7"}
    return values_of(form.inputs) | {form.controls[name]: value for name, value in (small | changes).items()}


def pressed(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def fill_numbers(page: Any, numbers: dict[str, str]) -> None:
    for name, value in numbers.items():
        page.fill(f"#{name} input", value)
    page.keyboard.press("Tab")
