"""The command line: `studio.command_line` has the commands, one file for each kind.

    python -m studio generate --prompt "a red car on a rainy night" -o out.mp4
    python -m studio compare --prompt "a red car" --method adacache --method steps:15 -o compared
    python -m studio finetune a.mp4 b.mp4 --caption "a red car" --caption "a bus in the snow" --objective pixel
    python -m studio upscale in.mp4 --scale 4 -o out.mp4
    python -m studio maps road.mp4 --maps edges,lanes,depth -o maps
    python -m studio drive road.mp4 --control edges,lanes:0.7 --prompt "the same road at night" -o night.mp4
    python -m studio finetune-enlarger mine.mp4
    python -m studio harmonise road.mp4 --render car:red:rear --path "0:480,400,90 24:500,420,110" -o out.mp4
    python -m studio map-sets | insertions | enlargements | enlarger-versions | versions | rollback | runs
    python -m studio presets | download | calibrate | doctor
    python -m studio world render | pocket train | pocket super-resolver | pocket harmoniser

Exit statuses: 0 done, 130 cancelled, 2 and above what went wrong (each error of `errors.py` names its own).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import studio
from studio.command_line import (
    comparing,
    driving,
    enlarger_training,
    enlarging,
    finetuning,
    generating,
    inserting,
    mapping,
    models,
    runs,
    worlds,
)
from studio.command_line.grammar import print_json
from studio.errors import StudioError
from studio.machine import threads

CANCELLED = 130
"""The shell's word for stopped by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; the number is the exit status."""
    threads.wait_passively()
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "command"):
        parser.print_help()
        return 0
    try:
        return chosen.command(chosen)
    except StudioError as error:
        if getattr(chosen, "json", False):
            print_json({"event": "Error"} | error.to_json())
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio", description="Dailies: fast, memory-lean video diffusion.")
    parser.add_argument("--version", action="version", version=f"dailies {studio.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        generating.add_generate,
        comparing.add_compare,
        enlarging.add_upscale,
        enlarging.add_enlargements,
        mapping.add_maps,
        mapping.add_map_sets,
        driving.add_drive,
        inserting.add_harmonise,
        inserting.add_insertions,
        enlarger_training.add_finetune_enlarger,
        enlarger_training.add_enlarger_versions,
        finetuning.add_finetune,
        finetuning.add_versions,
        finetuning.add_rollback,
        models.add_calibrate,
        models.add_presets,
        runs.add_runs,
        models.add_doctor,
        models.add_download,
        worlds.add_world,
        worlds.add_pocket,
    ):
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
