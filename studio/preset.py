"""Presets: one TOML file each in `presets/`; the folder is the catalogue.

Knows how a preset is written, checked and listed. Refuses to know torch, diffusers, the network, and what this
machine can run: `pipelines.py` turns a preset into a pipeline and says whether it fits.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from studio.errors import PresetError, UnknownPreset
from studio.family import Checkpoint, family_of, super_resolver_of

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
"""Where `presets/` and `assets/` lie, beside the package."""
MAX_PRESET_BYTES = 64 * 1024
PRESET_NAME = r"^[a-z0-9][a-z0-9._-]*$"
ENLARGERS = "super-resolution"
"""The folder, within that of the presets, of those that enlarge clips."""

Task = Literal["text-to-video", "driving", "super-resolution"]
"""What a model is offered for; driving: clips that are held to maps, and that continue others."""
Dtype = Literal["float32", "bfloat16", "float16"]
Side = Literal["height", "width"]
SIDES: tuple[Side, ...] = ("height", "width")
"""Of a frame; some models take other lengths for the one than for the other."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Weights(_Part):
    """Where a checkpoint is and under which terms: a folder of this project, a repository on the Hub, or a package."""

    folder: str | None = None
    """Path below the project folder, for checkpoints that ship with the studio."""
    repo: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository id on the Hub."""
    package: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    """A Python package that brings its weights with it."""
    extra: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    """The extra of this project by which that package is installed."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """The commit to load, 40 hexadecimal digits. Unset means unverified: the newest is taken, and runs record it."""
    subfolder: str | None = Field(default=None, pattern=r"^\w[\w.-]*$")
    """The folder of the repository that the checkpoint lies in; unset where it is the repository itself."""
    variant: str | None = Field(default=None, pattern=r"^[a-z0-9]+$")
    """Which of several precisions the repository keeps side by side (`name.<variant>.safetensors`); where a component
    has no file of that variant, its plain ones are taken. Or which of a package's networks."""
    licence: str
    """SPDX name, or the licence's own name where SPDX has none."""
    licence_note: str = ""
    """Terms a person should know before downloading: gating, territories, revenue limits."""

    @property
    def below(self) -> str:
        """What a checkpoint's paths begin with in its repository."""
        return f"{self.subfolder}/" if self.subfolder else ""

    @model_validator(mode="after")
    def _one_place(self) -> Weights:
        if [self.folder, self.repo, self.package].count(None) != 2:
            raise ValueError("give exactly one of `folder`, `repo` and `package`")
        return self


