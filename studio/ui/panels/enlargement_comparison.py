"""Methods × clips as the page draws them: a table, a plot of speed against quality, and how far it all is.

Knows enlargements and their figures. Refuses to know the buttons, and how anything was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from studio.errors import from_json
from studio.records.enlargement_comparisons import EnlargementComparison
from studio.records.enlargements import MADE, TWIN_OF, VIDEO, Enlargement
from studio.super_resolve import FIGURES, OverClips, front, is_done
from studio.super_resolve.over_clips import Means, Row
from studio.super_resolve.wording import digits_of, figure_text, request_title
from studio.ui.components import message
from studio.ui.components.synced_player import MOST_CLIPS
from studio.ui.components.values import (
    Figure,
    FigureColumn,
    FigureGroup,
    FigureRow,
    FigureTable,
    Message,
    ParetoPlot,
    PlottedPoint,
)
from studio.ui.panels.enlargement import HINTS, most_picked
from studio.ui.wording import seconds_text

PLOTTED = ("psnr", "ssim", "ms_ssim", "vmaf", "vmaf_neg", "shrink_back")
"""Figures of which more is better without reserve."""
_PACE = "pictures"


def name_of(comparison: EnlargementComparison, enlargements: Sequence[Enlargement]) -> str:
    """A comparison in one line, for a list."""
    clips = list(dict.fromkeys(each.source.name for each in enlargements))
    methods = {request_title(each.request) for each in enlargements}
    first = clips[0] if clips else "deleted"
    more = f" and {len(clips) - 1} more" if len(clips) > 1 else ""
    return f"{comparison.created[5:16].replace('T', ' ')} · {len(methods)} methods · {first}{more}"


def status_of(enlargements: Sequence[Enlargement], at_work: Mapping[str, str]) -> Message:
    """The message over the table.

    Args:
        enlargements: Of the comparison.
        at_work: By id, how far those are that are being made or measured now, in words; those that wait say nothing.
    """
    done, failed = sum(map(is_done, enlargements)), sum(each.state == "failed" for each in enlargements)
    words = f"{done} of {len(enlargements)} enlargements" + (f", {failed} failed" if failed else "")
    if not enlargements:
        return message.warn("Its enlargements were deleted.")
    if done == len(enlargements):
        return message.good(f"Done: {words}.")
    if not at_work:
        return message.warn(f"Done: {words}." if done + failed == len(enlargements) else f"Stopped: {words}.")
    now = next((each for each in enlargements if at_work.get(each.id)), None)
    doing = "" if now is None else f" {now.source.name} by {request_title(now.request)}: {at_work[now.id]}."
    return {**message.quiet(f"{words}.{doing}"), "share": done / len(enlargements)}


def may_be_played(each: Enlargement) -> bool:
    """Whether there are pictures, and what is to be said of them."""
    return VIDEO in each.outputs and is_done(each)


def most_side_by_side(enlargement: Enlargement) -> int:
    """How many methods' pictures are in the player at most, on this clip."""
    return most_picked(enlargement) if TWIN_OF[VIDEO] in enlargement.outputs else MOST_CLIPS


def table_of(table: OverClips, notes: Mapping[str, str], picked: Sequence[str]) -> FigureTable:
    """The value of the figure table: the means first, where there are several clips, then clip by clip.

    Args:
        table: The figures.
        notes: What is being done with an enlargement, or went wrong, by its id.
        picked: Whose pictures are in the player, by their ids.
    """
    names = table.names
    groups: list[FigureGroup] = []
    if any(mean.clips for mean in table.means):
        groups.append(
            {
                "title": f"Mean over {len(table.clips)} clips",
                "line": "of what all methods were measured on",
                "rows": [_mean_row(table, mean) for mean in table.means],
            }
        )
    for number, clip in enumerate(table.clips):
        rows = [_row(table, row, notes) for row in table.rows if row.clip == number]
        groups.append({"title": clip.source.name, "line": _line_of(clip), "rows": rows})
    return {
        "title": "Figures",
        "hint": "Tick methods of a clip to see them side by side.",
        "columns": [
            FigureColumn(title="Seconds a picture", hint="Reading and writing included, loading the model apart"),
            *(FigureColumn(title=table.title(name), hint=HINTS[name]) for name in names),
        ],
        "groups": groups,
        "notes": [],
        "picked": list(picked),
        "most": len(table.rows) + 1,  # a tick too many takes an earlier one's place
    }


