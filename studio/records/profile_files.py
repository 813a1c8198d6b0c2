"""Where profiles lie: what calibration measured, one file for each preset, number of steps and shift.

Knows names and folders. Refuses to read what is in them (`studio/caching/profile.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from studio.preset import PROJECT_FOLDER

SHIPPED = PROJECT_FOLDER / "assets" / "profiles"
"""Profiles of the models that ship with the studio, and of those that were measured for it."""
_NAME = re.compile(r"(\d+)-steps(?:-shift-([\d.]+))?")


@dataclass(frozen=True, kw_only=True)
class ProfileFile:
    path: Path
    total_steps: int
    flow_shift: float | None
    shipped: bool
    """Whether it came with the studio; otherwise it was measured on this machine."""

    @property
    def plot(self) -> Path:
        """The distances it was made from, as SVG."""
        return self.path.with_suffix(".svg")


def profile_path(folder: Path, preset: str, total_steps: int, flow_shift: float | None) -> Path:
    """Where a preset's profile lies for this number of steps and shift."""
    shift = "" if flow_shift is None else f"-shift-{flow_shift:g}"
    return folder / preset / f"{total_steps}-steps{shift}.json"


def profiling_log(folder: Path, preset: str, total_steps: int | None, flow_shift: float | None) -> Path:
    """Where a measuring says how far it is, for whoever looks on."""
    return profile_path(folder, preset, total_steps or 0, flow_shift).with_suffix(".jsonl")


def profile_files(preset: str, folder: Path | None) -> list[ProfileFile]:
    """A preset's profiles: those in `folder`, which were measured here, before those that ship."""
    found = []
    for place in (folder, SHIPPED):
        for path in sorted((place / preset).glob("*.json")) if place is not None else ():
            name = _NAME.fullmatch(path.stem)
            if name is not None:
                shift = None if name[2] is None else float(name[2])
                shipped = place == SHIPPED
                found.append(ProfileFile(path=path, total_steps=int(name[1]), flow_shift=shift, shipped=shipped))
    return found
