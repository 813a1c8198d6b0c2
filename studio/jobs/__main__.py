"""The worker's process: what a queue starts."""

from __future__ import annotations

import argparse
import logging
import threading
from pathlib import Path

from studio.jobs.process import die_with_parent, give_way
from studio.jobs.worker import Worker
from studio.machine import threads
from studio.records.runs import RunStore


def main(arguments: list[str] | None = None) -> None:
    """`python -m studio.jobs --worker FOLDER …`: what a queue starts; nobody else needs to."""
    parser = argparse.ArgumentParser(prog="python -m studio.jobs", description="The worker of a job queue.")
    parser.add_argument("--worker", type=Path, required=True, metavar="FOLDER", help="where the queue is kept")
    parser.add_argument("--runs", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--verb", action="append", default=[], metavar="KIND=MODULE:FUNCTION", help="what does it")
    parser.add_argument("--parent", type=int, required=True, help="process that this one must not outlive")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="worker: %(message)s")
    threads.wait_passively()
    die_with_parent(chosen.parent)
    give_way()
    verbs = dict(each.split("=", 1) for each in chosen.verb)
    Worker(chosen.worker, RunStore(chosen.runs), verbs, unwanted=threading.Event()).run()


if __name__ == "__main__":
    main()
