"""The form: every field of a request as a control with a label, and the way from one to the other and back.

Knows Gradio's controls and the fields of `GenerationRequest`. Refuses to know what happens to a request: the text of a
form becomes one here, is checked in the words' own way, and whatever is wrong names the control it is wrong in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.errors import PresetError, RequestError, StudioError, WeightsError
from studio.preset import Preset, find_preset
from studio.records.versions import VersionStore
from studio.requests.checks import check_request
from studio.requests.generation import MAX_SEED, GenerationRequest, new_seed, read_request
from studio.ui.forms.caches import CacheForm, cache_of
from studio.ui.wording import version_words

LABELS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "preset": "Preset",
    "width": "Width",
    "height": "Height",
    "num_frames": "Frames",
    "fps": "Frames a second",
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance",
    "flow_shift": "Flow shift",
    "seed": "Seed",
    "torch_dtype": "Number format",
    "offload": "Offload",
    "vae_tiling": "VAE tiling",
    "quantization": "Quantization",
    "adapter": "Version",
    "source": "Source",
    "control": "Control",
}
"""What each field of a request is called on the page."""
FILES = ("source", "control")
"""Fields that refer to a file, seen only where there is one."""
OPTIONAL = ("negative_prompt", "flow_shift", "seed", "adapter", *FILES)
"""Fields that may be left empty."""
_PRESET_FIELDS = ("width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale", "flow_shift")


class Form:
    """The controls, by field. Made inside a `gr.Blocks`; the layout calls `place_…` where it wants them."""

    def __init__(self, presets: list[Preset], versions: VersionStore | None = None) -> None:
        self._presets = presets
        self._versions = versions
        self.controls: dict[str, Any] = {}
        self.cache = CacheForm()

    @property
    def first(self) -> Preset | None:
        """What the form starts from."""
        return self._presets[0] if self._presets else None

    def place_prompt(self) -> None:
        self.controls["prompt"] = gr.Textbox(
            label=LABELS["prompt"],
            lines=3,
            max_lines=8,
            placeholder="What is to be seen?",
            info="Shift + Enter generates.",
            elem_id="prompt",
        )

    def place_negative_prompt(self) -> None:
        self.controls["negative_prompt"] = gr.Textbox(
            label=LABELS["negative_prompt"],
            lines=2,
            value=self.first.defaults.negative_prompt if self.first else "",
            placeholder="What is not to be seen",
            elem_id="negative-prompt",
        )

    def place_preset(self) -> None:
        self.controls["preset"] = gr.Dropdown(
            label=LABELS["preset"],
            choices=[(preset.title, preset.name) for preset in self._presets],
            value=self.first.name if self.first else None,
            elem_id="preset",
        )

    def place_adapter(self) -> None:
        choices, promoted = self._versions_of(self.first.name if self.first else "")
        self.controls["adapter"] = gr.Dropdown(
            label=LABELS["adapter"],
            info="what fine-tuning made of the preset",
            choices=choices,
            value=promoted,
            filterable=False,
            elem_id="adapter",
        )

    def _versions_of(self, preset: str) -> tuple[list[tuple[str, str]], str]:
        """The versions of a preset, for a choice, and the one that is promoted; empty is the model as it came."""
        bare = [("the model as it came", "")]
        if self._versions is None or not preset:
            return bare, ""
        promoted = self._versions.promoted(preset)
        usable = [each for each in self._versions.list(preset=preset) if self._versions.usable(each.id)]
        return bare + [(version_words(each), each.id) for each in usable], promoted.id if promoted else ""

    def versions_shown(self, preset: str, chosen: str | None = None) -> dict[Any, Any]:
        """What makes the control offer a preset's versions, with one of them or the promoted one chosen."""
        choices, promoted = self._versions_of(preset)
        value = promoted if chosen is None else chosen
        if value not in (version_id for _, version_id in choices):
            choices = [*choices, (f"{value}, which is not here", value)]
        return {self.controls["adapter"]: gr.update(choices=choices, value=value)}

    def place_numbers(self) -> None:
        with gr.Row(elem_classes="numbers"):
            self._number("width", "pixels", 16)
            self._number("height", "pixels", 16)
            self._number("num_frames", "length of the clip", 4)
        with gr.Row(elem_classes="numbers"):
            self._number("num_inference_steps", "more is finer", 1)
            self._number("guidance_scale", "pull of the prompt", 0.5)
            # Text, for an empty number box shows 0, and 0 is a seed like any other.
            self.controls["seed"] = gr.Textbox(
                label=LABELS["seed"],
                info="empty: a new one",
                placeholder="random",
                max_lines=1,
                min_width=96,
                elem_id="seed",
            )

    def place_advanced(self) -> None:
        with gr.Row(elem_classes="numbers"):
            self._number("flow_shift", "steps at high noise", 0.5)
            self._number("fps", "when shown", 1)
        with gr.Row(elem_classes="numbers"):
            self._choice("torch_dtype", "of the weights", ["auto", "float32", "bfloat16", "float16"])
            self._choice("offload", "less memory, slower", ["auto", "none", "model", "group", "sequential"])
        with gr.Row(elem_classes="numbers"):
            self._choice("vae_tiling", "less memory, faint seams", ["auto", "on", "off"])
            self._choice("quantization", "weights in 8 bits", ["auto", "none", "int8"])
        for field in FILES:
            self.controls[field] = gr.Textbox(label=LABELS[field], max_lines=1, visible=False, elem_id=field)

    def place_cache(self) -> None:
        self.cache.place(self.first.pipeline if self.first else "")

    def _number(self, field: str, info: str, step: float) -> None:
        # No precision: 128.5 must arrive as it was typed, to be refused and not rounded.
        self.controls[field] = gr.Number(
            label=LABELS[field],
            info=info,
            value=getattr(self.first.defaults, field) if self.first else None,
            step=step,
            min_width=96,
            elem_id=field.replace("_", "-"),
        )

    def _choice(self, field: str, info: str, choices: list[str]) -> None:
        self.controls[field] = gr.Dropdown(
            label=LABELS[field],
            info=info,
            choices=choices,
            value="auto",
            filterable=False,
            min_width=140,
            elem_id=field.replace("_", "-"),
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inputs)

    @property
    def inputs(self) -> list[Any]:
        """The controls in the order in which `request` takes their values."""
        return [*(self.controls[field] for field in LABELS), *self.cache.inputs]

    @property
    def outputs(self) -> list[Any]:
        """Everything that `shows` and `starts_from` may change."""
        return [*(self.controls[field] for field in LABELS), *self.cache.outputs]

    def shows(self, request: GenerationRequest) -> dict[Any, Any]:
        """What makes the controls show a request."""
        pipeline = next((preset.pipeline for preset in self._presets if preset.name == request.preset), "")
        updates: dict[Any, Any] = {self.controls[field]: getattr(request, field) for field in LABELS}
        updates |= {self.controls["seed"]: str(request.seed)} | self.versions_shown(
            request.preset, request.adapter or ""
        )
        return updates | self._files_shown(request) | self.cache.shows(request.cache, pipeline)

    def _files_shown(self, request: GenerationRequest | None) -> dict[Any, Any]:
        """The files that a request refers to; none are hidden."""
        referred = {self.controls[field]: request and getattr(request, field) for field in FILES}
        return {
            control: gr.update(value=str(reference or ""), visible=reference is not None)
            for control, reference in referred.items()
        }

    def starts_from(self, preset: Preset) -> dict[Any, Any]:
        """What makes the controls show a preset's defaults; prompt and seed are left as they are."""
        updates: dict[Any, Any] = {self.controls[field]: getattr(preset.defaults, field) for field in _PRESET_FIELDS}
        updates[self.controls["flow_shift"]] = gr.update(
            value=preset.defaults.flow_shift, interactive=preset.defaults.flow_shift is not None
        )
        updates[self.controls["negative_prompt"]] = preset.defaults.negative_prompt
        updates |= self._files_shown(None)
        return updates | self.versions_shown(preset.name) | self.cache.shows(None, preset.pipeline)


