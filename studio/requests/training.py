"""FinetuneRequest: all that is needed to fine-tune again, and how it is held against a preset.

Knows fields, ranges and grids. Refuses to know how training is carried out. Nothing is silently corrected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from studio.errors import RequestError
from studio.family import family_of
from studio.preset import SIDES, Preset
from studio.requests.checks import check_on_grid, check_prompt
from studio.requests.fields import defaults_of
from studio.requests.generation import MAX_SEED, fault_in, record_of

Objective = Literal["latent", "pixel", "mixed"]
MAX_CLIPS = 50


class TrainingClip(BaseModel):
    """One clip to learn from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: Path
    """The file."""
    caption: str
    """What is to be seen, as a prompt would say it."""
    origin: str = ""
    """Where it comes from, as the user states it."""
    licence: str = ""
    """Under which terms, as the user states it."""
    held_out: bool | None = None
    """Whether it is for scoring only; None lets the split decide."""


class FinetuneRequest(BaseModel):
    """One fine-tune: a preset, clips, and how to learn from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    preset: str
    """Name of the preset that is fine-tuned."""
    clips: tuple[TrainingClip, ...] = Field(min_length=1, max_length=MAX_CLIPS)
    """What to learn from."""
    title: str = Field(default="", max_length=120)
    """How the version is called; empty takes the first clip's name."""
    height: int = Field(ge=1, le=8192)
    """Rows of a frame in training; clips are cut to the shape and resized."""
    width: int = Field(ge=1, le=8192)
    num_frames: int = Field(title="Frames", ge=1, le=2000)
    """Frames of a training sample; longer clips give several."""
    fps: float = Field(title="Frames a second", gt=0, le=120)
    """Frames a second; clips at other rates are read at this one."""
    objective: Objective = "mixed"
    """latent: the model's own loss, fast, blind to what the decoder does. pixel: distance of decoded frames, taken
    through the decoder. mixed: both."""
    pixel_weight: float = Field(default=1.0, ge=0, le=1000)
    """Of the pixel loss in a mixed objective; larger follows pixels more."""
    structure_weight: float = Field(default=0.2, ge=0, le=1)
    """Share of the structural term (1 - SSIM) in the pixel loss; the rest is L1."""
    perceptual_weight: float = Field(title="LPIPS weight", default=0.0, ge=0, le=10)
    """Of LPIPS beside these in the pixel loss: more looks at textures than at levels. Needs torchvision and AlexNet's
    weights on this machine."""
    mode: Literal["exact", "truncated", "full"] = Field(default="exact", title="Gradients through the decoder")
    """How gradients go through the decoder: exact is right and lean; truncated for very long clips; full for
    reference, with memory that grows with the clip."""
    window: int = Field(default=1, ge=1, le=100)
    """Truncated: groups of frames whose loss is propagated together."""
    context: int = Field(default=1, ge=0, le=100)
    """Truncated: groups before the window that gradients still reach."""
    keep_caches: Literal["auto", "device", "memory", "disk"] = Field(default="auto", title="Caches meanwhile")
    """Exact: where the decoder's caches lie meanwhile. auto: beside the model where its memory has room for them, or
    else in main memory, or else on disk. device: beside the model, memory grows with the clip."""
    checkpoint_blocks: bool = Field(default=False, title="Compute activations again")
    """Compute activations again instead of keeping them: less memory, more time, the same gradients."""
    crop_size: int | None = Field(title="Crop", default=None, ge=1, le=1024)
    """Edge, in latent pixels, of the square of each sample that pixel losses look at, drawn anew each step; None takes
    whole frames. Smaller needs less memory and time."""
    lora_rank: int = Field(title="LoRA rank", default=16, ge=1, le=256)
    """Rank of the low-rank update of the denoiser; more can learn more, and forget more."""
    lora_alpha: int | None = Field(title="LoRA alpha", default=None, ge=1, le=1024)
    """Scale of the update: alpha / rank; None takes the rank."""
    train_decoder: bool = Field(default=False, title="Train the decoder as well")
    """Whether the autoencoder's decoder learns as well (low rank, pixel losses only)."""
    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of AdamW, after a short rise; absurdly large values end in NaN, which stops the training."""
    max_train_steps: int = Field(title="Steps", default=100, ge=1, le=100_000)
    """Optimizer steps."""
    gradient_accumulation_steps: int = Field(title="Samples a step", default=1, ge=1, le=256)
    """Samples that make one optimizer step."""
    ema_decay: float = Field(title="Average decay", default=0.95, ge=0, lt=1)
    """Of the moving average of the weights, which is what is kept; 0 keeps the last weights."""
    prior_loss_weight: float = Field(title="Prior weight", default=0.0, ge=0, le=100)
    """Holds the model to what it made before of prompts that are not in the clips: more forgets less."""
    validation_share: float = Field(title="Held out", default=0.2, ge=0, le=0.5)
    """Share of the samples held out for scoring."""
    validation_steps: int = Field(title="Score every", default=25, ge=1)
    """Steps between scorings."""
    sample_prompts: tuple[str, ...] = Field(default=(), max_length=4)
    """What is generated before and after, at the request's seed; empty takes the first held-out caption."""
    checkpointing_steps: int = Field(title="Checkpoint every", default=10, ge=1)
    """Steps between checkpoints: at most so many are lost if the machine goes down."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Of everything that is drawn."""


