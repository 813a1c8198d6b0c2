"""Fine-tuning as a stream: what it says, keeps, and survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.device import same
from support.small_training import asked

from studio.clips.read import read_clip
from studio.errors import DiskFull, NumericalError, OutOfMemory, VersionError
from studio.events import (
    CheckpointWritten,
    Notice,
    RunFinished,
    TrainingFinished,
    TrainingForecast,
    TrainingSample,
    TrainingScored,
    TrainingStage,
    TrainingStarted,
    TrainingStep,
)
from studio.finetune import begin, finetune, go_on
from studio.finetune.notebook import STATE
from studio.finetune.room import leaner
from studio.generate import generate
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.records.versions import LORA_FILE, VersionStore
from studio.requests.generation import GenerationRequest, request_for
from studio.requests.training import TrainingClip

Clips = tuple[TrainingClip, ...]


def walk(stream: Any) -> list[Any]:
    return list(stream)


def of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def weights(store: RunStore, version_id: str) -> dict[str, torch.Tensor]:
    return load_file(VersionStore(store.folder).path(version_id) / LORA_FILE)


def made(request: GenerationRequest, store: RunStore) -> np.ndarray:
    """Frames of a clip."""
    (run_id,) = [event.run_id for event in generate(request, store=store) if isinstance(event, RunFinished)]
    return read_clip(store.get(run_id).video).clip.frames


@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "latent"},
        {"objective": "pixel"},
        {"objective": "mixed", "mode": "truncated", "window": 1, "context": 1},
        {"objective": "pixel", "mode": "full", "crop_size": 2, "structure_weight": 0.0},
        {"objective": "mixed", "train_decoder": True, "checkpoint_blocks": True, "prior_loss_weight": 0.5},
    ],
)
def test_every_objective_and_mode_makes_a_version_that_generates(
    clips: Clips, store: RunStore, fields: dict[str, Any]
) -> None:
    events = walk(finetune(asked(clips, learning_rate=0.02, ema_decay=0.0, **fields), store=store))
    started, finished = of(events, TrainingStarted)[0], events[-1]
    assert isinstance(finished, TrainingFinished)
    assert started.samples == 10
    assert started.held_out == 2
    steps = of(events, TrainingStep)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert all((step.pixel is None) == (fields["objective"] == "latent") for step in steps)
    assert len(of(events, TrainingForecast)) == 1
    assert [scored.step for scored in of(events, TrainingScored)] == [0, 4]
    assert [sample.step for sample in of(events, TrainingSample)] == [0, 4]

    version = VersionStore(store.folder).get(finished.version_id)
    assert version.state == "complete"
    assert version.scores is not None
    assert version.base_scores is not None
    assert version.worse_than_base == (version.scores.psnr < version.base_scores.psnr)
    assert any(tensor.abs().max() > 0 for name, tensor in weights(store, version.id).items() if "lora_B" in name)

    # The version is used by its id, and what it makes is not what the bare model makes.
    request = request_for(find_preset("wan"), prompt="square number 1", seed=3, height=32, width=32, num_frames=5)
    bare, tuned = (made(request.model_copy(update={"adapter": adapter}), store) for adapter in (None, version.id))
    assert not np.array_equal(bare, tuned)


def test_what_was_trained_on_is_on_the_card_and_in_the_record(clips: Clips, store: RunStore, tmp_path: Path) -> None:
    told = clips[0].model_copy(update={"origin": "my own | <b>camera</b>", "licence": "CC-BY-4.0"})
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip at all")
    again = clips[1].model_copy(update={"path": tmp_path / "again.mp4"})
    again.path.write_bytes(clips[1].path.read_bytes())
    more = (told, *clips[1:], again, TrainingClip(path=broken, caption="nothing"))
    events = walk(finetune(asked(more, objective="latent"), store=store))
    version = VersionStore(store.folder).get(events[-1].version_id)
    left_out = {clip.name: clip.left_out for clip in version.clips if clip.left_out}
    assert set(left_out) == {"again.mp4", "broken.mp4"}
    assert "same file as square-1.mp4" in left_out["again.mp4"]
    assert any("broken.mp4 was left out" in event.text for event in of(events, Notice))
    assert version.clips[0].licence == "CC-BY-4.0"
    assert len(version.clips[0].sha256) == 64
    card = (VersionStore(store.folder).path(version.id) / "README.md").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in card
    assert "<b>" not in card.replace("\\<b\\>", "")
    assert f"{version.scores.psnr:.2f} dB" in card if version.scores else False


# -- stopping, going on, and being killed -----------------------------------------------------------------------------


def test_a_closed_stream_keeps_what_was_learnt_and_goes_on_to_the_same_bits(clips: Clips, store: RunStore) -> None:
    request = asked(clips, max_train_steps=6, gradient_accumulation_steps=2)
    whole = walk(finetune(request, store=store))[-1].version_id
    stream = finetune(request, store=store)
    for event in stream:
        if isinstance(event, TrainingStarted):
            stopped = event.version_id
        if isinstance(event, TrainingStep) and event.step == 3:
            stream.close()
    version = VersionStore(store.folder).get(stopped)
    assert (version.state, version.step) == ("stopped", 3)
    assert weights(store, stopped), "usable as it is"
    events = walk(go_on(stopped, store=store))
    assert of(events, TrainingStarted)[0].first_step == 3
    assert [step.step for step in of(events, TrainingStep)] == [4, 5, 6]
    ended, wanted = weights(store, stopped), weights(store, whole)
    assert ended.keys() == wanted.keys()
    assert all(same(ended[name], wanted[name]) for name in wanted)
    with pytest.raises(VersionError, match="complete"):
        walk(go_on(stopped, store=store))


def test_a_prediction_keeps_no_step_and_training_afterwards_ends_in_the_same_bits(
    clips: Clips, store: RunStore
) -> None:
    request = asked(clips)
    whole = walk(finetune(request, store=store))[-1].version_id
    versions = VersionStore(store.folder)
    version_id = begin(request, store=store).id

    stream = go_on(version_id, store=store, predict=True)
    next(
        event for event in stream if isinstance(event, TrainingStage) and event.done == 1 and event.stage == "measuring"
    )
    stream.close()  # between its two steps
    assert (versions.get(version_id).state, versions.get(version_id).step) == ("stopped", 0)
    assert not versions.usable(version_id)

    events = walk(go_on(version_id, store=store, predict=True))
    assert isinstance(events[-1], TrainingForecast)
    assert events[-1].eta_seconds == pytest.approx(4 * events[-1].step_seconds)
    assert of(events, TrainingStep) == []
    assert "preparing" not in [event.stage for event in of(events, TrainingStage)], "that was done the first time"
    assert (versions.get(version_id).state, versions.get(version_id).step) == ("stopped", 0)

    events = walk(go_on(version_id, store=store))
    assert [step.step for step in of(events, TrainingStep)] == [1, 2, 3, 4]
    ended, wanted = weights(store, version_id), weights(store, whole)
    assert all(same(ended[name], wanted[name]) for name in wanted)


def test_a_stop_during_the_first_clips_leaves_none_of_them_out(clips: Clips, store: RunStore) -> None:
    request = asked(clips, objective="latent", max_train_steps=1, sample_prompts=("a square", "another one"))
    version_id = begin(request, store=store).id
    stream = go_on(version_id, store=store)
    next(event for event in stream if isinstance(event, TrainingSample))
    next(event for event in stream if isinstance(event, TrainingStage) and event.stage == "sampling")
    stream.close()  # in the middle of the second
    events = walk(go_on(version_id, store=store))
    assert [(clip.step, clip.prompt) for clip in of(events, TrainingSample)] == [
        (0, "another one"),
        (1, "a square"),
        (1, "another one"),
    ]


KILLED = """
import os, signal, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from studio.events import CheckpointWritten, TrainingStep
from studio.finetune import finetune, go_on
from studio.requests.training import read_finetune_request
from studio.records.runs import RunStore
import studio.pipelines.adapters, studio.finetune.training, studio.chopgrad, diffusers, transformers  # before forking

