"""What every cache saves and costs: `python benchmarks/caching.py`, and again to go on where it stopped.

On the pocket model, held-out prompts and fixed seeds, at 30 and 50 steps:
- speed: denoising and whole run, each as a ratio to the uncached run of the same prompt made just before, in one
  process; medians and quartiles. A clip is made once to warm up, and timings are device-synchronised;
- cost: PSNR, SSIM and MS-SSIM against that uncached clip; flicker; agreement with the prompt by the probe of
  benchmarks/pocket_quality.py;
- work: transformer blocks computed, and the tensors that a cache keeps;
- the overhead of a cache that is attached and never skips.

"Fewer steps" is the same model asked for fewer steps, the baseline that every cache has to beat. Every cell is
appended to caching-cells.jsonl in the results folder. What a clip looks like does not depend on what else the machine
does, but its seconds do: `--timings`, on a machine that does nothing else, times every method again on a few prompts,
an uncached run before each, and the tables take their speeds from there. Tables and Pareto plots are written from those
two files, and the tables at equal speed into README between its two marks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cache_dit_rival
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
PROMPT_SEED = 300
"""First held-out world whose caption is a prompt; pocket_quality.py uses 0 to 63, calibration the preset ideas."""
GROUP = 6
"""Methods between two uncached runs of the same prompt."""
UNCACHED = "Uncached"
"""Family of the uncached run itself, of which only the agreement with the prompt is news."""
MARKS_IN_README = ("<!-- benchmarks/caching.py -->", "<!-- end -->")
CELLS, TIMINGS = "caching-cells.jsonl", "caching-timings.jsonl"
OURS = "Budget"
AT_SPEEDS = (1.5, 2.0, 3.0)
"""Where methods are held against each other; between two settings of a method, its PSNR is a straight line."""
NEVER = {"method": "adacache", "codebook": "custom", "rates": [1]}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One point of the plot."""

    family: str
    setting: str
    cache: dict[str, Any] | None = None
    cache_dit: dict[str, Any] | None = None
    """Settings of the rival that is no part of the studio."""
    steps_share: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.family} {self.setting}".strip()

    def steps_of(self, total: int) -> int:
        """Steps that it is asked for where the uncached run has so many."""
        return max(1, round(total * self.steps_share))


UNCACHED_RUN = Method(family=UNCACHED, setting="")
OVERHEAD = Method(family="Overhead", setting="", cache=NEVER)


def methods() -> list[Method]:
    def cached(family: str, setting: str, method: str, **settings: Any) -> Method:
        return Method(family=family, setting=setting, cache={"method": method} | settings)

    found = [Method(family="Fewer steps", setting=f"÷{by:g}", steps_share=1 / by) for by in (1.5, 2.0, 3.0)]
    found += [cached("Budget", f"{by:g}×", "budget", speedup=by) for by in (1.5, 2.0, 2.5, 3.0, 3.5)]
    plain = "Budget without correction"
    found += [cached(plain, f"{by:g}×", "budget", speedup=by, correct=False) for by in (1.5, 2.0, 3.0)]
    found += [cached("AdaCache", book, "adacache", codebook=book) for book in ("slow", "fast", "calibrated")]
    found += [
        cached("AdaCache + MoReg", book, "adacache", codebook=book, moreg=True) for book in ("fast", "calibrated")
    ]
    found += [cached("EasyCache", f"{at:g}", "easycache", threshold=at) for at in (0.1, 0.2, 0.4)]
    found += [cached("TeaCache", f"{at:g}", "teacache", threshold=at) for at in (0.1, 0.2, 0.4)]
    found += [cached("First block", f"{at:g}", "first_block", threshold=at) for at in (0.1, 0.2, 0.4)]
    found += [cached("MagCache", f"{at:g}", "magcache", threshold=at) for at in (0.06, 0.2, 0.5)]
    found += [cached("SeaCache", f"{at:g}", "seacache", threshold=at) for at in (0.1, 0.25, 0.5)]
    found += [cached("TaylorSeer", f"every {n}", "taylorseer", cache_interval=n) for n in (2, 3, 4)]
    found += [cached("PAB", f"{n}", "pab", self_attention_skip_range=n) for n in (2, 3)]
    if cache_dit_rival.is_here():
        found += [
            Method(family="cache-dit", setting=f"{at:g}", cache_dit={"threshold": at}) for at in (0.08, 0.16, 0.24)
        ]
        with_taylorseer = {"threshold": 0.24, "taylorseer": True}
        found.append(Method(family="cache-dit", setting="0.24 with TaylorSeer", cache_dit=with_taylorseer))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--first-prompt", type=int, default=0, help="where to begin, to share the work among processes")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 50])
    parser.add_argument("--only", nargs="+", help="families to run, such as Budget AdaCache")
    parser.add_argument("--training", type=Path, default=ROOT / "training", help="where the probe is kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--timings", type=int, metavar="N", help="time every method on N prompts instead")
    parser.add_argument("--write-only", action="store_true", help="no runs: tables and plot from what is there")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    args.results.mkdir(parents=True, exist_ok=True)
    if args.timings:
        _time_all(args)
    elif not args.write_only:
        _run_all(args)
    checkpoint = checkpoint_of(args.preset)
    write(args.results, read_cells(args.results / CELLS, checkpoint), read_cells(args.results / TIMINGS, checkpoint))


