"""What can go wrong, drawn as one tree; every error says which field, which value, and the way out.

    StudioError
    ├── RequestError          what was asked for cannot be done as asked
    │   ├── GridError         a size or frame count off the model's grid; names the nearest valid ones
    │   └── PromptError       a prompt that is empty, too long, or not text
    ├── PresetError           a preset file that cannot be read, or has keys nobody knows
    │   └── UnknownPreset     no preset of that name
    ├── WeightsError          a checkpoint that cannot be used
    │   ├── WeightsMissing    not on this machine yet
    │   ├── WeightsCorrupt    damaged, incomplete, or not what its checksums say
    │   └── DownloadError     the hub could not be reached, refused, or the download was cancelled
    ├── ClipError             a clip that cannot be read or written
    │   └── ClipRefused       a clip that the guarded loader will not open, with the reason
    ├── MachineError          this machine cannot do it
    │   ├── OutOfMemory
    │   ├── DiskFull
    │   ├── StorageError      a file or folder that cannot be written
    │   └── DoesNotFit        predicted before starting: the model needs more than there is
    ├── NumericalError        NaN or infinity where pictures should be
    ├── RunError              a stored run that is missing, half-written or not yours
    ├── VersionError          the same of a fine-tuned version
    ├── ComparisonError       the same of a comparison
    ├── EnlargementError      the same of an enlargement
    ├── MapsError             the same of maps, and a file of maps that cannot be read
    ├── InsertionError        the same of a vehicle put into a clip, and a picture of one that cannot be read
    └── JobError              a job that cannot be queued, moved or cancelled

Knows nothing but words. Refuses to know torch, diffusers, gradio and HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

ErrorRecord: TypeAlias = dict[str, str | int | float | bool | None]
"""What `StudioError.to_json` writes down."""


class StudioError(Exception):
    """Base of everything the studio raises on purpose.

    Args:
        message: One sentence a person can act on.
        field: The field, file or flag at fault, as the person knows it; empty when there is none.
        value: What was found there.
        way_out: What to do instead.
    """

    code: ClassVar[str] = "studio_error"
    """Stable word for programs (`--json`, job records)."""
    exit_status: ClassVar[int] = 1
    """What the command line exits with."""

    def __init__(self, message: str, *, field: str = "", value: Any = None, way_out: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.message} {self.way_out}".strip()

    def to_json(self) -> ErrorRecord:
        """As a record that `from_json` reads back; the value is shortened to what a person would read."""
        shown = self.value if isinstance(self.value, (int, float, bool, type(None))) else str(self.value)[:200]
        return {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "value": shown,
            "way_out": self.way_out,
        }


class RequestError(StudioError):
    code = "request"
    exit_status = 2


class GridError(RequestError):
    code = "grid"


class PromptError(RequestError):
    code = "prompt"


class PresetError(StudioError):
    code = "preset"
    exit_status = 3


class UnknownPreset(PresetError):
    code = "unknown_preset"


class WeightsError(StudioError):
    code = "weights"
    exit_status = 4


class WeightsMissing(WeightsError):
    code = "weights_missing"


class WeightsCorrupt(WeightsError):
    code = "weights_corrupt"


class DownloadError(WeightsError):
    code = "download"


class ClipError(StudioError):
    code = "clip"
    exit_status = 5


class ClipRefused(ClipError):
    code = "clip_refused"


class MachineError(StudioError):
    code = "machine"
    exit_status = 6


class OutOfMemory(MachineError):
    code = "out_of_memory"


class DiskFull(MachineError):
    code = "disk_full"


class StorageError(MachineError):
    code = "storage"


class DoesNotFit(MachineError):
    code = "does_not_fit"


class NumericalError(StudioError):
    code = "numerical"
    exit_status = 7


class RunError(StudioError):
    code = "run"
    exit_status = 8


class VersionError(StudioError):
    code = "version"
    exit_status = 8


class ComparisonError(StudioError):
    code = "comparison"
    exit_status = 8


class EnlargementError(StudioError):
    code = "enlargement"
    exit_status = 8


class MapsError(StudioError):
    code = "maps"
    exit_status = 8


class InsertionError(StudioError):
    code = "insertion"
    exit_status = 8


class JobError(StudioError):
    code = "job"
    exit_status = 9


def _family(root: type[StudioError]) -> dict[str, type[StudioError]]:
    codes = {root.code: root}
    for child in root.__subclasses__():
        codes |= _family(child)
    return codes


def from_json(record: Mapping[str, object]) -> StudioError:
    """The error that `to_json` wrote down; a code nobody knows any more becomes a plain `StudioError`."""
    kind = _family(StudioError).get(str(record.get("code")), StudioError)
    return kind(
        str(record.get("message", "")),
        field=str(record.get("field", "")),
        value=record.get("value"),
        way_out=str(record.get("way_out", "")),
    )
