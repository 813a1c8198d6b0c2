"""`compare`: flags become a grid, its cells lines of a table."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from studio.command_line.grammar import (
    Commands,
    add_command,
    add_fields,
    add_runs_folder,
    cancel_on_signal,
    make_output_folder,
    print_json,
    typed_fields,
)
from studio.errors import RequestError
from studio.requests.caches import METHODS
from studio.requests.generation import GenerationRequest

if TYPE_CHECKING:
    from studio.compare import Comparison, Comparisons, Grid
    from studio.records.runs import RunStore

_SPELLED_HERE = ("prompt", "seed", "preset", "cache")
"""Fields that have several values here, or a method that says them."""


def add_compare(commands: Commands) -> None:
    parser = add_command(commands, "compare", _compare, "hold faster ways of making a clip against the full one")
    parser.add_argument("--prompt", action="append", default=[], help="what is to be seen; may be given several times")
    parser.add_argument("--seed", action="append", type=int, default=[], help="may be given several times; 0 if not")
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="METHOD",
        help="adacache, budget:speedup=2, steps:15, set:guidance_scale=1 … may be given several times; "
        f"caches are {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--axis", action="append", default=[], metavar="FIELD=VALUE,VALUE", help="a further field to be varied"
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="make each cell so often, interleaved with its reference"
    )
    parser.add_argument("--preset", default="pocket", help="name of the preset (default: pocket)")
    add_fields(parser, GenerationRequest, leave_out=_SPELLED_HERE)
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume", metavar="ID", help="go on with a comparison that was stopped, failed cells included"
    )
    earlier.add_argument("--delete", metavar="ID", help="delete a comparison; its clips stay among the runs")
    parser.add_argument("-o", "--output", type=Path, help="folder for comparison.csv, .json and .html")
    add_runs_folder(parser)


def _compare(chosen: argparse.Namespace) -> int:
    from studio.compare import Comparisons
    from studio.records.runs import RunStore, runs_folder

    book = Comparisons(RunStore(chosen.runs or runs_folder()))
    if chosen.delete:
        book.delete(chosen.delete)
        if chosen.json:
            print_json({"event": "ComparisonDeleted", "id": chosen.delete})
        else:
            print(f"deleted {chosen.delete}; its clips stay among the runs")
        return 0
    comparison = book.go_on(chosen.resume, again=True) if chosen.resume else book.begin(_grid(chosen))
    if chosen.output is not None:
        make_output_folder(chosen.output)
    try:
        _walk(comparison, book, json_lines=chosen.json)
    finally:
        comparison = book.get(comparison.id)
        if chosen.output is not None:
            _write_comparison(comparison, book.store, chosen.output)
    _print_ending(comparison, chosen)
    return 1 if any(cell.state == "failed" for cell in comparison.cells) else 0


def _grid(chosen: argparse.Namespace) -> Grid:
    from studio.compare import Grid, parse_axis, parse_method
    from studio.preset import find_preset
    from studio.requests.fields import defaults_of
    from studio.requests.generation import read_request

    if not chosen.prompt:
        raise RequestError("There is no prompt.", field="--prompt", way_out='Add --prompt "a red car".')
    preset = find_preset(chosen.preset)
    seeds = tuple(chosen.seed) or (0,)
    start = {"preset": preset.name, "prompt": chosen.prompt[0], "seed": seeds[0]}
    typed = typed_fields(chosen, GenerationRequest, leave_out=_SPELLED_HERE)
    return Grid(
        base=read_request(start | defaults_of(preset, GenerationRequest) | typed),
        prompts=tuple(chosen.prompt),
        seeds=seeds,
        methods=tuple(parse_method(text) for text in chosen.method),
        axes=tuple(parse_axis(text) for text in chosen.axis),
        repeats=chosen.repeats,
    )


def _walk(comparison: Comparison, book: Comparisons, *, json_lines: bool) -> None:
    """Make the cells, a line for each; Ctrl-C keeps what is made, and says how to go on."""
    from studio.command_line import comparison_lines
    from studio.compare import compare
    from studio.events import CellFinished, CellStarted
    from studio.jobs.preload import preload
    from studio.records.codec import to_json

    cancelled = cancel_on_signal()
    # The first run would carry the loading and the first step's one-off costs, and it is the reference.
    preload(comparison.cells[0].request.preset, store=book.store)
    if not json_lines:
        print(
            f"comparison {comparison.id}, {len(comparison.cells)} clips\n{comparison_lines.heading_line()}", flush=True
        )
    group = -1
    with closing(compare(comparison, store=book.store)) as stream:
        for event in stream:
            if isinstance(event, CellStarted) and not json_lines:
                cell = comparison.cells[event.cell]
                if cell.group != group:
                    print(f"-- {cell.request.prompt[:90]} · seed {cell.request.seed}", flush=True)
                group = cell.group
            elif isinstance(event, CellFinished):
                comparison = book.get(comparison.id)
                if json_lines:
                    print_json({"event": "CellFinished", "of": event.of, "cell": to_json(comparison.cells[event.cell])})
                else:
                    print(comparison_lines.cell_line(comparison, comparison.cells[event.cell]), flush=True)
            if cancelled.is_set():
                print(f"go on with --resume {comparison.id}", file=sys.stderr)
                raise KeyboardInterrupt


def _print_ending(comparison: Comparison, chosen: argparse.Namespace) -> None:
    from studio.command_line.comparison_lines import summary_line
    from studio.compare import summaries_of
    from studio.compare.export import to_json_text

    if chosen.json:
        print_json({"event": "ComparisonFinished"} | json.loads(to_json_text(comparison)))
        return
    print()
    for line in summaries_of(comparison):
        print(summary_line(line))
    if chosen.output is not None:
        print(f"{chosen.output / 'comparison.html'}, .csv and .json")


def _write_comparison(comparison: Comparison, store: RunStore, folder: Path) -> None:
    from studio.compare.export import files_of
    from studio.errors import StorageError
    from studio.storage import write_atomically

    for ending, text in files_of(comparison, store).items():
        try:
            write_atomically(folder / f"comparison.{ending}", text.encode("utf-8"))
        except StorageError as error:
            error.way_out = "Name another folder with -o; the comparison itself is kept."
            raise