def checkpoint_of(preset: str) -> str:
    """Which weights: cells of others are not mixed in."""
    from studio.machine.weights import fingerprint
    from studio.preset import find_preset

    return fingerprint(find_preset(preset))


def read_cells(path: Path, checkpoint: str) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [cell for cell in map(json.loads, lines) if cell["checkpoint"] == checkpoint]


# running


def _run_all(args: argparse.Namespace) -> None:
    from pocket_quality import trained_probe

    from studio.pocket.data import render_world

    checkpoint = checkpoint_of(args.preset)
    probe = trained_probe(args.training)
    done = {_key(cell) for cell in read_cells(args.results / CELLS, checkpoint)}
    warm = True
    for number in range(args.first_prompt, args.prompts):
        world = render_world(PROMPT_SEED + number, num_frames=1)
        for seed in range(args.seeds):
            for steps in args.steps:
                wanted = [method for method in _chosen(args.only) if (method.name, number, seed, steps) not in done]
                if not wanted:
                    continue
                with TemporaryDirectory() as folder:
                    bench = _Bench(args.preset, world, seed, steps, Path(folder), probe)
                    if warm:
                        bench.make(UNCACHED_RUN, steps)
                        warm = False
                    for cell in bench.cells(wanted):
                        cell |= {"prompt": number, "seed": seed, "steps": steps, "checkpoint": checkpoint}
                        _append(args.results / CELLS, cell)
                        print(_line(cell))


def _time_all(args: argparse.Namespace) -> None:
    from studio.pocket.data import render_world

    checkpoint = checkpoint_of(args.preset)
    for number in range(args.timings):
        world = render_world(PROMPT_SEED + number, num_frames=1)
        for steps in args.steps:
            with TemporaryDirectory() as folder:
                bench = _Bench(args.preset, world, 0, steps, Path(folder), None)
                bench.make(UNCACHED_RUN, steps)
                for method in _chosen(args.only):
                    full = bench.make(UNCACHED_RUN, steps)
                    run = bench.make(method, method.steps_of(steps))
                    cell = {"method": method.name, "family": method.family, "prompt": number, "steps": steps}
                    cell |= _speeds(full, run) | {"checkpoint": checkpoint}
                    _append(args.results / TIMINGS, cell)
                    print(f"{number} at {steps}: {method.name:28} {cell['denoising']:.2f}×")


def _chosen(families: list[str] | None) -> list[Method]:
    return [UNCACHED_RUN, *(method for method in methods() if not families or method.family in families), OVERHEAD]


def _append(path: Path, cell: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def _speeds(full: Any, run: Any) -> dict[str, float]:
    """A run's speed as a ratio to the uncached one's."""
    return {
        "denoising": full.stage_seconds["denoising"] / run.stage_seconds["denoising"],
        "whole": full.total_seconds / run.total_seconds,
    }


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["method"], cell["prompt"], cell["seed"], cell["steps"]


def _line(cell: dict[str, Any]) -> str:
    where = f"{cell['prompt']}/{cell['seed']} at {cell['steps']}: {cell['method']:28}"
    if "error" in cell:
        return f"{where} {cell['error']}"
    return f"{where} {cell['denoising']:.2f}× PSNR {_finite(cell['psnr']):.2f} dB, computed {cell['computed']:.0%}"


class _Bench:
    """One prompt, one seed, one number of steps: the uncached clip again and again, methods in between."""

    def __init__(self, preset: str, world: Any, seed: int, steps: int, folder: Path, probe: Any) -> None:
        from studio.preset import find_preset

        self.preset = find_preset(preset)
        self.world, self.seed, self.steps, self.probe = world, seed, steps, probe
        self.store = _keeping_store(folder)
        self.kept_bytes = 0

    def cells(self, wanted: list[Method]) -> Iterator[dict[str, Any]]:
        from studio.errors import StudioError
        from studio.metrics import score, scores_to_json
        from studio.pocket.probe import agreement, read_attributes

        full, reference = None, None
        for position, method in enumerate(wanted):
            if position % GROUP == 0:
                full = self.make(UNCACHED_RUN, self.steps)
                reference = self.store.frames
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
                    "schedule": _schedule(run),
                    "kept_bytes": self.kept_bytes,
                    "agreement": agreement(read_attributes(self.probe, [clip]), [self.world.attributes]),
                    "digest": hashlib.sha256(clip.tobytes()).hexdigest()[:16],
                }
                | _speeds(full, run)
                | scores_to_json(score(clip, reference, names))
            )

    def make(self, method: Method, steps: int) -> Any:
        """The finished run; what its cache kept is in `kept_bytes`."""
        from studio import caching
        from studio.events import RunFinished
        from studio.generate import generate
        from studio.requests.generation import request_for

        request = request_for(
            self.preset, prompt=self.world.caption, seed=self.seed, num_inference_steps=steps, cache=method.cache
        )
        self.kept_bytes = 0

        def weighed(run: Any) -> Any:
            if method.cache_dit is not None:
                return cache_dit_rival.CacheDit(run, **method.cache_dit)
            assert request.cache is not None
            made = caching.cache_for(request.cache, run)
            begin = made.begin_step

            def begin_step(index: int, sigma: float) -> None:
                self.kept_bytes = max(self.kept_bytes, made.kept_bytes)
                begin(index, sigma)

            made.begin_step = begin_step  # type: ignore[method-assign]
            return made

        run_id = ""
        for event in generate(
            request, store=self.store, cache_for=weighed if method.cache or method.cache_dit else None
        ):
            if isinstance(event, RunFinished):
                run_id = event.run_id
        return self.store.get(run_id)


