"""A comparison as the page draws it: its name, its table, its plot, and what the player shows.

Knows records and scores. Refuses to know pages, files and how anything was measured.
"""

from __future__ import annotations

import math

from studio.compare import (
    FULL,
    METRICS,
    Cell,
    Comparison,
    MethodSummary,
    Pace,
    Point,
    pareto_front,
    plotted,
    summaries_of,
)
from studio.compare.figures import speed_by_cell
from studio.compare.wording import error_text, method_title, ratio_text, score_text
from studio.ui.components import message, values
from studio.ui.components.synced_player import FrameScores, PlayerClip, player_record
from studio.ui.wording import seconds_text, settings_line

MOST_PICKED = 3
"""Clips beside one reference in the player."""
PACES: dict[Pace, str] = {"denoising": "denoising", "whole": "the whole run"}
"""And what each is called."""
SHOWN_IN_TABLE = ("psnr", "ssim", "ms_ssim", "lpips", "flicker", "flow_warp_error")


def may_be_shown(comparison: Comparison, cell: Cell) -> bool:
    """Whether there are two clips to lay side by side."""
    return not cell.is_reference and cell.state == "complete" and comparison.cells[cell.reference].state == "complete"


def name_of(comparison: Comparison) -> str:
    """A comparison in one line, for a list."""
    first = comparison.cells[0].request.prompt
    short = first if len(first) <= 40 else first[:39] + "…"
    methods = [method_title(method) for method in comparison.methods if method != FULL]
    more = f" and {len(methods) - 2} more" if len(methods) > 2 else ""
    return f"{comparison.created[5:16].replace('T', ' ')} · {', '.join(methods[:2])}{more} · {short}"


def status_of(comparison: Comparison) -> values.Message:
    """The value of the message over the table."""
    total, ended = len(comparison.cells), comparison.ended
    failures = sum(cell.state == "failed" for cell in comparison.cells)
    words = f"{ended} of {total} clips" + (f", {failures} failed" if failures else "")
    if comparison.state == "stopped":
        return message.warn(f"Stopped: {words}.")
    if comparison.state == "complete":
        return message.warn(f"Done: {words}.") if failures else message.good(f"Done: {words}.")
    cell = next((cell for cell in comparison.cells if cell.state == "running"), None)
    now = f" Making {method_title(cell.method)}, seed {cell.request.seed}." if cell else ""
    if ended == total:
        now = " Measuring the last scores."
    return {**message.quiet(f"{words}.{now}"), "share": ended / total}


def _metrics_of(comparison: Comparison, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(name in cell.scores for cell in comparison.cells)]


def _heads(names: list[str]) -> list[str]:
    return [METRICS[name].title + (f", {METRICS[name].unit}" if METRICS[name].unit else "") for name in names]


def table_value(comparison: Comparison, picked: list[int]) -> values.ComparisonTable:
    """The value of `comparison_table`."""
    names = _metrics_of(comparison, SHOWN_IN_TABLE)
    speeds = speed_by_cell(comparison)
    repeated = any(cell.repeat for cell in comparison.cells)
    groups: list[values.ComparedGroup] = []
    for cell in comparison.cells:
        if not groups or groups[-1]["number"] != cell.group:
            request = cell.request
            groups.append(
                {"number": cell.group, "title": request.prompt[:300], "line": settings_line(request), "rows": []}
            )
        denoising, _ = speeds[cell.number]
        done = cell.seconds is not None and cell.state == "complete"
        marks = [f"no. {cell.repeat + 1}"] if repeated else []
        marks += ["stored"] if cell.reused else []
        marks += ["cold start"] if cell.cold else []
        groups[-1]["rows"].append(
            {
                "cell": cell.number,
                "shape": comparison.methods.index(cell.method),
                "title": method_title(cell.method),
                "state": cell.state,
                "reference": cell.is_reference,
                "denoising": seconds_text(cell.seconds.denoising) if done and cell.seconds else "",
                "whole": seconds_text(cell.seconds.whole) if done and cell.seconds else "",
                "parts": _parts_of(cell) if done else "",
                "faster": "–" if denoising is None or cell.is_reference else f"{denoising:.2f}×",
                "scores": [score_text(name, cell.scores.get(name)) for name in names],
                "marks": marks,
                "note": " ".join(cell.notices) if done else error_text(cell),
            }
        )
    lines = summaries_of(comparison) if len(groups) > 1 or repeated else []
    return {
        "heads": _heads(names),
        "groups": groups,
        "picked": picked,
        "most": MOST_PICKED,
        "summary": [_summary_line(comparison, line, names) for line in lines if line.complete or line.failed],
    }


