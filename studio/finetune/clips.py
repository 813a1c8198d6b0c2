"""Clips from anywhere become training samples: read, checked, trimmed, cut to the shape, resized, split.

A clip gives as many samples as it is long, without overlap; what is left over at its end is not used. Whole clips are
held out where there are enough of them, else the ends of clips. What cannot be used is named and left out.

Shapes: frames are uint8, (F, H, W, 3). Knows files and frames. Refuses to know models.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from studio.clips.read import read_clip
from studio.clips.reader_process import ClipLimits, Refusal, identify
from studio.errors import ClipError, RequestError
from studio.records.versions import FOLDER as VERSIONS
from studio.records.versions import ClipRecord
from studio.requests.training import FinetuneRequest, TrainingClip
from studio.storage import disk_trouble, sha256_of, whole

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
KEPT = ".training-clips"
"""Where clips that came by the page stay, within the runs folder."""
KEPT_SECONDS = 24 * 3600.0
"""For how long they stay without a version that refers to them."""


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
        found, record, said = _examined(clip, request, seen)
        stretches.append(found)
        records.append(record)
        notices += said
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
        known = replace(known, sha256=sha256_of(clip.path))
    except Refusal as refusal:
        return left_out(f"it {refusal.message} {refusal.way_out}".strip())
    except OSError as error:
        return left_out(f"it cannot be read: {error.strerror}.")
    if known.sha256 in seen:
        return left_out(f"it is the same file as {seen[known.sha256]}.")
    seen[known.sha256] = name
    try:
        loaded = read_clip(clip.path, limits=LIMITS, fps=request.fps, least=(request.height, request.width))
    except ClipError as error:
        return left_out(str(error))
    info = loaded.info
    known = replace(known, width=info.width, height=info.height, fps=info.fps, seconds=info.seconds)
    count = loaded.clip.num_frames // request.num_frames
    if not count:
        return left_out(
            f"at {request.fps:g} frames a second it has {loaded.clip.num_frames} frames, fewer than the "
            f"{request.num_frames} of a sample."
        )
    frames = shaped(loaded.clip.frames[: count * request.num_frames], request.height, request.width)
    said = [f"{name}: {notice}" for notice in loaded.notices]
    if min(info.height / request.height, info.width / request.width) < 0.75:
        said.append(f"{name} is smaller than {request.width}×{request.height} and was enlarged.")
    return list(frames.reshape(count, request.num_frames, *frames.shape[1:])), replace(known, samples=count), said


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


def caption_of(path: Path) -> str:
    """A first caption for a clip, from what its file says of itself or from its name; for a person to edit."""
    from studio.clips.read import read_settings

    try:
        settings = read_settings(path) or {}
    except ClipError:
        settings = {}
    request = settings.get("request")  # a stranger's, perhaps: it may be anything
    words = " ".join(path.stem.replace("_", " ").replace("-", " ").split())
    for said in (request.get("prompt") if isinstance(request, dict) else None, settings.get("caption"), words):
        if isinstance(said, str) and said.strip():
            return said
    return "a clip"


def kept(path: Path, folder: Path) -> Path:
    """A copy that stays: `<folder>/.training-clips/<sha256>/<name>`. The same content is kept once, as it came first.

    Args:
        path: The file, which may go away afterwards.
        folder: The runs folder.

    Raises:
        ClipError: the file cannot be read.
        DiskFull: no room; nothing is left behind.
    """
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ClipError(f"{path.name} cannot be read: {error.strerror}.", field="clip", value=path.name) from error
    home = folder / KEPT / digest
    name = _safe_name(path)
    try:
        home.mkdir(parents=True, exist_ok=True)
        known = clip_kept(digest, folder)
        if known is not None:
            os.utime(home)
            return known
        with whole(home / name) as part:
            shutil.copyfile(path, part)
    except OSError as error:
        raise disk_trouble(error, home / name) from error
    return home / name


def clip_kept(digest: str, folder: Path) -> Path | None:
    """The copy of a content in a runs folder; None where there is none, or where that is no SHA-256."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    try:
        names = sorted((folder / KEPT / digest).iterdir())
    except OSError:
        return None
    return next((path for path in names if not path.name.startswith(".")), None)


def sweep(folder: Path) -> None:
    """Remove the copies that no version refers to and that nobody has asked for in `KEPT_SECONDS`."""
    oldest = time.time() - KEPT_SECONDS
    try:
        old = [home for home in (folder / KEPT).iterdir() if home.stat().st_mtime < oldest]
        if not old:
            return
        # As text, for a record that this version of the studio cannot read refers to its clips all the same.
        records = [path.read_text(encoding="utf-8") for path in (folder / VERSIONS).glob("*/version.json")]
    except OSError:
        return  # what cannot be looked at now may be needed
    needed = {digest for record in records for digest in re.findall("[0-9a-f]{64}", record)}
    for home in old:
        if home.name not in needed:
            shutil.rmtree(home, ignore_errors=True)


def _safe_name(path: Path) -> str:
    """A file's name in letters that every system takes, short, and never hidden."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")[:80] or "clip"
    return stem + re.sub(r"[^a-z0-9.]", "", path.suffix.lower())[:8]
