"""What benchmarks/caching.py measured, as tables and plots; knows cells, and not how they came about.

Families are held against each other where they compute the same share of the blocks. Of a family's settings those count
that no other of its own beats in both; between two of them PSNR is a straight line, and beyond all of its settings is
nothing.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from marked import write_between

OVERHEAD = "Overhead"
"""Family of a cache that never skips."""
UNCACHED = "Uncached"
"""Family of the uncached run itself, of which only the agreement with the prompt is news."""
OURS = "Budget"
AT_SHARES = (2 / 3, 1 / 2, 1 / 3)
"""Of the blocks computed, where families are held against each other."""
AS_GOOD_AS = 0.02
"""How far a family's outermost setting may be from such a share to be taken for it."""
EQUAL_COUNTS_AS = 60.0
"""Decibels of a clip that equals the uncached one."""
MARKS_IN_README = ("<!-- benchmarks/caching.py -->", "<!-- end -->")
PUBLISHED = (
    ("uncached, 40% of the steps", "2.5×", "14.5 dB", "ScalingCache's README"),
    ("TeaCache .08", "2.0×", "22.6 dB", "ScalingCache's README"),
    ("TaylorSeer", "1.9×", "13.5 dB", "ScalingCache's README"),
    ("MagCache", "2.14×", "23.4 dB", "arXiv 2506.09045"),
    ("EasyCache", "2.5×", "25.2 dB", "ScalingCache's README, arXiv 2507.02860"),
    ("SeaCache", "about 2×", "26.6 dB", "arXiv 2602.18993"),
    ("ScalingCache", "2.5×", "26.6 dB", "its README"),
    ("GCache", "2.17×", "32.4 dB", "its authors"),
)
"""Wan 2.1 1.3B at 50 steps, as the sources print it; none of it measured here, and references differ."""
CAVEAT = (
    "The pocket model is tiny, and a ranking of caches on it does not carry over to large models: on Wan 2.1 1.3B, "
    "fewer steps do far worse than most caches. What others have published for that model:"
)