def request_of(values: tuple[Any, ...], *, prompt: str | None = None) -> tuple[GenerationRequest, Preset]:
    """What the controls say, as `read_typed` reads it, checked against the preset they name."""
    request = read_typed(values, prompt=prompt)
    preset = find_preset(request.preset)
    check_request(request, preset)
    return request, preset


def read_typed(values: tuple[Any, ...], *, prompt: str | None = None) -> GenerationRequest:
    """What the controls say.

    Args:
        values: The controls' values, in the order of `Form.inputs`.
        prompt: Taken in place of what was typed, to ask about a form whose prompt is still empty.

    Raises:
        StudioError: naming the field at fault.
    """
    written = dict(zip(LABELS, values, strict=False))
    for field, value in written.items():
        if value in (None, "") and field not in (*OPTIONAL, "prompt"):
            raise RequestError(f"{LABELS[field]} is empty.", field=field, way_out="Fill it in.")
    if prompt is not None:
        written["prompt"] = prompt
    seed = whole_number(written["seed"], "seed", most=MAX_SEED)
    written["seed"] = new_seed() if seed is None else seed
    written |= {field: written.get(field) or None for field in ("adapter", *FILES)}
    if written["negative_prompt"] is None:
        written["negative_prompt"] = ""
    written["cache"] = cache_of(values[len(LABELS) :]) if len(values) > len(LABELS) else None
    return read_request(written)


def whole_number(typed: Any, field: str, *, most: int) -> int | None:
    """What was typed into a text box for a number that may be left out; None where nothing was.

    Raises:
        RequestError: no whole number, or a larger one.
    """
    text = str(typed if typed is not None else "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) > most:
        raise RequestError(
            f"{text[:40]!r} is no whole number.", field=field, value=text, way_out=f"Type 0 to {most}, or nothing."
        )
    return int(text)


def label_of(error: StudioError) -> str:
    """The label of the control that an error is about; empty where it is about none."""
    if isinstance(error, (PresetError, WeightsError)):
        return LABELS["preset"]
    return "Cache" if error.field.startswith("cache") else LABELS.get(error.field.partition(".")[0], "")
