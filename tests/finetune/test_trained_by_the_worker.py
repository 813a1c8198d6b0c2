"""Trainings by the worker: no page is needed, a stop keeps what was learnt, a failure is written down, clips follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from support.patience import until
from support.small_training import asked

from studio.events import (
    CheckpointWritten,
    TrainingFinished,
    TrainingForecast,
    TrainingStarted,
    TrainingStep,
)
from studio.finetune import begin
from studio.jobs import Busy, Job, JobQueue
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.records.versions import Version, VersionStore
from studio.requests.generation import request_for
from studio.requests.training import TrainingClip
from studio.requests.work import TrainVersion

Clips = tuple[TrainingClip, ...]
Kind = TypeVar("Kind")


@pytest.fixture
def queue(store: RunStore) -> Iterator[JobQueue]:
    with JobQueue(store=store, in_process=True) as queue:
        yield queue


@pytest.fixture
def versions(store: RunStore) -> VersionStore:
    return VersionStore(store.folder)


def events_of(versions: VersionStore, version: Version, kind: type[Kind]) -> list[Kind]:
    """What a training has said of one kind."""
    return [event for _, event in versions.events(version.id) if isinstance(event, kind)]


def trained_by(queue: JobQueue, version: Version, *, predict: bool = False) -> Job:
    return queue.submit(TrainVersion(version_id=version.id, predict=predict))


def ended(queue: JobQueue, job: Job) -> Job:
    return until(lambda: now if (now := queue.get(job.id)).final else None)


def test_the_worker_trains_to_the_end_and_makes_the_clips_asked_for_meanwhile(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    version = begin(asked(clips[:2], objective="latent"), store=store)
    training = trained_by(queue, version)
    until(lambda: queue.worker_state() == Busy(job=training.id, kind="training"))
    request = request_for(find_preset("wan"), prompt="a square", seed=1, height=32, width=32, num_frames=5)
    done = ended(queue, queue.submit(request))
    assert done.state == "complete", done.error
    assert queue.get(training.id).state == "complete"
    trained = versions.get(version.id)
    assert (trained.state, trained.step) == ("complete", 4), "the training came first"
    assert versions.usable(version.id)
    assert events_of(versions, version, TrainingFinished)
    # What it learnt can be asked for at once.
    done = ended(queue, queue.submit(request.model_copy(update={"adapter": version.id})))
    assert done.state == "complete", done.error


def test_a_stop_keeps_what_was_learnt_and_training_goes_on_from_there(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    request = asked(clips[:2], objective="latent", max_train_steps=5000, checkpointing_steps=5000)
    version = begin(request, store=store)
    steps = []
    for round_ in (1, 2):
        before = len(events_of(versions, version, TrainingStep))
        job = trained_by(queue, version)
        until(lambda before=before: len(events_of(versions, version, TrainingStep)) > before)
        queue.cancel(job.id)
        assert ended(queue, job).state == "cancelled"
        stopped = versions.get(version.id)
        steps.append(stopped.step)
        assert versions.usable(version.id)
        assert (stopped.state, versions.state_of(stopped)) == ("stopped", "stopped")
        assert stopped.error is None
        assert len(events_of(versions, version, TrainingStarted)) == round_
    assert 0 < steps[0] < steps[1] < 5000
    assert [event.first_step for event in events_of(versions, version, TrainingStarted)] == [0, steps[0]]
    # No step was taken twice, and none left out.
    assert [event.step for event in events_of(versions, version, TrainingStep)] == list(range(1, steps[1] + 1))


def test_what_cannot_be_trained_says_so_in_its_record_and_the_worker_goes_on_to_the_next(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips, tmp_path: Path
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no clip", encoding="utf-8")
    hopeless = begin(asked((TrainingClip(path=text, caption="nothing"),)), store=store)
    fine = begin(asked(clips[:1], objective="latent", max_train_steps=1), store=store)
    job = ended(queue, trained_by(queue, hopeless))
    assert job.state == "failed"
    failed = versions.get(hopeless.id)
    assert (failed.state, failed.error) == ("failed", job.error)
    assert failed.error is not None
    assert failed.error["field"] == "clips"
    assert "text.mp4: it is text" in failed.error["message"]
    assert not versions.usable(hopeless.id)
    assert ended(queue, trained_by(queue, fine)).state == "complete"
    # A version that is gone by the time the worker comes to it harms nobody either.
    versions.delete(hopeless.id)
    assert ended(queue, trained_by(queue, hopeless)).state == "failed"
    assert [version.id for version in versions.list()] == [fine.id]


@pytest.mark.thorough
def test_a_training_whose_worker_is_killed_goes_on_when_it_is_tried_again(
    versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    request = asked(clips[:1], objective="latent", max_train_steps=4000, checkpointing_steps=1)
    version = begin(request, store=store)
    with JobQueue(store=store) as queue:
        job = trained_by(queue, version)
        until(lambda: events_of(versions, version, CheckpointWritten))
    assert versions.state_of(versions.get(version.id)) == "stopped"
    with JobQueue(store=store) as queue:
        assert queue.get(job.id).state == "interrupted"
        again = queue.retry(job.id)
        until(lambda: len(events_of(versions, version, TrainingStarted)) == 2)
        queue.cancel(again.id)
        ended(queue, again)
    assert events_of(versions, version, TrainingStarted)[1].first_step >= 1


def test_the_worker_predicts_and_leaves_the_version_to_be_gone_on_with(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    version = begin(asked(clips[:1], max_train_steps=1, sample_prompts=("a square",)), store=store)
    assert ended(queue, trained_by(queue, version, predict=True)).state == "complete"
    assert versions.get(version.id).state == "stopped"
    (predicted,) = events_of(versions, version, TrainingForecast)
    assert predicted.full_decoder_bytes >= predicted.decoder_bytes > 0
    assert events_of(versions, version, TrainingStep) == []
    assert ended(queue, trained_by(queue, version)).state == "complete"
    assert versions.get(version.id).state == "complete"
