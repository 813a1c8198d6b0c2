"""The cache on the form: a choice of method, and each method's settings drawn from its own class.

Knows Gradio's controls and the fields of the cache settings. Refuses to know what a method does with them. A new
method needs nothing here: its fields' types and docstrings become controls.
"""

from __future__ import annotations

import gradio as gr

from studio.requests.caches import METHODS, CacheConfig, cache_title, why_not
from studio.ui.components import message
from studio.ui.components.values import Message
from studio.ui.forms.fields import FieldControls
from studio.ui.listeners import Part, Updates, Values

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

    choice: gr.Radio
    rival: gr.Dropdown
    note: gr.HTML

    def __init__(self, *, elem_prefix: str = "") -> None:
        self._elem_id = f"{elem_prefix}cache"
        self.groups: dict[str, gr.Column] = {}
        self.settings = {
            method: FieldControls(settings, elem_prefix=f"{self._elem_id}-{method}-", path="cache.")
            for method, settings in METHODS.items()
        }

    def place(self, pipeline: str) -> None:
        """The choice, and under it the settings of the method that is chosen."""
        self.choice = gr.Radio(
            label="Cache",
            info="Reuse what hardly changes from step to step.",
            choices=[("Off", OFF), *((title, choice) for choice, title in FIRST.items()), ("More…", MORE)],
            value=OFF,
            elem_id=self._elem_id,
        )
        self.rival = gr.Dropdown(
            label="Method",
            choices=rivals(pipeline),
            value=RIVALS[0],
            filterable=False,
            visible=False,
            elem_id=f"{self._elem_id}-rival",
        )
        self.note = message.message(elem_id=f"{self._elem_id}-note")
        for method, settings in METHODS.items():
            fields = [name for name in settings.model_fields if name not in HIDDEN]
            with gr.Column(visible=False, elem_id=f"{self._elem_id}-{method}", elem_classes="cache-settings") as group:
                self._place_settings(method, fields[:OPEN_FIELDS])
                if len(fields) > OPEN_FIELDS:
                    with gr.Accordion(f"More of {cache_title(method)}", open=False):
                        self._place_settings(method, fields[OPEN_FIELDS:])
            self.groups[method] = group
            for control in self.settings[method].by_field.values():
                control.interactive = why_not(method, pipeline) is None

    def _place_settings(self, method: str, fields: list[str]) -> None:
        for pair in range(0, len(fields), 2):
            with gr.Row(elem_classes="numbers"):
                for name in fields[pair : pair + 2]:
                    self.settings[method].drawn(name)

    @property
    def inputs(self) -> set[Part]:
        """The controls that `read` wants the values of."""
        return {self.choice, self.rival}.union(*(each.by_field.values() for each in self.settings.values()))

    @property
    def opening(self) -> list[Part]:
        """Everything that `opened` changes."""
        return [self.rival, self.note, *self.groups.values()]

    @property
    def outputs(self) -> list[Part]:
        """Everything that `shows` may change."""
        return [*self.inputs, self.note, *self.groups.values()]

    def shows(self, cache: CacheConfig | None, pipeline: str) -> Updates:
        """What makes the controls show a request's cache; those of a method that does not work here are greyed."""
        choice, rival = choice_of(cache)
        updates: Updates = {self.choice: choice}
        for method, controls in self.settings.items():
            filled = cache if cache is not None and cache.method == method else METHODS[method].model_validate({})
            works = why_not(method, pipeline) is None
            shown = controls.shows(filled)
            updates |= {control: gr.update(value=value, interactive=works) for control, value in shown.items()}
        return updates | self.opened(choice, rival, pipeline)

    def opened(self, choice: str, rival: str, pipeline: str) -> Updates:
        """The settings of the method that was just chosen, and a line about it."""
        method = method_of(choice, rival)
        updates: Updates = {group: gr.update(visible=name == method) for name, group in self.groups.items()}
        picker = gr.update(choices=rivals(pipeline), value=rival, visible=choice == MORE)
        return updates | {self.note: about(method, pipeline), self.rival: picker}

    def read(self, values: Values) -> dict[str, object] | None:
        """What the controls say, as a record for a request's `cache`; None for no cache.

        Raises:
            RequestError: a number that is none.
        """
        choice = str(values[self.choice] or OFF)
        method = method_of(choice, str(values[self.rival]))
        if method is None:
            return None
        settings = self.settings[method].read(values) if method in METHODS else {}
        return {"method": method} | settings | ({"moreg": choice == MOREG} if method == "adacache" else {})


def rivals(pipeline: str) -> list[tuple[str, str]]:
    """The rivals; one that does not work on this model says so in its name."""
    return [
        (cache_title(method) + ("" if why_not(method, pipeline) is None else " (not with this model)"), method)
        for method in RIVALS
    ]


def about(method: str | None, pipeline: str) -> Message:
    """One line under the choice: what the method does, or why it does not work here."""
    if method is None:
        return message.quiet("")
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
