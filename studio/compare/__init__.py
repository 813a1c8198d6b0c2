"""Compare: a grid of requests becomes cells, each with its clip, its seconds and its scores against the full clip.

    comparison = Comparisons(store).begin(Grid(base=request, methods=(parse_method("adacache"),)))
    for event in compare(comparison, store=store):
        ...

Within a group (one prompt, one seed, one choice on every further axis) the uncached reference comes first, and every
method starts from its noise. With repeats the whole row is walked again and again, so that what a machine does
meanwhile falls on the reference and on the methods alike. One cell is made at a time and scored before the next one
begins: nothing that is timed has the measuring beside it.

What it writes after every cell is `.comparisons/<id>.json` in the runs' folder. The page's comparisons are walked by
the queue's worker as jobs that give the turn back between two cells; the command line walks its own.

    grid.py      what is asked for: methods, axes, the grid
    cells.py     what comes of it: cells and comparisons
    record.py    the folder of comparisons
    walk.py      the cells, one after the other, as a stream of events
    stored.py    runs that are there already
    scoring.py   a cell ends: its seconds and its scores
    figures.py   over cells: speed-ups, medians, the Pareto front
    wording.py   how a figure is written for a reader
    export.py    a comparison as CSV and JSON
    page.py      a comparison as one HTML page

Knows requests, runs and scores. Refuses to know how a clip is made, and how a page shows a comparison.
"""

from studio.compare.cells import FULL, Cell, Comparison, Seconds
from studio.compare.figures import (
    MethodSummary,
    Pace,
    Point,
    Ratio,
    pareto_front,
    plotted,
    points_of,
    summaries_of,
)
from studio.compare.grid import Grid, Method, cells_of, method_of, parse_axis, parse_method
from studio.compare.record import Comparisons, to_json
from studio.compare.walk import compare, walk
from studio.metrics import METRICS

__all__ = [
    "FULL",
    "METRICS",
    "Cell",
    "Comparison",
    "Comparisons",
    "Grid",
    "Method",
    "MethodSummary",
    "Pace",
    "Point",
    "Ratio",
    "Seconds",
    "cells_of",
    "compare",
    "method_of",
    "pareto_front",
    "parse_axis",
    "parse_method",
    "plotted",
    "points_of",
    "summaries_of",
    "to_json",
    "walk",
]
