"""What an enlargement looks like: how far it is, what it makes, its figures, and its pictures beside bicubic ones.

Knows records and events of enlargements. Refuses to know the buttons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from studio.errors import from_json
from studio.events import EnlargementStarted, Event, FramesEnlarged, FramesMeasured, Notice
from studio.records.enlargements import (
    BICUBIC,
    EXCERPT,
    MADE,
    VIDEO,
    Enlargement,
    EnlargementState,
    Measurement,
    SourceRecord,
)
from studio.requests.super_resolution import SuperResolutionRequest, method_title
from studio.super_resolve import FIGURES, Forecast
from studio.super_resolve.wording import figure_text, figure_title, measured_names, whose_title
from studio.ui.components import message
from studio.ui.components.values import Fact, Facts, FigureColumn, FigureRow, FigureTable, Message
from studio.ui.wording import seconds_text, size_text


@dataclass(frozen=True, kw_only=True)
class EnlargementProgress:
    """What the log has said so far."""

    enlargement: str = ""
    read: int = 0
    """Lines."""
    latest: FramesEnlarged | None = None
    measured: FramesMeasured | None = None
    """None until what was made is being measured."""
    notices: tuple[str, ...] = ()

    def with_events(self, numbered: list[tuple[int, Event]]) -> EnlargementProgress:
        progress = self
        for number, event in numbered:
            progress = replace(progress, read=number)
            if isinstance(event, FramesEnlarged):
                progress = replace(progress, latest=event)
            elif isinstance(event, EnlargementStarted):
                progress = replace(progress, latest=None, measured=None)
            elif isinstance(event, FramesMeasured):
                progress = replace(progress, measured=event)
            elif isinstance(event, Notice) and event.text not in progress.notices:
                progress = replace(progress, notices=(*progress.notices, event.text))
        return progress


def facts_of_source(source: SourceRecord, request: SuperResolutionRequest | None) -> Facts:
    """What is known of a clip, and of what it becomes."""
    rate = f"{source.fps:.4g} a second" if source.constant_rate else "as they come: its rate varies"
    rows: list[Fact] = [
        Fact(name="size", value=f"{source.width}×{source.height}"),
        Fact(name="pictures", value=f"{source.num_frames}, {rate}"),
        Fact(name="length", value=seconds_text(source.seconds)),
        Fact(name="besides", value=", ".join(source.others) or "nothing"),
    ]
    if source.chapters:
        rows.append(Fact(name="chapters", value=str(source.chapters)))
    if request is not None:
        size = f"{source.width * request.scale}×{source.height * request.scale}"
        rows.insert(1, Fact(name="becomes", value=f"{size}, by {method_title(request.method)}", strong=True))
    return {"title": source.name, "note": f"{source.container}, {source.codec}", "rows": rows, "notes": []}


def forecast_of(found: Forecast) -> Message:
    """A forecast in one sentence; a warning where the disk has no room."""
    words = (
        f"All {found.num_frames} pictures at {found.width}×{found.height} will take about "
        f"{seconds_text(found.seconds)}, {size_text(found.output_bytes)} on the disk, and "
        f"{size_text(found.memory_bytes)} of memory at a time."
    )
    if 2 * found.output_bytes > found.free_bytes:
        return message.warn(f"{words} Only {size_text(found.free_bytes)} are left on the disk: make room first.")
    return message.quiet(words)


def status_of(
    enlargement: Enlargement, state: EnlargementState, progress: EnlargementProgress, *, waits: bool, at_work: bool
) -> Message:
    """The message over the pictures."""
    latest = progress.latest
    if waits:
        return message.quiet("It begins when it is its turn in the queue.")
    if at_work and state in ("complete", "stopped"):
        measured = progress.measured
        if measured is None:
            return message.quiet("Measuring begins.")
        words = f"It is there. Measured: {measured.done} of {measured.num_frames} pictures"
        left = f", {seconds_text(measured.eta_seconds)} left."
        return {**message.quiet(words + left), "share": measured.done / max(1, measured.num_frames)}
    if state == "running":
        if latest is None:
            return message.quiet("It begins.")
        words = (
            f"{latest.done} of {latest.num_frames} pictures, {latest.frames_per_second:.1f} a second, "
            f"{seconds_text(latest.eta_seconds)} left. Clips asked for meanwhile wait."
        )
        return {**message.quiet(words), "share": latest.done / max(1, latest.num_frames)}
    if state == "failed":
        return message.of_error(from_json(enlargement.error or {"message": "It failed."}))
    if state == "waiting":
        return message.warn("Not begun. Press Go on.")
    if state == "stopped":
        made = "The part is there; press Go on for all of it, and the part is not made again."
        kept = "What was made is kept: press Go on."
        return message.quiet(made) if EXCERPT in enlargement.outputs else message.warn(f"Stopped. {kept}")
    return message.good(f"Done in {seconds_text(enlargement.seconds)}.")


_HINTS = {
    "psnr": "Peak signal-to-noise ratio against the original, over all pixels; more is nearer",
    "ssim": "Structural similarity to the original; 1 is equal",
    "ms_ssim": "The same at five scales; 1 is equal",
    "vmaf": "How viewers would judge it beside the original, 0 to 100",
    "vmaf_neg": "VMAF without credit for sharpening",
    "shrink_back": "PSNR of the result, shrunk again, against the clip that was given",
    "flicker": "Change from picture to picture, as a ratio; 1 adds none, and blur has less",
    "warping_error": "Change along the original's motion, as a ratio to its own; 1 adds none",
    "colour_error": "How far the mean colour has drifted",
}
"""What a figure says, in a line; the definitions are those of `studio.metrics`."""
_FACTS = ("psnr", "vmaf")
"""Said under a picture's title."""


