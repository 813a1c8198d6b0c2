"""The pocket model on a processor: what a clip takes, on an idle machine and with one core taken by another program.

    python benchmarks/processor.py                 # this processor, and held to a laptop's instruction sets (AVX2)
    python benchmarks/processor.py --note "..."    # a line for the table about how it was run

Each row is a process of its own, since threads and instruction sets are settled once in a process; the other program
is a loop held to the last core. The first clip of a row warms up and is not counted. Writes results/processor.md and
processor.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studio.generate import generate
from studio.machine import hardware, pace, threads
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import request_for

RESULTS = Path(__file__).parent / "results"
LAPTOP = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
SPIN = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--clips", type=int, default=3, help="counted clips a row")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--note", default="")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(_measure(chosen.clips, chosen.steps)))
        return
    rows = []
    for processor, environment in (("as it is", {}), ("AVX2", LAPTOP)):
        for taken in (False, True):
            with _one_core_taken(taken):
                rows.append({"processor": processor, "one core taken": taken} | _row(environment, chosen))
            print(rows[-1], flush=True)
    report = {"machine": hardware.measure().cpu_name, "cores": hardware.cores(), "note": chosen.note, "rows": rows}
    (RESULTS / "processor.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "processor.md").write_text(_table(report, chosen.steps), encoding="utf-8")


@contextmanager
def _one_core_taken(taken: bool) -> Iterator[None]:
    spinning = subprocess.Popen([sys.executable, "-c", SPIN]) if taken else None
    try:
        yield
    finally:
        if spinning is not None:
            spinning.kill()
            spinning.wait()


def _row(environment: dict[str, str], chosen: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", "--clips", str(chosen.clips), "--steps", str(chosen.steps)]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(clips: int, steps: int) -> dict[str, Any]:
    threads.wait_passively()
    preset = find_preset("pocket")
    walls, cpus, step_seconds, decodes, run = [], [], [], [], None
    with TemporaryDirectory() as scratch:
        store = RunStore(Path(scratch))
        for number in range(clips + 1):
            request = request_for(preset, prompt=preset.defaults.prompts[0], seed=number, num_inference_steps=steps)
            wall, cpu = time.perf_counter(), time.process_time()
            *_, finished = generate(request, store=store)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number == 0:
                continue
            run = store.get(finished.run_id)  # pyright: ignore[reportAttributeAccessIssue]
            walls.append(wall)
            cpus.append(cpu)
            step_seconds.append(pace.median_step(run.step_seconds))
            decodes.append(run.stage_seconds["decoding"])
    assert run is not None
    assert run.placement is not None
    return {
        "threads": run.environment["torch_threads"],
        "autoencoder": run.placement.vae_dtype,
        "step": step_seconds,
        "decoding": decodes,
        "clip": walls,
        "clip's processor time": cpus,
    }


def _table(report: dict[str, Any], steps: int) -> str:
    lines = [
        f"# The pocket model on a processor ({report['machine']}, {report['cores']} cores)",
        "",
        f"Clips of {steps} steps, uncached, the model loaded; seconds, median (least to most). "
        "`benchmarks/processor.py`.",
        *([report["note"]] if report["note"] else []),
        "",
        "| instruction sets | one core taken | threads | autoencoder | a step | decoding | clip | its processor time "
        "| n |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        taken = "yes" if row["one core taken"] else "no"
        figures = [_spread(row[name]) for name in ("step", "decoding", "clip", "clip's processor time")]
        cells = [row["processor"], taken, row["threads"], row["autoencoder"], *figures, str(len(row["clip"]))]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    by = {(row["processor"], row["one core taken"]): statistics.median(row["step"]) for row in report["rows"]}
    for processor in dict.fromkeys(row["processor"] for row in report["rows"]):
        ratio = by[processor, True] / by[processor, False]
        lines.append(f"- {processor}: a step with one core taken is {ratio:.2f}× one without.")
    return "\n".join(lines) + "\n"


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
