"""The settings of a fine-tune: every field as a control with a label, and the way from there to a request.

Knows Gradio's controls and the fields of `FinetuneRequest`. Refuses to know what happens to a request: whatever is
wrong with one is found in the words' own way, and names the control it is wrong in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from studio.errors import PresetError, RequestError, StudioError, WeightsError
from studio.family import FAMILIES, family_of
from studio.preset import Preset, find_preset
from studio.requests import fields
from studio.requests.training import (
    FinetuneRequest,
    TrainingClip,
    check_finetune_request,
    finetune_request_for,
)
from studio.ui.forms.fields import Control, FieldControls
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values

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
    ("wherever there is room", "auto"),
    ("beside the model: memory grows with the clip", "device"),
    ("in main memory", "memory"),
    ("on disk", "disk"),
]
MOST_PROMPTS = 4


class SampleSize(NamedTuple):
    """What a training sample is to be, which decides how many a clip gives; 0 where the form does not say."""

    num_frames: float
    fps: float
    height: float
    width: float


class FinetuneForm:
    """The controls, by field. Made inside a `gr.Blocks`; the layout calls `place_…` where it wants them."""

    decoder: gr.Column
    truncated: gr.Row

    def __init__(self, presets: list[Preset]) -> None:
        fitting = [preset for preset in presets if preset.pipeline in FAMILIES]
        self.presets = sorted(fitting, key=lambda preset: preset.name != "pocket")
        self._fields = FieldControls(FinetuneRequest, elem_prefix="training-")

    @property
    def controls(self) -> dict[str, Control]:
        return self._fields.by_field

    @property
    def first(self) -> Preset | None:
        """What the form starts from."""
        return self.presets[0] if self.presets else None

    @property
    def inputs(self) -> set[Part]:
        """The controls that `request_of` wants the values of."""
        return {*self.controls.values()}

    @property
    def size(self) -> list[Control]:
        """The controls that say what a sample is."""
        return [self.controls[field] for field in SampleSize._fields]

    def place_main(self) -> None:
        place, first = self._fields, self.first
        presets = [(preset.title, preset.name) for preset in self.presets]
        place.choice("preset", choices=presets, value=first.name if first else None)
        self._text("title", placeholder="night rain", info="of the version; empty: the first clip's name")
        offered = _objectives(first)
        place.place(gr.Radio, "objective", choices=offered, value=offered[0][1] if offered else None)
        with gr.Row(elem_classes="numbers"):
            place.number("max_train_steps", step=10, info="more learns more")
            place.number("learning_rate", step=0.0001, info="of AdamW")
            place.number("lora_rank", step=4, info="room to learn")

    def place_more(self) -> None:
        place = self._fields
        pixels = self.controls["objective"].value != "latent"
        with gr.Column(visible=pixels, elem_id="training-decoder") as self.decoder:
            place.place(gr.Radio, "mode", choices=MODES)
            with gr.Row(visible=False, elem_classes="numbers", elem_id="training-window-row") as self.truncated:
                place.number("window", step=1, info="groups of frames together")
                place.number("context", step=1, info="groups before them")
            with gr.Row(elem_classes="numbers"):
                self._text("crop_size", placeholder="whole frames", info="latent pixels; less memory")
                place.number("pixel_weight", step=0.1, info="in a mixed objective")
            with gr.Row(elem_classes="numbers"):
                place.number("structure_weight", step=0.1, info="of 1: SSIM beside L1")
                place.number("perceptual_weight", step=0.1, info="more looks at textures")
            info = "of the decoder, while exact gradients are taken"
            place.choice("keep_caches", info=info, choices=KEPT, filterable=False)
            place.place(gr.Checkbox, "checkpoint_blocks", info="Less memory, more time, the same gradients.")
            place.place(gr.Checkbox, "train_decoder", info="Low rank too, by the pixel loss only.")
        with gr.Row(elem_classes="numbers"):
            self._from_preset("width", step=16, info="pixels")
            self._from_preset("height", step=16, info="pixels")
        with gr.Row(elem_classes="numbers"):
            self._from_preset("num_frames", step=4, info="of a sample; longer clips give several")
            self._from_preset("fps", step=1, info="at which clips are read")
        with gr.Row(elem_classes="numbers"):
            self._text("lora_alpha", placeholder="the rank", info="scale: alpha / rank")
            place.number("gradient_accumulation_steps", step=1, info="steadier, slower")
            place.number("ema_decay", step=0.01, info="0 keeps the last weights")
        with gr.Row(elem_classes="numbers"):
            place.number("prior_loss_weight", step=0.1, info="more forgets less")
            place.number("validation_share", step=0.05, info="of the samples, to score")
            place.number("validation_steps", step=5, info="so many steps")
        with gr.Row(elem_classes="numbers"):
            place.number("checkpointing_steps", step=5, info="steps; most that is lost")
            self._text("seed", placeholder="0", info="of everything drawn")
        info = "generated before and after, one a line, up to four; empty: a held-out caption"
        example = "a red car on a rainy night"
        self._text("sample_prompts", placeholder=example, info=info, lines=2, max_lines=MOST_PROMPTS)

    def _text(self, name: str, **look: Any) -> None:
        self._fields.text(name, min_width=96, **look)

    def _from_preset(self, name: str, **look: Any) -> None:
        self._fields.number(name, value=getattr(self.first.defaults, name) if self.first else None, **look)

    # -- what depends on what -----------------------------------------------------------------------------------------

    def wire(self) -> None:
        controls = self.controls
        changed = [*self.size, controls["objective"]]
        controls["preset"].input(self.starts_from, [controls["preset"], controls["objective"]], changed, **LIGHT)
        controls["objective"].change(self.fits, [controls["objective"]], [self.decoder], **LIGHT)
        controls["mode"].change(self.windows, [controls["mode"]], [self.truncated], **LIGHT)

    def starts_from(self, name: Sent, objective: Sent) -> Updates:
        """A preset was chosen: its size, length and rate, and the objectives that it can be trained with."""
        preset = next((each for each in self.presets if each.name == name), None)
        if preset is None:
            return {}
        offered = _objectives(preset)
        kept = objective if objective in [value for _, value in offered] else offered[0][1]
        defaults = fields.defaults_of(preset, FinetuneRequest)
        updates: Updates = {self.controls[name]: value for name, value in defaults.items()}
        return updates | {self.controls["objective"]: gr.update(choices=offered, value=kept)}

    def fits(self, objective: Sent) -> Updates:
        """Without pixel losses nothing goes through the decoder."""
        return {self.decoder: gr.update(visible=objective != "latent")}

    def windows(self, mode: Sent) -> Updates:
        return {self.truncated: gr.update(visible=mode == "truncated")}

    # -- reading ------------------------------------------------------------------------------------------------------

    def size_of(self, values: Values) -> SampleSize:
        """What a sample is to be."""
        return SampleSize(**{field: _size(values[self.controls[field]]) for field in SampleSize._fields})

    def request_of(self, values: Values, clips: tuple[TrainingClip, ...]) -> tuple[FinetuneRequest, Preset]:
        """What the controls say, checked against the preset that they name.

        Args:
            values: What the browser sent, for `inputs` at least.
            clips: What to learn from.

        Raises:
            StudioError: naming the field at fault.
        """
        written = self._fields.read(values)
        preset = find_preset(str(written.pop("preset")))
        prompts = written["sample_prompts"]
        if isinstance(prompts, tuple) and len(prompts) > MOST_PROMPTS:
            raise RequestError(
                f"{len(prompts)} lines are {len(prompts)} prompts.",
                field="sample_prompts",
                way_out=f"Write {MOST_PROMPTS} at most.",
            )
        written["title"] = str(written["title"]).strip()
        request = finetune_request_for(preset, clips=clips, **written)
        check_finetune_request(request, preset)
        return request, preset


def _size(value: Sent) -> float:
    return value if isinstance(value, (int, float)) and 0 < value < 1e6 else 0


def _objectives(preset: Preset | None) -> list[tuple[str, str]]:
    """What a preset can be trained with, for a choice."""
    offered = family_of(preset.pipeline).objectives if preset else ()
    return [(words, objective) for words, objective in OBJECTIVES if objective in offered]


def finetune_label(error: StudioError) -> str:
    """The label of the control that an error is about."""
    if isinstance(error, (PresetError, WeightsError)):
        return fields.label_of(FinetuneRequest, "preset")
    return fields.label_of(FinetuneRequest, "clips" if error.field.startswith("caption") else error.field)
