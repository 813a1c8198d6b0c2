"""TeaCache: the change of the time embedding, added up, decides (Liu et al., CVPR 2025, arXiv 2411.19108).

    change at a step = p(||e - e_before||_1 / ||e_before||_1),   e the embedding that modulates the first block
    compute when the changes since the last computed step add up to the threshold

p is a polynomial fitted to one model, which turns the embedding's change into the output's. The authors published
some; the studio fits its own where a calibration was made, and takes p(d) = d otherwise.

Knows the embedding. Refuses to know blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from studio.caching.block_stack import Action, Decision, Policy, Step
from studio.records.profiles import Profile
from studio.requests.caches import TeaCache

if TYPE_CHECKING:
    from studio.caching import CacheRun


def policy_for(settings: TeaCache, run: CacheRun) -> TeaCachePolicy:
    """The policy for a run."""
    return TeaCachePolicy(settings, total_steps=run.total_steps, coefficients=coefficients_of(run.profile))


class TeaCachePolicy(Policy):
    """One run's decisions."""

    def __init__(self, settings: TeaCache, *, total_steps: int, coefficients: Sequence[float] = (1.0, 0.0)) -> None:
        """Begin a run; `coefficients` are p's, the highest power first."""
        self.settings = settings
        self.coefficients = tuple(coefficients)
        self._protected = max(1, round(settings.protect_first * total_steps))
        self._embedding: Tensor | None = None
        self._sum = 0.0

    def decide(self, step: Step) -> Decision:
        embedding = step.embedding
        change = None
        if self._embedding is not None and embedding is not None and self._embedding.shape == embedding.shape:
            older = self._embedding.float()
            relative = float((embedding.float() - older).abs().mean() / older.abs().mean())
            change = abs(polynomial(self.coefficients, relative))
        self._embedding = embedding
        self._sum += change or 0.0
        computes = (
            not step.kept
            or step.index < self._protected
            or step.index == step.total - 1
            or change is None
            or not self._sum < self.settings.threshold
        )
        added_up = self._sum
        if computes:
            self._sum = 0.0
        return Decision(
            action=Action.COMPUTE if computes else Action.REUSE,
            distance=added_up,
            threshold=self.settings.threshold,
            why="the change of the time embedding has added up" if computes else "the time embedding changed little",
        )


def coefficients_of(profile: Profile | None) -> tuple[float, ...]:
    """The polynomial that turns the embedding's change into the residual's, fitted to a profile; the identity without.

    Of degree 4, as the authors', or less where there are fewer than ten steps to fit.
    """
    if profile is None:
        return (1.0, 0.0)
    x, y = np.asarray(profile.embedding_changes[1:]), np.asarray(profile.residual_changes[1:])
    if len(x) < 3 or not x.any():
        return (1.0, 0.0)
    return tuple(float(c) for c in np.polyfit(x, y, 4 if len(x) >= 10 else 1))


def polynomial(coefficients: Sequence[float], x: float) -> float:
    """Horner's rule, the highest power first."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value
