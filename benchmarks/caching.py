"""What every cache saves and costs: `python benchmarks/caching.py`, and again to go on where it stopped.

On the pocket model, held-out prompts and fixed seeds, at 30 and 50 steps:
- work: the share of transformer blocks that are computed, which no noise of the machine touches, and beside it the CPU
  seconds of denoising as a ratio to the uncached run of the same prompt in the same process;
- cost: PSNR, SSIM and MS-SSIM against that uncached clip, before the mp4 rounds anything away; flicker; agreement with
  the prompt by the probe of benchmarks/pocket_quality.py;
- memory: the tensors that a cache keeps;
- the overhead of a cache that is attached and never skips.

Each rival runs as its own documentation or paper sets it, and with what it takes to reach three times the speed; where
it has several settings at one speed, its best one counts. "Fewer steps" is the same model asked for fewer steps, the
baseline that every cache has to beat; "shift tuned" gives it the flow shift that turned out best on these very prompts.

Every cell is appended to caching-cells.jsonl in the results folder, by several processes if `--first-prompt` and
`--prompts` divide the work. Tables, plots and README's part are written from there (benchmarks/caching_tables.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cache_dit_rival
import caching_tables
import planned_rivals
from caching_tables import OVERHEAD, UNCACHED
from keeping_store import keeping_store

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
PROMPT_SEED = 300
"""First held-out world whose caption is a prompt; pocket_quality.py uses 0 to 63, calibration the preset ideas."""
GROUP = 10
"""Methods between two uncached runs of the same prompt."""
CELLS = "caching-cells.jsonl"
NEVER = {"method": "adacache", "codebook": "custom", "rates": [1]}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One point of the plot."""

    family: str
    setting: str
    cache: dict[str, Any] | None = None
    cache_for: Callable[[Any], Any] | None = None
    """Makes the cache of a rival that is no part of the studio."""
    steps_share: float = 1.0
    flow_shift: float | None = None
    """None is the preset's."""
    at_steps: int | None = None
    """Where it was searched for one number of steps alone."""

    @property
    def name(self) -> str:
        return f"{self.family} {self.setting}".strip()

    def steps_of(self, total: int) -> int:
        """Steps that it is asked for where the uncached run has so many."""
        return max(1, round(total * self.steps_share))


UNCACHED_RUN = Method(family=UNCACHED, setting="")
OVERHEAD_RUN = Method(family=OVERHEAD, setting="", cache=NEVER)


def methods() -> list[Method]:
    return [*fewer_steps(), *ours(), *rivals(), *outside()]


def cached(family: str, setting: str, method: str, **settings: Any) -> Method:
    return Method(family=family, setting=setting, cache={"method": method} | settings)


def fewer_steps() -> list[Method]:
    found = []
    for by in (1.5, 2.0, 3.0):
        found.append(Method(family="Fewer steps", setting=f"÷{by:g}", steps_share=1 / by))
        for shift in (1.5, 2.0, 2.5, 3.0):
            setting = f"÷{by:g}, shift {shift:g}"
            tuned = Method(family="Fewer steps, shift tuned", setting=setting, steps_share=1 / by, flow_shift=shift)
            found.append(tuned)
    return found


def ours() -> list[Method]:
    plain = "Budget without correction"
    return [cached("Budget", f"{by:g}×", "budget", speedup=by) for by in (1.5, 2.0, 2.5, 3.0, 3.5)] + [
        cached(plain, f"{by:g}×", "budget", speedup=by, correct=False) for by in (1.5, 2.0, 3.0)
    ]


