"""What an enlargement looks like: how far it is, what it makes, its figures, and its pictures beside bicubic ones.

Knows records and events of enlargements. Refuses to know the buttons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from studio.errors import RequestError, from_json
from studio.events import EnlargementStarted, Event, FramesEnlarged, FramesMeasured, Notice
from studio.records.enlargements import (
    BICUBIC,
    EXCERPT,
    MADE,
    ORIGINAL_OF,
    TWIN_OF,
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
from studio.ui.components.synced_player import MOST_CLIPS
from studio.ui.components.values import Fact, Facts, FigureColumn, FigureRow, FigureTable, Message
from studio.ui.wording import seconds_text, size_text

ENDINGS = [".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".ts", ".mpg", ".ogv"]
SCALES = [("2×", "2"), ("4×", "4")]
MOST_SECONDS_OF_A_VISITOR = 30.0
"""Of a clip, where strangers share the machine."""


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


HINTS = {
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


def figures_of(
    enlargement: Enlargement,
    others: Sequence[Enlargement] = (),
    notes: Mapping[str, str] = MappingProxyType({}),
    picked: Sequence[str] = (),
) -> FigureTable:
    """The value of the table under the player; empty until something was measured.

    Args:
        enlargement: The one that is shown.
        others: It and those beside it; none where it stands alone.
        notes: What is being done with one, or went wrong, by its id.
        picked: Whose pictures are in the player, by their ids.
    """
    rows = list(others) or [enlargement]
    name = VIDEO if any(VIDEO in each.measurements for each in rows) else EXCERPT
    measured = {each.id: each.measurements[name] for each in rows if name in each.measurements}
    if not measured:
        return {}
    shown = measured.get(enlargement.id) or next(iter(measured.values()))
    figures = [figure for figure in FIGURES if any(figure in measured_names(each) for each in measured.values())]
    drawn: list[FigureRow] = [
        {
            **_row(each, MADE, shape, measured.get(each.id), figures),
            "note": notes.get(each.id, ""),
            "may_be_picked": len(rows) > 1 and may_be_played(each, enlargement),
        }
        for shape, each in enumerate(rows)
    ]
    if all(each.request.method != BICUBIC for each in rows) and BICUBIC in shown.figures:
        drawn.append(_row(enlargement, BICUBIC, len(rows), shown, figures))
    return {
        "title": "Figures",
        "hint": _hint(enlargement, name, shown),
        "columns": [FigureColumn(title="Seconds", hint="Spent on it"), *_columns(figures, shown)],
        "groups": [{"title": "", "line": "", "rows": drawn}],
        "notes": _notes(shown),
        "picked": list(picked),
        "most": most_picked(enlargement),
    }


def may_be_played(each: Enlargement, shown: Enlargement) -> bool:
    """Whether its pictures can stand beside those that are shown."""
    twin = TWIN_OF[VIDEO] in shown.outputs
    return twin and VIDEO in each.outputs and each.outputs[VIDEO] == shown.outputs[VIDEO]


def most_picked(enlargement: Enlargement) -> int:
    """Besides bicubic, and the original where there is one."""
    return MOST_CLIPS - 1 - (ORIGINAL_OF[VIDEO] in enlargement.outputs)


def _row(
    enlargement: Enlargement, whose: str, shape: int, measured: Measurement | None, figures: list[str]
) -> FigureRow:
    values = {} if measured is None else measured.figures.get(whose, {})
    seconds = seconds_text(enlargement.seconds) if whose == MADE and measured else "–"
    return FigureRow(
        key=enlargement.id if whose == MADE else whose,
        shape=shape,
        title=whose_title(whose, enlargement),
        state="complete" if measured else "waiting",
        marks=[],
        cells=[seconds, *(figure_text(name, values.get(name)) for name in figures)] if measured else [],
        note="",
        may_be_picked=False,
    )


def _columns(figures: list[str], measured: Measurement) -> list[FigureColumn]:
    return [FigureColumn(title=figure_title(name, measured), hint=HINTS[name]) for name in figures]


def _hint(enlargement: Enlargement, name: str, measured: Measurement) -> str:
    against = f" against {enlargement.original.path.name}" if measured.against_original and enlargement.original else ""
    what = "The part" if name == EXCERPT else "All of it"
    return f"{what}: {measured.num_frames} pictures, as they lie in the file{against}."


def _notes(measured: Measurement) -> list[str]:
    if measured.error is not None:
        return [f"It could not be measured: {from_json(measured.error)}"]
    if measured.against_original:
        return list(measured.lacking.values())
    return ["With its large original, if there is one, nearness to it is measured as well."]


def player_facts(measured: Measurement | None, whose: str) -> list[str]:
    """Short words under a picture's title; none where there was no original."""
    figures = {} if measured is None else measured.figures.get(whose, {})
    return [
        f"{FIGURES[name].title} {figure_text(name, figures[name])} {FIGURES[name].unit}".strip()
        for name in _FACTS
        if name in figures
    ]


def refuse_too_long(source: SourceRecord) -> None:
    """Where strangers share the machine. Raises RequestError."""
    if source.seconds > MOST_SECONDS_OF_A_VISITOR:
        raise RequestError(
            f"{source.name} runs {source.seconds:.3g} s; on this shared page {MOST_SECONDS_OF_A_VISITOR:g} s are "
            "enlarged.",
            field="source",
            value=source.seconds,
            way_out="Cut it shorter, or run the studio on a machine of your own.",
        )
