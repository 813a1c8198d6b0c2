"""Pace: what finished runs teach about how long the next one takes.

Knows one small JSON file beside the runs and a scaling rule. Refuses to know torch and what is being made.

A run's pace is its timings; a prediction scales the nearest (same preset, device and number format) to another size.
Denoising grows a little faster than the clip's volume, because attention is quadratic in it while the rest is linear:
the exponent between is `STEP_EXPONENT`. Decoding is convolutional, so it is linear.
"""

from __future__ import annotations

import json
import math
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.records.codec import from_json, to_json
from studio.records.run import Run
from studio.requests.generation import GenerationRequest
from studio.storage import write_atomically

FILE_NAME = "calibration.json"
"""The name it was given first, by which it is found again."""
STEP_EXPONENT = 1.2
KEPT_PER_KEY = 12
"""Paces kept for one preset, device and number format; the newest are kept."""


@dataclass(frozen=True, kw_only=True)
class RunPace:
    """What one finished run took. Volume is frames × rows × columns."""

    preset: str
    device_name: str
    torch_dtype: str
    volume: int
    guided: bool
    """Whether guidance was on: two passes a step instead of one."""
    load_seconds: float
    """Until the model was ready; near zero when it was loaded already."""
    encode_seconds: float
    step_seconds: float
    """Median over the run's steps, the first left out where there are three or more."""
    finish_seconds: float
    """Decoding and writing."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How long a run will take from the click to the file, the model being loaded."""

    seconds: float
    low: float
    high: float
    """The range most runs fall into."""
    step_seconds: float
    finish_seconds: float
    basis: str
    """In words, what the figure rests on."""


def median_step(step_seconds: list[float] | tuple[float, ...]) -> float:
    """The usual step; the first is left out where there are three or more, for it carries one-off costs."""
    return statistics.median(step_seconds[1:] if len(step_seconds) >= 3 else step_seconds)


def remember(run: Run, folder: Path) -> None:
    """Learn from a finished run; one that was stopped on the way teaches nothing."""
    if run.partial or run.placement is None:
        return
    request, stages = run.request, run.stage_seconds
    pace = RunPace(
        preset=request.preset,
        device_name=run.placement.device_name,
        torch_dtype=run.placement.torch_dtype,
        volume=request.num_frames * request.height * request.width,
        guided=request.guidance_scale > 1,
        load_seconds=stages.get("loading", 0.0),
        encode_seconds=stages.get("encoding", 0.0),
        step_seconds=median_step(run.step_seconds),
        finish_seconds=stages.get("decoding", 0.0) + stages.get("writing", 0.0),
    )
    add(pace, folder)


def add(pace: RunPace, folder: Path) -> None:
    """Keep a run's pace. A file that cannot be read is started anew; one that cannot be written is let be."""
    kept = [*paces(folder), pace]
    key = _key(pace)
    mine = [each for each in kept if _key(each) == key][-KEPT_PER_KEY:]
    others = [each for each in kept if _key(each) != key]
    # A prediction is a courtesy: a full disk is told of where the clip is written.
    with suppress(StudioError):
        write_atomically(folder / FILE_NAME, json.dumps([to_json(each) for each in others + mine], indent=1).encode())


def predict(
    request: GenerationRequest, folder: Path, *, device_name: str | None = None, torch_dtype: str | None = None
) -> Prediction | None:
    """What finished runs say this request will take; None before any run of the preset was measured.

    Args:
        request: What is to be made.
        folder: The runs folder.
        device_name: Only count runs on this device; None takes the device of the newest run.
        torch_dtype: Only count runs in this number format; None takes the newest run's.
    """
    known = [each for each in paces(folder) if each.preset == request.preset]
    if request.torch_dtype != "auto":
        torch_dtype = request.torch_dtype
    if device_name is not None:
        known = [each for each in known if each.device_name == device_name]
    if torch_dtype is not None:
        known = [each for each in known if each.torch_dtype == torch_dtype]
    if not known:
        return None
    newest = known[-1]
    known = [each for each in known if _key(each) == _key(newest)]
    volume = request.num_frames * request.height * request.width
    passes = 2 if request.guidance_scale > 1 else 1
    nearest = min(known, key=lambda each: abs(math.log(each.volume / volume)))
    peers = [each for each in known if each.volume == nearest.volume]
    growth = volume / nearest.volume

    def total(each: RunPace) -> tuple[float, float, float]:
        step = each.step_seconds * growth**STEP_EXPONENT * passes / (2 if each.guided else 1)
        finish = each.finish_seconds * growth
        return each.encode_seconds + step * request.num_inference_steps + finish, step, finish

    totals = [total(each) for each in peers]
    middle = statistics.median(seconds for seconds, _, _ in totals)
    # Away from what was measured the rule itself is uncertain: a tenth, and a quarter more for each doubling of volume.
    doubt = 1.1 + 0.25 * abs(math.log2(growth))
    runs = "1 run" if len(peers) == 1 else f"{len(peers)} runs"
    same = (
        "at this size"
        if growth == 1
        else f"at {growth:.2g}× less volume"
        if growth > 1
        else f"at {1 / growth:.2g}× the volume"
    )
    return Prediction(
        seconds=middle,
        low=min(seconds for seconds, _, _ in totals) / doubt,
        high=max(seconds for seconds, _, _ in totals) * doubt,
        step_seconds=statistics.median(step for _, step, _ in totals),
        finish_seconds=statistics.median(finish for _, _, finish in totals),
        basis=f"{runs} measured {same} on {nearest.device_name}, {nearest.torch_dtype}",
    )


def _key(each: RunPace) -> tuple[str, str, str]:
    return each.preset, each.device_name, each.torch_dtype


def paces(folder: Path) -> list[RunPace]:
    """What has been measured, the oldest first; nothing where the file is absent or damaged."""
    try:
        return from_json(list[RunPace], json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return []