def rivals() -> list[Method]:
    books = ("slow", "fast", "calibrated")
    found = [cached("AdaCache", book, "adacache", codebook=book) for book in books]
    found += [cached("AdaCache + MoReg", book, "adacache", codebook=book, moreg=True) for book in books]
    found += [cached("EasyCache", f"{at:g}", "easycache", threshold=at) for at in (0.05, 0.1, 0.2, 0.4)]
    found += [cached("TeaCache", f"{at:g}", "teacache", threshold=at) for at in (0.1, 0.2, 0.4)]
    for at in (0.15, 0.34, 0.7):
        found.append(cached("SenCache", f"{at:g}", "sencache", threshold=at))
    found += [cached("First block", f"{at:g}", "first_block", threshold=at) for at in (0.1, 0.2, 0.4)]
    for at, most in ((0.12, 1), (0.12, 2), (0.12, 4), (0.5, 5)):
        found.append(cached("MagCache", f"{at:g}, K = {most}", "magcache", threshold=at, max_skip_steps=most))
    # The authors' for Wan 2.1 1.3B, who neither limit the run nor continue a trend; then diffusers' way.
    for at in (0.2, 0.35):
        settings = {"threshold": at, "max_consecutive_cached": 0, "residual_order": 0}
        found.append(cached("SeaCache", f"{at:g}, order 0, no cap", "seacache", **settings))
    for at, most in ((0.1, 2), (0.25, 2), (0.5, 2), (0.5, 4), (1.0, 4)):
        setting = f"{at:g}, order 1, cap {most}"
        found.append(cached("SeaCache", setting, "seacache", threshold=at, max_consecutive_cached=most))
    for every, order in ((2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2)):
        setting = f"every {every}, order {order}"
        found.append(cached("TaylorSeer", setting, "taylorseer", cache_interval=every, max_order=order))
    found += [cached("PAB", f"{n}", "pab", self_attention_skip_range=n) for n in (2, 3)]
    return found


def outside() -> list[Method]:
    """Rivals that are no part of the studio."""
    found = []
    if cache_dit_rival.is_here():
        for at in (0.08, 0.12, 0.16, 0.24, 0.5):
            made = partial(cache_dit_rival.CacheDit, threshold=at)
            found.append(Method(family="cache-dit", setting=f"{at:g}", cache_for=made))
    for share in (2 / 3, 1 / 2, 1 / 3):
        found.append(Method(family="DPCache", setting=f"{share:.0%}", cache_for=partial(dpcache_at, share)))
    for each in planned_rivals.read_found():
        made = partial(planned_rivals.budcache, computed=each["computed"])
        setting = f"{each['computed']} steps"
        found.append(Method(family="BudCache", setting=setting, cache_for=made, at_steps=each["steps"]))
    return found


def dpcache_at(share: float, run: Any) -> Any:
    return planned_rivals.dpcache(run, computed=round(share * run.total_steps))


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--first-prompt", type=int, default=0, help="where to begin, to share the work among processes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 50])
    parser.add_argument("--only", nargs="+", help="families to run, such as Budget AdaCache")
    parser.add_argument("--training", type=Path, default=ROOT / "training", help="where the probe is kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write-only", action="store_true", help="no runs: tables and plot from what is there")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    args.results.mkdir(parents=True, exist_ok=True)
    if not args.write_only:
        _run_all(args)
    readme = ROOT / "README.md" if args.results.resolve() == RESULTS else None
    print(caching_tables.write(args.results, read_cells(args.results / CELLS, checkpoint_of(args.preset)), readme))


def checkpoint_of(preset: str) -> str:
    """Which weights: cells of others are not mixed in."""
    from studio.machine.weights import fingerprint
    from studio.preset import find_preset

    return fingerprint(find_preset(preset))


def read_cells(path: Path, checkpoint: str) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [cell for cell in map(json.loads, lines) if cell["checkpoint"] == checkpoint]


def _run_all(args: argparse.Namespace) -> None:
    from pocket_quality import trained_probe

    from studio.pocket.data import render_world

    checkpoint = checkpoint_of(args.preset)
    probe = trained_probe(args.training)
    done = {_key(cell) for cell in read_cells(args.results / CELLS, checkpoint)}
    chosen = [method for method in methods() if not args.only or method.family in args.only]
    warm = True
    for number in range(args.first_prompt, args.prompts):
        world = render_world(PROMPT_SEED + number, num_frames=1)
        for seed in range(args.seeds):
            for steps in args.steps:
                wanted = [UNCACHED_RUN, *(each for each in chosen if each.at_steps in (None, steps)), OVERHEAD_RUN]
                wanted = [method for method in wanted if (method.name, number, seed, steps) not in done]
                if not wanted:
                    continue
                with TemporaryDirectory() as folder:
                    bench = _Bench(args.preset, world, seed, steps, Path(folder), probe)
                    if warm:
                        bench.make(UNCACHED_RUN, steps)
                        warm = False
                    for cell in bench.cells(wanted):
                        cell |= {"prompt": number, "seed": seed, "steps": steps, "checkpoint": checkpoint}
                        with (args.results / CELLS).open("a", encoding="utf-8") as file:
                            file.write(json.dumps(cell) + "\n")
                        print(_line(cell))


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["method"], cell["prompt"], cell["seed"], cell["steps"]


