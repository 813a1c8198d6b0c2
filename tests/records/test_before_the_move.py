"""Whatever an earlier studio wrote is read by this one; `tests/fixtures/before_the_move` is of that studio's code."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from studio.clips.read import read_settings
from studio.clips.uploads import Uploads
from studio.compare import Comparisons
from studio.events import RunFinished, TrainingFinished, TrainingScored, TrainingStarted, TrainingStep
from studio.jobs import JobQueue
from studio.machine import pace
from studio.metrics import scores_to_json
from studio.records.profiles import find_profile, profile_files
from studio.records.run import request_in_settings
from studio.records.runs import RunStore
from studio.records.versions import VersionStore
from studio.requests.generation import GenerationRequest
from studio.requests.work import ProfileModel, TrainVersion, WalkComparison

WRITTEN = Path(__file__).parent.parent / "fixtures" / "before_the_move"
THEN: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    folder = tmp_path_factory.mktemp("before") / "runs"
    shutil.copytree(WRITTEN / "runs", folder)
    return RunStore(folder)


def _same(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Every field that was there then says the same; fields that came later are not asked about."""
    written = json.loads(json.dumps(now, default=str))
    assert {name: written[name] for name in then} == then


def test_runs_are_read_with_their_request_figures_and_events(store: RunStore) -> None:
    runs = store.search(limit=1000)
    assert [run.id for run in runs] == [then["id"] for then in THEN["runs"]]
    assert [run.id for run in store.search("red")] == THEN["runs_with_the_word_red"]
    for run, then in zip(runs, THEN["runs"], strict=True):
        plain = ("state", "partial", "owner", "created", "finished", "preset_digest", "error")
        assert {name: getattr(run, name) for name in plain} == {name: then[name] for name in plain}
        _same(run.request.model_dump(mode="json"), then["request"])
        assert (len(run.step_seconds), sorted(run.stage_seconds)) == (then["step_seconds"], then["stage_seconds"])
        trace = (run.trace.computed, run.trace.reused, list(run.trace.branches)) if run.trace else (None, None, None)
        assert trace == (then["computed"], then["reused"], then["branches"])
        counted = Counter(type(event).__name__ for event in run.events())
        assert dict(counted) == then["events"]
        assert {name: output.sha256 for name, output in run.outputs.items()} == then["outputs"]
        assert store.verify(run.id) == []


def test_a_clips_own_settings_are_its_request(store: RunStore) -> None:
    complete = [run for run in store.search(limit=1000) if run.state == "complete"]
    assert complete
    for run in complete:
        assert request_in_settings(read_settings(run.video) or {}) == run.request


def test_comparisons_are_read_cell_by_cell(store: RunStore) -> None:
    comparisons = Comparisons(store).list()
    assert [comparison.id for comparison in comparisons] == [then["id"] for then in THEN["comparisons"]]
    for comparison, then in zip(comparisons, THEN["comparisons"], strict=True):
        assert (comparison.owner, comparison.created, comparison.state) == (
            then["owner"],
            then["created"],
            then["state"],
        )
        assert list(comparison.methods) == then["methods"]
        for cell, was in zip(comparison.cells, then["cells"], strict=True):
            plain = ("number", "reference", "method", "state", "run_id", "reused", "cold", "computed_share", "error")
            assert {name: getattr(cell, name) for name in plain} == {name: was[name] for name in plain}
            _same(cell.request.model_dump(mode="json"), was["request"])
            assert scores_to_json(cell.scores) == was["scores"]
            assert (len(cell.frame_psnr), cell.seconds is not None) == (was["frame_psnr"], was["seconds"])
            assert list(cell.notices) == was["notices"]


def test_versions_are_read_with_their_scores_and_their_logs(store: RunStore) -> None:
    versions = VersionStore(store.folder)
    assert [version.id for version in versions.list()] == [then["id"] for then in THEN["versions"]]
    for version, then in zip(versions.list(), THEN["versions"], strict=True):
        assert (version.title, version.state, version.step) == (then["title"], then["state"], then["step"])
        assert versions.state_of(version) == then["state_of"]
        _same(version.request.model_dump(mode="json"), then["request"])
        assert (version.scores and asdict(version.scores)) == then["scores"]
        assert (version.base_scores and asdict(version.base_scores)) == then["base_scores"]
    assert {"pocket": getattr(versions.promoted("pocket"), "id", None)} == THEN["promoted"]
    told = [event for version in versions.list() for _, event in versions.events(version.id)]
    assert {type(event) for event in told} >= {TrainingStarted, TrainingStep, TrainingScored, TrainingFinished}


def test_the_queue_is_read_and_what_waited_beside_it_waits_in_it(store: RunStore) -> None:
    queue = JobQueue(store=store)
    jobs = {job.id: job for job in queue.jobs()}
    for then in THEN["jobs"]:
        job = jobs.pop(then["id"])
        plain = ("owner", "state", "run_id", "error", "attempts", "created", "started", "finished")
        assert {name: getattr(job, name) for name in plain} == {name: then[name] for name in plain}
        assert isinstance(job.work, GenerationRequest)
        _same(job.work.model_dump(mode="json"), then["request"])
    assert queue.paused is THEN["paused"]
    walked = next(each for each in THEN["comparisons"] if each["door"] == "page" and each["state"] == "running")
    assert {job.work for job in jobs.values()} == {
        TrainVersion(version_id=THEN["waits_to_be_trained"], predict=True),
        ProfileModel(preset=THEN["waits_to_be_measured"], num_inference_steps=4),
        WalkComparison(comparison_id=walked["id"]),
    }
    assert {job.state for job in jobs.values()} == {"queued"}
    complete = next(job for job in queue.jobs(states=("complete",)))
    assert isinstance(queue.events(complete.id)[-1][1], RunFinished)
    queue.close()


def test_uploads_paces_and_profiles_are_read(store: RunStore) -> None:
    for then in THEN["uploads"]:
        assert Uploads(store.folder).find(then["sha256"]) == store.folder / then["path"]
    assert [asdict(each) for each in pace.paces(store.folder)] == THEN["measurements"]
    (then,) = THEN["profiles"]
    files = [file for file in profile_files("pocket", store.folder / "profiles") if not file.shipped]
    assert [(str(file.path.relative_to(store.folder)), file.total_steps) for file in files] == [
        (then["path"], then["total_steps"])
    ]
    profile = find_profile("pocket", store.folder / "profiles", total_steps=then["total_steps"])
    assert profile is not None
    assert (profile.weights, profile.skipped_share, len(profile.sigmas)) == (
        then["weights"],
        then["skipped_share"],
        len(then["sigmas"]),
    )