def _keeping_store(folder: Path) -> Any:
    """A store that holds on to the last clip's own pixels: the mp4's compression would hide what is above 40 dB."""
    from studio.clips.clip import Clip
    from studio.records.run import Run
    from studio.records.run_writer import RunWriter
    from studio.records.runs import RunStore

    class Keeping(RunStore):
        frames: np.ndarray

        def begin(self, *args: Any, **kwargs: Any) -> RunWriter:
            writer = super().begin(*args, **kwargs)
            complete = writer.complete

            def completed(clip: Clip, *, partial: bool = False) -> Run:
                self.frames = clip.frames
                return complete(clip, partial=partial)

            writer.complete = completed  # type: ignore[method-assign]
            return writer

    return Keeping(folder)


def _schedule(run: Any) -> str:
    """A letter a step: c(omputed), r(eused), p(artly)."""
    kinds = [{age < 0 for block in step for age in block if age is not None} for step in run.trace.ages]
    return "".join("p" if len(kind) > 1 else "c" if True in kind else "r" for kind in kinds)


# writing


def write(results: Path, cells: list[dict[str, Any]], timings: list[dict[str, Any]]) -> None:
    """caching.json, caching.md and a Pareto plot for each number of steps; README's tables where these are its own."""
    import matplotlib as mpl

    mpl.use("Agg")
    tables, short, figures = [], [], {}
    for steps in sorted({cell["steps"] for cell in cells}):
        rows = _rows(*([cell for cell in some if cell["steps"] == steps] for some in (cells, timings)))
        figures[steps] = rows
        if rows:
            _plot(results / f"caching_{steps}.png", rows, steps)
            short.append(_at_equal_speed(rows, steps))
            tables += [short[-1], _table(rows, steps)]
    overhead = [cell for cell in cells if cell["family"] == OVERHEAD.family and "psnr" in cell]
    timed = [cell for cell in timings if cell["family"] == OVERHEAD.family] or overhead
    lines = ["# What every cache saves and costs", "", *tables]
    if overhead:
        slower = statistics.median(1 / cell["denoising"] for cell in timed) - 1
        same = all(cell["psnr"] == "inf" for cell in overhead)
        short.append(
            f"A cache that is attached and never skips takes {slower:+.1%} of the denoising time (median of "
            f"{len(timed)} pairs), and {'changes no bit' if same else 'CHANGES the clip'}."
        )
        lines.append(short[-1])
        figures["overhead"] = {"slower": slower, "pairs": len(timed), "same": same}
    (results / "caching.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (results / "caching.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if results.resolve() == RESULTS:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition(MARKS_IN_README[0])
        _, _, after = rest.partition(MARKS_IN_README[1])
        inside = "\n".join(short).replace("## ", "### ").strip()
        words = "\n\n".join([MARKS_IN_README[0], inside, MARKS_IN_README[1]])
        readme.write_text(before + words + after, encoding="utf-8")
    print("\n".join(lines))


def _rows(cells: list[dict[str, Any]], timings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_method: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        if cell["family"] != OVERHEAD.family:
            by_method[cell["method"]].append(cell)
    rows = []
    for method, mine in by_method.items():
        good = [cell for cell in mine if "psnr" in cell]
        if not good:
            rows.append({"method": method, "family": mine[0]["family"], "error": mine[0]["error"]})
            continue
        timed = [cell for cell in timings if cell["method"] == method] or good
        denoising = [cell["denoising"] for cell in timed]
        rows.append(
            {
                "method": method,
                "family": mine[0]["family"],
                "cells": len(good),
                "denoising": statistics.median(denoising),
                "quartiles": [float(np.quantile(denoising, share)) for share in (0.25, 0.75)],
                "whole": statistics.median(cell["whole"] for cell in timed),
                "timings": len(timed),
                "computed": statistics.mean(cell["computed"] for cell in good),
                "kept_bytes": max(cell["kept_bytes"] for cell in good),
            }
            # Quality as the mean over clips; a clip that is equal to the last bit counts as 60 dB.
            | {name: statistics.mean(_finite(cell[name]) for cell in good) for name in ("psnr", "ssim", "ms_ssim")}
            | {"agreement": statistics.mean(statistics.mean(cell["agreement"].values()) for cell in good)}
        )
    return sorted(rows, key=lambda row: (row["family"], row.get("denoising", 0)))


def _finite(value: float | str) -> float:
    return 60.0 if value == "inf" else float(value)


def _at_equal_speed(rows: list[dict[str, Any]], steps: int) -> str:
    """PSNR of each family at the same measured speeds, the best first; a dash where it has no setting on both sides."""
    families: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if "psnr" in row and row["family"] != UNCACHED:
            families[row["family"]].append((row["denoising"], row["psnr"]))
    found = {family: [_psnr_at(speed, points) for speed in AT_SPEEDS] for family, points in families.items()}
    order = sorted(found, key=lambda family: -(found[family][AT_SPEEDS.index(2.0)] or 0))
    count = max(row.get("cells", 0) for row in rows)
    lines = [
        f"## {steps} steps, {count} clips a method: PSNR at equal measured speed of denoising",
        "",
        "| method | " + " | ".join(f"{speed:g}×" for speed in AT_SPEEDS) + " |",
        "| --- |" + " --- |" * len(AT_SPEEDS),
    ]
    for family in order:
        if any(found[family]):
            values = " | ".join("–" if value is None else f"{value:.1f} dB" for value in found[family])
            lines.append(f"| {_title(family)} | {values} |")
    return "\n".join([*lines, ""])


def _psnr_at(speed: float, points: list[tuple[float, float]]) -> float | None:
    points = sorted(points)
    # A setting that is 5 % slower or faster than asked for is taken as it is.
    if points[0][0] / 1.05 <= speed <= points[-1][0] * 1.05:
        return float(np.interp(speed, [at for at, _ in points], [psnr for _, psnr in points]))
    return None


def _title(family: str) -> str:
    return f"**{family} (ours)**" if family == OURS else family


def _table(rows: list[dict[str, Any]], steps: int) -> str:
    lines = [
        f"## {steps} steps: every setting",
        "",
        "| method | denoising | quartiles | whole run | blocks computed | kept | PSNR | SSIM | MS-SSIM | agreement |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['method']} | {row['error']} | | | | | | | | |")
            continue
        low, high = row["quartiles"]
        lines.append(
            f"| {row['method']} | {row['denoising']:.2f}× | {low:.2f}–{high:.2f} | {row['whole']:.2f}× | "
            f"{row['computed']:.0%} | {row['kept_bytes'] / 1e6:.1f} MB | {row['psnr']:.2f} dB | {row['ssim']:.4f} | "
            f"{row['ms_ssim']:.4f} | {row['agreement']:.0%} |"
        )
    return "\n".join([*lines, "", f"![Speed against quality at {steps} steps](caching_{steps}.png)", ""])


MARKS = "osD^v<>PX*ph"


def _plot(path: Path, rows: list[dict[str, Any]], steps: int) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 5.2), dpi=130)
    drawn = {row["family"] for row in rows if "psnr" in row} - {UNCACHED}
    families = sorted(drawn, key=lambda family: (family != OURS, family))
    for number, family in enumerate(families):
        mine = sorted((row for row in rows if row["family"] == family and "psnr" in row), key=lambda r: r["denoising"])
        ours = family == OURS
        axes.plot(
            [row["denoising"] for row in mine],
            [row["psnr"] for row in mine],
            marker=MARKS[number % len(MARKS)],
            linewidth=2.2 if ours else 1.0,
            markersize=8 if ours else 5.5,
            linestyle="--" if family == "Fewer steps" else "-",
            color="black" if family == "Fewer steps" else None,
            label="Budget (ours)" if ours else family,
            zorder=3 if ours else 2,
        )
    axes.set_xlabel("denoising, times as fast as uncached")
    axes.set_ylabel("PSNR against the uncached clip, dB")
    axes.set_title(f"Pocket model, {steps} steps: up and to the right is better", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