def _line(cell: dict[str, Any]) -> str:
    where = f"{cell['prompt']}/{cell['seed']} at {cell['steps']}: {cell['method']:36}"
    if "error" in cell:
        return f"{where} {cell['error']}"
    psnr = caching_tables.finite(cell["psnr"])
    return f"{where} computed {cell['computed']:.0%}, {cell['cpu']:.2f}×, PSNR {psnr:.2f} dB"


class _Bench:
    """One prompt, one seed, one number of steps: the uncached clip again and again, methods in between."""

    def __init__(self, preset: str, world: Any, seed: int, steps: int, folder: Path, probe: Any) -> None:
        from studio.preset import find_preset

        self.preset = find_preset(preset)
        self.world, self.seed, self.steps, self.probe = world, seed, steps, probe
        self.store = keeping_store(folder)
        self.kept_bytes = 0
        self.cpu_seconds = 0.0
        """Of the last run's denoising."""

    def cells(self, wanted: list[Method]) -> Iterator[dict[str, Any]]:
        from studio.errors import StudioError
        from studio.metrics import score, scores_to_json
        from studio.pocket.probe import agreement, read_attributes

        full, reference, full_cpu = None, None, 0.0
        for position, method in enumerate(wanted):
            if position % GROUP == 0:
                full = self.make(UNCACHED_RUN, self.steps)
                reference, full_cpu = self.store.frames, self.cpu_seconds
            assert full is not None
            steps = method.steps_of(self.steps)
            try:
                run = self.make(method, steps)
            except StudioError as error:
                yield {"method": method.name, "family": method.family, "error": str(error)}
                continue
            clip = self.store.frames
            names = ["psnr", "ssim", "ms_ssim", "flicker"]
            yield (
                {
                    "method": method.name,
                    "family": method.family,
                    "steps_computed": steps,
                    "computed": run.trace.computed / full.trace.computed,
                    "cpu": full_cpu / self.cpu_seconds,
                    "whole": full.total_seconds / run.total_seconds,
                    "schedule": _schedule(run),
                    "kept_bytes": self.kept_bytes,
                    "agreement": agreement(read_attributes(self.probe, [clip]), [self.world.attributes]),
                    "digest": hashlib.sha256(clip.tobytes()).hexdigest()[:16],
                }
                | scores_to_json(score(clip, reference, names))
            )

    def make(self, method: Method, steps: int) -> Any:
        """The finished run; what its cache kept is in `kept_bytes`, and what its denoising took in `cpu_seconds`."""
        from studio.events import RunFinished, StageFinished, StageStarted
        from studio.generate import generate
        from studio.requests.generation import request_for

        settings = {} if method.flow_shift is None else {"flow_shift": method.flow_shift}
        request = request_for(
            self.preset,
            prompt=self.world.caption,
            seed=self.seed,
            num_inference_steps=steps,
            cache=method.cache,
            **settings,
        )
        self.kept_bytes = 0
        weighed = partial(self._weighed, method, request.cache) if method.cache or method.cache_for else None
        run_id, began = "", 0.0
        for event in generate(request, store=self.store, cache_for=weighed):
            if isinstance(event, StageStarted) and event.stage == "denoising":
                began = time.process_time()
            elif isinstance(event, StageFinished) and event.stage == "denoising":
                self.cpu_seconds = time.process_time() - began
            elif isinstance(event, RunFinished):
                run_id = event.run_id
        return self.store.get(run_id)

    def _weighed(self, method: Method, settings: Any, run: Any) -> Any:
        """The method's cache for a run, which tells how much it keeps."""
        from studio import caching

        made: Any = method.cache_for(run) if method.cache_for else caching.cache_for(settings, run)
        begin = made.begin_step

        def begin_step(index: int, sigma: float) -> None:
            self.kept_bytes = max(self.kept_bytes, made.kept_bytes)
            begin(index, sigma)

        made.begin_step = begin_step
        return made


def _schedule(run: Any) -> str:
    """A letter a step: c(omputed), r(eused), p(artly)."""
    kinds = [{age < 0 for block in step for age in block if age is not None} for step in run.trace.ages]
    return "".join("p" if len(kind) > 1 else "c" if True in kind else "r" for kind in kinds)


if __name__ == "__main__":
    main()
