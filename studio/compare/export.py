"""A comparison as files: CSV for a spreadsheet, JSON for a program, both with figures in full, and a page.

Refuses to compute a figure (`figures`, `metrics`), and to let what somebody typed become a spreadsheet's formula.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict

from studio.compare.cells import Comparison
from studio.compare.figures import points_of, speed_by_cell, summaries_of
from studio.compare.page import to_html
from studio.compare.record import to_json
from studio.compare.wording import error_text, method_title
from studio.metrics import METRICS, scores_to_json
from studio.records.runs import RunStore

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins with one of these for a formula."""

COLUMNS = (
    *("cell", "group", "repeat", "method", "state", "preset", "prompt", "seed", "run", "stored_before", "cold"),
    *("encoding_s", "denoising_s", "decoding_s", "whole_s", "denoising_speedup", "whole_speedup", "computed_share"),
    *METRICS,
    *("notices", "error", "request"),
)


def files_of(comparison: Comparison, store: RunStore) -> dict[str, str]:
    """What each file says, by its ending; the store has the posters."""
    return {"csv": to_csv(comparison), "json": to_json_text(comparison), "html": to_html(comparison, store)}


def to_csv(comparison: Comparison) -> str:
    """A line for each cell, in RFC 4180's form, figures in full; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    speeds = speed_by_cell(comparison)
    for cell in comparison.cells:
        seconds = asdict(cell.seconds) if cell.seconds else {}
        denoising, whole = speeds[cell.number]
        writer.writerow(
            {
                "cell": cell.number,
                "group": cell.group,
                "repeat": cell.repeat,
                "method": _no_formula(cell.method),
                "state": cell.state,
                "preset": _no_formula(cell.request.preset),
                "prompt": _no_formula(cell.request.prompt),
                "seed": cell.request.seed,
                "run": cell.run_id or "",
                "stored_before": int(cell.reused),
                "cold": int(cell.cold),
                **{f"{name}_s": seconds.get(name, "") for name in ("encoding", "denoising", "decoding", "whole")},
                "denoising_speedup": "" if denoising is None else denoising,
                "whole_speedup": "" if whole is None else whole,
                "computed_share": "" if cell.computed_share is None else cell.computed_share,
                **scores_to_json(cell.scores),
                "notices": _no_formula(" ".join(cell.notices)),
                "error": _no_formula(error_text(cell)),
                "request": cell.request.model_dump_json(),
            }
        )
    return text.getvalue()


def _no_formula(text: str) -> str:
    return "'" + text if text.startswith(_FORMULA) else text


def to_json_text(comparison: Comparison) -> str:
    """The whole record with the figures over its cells, as JSON that every reader takes: no infinities, no NaN."""
    record = to_json(comparison) | {
        "summaries": [
            asdict(line) | {"title": method_title(line.method), "scores": scores_to_json(line.scores)}
            for line in summaries_of(comparison)
        ],
        "points": [asdict(point) | {"scores": scores_to_json(point.scores)} for point in points_of(comparison)],
        "metrics": {
            name: {"title": metric.title, "unit": metric.unit, "higher_is_better": metric.higher_is_better}
            for name, metric in METRICS.items()
        },
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
