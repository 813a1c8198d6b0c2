"""The form: every field of a request as a control, and the way from one to the other and back.

Knows where each control stands, and which of them a preset has a use for. Refuses to know what happens to a request:
whatever is wrong with one is found in the words' own way, and names the control it is wrong in.
"""

from __future__ import annotations

from typing import Any, Protocol

import gradio as gr

from studio.errors import PresetError, StudioError, WeightsError
from studio.preset import Preset, find_preset
from studio.records.versions import VersionStore
from studio.requests import fields
from studio.requests.checks import CONDITIONS, check_request, why_not_set
from studio.requests.generation import GenerationRequest, new_seed, read_request
from studio.ui.forms.caches import CacheForm
from studio.ui.forms.fields import Control, FieldControls, shown_by
from studio.ui.listeners import Part, Updates, Values
from studio.ui.wording import version_words

INFOS = {
    "negative_prompt": None,
    "vae_tiling": "less memory, faint seams",
    "flow_shift": "steps at high noise",
} | {
    "source": "a clip or picture: its checksum and path",
    "kept_frames": "of a clip that is continued",
    "control": "maps: their checksum and path",
    "control_strengths": "such as edges, lanes:0.7; empty: all",
    "conditioning_scale": "how closely maps are followed",
}
"""What a control says that some presets have no use for; on those it is greyed, and says why."""


class Restoring(Protocol):
    """Whoever shows a request's settings, to be used again."""

    def restores(self, request: GenerationRequest, words: str) -> Updates:
        """What makes the form show a request, and says in those words where it comes from."""
        ...

    @property
    def restored(self) -> list[Part]:
        """Everything that `restores` may change."""
        ...


