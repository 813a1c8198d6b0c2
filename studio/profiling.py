"""Profiling: a few uncached clips become a profile of a model, so that caches know it.

    for event in profile_model(find_preset("pocket"), folder=runs_folder() / "profiles"):
        ...

First whole clips, whose residuals are compared step with step; then clips in which one step alone is skipped, to see
how much of an error at each noise level is left at the end; then clips with two more passes a step, to see how
sensitive the transformer is to each of its inputs; then a few clips by the plans that came of it, to see what a skipped
step costs and how far they drift from what was foretold. Knows how often to run and what to make of it. Refuses to know
how a run goes (`generate`) and what is recorded inside one (`caching/recording.py`, `caching/sencache.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.errors import RequestError
from studio.events import (
    CacheDecided,
    GenerationEvent,
    ProfilingEvent,
    ProfilingFinished,
    ProfilingStep,
    RunFinished,
    StepFinished,
    Stop,
    never,
)
from studio.generate import PROFILES, generate
from studio.machine import hardware
from studio.machine.weights import fingerprint
from studio.palette import DAY
from studio.preset import Preset, find_preset
from studio.records.event_log import EventLog
from studio.records.profiles import Profile, falling, profile_path, profiling_log, write_profile
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, request_for
from studio.requests.work import ProfileModel
from studio.storage import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from studio.caching import Cache, CacheRun
    from studio.caching.recording import Recording

GROWTH_AT = (0.07, 0.1, 0.13, 0.17, 0.23, 0.3, 0.4, 0.5, 0.67, 0.8, 0.9, 0.94, 0.97)
"""Where, as shares of the steps, a step is skipped alone; denser at the ends, where errors last."""
REHEARSED = (1.5, 2.0, 3.0)
"""Speeds at which clips are made by the plan."""
SENSED_CLIPS = 2
"""Of so many whole clips the sensitivities are measured, by two more passes a step."""
SEED = 1000
LEAST_STEPS = 6
"""With fewer no step has neighbours enough to be skipped between, and AdaCache's codebook would be of nothing."""


def profile_model(
    preset: Preset,
    *,
    folder: Path,
    clips: int = 4,
    growth_clips: int = 3,
    prompts: Sequence[str] = (),
    stop: Stop = never,
    **fields: Any,
) -> Iterator[ProfilingEvent]:
    """Measure a preset.

    Args:
        preset: Which.
        folder: Of all profiles; there `profile_path` and a plot beside it are written, whole or not at all.
        clips: Uncached clips; more make the profile hold for more prompts.
        growth_clips: Of how many of them the growth of errors is measured, thirteen clips each, and the plans' drift.
        prompts: What to make; the preset's own ideas where left out.
        stop: Asked within every block; whatever it says ends the measuring, and nothing is written.
        **fields: Request fields over the preset's defaults, such as num_inference_steps.

    Raises:
        StudioError: as `generate` would.
    """
    with suppress(_Stopped):
        yield from _profile_model(preset, folder, clips, growth_clips, prompts, stop, fields)


