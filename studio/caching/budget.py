"""Budget: the studio's own cache. An exact number of computed steps, placed where they matter most.

A skipped step j, after computed steps h < i, adds R_i + a (R_i - R_h) instead of R_j. From a profile's Gram matrices

    a[h, i, j]   the gain that is best over its clips:  sum_q <R_j - R_i, R_i - R_h> / sum_q ||R_i - R_h||^2, or 0
    E_j          what is still wrong then,  R_j - R_i - a (R_i - R_h)
    u_j          what that is worth in the finished clip:  growth(s_j) |s_j - s_j+1|
    cost         sum over skipped steps of  u_j times the mean of ||E_j|| over clips

and the schedule with K computed steps of least cost is a shortest path over pairs (h, i), found exactly. Errors at
high noise grow, for there a clip decides what it will show: that is why they are weighed by what was measured to be
left of them in finished clips, and why the early steps get computed without any rule that protects them. Where a second
transformer takes over, its first step is computed, and nothing kept of the first is used from there on.

At the next computed step k the true R_k is known, and with it how wrong extrapolating would have been by then, E_k. The
skipped steps were wrong in much the same direction, by

    c[h, i, j, k] = sum_q <E_j, E_k> / sum_q ||E_k||^2

of it. So step k adds R_k + b E_k, with b the c's weighed by the steps' |s_j - s_j+1| against k's own: what was missed
on the way is made up for as soon as it shows. What is kept is R_k. The drift that is foretold has this in it: between
two computed steps the mean of ||sum_j u_j E_j - b u_k E_k||, added up, and scaled by what a few clips by plans did.

With few computed steps, clips differ too much for what a few of them foretell of the rest: on the pocket, plans of 2 to
8 steps out of 8 to 24 lost up to 15 dB to clips of that many steps, and those of 9 and more won on all of 4 prompts.
Steps spread evenly, with half of the trend between them and nothing made up for, do as well as fewer steps (`spread`).

Reusing only guidance's difference, so that a step costs half, was tried and left out: at guidance 4 that difference is
what changes. With 4 such steps at an equal number of computed passes the pocket's last latents were 2.1 dB further off
at twice the speed and 4.1 dB at three times (10 prompts).

Related: BudCache (arXiv 2606.13496) also fixes the number of computed steps, and searches them by making clips; DPCache
(2602.22654) finds them by the same shortest path over pairs, with Taylor's series between them; OTCache (2606.31026)
says, as was measured here, that costs along a path do not add up where steps are few; LeMiCa and GCache choose by the
final error as well; FORA and SeaCache reuse or extrapolate residuals; UniPC corrects a step once the next one's output
is known. New are gains that are measured, not assumed, and the correction: at two thirds, a half and a third of 30
steps the pocket's clips are 1.4, 2.7 and 4.4 dB nearer to the full ones than DPCache's (12 prompts). Knows profiles and
numbers. Refuses to know models; `BudgetPolicy` only reads the plan.

Shapes: N steps, Q clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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

LEAST = 4
"""Computed steps at any speed: of fewer no picture comes."""
FEW = 9
"""With fewer computed steps than this, no plan is followed."""


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
    spread: bool = False
    """Whether the computed steps are spread evenly, by no plan."""
    drift: tuple[float, ...]
    """(N): predicted drift of the finished clip by what is wrong up to each step, as a share of its spread; less where
    a step makes up for some of it."""

    @property
    def computed(self) -> int:
        return sum(self.computes)


def _everything(total: int) -> Plan:
    nothing = (0.0,) * total
    return Plan(computes=(True,) * total, gains=nothing, corrections=nothing, drift=nothing)


def plan_for(profile: Profile, settings: Budget, handover: int | None = None) -> Plan:
    """The best plan at the speed nearest to the settings', or the fastest within their drift.

    Where that leaves few computed steps, they are spread evenly (`FEW`), and there are never fewer than `LEAST`.
    """
    total = len(profile.sigmas)
    extrapolate, correct = settings.extrapolate, settings.correct
    if settings.max_drift is None:
        computed = computed_steps(total, settings.speedup, profile.skipped_share)
        if computed < FEW:
            # Where less than twice the speed is asked for, one step more of so few is worth it.
            return spread(profile, max(LEAST, computed + (2 * computed > total)), extrapolate, handover)
        return plan_of(profile, computed, extrapolate, correct, handover)
    for computed in range(LEAST, total):
        if computed < FEW:
            plan = spread(profile, computed, extrapolate, handover)
        else:
            plan = plan_of(profile, computed, extrapolate, correct, handover)
        if plan.drift[-1] <= settings.max_drift:
            return plan
    return _everything(total)


def computed_steps(total: int, speedup: float, skipped_share: float) -> int:
    """The K whose speed N / (K + (N - K) share) is nearest to that, as a ratio; at least the two to start from."""

    def off(computed: int) -> float:
        return abs(math.log(total / (computed + (total - computed) * skipped_share) / speedup))

    return min(range(min(2, total), total + 1), key=off)


@lru_cache(maxsize=32)
def plan_of(
    profile: Profile, computed: int, extrapolate: bool = True, correct: bool = True, handover: int | None = None
) -> Plan:
    """The best plan with that many computed steps, the first two and the handover among them."""
    gain, skipping = _foretold(profile, extrapolate, handover)
    path = next((path for path in _paths(skipping) if len(path) >= computed), None)
    return _everything(len(profile.sigmas)) if path is None else _plan(profile, path, gain, correct, handover)


def spread(profile: Profile, computed: int, extrapolate: bool = True, handover: int | None = None) -> Plan:
    """That many computed steps as far apart as fewer steps would be, or the first few and then every other.

    Between them half of the trend is gone on with, and nothing is made up for.
    """
    total = len(profile.sigmas)
    if computed >= total:
        return _everything(total)
    first = 2 * computed - total
    if first > 0:
        steps = [*range(first), *range(first + 1, total, 2)]
    else:
        steps = [round(number * total / computed) for number in range(computed)]
    if handover is not None and handover not in steps:
        steps[min(range(1, computed), key=lambda number: abs(steps[number] - handover))] = handover
    gain = _half_the_trend(total, handover) if extrapolate else np.zeros((total, total, total))
    return replace(_plan(profile, steps, gain, False, handover), spread=True)


def _half_the_trend(total: int, handover: int | None) -> np.ndarray:
    """Gains (N, N, N) over h, i, j that go on half as fast as from h to i; 0 across a handover."""
    h, i, j = np.ogrid[:total, :total, :total]
    gain = np.where((h < i) & (i < j), (j - i) / (2 * np.maximum(i - h, 1)), 0.0)
    if handover is not None:
        gain[:handover, handover:] = gain[:, :handover, handover:] = 0.0
    return gain


@lru_cache(maxsize=4)
def _foretold(profile: Profile, extrapolate: bool, handover: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Gains over h, i, j, and over h, i, k the errors of the steps between i and k, if all of them are skipped.

    Infinite where the handover lies among them.
    """
    gain, error = _errors(profile, extrapolate, handover)
    skipping = np.pad(np.cumsum(error * _weights(profile), axis=2), ((0, 0), (0, 0), (1, 0)))
    if handover is not None:
        skipping[:, :handover, handover + 1 :] = np.inf
    return gain, skipping


