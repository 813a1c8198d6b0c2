"""The pocket model on a processor: what a clip takes, on an idle machine and with one core taken by another program.

    python benchmarks/processor.py                 # this processor, and held to a laptop's instruction sets (AVX2)
    python benchmarks/processor.py --start         # how long until the page answers, and until the model is there
    python benchmarks/processor.py --note "..."    # a line for the table about how it was run

Each row is a process of its own, since threads and instruction sets are settled once in a process; the other program
is a loop held to the last core. The first clip of a row warms up and is not counted. Of starting, the first of a row
fills the system's file cache and is not counted. Writes results/processor.md and processor.json, and leaves there what
was measured before of the other part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any

from studio.events import ModelReady
from studio.generate import generate
from studio.machine import hardware, pace, threads
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import request_for

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "benchmarks/results/processor.json"
LAPTOP = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
SPIN = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--clips", type=int, default=3, help="counted clips a row")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--note", default="")
    parser.add_argument("--start", action="store_true", help="measure starting instead of clips")
    parser.add_argument("--starts", type=int, default=5, help="counted starts a row")
    parser.add_argument("--measure", choices=("clips", "loading"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(_measure(chosen.clips, chosen.steps) if chosen.measure == "clips" else _model_is_there()))
        return
    report: dict[str, Any] = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.is_file() else {}
    report |= {"machine": hardware.measure().cpu_name, "cores": hardware.cores()}
    part: list[dict[str, Any]] = []
    for processor, environment in (("as it is", {}), ("AVX2", LAPTOP)):
        if chosen.start and environment:
            continue  # importing does not ask for instruction sets
        for taken in (False, True):
            with _one_core_taken(taken):
                measured = _starts(chosen.starts) if chosen.start else _row(environment, chosen)
            part.append({"processor": processor, "one core taken": taken} | measured)
            print(part[-1], flush=True)
    report |= {"start": part} if chosen.start else {"note": chosen.note, "steps": chosen.steps, "rows": part}
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    REPORT.with_suffix(".md").write_text(_table(report), encoding="utf-8")


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
    command = [
        sys.executable,
        __file__,
        "--measure",
        "clips",
        "--clips",
        str(chosen.clips),
        "--steps",
        str(chosen.steps),
    ]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _starts(counted: int) -> dict[str, Any]:
    """Seconds from a command to what it is for, in fresh processes."""
    page, model = [], []
    for number in range(counted + 1):
        with TemporaryDirectory() as runs:
            found = _page_answers(runs), _until_loaded()
        if number:
            page.append(found[0])
            model.append(found[1])
    return {"page": page, "model": model}


def _page_answers(runs: str) -> float:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    page = subprocess.Popen(
        command, env=os.environ | {"DAILIES_RUNS": runs}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while page.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                answer.read()
                return time.perf_counter() - began
            time.sleep(0.05)
        raise RuntimeError(f"the page ended with {page.returncode} before it answered")
    finally:
        page.terminate()
        page.wait()


def _until_loaded() -> float:
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, __file__, "--measure", "loading"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - began
    return seconds


def _model_is_there() -> bool:
    """The first clip of a fresh process, up to where its model is loaded."""
    threads.wait_passively()
    preset = find_preset("pocket")
    with TemporaryDirectory() as scratch:
        events = generate(request_for(preset, prompt=preset.defaults.prompts[0]), store=RunStore(Path(scratch)))
        there = any(isinstance(event, ModelReady) for event in events)
        events.close()
    return there


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


def _table(report: dict[str, Any]) -> str:
    lines = [f"# The pocket model on a processor ({report['machine']}, {report['cores']} cores)", ""]
    return "\n".join([*lines, *_clip_lines(report), *_start_lines(report.get("start", []))]) + "\n"


def _start_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "From `python app.py` until the page answers, and from the start of a fresh process until its first request's "
        "model is loaded, imports in it; seconds, median (least to most). `benchmarks/processor.py --start`.",
        "",
        "| one core taken | the page answers | the model is loaded | n |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        taken = "yes" if row["one core taken"] else "no"
        lines.append(f"| {taken} | {_spread(row['page'])} | {_spread(row['model'])} | {len(row['page'])} |")
    return lines


def _clip_lines(report: dict[str, Any]) -> list[str]:
    if not report.get("rows"):
        return []
    lines = [
        f"Clips of {report['steps']} steps, uncached, the model loaded; seconds, median (least to most). "
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
    return lines


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