class Form:
    """The controls, by field. Made inside a `gr.Blocks`; the layout calls `place_…` where it wants them."""

    prompt: gr.Textbox
    preset: gr.Dropdown

    def __init__(self, presets: list[Preset], versions: VersionStore | None = None, *, elem_prefix: str = "") -> None:
        """
        Args:
            presets: Those that are offered.
            versions: What fine-tuning made of them.
            elem_prefix: Before the ids of controls, where the page has another form.
        """
        self._presets = presets
        self._versions = versions
        self._fields = FieldControls(GenerationRequest, elem_prefix=elem_prefix)
        self.cache = CacheForm(elem_prefix=elem_prefix)

    @property
    def controls(self) -> dict[str, Control]:
        return self._fields.by_field

    @property
    def first(self) -> Preset | None:
        """What the form starts from."""
        return self._presets[0] if self._presets else None

    @property
    def inputs(self) -> set[Part]:
        """The controls that `read` wants the values of."""
        return {*self.controls.values(), *self.cache.inputs}

    @property
    def outputs(self) -> list[Part]:
        """Everything that `shows` and `starts_from` may change."""
        return [*self.controls.values(), *self.cache.outputs]

    # -- layout -------------------------------------------------------------------------------------------------------

    def place_prompt(self) -> None:
        example, info = "What is to be seen?", "Shift + Enter generates."
        self.prompt = self._fields.text("prompt", placeholder=example, info=info, lines=3, max_lines=8)

    def place_negative_prompt(self) -> None:
        name, example = "negative_prompt", "What is not to be seen"
        look = {"value": self._default(name), "lines": 2, "max_lines": None} | _look(name, self.first)
        self._fields.text(name, placeholder=example, **look)

    def place_preset(self) -> None:
        offered = [(preset.title, preset.name) for preset in self._presets]
        self.preset = self._fields.choice("preset", choices=offered, value=self.first.name if self.first else None)

    def place_adapter(self) -> None:
        choices, promoted = self._versions_of(self.first.name if self.first else "")
        info = "what fine-tuning made of the preset"
        self._fields.choice("adapter", info=info, choices=choices, value=promoted, filterable=False)

    def place_numbers(self) -> None:
        with gr.Row(elem_classes="numbers"):
            self._number("width", step=16, info="pixels")
            self._number("height", step=16, info="pixels")
            self._number("num_frames", step=4, info="length of the clip")
        with gr.Row(elem_classes="numbers"):
            self._number("num_inference_steps", step=1, info="more is finer")
            self._number("guidance_scale", step=0.5, info="pull of the prompt")
            self._fields.text("seed", placeholder="random", info="empty: a new one", min_width=96)

    def place_advanced(self) -> None:
        with gr.Row(elem_classes="numbers"):
            self._number("flow_shift", step=0.5, **_look("flow_shift", self.first))
            self._number("fps", step=1, info="when shown")
        with gr.Row(elem_classes="numbers"):
            self._choice("torch_dtype", info="of the weights")
            self._choice("offload", info="less memory, slower")
        with gr.Row(elem_classes="numbers"):
            self._choice("vae_tiling", **_look("vae_tiling", self.first))
            self._choice("quantization", info="weights in 8 bits")
        with gr.Row(elem_classes="numbers"):
            self._choice("attention_backend", info="auto: torch's own")
            self._fields.place(gr.Checkbox, "compile", info="slow first step, faster others", min_width=140)

    def place_conditions(self) -> None:
        """Files to start from and to keep to, by their references; seen where a preset has a use for them."""
        with gr.Row(elem_classes="numbers"):
            self._fields.text("source", **_look("source", self.first))
            self._number("kept_frames", step=1, **_look("kept_frames", self.first))
        self._fields.text("control", **_look("control", self.first))
        with gr.Row(elem_classes="numbers"):
            self._fields.text("control_strengths", **_look("control_strengths", self.first))
            self._number("conditioning_scale", step=0.1, **_look("conditioning_scale", self.first))

    def place_cache(self) -> None:
        self.cache.place(self.first.pipeline if self.first else "")

    def _number(self, name: str, **look: Any) -> None:
        self._fields.number(name, value=self._default(name), **look)

    def _choice(self, name: str, **look: Any) -> None:
        self._fields.choice(name, filterable=False, min_width=140, **look)

    def _default(self, name: str) -> object:
        """What the first preset proposes, or else the field's own default."""
        return fields.defaults_of(self.first, GenerationRequest).get(name, _unset(name)) if self.first else None

    # -- showing ------------------------------------------------------------------------------------------------------

    def shows(self, request: GenerationRequest) -> Updates:
        """What makes the controls show a request."""
        preset = next((preset for preset in self._presets if preset.name == request.preset), None)
        updates = self._fields.shows(request)
        for name in INFOS.keys() & self.controls.keys():
            control, value = self.controls[name], getattr(request, name)
            updates[control] = gr.update(value=updates[control], **_look(name, preset, value))
        updates |= self.versions_shown(request.preset, request.adapter or "")
        return updates | self.cache.shows(request.cache, preset.pipeline if preset else "")

    def starts_from(self, preset: Preset) -> Updates:
        """What makes the controls show a preset's defaults. Prompt, seed and whatever else the preset says nothing of
        stay as they are, unless the preset has no use for them."""
        defaults = fields.defaults_of(preset, GenerationRequest)
        updates: Updates = {self.controls[name]: value for name, value in defaults.items()}
        for name in INFOS.keys() & self.controls.keys():
            control, look = self.controls[name], _look(name, preset)
            if name in defaults or not look["interactive"]:
                look["value"] = shown_by(type(control), defaults.get(name, _unset(name)))
            updates[control] = gr.update(**look)
        return updates | self.versions_shown(preset.name) | self.cache.shows(None, preset.pipeline)

    def versions_shown(self, preset: str, chosen: str | None = None) -> Updates:
        """What makes the control offer a preset's versions, with one of them or the promoted one chosen."""
        choices, promoted = self._versions_of(preset)
        value = promoted if chosen is None else chosen
        if value not in (version_id for _, version_id in choices):
            choices = [*choices, (f"{value}, which is not here", value)]
        return {self.controls["adapter"]: gr.update(choices=choices, value=value)}

    def _versions_of(self, preset: str) -> tuple[list[tuple[str, str]], str]:
        """The versions of a preset, for a choice, and the one that is promoted; empty is the model as it came."""
        bare = [("the model as it came", "")]
        if self._versions is None or not preset:
            return bare, ""
        promoted = self._versions.promoted(preset)
        usable = [each for each in self._versions.list(preset=preset) if self._versions.usable(each.id)]
        return bare + [(version_words(each), each.id) for each in usable], promoted.id if promoted else ""

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, values: Values, *, prompt: str | None = None) -> GenerationRequest:
        """What the controls say, not yet held against the preset that they name.

        Args:
            values: What the browser sent, for `inputs` at least.
            prompt: Taken in place of what was typed, to ask about a form whose prompt is still empty.

        Raises:
            StudioError: naming the field at fault.
        """
        written = self._fields.read(values) | {"cache": self.cache.read(values)}
        if prompt is not None:
            written["prompt"] = prompt
        if written["seed"] is None:
            written["seed"] = new_seed()
        return read_request(written)

    def request_of(self, values: Values, *, prompt: str | None = None) -> tuple[GenerationRequest, Preset]:
        """What `read` reads, held against its preset."""
        request = self.read(values, prompt=prompt)
        preset = find_preset(request.preset)
        check_request(request, preset)
        return request, preset


def _unset(name: str) -> object:
    return GenerationRequest.model_fields[name].default


def _look(name: str, preset: Preset | None, value: object = None) -> dict[str, Any]:
    """How a control looks on a preset that may have no use for it: greyed, with the reason, once there is nothing in it
    that would have to be removed."""
    reason = why_not_set(name, preset) if preset else None
    filled = value is not None and value != _unset(name)
    look: dict[str, Any] = {"info": INFOS[name], "interactive": reason is None or filled}
    if reason is not None and preset is not None:
        look["info"] = f"{preset.title} {reason}"
    return look | {"visible": look["interactive"]} if name in CONDITIONS else look


def label_of(error: StudioError) -> str:
    """The label of the control that an error is about; empty where it is about none."""
    about = "preset" if isinstance(error, (PresetError, WeightsError)) else error.field.partition(".")[0]
    return fields.label_of(GenerationRequest, about)
