"""A training's log, followed: what has been said so far becomes the plot, the words and the figures of the page.

Knows the events of a training as records. Refuses to know Gradio, and where a log lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
class Told:
    """All that a training has said, as far as it was read. Reading the same records again changes nothing."""

    version: str = ""
    read: int = 0
    """Records that were read."""
    total: int = 0
    first_step: int = 0
    samples: int = 0
    held_out: int = 0
    device: str = ""
    stage: str = ""
    """What goes on besides steps, in words; empty during steps."""
    stage_share: float | None = None
    """Of 1, how much of that is done; None where it does not say."""
    steps: dict[int, tuple[float, float, float | None]] = field(default_factory=dict)
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

    def with_records(self, records: Sequence[dict[str, Any]]) -> Told:
        """What is told with some more records, in their order."""
        if not records:
            return self
        told = replace(
            self, steps=dict(self.steps), seconds=dict(self.seconds), scores=dict(self.scores), read=self.read
        )
        for record in records:
            told = _with(told, record)
        return replace(told, read=self.read + len(records))


def _with(told: Told, record: dict[str, Any]) -> Told:
    match record:
        case {"event": "TrainingStarted", "first_step": first}:
            for gone in [step for step in told.steps if step > first]:  # these are made again
                del told.steps[gone]
                told.seconds.pop(gone, None)
            return replace(
                told,
                total=record["total_steps"],
                first_step=first,
                samples=record["samples"],
                held_out=record["held_out"],
                device=str(record["placement"].get("device", "")),
                stage="",
            )
        case {"event": "TrainingStep", "step": step}:
            told.steps[step] = (record["loss"], record["latent"], record["pixel"])
            told.seconds[step] = record["seconds"]
            return replace(
                told, stage="", predicted=None, eta_seconds=record["eta_seconds"], peak_bytes=record["peak_bytes"]
            )
        case {"event": "TrainingForecast"}:
            return replace(
                told,
                stage="",
                predicted=None if told.steps else (record["step_seconds"], record["eta_seconds"]),
                eta_seconds=record["eta_seconds"],
                decoder_bytes=record["decoder_bytes"],
                full_decoder_bytes=record["full_decoder_bytes"],
                peak_bytes=record.get("peak_bytes", told.peak_bytes),
            )
        case {"event": "TrainingScored", "step": step}:
            told.scores[step] = record["psnr"]
        case {"event": "TrainingStage", "stage": stage}:
            done, total = record.get("done", 0), record.get("total", 0)
            part = f": {done} of {total}" if total and done else ""
            share = done / total if total else None
            return replace(told, stage=f"{STAGES.get(stage, stage)}{part}", stage_share=share)
        case {"event": "TrainingSample"}:
            clip = (record["step"], record["prompt"], record["path"])
            return told if clip in told.clips else replace(told, clips=(*told.clips, clip))
        case {"event": "Notice"}:
            known = told.notices
            return told if record["text"] in known else replace(told, notices=(*known, record["text"]))
    return told


def before_and_after(told: Told) -> dict[str, tuple[tuple[int, str], ...]]:
    """Of each prompt the first clip and the last, or the only one: steps done, file."""
    found: dict[str, list[tuple[int, str]]] = {}
    for step, prompt, path in told.clips:
        found.setdefault(prompt, []).append((step, path))
    return {prompt: (clips[0], clips[-1]) if len(clips) > 1 else (clips[0],) for prompt, clips in found.items()}


def step_seconds(told: Told) -> float | None:
    """The median step; the first one carries one-off costs."""
    taken = [told.seconds[step] for step in sorted(told.seconds)]
    later = sorted(taken[1:] or taken)
    return later[len(later) // 2] if later else None


def words_of(told: Told, total: int) -> str:
    """What is happening, in one sentence."""
    if told.stage and told.step in (0, total):
        return f"{told.stage}."
    loss = f", loss {told.steps[told.step][0]:.4f}" if told.step in told.steps else ""
    after = f". {told.stage}" if told.stage else ""
    return f"Step {told.step} of {total}{loss}{after}."


def prediction_of(told: Told, total: int) -> str:
    """What was predicted, in plain words; empty where nothing was."""
    if told.predicted is None:
        return ""
    step, all_of_them = told.predicted
    words = (
        f"{total} step{'s' if total != 1 else ''} will take about {seconds_text(all_of_them)}, {seconds_text(step)} "
        f"each, scoring and sample clips not counted. Memory, most at a time: {size_text(told.peak_bytes)}."
    )
    if told.decoder_bytes:
        words += (
            f" The way back through the decoder holds {size_text(told.decoder_bytes)}; full backpropagation would have "
            f"taken {size_text(told.full_decoder_bytes)}."
        )
    return words


def facts_of(told: Told, *, running: bool) -> dict[str, Any]:
    """The value of `Facts`: seconds a step, what is left, memory, samples."""
    rows: list[dict[str, Any]] = []
    typical = step_seconds(told) or (told.predicted[0] if told.predicted else None)
    if typical is not None:
        rows.append({"name": "a step", "value": seconds_text(typical), "strong": True})
    if running and told.eta_seconds is not None:
        rows.append({"name": "left, about", "value": seconds_text(told.eta_seconds), "strong": True})
    if told.peak_bytes:
        rows.append({"name": "peak memory", "value": size_text(told.peak_bytes), "strong": True})
    if told.samples:
        held = f", {told.held_out} held out" if told.held_out else ""
        rows.append({"name": "samples", "value": f"{told.samples}{held}"})
    if told.device:
        rows.append({"name": "runs on", "value": told.device})
    return {"title": "", "note": "", "rows": rows, "notes": list(told.notices[:12])}


def plot_of(told: Told, total: int) -> dict[str, Any]:
    """The value of `training_plot`."""
    steps = sorted(told.steps)
    width = -(-len(steps) // MOST_POINTS) if steps else 1
    lines = []
    for name, part in (("latent", 1), ("pixel", 2)):
        values = {step: told.steps[step][part] for step in steps}
        known = [(step, value) for step, value in values.items() if value is not None]
        if known:
            lines.append({"name": name, "points": _thinned(known, width)})
    memory = None
    if told.full_decoder_bytes:
        memory = {
            "held": told.decoder_bytes,
            "full": told.full_decoder_bytes,
            "held_words": size_text(told.decoder_bytes),
            "full_words": size_text(told.full_decoder_bytes),
        }
    return {
        "total": total,
        "lines": lines,
        "scores": [[step, told.scores[step]] for step in sorted(told.scores)],
        "mean_of": width,
        "memory": memory,
    }


def _thinned(points: list[tuple[int, float]], width: int) -> list[list[float]]:
    """Means of so many neighbours, at the last one's step."""
    groups = [points[at : at + width] for at in range(0, len(points), width)]
    return [[group[-1][0], sum(value for _, value in group) / len(group)] for group in groups]