def _paths(skipping: np.ndarray) -> Iterator[list[int]]:
    """Of paths of two steps, of three, and so on up to all but one, the cheapest, where any can be gone.

    Args:
        skipping: (N, N, N + 1), the cost of going from i, after h, to k, or with k = N to the end.
    """
    total = len(skipping)
    later = np.arange(total)[None, :] > np.arange(total)[:, None]
    # best[h, i]: the least cost of a path whose last steps are h, i; one more step in each round.
    best = np.full((total, total), np.inf)
    best[0, 1] = 0.0
    came_from: list[np.ndarray] = []
    for _ in range(2, total):
        ends = best + skipping[:, :, total]
        if np.isfinite(ends.min()):
            h, i = (int(index) for index in np.unravel_index(int(ends.argmin()), ends.shape))
            path = [i, h]
            for origins in reversed(came_from):
                h, i = int(origins[h, i]), h
                path.append(h)
            yield path[::-1]
        through = np.where(later, best[:, :, None] + skipping[:, :, :total], np.inf)
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0)


def _weights(profile: Profile) -> np.ndarray:
    """(N): what an error of each step is worth in the finished clip."""
    return profile.growth_at(profile.sigmas) * _widths(profile)


def _widths(profile: Profile) -> np.ndarray:
    return -np.diff((*profile.sigmas, 0.0))


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


