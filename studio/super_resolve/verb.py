"""What super-resolution is called by: begin, forecast, enlarge.

Knows what must be so before anything is made. Refuses to know how it is made (`walk`), and loads nothing before it is.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import studio
from studio.clips.film import Film, FilmInfo
from studio.clips.reference import FileReference, check_unchanged
from studio.errors import DiskFull, DoesNotFit, EnlargementError, RequestError, from_json
from studio.events import EnlargementEvent, EnlargementFinished, Stop, never
from studio.machine import hardware, weights
from studio.machine.placement import verdict
from studio.preset import EnlargerPreset
from studio.records.enlargements import EXCERPT, ORIGINAL_OF, VIDEO, Enlargement, EnlargementStore, SourceRecord
from studio.records.runs import RunStore
from studio.requests.super_resolution import SuperResolutionRequest, check_size, enlarger_of
from studio.requests.work import EnlargeClip
from studio.storage import MORE_ROOM
from studio.super_resolve.methods import network_of

FORECAST_SECONDS = 300.0
"""After which a forecast is given up."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What enlarging a clip will take, measured on its first pictures."""

    num_frames: int
    height: int
    width: int
    """Of an enlarged picture."""
    seconds: float
    output_bytes: int
    """Of the video; while it is made, its parts take as much again."""
    memory_bytes: int
    """Held at a time, whatever the length."""
    free_bytes: int
    """On the disk."""

    def check_room(self, folder: Path) -> None:
        """Raises DiskFull where the disk has no room for it."""
        if 2 * self.output_bytes > self.free_bytes:
            raise DiskFull(
                f"Enlarging takes about {2 * self.output_bytes / 1e6:,.0f} MB, and {self.free_bytes / 1e6:,.0f} MB are "
                "left on the disk.",
                field=str(folder),
                value=self.free_bytes,
                way_out=MORE_ROOM,
            )


def super_resolve(
    request: SuperResolutionRequest,
    *,
    store: RunStore,
    owner: str = "local",
    stop: Stop = never,
    original: FileReference | None = None,
) -> Generator[EnlargementEvent]:
    """Enlarge a clip, saying everything that happens.

    Args:
        request: Which clip, and how.
        store: Runs' folder; enlargements lie beside the runs.
        owner: Whose it is.
        stop: Asked after every picture. "cancel" keeps the parts that are done, "keep" also makes a video of them.
        original: A larger clip that this one came from, to hold the result against.

    Yields:
        EnlargementStarted first and EnlargementFinished last.

    Raises:
        StudioError: the clip is refused or has changed, or memory or disk ran out.
    """
    enlargement = begin(request, store=store, owner=owner, original=original)
    yield from enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner=owner, stop=stop)


def begin(
    request: SuperResolutionRequest,
    *,
    store: RunStore,
    owner: str = "local",
    original: FileReference | None = None,
) -> Enlargement:
    """Write an enlargement down, for `enlarge` to make. Reads the clip's head, and the original's.

    Raises:
        ClipRefused: the clip is none that is read.
        RequestError: it is gone or has changed, or would become too large; or the original does not fit.
        DiskFull: no room.
    """
    source = look_at(request)
    network_of(request, store.folder)
    if original is not None:
        check_original(original, request, source)
    return EnlargementStore(store.folder).begin(
        request, source=source, owner=owner, environment=_environment(), original=original
    )


def hold_against(
    enlargement_id: str, original: FileReference | None, *, store: RunStore, owner: str | None = None
) -> Enlargement:
    """Let an enlargement that was written down be held against an original, another, or none.

    What was measured against the one before is forgotten: `enlarge` measures anew, and makes nothing twice.

    Raises:
        EnlargementError: there is none, or it is being made.
        StudioError: the original is none that is read, or does not fit.
    """
    enlargements = EnlargementStore(store.folder)
    enlargement = enlargements.seen_by(owner, enlargement_id)
    if enlargement.original == original:
        return enlargement
    if original is not None:
        check_original(original, enlargement.request, enlargement.source)
    lock = enlargements.lock(enlargement_id)
    if not lock.try_acquire():
        raise EnlargementError(
            f"Enlargement {enlargement_id} is being made.",
            field="enlargement",
            value=enlargement_id,
            way_out="Give the original when it is done.",
        )
    try:
        outputs = {name: count for name, count in enlargement.outputs.items() if name not in ORIGINAL_OF.values()}
        enlargement = replace(enlargement, original=original, outputs=outputs, measurements={})
        enlargements.write(enlargement)
    finally:
        lock.release()
    return enlargement


def check_original(original: FileReference, request: SuperResolutionRequest, source: SourceRecord) -> None:
    """Refuse an original that an enlargement cannot be held against, picture by picture.

    Raises:
        ClipRefused: it is none that is read.
        RequestError: it is gone or has changed, or has another size or number of pictures than what is made.
    """
    check_unchanged(original, field="original")
    with Film(original.path) as film:
        found = film.info.clip
    if found.num_frames != source.num_frames:
        raise RequestError(
            f"The original has {found.num_frames} pictures, and {source.name} has {source.num_frames}.",
            field="original",
            value=found.num_frames,
            way_out="Give the clip that the small one was made from, both cut to the same pictures.",
        )
    size = (found.width, found.height)
    if size == (source.width * request.scale, source.height * request.scale):
        return
    fitting = next((n for n in (2, 4) if size == (source.width * n, source.height * n)), None)
    raise RequestError(
        f"The original has {found.width}×{found.height}, and {source.name} becomes "
        f"{source.width * request.scale}×{source.height * request.scale} at {request.scale}×.",
        field="original",
        value=f"{found.width}×{found.height}",
        way_out=f"Set scale to {fitting}." if fitting else "Give one of that very size: scale or crop it first.",
    )