def _line_of(clip: Enlargement) -> str:
    source, scale = clip.source, clip.request.scale
    size = f"{source.width}×{source.height} → {source.width * scale}×{source.height * scale}"
    against = f" · against {clip.original.path.name}" if clip.original else " · no original"
    return f"{size} · {source.num_frames} pictures{against}"


def _row(table: OverClips, row: Row, notes: Mapping[str, str]) -> FigureRow:
    each = row.enlargement
    made = row.whose == MADE
    return {
        "key": each.id if made else f"{row.whose} {row.clip}",
        "shape": table.methods.index(row.method),
        "title": row.method,
        "state": "complete" if row.figures else each.state,
        "marks": [],
        "cells": _cells(table, row) if row.figures else [],
        "note": notes.get(each.id, "") if made else "",
        "may_be_picked": made and may_be_played(each),
    }


def _mean_row(table: OverClips, mean: Means) -> FigureRow:
    fewer = mean.clips < len(table.clips)
    return {
        "key": f"mean {mean.method}",
        "shape": table.methods.index(mean.method),
        "title": mean.method,
        "state": "complete" if mean.clips else "waiting",
        "marks": [f"{mean.clips} of {len(table.clips)} clips"] if fewer else [],
        "cells": _cells(table, mean) if mean.clips else [],
        "note": "",
        "may_be_picked": False,
    }


def _cells(table: OverClips, row: Row | Means) -> list[str]:
    seconds = "–" if row.pace is None else seconds_text(1 / row.pace)
    return [seconds, *(figure_text(name, row.figures.get(name)) for name in table.names)]


def notes_of(enlargements: Sequence[Enlargement], waiting: Sequence[str]) -> dict[str, str]:
    """What is to be said of each that has no figures, by its id."""
    notes: dict[str, str] = {}
    for each in enlargements:
        measured = each.measurements.get(VIDEO)
        if each.state == "failed" and each.error:
            notes[each.id] = str(from_json(each.error))
        elif each.state == "complete" and measured is not None and measured.error:
            notes[each.id] = f"It could not be measured: {from_json(measured.error)}"
        elif each.id in waiting:
            notes[each.id] = "It waits in the queue."
    return notes


def plot_of(table: OverClips, chosen: int | None) -> ParetoPlot:
    """The value of `pareto_plot`. Where there are several clips the front is that of the means."""
    names = [name for name in PLOTTED if name in table.names]
    rows = [row for row in table.rows if row.pace is not None]
    means = [mean for mean in table.means if mean.pace is not None]
    return {
        "methods": [
            {"shape": shape, "title": method}
            for shape, method in enumerate(table.methods)
            if any(row.method == method for row in rows)
        ],
        "metrics": [
            {
                "name": name,
                "title": FIGURES[name].title,
                "unit": FIGURES[name].unit,
                "digits": digits_of(name),
                "higher_is_better": FIGURES[name].higher_is_better,
            }
            for name in names
        ],
        "paces": [
            {
                "name": _PACE,
                "title": "enlarging",
                "axis": "pictures a second",
                "unit": "",
                "words": " pictures a second",
                "log": True,
            }
        ],
        "points": [_point(table, row, table.rows.index(row), table.clips[row.clip].source.name) for row in rows],
        "medians": [_point(table, mean, -1, "") for mean in means],
        "fronts": {_PACE: {name: _front(means or rows, name) for name in names}},
        "chosen": chosen,
        "hint": "Click a point to see its pictures.",
        "large": "Large marks are means over the clips.",
        "perfect": "equal to the original",
    }


def _point(table: OverClips, row: Row | Means, cell: int, line: str) -> PlottedPoint:
    return {
        "cell": cell,
        "shape": table.methods.index(row.method),
        "title": row.method,
        "line": line,
        "speeds": {_PACE: row.pace},
        "scores": {name: _figure(value) for name, value in row.figures.items() if not math.isnan(value)},
    }


def _front(points: Sequence[Row] | Sequence[Means], name: str) -> list[list[Figure]]:
    return [[each.pace, _figure(each.figures[name])] for each in front(points, name)]


def _figure(value: float) -> Figure:
    return "inf" if math.isinf(value) else value