store, request = RunStore(Path(sys.argv[1])), read_finetune_request(Path(sys.argv[2]).read_text())
deadly = [int(steps) for steps in sys.argv[3:]]
from studio.records.versions import VersionStore

def train(stop_after):
    versions = VersionStore(store.folder).list()
    stream = go_on(versions[0].id, store=store) if versions else finetune(request, store=store)
    done = 0
    for event in stream:
        if isinstance(event, TrainingStep):
            done += 1
            if done == stop_after:
                os.kill(os.getpid(), signal.SIGKILL)

# Each in a process of its own, killed after so many steps; then one that is left alone.
for number, after in enumerate([*deadly, 10**9]):
    child = os.fork()
    if not child:
        train(after)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (number < len(deadly)), (number, status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.thorough
def test_killed_again_and_again_it_ends_in_the_same_bits(clips: Clips, tmp_path: Path, catalogue: Path) -> None:
    """22 deaths, each after one to three steps with a checkpoint every second one: at most one step is lost a time."""
    request = asked(clips[:2], objective="pixel", max_train_steps=30, validation_steps=100)
    settings = tmp_path / "request.json"
    settings.write_text(request.model_dump_json(), encoding="utf-8")
    environment = os.environ | {"DAILIES_PRESETS": str(catalogue), "OMP_NUM_THREADS": "1"}
    ended = {}
    for name, deaths in (("killed", [2, 3, 2, 1, 2] + [1, 2, 3] * 5 + [3, 2]), ("left alone", [])):
        folder = tmp_path / name
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", KILLED, str(folder), str(settings), *map(str, deaths)],
            env=environment,
            check=True,
        )
        (version,) = VersionStore(folder).list()
        assert (version.state, version.step) == ("complete", 30)
        ended[name] = load_file(VersionStore(folder).path(version.id) / LORA_FILE)
    for name, tensor in ended["left alone"].items():
        assert same(ended["killed"][name], tensor), name


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_nan_stops_and_the_last_checkpoint_is_kept(
    clips: Clips, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.pipelines.families import VideoModel

    whole = VideoModel.predict
    calls = 0

    def spoilt(self: VideoModel, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        if torch.is_grad_enabled():
            calls += 1
        return whole(self, *arguments) * (float("nan") if calls > 3 else 1)

    monkeypatch.setattr(VideoModel, "predict", spoilt)
    events: list[Any] = []
    stream = finetune(asked(clips), store=store)
    with pytest.raises(NumericalError, match="smaller learning rate") as stopped:
        events.extend(stream)
    assert stopped.value.field == "learning_rate"
    assert [event.step for event in of(events, CheckpointWritten)] == [2]
    (version,) = VersionStore(store.folder).list()
    assert version.state == "failed"
    assert version.error is not None
    monkeypatch.setattr(VideoModel, "predict", whole)
    assert isinstance(walk(go_on(version.id, store=store))[-1], TrainingFinished)


def test_a_full_disk_stops_and_nothing_already_kept_is_lost(
    clips: Clips, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.finetune import training

    whole, states = training.whole, []

    def full(path: Path) -> AbstractContextManager[Path]:
        states.extend([path] if path.name == STATE else [])
        if len(states) == 2:
            raise DiskFull("No space left.", field=str(path))
        return whole(path)

    monkeypatch.setattr(training, "whole", full)
    with pytest.raises(DiskFull):
        walk(finetune(asked(clips), store=store))
    (version,) = VersionStore(store.folder).list()
    assert (version.state, version.step) == ("failed", 2)


def test_too_little_memory_names_the_settings_that_need_less(
    clips: Clips, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.finetune.training import Training

    def too_much(self: Training, on_chunk: Any = None) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "take_step", too_much)
    with pytest.raises(OutOfMemory) as refused:
        walk(finetune(asked(clips, mode="full"), store=store))
    assert "mode to exact" in refused.value.way_out
    request = asked(clips, keep_caches="device")
    said = []
    for changes in ({}, {"keep_caches": "auto"}, {"checkpoint_blocks": True}, {"crop_size": 8}, {"mode": "truncated"}):
        request = request.model_copy(update=changes)
        said.append(leaner(request, find_preset("wan")))
    for word, words in zip(("keep_caches", "checkpoint_blocks", "crop_size", "truncated", "fewer"), said, strict=True):
        assert word in words


def test_a_version_in_training_is_not_trained_twice_or_deleted(clips: Clips, store: RunStore) -> None:
    stream = finetune(asked(clips, objective="latent"), store=store)
    started = next(event for event in stream if isinstance(event, TrainingStarted))
    with pytest.raises(VersionError, match="being trained"):
        walk(go_on(started.version_id, store=store))
    with pytest.raises(VersionError, match="being trained"):
        VersionStore(store.folder).delete(started.version_id)
    stream.close()


def test_after_training_the_model_in_memory_is_the_bare_one(clips: Clips, store: RunStore) -> None:
    request = request_for(find_preset("wan"), prompt="a square", seed=1, height=32, width=32, num_frames=5)
    before = made(request, store)
    walk(finetune(asked(clips, objective="pixel", train_decoder=True), store=store))
    assert np.array_equal(made(request, store), before)


def test_a_request_is_written_down_and_read_back(clips: Clips, store: RunStore) -> None:
    request = asked(clips, objective="latent", title="squares")
    version_id = walk(finetune(request, store=store))[-1].version_id
    path = VersionStore(store.folder).path(version_id) / "version.json"
    assert json.loads(path.read_text(encoding="utf-8"))["request"]["title"] == "squares"
    assert VersionStore(store.folder).get(version_id).request == request
