"""The settings of a fine-tune: every field as a control with a label, and the way from there to a request.

Knows Gradio's controls and the fields of `FinetuneRequest`. Refuses to know what happens to a request: whatever is
wrong with one is found in the words' own way, and names the control it is wrong in.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.errors import PresetError, RequestError, StudioError, WeightsError
from studio.preset import Preset, find_preset
from studio.requests.generation import MAX_SEED
from studio.requests.training import (
    FinetuneRequest,
    TrainingClip,
    check_finetune_request,
    finetune_request_for,
    objectives_of,
    trainable,
)
from studio.ui.forms.generation import whole_number

LABELS = {
    "preset": "Preset",
    "title": "Title",
    "objective": "Objective",
    "max_train_steps": "Steps",
    "learning_rate": "Learning rate",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "width": "Width",
    "height": "Height",
    "num_frames": "Frames",
    "fps": "Frames a second",
    "mode": "Gradients through the decoder",
    "window": "Window",
    "context": "Context",
    "keep_caches": "Caches meanwhile",
    "checkpoint_blocks": "Compute activations again",
    "crop_size": "Crop",
    "structure_weight": "Structure weight",
    "pixel_weight": "Pixel weight",
    "perceptual_weight": "LPIPS weight",
    "train_decoder": "Train the decoder as well",
    "gradient_accumulation_steps": "Samples a step",
    "ema_decay": "Average decay",
    "prior_loss_weight": "Prior weight",
    "validation_steps": "Score every",
    "validation_share": "Held out",
    "checkpointing_steps": "Checkpoint every",
    "seed": "Seed",
    "sample_prompts": "Sample prompts",
}
"""What each field of a request is called on the page."""
OBJECTIVES = [
    ("Mixed: the model's own loss, and pixels through the decoder", "mixed"),
    ("Latent: the model's own loss; fast, blind to what the decoder does", "latent"),
    ("Pixel: the distance of decoded frames, taken through the decoder", "pixel"),
]
MODES = [
    ("Exact: the right gradients in little memory; take this", "exact"),
    ("Truncated: for very long clips, whose exact way back takes too long", "truncated"),
    ("Full: plain backpropagation, for reference; memory grows with the clip", "full"),
]
KEPT = [
    ("where memory does not grow with the clip", "auto"),
    ("beside the model: a little faster", "device"),
    ("in main memory", "memory"),
    ("on disk", "disk"),
]
MOST_PROMPTS = 4
_TEXTS = ("title", "lora_alpha", "crop_size", "seed", "sample_prompts")
"""Fields that may be left empty."""
_PRESET_FIELDS = ("width", "height", "num_frames", "fps")
SIZE = ("num_frames", "fps", "height", "width")
"""What decides how many samples a clip gives."""


class FinetuneForm:
    """The controls, by field. Made inside a `gr.Blocks`; the layout calls `place_…` where it wants them."""

    def __init__(self, presets: list[Preset]) -> None:
        fitting = [preset for preset in presets if not trainable(preset)]
        self.presets = sorted(fitting, key=lambda preset: preset.name != "pocket")
        self.controls: dict[str, Any] = {}

    @property
    def first(self) -> Preset | None:
        """What the form starts from."""
        return self.presets[0] if self.presets else None

    @property
    def inputs(self) -> list[Any]:
        """The controls in the order in which `finetune_request_of` takes their values."""
        return [self.controls[field] for field in LABELS]

    @property
    def size(self) -> list[Any]:
        """The controls that say what a sample is."""
        return [self.controls[field] for field in SIZE]

    def place_main(self) -> None:
        self.controls["preset"] = gr.Dropdown(
            label=LABELS["preset"],
            choices=[(preset.title, preset.name) for preset in self.presets],
            value=self.first.name if self.first else None,
            elem_id="training-preset",
        )
        self._text("title", "of the version; empty: the first clip's name", "night rain")
        offered = _objectives(self.first)
        self.controls["objective"] = gr.Radio(
            label=LABELS["objective"],
            choices=offered,
            value=offered[0][1] if offered else None,
            elem_id="training-objective",
        )
        with gr.Row(elem_classes="numbers"):
            self._number("max_train_steps", "more learns more", 10)
            self._number("learning_rate", "of AdamW", 0.0001)
            self._number("lora_rank", "room to learn", 4)

    def place_more(self) -> None:
        pixels = self.controls["objective"].value != "latent"
        with gr.Column(visible=pixels, elem_id="training-decoder") as self.decoder:
            self.controls["mode"] = gr.Radio(
                label=LABELS["mode"], choices=MODES, value=_default("mode"), elem_id="training-mode"
            )
            with gr.Row(visible=False, elem_classes="numbers", elem_id="training-window-row") as self.truncated:
                self._number("window", "groups of frames together", 1)
                self._number("context", "groups before them", 1)
            with gr.Row(elem_classes="numbers"):
                self._text("crop_size", "latent pixels; less memory", "whole frames")
                self._number("pixel_weight", "in a mixed objective", 0.1)
            with gr.Row(elem_classes="numbers"):
                self._number("structure_weight", "of 1: SSIM beside L1", 0.1)
                self._number("perceptual_weight", "more looks at textures", 0.1)
            self.controls["keep_caches"] = gr.Dropdown(
                label=LABELS["keep_caches"],
                info="of the decoder, while exact gradients are taken",
                choices=KEPT,
                value=_default("keep_caches"),
                filterable=False,
                elem_id=_elem_id("keep_caches"),
            )
            self._tick("checkpoint_blocks", "Less memory, more time, the same gradients.")
            self._tick("train_decoder", "Low rank too, by the pixel loss only.")
        with gr.Row(elem_classes="numbers"):
            self._number("width", "pixels", 16)
            self._number("height", "pixels", 16)
        with gr.Row(elem_classes="numbers"):
            self._number("num_frames", "of a sample; longer clips give several", 4)
            self._number("fps", "at which clips are read", 1)
        with gr.Row(elem_classes="numbers"):
            self._text("lora_alpha", "scale: alpha / rank", "the rank")
            self._number("gradient_accumulation_steps", "steadier, slower", 1)
            self._number("ema_decay", "0 keeps the last weights", 0.01)
        with gr.Row(elem_classes="numbers"):
            self._number("prior_loss_weight", "more forgets less", 0.1)
            self._number("validation_share", "of the samples, to score", 0.05)
            self._number("validation_steps", "so many steps", 5)
        with gr.Row(elem_classes="numbers"):
            self._number("checkpointing_steps", "steps; most that is lost", 5)
            self._text("seed", "of everything drawn", "0", value="0")
        self._text(
            "sample_prompts",
            "generated before and after, one a line, up to four; empty: a held-out caption",
            "a red car on a rainy night",
            lines=2,
        )

    # -- controls -----------------------------------------------------------------------------------------------------

    def _number(self, field: str, info: str, step: float) -> None:
        # No precision: 128.5 must arrive as it was typed, to be refused and not rounded.
        from_preset = getattr(self.first.defaults, field, None) if self.first else None
        self.controls[field] = gr.Number(
            label=LABELS[field],
            info=info,
            value=_default(field) if from_preset is None else from_preset,
            step=step,
            min_width=96,
            elem_id=_elem_id(field),
        )

    def _text(self, field: str, info: str, placeholder: str, *, value: str = "", lines: int = 1) -> None:
        self.controls[field] = gr.Textbox(
            label=LABELS[field],
            info=info,
            value=value,
            placeholder=placeholder,
            lines=lines,
            max_lines=1 if lines == 1 else MOST_PROMPTS,
            min_width=96,
            elem_id=_elem_id(field),
        )

    def _tick(self, field: str, info: str) -> None:
        self.controls[field] = gr.Checkbox(
            label=LABELS[field], info=info, value=_default(field), elem_id=_elem_id(field)
        )

    # -- what depends on what -----------------------------------------------------------------------------------------

    def wire(self, light: dict[str, Any]) -> None:
        controls = self.controls
        changed = [controls[field] for field in (*_PRESET_FIELDS, "objective")]
        controls["preset"].input(self.starts_from, [controls["preset"], controls["objective"]], changed, **light)
        controls["objective"].change(self.fits, [controls["objective"]], [self.decoder], **light)
        controls["mode"].change(self.windows, [controls["mode"]], [self.truncated], **light)

    def starts_from(self, name: Any, objective: Any) -> dict[Any, Any]:
        """A preset was chosen: its size, length and rate, and the objectives that it can be trained with."""
        preset = next((each for each in self.presets if each.name == name), None)
        if preset is None:
            return {}
        offered = _objectives(preset)
        kept = objective if objective in (value for _, value in offered) else offered[0][1]
        return {self.controls[field]: getattr(preset.defaults, field) for field in _PRESET_FIELDS} | {
            self.controls["objective"]: gr.update(choices=offered, value=kept)
        }

    def fits(self, objective: Any) -> dict[Any, Any]:
        """Without pixel losses nothing goes through the decoder."""
        return {self.decoder: gr.update(visible=objective != "latent")}

    def windows(self, mode: Any) -> dict[Any, Any]:
        return {self.truncated: gr.update(visible=mode == "truncated")}


def _objectives(preset: Preset | None) -> list[tuple[str, str]]:
    """What a preset can be trained with, for a choice."""
    offered = objectives_of(preset) if preset else ()
    return [(words, objective) for words, objective in OBJECTIVES if objective in offered]


def _default(field: str) -> Any:
    return FinetuneRequest.model_fields[field].get_default()


def _elem_id(field: str) -> str:
    return "training-" + field.replace("_", "-")


def finetune_request_of(values: tuple[Any, ...], clips: tuple[TrainingClip, ...]) -> tuple[FinetuneRequest, Preset]:
    """What the controls say, checked against the preset they name.

    Args:
        values: The controls' values, in the order of `FinetuneForm.inputs`.
        clips: What to learn from.

    Raises:
        StudioError: naming the field at fault.
    """
    written = dict(zip(LABELS, values, strict=True))
    for field, value in written.items():
        if value in (None, "") and field not in _TEXTS:
            raise RequestError(f"{LABELS[field]} is empty.", field=field, way_out="Fill it in.")
    preset = find_preset(str(written.pop("preset")))
    prompts = tuple(line.strip() for line in str(written["sample_prompts"] or "").splitlines() if line.strip())
    if len(prompts) > MOST_PROMPTS:
        raise RequestError(
            f"{len(prompts)} lines are {len(prompts)} prompts.",
            field="sample_prompts",
            way_out=f"Write {MOST_PROMPTS} at most.",
        )
    written |= {"title": str(written["title"] or "").strip(), "sample_prompts": prompts}
    for field, most in (("lora_alpha", 1024), ("crop_size", 1024), ("seed", MAX_SEED)):
        written[field] = whole_number(written[field], field, most=most)
    request = finetune_request_for(preset, clips=clips, **written)
    check_finetune_request(request, preset)
    return request, preset


def finetune_label(error: StudioError) -> str:
    """The label of the control that an error is about."""
    if isinstance(error, (PresetError, WeightsError)):
        return LABELS["preset"]
    if error.field == "clips" or error.field.startswith("caption"):
        return "Clips"
    return LABELS.get(error.field, "")
