"""AdaCache: the change of one residual says how many steps to skip (Kahatapitiya et al., arXiv 2411.02397).

By the rule of the authors' code, with N steps counted from 1:

    compute step s  <=>  s in {1, N - 1, N}  or  s = last + rate
    d = ||C - R||_1 / ||C||_1 / rate        C the metric residual of the last computed step, R that of this one
    rate = the first of the codebook whose threshold is above d * moreg, else its last

The paper's distance (eq. 4) is the absolute norm; its published thresholds fit the code's relative one. Norms run over
batch, tokens and channels. Where guidance takes two passes, numerators and denominators of both are added before they
are divided, which is to the last digit what one batched pass would give; so are those of several ranks. Over several
layers d is a running mean. A rate takes effect from the next step on. R is what attention adds to the stream, gate
included, as the authors measure it; where a family's blocks gate otherwise than by their table (`Family`), it is what
leaves the attention layer, and a gate that changes from step to step is not in d.

Knows one residual's numbers. Refuses to know blocks, hooks and models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from studio.caching.block_stack import Action, Captures, Decision, Policy, Step
from studio.caching.motion_regularization import (
    AUTHORS_SCALE,
    MotionRegularization,
    motion_parts,
    motion_score,
    window_of,
    zeros_like_parts,
)
from studio.records.profiles import Profile
from studio.requests.caches import AdaCache

if TYPE_CHECKING:
    from studio.caching import CacheRun


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """Which change allows which skip. Of any length."""

    thresholds: tuple[float, ...]
    """Rising; one for each rate but the last."""
    rates: tuple[int, ...]
    """Steps from one computed step to the next."""

    def look_up(self, distance: float) -> tuple[int, float | None]:
        """The rate, and the threshold that was not reached (None beyond them all)."""
        for threshold, rate in zip(self.thresholds, self.rates, strict=False):
            if distance < threshold:
                return rate, threshold
        return self.rates[-1], None


FAST = Codebook(thresholds=(0.08, 0.16, 0.24, 0.32, 0.40), rates=(6, 5, 4, 3, 2, 1))
"""The authors' for Open-Sora at 30 steps."""
SLOW = Codebook(thresholds=(0.08, 0.16), rates=(3, 2, 1))
HUNDRED = Codebook(thresholds=(0.03, 0.05, 0.07, 0.09, 0.11), rates=(12, 10, 8, 6, 4, 3))
"""The authors' for Open-Sora at 100 steps."""
AUTHORS = {"fast": FAST, "slow": SLOW, "100-step": HUNDRED}


def policy_for(settings: AdaCache, run: CacheRun) -> AdaCachePolicy:
    """The policy for a run.

    Raises:
        RequestError: a codebook that nobody has measured, or layers that this model does not have.
    """
    settings.check_model(measured=run.profile is not None, blocks=min(len(stack.blocks) for stack in run.stacks))
    measured = None if run.profile is None else calibrated(run.profile, run.total_steps, settings)
    return AdaCachePolicy(
        settings,
        codebook_of(settings, measured),
        total_steps=run.total_steps,
        blocks=len(run.stacks[0].blocks),
        control_blocks=run.stacks[0].control_blocks,
        scales=scales_of(settings, run.profile, run.total_steps),
    )