class SizeRule(_Part):
    """Which heights and widths the model takes, in pixels."""

    multiple_of: int = Field(ge=1)
    minimum: int = Field(ge=1)
    """Smallest height or width."""
    maximum: int = Field(ge=1)
    """Largest height or width."""
    max_pixels: int | None = None
    """Largest height × width."""
    heights: tuple[int, ...] = ()
    """The only heights there are, for a model that takes no others; empty where the grid above is the whole rule."""
    widths: tuple[int, ...] = ()
    """The only widths there are, likewise."""
    native: tuple[tuple[int, int], ...] = ()
    """(height, width) pairs the model was trained at; others work less well."""

    def nearest(self, pixels: int, side: Side) -> tuple[int, ...]:
        """The valid lengths of that side just below and just above `pixels` (one where they are the same)."""
        if only := sorted(self.heights if side == "height" else self.widths):
            below = max((length for length in only if length <= pixels), default=only[0])
            above = min((length for length in only if length >= pixels), default=only[-1])
        else:
            low_end = -(-self.minimum // self.multiple_of) * self.multiple_of
            high_end = self.maximum // self.multiple_of * self.multiple_of
            below = min(max(pixels // self.multiple_of * self.multiple_of, low_end), high_end)
            above = min(max(-(-pixels // self.multiple_of) * self.multiple_of, low_end), high_end)
        return (below,) if below == above else (below, above)


class FrameRule(_Part):
    """Which clip lengths the model takes: `multiple_of` × k + `offset`, in frames."""

    multiple_of: int = Field(ge=1)
    offset: int = Field(ge=0)
    minimum: int = Field(ge=1)
    maximum: int = Field(ge=1)
    native: int | None = None
    """The length the model was trained at."""

    def nearest(self, frames: int) -> tuple[int, ...]:
        """The valid lengths just below and just above `frames` (one where they are the same)."""
        step, offset = self.multiple_of, self.offset
        low_end = -(-(self.minimum - offset) // step) * step + offset
        high_end = (self.maximum - offset) // step * step + offset
        below = min(max((frames - offset) // step * step + offset, low_end), high_end)
        above = min(max(-(-(frames - offset) // step) * step + offset, low_end), high_end)
        return (below,) if below == above else (below, above)


class Memory(_Part):
    """What the model weighs; gigabytes are 10⁹ bytes."""

    transformer_parameters: int = Field(ge=1)
    text_encoder_parameters: int = Field(ge=0)
    vae_parameters: int = Field(ge=0)
    min_vram_gb: float | None = None
    """The least accelerator memory reported to work, offloading included; None where nobody has said."""
    denoise_bytes: int = Field(default=120, ge=1)
    """Working memory of a 16-bit transformer for each pixel of the whole clip."""
    decode_bytes: int = Field(default=20_000, ge=0)
    """Working memory of the float32 autoencoder for each pixel of a frame, however long the clip is."""
    decode_clip_bytes: int = Field(default=0, ge=0)
    """The same for each pixel of the whole clip, where the autoencoder decodes all frames at once."""
    tile_pixels: int = Field(default=256 * 256, ge=1)
    """Pixels of the tiles that the autoencoder decodes in where a whole frame is too much."""
    source: str
    """Where these figures come from."""

    @property
    def parameters(self) -> int:
        return self.transformer_parameters + self.text_encoder_parameters + self.vae_parameters


class Defaults(_Part):
    """What a form starts from."""

    height: int
    width: int
    num_frames: int
    fps: float = Field(gt=0, le=120)
    num_inference_steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=50)
    flow_shift: float | None = Field(default=None, gt=0, le=50)
    """Shift of the flow schedule; None where the scheduler has none or sets its own."""
    negative_prompt: str = ""
    max_sequence_length: int | None = Field(default=None, ge=1, le=4096)
    """Prompt length in tokens that the model was trained with; None takes the pipeline's own."""
    prompts: tuple[str, ...] = ()
    """Examples worth trying."""


class AnyPreset(_Part):
    """What every model has that the studio offers."""

    name: str = Field(pattern=PRESET_NAME)
    """The file's name without its ending."""
    title: str
    summary: str
    """One or two sentences for the card."""
    tasks: tuple[Task, ...]
    pipeline: str = Field(pattern=r"^[A-Z]\w+Pipeline$")
    """The diffusers class, or one of the studio's own."""
    torch_dtype: Dtype
    """What the weights are meant to run in on an accelerator."""
    weights: Weights

    @field_validator("tasks")
    @classmethod
    def _some_task(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        if not tasks:
            raise ValueError("name at least one task")
        if "super-resolution" in tasks and len(tasks) > 1:
            raise ValueError("a model that enlarges clips does nothing else")
        return tasks

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the preset's meaning (not of its spelling): runs record it."""
        # A field that came later must not give those presets another digest that do without it.
        later = {name for name in ("extra", "package", "subfolder") if getattr(self.weights, name) is None}
        return hashlib.sha256(self.model_dump_json(exclude={"weights": later}).encode()).hexdigest()

    @property
    def checkpoint(self) -> Checkpoint:
        """What its folder of weights holds.

        Raises:
            PresetError: of a pipeline class the studio does not call.
        """
        return (super_resolver_of if "super-resolution" in self.tasks else family_of)(self.pipeline)

    @property
    def weights_folder(self) -> Path | None:
        """The folder of weights that ship with the studio; None for those on the Hub."""
        return None if self.weights.folder is None else PROJECT_FOLDER / self.weights.folder


class EnlargerMemory(_Part):
    """What a model that enlarges weighs."""

    parameters: int = Field(ge=1)
    """Of all its components."""
    first_parameters: int = Field(default=0, ge=0)
    """Of these, what works before all else and may be moved away then: a text encoder, an upscaler of latents."""
    vae_parameters: int = Field(default=0, ge=0)
    """Of these, the autoencoder's."""
    denoise_bytes: int = Field(default=120, ge=1)
    """Working memory of a 16-bit transformer for each pixel of a window."""
    decode_bytes: int = Field(default=20_000, ge=0)
    """Working memory of the float32 autoencoder for each pixel of a frame, however long the window is."""
    uncompiled_bytes: int = Field(default=0, ge=0)
    """What attention takes besides where its blocks are not compiled: all scores of a window."""
    source: str
    """Where these figures come from."""


class Window(_Part):
    """How much of a clip a model is given at once, for models that work on several pictures together."""

    height: int = Field(ge=16)
    """Of a tile, enlarged; larger pictures are made in several."""
    width: int = Field(ge=16)
    num_frames: int = Field(ge=1)
    num_inference_steps: int = Field(default=1, ge=1, le=100)
    """For a tile."""


class EnlargerPreset(AnyPreset):
    """One model that enlarges clips."""

    scales: tuple[Literal[2, 4], ...]
    """How many times as large it makes a picture."""
    restores: bool = False
    """Whether it also mends what was degraded, where that is asked for."""
    details: bool = False
    """Whether a knob says how much it makes up where it restores."""
    memory: EnlargerMemory
    window: Window | None = None
    """None for a model that goes from picture to picture."""
    notes: str = ""
    """What a person should know: what is unverified, what is odd."""

    def as_clip_maker(self, *, held_besides: int = 0) -> Preset:
        """The same model as one that makes a clip of its window's size: so it is placed and loaded.

        Args:
            held_besides: Bytes for each pixel of a window, while it denoises in 16 bits.

        Raises:
            PresetError: it has no window.
        """
        if self.window is None:
            raise PresetError(f"{self.title} says no window.", field="window", way_out="Name one in its preset.")
        height, width, num_frames = self.window.height, self.window.width, self.window.num_frames
        memory = self.memory
        return Preset(
            **self.model_dump(include=set(AnyPreset.model_fields)),
            size=SizeRule(multiple_of=1, minimum=1, maximum=max(height, width)),
            frames=FrameRule(multiple_of=1, offset=0, minimum=1, maximum=num_frames),
            memory=Memory(
                transformer_parameters=memory.parameters - memory.first_parameters - memory.vae_parameters,
                text_encoder_parameters=memory.first_parameters,
                vae_parameters=memory.vae_parameters,
                denoise_bytes=memory.denoise_bytes + held_besides,
                decode_bytes=memory.decode_bytes,
                source=memory.source,
            ),
            defaults=Defaults(
                height=height,
                width=width,
                num_frames=num_frames,
                fps=24,
                num_inference_steps=self.window.num_inference_steps,
                guidance_scale=1.0,
            ),
            notes=self.notes,
        )


class Preset(AnyPreset):
    """One model that makes clips."""

    size: SizeRule
    frames: FrameRule
    memory: Memory
    defaults: Defaults
    notes: str = ""
    """What a person should know: what is unverified, what is odd."""

    @model_validator(mode="after")
    def _defaults_on_grid(self) -> Preset:
        for field in SIDES:
            value = getattr(self.defaults, field)
            if self.size.nearest(value, field) != (value,):
                raise ValueError(f"defaults.{field} = {value} is off the preset's own grid")
        if self.frames.nearest(self.defaults.num_frames) != (self.defaults.num_frames,):
            raise ValueError(f"defaults.num_frames = {self.defaults.num_frames} is off the preset's own grid")
        return self


PresetKind = TypeVar("PresetKind", bound=AnyPreset)


def presets_folder() -> Path:
    """The catalogue: `$DAILIES_PRESETS`, or `presets/` beside the package."""
    chosen = os.environ.get("DAILIES_PRESETS")
    return Path(chosen) if chosen else PROJECT_FOLDER / "presets"


def read_preset(path: Path) -> Preset:
    """Read and check one preset file.

    Raises:
        PresetError: unreadable, not TOML, unknown keys (the known ones are named), or values that do not fit.
    """
    return _read(path, Preset)


def _read(path: Path, kind: type[PresetKind]) -> PresetKind:
    """A preset of that kind from its file.

    Raises:
        PresetError: unreadable, not TOML, unknown keys (the known ones are named), or values that do not fit.
    """
    try:
        if path.stat().st_size > MAX_PRESET_BYTES:
            raise PresetError(
                f"Preset {path.name} is larger than {MAX_PRESET_BYTES // 1024} kB.",
                field=str(path),
                way_out="A preset is a page of TOML.",
            )
        written: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise PresetError(
            f"Preset {path.name} cannot be read: {error}.", field=str(path), way_out="Mend the file or remove it."
        ) from error
    try:
        preset = kind.model_validate({"name": path.stem} | written)
    except ValidationError as error:
        raise PresetError(_explain(path.name, error, kind), field=str(path)) from error
    if preset.name != path.stem:
        raise PresetError(
            f"Preset {path.name} calls itself {preset.name!r}.",
            field="name",
            value=preset.name,
            way_out=f"Leave `name` out, or rename the file {preset.name}.toml.",
        )
    return preset


def _explain(file_name: str, error: ValidationError, kind: type[AnyPreset]) -> str:
    """Every fault in one line; an unknown key is answered with the keys known at that place."""
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"]) or "the file"
        if fault["type"] == "extra_forbidden":
            known = ", ".join(_keys_at(fault["loc"][:-1], kind))
            faults.append(f"unknown key `{place}` (known here: {known})")
        else:
            faults.append(f"`{place}`: {fault['msg']}")
    return f"Preset {file_name}: " + "; ".join(faults) + "."


def _keys_at(location: tuple[int | str, ...], kind: type[AnyPreset]) -> list[str]:
    part: type[BaseModel] = kind
    for key in location:
        for candidate in _models_in(part.model_fields[str(key)].annotation):
            part = candidate
    return sorted(part.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]


def list_presets(folder: Path | None = None) -> tuple[list[Preset], list[PresetError]]:
    """The catalogue in alphabetical order with the pocket models first, and the files that could not be read."""
    return _listed(folder or presets_folder(), Preset)


def list_enlargers(folder: Path | None = None) -> tuple[list[EnlargerPreset], list[PresetError]]:
    """The models that enlarge, likewise."""
    return _listed((folder or presets_folder()) / ENLARGERS, EnlargerPreset)


def _listed(folder: Path, kind: type[PresetKind]) -> tuple[list[PresetKind], list[PresetError]]:
    presets: list[PresetKind] = []
    faults: list[PresetError] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            presets.append(_read(path, kind))
        except PresetError as fault:
            faults.append(fault)
    presets.sort(key=lambda preset: (preset.weights.folder is None, preset.name))
    return presets, faults


def find_preset(name: str, folder: Path | None = None) -> Preset:
    """The preset of that name.

    Raises:
        UnknownPreset: there is none; the message names those there are.
        PresetError: there is one and it cannot be read.
    """
    return _found(name, folder or presets_folder(), Preset)


def find_enlarger(name: str, folder: Path | None = None) -> EnlargerPreset:
    """The model of that name that enlarges. Raises as `find_preset`."""
    return _found(name, (folder or presets_folder()) / ENLARGERS, EnlargerPreset)


def find_any(name: str, folder: Path | None = None) -> Preset | EnlargerPreset:
    """The model of that name, whatever it does; one that makes clips before one that enlarges them. Raises as
    `find_preset`."""
    try:
        return find_preset(name, folder)
    except UnknownPreset as unknown:
        try:
            return find_enlarger(name, folder)
        except UnknownPreset as neither:
            unknown.way_out = f"{unknown.way_out} Or, to enlarge: {neither.way_out}"
            raise unknown from None


def _found(name: str, folder: Path, kind: type[PresetKind]) -> PresetKind:
    names = sorted(file.stem for file in folder.glob("*.toml"))
    if name not in names:
        raise UnknownPreset(
            f"No preset is called {name[:80]!r}.",
            field="preset",
            value=name,
            way_out=f"Choose one of: {', '.join(names)}.",
        )
    return _read(folder / f"{name}.toml", kind)
