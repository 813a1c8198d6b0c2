"""Runs: absent, running or final, never half; found again by anyone who may; the folders outlive the index."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.clips.clip import Clip
from studio.clips.read import read_settings
from studio.errors import ClipError, DiskFull, OutOfMemory, RunError
from studio.events import (
    BlockComputed,
    BlockReused,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StageFinished,
    StepFinished,
)
from studio.preset import Preset, find_preset
from studio.records import runs
from studio.records.runs import COMPUTED, RunStore, RunWriter, request_in_settings
from studio.requests.generation import GenerationRequest, request_for

PLACEMENT = Placement(
    device="cpu",
    device_name="a processor",
    torch_dtype="float32",
    vae_dtype="bfloat16",
    channels_last=True,
    offload="none",
    vae_tiling=False,
    quantization="none",
    reasons=("because",),
)


@pytest.fixture(scope="module")
def preset() -> Preset:
    return find_preset("pocket")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def request_(preset: Preset) -> GenerationRequest:
    return request_for(preset, prompt="A red car on a wet road", seed=7)


def noise(seed: int = 0) -> Clip:
    """A clip that does not compress, so that its file has some size."""
    return Clip(frames=np.random.default_rng(seed).integers(0, 256, (4, 64, 64, 3), np.uint8), fps=8)


def begin(store: RunStore, preset: Preset, prompt: str = "a road", **how: Any) -> RunWriter:
    return store.begin(request_for(preset, prompt=prompt, seed=1), preset=preset, environment={"torch": "2"}, **how)


def leave_without_a_word(writer: RunWriter) -> None:
    """What the operating system does for a writer that was killed."""
    writer._lock.release()


def in_a_child(work: Callable[[], None]) -> int:
    """Do something in a forked process, which may die of it; returns its exit status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            work()
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_write_point(number: int) -> None:
    """Exit just before the number-th time from here on that something about a file is changed."""
    left = number

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(42)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.truncate", "sqlite3.connect"):
            count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            count()
            result = function(*arguments, **named)
            count()
            return result

        return wrapped

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    sys.addaudithook(audit)


# ---------------------------------------------------------------------------------------------------------------------


def test_a_run_holds_its_whole_request_before_anything_is_done(
    store: RunStore, preset: Preset, request_: GenerationRequest
) -> None:
    writer = store.begin(request_, preset=preset, environment={"torch": "2.13"}, provenance={"from": "a file"})
    run = store.get(writer.id)
    assert (run.state, run.request, run.preset_digest) == ("running", request_, preset.digest)
    assert (run.environment, run.provenance, run.finished) == ({"torch": "2.13"}, {"from": "a file"}, None)
    assert run.folder == store.folder / run.id == writer.folder


def test_a_complete_run_has_its_outputs_as_they_were_written(store: RunStore, preset: Preset) -> None:
    run = begin(store, preset).complete(noise())
    assert run == store.get(run.id)
    assert run.state == "complete"
    assert not run.partial
    assert set(run.outputs) == {"video.mp4", "poster.jpg"}
    assert run.video.stat().st_size == run.outputs["video.mp4"].size > 1000
    assert run.thumbnail.read_bytes()[:2] == b"\xff\xd8"
    assert run.stage_seconds["writing"] > 0
    assert store.verify(run.id) == []
    run.thumbnail.unlink()
    run.video.write_bytes(run.video.read_bytes()[:-1] + b"?")
    assert store.verify(run.id) == ["video.mp4 is not the file that was written.", "poster.jpg is missing."]


def test_the_settings_inside_a_clip_make_the_same_request_and_keep_the_owner_out(
    store: RunStore, preset: Preset, request_: GenerationRequest
) -> None:
    run = store.begin(request_, preset=preset, owner="somebody", environment={}).complete(noise())
    written = read_settings(run.video)
    assert written is not None
    assert request_in_settings(written) == request_
    assert (written["run_id"], written["preset_digest"]) == (run.id, preset.digest)
    assert b"somebody" not in run.video.read_bytes()


