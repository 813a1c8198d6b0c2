"""DPCache and BudCache, which plan as Budget does, as rivals in benchmarks/caching.py; in our own lines.

    python benchmarks/planned_rivals.py --computed 14 9 --anneal 60 --climb 2        search BudCache's schedules anew

Both compute exactly K of N steps, chosen beforehand. R_j is what all blocks add at step j; h < i are the last computed
steps when step j is skipped.

DPCache (arXiv 2602.22654) computes the first three steps and foretells R_j by Taylor's series of first order,
R_i + (j - i) / (i - h) (R_i - R_h). What that gets wrong on a few calibration clips, added up over the steps skipped
between i and the next computed step k, is the cost of (h, i, k), and the path of K steps of least cost is found by
dynamic programming. Its clips are those of the profile that Budget reads.

BudCache (arXiv 2606.13496, its first stage) adds R_i again, and searches by making the clip: the first 30 % of the
computed steps stay where they are, the others are moved about by simulated annealing and then by hill climbing, until
the last latents are nearest to the uncached run's in the mean of squares. As its authors do, one clip is searched on.
Their temperatures, 0.1 to 0.0001, belong to their latents; ours are shares of the first schedule's loss. What was found
is in results/budcache.json, with all that is needed to find it again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
FOUND = ROOT / "benchmarks/results/budcache.json"

if TYPE_CHECKING:
    from studio.caching import Cache, CacheRun
    from studio.caching.budget import Plan
    from studio.records.profiles import Profile

Schedule = tuple[bool, ...]
"""(N): which steps are computed."""
Loss = Callable[[Schedule], float]

DPCACHE_FIRST = 3
"""Steps that DPCache computes before it plans."""
BUDCACHE_FIRST = 0.3
"""Share of BudCache's computed steps that stay at the beginning."""
WINDOW = 3
"""How far a computed step is moved in hill climbing, but for random leaps."""
NEIGHBOURS = 20
HOTTEST, COLDEST = 0.3, 0.003
"""Temperatures of the annealing, as shares of the first schedule's loss."""


def dpcache(run: CacheRun, *, computed: int) -> Cache:
    """DPCache at work on a run, with so many computed steps."""
    profile = run.profile
    assert profile is not None
    return _follows(run, lambda: dpcache_plan(profile.at(run.sigmas()), computed))


def budcache(run: CacheRun, *, computed: int, preset: str = "pocket") -> Cache:
    """BudCache at work on a run, by the schedule that was found for so many computed steps of the preset's weights.

    Raises:
        LookupError: none was searched.
    """
    from studio.machine.weights import fingerprint
    from studio.preset import find_preset

    wanted = {"steps": run.total_steps, "computed": computed, "checkpoint": fingerprint(find_preset(preset))}
    found = next((each for each in read_found() if _same(each, wanted)), None)
    if found is None:
        raise LookupError(f"no schedule of {computed} of {run.total_steps} steps was searched for these weights")
    return _follows(run, lambda: repeating([letter == "c" for letter in found["schedule"]]))


def read_found() -> list[dict[str, Any]]:
    return json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else []


def _follows(run: CacheRun, plan: Callable[[], Plan]) -> Cache:
    from studio.caching.block_stack import StackCache
    from studio.caching.budget import BudgetPolicy

    return StackCache(run.stacks, BudgetPolicy(plan), total_steps=run.total_steps, passes=run.passes)


# DPCache


def dpcache_plan(profile: Profile, computed: int) -> Plan:
    """The path of least cost with that many computed steps, at least the first three."""
    total = len(profile.sigmas)
    cost = path_costs(np.asarray(profile.grams))
    paths = {(DPCACHE_FIRST - 2, DPCACHE_FIRST - 1): (0.0, tuple(range(DPCACHE_FIRST)))}
    for _ in range(computed - DPCACHE_FIRST):
        longer: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for (h, i), (spent, path) in paths.items():
            for k in range(i + 1, total):
                through = spent + float(cost[h, i, k])
                if (i, k) not in longer or through < longer[i, k][0]:
                    longer[i, k] = through, (*path, k)
        paths = longer
    _, path = min((spent + float(cost[h, i, total]), path) for (h, i), (spent, path) in paths.items())
    return _plan([step in path for step in range(total)], _taylor)


