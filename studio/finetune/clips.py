"""Clips from anywhere become training samples: read, checked, trimmed, cut to the shape, resized, split.

A clip gives as many samples as it is long, without overlap; what is left over at its end is not used. Whole clips are
held out where there are enough of them, else the ends of clips. What cannot be used is named and left out.

Shapes: frames are uint8, (F, H, W, 3). Knows files and frames. Refuses to know models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from studio.clips.limits import ClipLimits, identify
from studio.clips.read import read_clip
from studio.clips.reader_process import Refusal
from studio.clips.uploads import checksum_of
from studio.errors import ClipError, RequestError
from studio.records.versions import ClipRecord
from studio.requests.training import FinetuneRequest, TrainingClip

LIMITS = ClipLimits(
    seconds=3600.0,
    stored_frames=250_000,
    frames=1500,
    cut=True,
    stored_side=8192,
    stored_area=36_000_000,
    memory_bytes=2_000_000_000,
    cpu_seconds=120,
    wall_seconds=300.0,
)
"""A training clip may be long, of which the beginning is read, and as large as 8K: it is scaled down as it is read."""
ENOUGH_TO_HOLD_OUT_WHOLE = 4
"""From so many usable clips on, whole clips are held out: the ends of a clip look too much like its middle."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A stretch of a clip, as a model is trained on it."""

    clip: int
    """Which of the request's clips."""
    first_frame: int
    """Where it begins, at the request's frame rate."""
    frames: np.ndarray
    """uint8, (F, H, W, 3)."""
    caption: str
    held_out: bool


def samples_of(request: FinetuneRequest) -> tuple[list[Sample], tuple[ClipRecord, ...], tuple[str, ...]]:
    """Everything that the request's clips give, what is known of each clip, and notices.

    Raises:
        RequestError: nothing usable is left to train on; every reason is named.
    """
    stretches: list[list[np.ndarray]] = []
    records: list[ClipRecord] = []
    notices: list[str] = []
    seen: dict[str, str] = {}
    for clip in request.clips:
        cut, record, own_notices = _examined(clip, request, seen)
        stretches.append(cut)
        records.append(record)
        notices += own_notices
    reasons = " ".join(f"{record.name}: {record.left_out}" for record in records if record.left_out)
    if not any(stretches):
        raise RequestError(
            f"None of the {len(records)} clips can be used. {reasons}",
            field="clips",
            way_out="Give MP4 or WebM clips of at least two frames that play in a browser.",
        )
    held = _held_out([len(each) for each in stretches], request)
    if len(held) == sum(len(each) for each in stretches):
        raise RequestError(
            f"Every usable clip is marked as held out, so that nothing is left to train on. {reasons}".strip(),
            field="clips",
            way_out="Leave at least one usable clip unmarked.",
        )
    samples = [
        Sample(
            clip=clip,
            first_frame=number * request.num_frames,
            frames=frames,
            caption=request.clips[clip].caption,
            held_out=(clip, number) in held,
        )
        for clip, each in enumerate(stretches)
        for number, frames in enumerate(each)
    ]
    if not held:
        why = "There is only one sample, so that nothing" if len(samples) == 1 else "Nothing"
        notices.append(f"{why} is held out: scores are of what was trained on.")
    counted = [
        replace(record, held_out=sum(sample.held_out for sample in samples if sample.clip == clip))
        for clip, record in enumerate(records)
    ]
    return samples, tuple(counted), tuple(notices)