class AdaCachePolicy(Policy):
    """One run's decisions."""

    def __init__(
        self,
        settings: AdaCache,
        codebook: Codebook,
        *,
        total_steps: int,
        blocks: int,
        control_blocks: int = 0,
        scales: Sequence[float] | None = None,
    ) -> None:
        """Begin a run.

        Args:
            settings: What the user set.
            codebook: The one to look distances up in.
            total_steps: N.
            blocks: Blocks of a stack, of which the middle one is measured where the settings name none.
            control_blocks: Those of them, at the beginning, that have a stream of their own: not in their midst.
            scales: At each step, the motion at which MoReg changes nothing; None takes what holds without a profile.
        """
        self.settings = settings
        self.codebook = codebook
        layers = settings.metric_layers or (metric_layer(blocks, control_blocks),)
        self.captures = Captures(residual=settings.residual, layers=frozenset(layers))
        self._total = total_steps
        self._moreg = moreg_of(settings, scales or scales_of(settings, None, total_steps))
        self._rate = 1
        self._last = 0
        """The last computed step, from 1."""
        self._older: dict[tuple[int, int], Tensor] = {}
        """By layer and branch."""
        self._change: dict[int, Tensor] = {}
        """By layer: [numerator, denominator] of the distance, added over branches."""
        self._motion: dict[int, Tensor] = {}
        """By layer: (strides, 2)."""
        self._figures: dict[str, float | int | None] = {}

    def decide(self, step: Step) -> Decision:
        s = step.index + 1
        self._conclude()
        if not step.kept:
            # A run begins here, or the part of one that a second transformer takes: a distance between two networks
            # would say nothing of how fast either's residuals change.
            self._older.clear()
            self._rate = 1
            why, computes = "nothing to reuse yet", True
        elif s in (1, self._total - 1, self._total):
            why, computes = "the last steps are always computed", True
        elif s >= self._last + self._rate:
            why, computes = "due", True
        else:
            why, computes = f"{self._last + self._rate - s} more before the next computed step", False
        if computes:
            self._last = s
        return Decision(
            action=Action.COMPUTE if computes else Action.REUSE,
            why=why,
            distance=_number(self._figures.get("distance")),
            threshold=_number(self._figures.get("threshold")),
            motion=_number(self._figures.get("motion")),
            rate=self._rate,
        )

    def measured(self, layer: int, branch: int, residual: Tensor, frames: int | None) -> None:
        older = self._older.get((layer, branch))
        self._older[layer, branch] = residual.detach()
        if older is None or older.shape != residual.shape:
            return
        difference = (older.float() - residual.float()).abs().sum()
        size = older.float().abs().sum()
        self._change[layer] = self._change.get(layer, 0) + torch.stack([difference, size])
        if self.settings.moreg and frames is not None:
            strides = self.settings.moreg_strides
            parts = self._motion.setdefault(layer, zeros_like_parts(len(strides), residual.device))
            for row, stride in enumerate(strides):
                if stride < frames:
                    parts[row] += torch.stack(motion_parts(residual, frames, stride))

    def _conclude(self) -> None:
        """After a computed step: its distance becomes the rate from now on."""
        if not self._change:
            return
        distances, motion = [], None
        for layer, change in self._change.items():
            numerator, denominator = change.tolist()
            if self.settings.distance == "absolute":
                distances.append(numerator / self._rate)
            else:
                distances.append(numerator / denominator / self._rate if denominator else math.nan)
            if layer in self._motion:
                motion = motion_score(list(self._motion[layer]))  # the last layer's, as in the code
        self._change.clear()
        self._motion.clear()
        distance = sum(distances) / len(distances)
        if motion is not None:
            distance *= self._moreg.factor(self._last, motion, self._rate)
        # Nothing can be concluded from NaN or from a residual of zeros: then nothing is skipped.
        self._rate, threshold = self.codebook.look_up(distance) if math.isfinite(distance) else (1, None)
        self._figures = {"distance": distance, "threshold": threshold, "motion": motion}


def calibrated(profile: Profile, total_steps: int, settings: AdaCache | None = None) -> Codebook:
    """A codebook for a model that has been measured: the fast one's rates, scaled to the number of steps.

    Its thresholds are quantiles of the distances between neighbouring steps, so that each rate serves an equal share
    of the steps, as the authors place theirs by hand. With MoReg they are quantiles of what is looked up then, the
    distances times its factors, so that the clips which were measured are computed as often with it as without.
    """
    scale = total_steps / 30
    rates = tuple(max(1, round(rate * scale)) for rate in FAST.rates)
    factors = np.ones_like(np.asarray(profile.distances))
    if settings is not None and settings.moreg and profile.motions:
        scales = scales_of(settings, profile, len(profile.sigmas))
        for row, motions in zip(factors, profile.motions, strict=True):
            moreg = moreg_of(settings, scales)
            row[:] = [moreg.factor(number + 1, motion, rate=1) for number, motion in enumerate(motions)]
    distances = (np.asarray(profile.distances) * factors)[:, 2:-2] * len(profile.sigmas) / total_steps
    shares = np.arange(1, len(rates)) / len(rates)
    return Codebook(thresholds=tuple(float(value) for value in np.quantile(distances, shares)), rates=rates)


def scales_of(settings: AdaCache, profile: Profile | None, total_steps: int) -> tuple[float, ...]:
    """(N): MoReg's scale at each step: what the settings say, else the profile's own motion, else the authors'."""
    if settings.moreg_scale is None and profile is not None and profile.motions:
        return profile.motions_for(total_steps)
    return (settings.moreg_scale or AUTHORS_SCALE,) * total_steps


def moreg_of(settings: AdaCache, scales: Sequence[float]) -> MotionRegularization:
    """MoReg at the beginning of a run of as many steps as there are scales."""
    first, last = window_of(len(scales), settings.moreg_window)
    return MotionRegularization(
        first=first, last=last, scales=scales, power=settings.moreg_power, gradient=settings.moreg_gradient
    )


def metric_layer(blocks: int, control_blocks: int = 0) -> int:
    """The middle of a stack, as the authors take block 13 of 28; where it has control blocks, of what follows them."""
    return control_blocks + (blocks - control_blocks - 1) // 2


def codebook_of(settings: AdaCache, calibrated: Codebook | None) -> Codebook:
    """The codebook that the settings ask for; where it must be a calibrated one, `check_model` has seen to it."""
    if settings.codebook == "custom":
        return Codebook(thresholds=settings.thresholds, rates=settings.rates)
    if settings.codebook in AUTHORS:
        return AUTHORS[settings.codebook]
    return FAST if calibrated is None else calibrated


def _number(value: float | int | None) -> float | None:
    return None if value is None else float(value)