def path_costs(grams: np.ndarray) -> np.ndarray:
    """(N, N, N + 1) over h, i, k: what is wrong with the steps between i and k, relative to what they are.

    Args:
        grams: (Q, N, N) inner products of the steps' residuals, clip by clip.
    """
    total = grams.shape[1]
    square = np.einsum("qjj->qj", grams)
    cost = np.zeros((total, total, total + 1))
    for h in range(total):
        for i in range(h + 1, total):
            for j in range(i + 1, total):
                a = _taylor(h, i, j)
                wrong = np.zeros(total)
                wrong[[j, i, h]] = 1, -1 - a, a
                off = np.sqrt(np.maximum(np.einsum("a,qab,b->q", wrong, grams, wrong), 0) / square[:, j])
                cost[h, i, j + 1] = cost[h, i, j] + off.mean()
    return cost


def _taylor(h: int, i: int, j: int) -> float:
    """How often the change from h to i is added to what i added, to foretell j."""
    return (j - i) / (i - h) if i > h else 0.0


# BudCache


def repeating(schedule: list[bool]) -> Plan:
    """The plan that adds the last computed step's residual again wherever a step is skipped."""
    return _plan(schedule, lambda *_: 0.0)


def _plan(computes: list[bool], gain: Callable[[int, int, int], float]) -> Plan:
    from studio.caching.budget import Plan

    gains, h, i = [], 0, 0
    for j, computed in enumerate(computes):
        gains.append(gain(h, i, j))
        h, i = (i, j) if computed else (h, i)
    nothing = (0.0,) * len(computes)
    return Plan(computes=tuple(computes), gains=tuple(gains), corrections=nothing, drift=nothing)