def shown_measurement(enlargement: Enlargement) -> tuple[str, Measurement] | None:
    """The file that was measured, the whole rather than a part, and what came of it."""
    for name in (VIDEO, EXCERPT):
        if name in enlargement.measurements:
            return name, enlargement.measurements[name]
    return None


def columns_of(measured: Measurement) -> list[FigureColumn]:
    return [FigureColumn(title=figure_title(name, measured), hint=_HINTS[name]) for name in measured_names(measured)]


def cells_of(measured: Measurement, whose: str) -> list[str]:
    figures = measured.figures.get(whose, {})
    return [figure_text(name, figures.get(name)) for name in measured_names(measured)]


def figures_of(enlargement: Enlargement) -> FigureTable:
    """The value of the table under the player; empty until something was measured."""
    found = shown_measurement(enlargement)
    if found is None:
        return {}
    name, measured = found
    against = f" against {enlargement.original.path.name}" if measured.against_original and enlargement.original else ""
    what = "The part" if name == EXCERPT else "All of it"
    if measured.error is not None:
        notes = [f"It could not be measured: {from_json(measured.error)}"]
    else:
        notes = list(measured.lacking.values())
        if not measured.against_original:
            notes.append("With its large original, if there is one, nearness to it is measured as well.")
    rows = [
        FigureRow(
            key=whose,
            shape=shape,
            title=whose_title(whose, enlargement),
            state="complete",
            marks=[],
            cells=cells_of(measured, whose),
            note="",
            may_be_picked=False,
        )
        for shape, whose in enumerate((MADE, BICUBIC))
        if whose in measured.figures
    ]
    return {
        "title": "Figures",
        "hint": f"{what}: {measured.num_frames} pictures, as they lie in the file{against}.",
        "columns": columns_of(measured),
        "groups": [{"title": "", "line": "", "rows": rows}],
        "notes": notes,
    }


def player_facts(measured: Measurement | None, whose: str) -> list[str]:
    """Short words under a picture's title; none where there was no original."""
    figures = {} if measured is None else measured.figures.get(whose, {})
    return [
        f"{FIGURES[name].title} {figure_text(name, figures[name])} {FIGURES[name].unit}".strip()
        for name in _FACTS
        if name in figures
    ]
