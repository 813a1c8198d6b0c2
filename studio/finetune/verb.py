"""What fine-tuning is called by: begin, train, go on, forecast.

Knows what must be so before a training begins. Refuses to know how it goes (`walk`), and loads nothing before it does.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from studio.errors import RequestError, StudioError, VersionError
from studio.events import FinetuneEvent, Stop, TrainingForecast
from studio.preset import Preset, find_preset
from studio.records.runs import RunStore
from studio.records.versions import Version, VersionStore
from studio.requests.training import FinetuneRequest, check_finetune_request
from studio.requests.work import TrainVersion


def finetune(request: FinetuneRequest, *, store: RunStore) -> Generator[FinetuneEvent]:
    """Train a new version, saying everything that happens.

    Args:
        request: What to learn from, and how.
        store: Runs' folder; versions lie beside the runs.

    Yields:
        TrainingStarted early and TrainingFinished last.

    Raises:
        StudioError: the request does not fit the preset, no clip is usable, memory or disk ran out, the loss became
            NaN. The version keeps its last checkpoint and says what happened.
    """
    from studio.distributed import from_the_first, join

    first = join()[0] == 0
    version_id = from_the_first(begin(request, store=store).id if first else "")
    yield from go_on(version_id, store=store)


def begin(request: FinetuneRequest, *, store: RunStore) -> Version:
    """Write a new version down, for `go_on` to train. Loads nothing.

    Raises:
        StudioError: the request does not fit the preset, or there is no room.
    """
    preset = find_preset(request.preset)
    check_finetune_request(request, preset)
    _check_perceptual(request)
    return VersionStore(store.folder).begin(request, preset_digest=preset.digest)


def _check_perceptual(request: FinetuneRequest) -> None:
    """LPIPS can be had, if it is asked for."""
    if request.perceptual_weight == 0 or request.objective == "latent":
        return
    from studio.metrics.fidelity import LPIPS_LEAST_SIDE, lpips_missing

    missing = lpips_missing()
    if missing is None and min(request.height, request.width) < LPIPS_LEAST_SIDE:
        missing = f"LPIPS needs frames of at least {LPIPS_LEAST_SIDE} pixels."
    if missing is not None:
        raise RequestError(
            missing, field="perceptual_weight", value=request.perceptual_weight, way_out="Set it to 0, or mend that."
        )


def forecast(request: FinetuneRequest) -> TrainingForecast:
    """What a training would take, measured on two steps; nothing is kept.

    Raises:
        StudioError: as `finetune` would, up to its second step.
    """
    with TemporaryDirectory(prefix="forecast-") as scratch:
        store = RunStore(Path(scratch))
        with closing(go_on(begin(request, store=store).id, store=store, predict=True)) as events:
            return next(event for event in events if isinstance(event, TrainingForecast))


def go_on(version_id: str, *, store: RunStore, predict: bool = False) -> Generator[FinetuneEvent]:
    """Train a version that was begun, or go on with one that was stopped, from its last checkpoint.

    Args:
        version_id: Which.
        store: Runs' folder.
        predict: Only say what the steps to come would take, measured on two that are not kept. The version is left
            stopped where it was, with its samples prepared; training it later is as if nothing had happened.

    Raises:
        VersionError: there is none, it is complete, or somebody is training it.
        StudioError: as `finetune` would.
    """
    versions = VersionStore(store.folder)
    version = versions.get(version_id)
    if version.state == "complete":
        raise VersionError(
            f"Version {version_id} is complete.",
            field="version",
            value=version_id,
            way_out="Fine-tune anew, with more steps.",
        )
    try:
        preset = preset_of(version)
    except StudioError as error:  # said in the record too, for the worker that trains has nobody to tell
        versions.write(replace(version, state="failed", error=error.to_json()))
        raise
    from studio.finetune.walk import walk

    yield from walk(preset, version, versions, predict=predict)


def train(work: TrainVersion, *, store: RunStore, owner: str, stop: Stop) -> Generator[FinetuneEvent]:
    """`go_on` as the queue calls it; whatever `stop` says, what was learnt is kept."""
    with closing(go_on(work.version_id, store=store, predict=work.predict)) as events:
        for event in events:
            yield event
            if stop() is not None:
                return


def preset_of(version: Version) -> Preset:
    """The preset that a version was begun with.

    Raises:
        StudioError: there is none by now, or it has changed.
    """
    preset = find_preset(version.request.preset)
    if preset.digest != version.preset_digest:
        raise VersionError(
            f"The preset {preset.name} has changed since version {version.id} was begun.",
            field="version",
            value=version.id,
            way_out="Fine-tune anew.",
        )
    return preset
