"""Storage: a file is whole or not there, and whoever wrote it says what to do."""

from contextlib import suppress
from pathlib import Path

import pytest

from studio.__main__ import main
from studio.compare import Comparisons
from studio.errors import ComparisonError, StorageError, VersionError
from studio.records.runs import RunStore
from studio.records.versions import VersionStore
from studio.storage import rename, whole, write_atomically


def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    write_atomically(path, b"old")
    with suppress(ZeroDivisionError), whole(path) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    with whole(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old", "until it is whole"
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_rename_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    rename(tmp_path / "one", tmp_path / "two")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("two", "one")]


def test_a_folder_that_cannot_be_written_is_no_fault_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write_atomically(tmp_path / "nowhere" / "a.txt", b"")
    assert "DAILIES_RUNS" not in str(caught.value)
    assert caught.value.field == str(tmp_path / "nowhere")


def test_a_runs_folder_that_cannot_be_made_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Set DAILIES_RUNS"):
        RunStore(tmp_path / "file" / "runs")


def test_a_comparison_that_cannot_be_written_out_says_how_to_choose_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.csv").mkdir()  # a folder stands where the file is to be
    small = ["--height", "64", "--width", "64", "--num-frames", "5", "--steps", "2"]
    command = ["compare", "--prompt", "a car", "--method", "steps:1", *small, "-o", str(tmp_path / "out")]
    assert main(command) == StorageError.exit_status
    said = capsys.readouterr().err
    assert "another folder with -o" in said
    assert "DAILIES_RUNS" not in said


def test_what_is_missing_is_named_for_what_it_is(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(VersionError, match="no version"):
        VersionStore(store.folder).get("20261127-020202-0123abcd")
    with pytest.raises(ComparisonError, match="no comparison"):
        Comparisons(store).get("20261127-020202-0123456789abcdef")