def _examined(
    clip: TrainingClip, request: FinetuneRequest, seen: dict[str, str]
) -> tuple[list[np.ndarray], ClipRecord, list[str]]:
    """A clip's stretches, its record, and notices; `seen` holds the names of files by their content."""
    name = clip.path.name
    known = ClipRecord(
        name=name,
        sha256="",
        caption=clip.caption,
        origin=clip.origin,
        licence=clip.licence,
        width=0,
        height=0,
        fps=0.0,
        seconds=0.0,
        samples=0,
        held_out=0,
    )

    def left_out(reason: str) -> tuple[list[np.ndarray], ClipRecord, list[str]]:
        return [], replace(known, left_out=reason), [f"{name} was left out: {reason}"]

    try:
        identify(clip.path, LIMITS)  # before it is read whole: it may be a pipe, or larger than memory
        known = replace(known, sha256=checksum_of(clip.path))
    except Refusal as refusal:
        return left_out(f"it {refusal.message} {refusal.way_out}".strip())
    except OSError as error:
        return left_out(f"it cannot be read: {error.strerror}.")
    if fault := fault_of(request, twin=seen.get(known.sha256)):
        return left_out(fault)
    seen[known.sha256] = name
    try:
        loaded = read_clip(clip.path, limits=LIMITS, fps=request.fps, least=(request.height, request.width))
    except ClipError as error:
        return left_out(str(error))
    info = loaded.info
    known = replace(known, width=info.width, height=info.height, fps=info.fps, seconds=info.seconds)
    if fault := fault_of(request, frames=loaded.clip.num_frames):
        return left_out(fault)
    count = loaded.clip.num_frames // request.num_frames
    frames = shaped(loaded.clip.frames[: count * request.num_frames], request.height, request.width)
    notices = [f"{name}: {notice}" for notice in loaded.notices]
    if min(info.height / request.height, info.width / request.width) < 0.75:
        notices.append(f"{name} is smaller than {request.width}×{request.height} and was enlarged.")
    return list(frames.reshape(count, request.num_frames, *frames.shape[1:])), replace(known, samples=count), notices


class SampleLength(Protocol):
    """What a sample is to be, as far as it decides which clips give one; a request is one, and the page has its own."""

    @property
    def num_frames(self) -> float: ...
    @property
    def fps(self) -> float: ...


def fault_of(sample: SampleLength, *, twin: str | None = None, frames: int | None = None) -> str:
    """Why a clip that can be read gives nothing to learn from, as a sentence that goes on; empty where it does.

    Args:
        sample: What is to be cut from it.
        twin: The name of a clip before it with the same content, if there is one.
        frames: How many it has at the sample's rate; None where that does not matter yet.
    """
    if twin is not None:
        return f"it is the same file as {twin}."
    if frames is not None and frames < sample.num_frames:
        had = f"at {sample.fps:g} frames a second it has {frames} frames"
        return f"{had}, fewer than the {sample.num_frames:g} of a sample."
    return ""


def shaped(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames cut to the shape around their middle and resized; (F, h, w, 3) to (F, height, width, 3)."""
    rows, columns = frames.shape[1:3]
    scale = max(height / rows, width / columns)
    keep_rows, keep_columns = min(rows, round(height / scale)), min(columns, round(width / scale))
    top, left = (rows - keep_rows) // 2, (columns - keep_columns) // 2
    cut = frames[:, top : top + keep_rows, left : left + keep_columns]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=way) for frame in cut])


def _held_out(counts: list[int], request: FinetuneRequest) -> set[tuple[int, int]]:
    """Which stretches are held out, as (clip, number). What a person has said of a usable clip is followed."""
    usable = [clip for clip, count in enumerate(counts) if count]
    marked = [clip for clip in usable if request.clips[clip].held_out]
    if marked:
        return {(clip, number) for clip in marked for number in range(counts[clip])}
    share, total = request.validation_share, sum(counts)
    if total < 2 or share == 0:
        return set()
    free = [clip for clip in usable if request.clips[clip].held_out is None]
    if len(usable) >= ENOUGH_TO_HOLD_OUT_WHOLE:
        chosen = free[:: -max(1, round(1 / share))][: max(1, round(share * len(usable)))]
        return {(clip, number) for clip in chosen for number in range(counts[clip])}
    # From the ends of the longest clips: the rest of such a clip goes on being trained on.
    left = {clip: counts[clip] for clip in free}
    held: set[tuple[int, int]] = set()
    for _ in range(min(max(1, round(share * total)), sum(left.values()))):
        clip = max(left, key=lambda each: left[each])
        left[clip] -= 1
        held.add((clip, left[clip]))
    return held


def poster(sample: Sample) -> np.ndarray:
    """The frame that stands for a sample."""
    return sample.frames[len(sample.frames) // 2]


def caption_of(path: Path, settings: dict[str, Any] | None) -> str:
    """A first caption for a clip, from what its file says of itself or from its name; for a person to edit."""
    settings = settings or {}
    request = settings.get("request")  # a stranger's, perhaps: it may be anything
    words = " ".join(path.stem.replace("_", " ").replace("-", " ").split())
    for caption in (request.get("prompt") if isinstance(request, dict) else None, settings.get("caption"), words):
        if isinstance(caption, str) and caption.strip():
            return caption
    return "a clip"
