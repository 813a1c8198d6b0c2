"""A model that enlarges learns from somebody's own clips: the whole stretch's gradient, and nothing lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.films import write_pictures

from studio.chopgrad import Backprop, SavedBytes, decode_backward
from studio.clips.read import read_clip
from studio.clips.reference import reference_to
from studio.errors import NumericalError, RequestError, UnknownPreset, VersionError
from studio.events import (
    EnlargementFinished,
    EnlargerScored,
    EnlargerTrainingEvent,
    EnlargerTrainingStarted,
    EnlargerTrainingStep,
    StopWish,
    TrainingFinished,
    never,
)
from studio.finetune import enlarger
from studio.finetune.enlarger import EnlargedPictures, stretches_of, train
from studio.finetune.enlarger_verb import begin
from studio.pipelines.super_resolver import LeastSquaresUpsampler, RecurrentRefiner, SuperResolverPipeline
from studio.records.enlargements import EnlargementStore
from studio.records.enlarger_versions import STATE, EnlargerVersionStore
from studio.records.runs import RunStore
from studio.requests.enlarger_training import EnlargerTraining, read_enlarger_training
from studio.requests.super_resolution import read_super_resolution_request
from studio.requests.work import TrainEnlarger
from studio.super_resolve import super_resolve


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two scenes of 20 and 16 pictures, each of which drifts."""
    generator = np.random.default_rng(0)
    scenes = [generator.integers(low, low + 90, (24, 32, 3), np.uint8).repeat(4, 0).repeat(4, 1) for low in (10, 150)]
    shown = [np.roll(scenes[number >= 20], number, 1) for number in range(36)]
    return write_pictures(tmp_path / "mine.mp4", [512 * number for number in range(36)], pictures=shown)


def request_for(clip: Path, **fields: object) -> EnlargerTraining:
    small = {"crop_size": 64, "num_frames": 4, "max_train_steps": 4, "gradient_accumulation_steps": 1}
    return read_enlarger_training({"clips": [reference_to(clip, field="clips")]} | small | fields)


def trained(request: EnlargerTraining, store: RunStore) -> tuple[str, list[EnlargerTrainingEvent]]:
    version = begin(request, store=store)
    return version.id, list(train(TrainEnlarger(version_id=version.id), store=store, owner="local", stop=never))


def loud() -> SuperResolverPipeline:
    torch.manual_seed(0)
    refiner = RecurrentRefiner(channels=8, num_blocks=4)
    for parameter in refiner.tails.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    upsampler = LeastSquaresUpsampler().requires_grad_(False)
    return SuperResolverPipeline(upsampler, refiner, RecurrentRefiner(channels=8, num_blocks=4))


def weights_gradient(
    pipeline: SuperResolverPipeline, small: torch.Tensor, target: torch.Tensor, how: Backprop
) -> torch.Tensor:
    pipeline.refiner.zero_grad()
    decode_backward(
        EnlargedPictures(pipeline, 4, restore=False, at_once=2),
        small,
        lambda frames, region: (frames - region.of(target)).square().sum(),
        how,
    )
    return torch.cat([p.grad.flatten() for p in pipeline.refiner.parameters() if p.grad is not None])