@dataclass
class BudCacheSearch:
    """One search, made anew alike by the same seed."""

    loss: Loss
    total: int
    computed: int
    seed: int
    tried: dict[Schedule, float] = field(default_factory=dict)
    """Every schedule whose clip was made, and its loss."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._fixed = max(1, int(self.computed * BUDCACHE_FIRST))

    def run(self, *, anneal: int, climb: int) -> Schedule:
        """The best schedule.

        Args:
            anneal: Moves that annealing proposes.
            climb: Rounds of hill climbing at most, each of `NEIGHBOURS` clips; it ends where a round finds nothing.
        """
        self._annealed(self._first(), anneal)
        for _ in range(climb):
            best = self.best
            for candidate in self._neighbours(best):
                self._loss_of(candidate)
            if self.best == best:
                break
        return self.best

    @property
    def best(self) -> Schedule:
        return min(self.tried, key=lambda schedule: self.tried[schedule])

    def _annealed(self, current: Schedule, moves: int) -> None:
        first = self._loss_of(current)
        for move in range(moves):
            temperature = first * HOTTEST * (COLDEST / HOTTEST) ** (move / max(1, moves - 1))
            candidate = self._swapped(current, *self._any_swap(current))
            worse = self._loss_of(candidate) - self._loss_of(current)
            if worse <= 0 or (first and self._random.random() < math.exp(-worse / temperature)):
                current = candidate

    def _loss_of(self, schedule: Schedule) -> float:
        if schedule not in self.tried:
            self.tried[schedule] = self.loss(schedule)
        return self.tried[schedule]

    def _first(self) -> Schedule:
        chosen = set(range(self._fixed))
        chosen |= set(self._random.sample(range(self._fixed, self.total), self.computed - self._fixed))
        return tuple(step in chosen for step in range(self.total))

    def _any_swap(self, schedule: Schedule) -> tuple[int, int]:
        computed, skipped = self._movable(schedule)
        return self._random.choice(computed), self._random.choice(skipped)

    def _neighbours(self, schedule: Schedule) -> Iterator[Schedule]:
        computed, skipped = self._movable(schedule)
        near = {(i, j) for i in computed for j in skipped if abs(i - j) <= WINDOW}
        far = {self._any_swap(schedule) for _ in range(2 * NEIGHBOURS)}
        swaps = sorted(near | far)
        for i, j in self._random.sample(swaps, min(NEIGHBOURS, len(swaps))):
            yield self._swapped(schedule, i, j)

    def _movable(self, schedule: Schedule) -> tuple[list[int], list[int]]:
        """Computed steps and skipped ones that may change places."""
        later = range(self._fixed, self.total)
        return [step for step in later if schedule[step]], [step for step in later if not schedule[step]]

    @staticmethod
    def _swapped(schedule: Schedule, i: int, j: int) -> Schedule:
        changed = list(schedule)
        changed[i], changed[j] = schedule[j], schedule[i]
        return tuple(changed)


class _LatentsOf:
    """The last latents of one clip under a schedule, by the studio's own `generate`; nothing is decoded."""

    def __init__(self, preset: str, steps: int, folder: Path) -> None:
        from studio.preset import find_preset
        from studio.profiling import SEED
        from studio.records.runs import RunStore
        from studio.requests.generation import request_for

        found = find_preset(preset)
        self.request = request_for(found, prompt=found.defaults.prompts[0], seed=SEED, num_inference_steps=steps)
        self.store = RunStore(folder)

    def __call__(self, schedule: Schedule) -> np.ndarray:
        from studio.caching.block_stack import StackCache
        from studio.caching.budget import BudgetPolicy
        from studio.generate import generate

        reached: list[np.ndarray] = []
        plan = repeating(list(schedule))

        class Seen(BudgetPolicy):
            def stepped(self, step: int, latents: Any) -> None:
                if step == len(schedule) - 1:
                    reached.append(latents.float().cpu().numpy())

        def follows(run: CacheRun) -> Cache:
            return StackCache(run.stacks, Seen(lambda: plan), total_steps=run.total_steps, passes=run.passes)

        for _ in generate(
            self.request, store=self.store, cache_for=follows, stop=lambda: "cancel" if reached else None
        ):
            pass
        return reached[0]


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--computed", type=int, nargs="+", required=True, help="computed steps, a search for each")
    parser.add_argument("--anneal", type=int, default=200, help="moves of the annealing (the authors' 200)")
    parser.add_argument("--climb", type=int, default=5, help="rounds of hill climbing (the authors' 5)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for computed in args.computed:
        record = _searched(args, computed)
        known = [each for each in read_found() if not _same(each, record)]
        FOUND.write_text(json.dumps([*known, record], indent=1) + "\n", encoding="utf-8")
        print(
            f"{computed} of {args.steps}: {record['schedule']}, loss {record['loss']:.3g} after {record['tried']} clips"
        )


def _searched(args: argparse.Namespace, computed: int) -> dict[str, Any]:
    from studio.machine.weights import fingerprint
    from studio.preset import find_preset

    with TemporaryDirectory() as folder:
        latents_of = _LatentsOf(args.preset, args.steps, Path(folder))
        whole = latents_of((True,) * args.steps)

        def loss(schedule: Schedule) -> float:
            return float(np.mean((latents_of(schedule) - whole) ** 2))

        search = BudCacheSearch(loss=loss, total=args.steps, computed=computed, seed=args.seed)
        best = search.run(anneal=args.anneal, climb=args.climb)
    return {
        "steps": args.steps,
        "computed": computed,
        "checkpoint": fingerprint(find_preset(args.preset)),
        "prompt": latents_of.request.prompt,
        "clip_seed": latents_of.request.seed,
        "search_seed": args.seed,
        "anneal": args.anneal,
        "climb": args.climb,
        "tried": len(search.tried),
        "loss": search.tried[best],
        "schedule": "".join("c" if computes else "r" for computes in best),
    }


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("steps", "computed", "checkpoint"))


if __name__ == "__main__":
    main()
