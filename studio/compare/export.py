"""A comparison as files: CSV for a spreadsheet, JSON for a program, both with figures in full, and a page.

Refuses to compute a figure (`figures`, `metrics`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from studio.compare.cells import Comparison
from studio.compare.figures import points_of, speed_by_cell, summaries_of
from studio.compare.page import to_html
from studio.compare.record import to_json
from studio.compare.wording import error_text, method_title
from studio.metrics import METRICS, scores_to_json
from studio.records.runs import RunStore
from studio.records.spreadsheet import csv_text

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
    """A line for each cell; what was not measured is empty."""
    return csv_text(COLUMNS, _lines(comparison))


def _lines(comparison: Comparison) -> Iterator[dict[str, object]]:
    speeds = speed_by_cell(comparison)
    for cell in comparison.cells:
        seconds = asdict(cell.seconds) if cell.seconds else {}
        denoising, whole = speeds[cell.number]
        yield {
            "cell": cell.number,
            "group": cell.group,
            "repeat": cell.repeat,
            "method": cell.method,
            "state": cell.state,
            "preset": cell.request.preset,
            "prompt": cell.request.prompt,
            "seed": cell.request.seed,
            "run": cell.run_id or "",
            "stored_before": int(cell.reused),
            "cold": int(cell.cold),
            **{f"{name}_s": seconds.get(name, "") for name in ("encoding", "denoising", "decoding", "whole")},
            "denoising_speedup": "" if denoising is None else denoising,
            "whole_speedup": "" if whole is None else whole,
            "computed_share": "" if cell.computed_share is None else cell.computed_share,
            **scores_to_json(cell.scores),
            "notices": " ".join(cell.notices),
            "error": error_text(cell),
            "request": cell.request.model_dump_json(),
        }


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