def test_the_gradient_of_a_stretch_is_that_of_all_its_pictures_together() -> None:
    pipeline, small, target = loud(), torch.rand(1, 3, 7, 6, 8), torch.rand(1, 3, 7, 24, 32)
    full = weights_gradient(pipeline, small, target, Backprop(mode="full"))
    exact = weights_gradient(pipeline, small, target, Backprop(mode="exact"))
    cut_off = weights_gradient(pipeline, small, target, Backprop(mode="truncated", context=0))
    torch.testing.assert_close(exact, full, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(cut_off, full, rtol=1e-4, atol=1e-4)


def test_more_pictures_hold_no_more_memory() -> None:
    pipeline, held = loud(), []
    for count in (6, 24):
        small, target = torch.rand(1, 3, count, 6, 8), torch.rand(1, 3, count, 24, 32)
        with SavedBytes() as meter:
            weights_gradient(pipeline, small, target, Backprop(mode="exact"))
        held.append(meter.peak)
    assert held[1] == held[0] > 0


def test_a_version_is_trained_scored_and_enlarges_otherwise_than_its_base(clip: Path, store: RunStore) -> None:
    version_id, events = trained(request_for(clip, learning_rate=1e-3), store)
    assert isinstance(events[-1], TrainingFinished)
    started = next(event for event in events if isinstance(event, EnlargerTrainingStarted))
    assert started.samples + started.held_out == 9  # of 20 and 16 pictures, four by four
    version = EnlargerVersionStore(store.folder).get(version_id)
    assert version.state == "complete"
    assert set(version.psnr) == set(version.base_psnr) == {"2", "4"}
    assert version.psnr != version.base_psnr
    assert not (store.folder / ".enlarger-versions" / version_id / STATE).exists()
    pictures = []
    for adapter in (None, version_id):
        request = read_super_resolution_request(
            {"source": reference_to(clip, field="source"), "method": "pocket", "adapter": adapter}
        )
        *_, last = super_resolve(request, store=store)
        assert isinstance(last, EnlargementFinished)
        made = EnlargementStore(store.folder).path(last.enlargement_id) / last.path
        pictures.append(read_clip(made).clip.frames)
    assert not np.array_equal(*pictures)


def test_a_training_that_stopped_goes_on_and_ends_in_the_same_weights(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enlarger, "SAY_SECONDS", 0.0)
    ends = []
    for stopped in (False, True):
        store = RunStore(tmp_path / f"runs-{stopped}")
        version = begin(request_for(clip, max_train_steps=16), store=store)
        work = TrainEnlarger(version_id=version.id)
        if stopped:
            wishes: list[StopWish | None] = [None]
            for event in train(work, store=store, owner="local", stop=lambda wishes=wishes: wishes[0]):
                if isinstance(event, EnlargerTrainingStep) and event.step >= 8:
                    wishes[0] = "cancel"
            half_way = EnlargerVersionStore(store.folder).get(version.id)
            assert half_way.state == "stopped"
            assert half_way.step == 8
        *_, last = train(work, store=store, owner="local", stop=never)
        assert isinstance(last, TrainingFinished)
        network = EnlargerVersionStore(store.folder).network(version.id, method="pocket", restore=False)
        ends.append(RecurrentRefiner.from_pretrained(network).state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_closing_the_stream_keeps_what_was_learnt(clip: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enlarger, "SAY_SECONDS", 0.0)
    version = begin(request_for(clip, max_train_steps=400), store=store)
    events = train(TrainEnlarger(version_id=version.id), store=store, owner="local", stop=never)
    next(event for event in events if isinstance(event, EnlargerTrainingStep))
    events.close()
    versions = EnlargerVersionStore(store.folder)
    assert versions.get(version.id).state == "stopped"
    assert versions.network(version.id, method="pocket", restore=False).is_dir()


def test_a_loss_that_is_no_number_stops_it_with_the_way_out(clip: Path, store: RunStore) -> None:
    version = begin(request_for(clip, max_train_steps=24, learning_rate=1.0), store=store)
    with pytest.raises(NumericalError) as failure:
        list(train(TrainEnlarger(version_id=version.id), store=store, owner="local", stop=never))
    assert failure.value.field == "learning_rate"
    assert EnlargerVersionStore(store.folder).get(version.id).state == "failed"


def test_no_sample_spans_a_cut(clip: Path) -> None:
    stretches, notices = stretches_of(request_for(clip, num_frames=8))
    assert not notices
    assert [len(each) for each in stretches] == [8, 8, 8, 8]  # 20 and 16 pictures: what is left over is not used
    assert all(np.ptp(each.mean(axis=(1, 2, 3))) < 20 for each in stretches)


def test_clips_that_give_nothing_are_named_and_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"mine.mp4 was left out.*smaller than the part") as refused:
        stretches_of(request_for(clip, crop_size=128))
    assert refused.value.field == "clips"
    with pytest.raises(RequestError, match="no 30 pictures of one scene"):
        stretches_of(request_for(clip, num_frames=30))


def test_what_cannot_be_trained_is_refused_before_anything_is_begun(clip: Path, store: RunStore) -> None:
    with pytest.raises(UnknownPreset):
        begin(request_for(clip, method="lanczos"), store=store)
    assert not EnlargerVersionStore(store.folder).list()
    version_id, _ = trained(request_for(clip, max_train_steps=1), store)
    with pytest.raises(VersionError, match="is complete"):
        list(train(TrainEnlarger(version_id=version_id), store=store, owner="local", stop=never))
    with pytest.raises(VersionError, match="no version"):
        next(train(TrainEnlarger(version_id=version_id), store=store, owner="somebody else", stop=never))


def test_a_version_is_used_for_what_it_learnt_alone(clip: Path, store: RunStore) -> None:
    version_id, _ = trained(request_for(clip, max_train_steps=1, restore=True), store)
    versions = EnlargerVersionStore(store.folder)
    assert versions.network(version_id, method="pocket", restore=True).is_dir()
    with pytest.raises(VersionError, match="that restores"):
        versions.network(version_id, method="pocket", restore=False)


def test_scores_come_before_and_after(clip: Path, store: RunStore) -> None:
    _, events = trained(request_for(clip), store)
    scored = [event.step for event in events if isinstance(event, EnlargerScored)]
    assert scored[0] == 0
    assert scored[-1] == 4
