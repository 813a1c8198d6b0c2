"""Profiles: what a model's residuals did on a few uncached clips, from which caches take their figures.

    G_q[a, b] = <R_a, R_b>     of the guided residuals of clip q's steps a and b; enough to know how far any
                               combination of earlier residuals is from a later one, without keeping any of them
    growth(s)                  how much of an error at noise level s is left in the finished clip

Knows arithmetic and one JSON file for each preset, number of steps and shift. Refuses to know torch: `recording.py`
fills profiles in. Where a number of steps was not measured, the nearest serves: everything is a function of the noise
level and is read off between steps.

Shapes: Q clips, N steps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.preset import PROJECT_FOLDER
from studio.records.codec import from_json, to_json
from studio.storage import write_atomically

PRIOR = "pocket"
"""Whose profile stands in for a model that nobody has measured."""
SHIPPED = PROJECT_FOLDER / "assets" / "profiles"
"""Profiles of the models that ship with the studio, and of those that were measured for it."""
_NAME = re.compile(r"(\d+)-steps(?:-shift-([\d.]+))?")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What was measured on one model."""

    preset: str
    weights: str
    """Which weights: a Hub revision, or a digest."""
    sigmas: tuple[float, ...]
    """(N), noise level of each step, falling."""
    flow_shift: float | None
    """The schedule's shift that was asked for."""
    grams: tuple[tuple[tuple[float, ...], ...], ...]
    """(Q, N, N), scaled so that the mean squared residual is 1."""
    growth: tuple[tuple[float, float], ...]
    """(noise level, factor), noise falling: relative drift of the finished clip for each unit of relative error."""
    distances: tuple[tuple[float, ...], ...]
    """(Q, N): AdaCache's distance between each step and the one before; 0 for the first."""
    embedding_changes: tuple[float, ...]
    """(N): relative change of the time embedding, TeaCache's input; 0 for the first."""
    residual_changes: tuple[float, ...]
    """(N): relative change of the residual, mean over clips; 0 for the first."""
    mag_ratios: tuple[float, ...]
    """(N · passes): residual magnitudes against the step before, pass by pass, as MagCache wants them."""
    passes: int
    skipped_share: float
    """Cost of a skipped step against that of a computed one."""
    machine: str = ""
    """Where it was measured."""
    motions: tuple[tuple[float, ...], ...] = ()
    """(Q, N): how much the residual of AdaCache's distance moves, MoReg's score from 0 to 1; empty where that was not
    measured."""
    drift_scale: float = 1.0
    """Drift of clips that Budget's plans made, against what residuals and growth foretell; the mean of logarithms."""
    sensitivities: tuple[tuple[float, float], ...] = ()
    """(N): change of the transformer's output for each unit that its latents change (root mean squares), and for each
    unit of noise level, SenCache's J; empty where that was not measured."""

    def at(self, sigmas: Sequence[float]) -> Profile:
        """The same model at other noise levels: read off between the measured steps."""
        now = np.asarray(sigmas)
        if (
            now.max() > 1 >= max(self.sigmas)
        ):  # deviations against a clean clip of one; a profile knows the noise's share
            now = now / (1 + now)
        if len(now) == len(self.sigmas) and np.allclose(now, self.sigmas, atol=1e-3):
            return self
        where = np.interp(-now, -np.asarray(self.sigmas), np.arange(len(self.sigmas)))
        low = np.clip(np.floor(where).astype(int), 0, len(self.sigmas) - 2)
        share = where - low
        mix = np.zeros((len(now), len(self.sigmas)))
        mix[np.arange(len(now)), low] = 1 - share
        mix[np.arange(len(now)), low + 1] = share
        return replace(
            self,
            sigmas=tuple(float(sigma) for sigma in now),
            grams=tuple(_tuples(mix @ np.asarray(gram) @ mix.T) for gram in self.grams),
        )

    def mag_ratios_for(self, total_steps: int) -> tuple[float, ...]:
        """MagCache's ratio for each of so many steps, the mean over passes; their product is the same curve."""
        logs = np.log(np.asarray(self.mag_ratios).reshape(-1, self.passes).mean(axis=1)).cumsum()
        share = np.linspace(0, len(logs) - 1, total_steps)
        curve = np.interp(share, np.arange(len(logs)), logs)
        return tuple(float(ratio) for ratio in np.exp(np.diff(curve, prepend=curve[0])))

    def motions_for(self, total_steps: int) -> tuple[float, ...]:
        """How much the residual moves at each of so many steps, the mean over clips."""
        means = np.asarray(self.motions).mean(axis=0)
        share = np.linspace(0, len(means) - 1, total_steps)
        return tuple(float(motion) for motion in np.interp(share, np.arange(len(means)), means))

    def growth_at(self, sigmas: Sequence[float]) -> np.ndarray:
        """(N,): the growth of errors, falling with the noise; in between, its logarithm is a straight line."""
        levels = np.array([level for level, _ in self.growth])
        factors = np.log([factor for _, factor in self.growth])
        return np.exp(np.interp(-np.asarray(sigmas), -levels, factors))


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
    files = []
    for place in (folder, SHIPPED):
        for path in sorted((place / preset).glob("*.json")) if place is not None else ():
            name = _NAME.fullmatch(path.stem)
            if name is not None:
                shift = None if name[2] is None else float(name[2])
                shipped = place == SHIPPED
                files.append(ProfileFile(path=path, total_steps=int(name[1]), flow_shift=shift, shipped=shipped))
    return files


def find_profile(
    preset: str, folder: Path | None, *, total_steps: int | None = None, flow_shift: float | None = None
) -> Profile | None:
    """The preset's profile for this number of steps and shift, else its nearest, else None.

    Of two that are as near, the one measured here goes before the one that ships. A file that cannot be read is as
    none.
    """

    def far(profile: Profile) -> tuple[float, bool]:
        steps = abs(math.log(len(profile.sigmas) / total_steps)) if total_steps else 0.0
        return steps, flow_shift is not None and profile.flow_shift != flow_shift

    return min(_readable(preset, folder), key=far, default=None)


def _readable(preset: str, folder: Path | None) -> Iterator[Profile]:
    for file in profile_files(preset, folder):
        try:
            yield read_profile(file.path)
        except (OSError, ValueError):
            continue


def read_profile(path: Path) -> Profile:
    """What `write_profile` wrote.

    Raises:
        OSError, ValueError: it cannot be read, or was written by something else.
    """
    return from_json(Profile, json.loads(path.read_bytes()))


def write_profile(profile: Profile, path: Path) -> None:
    """Put a profile in place, with figures of six digits."""
    write_atomically(path, json.dumps(_rounded(to_json(profile))).encode())


def falling(values: Sequence[float]) -> list[float]:
    """The falling sequence nearest to these in the mean of squares (pool adjacent violators)."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            last, count = pools.pop()
            before, others = pools.pop()
            pools.append([(before * others + last * count) / (others + count), others + count])
    return [mean for mean, count in pools for _ in range(int(count))]


def _tuples(array: np.ndarray) -> Any:
    return tuple(_tuples(part) for part in array) if array.ndim else float(array)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
