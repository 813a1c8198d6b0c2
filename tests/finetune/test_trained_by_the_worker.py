"""Trainings by the worker: no page is needed, a stop keeps what was learnt, a failure is written down, clips follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.patience import until
from support.small_training import asked

from studio.errors import JobError
from studio.finetune import begin
from studio.jobs import JobQueue
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.records.versions import Version, VersionStore
from studio.requests.generation import request_for
from studio.requests.training import TrainingClip

Clips = tuple[TrainingClip, ...]
PATIENCE = 120.0
"""Seconds: the worker imports everything and loads the model first."""
VERB = "studio.generate:generate"


@pytest.fixture
def queue(store: RunStore) -> Iterator[JobQueue]:
    with JobQueue(store=store, in_process=True, verb=VERB) as queue:
        yield queue


@pytest.fixture
def versions(store: RunStore) -> VersionStore:
    return VersionStore(store.folder)


def told(versions: VersionStore, version: Version, kind: str) -> list[dict[str, Any]]:
    """What a training has said of one kind."""
    return [event for event in versions.events(version.id) if event["event"] == kind]


def in_state(versions: VersionStore, version: Version, state: str) -> Version | None:
    now = versions.get(version.id)
    return now if now.state == state else None


def idle(queue: JobQueue) -> bool:
    return queue.waits_to_be_trained() is None and queue.worker_state()["state"] == "ready"


def test_the_worker_trains_to_the_end_and_makes_the_clips_asked_for_meanwhile(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    version = begin(asked(clips[:2], objective="latent"), store=store)
    queue.train(version.id)
    state = until(lambda: now if (now := queue.worker_state())["state"] == "training" else None, PATIENCE)
    assert state["training"] == version.id
    assert queue.waits_to_be_trained() is None, "it waits no more"
    request = request_for(find_preset("wan"), prompt="a square", seed=1, height=32, width=32, num_frames=5)
    job = queue.submit(request)
    done = until(lambda: now if (now := queue.get(job.id)).final else None, PATIENCE)
    assert done.state == "complete", done.error
    trained = versions.get(version.id)
    assert (trained.state, trained.step) == ("complete", 4), "the training came first"
    assert versions.usable(version.id)
    assert told(versions, version, "TrainingFinished")
    until(lambda: idle(queue))
    assert queue.worker_state()["training"] is None
    # What it learnt can be asked for at once.
    tuned = queue.submit(request.model_copy(update={"adapter": version.id}))
    done = until(lambda: now if (now := queue.get(tuned.id)).final else None, PATIENCE)
    assert done.state == "complete", done.error


def test_a_stop_keeps_what_was_learnt_and_training_goes_on_from_there(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    request = asked(clips[:2], objective="latent", max_train_steps=5000, checkpointing_steps=5000)
    version = begin(request, store=store)
    steps = []
    for round_ in (1, 2):
        before = len(told(versions, version, "TrainingStep"))
        queue.train(version.id)
        until(lambda before=before: len(told(versions, version, "TrainingStep")) > before, PATIENCE)
        queue.stop_training()
        stopped = until(lambda: in_state(versions, version, "stopped"), PATIENCE)
        until(lambda: idle(queue))
        steps.append(stopped.step)
        assert versions.usable(version.id)
        assert versions.state_of(stopped) == "stopped"
        assert stopped.error is None
        assert len(told(versions, version, "TrainingStarted")) == round_
    assert 0 < steps[0] < steps[1] < 5000
    assert [event["first_step"] for event in told(versions, version, "TrainingStarted")] == [0, steps[0]]
    # No step was taken twice, and none left out.
    assert [event["step"] for event in told(versions, version, "TrainingStep")] == list(range(1, steps[1] + 1))


def test_what_cannot_be_trained_says_so_in_its_record_and_the_worker_goes_on_to_the_next(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips, tmp_path: Path
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no clip", encoding="utf-8")
    hopeless = begin(asked((TrainingClip(path=text, caption="nothing"),)), store=store)
    fine = begin(asked(clips[:1], objective="latent", max_train_steps=1), store=store)
    queue.train(hopeless.id)
    failed = until(lambda: in_state(versions, hopeless, "failed"), PATIENCE)
    assert failed.error is not None
    assert failed.error["field"] == "clips"
    assert "text.mp4: it is text" in failed.error["message"]
    assert not versions.usable(hopeless.id)
    queue.train(fine.id)
    until(lambda: in_state(versions, fine, "complete"), PATIENCE)
    # A version that is gone by the time the worker comes to it harms nobody either.
    versions.delete(hopeless.id)
    queue.train(hopeless.id)
    until(lambda: idle(queue))
    assert [version.id for version in versions.list()] == [fine.id]


def test_what_waits_is_seen_by_everybody_and_a_second_one_is_refused(store: RunStore) -> None:
    here, there = JobQueue(store=store), JobQueue(store=store)
    try:
        assert there.waits_to_be_trained() is None
        here.train("one")
        here.train("one")  # asking again changes nothing
        assert there.waits_to_be_trained() == "one"
        with pytest.raises(JobError, match="Version one waits") as refused:
            there.train("two")
        assert refused.value.field == "version"
        assert here.waits_to_be_trained() == "one"
        there.stop_training()
        assert here.waits_to_be_trained() is None, "called off before it was begun"
        here.train("two")
        assert there.waits_to_be_trained() == "two"
    finally:
        here.close()
        there.close()


def test_the_worker_predicts_and_leaves_the_version_to_be_gone_on_with(
    queue: JobQueue, versions: VersionStore, store: RunStore, clips: Clips
) -> None:
    version = begin(asked(clips[:1], max_train_steps=1, sample_prompts=("a square",)), store=store)
    queue.train(version.id, predict=True)
    until(lambda: in_state(versions, version, "stopped"), PATIENCE)
    (predicted,) = told(versions, version, "TrainingForecast")
    assert predicted["full_decoder_bytes"] >= predicted["decoder_bytes"] > 0
    assert told(versions, version, "TrainingStep") == []
    until(lambda: idle(queue))
    queue.train(version.id)
    until(lambda: in_state(versions, version, "complete"), PATIENCE)
