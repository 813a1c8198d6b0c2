"""Versions: what fine-tuning made. One folder each, with everything that it takes to use, judge and repeat it.

    .versions/<id>/
        version.json                        the record: request, clips, scores, state
        README.md                           model card in the Hub's format
        pytorch_lora_weights.safetensors    diffusers' LoRA format
        pytorch_lora_weights_2.safetensors  the same for a second denoiser, where there is one
        decoder_lora.safetensors            where the decoder learnt as well
        state.pt, samples.safetensors       to go on from; removed when the version is complete
        log.jsonl                           what the training said
        clips/                              generated before and after

For every preset one version at most is promoted: it is what new requests start from. Promotions are remembered in
order, so that one can be rolled back. Knows folders and records. Refuses to know torch, and how training works.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studio.errors import ErrorRecord, VersionError
from studio.records.folders import FolderStore, new_id
from studio.requests.training import FinetuneRequest, RecordedTraining
from studio.storage import write_atomically

VersionState = Literal["waiting", "training", "stopped", "complete", "failed"]
FOLDER = ".versions"
LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_2_FILE = "pytorch_lora_weights_2.safetensors"
DECODER_FILE = "decoder_lora.safetensors"


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What is known of a clip that was learnt from, or left out."""

    name: str
    sha256: str
    caption: str
    origin: str
    licence: str
    width: int
    height: int
    fps: float
    seconds: float
    samples: int
    """Training samples that it gave, held-out ones included; 0 where it was left out."""
    held_out: int
    """Of these, how many were held out."""
    left_out: str = ""
    """Why it was left out; empty where it was not."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well held-out samples are denoised in one step, at fixed noise."""

    psnr: float
    """Decibels of decoded one-step estimates against the clips, mean over samples and noise levels."""
    pixel: float
    """The pixel loss on the same samples, whatever the objective was."""
    latent: float
    """The model's own loss on the same samples."""
    objective: float
    """What the objective makes of these two."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A fine-tune and what became of it."""

    id: str
    created: str
    """ISO 8601, UTC."""
    state: VersionState
    request: RecordedTraining
    preset_digest: str
    base: str = ""
    """SHA-256 of the base denoiser's weights file names and sizes: an adapter fits no other model."""
    clips: tuple[ClipRecord, ...] = ()
    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Spent on them."""
    peak_bytes: int = 0
    base_scores: Scores | None = None
    """Of the model as it was."""
    scores: Scores | None = None
    """Of what is kept."""
    held_out: bool = True
    """Whether scores are of samples that were not trained on; very few clips leave nothing to hold out."""
    notices: tuple[str, ...] = ()
    error: ErrorRecord | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.request.title or self.request.clips[0].path.stem

    @property
    def worse_than_base(self) -> bool:
        """Whether it denoises held-out clips worse than the model it came from."""
        return self.scores is not None and self.base_scores is not None and self.scores.psnr < self.base_scores.psnr


class VersionStore(FolderStore[Version]):
    """All versions in a runs folder."""

    kind = Version
    noun = "version"
    record_name = "version.json"
    lock_name = "training.lock"
    fault = VersionError
    listed_by = "python -m studio versions"

    def __init__(self, runs_folder: Path) -> None:
        super().__init__(runs_folder / FOLDER)

    def begin(self, request: FinetuneRequest, *, preset_digest: str) -> Version:
        """A folder for a new version, with its request in it.

        Raises:
            DiskFull: no room.
        """
        version_id, created = new_id()
        version = Version(id=version_id, created=created, state="waiting", request=request, preset_digest=preset_digest)
        self.add(version)
        return version

    def list(self, *, preset: str | None = None) -> list[Version]:
        """All that can be read, newest first."""
        return [version for version in self.every() if preset in (None, version.request.preset)]

    def delete(self, version_id: str) -> None:
        """Remove a version; one that is promoted is rolled back first.

        Raises:
            VersionError: there is none, or it is being trained.
        """
        version = self.get(version_id)
        lock = self.lock(version_id)
        if not lock.try_acquire():
            raise VersionError(
                f"Version {version_id} is being trained.", field="version", value=version_id, way_out="Stop it first."
            )
        lock.release()
        promoted = [each for each in self._promotions(version.request.preset) if each != version_id]
        self._write_promotions(version.request.preset, promoted)
        shutil.rmtree(self.path(version_id))

    def state_of(self, version: Version) -> VersionState:
        """What is so by now: one that was being trained when its process died was stopped."""
        if version.state != "training" or self.is_held(version.id):
            return version.state
        return "stopped"

    # -- which one is in use ------------------------------------------------------------------------------------------

    def promoted(self, preset: str) -> Version | None:
        """The version that new requests of a preset start from; None for the model as it came."""
        for version_id in reversed(self._promotions(preset)):
            try:
                return self.get(version_id)
            except VersionError:
                continue
        return None

    def promote(self, version_id: str) -> Version:
        """Let new requests of its preset start from this version.

        Raises:
            VersionError: there is none, or it has no weights yet.
        """
        version = self.get(version_id)
        if not self.usable(version_id):
            raise VersionError(
                f"Version {version_id} has no weights to use yet.",
                field="version",
                value=version_id,
                way_out="Let it train to a checkpoint first.",
            )
        preset = version.request.preset
        self._write_promotions(preset, [*(each for each in self._promotions(preset) if each != version_id), version_id])
        return version

    def roll_back(self, preset: str) -> Version | None:
        """Undo the last promotion.

        Returns:
            What is promoted now; None for the model as it came.

        Raises:
            VersionError: nothing is promoted.
        """
        promotions = self._promotions(preset)
        if not promotions:
            raise VersionError(f"No version of {preset} is promoted.", field="preset", value=preset)
        self._write_promotions(preset, promotions[:-1])
        return self.promoted(preset)

    def usable(self, version_id: str) -> bool:
        """Whether there are weights of it to generate with."""
        return (self.path(version_id) / LORA_FILE).is_file()

    def adapter_folder(self, version_id: str, preset: str) -> Path:
        """The folder whose weights a request of that preset may name.

        Raises:
            VersionError: no such version, no weights in it, or a version of another preset.
        """
        version = self.get(version_id)
        if version.request.preset != preset:
            raise VersionError(
                f"Version {version_id} is one of {version.request.preset}, not of {preset}.",
                field="adapter",
                value=version_id,
                way_out=f"Choose the preset {version.request.preset}.",
            )
        if not self.usable(version_id):
            raise VersionError(f"Version {version_id} has no weights yet.", field="adapter", value=version_id)
        return self.path(version_id)

    def _promotions(self, preset: str) -> list[str]:
        try:
            return list(json.loads((self.folder / "promoted.json").read_text(encoding="utf-8")).get(preset, ()))
        except (OSError, ValueError, AttributeError, TypeError):
            return []

    def _write_promotions(self, preset: str, ids: list[str]) -> None:
        path = self.folder / "promoted.json"
        try:
            every = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            every = {}
        every = every if isinstance(every, dict) else {}
        write_atomically(path, json.dumps(every | {preset: ids}, indent=1).encode())