def test_the_figures_are_those_of_the_stream(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    said = [
        RunStarted(run_id=writer.id, total_steps=2, placement=PLACEMENT, predicted_seconds=None),
        StageFinished(stage="encoding", seconds=0.5),
        BlockComputed(step=0, block=0, branch="cond"),
        BlockComputed(step=0, block=1, branch="cond", distance=0.25),
        BlockComputed(step=0, block=0, branch="uncond"),
        StepFinished(step=0, seconds=2.0, peak_bytes=30, eta_seconds=1.0),
        PreviewFrame(step=0, jpeg=b"a picture"),
        BlockReused(step=1, block=0, branch="cond", age=1),
        StepFinished(step=1, seconds=1.0, peak_bytes=20, eta_seconds=0.0),
    ]
    for event in said:
        writer.record(event)
    run = writer.fail(OutOfMemory("Memory ran out.", way_out="Fewer frames."))
    assert run == store.get(run.id)
    assert (run.step_seconds, run.stage_seconds, run.peak_bytes) == ((2.0, 1.0), {"encoding": 0.5}, 30)
    assert run.placement == PLACEMENT
    assert run.error is not None
    assert run.error["code"] == "out_of_memory"
    assert run.trace is not None
    assert run.trace.branches == ("cond", "uncond")
    assert run.trace.ages == (((COMPUTED, COMPUTED), (COMPUTED, None)), ((1, None), (None, None)))
    assert run.trace.distances is not None
    assert run.trace.distances[0] == ((None, None), (0.25, None))
    assert (run.trace.computed, run.trace.reused) == (3, 1)
    assert run.events() == [event for event in said if not isinstance(event, PreviewFrame)]


def test_nothing_is_written_once_a_run_is_final(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    run = writer.complete(noise())
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    writer.record(StageFinished(stage="writing", seconds=1.0))
    writer.record(RunFinished(run_id=run.id, partial=False, seconds=1.0))
    for end in (writer.cancel, lambda: writer.complete(noise(1)), lambda: writer.fail(RunError("late"))):
        with pytest.raises(RunError, match="ended already"):
            end()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_every_word_of_a_search_must_be_there(store: RunStore, preset: Preset) -> None:
    ids = [begin(store, preset, prompt).cancel().id for prompt in ("Ein roter Straßenzug", "a red car", "a blue car")]
    found = {text: [run.id for run in store.search(text)] for text in ("CAR", "red car", "strasse", "green", "%", "")}
    assert found["CAR"] == [ids[2], ids[1]], "newest first, letters of either case"
    assert found["red car"] == [ids[1]]
    assert found["strasse"] == [ids[0]]
    assert found["green"] == found["%"] == []
    assert found[""] == ids[::-1]
    assert [run.id for run in store.search(ids[0][-8:])] == [ids[0]]
    assert [run.id for run in store.search(limit=1, offset=1)] == [ids[1]]
    assert (store.count("car"), store.count(preset="pocket"), store.count(preset="other")) == (2, 3, 0)
    assert (store.count(state="cancelled"), store.count(state="complete")) == (3, 0)
    assert store.search("\ud800 '; DROP TABLE runs") == []


def test_an_owner_sees_and_touches_only_their_own_runs(store: RunStore, preset: Preset) -> None:
    mine = begin(store, preset, "mine", owner="me").cancel()
    yours = begin(store, preset, "yours", owner="you").cancel()
    assert [run.id for run in store.search(owner="me")] == [mine.id]
    assert (store.count(owner="me"), store.count()) == (1, 2)
    for act in (store.get, store.delete, store.verify):
        with pytest.raises(RunError, match="There is no run"):
            act(yours.id, owner="me")
    assert store.get(yours.id, owner="you") == yours


@pytest.mark.parametrize(
    "name", ["..", "../x", "/etc", "", "20261121-143015-ab12cd3", "a\0b", "٢٠٢٦١١٢١-143015-ab12cd34"]
)
def test_an_id_from_outside_is_never_a_path(store: RunStore, name: str) -> None:
    (store.folder.parent / "x").mkdir()
    for act in (store.get, store.delete):
        with pytest.raises(RunError, match="There is no run"):
            act(name)
    assert (store.folder.parent / "x").is_dir()


def test_a_link_is_not_followed_out_of_the_folder(store: RunStore, preset: Preset, tmp_path: Path) -> None:
    run = begin(store, preset).cancel()
    os.rename(run.folder, tmp_path / run.id)
    run.folder.symlink_to(tmp_path / run.id)
    with pytest.raises(RunError, match="There is no run"):
        store.get(run.id)


@pytest.mark.parametrize("damage", ["removed", "junk", "torn", "older version", "column missing"])
def test_the_index_mends_itself_from_the_folders(store: RunStore, preset: Preset, damage: str) -> None:
    ids = {begin(store, preset, f"number {number}").cancel().id for number in range(12)}
    index = store.folder / "index.sqlite"
    match damage:
        case "removed":
            index.unlink()
        case "junk":
            index.write_bytes(b"no database " * 1000)
        case "torn":
            index.write_bytes(index.read_bytes()[:5000])
        case "older version" | "column missing":
            connection = runs.open_database(index)
            connection.execute(
                "PRAGMA user_version = 99" if damage == "older version" else "ALTER TABLE runs DROP words"
            )
            connection.close()
    assert {run.id for run in store.search("number", limit=100)} == ids
    assert store.count() == 12


def test_what_is_no_run_is_skipped_and_named(store: RunStore, preset: Preset) -> None:
    good, bad, renamed, alien = (begin(store, preset).cancel() for _ in range(4))
    (bad.folder / "run.json").write_text('{"id": ')
    os.rename(renamed.folder, store.folder / "20200101-000000-00000000")
    record = json.loads((alien.folder / "run.json").read_text())
    (alien.folder / "run.json").write_text(json.dumps(record | {"state": "half"}))
    (store.folder / "holiday pictures").mkdir()
    (store.folder / "20200101-000000-11111111").mkdir()
    assert store.rebuild() == 1
    assert [run.id for run in store.search()] == [good.id]
    skipped = {fault.field: fault.message for fault in store.skipped}
    assert set(skipped) == {
        *("holiday pictures", "20200101-000000-00000000", "20200101-000000-11111111"),
        *(bad.id, alien.id),
    }
    assert "calls itself" in skipped["20200101-000000-00000000"]
    assert "holds no run.json" in skipped["20200101-000000-11111111"]


def test_a_sweep_marks_the_run_of_a_dead_writer_and_leaves_the_living(store: RunStore, preset: Preset) -> None:
    dead, living = begin(store, preset, "dead"), begin(store, preset, "living")
    for step in range(3):
        dead.record(StepFinished(step=step, seconds=1.0 + step, peak_bytes=1, eta_seconds=0))
    with (dead.folder / "events.jsonl").open("a") as events:
        events.write('{"event": "StepFin')
    (dead.folder / "video.mp4").write_bytes(b"not yet named by run.json")
    (dead.folder / ".video.mp4.123.part").write_bytes(b"half")
    leave_without_a_word(dead)
    (swept,) = store.sweep()
    assert (swept.id, swept.state, swept.step_seconds) == (dead.id, "interrupted", (1.0, 2.0, 3.0))
    assert sorted(path.name for path in swept.folder.iterdir()) == ["events.jsonl", "lock", "run.json"]
    assert [run.id for run in store.search(state="running")] == [living.id]
    assert store.sweep() == []
    assert living.complete(noise()).state == "complete"


def test_a_sweep_finds_what_was_carried_in_or_taken_away(store: RunStore, preset: Preset, tmp_path: Path) -> None:
    kept, taken = begin(store, preset).cancel(), begin(store, preset).cancel()
    other = RunStore(tmp_path / "elsewhere")
    carried = begin(other, preset).cancel()
    os.rename(carried.folder, store.folder / carried.id)
    os.rename(taken.folder, tmp_path / "taken")
    store.sweep()
    assert {run.id for run in store.search()} == {kept.id, carried.id}
    assert store.count() == 2


def test_deleting_takes_the_whole_run_but_never_one_being_made(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    with pytest.raises(RunError, match="still being made"):
        store.delete(writer.id)
    run = writer.complete(noise())
    store.delete(run.id)
    assert store.count() == 0
    assert [path.name for path in store.folder.iterdir()] == ["index.sqlite"]
    with pytest.raises(RunError, match="There is no run"):
        store.get(run.id)


def test_half_made_and_half_deleted_folders_go_away(
    store: RunStore, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".new-20200101-000000-00000000", ".deleted-20200101-000000-11111111"):
        (store.folder / name).mkdir()
        (store.folder / name / "run.json").write_text("{}")
    begin(store, preset).cancel()
    store.sweep()
    assert len(list(store.folder.glob(".*"))) == 2, "young enough to be somebody's work of this moment"
    monkeypatch.setattr(runs, "ABANDONED_SECONDS", -1)
    store.sweep()
    assert list(store.folder.glob(".*")) == []
    assert store.count() == 1


def test_no_run_begins_on_a_disk_that_is_nearly_full(
    store: RunStore, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MIN_FREE_BYTES", 2**60)
    with pytest.raises(DiskFull, match="MB are left"):
        begin(store, preset)
    assert list(store.folder.iterdir()) == []


def test_a_disk_that_fills_up_fails_the_run_and_nothing_else(store: RunStore, preset: Preset) -> None:
    old = begin(store, preset, "older").complete(noise())

    def fill_up_while_writing() -> None:
        writer = begin(store, preset, "too much")
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        with pytest.raises(DiskFull) as caught:
            writer.complete(noise())
        assert sorted(path.name for path in writer.folder.iterdir()) == ["events.jsonl", "lock", "run.json"]
        assert writer.fail(caught.value).state == "failed"

    def fill_up_at_once() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))
        with pytest.raises(DiskFull):
            begin(store, preset)

    assert in_a_child(fill_up_while_writing) == 0
    before = sorted(store.folder.iterdir())
    assert in_a_child(fill_up_at_once) == 0
    assert sorted(store.folder.iterdir()) == before, "nothing is left of a run that could not begin"
    store.sweep()
    assert {run.request.prompt: run.state for run in store.search()} == {"older": "complete", "too much": "failed"}
    assert store.verify(old.id) == []
    assert begin(store, preset).complete(noise()).state == "complete"


def test_a_clip_that_cannot_be_written_leaves_the_run_to_be_failed(store: RunStore, preset: Preset) -> None:
    writer = begin(store, preset)
    odd = replace(noise(), frames=np.zeros((2, 15, 15, 3), np.uint8))
    with pytest.raises(ClipError):
        writer.complete(odd)
    assert store.get(writer.id).state == "running"
    assert writer.fail(ClipError("odd")).state == store.get(writer.id).state == "failed"


def test_a_kill_at_any_write_point_of_completing_leaves_running_or_complete(store: RunStore, preset: Preset) -> None:
    seen, number, status = [], 0, 42
    while status == 42:

        def complete_and_die(number: int = number) -> None:
            writer = begin(store, preset, f"point {number}")
            writer.record(StepFinished(step=0, seconds=1.0, peak_bytes=1, eta_seconds=0))
            die_at_write_point(number)
            writer.complete(noise())

        status = in_a_child(complete_and_die)
        (run,) = (run for run in store.search("point", limit=1))
        assert run.request.prompt == f"point {number}"
        assert run.state in ("running", "complete")
        assert store.verify(run.id) == []
        store.sweep()
        run = store.get(run.id)
        assert run.state in ("interrupted", "complete")
        assert run.video.exists() == run.thumbnail.exists() == (run.state == "complete")
        assert not list(run.folder.glob(".*")), "no temporary is left"
        assert run.step_seconds == (1.0,)
        seen.append(run.state)
        number += 1
    assert status == 0, "the last child reached the end"
    assert number > 12, "there are more write points than that"
    assert seen == sorted(seen, reverse=True), "once complete, always complete"
    assert {"interrupted", "complete"} == set(seen)


def test_a_kill_at_any_write_point_of_beginning_leaves_nothing_or_a_run(
    store: RunStore, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ABANDONED_SECONDS", -1)
    number, status = 0, 42
    while status == 42:

        def begin_and_die(number: int = number) -> None:
            die_at_write_point(number)
            begin(store, preset, f"point-{number:03}")

        status = in_a_child(begin_and_die)
        store.sweep()
        found = store.search(f"point-{number:03}")
        assert [run.state for run in found] in ([], ["interrupted"])
        assert len([path for path in store.folder.iterdir() if path.is_dir()]) == store.count()
        assert store.skipped == ()
        number += 1
    assert status == 0
    assert number > 8
    assert store.search(f"point-{number - 1:03}")
