"""`runs`: what was made."""

from __future__ import annotations

import argparse

from studio.command_line.grammar import Commands, add_command, add_runs_folder, print_json


def add_runs(commands: Commands) -> None:
    parser = add_command(commands, "runs", _runs, "list, search, show or delete what was made")
    parser.add_argument("search", nargs="?", default="", help="words of the prompt, a preset's name or a run's id")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--show", metavar="ID", help="one run whole, as JSON")
    parser.add_argument("--delete", metavar="ID")
    parser.add_argument("--rebuild", action="store_true", help="make the index anew from the folders")
    add_runs_folder(parser)


def _runs(chosen: argparse.Namespace) -> int:
    from studio.records.runs import RunStore, runs_folder

    store = RunStore(chosen.runs or runs_folder())
    if chosen.rebuild:
        print(f"{store.rebuild()} runs indexed")
    elif chosen.delete:
        store.delete(chosen.delete)
        print(f"deleted {chosen.delete}")
    elif chosen.show:
        print((store.get(chosen.show).folder / "run.json").read_text(encoding="utf-8"))
    else:
        for run in store.search(chosen.search, limit=chosen.limit):
            state = f"{run.state} (partial)" if run.partial else run.state
            if chosen.json:
                request = run.request.model_dump(mode="json")
                print_json({"id": run.id, "state": state, "folder": str(run.folder), "request": request})
            else:
                print(f"{run.id}  {state:18}  {run.request.preset:12}  {run.request.prompt[:60]}")
    return 0