def _profile_model(
    preset: Preset,
    folder: Path,
    clips: int,
    growth_clips: int,
    prompts: Sequence[str],
    stop: Stop,
    fields: Mapping[str, Any],
) -> Iterator[ProfilingEvent]:
    wanted = list(prompts or preset.defaults.prompts or ("a road",))
    requests = [
        request_for(preset, prompt=wanted[number % len(wanted)], seed=SEED + number, **fields)
        for number in range(clips)
    ]
    total_steps = requests[0].num_inference_steps
    if total_steps < LEAST_STEPS:
        raise RequestError(
            f"{preset.title} cannot be measured at {total_steps} steps: there is too little to compare.",
            field="num_inference_steps",
            value=total_steps,
            way_out=f"Measure it at num_inference_steps = {LEAST_STEPS} or more.",
        )
    skips = sorted({min(total_steps - 1, max(2, round(share * total_steps))) for share in GROWTH_AT})
    growth_clips = min(growth_clips, clips)
    sensed = min(SENSED_CLIPS, clips)
    total, done = clips + growth_clips * (len(skips) + len(REHEARSED)) + sensed, 0
    with TemporaryDirectory() as scratch:
        store = RunStore(Path(scratch))
        passes, recordings = 1, []
        for request in requests:
            recording, passes = _record(request, store, stop)
            recordings.append(recording)
            done += 1
            yield ProfilingStep(done=done, total=total, what=f"a whole clip: {request.prompt[:60]}")
        draft = _Draft(requests, recordings, passes)
        for skip in skips:
            for number in range(growth_clips):
                recording, _ = _record(requests[number], store, stop, skip=skip, gain=draft.gain(skip))
                draft.skipped(number, skip, recording)
                done += 1
                yield ProfilingStep(done=done, total=total, what=f"a clip without step {skip + 1}")
        for request in requests[:sensed]:
            draft.sensed(_sensed(request, store, stop))
            done += 1
            yield ProfilingStep(done=done, total=total, what="how sensitive it is to its inputs")
        foretold = draft.profile(preset)
        for speedup in REHEARSED:
            for number in range(growth_clips):
                draft.rehearsed(number, _rehearse(requests[number], store, stop, foretold, speedup))
                done += 1
                yield ProfilingStep(done=done, total=total, what=f"a clip by the plan for {speedup:g} times the speed")
        profile = draft.profile(preset)
    path = profile_path(folder, preset.name, total_steps, requests[0].flow_shift)
    plot = path.with_suffix(".svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(plot, plot_of(profile).encode())
    write_profile(profile, path)
    yield ProfilingFinished(path=str(path), plot=str(plot), skipped_share=profile.skipped_share)


def profile(work: ProfileModel, *, store: RunStore, owner: str, stop: Stop, **more: Any) -> Generator[ProfilingEvent]:
    """`profile_model` as the queue calls it: into the profiles of the runs' folder, with a log beside them.

    Args:
        work: The preset, and at how many steps and which shift.
        store: Where runs are kept, and profiles beside them.
        owner: Whose job it is; profiles are everybody's.
        stop: As `profile_model` takes it.
        **more: What else `profile_model` is to be told.

    Raises:
        StudioError: as `profile_model` would.
    """
    folder = store.folder / PROFILES
    log_path = profiling_log(folder, work.preset, work.num_inference_steps, work.flow_shift)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_path.unlink(missing_ok=True)  # of an earlier measuring
    fields = {"num_inference_steps": work.num_inference_steps, "flow_shift": work.flow_shift}
    with closing(EventLog(log_path)) as log:
        for event in profile_model(find_preset(work.preset), folder=folder, stop=stop, **fields, **more):
            log.write(event)
            yield event


def _record(
    request: GenerationRequest, store: RunStore, stop: Stop, skip: int | None = None, gain: float = 0.0
) -> tuple[Recording, int]:
    """What one clip's residuals did, and the passes of its steps; one step may be extrapolated instead of computed."""
    from studio.caching.block_stack import StackCache
    from studio.caching.recording import RecordingPolicy

    made: list[tuple[RecordingPolicy, int]] = []

    def recorder(run: CacheRun) -> Cache:
        stack = run.stacks[0]
        counts = {"blocks": len(stack.blocks), "control_blocks": stack.control_blocks}
        policy = RecordingPolicy(total_steps=run.total_steps, **counts, skip=skip, gain=gain)
        made.append((policy, run.passes))
        return StackCache(run.stacks, policy, total_steps=run.total_steps, passes=run.passes)

    for _ in _whole(generate(request, store=store, cache_for=recorder, stop=stop)):
        pass
    policy, passes = made[0]
    return policy.recording, passes


def _sensed(request: GenerationRequest, store: RunStore, stop: Stop) -> list[tuple[float, float]]:
    """How sensitive the transformer is at each step of one clip but the last."""
    from studio.caching.sencache import Sensing

    made: list[Sensing] = []

    def sensing(run: CacheRun) -> Cache:
        made.append(Sensing(run.stacks))
        return made[0]

    for _ in _whole(generate(request, store=store, cache_for=sensing, stop=stop)):
        pass
    return made[0].sensitivities


class _Stopped(Exception):
    """Somebody wants the measuring to end."""


def _whole(stream: Generator[GenerationEvent]) -> Iterator[GenerationEvent]:
    """A run's events up to its end; raises _Stopped where it has none."""
    event = None
    with closing(stream):
        for event in stream:
            yield event
    if not isinstance(event, RunFinished) or event.partial:
        raise _Stopped


@dataclass(frozen=True, kw_only=True)
class _Rehearsal:
    """A clip by the plan."""

    predicted: float
    """Its drift, as the plan has it."""
    latents: Tensor
    """After the last step."""
    seconds: dict[bool, list[float]]
    """Of the steps after the first, by whether they were computed."""


def _rehearse(request: GenerationRequest, store: RunStore, stop: Stop, profile: Profile, speedup: float) -> _Rehearsal:
    """A clip by the plan for that speed."""
    from studio.caching.block_stack import StackCache
    from studio.caching.budget import plan_for
    from studio.caching.recording import RehearsalPolicy
    from studio.requests.caches import Budget

    made: list[RehearsalPolicy] = []

    def planned(run: CacheRun) -> Cache:
        made.append(
            RehearsalPolicy(lambda: plan_for(profile.at(run.sigmas()), Budget(speedup=speedup), run.handover()))
        )
        return StackCache(run.stacks, made[0], total_steps=run.total_steps, passes=run.passes)

    kinds: dict[int, str] = {}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for event in _whole(generate(request, store=store, cache_for=planned, stop=stop)):
        if isinstance(event, CacheDecided):
            kinds[event.step] = event.kind
        if isinstance(event, StepFinished) and event.step > 0:
            seconds[kinds[event.step] == "computed"].append(event.seconds)
    plan, latents = made[0].plan, made[0].latents
    assert plan is not None
    assert latents is not None
    return _Rehearsal(predicted=plan.drift[-1], latents=latents, seconds=seconds)


class _Draft:
    """Recordings become figures."""

    def __init__(self, requests: Sequence[GenerationRequest], recordings: Sequence[Recording], passes: int) -> None:
        self.requests = requests
        self.recordings = recordings
        self.passes = passes
        self.sigmas = recordings[0].sigmas
        grams = [each.gram(requests[0].guidance_scale, passes) for each in recordings]
        self.grams = [gram / np.trace(gram) * len(gram) for gram in grams]
        self._growth: dict[int, list[float]] = {}
        self._sensitivities: list[list[tuple[float, float]]] = []
        self._rehearsals: list[_Rehearsal] = []
        self._off: list[float] = []
        """Logarithms of the rehearsals' drifts against what was predicted."""

    def gain(self, skip: int) -> float:
        """The best over the clips for this step, from the two before."""
        _, by_first, first = np.sum([_products(gram, skip) for gram in self.grams], axis=0)
        return max(0.0, float(by_first / first)) if first > 0 else 0.0

    def skipped(self, number: int, skip: int, recording: Recording) -> None:
        """Clip `number` once more, with one step extrapolated: how much of that error is left at the end."""
        assert recording.latents is not None
        drift = self._drift(number, recording.latents)
        second, by_first, first = _products(self.grams[number], skip)
        gain = self.gain(skip)
        error = float(np.sqrt(max(second - 2 * gain * by_first + gain**2 * first, 1e-12)))
        step = (*self.sigmas, 0.0)[skip] - (*self.sigmas, 0.0)[skip + 1]
        self._growth.setdefault(skip, []).append(max(drift / (error * abs(step)), 1e-9))

    def sensed(self, sensitivities: list[tuple[float, float]]) -> None:
        """One clip's sensitivities; the last step goes nowhere, and takes those of the one before."""
        self._sensitivities.append([*sensitivities, sensitivities[-1]])

    def rehearsed(self, number: int, rehearsal: _Rehearsal) -> None:
        """Clip `number` once more, by a plan."""
        self._rehearsals.append(rehearsal)
        drift = self._drift(number, rehearsal.latents)
        if drift and rehearsal.predicted:
            self._off.append(float(np.log(drift / rehearsal.predicted)))

    def _drift(self, number: int, latents: Tensor) -> float:
        """Of clip `number` made otherwise, as a share of its spread."""
        whole = self.recordings[number].latents
        assert whole is not None
        return float((latents - whole).norm()) / float((whole - whole.mean()).norm())

    def _skipped_share(self) -> float:
        """Seconds of a skipped step against those of a computed one."""
        skipped = [seconds for each in self._rehearsals for seconds in each.seconds[False]]
        computed = [seconds for each in self._rehearsals for seconds in each.seconds[True]]
        return min(0.9, statistics.median(skipped) / statistics.median(computed)) if skipped and computed else 0.0

    def profile(self, preset: Preset) -> Profile:
        """What is known so far; before there were rehearsals, as if a skipped step cost nothing."""
        skips = sorted(self._growth)
        # The mean of logarithms, as PSNR is one: a clip in which an early error grows tenfold shall not take the steps
        # that all the others need.
        typical = falling([float(np.mean(np.log(self._growth[skip]))) for skip in skips])
        steps, passes = range(len(self.sigmas)), range(self.passes)
        changes = [float(np.mean([_change(gram, step) for gram in self.grams])) if step else 0.0 for step in steps]
        ratios = [
            float(np.mean([each.ratios[step, branch] for each in self.recordings]))
            for step in steps
            for branch in passes
        ]
        moves = all(any(each.motions) for each in self.recordings)
        return Profile(
            preset=preset.name,
            weights=fingerprint(preset),
            sigmas=tuple(self.sigmas),
            flow_shift=self.requests[0].flow_shift,
            grams=tuple(tuple(tuple(row) for row in gram.tolist()) for gram in self.grams),
            growth=tuple((self.sigmas[skip], float(np.exp(log))) for skip, log in zip(skips, typical, strict=True)),
            # A distance belongs to the step that was computed before it was told.
            distances=tuple((*each.distances[1:], each.distances[-1]) for each in self.recordings),
            motions=tuple((*each.motions[1:], each.motions[-1]) for each in self.recordings) if moves else (),
            sensitivities=_pairs(np.mean(self._sensitivities, axis=0)) if self._sensitivities else (),
            embedding_changes=tuple(self.recordings[0].embedding_changes),
            residual_changes=tuple(changes),
            mag_ratios=tuple(ratios),
            passes=self.passes,
            skipped_share=self._skipped_share(),
            machine=hardware.measure().cpu_name,
            drift_scale=float(np.exp(np.mean(self._off))) if self._off else 1.0,
        )


def _pairs(pairs: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((float(first), float(second)) for first, second in pairs)


def _products(gram: np.ndarray, step: int) -> tuple[float, float, float]:
    """||B||^2, <B, A> and ||A||^2 of the residual's change B into this step and A into the one before."""
    rows = np.zeros((2, len(gram)))
    rows[0, [step, step - 1]] = 1, -1
    rows[1, [step - 1, step - 2]] = 1, -1
    (second, by_first), (_, first) = rows @ gram @ rows.T
    return second, by_first, first


def _change(gram: np.ndarray, step: int) -> float:
    """Relative change of the residual from the step before."""
    apart = gram[step, step] + gram[step - 1, step - 1] - 2 * gram[step, step - 1]
    return float(np.sqrt(max(apart, 0.0) / max(gram[step - 1, step - 1], 1e-12)))


def plot_of(profile: Profile) -> str:
    """AdaCache's distance at every step of every clip, with the codebook's thresholds, as SVG."""
    from studio.caching.adacache import calibrated

    total = len(profile.sigmas)
    book = calibrated(profile, total)
    top = 1.1 * max((max(clip[2:]) for clip in profile.distances), default=1.0)
    width, height, left, right, foot = 640, 320, 52, 120, 36

    def x(step: float) -> float:
        return left + (step - 1) / max(1, total - 2) * (width - left - right)

    def y(distance: float) -> float:
        return height - foot - min(distance, top) / top * (height - foot - 24)

    lines = [
        f'<polyline fill="none" stroke="{DAY["print-distance"]}" stroke-opacity=".75" stroke-width="1.5" points="'
        + " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in enumerate(clip) if step)
        + '"/>'
        for clip in profile.distances
    ]
    above = 24.0
    for threshold, rate in sorted(zip(book.thresholds, book.rates, strict=False), reverse=True):
        above = max(y(threshold), above + 13)  # words side by side with their line, but never on each other
        lines.append(
            f'<path d="M{left} {y(threshold):.1f}H{width - right}L{width - right + 8} {above:.1f}" fill="none" '
            f'stroke="{DAY["print-threshold"]}" stroke-dasharray="4 3"/>'
            f'<text x="{width - right + 10}" y="{above + 4:.1f}">below {threshold:.3f}: every {rate}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="{DAY["print-words"]}"><rect width="100%" height="100%" fill="{DAY["print-paper"]}"/>'
        f'<text x="{left}" y="15">{profile.preset}: change of the middle block\'s attention from step to step</text>'
        f'<path d="M{left} 20V{height - foot}H{width - right}" fill="none" stroke="{DAY["print-axis"]}"/>'
        f'<text x="{left - 6}" y="{y(top):.0f}" text-anchor="end">{top:.2g}</text>'
        f'<text x="{left - 6}" y="{y(0):.0f}" text-anchor="end">0</text>'
        f'<text x="{width - right}" y="{height - 10}" text-anchor="end">step {total}</text>'
        f'<text x="{left}" y="{height - 10}">step 2</text>{"".join(lines)}</svg>'
    )
