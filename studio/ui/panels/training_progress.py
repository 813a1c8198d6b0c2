"""A training's log, followed: what has been said so far becomes the plot, the words and the figures of the page.

Knows the events of a training. Refuses to know Gradio, and where a log lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from studio.events import (
    EnlargerScored,
    EnlargerTrainingStarted,
    EnlargerTrainingStep,
    Event,
    Notice,
    TrainingForecast,
    TrainingSample,
    TrainingScored,
    TrainingStage,
    TrainingStarted,
    TrainingStep,
)
from studio.records.event_log import Numbered
from studio.ui.components.values import DecoderMemory, Fact, Facts, TrainingLine, TrainingPlot
from studio.ui.wording import seconds_text, size_text

MOST_POINTS = 240
"""Of a line in the plot; more steps than this are drawn as means of neighbours."""
STAGES = {
    "loading": "Loading the model",
    "reading": "Reading the clips",
    "preparing": "Preparing samples",
    "measuring": "Measuring two steps",
    "scoring": "Scoring held-out samples",
    "sampling": "Generating a clip",
    "saving": "Saving",
}


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """All that a training has said, as far as it was read. Reading the same events again changes nothing."""

    version: str = ""
    read: int = 0
    """Number of the last line that was read."""
    total: int = 0
    first_step: int = 0
    samples: int = 0
    held_out: int = 0
    device: str = ""
    stage: str = ""
    """What goes on besides steps, in words; empty during steps."""
    stage_share: float | None = None
    """Of 1, how much of that is done; None where it does not say."""
    steps: dict[int, tuple[float, float | None, float | None]] = field(default_factory=dict)
    """Loss, and its latent and pixel parts, by number of steps done."""
    seconds: dict[int, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    """PSNR by number of steps done; 0 is the model as it was."""
    clips: tuple[tuple[int, str, str], ...] = ()
    """Generated: steps done, prompt, file."""
    eta_seconds: float | None = None
    predicted: tuple[float, float] | None = None
    """Seconds of a step, and of all that were to come, as a prediction said; None once they are being taken."""
    peak_bytes: int = 0
    decoder_bytes: int = 0
    full_decoder_bytes: int = 0
    notices: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        return max(self.steps, default=self.first_step)

    def with_events(self, events: Sequence[Numbered]) -> TrainingProgress:
        """What is so after some more events, in their order."""
        if not events:
            return self
        progress = replace(self, steps=dict(self.steps), seconds=dict(self.seconds), scores=dict(self.scores))
        for _, event in events:
            progress = _with(progress, event)
        return replace(progress, read=events[-1][0])


def _with(progress: TrainingProgress, event: Event) -> TrainingProgress:
    match event:
        case TrainingStarted():
            for gone in [step for step in progress.steps if step > event.first_step]:  # these are made again
                del progress.steps[gone]
                progress.seconds.pop(gone, None)
            return replace(
                progress,
                total=event.total_steps,
                first_step=event.first_step,
                samples=event.samples,
                held_out=event.held_out,
                device=event.placement.device,
                stage="",
            )
        case TrainingStep():
            progress.steps[event.step] = (event.loss, event.latent, event.pixel)
            progress.seconds[event.step] = event.seconds
            return replace(
                progress, stage="", predicted=None, eta_seconds=event.eta_seconds, peak_bytes=event.peak_bytes
            )
        case TrainingForecast():
            return replace(
                progress,
                stage="",
                predicted=None if progress.steps else (event.step_seconds, event.eta_seconds),
                eta_seconds=event.eta_seconds,
                decoder_bytes=event.decoder_bytes,
                full_decoder_bytes=event.full_decoder_bytes,
                peak_bytes=event.peak_bytes or progress.peak_bytes,
            )
        case TrainingScored():
            progress.scores[event.step] = event.psnr
        case EnlargerTrainingStarted():
            return replace(
                progress,
                total=event.total_steps,
                first_step=event.first_step,
                samples=event.samples + event.held_out,
                held_out=event.held_out,
                stage="",
            )
        case EnlargerTrainingStep():
            progress.steps[event.step] = (event.loss, None, event.loss)
            progress.seconds[event.step] = event.seconds
            return replace(progress, stage="", eta_seconds=event.eta_seconds)
        case EnlargerScored():
            progress.scores[event.step] = sum(event.psnr.values()) / max(1, len(event.psnr))
        case TrainingStage():
            part = f": {event.done} of {event.total}" if event.total and event.done else ""
            share = event.done / event.total if event.total else None
            return replace(progress, stage=f"{STAGES[event.stage]}{part}", stage_share=share)
        case TrainingSample():
            clip = (event.step, event.prompt, event.path)
            return progress if clip in progress.clips else replace(progress, clips=(*progress.clips, clip))
        case Notice():
            known = progress.notices
            return progress if event.text in known else replace(progress, notices=(*known, event.text))
    return progress


def before_and_after(progress: TrainingProgress) -> dict[str, tuple[tuple[int, str], ...]]:
    """Of each prompt the first clip and the last, or the only one: steps done, file."""
    by_prompt: dict[str, list[tuple[int, str]]] = {}
    for step, prompt, path in progress.clips:
        by_prompt.setdefault(prompt, []).append((step, path))
    return {prompt: (clips[0], clips[-1]) if len(clips) > 1 else (clips[0],) for prompt, clips in by_prompt.items()}


def step_seconds(progress: TrainingProgress) -> float | None:
    """The median step; the first one carries one-off costs."""
    taken = [progress.seconds[step] for step in sorted(progress.seconds)]
    later = sorted(taken[1:] or taken)
    return later[len(later) // 2] if later else None


def words_of(progress: TrainingProgress, total: int) -> str:
    """What is happening, in one sentence."""
    if progress.stage and progress.step in (0, total):
        return f"{progress.stage}."
    loss = f", loss {progress.steps[progress.step][0]:.4f}" if progress.step in progress.steps else ""
    after = f". {progress.stage}" if progress.stage else ""
    return f"Step {progress.step} of {total}{loss}{after}."


def prediction_of(progress: TrainingProgress, total: int) -> str:
    """What was predicted, in plain words; empty where nothing was."""
    if progress.predicted is None:
        return ""
    step, all_of_them = progress.predicted
    words = (
        f"{total} step{'s' if total != 1 else ''} will take about {seconds_text(all_of_them)}, {seconds_text(step)} "
        f"each, scoring and sample clips not counted. Memory, most at a time: {size_text(progress.peak_bytes)}."
    )
    if progress.decoder_bytes:
        words += (
            f" The way back through the decoder holds {size_text(progress.decoder_bytes)}; full backpropagation would "
            f"have taken {size_text(progress.full_decoder_bytes)}."
        )
    return words


def facts_of(progress: TrainingProgress, *, running: bool) -> Facts:
    """The value of `Facts`: seconds a step, what is left, memory, samples."""
    rows: list[Fact] = []
    typical = step_seconds(progress) or (progress.predicted[0] if progress.predicted else None)
    if typical is not None:
        rows.append({"name": "a step", "value": seconds_text(typical), "strong": True})
    if running and progress.eta_seconds is not None:
        rows.append({"name": "left, about", "value": seconds_text(progress.eta_seconds), "strong": True})
    if progress.peak_bytes:
        rows.append({"name": "peak memory", "value": size_text(progress.peak_bytes), "strong": True})
    if progress.samples:
        held = f", {progress.held_out} held out" if progress.held_out else ""
        rows.append({"name": "samples", "value": f"{progress.samples}{held}"})
    if progress.device:
        rows.append({"name": "runs on", "value": progress.device})
    return {"title": "", "note": "", "rows": rows, "notes": list(progress.notices[:12])}


def plot_of(progress: TrainingProgress, total: int) -> TrainingPlot:
    """The value of `training_plot`."""
    steps = sorted(progress.steps)
    width = -(-len(steps) // MOST_POINTS) if steps else 1
    lines: list[TrainingLine] = []
    for name, part in (("latent", 1), ("pixel", 2)):
        values = {step: progress.steps[step][part] for step in steps}
        known = [(step, value) for step, value in values.items() if value is not None]
        if known:
            lines.append({"name": name, "points": _thinned(known, width)})
    memory: DecoderMemory | None = None
    if progress.full_decoder_bytes:
        memory = {
            "held": progress.decoder_bytes,
            "full": progress.full_decoder_bytes,
            "held_words": size_text(progress.decoder_bytes),
            "full_words": size_text(progress.full_decoder_bytes),
        }
    return {
        "total": total,
        "lines": lines,
        "scores": [[step, progress.scores[step]] for step in sorted(progress.scores)],
        "mean_of": width,
        "memory": memory,
    }


def _thinned(points: list[tuple[int, float]], width: int) -> list[list[float]]:
    """Means of so many neighbours, at the last one's step."""
    groups = [points[at : at + width] for at in range(0, len(points), width)]
    return [[group[-1][0], sum(value for _, value in group) / len(group)] for group in groups]