def finetune_request_for(preset: Preset, *, clips: tuple[TrainingClip, ...], **fields: Any) -> FinetuneRequest:
    """The preset's size, length and rate with the given fields over them; a field that is None keeps its default.

    The objective is mixed where the preset can be trained with it.

    Raises:
        RequestError: a field nobody knows, or a value out of range.
    """
    defaults = defaults_of(preset, FinetuneRequest)
    if family_of(preset.pipeline).objectives == ("latent",):
        defaults["objective"] = "latent"
    chosen = {name: value for name, value in fields.items() if value is not None}
    return read_finetune_request(defaults | chosen | {"preset": preset.name, "clips": clips})


def read_finetune_request(written: dict[str, Any] | str | bytes) -> FinetuneRequest:
    """A request from a record or JSON that came from outside.

    Raises:
        RequestError: not JSON, a field nobody knows, or a value out of range; the field is named.
    """
    written = record_of(written)
    try:
        return FinetuneRequest.model_validate(written)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["loc"] == ("clips",) and fault["type"] in ("too_short", "too_long"):
            raise RequestError(
                f"{len(written.get('clips') or ())} clips were given.",
                field="clips",
                way_out=f"Give 1 to {MAX_CLIPS} clips.",
            ) from error
        raise fault_in(FinetuneRequest, written, error) from error


RecordedTraining: TypeAlias = Annotated[FinetuneRequest, BeforeValidator(read_finetune_request)]
"""A request as a field of something that is written down."""


def check_finetune_request(request: FinetuneRequest, preset: Preset) -> None:
    """Hold a request against its preset.

    Raises:
        GridError: a size or length off the preset's grid; the nearest valid ones are named.
        PromptError: a caption that is no prompt.
        PresetError: a pipeline that the studio does not know.
        RequestError: a preset that cannot be trained so, or every clip is held out.
    """
    family = family_of(preset.pipeline)
    if request.objective not in family.objectives:
        raise RequestError(
            f"{preset.title} decodes a clip as a whole, so that no gradient of pixels is taken through its decoder.",
            field="objective",
            value=request.objective,
            way_out="Set it to latent, the model's own loss.",
        )
    if request.crop_size is not None and request.objective != "latent" and family.decoding == "fixed tiles":
        raise RequestError(
            f"{preset.title} decodes in tiles of a fixed size, and a crop would fill none.",
            field="crop_size",
            value=request.crop_size,
            way_out="Leave it empty: the loss looks at whole frames, a row of tiles at a time.",
        )
    if request.train_decoder and not family.decoder_lora:
        raise RequestError(
            f"The decoder of {preset.title} cannot be trained here.",
            field="train_decoder",
            value=True,
            way_out="Set it to false: the denoiser learns alone.",
        )
    for side in SIDES:
        length = getattr(request, side)
        check_on_grid(side, length, preset.size.nearest(length, side), preset)
    check_on_grid("num_frames", request.num_frames, preset.frames.nearest(request.num_frames), preset)
    if all(clip.held_out for clip in request.clips):
        raise RequestError(
            "Every clip is marked as held out, so that nothing is left to train on.",
            field="clips",
            way_out="Leave at least one clip unmarked.",
        )
    for clip in request.clips:
        check_prompt(clip.caption, field=f"caption of {clip.path.name}")
    for prompt in request.sample_prompts:
        check_prompt(prompt, field="sample_prompts")
