"""A cell ends: its run's seconds, its clip's scores against the full one, and what a reader of both should know.

Knows runs, clips and metrics. Refuses to know which cell comes next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from studio.clips.read import read_clip
from studio.compare.cells import Cell, Seconds
from studio.errors import StudioError
from studio.metrics import computed_share, score, spread
from studio.metrics.fidelity import psnr_per_frame
from studio.records.run import Run

COLD_SECONDS = 0.5
"""A run that spent more on loading came first to its model, and its first step carries one-off costs."""
UNSTEADY = 1.5
"""A timing that is off by more than this factor is told as such."""


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
    return replace(cell, state="failed", error=error.to_json())
