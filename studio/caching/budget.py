"""Budget: the studio's own cache. An exact number of computed steps, placed where they matter most.

A skipped step j, after computed steps h < i, adds R_i + a (R_i - R_h) instead of R_j. From a profile's Gram matrices

    a[h, i, j]   the gain that is best over its clips:  sum_q <R_j - R_i, R_i - R_h> / sum_q ||R_i - R_h||^2, or 0
    e[h, i, j]   what is still wrong then, the mean over clips of ||R_j - R_i - a (R_i - R_h)||
    drift        sum over skipped steps of  growth(s_j) |s_j - s_j+1| e[h, i, j]

and the schedule with K computed steps of least drift is a shortest path over pairs (h, i), found exactly. Errors at
high noise grow, for there a clip decides what it will show: that is why they are weighed by what was measured to be
left of them in finished clips, and why the early steps get computed without any rule that protects them.

At the next computed step k the true R_k is known, and with it how wrong extrapolating would have been by then,
E_k = R_k - R_i - a[h, i, k] (R_i - R_h). The skipped steps were wrong in much the same direction, by

    c[h, i, j, k] = sum_q <E_j, E_k> / sum_q ||E_k||^2

of it. So step k adds R_k + b E_k, with b the c's weighed by the steps' |s_j - s_j+1| against k's own: what was missed
on the way is made up for as soon as it shows. What is kept is R_k.

Related: LeMiCa and GCache also choose schedules offline by the final error; FORA and SeaCache reuse or extrapolate
residuals; UniPC corrects a step once the next one's output is known. Knows profiles and numbers. Refuses to know
models; `BudgetPolicy` only reads the plan.

Shapes: N steps, Q clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from studio.caching.block_stack import Action, Decision, Policy, Step
from studio.errors import RequestError
from studio.records.profiles import PRIOR, Profile, find_profile
from studio.requests.caches import Budget

if TYPE_CHECKING:
    from studio.caching import CacheRun


def policy_for(settings: Budget, run: CacheRun) -> BudgetPolicy:
    """The policy for a run.

    Raises:
        RequestError: no model at all has been measured.
    """
    # Nobody measured this model: the schedule of one that was measured is far better than an even one.
    profile = run.profile or find_profile(PRIOR, None, total_steps=run.total_steps)
    if profile is None:
        raise RequestError(
            "There is no profile to plan a budget with.",
            field="cache",
            value="budget",
            way_out="Measure this model first: python -m studio calibrate PRESET.",
        )
    return BudgetPolicy(lambda: plan_for(profile.at(run.sigmas()), settings, run.handover()))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of each step."""

    computes: tuple[bool, ...]
    """(N)"""
    gains: tuple[float, ...]
    """(N): how much of the residual's last change a step adds, or would if it were not computed; 0 repeats it."""
    corrections: tuple[float, ...]
    """(N): b of the computed steps."""
    drift: tuple[float, ...]
    """(N): predicted drift of the finished clip by the errors up to each step, as a share of its spread."""

    @property
    def computed(self) -> int:
        return sum(self.computes)


def _everything(total: int) -> Plan:
    nothing = (0.0,) * total
    return Plan(computes=(True,) * total, gains=nothing, corrections=nothing, drift=nothing)


def plan_for(profile: Profile, settings: Budget, handover: int | None = None) -> Plan:
    """The plan of least predicted drift within the settings' speed, or the fastest within their drift."""
    total, least = len(profile.sigmas), fewest_computed(handover)
    extrapolate, correct = settings.extrapolate, settings.correct
    if settings.max_drift is None:
        computed = max(least, computed_steps(total, settings.speedup, profile.skipped_share))
        return plan_of(profile, computed, extrapolate, correct, handover)
    for computed in range(least, total):
        plan = plan_of(profile, computed, extrapolate, correct, handover)
        if plan.drift[-1] <= settings.max_drift:
            return plan
    return _everything(total)


def computed_steps(total: int, speedup: float, skipped_share: float) -> int:
    """The largest K with K + (N - K) share <= N / speedup, to a twentieth of a step; at least the two to start from."""
    exact = (total / speedup - total * skipped_share) / (1 - skipped_share)
    return min(total, max(2, int(exact + 0.05)))


def fewest_computed(handover: int | None) -> int:
    """The two to start from, and the one in which a second transformer takes over."""
    return 2 if handover is None or handover < 2 else 3


