"""Methods × clips: what enlargements of several clips by several methods are worth, beside one another, and as files.

A mean over clips is only of what every method has: a method that lacks a clip has none, for means over other clips
could not be compared.

Knows enlargements' records. Refuses to measure, and to know how a figure is written (`wording`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from studio.metrics import scores_to_json, undominated
from studio.metrics.enlargement import FIGURES
from studio.records.enlargements import BICUBIC, MADE, VIDEO, Enlargement
from studio.records.spreadsheet import csv_text
from studio.super_resolve.wording import figure_title, whose_title


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method on a clip."""

    clip: int
    """Number of the clip, from 0."""
    method: str
    """In words."""
    whose: str
    """`MADE`, or `BICUBIC` for what was measured beside it."""
    enlargement: Enlargement
    figures: Mapping[str, float]
    """By name; none until it was measured."""

    @property
    def pace(self) -> float | None:
        """Pictures a second."""
        return self.enlargement.frames_per_second or None if self.whose == MADE and self.figures else None


@dataclass(frozen=True, kw_only=True)
class Means:
    """A method over all clips."""

    method: str
    clips: int
    """On how many it was measured."""
    pace: float | None
    """Pictures a second: of all clips' pictures together, were they equally many."""
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class OverClips:
    """Rows clip by clip, and their means."""

    clips: tuple[Enlargement, ...]
    """One of each clip's, which says what the clip is and what it is held against."""
    methods: tuple[str, ...]
    """In words, in the order of the rows."""
    rows: tuple[Row, ...]
    means: tuple[Means, ...]

    @property
    def names(self) -> list[str]:
        """The figures that there are, in the table's order."""
        return [name for name in FIGURES if any(name in row.figures for row in self.rows)]

    def title(self, name: str) -> str:
        """A figure's, with its unit."""
        found = {figure_title(name, row.enlargement.measurements[VIDEO]) for row in self.rows if name in row.figures}
        return found.pop() if len(found) == 1 else f"{FIGURES[name].title}, {FIGURES[name].unit}"


def over_clips(enlargements: Sequence[Enlargement]) -> OverClips:
    """What a list of enlargements is as a table; bicubic has rows where it was only measured beside others, too."""
    clips: dict[tuple[object, ...], list[Enlargement]] = {}
    for each in enlargements:
        clips.setdefault((each.request.source.sha256, each.request.scale, each.original), []).append(each)
    rows: list[Row] = []
    for number, of_clip in enumerate(clips.values()):
        rows += [_row(number, each, MADE) for each in of_clip]
        measured = next((each for each in of_clip if BICUBIC in _measured(each)), None)
        if measured is not None and all(each.request.method != BICUBIC for each in of_clip):
            rows.append(_row(number, measured, BICUBIC))
    methods = tuple(dict.fromkeys(row.method for row in sorted(rows, key=lambda row: row.whose == BICUBIC)))
    means = tuple(_means(method, rows) for method in methods) if len(clips) > 1 else ()
    first = tuple(of_clip[0] for of_clip in clips.values())
    return OverClips(clips=first, methods=methods, rows=tuple(rows), means=means)


def _row(clip: int, enlargement: Enlargement, whose: str) -> Row:
    method = whose_title(whose, enlargement)
    figures = _measured(enlargement).get(whose, {})
    return Row(clip=clip, method=method, whose=whose, enlargement=enlargement, figures=figures)


def _measured(enlargement: Enlargement) -> Mapping[str, Mapping[str, float]]:
    measurement = enlargement.measurements.get(VIDEO)
    return {} if measurement is None or enlargement.state != "complete" else measurement.figures


def _means(method: str, rows: Sequence[Row]) -> Means:
    mine = [row for row in rows if row.method == method]
    measured = [row for row in mine if row.figures]
    figures: dict[str, float] = {}
    for name in FIGURES:
        wanted = {row.clip for row in rows if _has(row, name)}
        values = [row.figures[name] for row in mine if _has(row, name)]
        if wanted and len(values) == len(wanted):
            figures[name] = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf
    paces = [row.pace for row in measured if row.pace is not None]
    whole = len(paces) == len({row.clip for row in rows if row.figures}) > 0
    pace = len(paces) / math.fsum(1 / each for each in paces) if whole else None
    return Means(method=method, clips=len(measured), pace=pace, figures=figures)


def _has(row: Row, name: str) -> bool:
    return not math.isnan(row.figures.get(name, math.nan))


def front(points: Sequence[Row] | Sequence[Means], name: str) -> list[Row | Means]:
    """Those that no other beats in both speed and a figure, the slowest first."""
    sign = 1.0 if FIGURES[name].higher_is_better else -1.0
    placed = [each for each in points if each.pace is not None and not math.isnan(each.figures.get(name, math.nan))]
    kept = undominated([(each.pace or 0.0, sign * each.figures[name]) for each in placed])
    return [placed[place] for place in kept]


# ---------------------------------------------------------------------------------------------------------------------
# Files


def files_of(table: OverClips) -> dict[str, str]:
    """What each file says, by its ending: figures in full, a line for each method on each clip, and the means."""
    return {"csv": _csv(table), "json": _json(table)}


def _csv(table: OverClips) -> str:
    columns = ("clip", "original", "scale", "method", "state", "pictures_per_second", *FIGURES, "enlargement")
    return csv_text(columns, [*_lines(table), *_mean_lines(table)])


def _lines(table: OverClips) -> Iterable[dict[str, object]]:
    for row in table.rows:
        each = row.enlargement
        yield {
            "clip": each.source.name,
            "original": each.original.path.name if each.original else "",
            "scale": each.request.scale,
            "method": row.method,
            "state": each.state,
            "pictures_per_second": row.pace or "",
            **scores_to_json(dict(row.figures)),
            "enlargement": each.id,
        }


def _mean_lines(table: OverClips) -> Iterable[dict[str, object]]:
    for mean in table.means:
        yield {
            "clip": f"mean over {mean.clips}",
            "method": mean.method,
            "pictures_per_second": mean.pace or "",
            **scores_to_json(dict(mean.figures)),
        }


def _json(table: OverClips) -> str:
    record = {
        "rows": [
            {**line, "request": row.enlargement.request.model_dump(mode="json", exclude={"source"})}
            for line, row in zip(_lines(table), table.rows, strict=True)
        ],
        "means": list(_mean_lines(table)),
        "metrics": {
            name: {"title": metric.title, "unit": metric.unit, "higher_is_better": metric.higher_is_better}
            for name, metric in FIGURES.items()
        },
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
