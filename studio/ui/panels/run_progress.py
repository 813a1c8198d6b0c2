"""What a stream of events looks like on the page: events are added up, two small records come out.

Knows the events and what `StepTimeline` and `LiveStatus` want to be given. Refuses to know Gradio, the queue, and
where the events come from: a live job, the log of an old one, or a finished run's trace.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from studio.errors import ErrorRecord
from studio.events import (
    BlockComputed,
    BlockReused,
    CacheDecided,
    GenerationEvent,
    ModelReady,
    Notice,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepStarted,
)
from studio.records.run import Run
from studio.ui.components.values import LiveStatus, StepKind, StepTimeline, TimelineStep

STAGE_WORDS = {
    "loading": "loading the model",
    "encoding": "reading the prompt",
    "denoising": "denoising",
    "decoding": "decoding the frames",
    "writing": "writing the clip",
}
STAGE_NAMES = {
    "loading": "model",
    "encoding": "prompt",
    "denoising": "denoise",
    "decoding": "decode",
    "writing": "write",
}


class JobLike(Protocol):
    """What is shown of a job of the queue."""

    @property
    def state(self) -> str: ...
    @property
    def position(self) -> int | None: ...
    @property
    def error(self) -> ErrorRecord | None: ...
    @property
    def started(self) -> str | None: ...
    @property
    def finished(self) -> str | None: ...


@dataclass
class _ShownStep:
    sigma: float | None = None
    milliseconds: float | None = None
    """None while it is under way."""
    blocks: dict[str, dict[int, str]] = field(default_factory=dict)
    """By branch and block, one letter: c(omputed), r(eused), h(alf of its layers reused), (e)x(trapolated)."""
    decision: CacheDecided | None = None

    def record(self, branches: list[str]) -> TimelineStep:
        words = ["".join(letter for _, letter in sorted(self.blocks.get(branch, {}).items())) for branch in branches]
        return {
            "ms": round(self.milliseconds or 0.0, 1),
            "kind": kind_of("".join(words)),
            "sigma": None if self.sigma is None else round(self.sigma, 4),
            "blocks": [word for word in words if word],
            "why": reasons(self.decision),
        }


def reasons(decision: CacheDecided | None) -> str:
    """Why a cache did what it did, in one line: distance against threshold, rate, motion."""
    if decision is None:
        return ""
    words = []
    if decision.distance is not None:
        against = f" against {decision.threshold:.3g}" if decision.threshold is not None else ""
        words.append(f"distance {decision.distance:.3g}{against}")
    if decision.rate is not None:
        words.append(f"rate {decision.rate}")
    if decision.motion is not None:
        words.append(f"motion {decision.motion:.2f}")
    return " · ".join([*words, decision.why] if decision.why else words)


def kind_of(letters: str) -> StepKind:
    """What a step was, from what its blocks did; a step without a trace was computed."""
    kinds = set(letters)
    if kinds == {"x"}:
        return "extrapolated"
    if not kinds & set("rhx"):
        return "computed"
    return "reused" if kinds == {"r"} else "half"


def letter_of(event: BlockComputed | BlockReused) -> str:
    """What a block did, in one letter."""
    if isinstance(event, BlockComputed):
        return "c" if event.share >= 1 else "h"
    return "x" if event.extrapolated else "r"


@dataclass
class Progress:
    """One run as far as its events have told."""

    total_steps: int = 0
    run_id: str | None = None
    placement: Placement | None = None
    blocks: int = 0
    stages: dict[str, float | None] = field(default_factory=dict)
    """Seconds by stage; None for the one under way."""
    stage: str = ""
    eta_seconds: float | None = None
    peak_bytes: int = 0
    uncached_step_seconds: float | None = None
    """What a step takes here without a cache, where that was measured."""
    preview: bytes = b""
    preview_step: int | None = None
    notices: list[str] = field(default_factory=list)
    finished: RunFinished | None = None
    current: int | None = None
    """The step under way."""
    _steps: dict[int, _ShownStep] = field(default_factory=dict)
    _branches: list[str] = field(default_factory=list)

    def add(self, event: GenerationEvent) -> bool:
        """Take one event in; whether the page should be told at once (block decisions wait for their step's end)."""
        match event:
            case RunStarted():
                self.run_id, self.total_steps, self.placement = event.run_id, event.total_steps, event.placement
                self.eta_seconds = event.predicted_seconds
                self.uncached_step_seconds = event.uncached_step_seconds
            case ModelReady():
                self.blocks = event.blocks
            case StageStarted():
                self.stage = event.stage
                self.stages[event.stage] = None
                if event.stage in ("decoding", "writing"):
                    self.current = None
            case StageFinished():
                self.stages[event.stage] = event.seconds
            case StepStarted():
                self.current = event.step
                self._steps[event.step] = _ShownStep(sigma=event.sigma)
            case CacheDecided():
                self._steps.setdefault(event.step, _ShownStep()).decision = event
                return False
            case BlockComputed() | BlockReused():
                self._decide(event)
                return False
            case StepFinished():
                self._steps.setdefault(event.step, _ShownStep()).milliseconds = event.seconds * 1000
                self.current = None
                self.eta_seconds, self.peak_bytes = event.eta_seconds, max(self.peak_bytes, event.peak_bytes)
            case PreviewFrame():
                self.preview, self.preview_step = event.jpeg, event.step
            case Notice():
                self.notices.append(event.text)
            case RunFinished():
                self.finished, self.stage = event, ""
                self.stages = {name: seconds for name, seconds in self.stages.items() if seconds is not None}
        return True

    def _decide(self, event: BlockComputed | BlockReused) -> None:
        if event.branch not in self._branches:
            self._branches.append(event.branch)
        blocks = self._steps.setdefault(event.step, _ShownStep()).blocks
        blocks.setdefault(event.branch, {})[event.block] = letter_of(event)

    @property
    def step_milliseconds(self) -> list[float]:
        """Of the steps that have ended, in order."""
        return [step.milliseconds for _, step in sorted(self._steps.items()) if step.milliseconds is not None]

    def timeline(self) -> StepTimeline:
        """The value of a `StepTimeline`."""
        ended = [step for _, step in sorted(self._steps.items()) if step.milliseconds is not None]
        sigma = None if self.current not in self._steps else self._steps[self.current].sigma
        return {
            "total": self.total_steps,
            "branches": self._branches,
            "steps": [step.record(self._branches) for step in ended],
            "current": None if self.current is None or sigma is None else {"step": self.current, "sigma": sigma},
            "uncached_ms": None if self.uncached_step_seconds is None else 1000 * self.uncached_step_seconds,
        }

    def status(self, job: JobLike, *, title: str, worker: str = "") -> LiveStatus:
        """The value of a `LiveStatus`.

        Args:
            job: The job whose events these are.
            title: What it makes, in words.
            worker: What the worker process is doing, in a few words; shown while the job waits for it.
        """
        headline, detail = _headline(job, self, worker)
        running = job.state == "running"
        return {
            "state": "starting" if running and self.run_id is None else job.state,
            "headline": headline,
            "detail": detail,
            "prompt": title,
            "stages": [{"name": STAGE_NAMES[name], "seconds": took} for name, took in self.stages.items()]
            if running
            else [],
            "elapsed": _seconds_between(job.started, job.finished),
            "eta": self.eta_seconds if running else None,
            "preview": picture_address(self.preview),
            "preview_step": self.preview_step,
            "notices": self.notices[-4:],
        }


def picture_address(jpeg: bytes) -> str:
    """A small JPEG as a data: address, so that no file of it has to be served; empty for none."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}" if jpeg else ""


def idle_status(words: str, invitation: str) -> LiveStatus:
    """The value of a `LiveStatus` while nothing is being made."""
    return {"state": "idle", "headline": words, "detail": invitation, "prompt": "", "stages": [], "notices": []}


def _headline(job: JobLike, progress: Progress, worker: str) -> tuple[str, str]:
    match job.state:
        case "queued":
            ahead = job.position or 0
            return (
                "Next in the queue" if not ahead else f"Waiting behind {ahead} other{'s' if ahead > 1 else ''}"
            ), worker
        case "running" if progress.run_id is None:
            return "Starting", worker
        case "running":
            words = STAGE_WORDS.get(progress.stage, progress.stage or "starting")
            done = len(progress.step_milliseconds)
            if progress.stage == "denoising":
                words = f"denoising, step {min(done + 1, progress.total_steps)} of {progress.total_steps}"
            return words[:1].upper() + words[1:], ""
        case "complete":
            partial = progress.finished is not None and progress.finished.partial
            return ("Stopped; what was reached is kept" if partial else "Finished"), ""
        case "cancelled":
            return "Stopped", "Nothing was kept. The form still holds the settings."
        case _:
            record = job.error or {}
            words = "Interrupted" if job.state == "interrupted" else "This did not work"
            return words, " ".join(str(part) for part in (record.get("message"), record.get("way_out")) if part)


def _seconds_between(started: str | None, finished: str | None) -> float | None:
    """From ISO 8601 to ISO 8601, or to now."""
    if started is None:
        return None
    end = datetime.fromisoformat(finished) if finished else datetime.now(UTC)
    return max(0.0, (end - datetime.fromisoformat(started)).total_seconds())


def timeline_of(run: Run) -> StepTimeline:
    """The value of a `StepTimeline` for a run on disk: its log, walked again."""
    progress = Progress()
    for event in run.events():
        progress.add(event)
    value = progress.timeline()
    return {**value, "current": None, "total": run.request.num_inference_steps if value["steps"] else 0}