@lru_cache(maxsize=32)
def plan_of(
    profile: Profile, computed: int, extrapolate: bool = True, correct: bool = True, handover: int | None = None
) -> Plan:
    """The plan with that many computed steps, the first two and the handover among them, of least predicted drift."""
    total = len(profile.sigmas)
    if computed >= total:
        return _everything(total)
    gain, error = _errors(profile, extrapolate, handover)
    sigmas = np.asarray((*profile.sigmas, 0.0))
    weight = profile.growth_at(profile.sigmas) * -np.diff(sigmas)
    # skipping[h, i, j]: drift by the steps after i up to j, all skipped; infinite where nothing of i's is kept by then.
    skipping = np.cumsum(error * weight, axis=2)
    if handover is not None:
        skipping[:, :handover, handover:] = np.inf
    # best[i, h]: least drift of a path whose last computed steps are h, i; one more computed step in each round.
    best = np.full((total, total), np.inf)
    best[1, 0] = 0.0
    came_from: list[np.ndarray] = []
    for _ in range(computed - 2):
        # through[h, i, k]: computed at h, i, then k
        through = best.T[:, :, None] + np.pad(skipping, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
        later = np.arange(total)[None, :] > np.arange(total)[:, None]
        through = np.where(later[None], through, np.inf)
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0).T
    ends = best.T + skipping[:, :, -1]
    h, i = (int(index) for index in np.unravel_index(int(ends.argmin()), ends.shape))
    steps = [i, h]
    for origins in reversed(came_from):
        h, i = int(origins[h, i]), h
        steps.append(h)
    plan = _plan(sorted(set(steps)), gain, error * weight)
    return replace(plan, corrections=_corrections(profile, plan, handover)) if correct else plan


def _errors(profile: Profile, extrapolate: bool, handover: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Gains and errors (N, N, N) over h, i, j; errors are 0 where j <= i, gains 0 where h = i.

    From before the handover nothing is kept after it, so that there is no trend to continue.
    """
    grams = np.asarray(profile.grams)
    total = grams.shape[1]
    square = np.einsum("qaa->qa", grams)
    apart = square[:, :, None] + square[:, None, :] - 2 * grams  # ||R_a - R_b||^2
    change = apart[:, :, :, None]  # over h, i
    missing = apart[:, None, :, :]  # over i, j
    # <R_j - R_i, R_i - R_h>, over h, i, j
    along = (
        np.swapaxes(grams, 1, 2)[:, None, :, :] - grams[:, :, None, :] - square[:, None, :, None] + grams[:, :, :, None]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(change.sum(0) > 0, along.sum(0) / change.sum(0), 0.0)
    gain = np.clip(gain, 0.0, None) if extrapolate else np.zeros_like(gain)
    if handover is not None:
        gain[:handover, handover:] = gain[:, :handover, handover:] = 0.0
    left = missing - 2 * gain * along + gain**2 * change
    error = np.sqrt(np.clip(left, 0, None)).mean(0)
    steps = np.arange(total)
    after = steps[None, None, :] > steps[None, :, None]
    return gain, np.where(after, error, 0.0)


def _plan(computed: list[int], gain: np.ndarray, drift: np.ndarray) -> Plan:
    total = len(gain)
    gains, added = [0.0] * total, [0.0] * total
    h = i = 0
    for j in range(total):
        gains[j] = float(gain[h, i, j])
        if j in computed:
            h, i = i, j
        else:
            added[j] = float(drift[h, i, j])
    return Plan(
        computes=tuple(j in computed for j in range(total)),
        gains=tuple(gains),
        corrections=(0.0,) * total,
        drift=tuple(float(value) for value in np.cumsum(added)),
    )


def _corrections(profile: Profile, plan: Plan, handover: int | None) -> tuple[float, ...]:
    """b for every computed step that skipped ones precede and the same transformer takes; 0 for the others."""
    gram = np.asarray(profile.grams).sum(0)
    widths = -np.diff((*profile.sigmas, 0.0))
    gains = [0.0] * len(widths)
    computed = [step for step, computes in enumerate(plan.computes) if computes]
    for h, i, k in zip(computed, computed[1:], computed[2:], strict=False):
        if k == handover:
            continue
        # E_j as sums of residuals: a row a step, from i + 1 to k.
        errors = np.zeros((k - i, len(widths)))
        for row, j in enumerate(range(i + 1, k + 1)):
            errors[row, j] += 1
            errors[row, i] -= 1 + plan.gains[j]
            errors[row, h] += plan.gains[j]
        along = errors @ gram @ errors[-1]
        if along[-1] > 0:
            gains[k] = max(0.0, float(widths[i + 1 : k] @ along[:-1] / (widths[k] * along[-1])))
    return tuple(gains)


class BudgetPolicy(Policy):
    """Follows a plan."""

    keeps_two = True

    def __init__(self, plan: Callable[[], Plan]) -> None:
        """Begin a run; the plan is made as its first step begins, when the noise levels are known."""
        self._make_plan = plan
        self._plan: Plan | None = None

    def decide(self, step: Step) -> Decision:
        self._plan = plan = self._plan or self._make_plan()
        gain, drift = plan.gains[step.index], plan.drift[step.index]
        if plan.computes[step.index]:
            correction = plan.corrections[step.index]
            left = sum(plan.computes[step.index + 1 :])
            makes_up = ", makes up for the steps skipped before it" if correction else ""
            return Decision(
                action=Action.COMPUTE,
                gain=gain,
                correction=correction,
                why=f"planned, {left} more to come{makes_up}; predicted drift {drift:.1%}",
            )
        action = Action.EXTRAPOLATE if gain and step.extrapolable else Action.REUSE
        return Decision(action=action, gain=gain, why=f"planned, gain {gain:.2f}; predicted drift {drift:.1%}")
