"""Versions: whole records or none, ids that lead nowhere else, promotions that can be undone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.errors import VersionError
from studio.events import TrainingSample
from studio.records.event_log import Numbered
from studio.records.folders import LOG
from studio.records.versions import LORA_FILE, ClipRecord, Scores, Version, VersionStore
from studio.requests.training import FinetuneRequest, TrainingClip

NO_IDS: tuple[Any, ...] = (
    "",
    ".",
    "..",
    "../runs",
    "20260101-000000-0123abcd/..",
    "/etc",
    "20260101-000000-0123ABCD",
    "20260101-000000-0123abcd\n",
    "２0260101-000000-0123abcd",
    "a" * 10_000,
    None,
    7,
)


def request_of(preset: str = "pocket", title: str = "") -> FinetuneRequest:
    clips = (TrainingClip(path=Path("a/red car.mp4"), caption="a red car"),)
    return FinetuneRequest(preset=preset, clips=clips, title=title, height=64, width=64, num_frames=5, fps=8)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "runs")


def begun(store: VersionStore, preset: str = "pocket", *, weights: bool = False, title: str = "") -> Version:
    version = store.begin(request_of(preset, title), preset_digest="d1")
    if weights:
        (store.path(version.id) / LORA_FILE).write_bytes(b"weights")
    return version


def promoted(store: VersionStore, preset: str = "pocket") -> str | None:
    version = store.promoted(preset)
    return None if version is None else version.id


def record_of(store: VersionStore, version: Version) -> Path:
    return store.path(version.id) / "version.json"


# -- records ----------------------------------------------------------------------------------------------------------


def test_what_is_begun_is_read_back_as_it_was(store: VersionStore) -> None:
    version = begun(store)
    assert version.state == store.state_of(version) == "waiting"
    assert version.title == "red car"
    assert store.get(version.id) == version
    clip = ClipRecord(
        name="red car.mp4",
        sha256="ab" * 32,
        caption="a red car",
        origin="mine",
        licence="CC0-1.0",
        width=64,
        height=48,
        fps=29.97,
        seconds=2.5,
        samples=3,
        held_out=1,
    )
    whole = replace(
        version,
        state="complete",
        clips=(clip, replace(clip, name="b.mp4", samples=0, held_out=0, left_out="it is empty.")),
        step=40,
        seconds=12.5,
        peak_bytes=1 << 33,
        base_scores=Scores(psnr=20.0, objective=0.9, pixel=0.5, latent=0.4),
        scores=Scores(psnr=19.0, objective=0.7, pixel=0.4, latent=0.3),
        held_out=False,
        notices=("one", "two"),
        error={"code": "numerical", "message": "NaN"},
        environment={"torch": "2"},
    )
    store.write(whole)
    assert store.get(version.id) == whole
    assert whole.worse_than_base
    assert not version.worse_than_base


def test_all_are_listed_newest_first_and_by_preset(store: VersionStore) -> None:
    assert store.list() == []
    ids = [begun(store, preset).id for preset in ("pocket", "other", "pocket", "pocket", "other", "pocket")]
    assert [version.id for version in store.list()] == ids[::-1], "within one second too"
    assert [version.id for version in store.list(preset="other")] == [ids[4], ids[1]]
    assert store.list(preset="nobody's") == []


def test_what_is_deleted_is_gone_and_nothing_else(store: VersionStore) -> None:
    gone, stays = begun(store, weights=True), begun(store)
    store.delete(gone.id)
    assert [version.id for version in store.list()] == [stays.id]
    assert not store.path(gone.id).exists()
    assert store.events(gone.id) == []
    for use in (store.get, store.delete, store.promote):
        with pytest.raises(VersionError, match="There is no version"):
            use(gone.id)


DAMAGE: dict[str, Any] = {
    "empty": lambda text: "",
    "torn": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "\x00" * len(text),
    "no record": lambda text: "[]",
    "nothing": lambda text: "null",
    "deep": lambda text: "[" * 100_000,
    "without a request": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "request"}),
    "request of another studio": lambda text: text.replace('"lora_rank"', '"lora_rang"'),
    "request out of range": lambda text: text.replace('"lora_rank": 16', '"lora_rank": 0'),
    "state that is none": lambda text: text.replace('"state": "waiting"', '"state": "flying"'),
    "another's id": lambda text: text.replace('"id": "', '"id": "../../'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_left_out_of_the_list_and_named_when_asked_for(store: VersionStore, damage: str) -> None:
    whole, hurt = begun(store), begun(store, weights=True)
    store.promote(hurt.id)
    path = record_of(store, hurt)
    text = path.read_text(encoding="utf-8")
    spoilt = DAMAGE[damage](text)
    assert spoilt != text
    path.write_text(spoilt, encoding="utf-8")
    assert [version.id for version in store.list()] == [whole.id]
    with pytest.raises(VersionError, match=f"version {hurt.id} cannot be read"):
        store.get(hurt.id)
    assert store.promoted("pocket") is None, "new requests start from the model as it came"


@pytest.mark.parametrize("version_id", NO_IDS, ids=lambda each: repr(each)[:30])
def test_what_is_no_id_leads_nowhere(store: VersionStore, version_id: Any) -> None:
    begun(store, weights=True)
    # What such a path would lead to is there.
    outside = store.folder.parent
    (outside / LOG).write_text('{"event": "Secret"}\n', encoding="utf-8")
    (outside / LORA_FILE).write_bytes(b"weights")
    before = sorted(outside.rglob("*"))
    asks = (store.get, store.delete, store.promote, store.usable, store.events, store.lock, store.path)
    for ask in (*asks, lambda each: store.adapter_folder(each, "pocket")):
        with pytest.raises(VersionError, match="There is no version") as refused:
            ask(version_id)
        assert refused.value.field == "version"
        assert len(refused.value.message) < 150
    assert sorted(outside.rglob("*")) == before


# -- promotions -------------------------------------------------------------------------------------------------------


def test_only_what_has_weights_is_promoted(store: VersionStore) -> None:
    version = begun(store)
    with pytest.raises(VersionError, match="no weights"):
        store.promote(version.id)
    assert promoted(store) is None
    (store.path(version.id) / LORA_FILE).write_bytes(b"weights")
    assert store.promote(version.id).id == version.id
    assert promoted(store) == version.id
    assert promoted(VersionStore(store.folder.parent)) == version.id, "remembered"


def test_promotions_are_rolled_back_one_by_one_to_the_model_as_it_came(store: VersionStore) -> None:
    first, second = begun(store, weights=True), begun(store, weights=True)
    other = begun(store, "other", weights=True)
    for version in (first, other, second):
        store.promote(version.id)
    assert promoted(store) == second.id
    back = store.roll_back("pocket")
    assert back is not None
    assert back.id == promoted(store) == first.id
    assert store.roll_back("pocket") is None
    assert promoted(store) is None
    with pytest.raises(VersionError, match="No version of pocket is promoted") as refused:
        store.roll_back("pocket")
    assert refused.value.field == "preset"
    assert promoted(store, "other") == other.id, "each preset has its own"
    assert len(store.list()) == 3, "nothing was deleted"


def test_promoting_again_is_no_second_promotion(store: VersionStore) -> None:
    first, second = begun(store, weights=True), begun(store, weights=True)
    for version in (first, second, first, first):
        store.promote(version.id)
    assert promoted(store) == first.id
    store.roll_back("pocket")
    assert promoted(store) == second.id
    assert store.roll_back("pocket") is None


def test_deleting_what_is_promoted_falls_back_to_the_one_before(store: VersionStore) -> None:
    first, second, third = (begun(store, weights=True) for _ in range(3))
    for version in (first, second, third):
        store.promote(version.id)
    store.delete(second.id)  # not the one in use: nothing changes
    assert promoted(store) == third.id
    store.delete(third.id)
    assert promoted(store) == first.id
    store.delete(first.id)
    assert promoted(store) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7", '{"pocket": 7}', '{"pocket": {}}', '{"pocket": [7]}'])
def test_damaged_promotions_count_as_none_and_are_mended_by_the_next(store: VersionStore, content: str) -> None:
    version = begun(store, weights=True)
    (store.folder / "promoted.json").write_text(content, encoding="utf-8")
    assert promoted(store) is None
    store.promote(version.id)
    assert promoted(store) == version.id


def test_a_version_is_used_by_its_own_preset_only(store: VersionStore) -> None:
    version = begun(store)
    with pytest.raises(VersionError, match="no weights"):
        store.adapter_folder(version.id, "pocket")
    (store.path(version.id) / LORA_FILE).write_bytes(b"weights")
    assert store.adapter_folder(version.id, "pocket") == store.path(version.id)
    with pytest.raises(VersionError, match="is one of pocket, not of other") as refused:
        store.adapter_folder(version.id, "other")
    assert refused.value.field == "adapter"
    assert "pocket" in refused.value.way_out


# -- in training ------------------------------------------------------------------------------------------------------

TRAINER = """
import sys, time
from pathlib import Path
from studio.records.versions import VersionStore
lock = VersionStore(Path(sys.argv[1])).lock(sys.argv[2])
assert lock.try_acquire()
print("training", flush=True)
time.sleep(600)
"""


def test_one_whose_process_died_is_stopped(store: VersionStore) -> None:
    version = replace(begun(store), state="training")
    store.write(version)
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(store.folder.parent), version.id], stdout=subprocess.PIPE, text=True
    )
    try:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "training\n"
        assert store.state_of(store.get(version.id)) == "training"
        with pytest.raises(VersionError, match="being trained"):
            store.delete(version.id)
        assert store.get(version.id) == version
    finally:
        os.kill(trainer.pid, signal.SIGTERM)
        trainer.wait()
    assert store.state_of(store.get(version.id)) == "stopped"
    store.delete(version.id)
    assert store.list() == []
    assert store.state_of(version) == "stopped", "asked after it was deleted"


def line(step: int) -> bytes:
    return json.dumps({"event": "TrainingSample", "step": step, "prompt": "é\u2028", "path": "a.mp4"}).encode() + b"\n"


def steps(events: list[Numbered]) -> list[int]:
    return [event.step for _, event in events if isinstance(event, TrainingSample)]


def test_events_are_told_after_those_known_and_a_torn_line_is_left_out(store: VersionStore) -> None:
    version = begun(store)
    assert store.events(version.id) == []
    (store.path(version.id) / LOG).write_bytes(b"".join(map(line, range(4))) + line(3)[:20])
    assert steps(store.events(version.id)) == [0, 1, 2, 3]
    assert store.events(version.id)[0][1] == TrainingSample(step=0, prompt="é\u2028", path="a.mp4"), "as what it was"
    assert steps(store.events(version.id, after=3)) == [3]
    assert store.events(version.id, after=4) == []
    assert store.events(version.id, after=9) == []


def test_whoever_follows_hears_each_event_once_whatever_is_torn_on_the_way(store: VersionStore) -> None:
    version = begun(store)
    log = store.path(version.id) / LOG
    first, second, third, fourth = map(line, range(4))
    heard: list[int] = []
    last = 0
    for part in (first + second[:9], second[9:], b'{"ste\xff\x00\n' + third, b"\n" + fourth + first[:11], b""):
        with log.open("ab") as file:
            file.write(part)
        news = store.events(version.id, after=last)
        heard, last = heard + steps(news), news[-1][0] if news else last
    assert heard == [0, 1, 2, 3]
