"""Versions of models that enlarge: what fine-tuning them made. One folder each.

    .enlarger-versions/<id>/
        version.json    the record: request, scores, state
        network/        the weights, as diffusers saves them
        state.pt        to go on from; removed when the version is complete
        log.jsonl       what the training said

Knows folders and records. Refuses to know torch, and how training works.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studio.errors import ErrorRecord, VersionError
from studio.records.folders import FolderStore, new_id
from studio.requests.enlarger_training import EnlargerTraining, RecordedEnlargerTraining

EnlargerVersionState = Literal["waiting", "training", "stopped", "complete", "failed"]
FOLDER, NETWORK, STATE = ".enlarger-versions", "network", "state.pt"


@dataclass(frozen=True, kw_only=True)
class EnlargerVersion:
    """A fine-tune and what became of it."""

    id: str
    created: str
    """ISO 8601, UTC."""
    state: EnlargerVersionState
    owner: str
    request: RecordedEnlargerTraining
    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Spent on them."""
    samples: int = 0
    """Stretches of clips that were learnt from."""
    base_psnr: dict[str, float] = field(default_factory=dict)
    """By scale, in dB, of held-out stretches: the model as it was."""
    psnr: dict[str, float] = field(default_factory=dict)
    """The same of what is kept."""
    held_out: bool = True
    """Whether those figures are of stretches that were not trained on; very few leave nothing to hold out."""
    notices: tuple[str, ...] = ()
    error: ErrorRecord | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.request.title or self.request.clips[0].path.stem

    @property
    def worse_than_base(self) -> bool:
        """Whether it enlarges held-out stretches worse than the model it came from, on the mean over scales."""
        gains = [self.psnr[scale] - before for scale, before in self.base_psnr.items() if scale in self.psnr]
        return bool(gains) and sum(gains) < 0


class EnlargerVersionStore(FolderStore[EnlargerVersion]):
    """All such versions in a runs folder."""

    kind = EnlargerVersion
    noun = "version"
    record_name = "version.json"
    lock_name = "training.lock"
    fault = VersionError
    listed_by = "python -m studio enlarger-versions"

    def __init__(self, runs_folder: Path) -> None:
        super().__init__(runs_folder / FOLDER)

    def begin(self, request: EnlargerTraining, *, owner: str) -> EnlargerVersion:
        """A folder for a new version, with its request in it.

        Raises:
            DiskFull: no room.
        """
        version_id, created = new_id()
        version = EnlargerVersion(id=version_id, created=created, state="waiting", owner=owner, request=request)
        self.add(version)
        return version

    def list(self, *, owner: str | None = None) -> list[EnlargerVersion]:
        """All that can be read and seen, newest first."""
        return [each for each in self.every() if owner in (None, each.owner)]

    def state_of(self, version: EnlargerVersion) -> EnlargerVersionState:
        """What is so by now: one that was being trained when its process died was stopped."""
        if version.state != "training" or self.is_held(version.id):
            return version.state
        return "stopped"

    def network(self, version_id: str, *, method: str, restore: bool) -> Path:
        """The folder of a version's weights, for a request that asks for that.

        Raises:
            VersionError: no such version, none of that model or task, or no weights yet.
        """
        version = self.get(version_id)
        if version.request.method != method or version.request.restore != restore:
            task = "restores" if version.request.restore else "enlarges"
            raise VersionError(
                f"Version {version_id} is one of {version.request.method} that {task}.",
                field="adapter",
                value=version_id,
                way_out=f"Choose the method {version.request.method}, "
                f"and set restore to {str(version.request.restore).lower()}.",
            )
        folder = self.path(version_id) / NETWORK
        if not folder.is_dir():
            raise VersionError(
                f"Version {version_id} has no weights yet.",
                field="adapter",
                value=version_id,
                way_out="Let it train to a checkpoint first.",
            )
        return folder

    def delete(self, version_id: str) -> None:
        """Remove one for good.

        Raises:
            VersionError: there is none, or it is being trained.
        """
        self.get(version_id)
        lock = self.lock(version_id)
        if not lock.try_acquire():
            raise VersionError(
                f"Version {version_id} is being trained.", field="version", value=version_id, way_out="Stop it first."
            )
        try:
            shutil.rmtree(self.path(version_id))
        finally:
            lock.release()
