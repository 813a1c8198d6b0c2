"""A comparison as one HTML page that needs nothing but itself: plot, tables and posters.

Knows HTML and SVG. Refuses to compute a figure (`figures`, `metrics`), to name a colour (`palette`), and to let what
somebody typed become markup.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence

from studio.compare.cells import FULL, Cell, Comparison
from studio.compare.figures import Point, pareto_front, plotted, speed_by_cell, summaries_of
from studio.compare.wording import error_text, method_title, ratio_text, score_text
from studio.errors import RunError
from studio.metrics import METRICS
from studio.palette import by_the_readers_choice
from studio.records.runs import RunStore

_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""

_DESK = """
body { margin: 0; background: var(--desk); color: var(--ink); }
main { max-width: 1180px; margin: 0 auto; padding: 16px clamp(12px, 2vw, 24px) 28px; }
"""

_BODY = """<main>
<h1>{title}</h1>
<p class="soft">{lead}</p>
{plot}
<h2>By method</h2>
{summary}
<h2>Every clip</h2>
{cells}
<p class="soft">{foot}</p>
</main>"""

_STYLE = """body { font: 14px/1.45 "IBM Plex Sans", ui-sans-serif, system-ui, sans-serif; }
h1 { font-size: 19px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 22px 0 6px; }
.soft { color: var(--soft); margin: 0 0 10px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 5px 7px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: middle; }
th { font-size: 12px; font-weight: 600; color: var(--soft); white-space: normal; line-height: 1.3; }
th:first-child, td:first-child, td.words { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th:first-child, td:first-child { min-width: 120px; padding-left: 0; }
td.bad { color: var(--bad); }
tr.group th { color: var(--ink); padding-top: 14px; }
td img { display: block; width: 84px; border-radius: 3px; }
svg { display: block; width: 100%; max-width: 760px; height: auto; }
svg text { fill: var(--soft); font-size: 12px; } svg .name { fill: var(--ink); }
svg .axis { stroke: var(--line); } svg .front { stroke: var(--soft); fill: none; stroke-dasharray: 5 4; }"""  # noqa: E501


def document(*, title: str, policy: str, style: str, body: str) -> str:
    """A page that needs nothing but itself, by day or by night as its reader's system has it.

    Args:
        title: As text.
        policy: What the page forbids itself, as a Content-Security-Policy.
        style: Its own rules, behind the palette and the desk that every such page lies on.
        body: As markup.
    """
    rules = by_the_readers_choice() + _DESK + style
    return _DOCUMENT.format(title=html.escape(title), policy=policy, style=rules, body=body)


def to_html(comparison: Comparison, store: RunStore | None = None) -> str:
    """One page that needs nothing but itself: plot, tables, and each clip's poster where its run is still there."""
    title = "Comparison of " + ", ".join(method_title(method) for method in comparison.methods if method != FULL)
    first = comparison.cells[0].request
    lead = (
        f"{first.preset}, {first.width}×{first.height}, {first.num_frames} frames, {first.num_inference_steps} steps. "
        f"{comparison.ended} of {len(comparison.cells)} clips, begun {comparison.created[:16].replace('T', ' ')} UTC."
    )
    foot = (
        "Speed-ups are ratios to the full clip of the same prompt and seed: medians, with quartiles in brackets where "
        "there are several. Denoising is the transformer's steps alone; the whole run goes from the text to the file, "
        "without loading the model. Scores are measured on the stored clips."
    )
    body = _BODY.format(
        title=html.escape(title),
        lead=html.escape(lead),
        foot=html.escape(foot),
        plot=_plot(comparison),
        summary=_summary_table(comparison),
        cells=_cells_table(comparison, store),
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return document(title=title, policy=policy, style=_STYLE, body=body)


def _metrics_shown(comparison: Comparison) -> list[str]:
    return [name for name in METRICS if any(name in cell.scores for cell in comparison.cells)]


def _heads(names: Sequence[str]) -> list[str]:
    return [METRICS[name].title + (f", {METRICS[name].unit}" if METRICS[name].unit else "") for name in names]


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in texts) + "</tr>"


def _summary_table(comparison: Comparison) -> str:
    names = _metrics_shown(comparison)
    rows = [
        _row(
            (
                method_title(line.method),
                f"{line.complete}" + (f", {line.failed} failed" if line.failed else ""),
                *(
                    f"{getattr(line.seconds, part):.2f} s" if line.seconds else "–"
                    for part in ("encoding", "denoising", "decoding")
                ),
                ratio_text(line.denoising, spread=True),
                ratio_text(line.whole, spread=True),
                "–" if line.computed_share is None else f"{100 * line.computed_share:.0f}%",
                *(score_text(name, line.scores.get(name)) for name in names),
            )
        )
        for line in summaries_of(comparison)
    ]
    heads = (
        *("Method", "Clips", "Text", "Denoising", "Decoding"),
        *("Denoising", "Whole run", "Blocks computed", *_heads(names)),
    )
    return _table(heads, rows)


def _cells_table(comparison: Comparison, store: RunStore | None) -> str:
    names, rows, group = _metrics_shown(comparison), [], -1
    heads = ("Method", "Clip", "Denoising", "Whole run", "Speed-up", *_heads(names))
    speeds = speed_by_cell(comparison)
    for cell in comparison.cells:
        if cell.group != group:
            group = cell.group
            words = html.escape(f"{cell.request.prompt} · seed {cell.request.seed}")
            rows.append(f'<tr class="group"><th scope="rowgroup" colspan="{len(heads)}">{words}</th></tr>')
        name = f"<td>{html.escape(method_title(cell.method))}</td><td>{_poster(cell, store)}</td>"
        if cell.seconds is None:
            words = html.escape(f"{cell.state}: {error_text(cell)}".rstrip(": "))
            rows.append(f'<tr>{name}<td class="words bad" colspan="{len(heads) - 2}">{words}</td></tr>')
            continue
        denoising, _ = speeds[cell.number]
        figures = (
            f"{cell.seconds.denoising:.2f} s",
            f"{cell.seconds.whole:.2f} s",
            "–" if denoising is None else f"{denoising:.2f}×",
            *(score_text(metric, cell.scores.get(metric)) for metric in names),
        )
        rows.append(f"<tr>{name}" + "".join(f"<td>{html.escape(text)}</td>" for text in figures) + "</tr>")
        if cell.notices:
            words = html.escape(" ".join(cell.notices))
            rows.append(f'<tr><td></td><td class="words soft" colspan="{len(heads) - 1}">{words}</td></tr>')
    return _table(heads, rows)


def _poster(cell: Cell, store: RunStore | None) -> str:
    if store is None or cell.run_id is None:
        return ""
    try:
        picture = store.get(cell.run_id).thumbnail.read_bytes()
    except (OSError, RunError):
        return ""
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode("ascii")}">'


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 360, 46, 170, 30, 44
_ENDLESS = 26
"""Height of the band over the axis for what equals its reference."""


