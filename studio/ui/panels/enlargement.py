"""What an enlargement looks like: how far it is, what it makes, and its pictures beside bicubic ones.

Knows records and events of enlargements. Refuses to know the buttons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from studio.errors import from_json
from studio.events import Event, FramesEnlarged, Notice
from studio.records.enlargements import EXCERPT, Enlargement, EnlargementState, SourceRecord
from studio.requests.super_resolution import SuperResolutionRequest, method_title
from studio.super_resolve import Forecast
from studio.ui.components import message
from studio.ui.components.values import Fact, Facts, Message
from studio.ui.wording import seconds_text, size_text


@dataclass(frozen=True, kw_only=True)
class EnlargementProgress:
    """What the log has said so far."""

    enlargement: str = ""
    read: int = 0
    """Lines."""
    latest: FramesEnlarged | None = None
    notices: tuple[str, ...] = ()

    def with_events(self, numbered: list[tuple[int, Event]]) -> EnlargementProgress:
        progress = self
        for number, event in numbered:
            progress = replace(progress, read=number)
            if isinstance(event, FramesEnlarged):
                progress = replace(progress, latest=event)
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
    enlargement: Enlargement, state: EnlargementState, progress: EnlargementProgress, *, waits: bool
) -> Message:
    """The message over the pictures."""
    latest = progress.latest
    if waits:
        return message.quiet("It begins when it is its turn in the queue.")
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
