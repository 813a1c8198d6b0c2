"""The index of runs: every word is found, and the folders outlive it."""

from __future__ import annotations

import pytest
from support.small_runs import begin

from studio.preset import Preset
from studio.records.runs import RunStore
from studio.storage import open_database


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
            connection = open_database(index)
            connection.execute(
                "PRAGMA user_version = 99" if damage == "older version" else "ALTER TABLE runs DROP words"
            )
            connection.close()
    assert {run.id for run in store.search("number", limit=100)} == ids
    assert store.count() == 12