def _plot(comparison: Comparison, metric: str = "psnr") -> str:
    """Measured speed-up of denoising against PSNR, methods by colour and shape, the Pareto front dashed.

    Where there are several groups the large marks are the methods' medians, and the front is theirs.
    """
    points, medians = ([each for each in some if _placeable(each, metric)] for some in plotted(comparison))
    finite = [point.scores[metric] for point in points if math.isfinite(point.scores[metric])]
    if not finite:
        return ""
    speeds = [point.denoising.median for point in points if point.denoising]
    left, right = min(0.95, *speeds), max(1.2, *speeds) * 1.05
    low, high = min(finite) - 1, max(finite) + 1
    bottom, edge = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def x_of(speed: float) -> float:
        return _LEFT + (speed - left) / (right - left) * (edge - _LEFT)

    def y_of(value: float) -> float:
        if math.isinf(value):
            return _TOP
        return _TOP + _ENDLESS + (high - value) / (high - low) * (bottom - _TOP - _ENDLESS)

    def place(point: Point) -> tuple[float, float]:
        return x_of(point.denoising.median if point.denoising else 0.0), y_of(point.scores[metric])

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Speed-up of denoising against PSNR">',
        f'<text x="{edge}" y="{bottom + 36}" text-anchor="end">times as fast (denoising)</text>',
        f'<text x="2" y="{_TOP - 12}">PSNR, dB</text>',
        f'<text x="{_LEFT - 7}" y="{_TOP + 4}" text-anchor="end">∞</text>',
    ]
    for speed in _round_numbers(left, right, 6):
        x = x_of(speed)
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{speed:g}×</text>')
    for value in _round_numbers(low, high, 5):
        y = y_of(value)
        parts.append(f'<line class="axis" x1="{_LEFT}" y1="{y:.1f}" x2="{edge}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    front = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, pareto_front(medians or points, metric)))
    parts.append(f'<polyline class="front" points="{front}"/>')
    for point in (*points, *medians):
        x, y = place(point)
        shape = comparison.methods.index(point.method)
        size = 0.65 if medians and point in points else 1.0
        figures = f"{ratio_text(point.denoising)}, {score_text(metric, point.scores[metric])} dB"
        label = html.escape(f"{method_title(point.method)}: {figures}")
        parts.append(f'<g fill="var(--hue-{shape % 8})"><title>{label}</title>{_shape(shape, x, y, size)}</g>')
    for row, method in enumerate(each for each in comparison.methods if any(p.method == each for p in points)):
        shape, y = comparison.methods.index(method), _TOP + 14 + 22 * row
        parts.append(f'<g fill="var(--hue-{shape % 8})">{_shape(shape, edge + 16, y, 1.0)}</g>')
        parts.append(f'<text class="name" x="{edge + 28}" y="{y + 4}">{html.escape(method_title(method)[:24])}</text>')
    return "".join(parts) + "</svg>"


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """At most so many multiples of 1, 2 or 5 times a power of ten, within the range."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    return [round(step * index, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _placeable(point: Point, metric: str) -> bool:
    return point.denoising is not None and not math.isnan(point.scores.get(metric, math.nan))


def _shape(index: int, x: float, y: float, size: float) -> str:
    """A disc, square, triangle, diamond, or one of them hollow: methods stay apart without their colours."""
    outlines = {
        1: ((-5, -5), (5, -5), (5, 5), (-5, 5)),
        2: ((0, -6.5), (6, 5), (-6, 5)),
        3: ((0, -7), (7, 0), (0, 7), (-7, 0)),
    }
    hollow = f' fill="none" stroke="var(--hue-{index % 8})" stroke-width="2"' if index % 8 > 3 else ""
    if index % 4 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5.5 * size:.1f}"{hollow}/>'
    corners = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in outlines[index % 4])
    return f'<polygon points="{corners}"{hollow}/>'
