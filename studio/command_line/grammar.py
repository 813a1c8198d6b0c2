"""How every command is spelled, stopped and answered in JSON.

Knows argparse, signals and standard output. Refuses to know what any command does.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_command(
    commands: Any, name: str, command: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    parser.add_argument("--json", action="store_true", help="print JSON, one record a line")
    return parser


def print_json(record: Any) -> None:
    print(json.dumps(record, ensure_ascii=False), flush=True)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """What a clip is, beyond its prompt: fields of a request over the preset's defaults."""
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--num-frames", type=int)
    parser.add_argument("--fps", type=float)
    parser.add_argument("--num-inference-steps", "--steps", type=int, dest="num_inference_steps")
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--flow-shift", type=float)


def add_runs_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, help="runs folder (default: $DAILIES_RUNS or ./runs)")


def cancel_on_signal() -> threading.Event:
    """Ctrl-C is noted and the stream closed at the next event, so that the run is marked as what it is."""
    cancelled = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: cancelled.set())
        signal.signal(signal.SIGTERM, lambda *_: cancelled.set())
    return cancelled