def write(results: Path, cells: list[dict[str, Any]], readme: Path | None) -> str:
    """caching.json, caching.md and a plot for each number of steps; README's tables where one is given."""
    tables, short, figures = [], [], {}
    for steps in sorted({cell["steps"] for cell in cells}):
        rows = rows_of([cell for cell in cells if cell["steps"] == steps])
        figures[steps] = rows
        _plot(results / f"caching_{steps}.png", rows, steps)
        at_equal = at_equal_share(rows, steps)
        tables += [at_equal, _table(rows, steps)]
        short = short or [at_equal]  # README shows the first number of steps alone
    overhead = [cell for cell in cells if cell["family"] == OVERHEAD and "psnr" in cell]
    if overhead:
        slower = statistics.median(1 / cell["cpu"] for cell in overhead) - 1
        same = all(cell["psnr"] == "inf" for cell in overhead)
        sentence = (
            f"A cache that is attached and never skips takes {slower:+.1%} of the CPU seconds of denoising (median of "
            f"{len(overhead)} pairs), and {'changes no bit' if same else 'CHANGES the clip'}."
        )
        short.append(sentence)
        tables.append(sentence)
        figures["overhead"] = {"slower": slower, "pairs": len(overhead), "same": same}
    text = "\n".join(["# What every cache saves and costs", "", *tables, "", CAVEAT, "", *_published()]) + "\n"
    (results / "caching.md").write_text(text, encoding="utf-8")
    (results / "caching.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if readme is not None:
        inside = "\n".join(short).replace("## ", "### ").strip()
        write_between(readme, MARKS_IN_README, "\n\n".join([inside, CAVEAT, "\n".join(_published())]))
    return text


def finite(value: float | str) -> float:
    return EQUAL_COUNTS_AS if value == "inf" else float(value)


def rows_of(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a method: means over its clips, and how far clips are apart."""
    by_method: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        if cell["family"] != OVERHEAD:
            by_method[cell["method"]].append(cell)
    rows = []
    for method, mine in by_method.items():
        good = [cell for cell in mine if "psnr" in cell]
        if not good:
            rows.append({"method": method, "family": mine[0]["family"], "error": mine[0]["error"]})
            continue
        psnr = [finite(cell["psnr"]) for cell in good]
        cpu = [cell["cpu"] for cell in good]
        row = {
            "method": method,
            "family": mine[0]["family"],
            "clips": len(good),
            "computed": statistics.mean(cell["computed"] for cell in good),
            "cpu": statistics.median(cpu),
            "cpu_quartiles": [float(np.quantile(cpu, share)) for share in (0.25, 0.75)],
            "whole": statistics.median(cell["whole"] for cell in good),
            "kept_bytes": max(cell["kept_bytes"] for cell in good),
            "psnr": statistics.mean(psnr),
            "psnr_deviation": statistics.stdev(psnr) if len(psnr) > 1 else 0.0,
            "psnr_lowest": min(psnr),
            "agreement": statistics.mean(statistics.mean(cell["agreement"].values()) for cell in good),
        }
        rows.append(row | {name: statistics.mean(finite(cell[name]) for cell in good) for name in ("ssim", "ms_ssim")})
    return sorted(rows, key=lambda row: (row["family"], -row.get("computed", 0)))


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings that no other beats with fewer blocks and more decibels, by rising share."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["computed"], -row["psnr"])):
        if not kept or row["psnr"] > kept[-1]["psnr"]:
            kept.append(row)
    return kept


def at_share(rows: list[dict[str, Any]], share: float) -> dict[str, float] | None:
    """PSNR, its deviation and the CPU seconds' ratio of a family where it computes that share of the blocks."""
    best = front(rows)
    shares = [row["computed"] for row in best]
    # Of settings that compute more and come out worse than the best one, the best one speaks for them.
    most = max((row["computed"] for row in rows), default=0.0)
    if not best or not shares[0] - AS_GOOD_AS <= share <= most + AS_GOOD_AS:
        return None
    names = ("psnr", "psnr_deviation", "cpu")
    return {name: float(np.interp(share, shares, [row[name] for row in best])) for name in names}


def at_equal_share(rows: list[dict[str, Any]], steps: int) -> str:
    """A table of families where they compute the same, the best first; a dash where a family does not get there."""
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if "psnr" in row and row["family"] != UNCACHED:
            families[row["family"]].append(row)
    found = {family: [at_share(mine, share) for share in AT_SHARES] for family, mine in families.items()}

    def rank(family: str) -> tuple[float, ...]:
        half, *others = found[family][1], found[family][0], found[family][2]
        return tuple(-1.0 if value is None else value["psnr"] for value in (half, *others))

    counts = {row["clips"] for row in rows if "clips" in row}
    clips = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    lines = [
        f"## {steps} steps, {clips} clips a method, at an equal share of blocks computed: PSNR (± deviation over "
        "clips) · speed of denoising by CPU seconds",
        "",
        "| method | two thirds | one half | one third |",
        "| --- | --- | --- | --- |",
    ]
    for family in sorted(found, key=rank, reverse=True):
        if any(found[family]):
            lines.append(f"| {_title(family)} | {' | '.join(map(_cell, found[family]))} |")
    return "\n".join([*lines, ""])


def _cell(value: dict[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value['psnr']:.1f} ± {value['psnr_deviation']:.1f} dB · {value['cpu']:.2f}×"


def _title(family: str) -> str:
    return f"**{family} (ours)**" if family == OURS else family


def _published() -> list[str]:
    lines = ["| Wan 2.1 1.3B, published elsewhere | speed | PSNR | by |", "| --- | --- | --- | --- |"]
    return lines + [f"| {' | '.join(row)} |" for row in PUBLISHED]


def _table(rows: list[dict[str, Any]], steps: int) -> str:
    lines = [
        f"## {steps} steps: every setting",
        "",
        "| method | clips | blocks computed | by CPU seconds | quartiles | whole run | kept | PSNR | lowest | SSIM "
        "| MS-SSIM | agreement |",
        "| --- |" + " --- |" * 11,
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['method']} | {row['error']} |" + " |" * 10)
            continue
        low, high = row["cpu_quartiles"]
        lines.append(
            f"| {row['method']} | {row['clips']} | {row['computed']:.1%} | {row['cpu']:.2f}× | {low:.2f}–{high:.2f} | "
            f"{row['whole']:.2f}× | {row['kept_bytes'] / 1e6:.1f} MB | "
            f"{row['psnr']:.2f} ± {row['psnr_deviation']:.2f} dB | {row['psnr_lowest']:.2f} dB | "
            f"{row['ssim']:.4f} | {row['ms_ssim']:.4f} | {row['agreement']:.0%} |"
        )
    return "\n".join([*lines, "", f"![Work against quality at {steps} steps](caching_{steps}.png)", ""])


MARKS = "osD^v<>PX*ph"


def _plot(path: Path, rows: list[dict[str, Any]], steps: int) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 5.2), dpi=130)
    drawn = {row["family"] for row in rows if "psnr" in row} - {UNCACHED}
    for number, family in enumerate(sorted(drawn, key=lambda family: (family != OURS, family))):
        mine = front([row for row in rows if row["family"] == family and "psnr" in row])
        ours, fewer = family == OURS, family.startswith("Fewer steps")
        axes.plot(
            [row["computed"] for row in mine],
            [row["psnr"] for row in mine],
            marker=MARKS[number % len(MARKS)],
            linewidth=2.2 if ours else 1.0,
            markersize=8 if ours else 5.5,
            linestyle="--" if fewer else "-",
            color="black" if family == "Fewer steps" else "grey" if fewer else plt.get_cmap("tab20")(number % 20),
            label="Budget (ours)" if ours else family,
            zorder=3 if ours else 2,
        )
    axes.invert_xaxis()
    axes.set_xlabel("share of transformer blocks computed")
    axes.set_ylabel("PSNR against the uncached clip, dB")
    axes.set_title(f"Pocket model, {steps} steps: up and to the right is better", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
