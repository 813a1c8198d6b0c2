"""Runs: absent, running or final, never half; found again by whoever may see them, and swept up after a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.small_runs import begin, die_at_write_point, in_a_child, leave_without_a_word, noise

from studio.errors import DiskFull, RunError
from studio.events import (
    StepFinished,
)
from studio.preset import Preset
from studio.records import runs
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest


def test_a_run_holds_its_whole_request_before_anything_is_done(
    store: RunStore, preset: Preset, request_: GenerationRequest
) -> None:
    writer = store.begin(request_, preset=preset, environment={"torch": "2.13"})
    run = store.get(writer.id)
    assert (run.state, run.request, run.preset_digest) == ("running", request_, preset.digest)
    assert (run.environment, run.finished) == ({"torch": "2.13"}, None)
    assert run.folder == store.folder / run.id == writer.folder


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