def _parts_of(cell: Cell) -> str:
    """What a whole run is made of."""
    if cell.seconds is None:
        return ""
    text, steps, decoding = (
        seconds_text(getattr(cell.seconds, part)) for part in ("encoding", "denoising", "decoding")
    )
    return f"text {text}, denoising {steps}, decoding {decoding}"


def _summary_line(comparison: Comparison, line: MethodSummary, names: list[str]) -> values.MethodRow:
    return {
        "shape": comparison.methods.index(line.method),
        "title": method_title(line.method),
        "clips": f"{line.complete}" + (f" ({line.failed} failed)" if line.failed else ""),
        "denoising": "–" if line.method == FULL else ratio_text(line.denoising, spread=True),
        "whole": "–" if line.method == FULL else ratio_text(line.whole, spread=True),
        "computed": "–" if line.computed_share is None else f"{100 * line.computed_share:.0f}%",
        "scores": [score_text(name, line.scores.get(name)) for name in names],
    }


def plot_value(comparison: Comparison, chosen: int | None) -> values.ParetoPlot:
    """The value of `pareto_plot`. Where there are several groups the front is that of the methods' medians."""
    points, medians = plotted(comparison)
    names = _metrics_of(comparison, tuple(METRICS))
    return {
        "methods": [{"shape": shape, "title": method_title(method)} for shape, method in enumerate(comparison.methods)],
        "metrics": [
            {
                "name": name,
                "title": METRICS[name].title,
                "unit": METRICS[name].unit,
                "digits": 2 if METRICS[name].unit else 4,
                "higher_is_better": METRICS[name].higher_is_better,
            }
            for name in names
        ],
        "paces": [
            {
                "name": pace,
                "title": title,
                "axis": f"times as fast ({title})",
                "unit": "×",
                "words": "× as fast",
                "log": False,
            }
            for pace, title in PACES.items()
        ],
        "points": [_point(comparison, point) for point in points],
        "medians": [_point(comparison, point) for point in medians],
        "fronts": {
            pace: {
                name: _front(medians or points, name, pace)
                for name in names
                if METRICS[name].higher_is_better is not None
            }
            for pace in PACES
        },
        "chosen": chosen,
        "hint": "Click a point to see its clip and load its settings.",
        "large": "Large marks are medians.",
        "perfect": "equal to the reference",
    }


def _point(comparison: Comparison, point: Point) -> values.PlottedPoint:
    line = ""
    if point.cell >= 0:
        request = comparison.cells[point.cell].request
        line = f"{request.prompt[:60]} · seed {request.seed}"
    return {
        "cell": point.cell,
        "shape": comparison.methods.index(point.method),
        "title": method_title(point.method),
        "line": line,
        "speeds": {pace: _median(point, pace) for pace in PACES},
        "scores": {name: "inf" if value == math.inf else value for name, value in point.scores.items()},
    }


def _median(point: Point, pace: Pace) -> float | None:
    ratio = point.denoising if pace == "denoising" else point.whole
    return None if ratio is None else ratio.median


def _front(points: list[Point], metric: str, pace: Pace) -> list[list[values.Figure]]:
    front = pareto_front(points, metric, pace)
    return [
        [_median(point, pace), "inf" if point.scores[metric] == math.inf else point.scores[metric]] for point in front
    ]


def player_value(
    comparison: Comparison, reference: Cell, cells: list[Cell], addresses: list[values.ServedFile]
) -> values.SyncedPlayer:
    """The player's value: the reference first, then the cells, each with speed, scores and PSNR by frame."""
    speeds = speed_by_cell(comparison)
    num_frames = max([len(cell.frame_psnr) for cell in cells] + [0]) or reference.request.num_frames

    def clip(cell: Cell, url: values.ServedFile) -> PlayerClip:
        denoising, _ = speeds[cell.number]
        facts = [] if cell.is_reference or denoising is None else [f"{denoising:.1f}× as fast"]
        facts += [
            f"{METRICS[name].title} {score_text(name, cell.scores[name])} {METRICS[name].unit}".strip()
            for name in ("psnr", "ssim")
            if name in cell.scores
        ]
        scores = None
        if len(cell.frame_psnr) == num_frames:
            scores = FrameScores(name="PSNR", unit="dB", values=cell.frame_psnr)
        return PlayerClip(title=method_title(cell.method), url=url, facts=facts, scores=scores)

    first, *others = (clip(cell, url) for cell, url in zip((reference, *cells), addresses, strict=True))
    return player_record(reference=first, others=others, fps=reference.request.fps, num_frames=num_frames)