def _plan(profile: Profile, computed: list[int], gain: np.ndarray, correct: bool, handover: int | None) -> Plan:
    """The plan that computes these steps: its gains and corrections, and the drift that is left."""
    total, grams = len(profile.sigmas), np.asarray(profile.grams)
    widths, weights = _widths(profile), _weights(profile)
    gains, corrections, drift = np.zeros((3, total))
    made = 0.0  # by the steps up to i: from there on, what a step gets wrong points elsewhere

    def norm(wrong: np.ndarray) -> float:
        return float(np.sqrt(np.clip(np.einsum("a,qab,b->q", wrong, grams, wrong), 0, None)).mean())

    for h, i, k in zip([0, *computed], computed, [*computed[1:], total], strict=False):
        ahead = range(i + 1, min(k + 1, total))
        gains[ahead] = gain[h, i, ahead]
        # E_j as sums of residuals: a row a step, from i + 1 to k.
        errors = np.zeros((len(ahead), total))
        for row, j in enumerate(ahead):
            errors[row, j] += 1
            errors[row, i] -= 1 + gains[j]
            errors[row, h] += gains[j]
        skipped = k - i - 1
        missed = np.zeros(total)
        for row in range(skipped):
            missed += weights[i + 1 + row] * errors[row]
            drift[i + 1 + row] = made + norm(missed)
        if k == total:
            break
        if correct and skipped and k != handover:
            along = errors @ grams.sum(0) @ errors[-1]
            if along[-1] > 0:
                corrections[k] = max(0.0, widths[i + 1 : k] @ along[:-1] / (widths[k] * along[-1]))
            missed -= corrections[k] * weights[k] * errors[-1]
        made += norm(missed)
        drift[k] = made
    return Plan(
        computes=tuple(step in computed for step in range(total)),
        gains=tuple(gains.tolist()),
        corrections=tuple(corrections.tolist()),
        drift=tuple((profile.drift_scale * drift).tolist()),
    )


class BudgetPolicy(Policy):
    """Follows a plan."""

    keeps_two = True

    def __init__(self, plan: Callable[[], Plan]) -> None:
        """Begin a run; the plan is made as its first step begins, when the noise levels are known."""
        self._make_plan = plan
        self._plan: Plan | None = None

    def decide(self, step: Step) -> Decision:
        self._plan = plan = self._plan or self._make_plan()
        gain, correction = plan.gains[step.index], plan.corrections[step.index]
        chosen = "evenly spread" if plan.spread else "planned"
        drift = f"predicted drift {plan.drift[step.index]:.1%}"
        if plan.computes[step.index]:
            left = sum(plan.computes[step.index + 1 :])
            makes_up = ", makes up for the steps skipped before it" if correction else ""
            return Decision(
                action=Action.COMPUTE,
                gain=gain,
                correction=correction,
                why=f"{chosen}, {left} more to come{makes_up}; {drift}",
                notice=_notice_of(plan) if step.index == 0 else "",
            )
        action = Action.EXTRAPOLATE if gain and step.extrapolable else Action.REUSE
        return Decision(action=action, gain=gain, why=f"{chosen}, gain {gain:.2f}; {drift}")


def _notice_of(plan: Plan) -> str:
    """What a person should know of a run without a plan; nothing where there is one."""
    if not plan.spread:
        return ""
    return (
        f"Budget computes {plan.computed} of {len(plan.computes)} steps, spread evenly: with fewer than {FEW} its plan "
        f"may do worse than a clip of {plan.computed} steps. More steps, or less speed, come nearer to the full clip."
    )
