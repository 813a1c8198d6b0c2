"""A cell ends: its run's seconds, its clip's scores against the full one, and what a reader of both should know.

Most metrics are measured at once, in the process that walks the comparison. Those that need torch wait until the
clips are made: a page's process must not load it, so another one measures them (`python -m studio.compare`) and is
gone afterwards. Knows runs, clips and metrics. Refuses to know which cell comes next.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from studio.clips.read import read_clip
from studio.compare.cells import Cell, Comparison, Seconds
from studio.compare.record import Comparisons
from studio.compare.stored import run_of
from studio.errors import StudioError
from studio.metrics import METRICS, computed_share, score, scores_from_json, scores_to_json, spread
from studio.metrics.fidelity import psnr_per_frame
from studio.records.runs import Run

SCORED_HERE = tuple(name for name, metric in METRICS.items() if "torch" not in metric.packages)
"""Metrics that any process can measure; the others wait for one with torch in it."""
SCORED_WITH_TORCH = tuple(name for name in METRICS if name not in SCORED_HERE)
COLD_SECONDS = 0.5
"""A run that spent more on loading came first to its model, and its first step carries one-off costs."""
UNSTEADY = 1.5
"""A timing that is off by more than this factor is told as such."""
SCORING_SECONDS = 900.0
"""How long the process with torch in it may measure."""

log = logging.getLogger(__name__)


def seconds_of(run: Run) -> Seconds:
    stages, denoising = run.stage_seconds, math.fsum(run.step_seconds)
    encoding, decoding = stages.get("encoding", 0.0), stages.get("decoding", 0.0)
    whole = encoding + denoising + decoding + stages.get("writing", 0.0)
    return Seconds(encoding=encoding, denoising=denoising, decoding=decoding, whole=whole)


def completed(cell: Cell, run: Run, reference: Run | None, *, reused: bool, names: Sequence[str]) -> Cell:
    """The cell with its run's figures, scored as its clip lies on the disk, the way a viewer sees it.

    Args:
        cell: Which.
        run: The run that answers it.
        reference: The run of its reference; None where that failed, or where the cell is the reference.
        reused: Whether the run was there before.
        names: Metrics to be measured now; what cannot be measured is told in the notices.
    """
    notices: list[str] = []
    if run.partial:
        notices.append("The run was stopped early: it has fewer steps than were asked for.")
    if run.request.cache is not None and run.trace is not None and computed_share(run.trace) == 1:
        notices.append("The cache skipped nothing: every block of every step was computed.")
    if reference is not None and run.environment != reference.environment:
        differing = sorted(
            name
            for name in run.environment.keys() | reference.environment.keys()
            if run.environment.get(name) != reference.environment.get(name)
        )
        notices.append(f"Made in other surroundings than its reference: {', '.join(differing)} differ.")
    notices += _timing_notices(run, reference)
    ended = replace(
        cell,
        state="complete",
        job_id=None,
        run_id=run.id,
        reused=reused,
        cold=run.stage_seconds.get("loading", 0.0) > COLD_SECONDS,
        seconds=seconds_of(run),
        computed_share=None if run.trace is None else computed_share(run.trace),
        error=None,
    )
    try:
        frames = read_clip(run.video).clip.frames
        meant = None if reference is None else read_clip(reference.video).clip.frames
        if meant is not None and meant.shape != frames.shape:
            notices.append("Another size or length than its reference: there is nothing to hold it against.")
            meant = None
        elif reference is None and not cell.is_reference:
            notices.append("Its reference is missing: there is nothing to hold it against.")
        scores, lacking = _measured(frames, meant, names)
        per_frame = () if meant is None else tuple(float(value) for value in psnr_per_frame(frames, meant))
        return replace(ended, scores=scores, frame_psnr=per_frame, notices=(*notices, *lacking))
    except StudioError as error:
        return replace(ended, notices=(*notices, f"Not scored: {error}"))


def _timing_notices(run: Run, reference: Run | None) -> list[str]:
    """Where a timing cannot be what it says: something else was at work on this machine meanwhile."""
    later = run.step_seconds[1:]
    if run.request.cache is None and len(later) >= 4 and min(later) > 0:
        steps = spread(later)
        if steps.upper_quartile > UNSTEADY * steps.lower_quartile:
            return [
                f"Unsteady timing: equal steps took {steps.lower_quartile:.3f} to {steps.upper_quartile:.3f} s. "
                "Something else was at work; repeats help."
            ]
    if reference is None or run.trace is None or not run.step_seconds or not reference.step_seconds:
        return []
    share, taken, meant = computed_share(run.trace), math.fsum(run.step_seconds), math.fsum(reference.step_seconds)
    if not (share > 0 and taken > 0 and meant > 0):
        return []
    most = len(reference.step_seconds) / len(run.step_seconds) / share
    if meant / taken > UNSTEADY * most:
        return [
            f"{meant / taken:.1f}× as fast cannot be: what it skipped explains {most:.1f}×. "
            "Something else was at work while one of the two was made; repeats help."
        ]
    return []


def _measured(
    frames: np.ndarray, reference: np.ndarray | None, names: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """Scores by name, and a sentence for each that a small or short clip does not allow."""
    scores: dict[str, float] = {}
    lacking: list[str] = []
    for name in names:
        try:
            scores |= score(frames, reference, [name])
        except StudioError as error:
            lacking.append(str(error))
    return scores, lacking


def failed(cell: Cell, error: StudioError) -> Cell:
    return replace(cell, state="failed", job_id=None, error=error.to_json())


def scored_with_torch(comparison: Comparison, book: Comparisons, closing: threading.Event) -> Comparison:
    """The comparison with the scores that need torch, measured by a process that may have it and is gone afterwards.

    Where that process fails, the cells say so and keep their other scores.
    """
    if not any(_to_be_scored(cell) for cell in comparison.cells):
        return comparison
    command = [sys.executable, "-m", "studio.compare", "--runs", str(book.store.folder), "--score", comparison.id]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    waited = 0.0
    while True:
        try:
            said, complained = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            waited += 0.5
            if closing.is_set() or waited > SCORING_SECONDS:
                process.kill()
                said, complained = process.communicate()
                if closing.is_set():
                    return comparison
                break
    try:
        found = {int(number): told for number, told in json.loads(said).items()}
    except (ValueError, AttributeError):
        log.warning("the scores that need torch could not be measured: %s", complained[-500:])
        notice = f"{', '.join(METRICS[name].title for name in SCORED_WITH_TORCH)} could not be measured."
        found = {cell.number: {"scores": {}, "notices": [notice]} for cell in comparison.cells if _to_be_scored(cell)}
    for number, told in found.items():
        cell = comparison.cell(number)
        comparison = comparison.with_cell(
            replace(
                cell,
                scores=cell.scores | scores_from_json(told["scores"]),
                notices=(*cell.notices, *told["notices"]),
            )
        )
    return comparison


def scored_apart(comparison_id: str, book: Comparisons) -> dict[int, dict[str, Any]]:
    """The scores that need torch, and what there is to say of them, by cell: the other process's side."""
    comparison = book.get(comparison_id)
    found: dict[int, dict[str, Any]] = {}
    for cell in comparison.cells:
        run, reference = run_of(cell, book.store), run_of(comparison.cells[cell.reference], book.store)
        if not _to_be_scored(cell) or run is None or reference is None:
            continue
        try:
            frames, meant = (read_clip(each.video).clip.frames for each in (run, reference))
            scores, lacking = _measured(frames, meant, SCORED_WITH_TORCH)
        except StudioError as error:
            scores, lacking = {}, [f"Not scored: {error}"]
        found[cell.number] = {"scores": scores_to_json(scores), "notices": lacking}
    return found


def _to_be_scored(cell: Cell) -> bool:
    return bool(cell.frame_psnr) and not any(name in cell.scores for name in SCORED_WITH_TORCH)
