"""`python -m studio.compare`: print the scores that need torch, as JSON by cell.

Only `scoring.scored_with_torch` asks. Knows torch through the metrics, and so is a process of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from studio.compare.record import Comparisons
from studio.compare.scoring import scored_apart
from studio.records.runs import RunStore


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studio.compare", description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--score", required=True, metavar="ID")
    asked = parser.parse_args(arguments)
    print(json.dumps(scored_apart(asked.score, Comparisons(RunStore(asked.runs)))))


if __name__ == "__main__":
    main()