def look_at(request: SuperResolutionRequest) -> SourceRecord:
    """What is known of the clip that is to be enlarged, from its head and its packets.

    Raises:
        StudioError: as `begin`.
    """
    check_unchanged(request.source, field="source")
    _check_method(request)
    with Film(request.source.path) as film:
        info = film.info
    check_size(request, height=info.clip.height, width=info.clip.width)
    return _source_record(request, info)


def forecast(request: SuperResolutionRequest, *, store: RunStore, here: bool = False) -> Forecast:
    """What enlarging will take, measured on the clip's first pictures; nothing is kept.

    Args:
        here: Whether a model may be loaded in this process; else one is loaded in a process of its own, which is gone
            afterwards.

    Raises:
        StudioError: as `begin` would.
    """
    check_unchanged(request.source, field="source")
    network_of(request, store.folder)
    if _check_method(request) is not None and not here:
        return _forecast_elsewhere(request, store)
    from studio.super_resolve.walk import measured

    return measured(request, store.folder)


def _check_method(request: SuperResolutionRequest) -> EnlargerPreset | None:
    """The model that is asked for, which is here and runs here; None where none is needed. Raises StudioError where it
    is not, or does not."""
    preset = enlarger_of(request)
    if preset is None:
        return None
    weights.folder_of(preset)
    judged = verdict(preset, hardware.measure())
    if not judged.fits:
        raise DoesNotFit(
            f"{preset.title} does not run here. {judged.why}",
            field="method",
            value=preset.name,
            way_out="Choose another method.",
        )
    return preset


def _forecast_elsewhere(request: SuperResolutionRequest, store: RunStore) -> Forecast:
    """In a process of its own: models and what runs them are not to stay with whoever only asks."""
    fields = request.model_dump(mode="json", exclude={"source"})
    fields = {name: value for name, value in fields.items() if value is not None}
    flags = [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value).lower())]
    command = [sys.executable, "-m", "studio", "upscale", str(request.source.path), *flags, "--forecast", "--json"]
    try:
        done = subprocess.run(
            [*command, "--runs", str(store.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=FORECAST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnlargementError(
            f"No forecast: the first pictures alone took more than {FORECAST_SECONDS:.0f} s.",
            field="method",
            value=request.method,
            way_out="Enlarge a second of the clip first, or choose another method.",
        ) from error
    record: dict[str, Any] = (
        json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {"message": "It broke off."}
    )
    if done.returncode:
        raise from_json(record)
    return Forecast(**record)


def enlarge(work: EnlargeClip, *, store: RunStore, owner: str, stop: Stop) -> Generator[EnlargementEvent]:
    """Make an enlargement that was written down, or go on with one; then measure it.

    One that is complete and not measured, since the work was stopped or an original came later, is only measured.

    Raises:
        EnlargementError: there is none, it is complete and measured, or somebody is making it.
        StudioError: as `super_resolve`; the record says so too.
    """
    store_ = EnlargementStore(store.folder)
    enlargement = store_.seen_by(None if owner == "local" else owner, work.enlargement_id)
    if enlargement.state == "complete" and VIDEO in enlargement.measurements:
        raise EnlargementError(
            f"Enlargement {enlargement.id} is complete.",
            field="enlargement",
            value=enlargement.id,
            way_out="Enlarge the clip anew, with other settings.",
        )
    from studio.super_resolve.measuring import measure
    from studio.super_resolve.walk import first_picture_of

    finished = EnlargementFinished(
        enlargement_id=enlargement.id, path=VIDEO, partial=False, seconds=enlargement.seconds
    )
    if enlargement.state != "complete":
        finished = yield from _made(_without_excerpt(enlargement) if work.excerpt else enlargement, work, store_, stop)
    if finished is None:
        return
    if stop() != "keep":  # which wants what is there, now
        made = store_.get(enlargement.id)
        first = first_picture_of(None if finished.path == VIDEO else work.excerpt, made.source.fps)
        measured = yield from measure(made, store_, name=finished.path, first=first, stop=stop)
        if not measured:
            return
    yield finished


def _made(
    enlargement: Enlargement, work: EnlargeClip, store: EnlargementStore, stop: Stop
) -> Generator[EnlargementEvent, None, EnlargementFinished | None]:
    """The walk, all but its last word, which is given back: there is more to do before the end."""
    from studio.super_resolve.walk import walk

    finished = None
    with closing(walk(replace(enlargement, error=None), store, excerpt=work.excerpt, stop=stop)) as events:
        for event in events:
            if isinstance(event, EnlargementFinished):
                finished = event
            else:
                yield event
    return finished


def _without_excerpt(enlargement: Enlargement) -> Enlargement:
    """Another part is tried: what was known of the one before is not so of this one."""
    outputs = {name: count for name, count in enlargement.outputs.items() if name != ORIGINAL_OF[EXCERPT]}
    measurements = {name: each for name, each in enlargement.measurements.items() if name != EXCERPT}
    return replace(enlargement, outputs=outputs, measurements=measurements)


def _source_record(request: SuperResolutionRequest, info: FilmInfo) -> SourceRecord:
    return SourceRecord(
        name=request.source.path.name,
        container=info.clip.container,
        codec=info.clip.codec,
        width=info.clip.width,
        height=info.clip.height,
        fps=info.clip.fps,
        constant_rate=info.clip.constant_rate,
        num_frames=info.clip.num_frames,
        seconds=info.clip.seconds,
        others=tuple(f"{other.kind}: {other.codec}" for other in info.others),
        chapters=info.chapters,
    )


def _environment() -> dict[str, str]:
    import cv2

    return {"dailies": studio.__version__, "python": platform.python_version(), "opencv": cv2.__version__}
