"""What was made is held against the original, picture by picture, and the figures lie in the record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from support.films import seconds_of, write_pictures
from support.moving_textures import texture
from support.patience import until

from studio.clips.clip import Clip
from studio.clips.film import Film
from studio.clips.reference import reference_to
from studio.clips.shrinking import shrunk
from studio.clips.write import write_clip
from studio.errors import EnlargementError, RequestError
from studio.events import EnlargementEvent, EnlargementFinished, FramesMeasured, Notice, never
from studio.jobs import JobQueue
from studio.records.enlargements import (
    BICUBIC,
    EXCERPT,
    MADE,
    ORIGINAL_OF,
    TWIN_OF,
    VIDEO,
    Enlargement,
    EnlargementStore,
)
from studio.records.runs import RunStore
from studio.requests.super_resolution import Excerpt, SuperResolutionRequest, read_super_resolution_request
from studio.requests.work import EnlargeClip
from studio.super_resolve import FIGURES, begin, enlarge, hold_against, super_resolve, walk
from studio.super_resolve.walk import PART

COUNT = PART + 6


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def originals() -> np.ndarray:
    ground = texture(64, 64)
    return np.stack([np.roll(ground, (index, 2 * index), (0, 1)) for index in range(COUNT)])


@pytest.fixture
def large(originals: np.ndarray, tmp_path: Path) -> Path:
    write_clip(Clip(frames=originals, fps=25), tmp_path / "large.mp4")
    return tmp_path / "large.mp4"


@pytest.fixture
def small(originals: np.ndarray, tmp_path: Path) -> Path:
    """Its timestamps are uneven, and the original's are not."""
    pictures = [np.rint(np.clip(shrunk(each.astype(np.float32), 2), 0, 255)).astype(np.uint8) for each in originals]
    times = np.cumsum(np.random.default_rng(1).integers(300, 900, COUNT)).tolist()
    return write_pictures(tmp_path / "small.mp4", times, pictures=pictures)


def request_of(path: Path, **fields: object) -> SuperResolutionRequest:
    return read_super_resolution_request(
        {"source": reference_to(path, field="source"), "method": "back-projection"} | fields
    )


def the_one(store: RunStore) -> Enlargement:
    (enlargement,) = EnlargementStore(store.folder).list()
    return enlargement


def followed(enlargement: Enlargement, store: RunStore, excerpt: Excerpt | None = None) -> list[EnlargementEvent]:
    work = EnlargeClip(enlargement_id=enlargement.id, excerpt=excerpt)
    return list(enlarge(work, store=store, owner="local", stop=never))


def test_the_figures_are_those_of_the_file_and_of_its_bicubic_twin(small: Path, large: Path, store: RunStore) -> None:
    reference = reference_to(large, field="original")
    events = list(super_resolve(request_of(small), store=store, original=reference))
    assert isinstance(events[-1], EnlargementFinished)
    progress = [event for event in events if isinstance(event, FramesMeasured)]
    assert progress
    assert all(0 < event.done <= event.num_frames == COUNT for event in progress)
    found = the_one(store)
    assert found.state == "complete"
    measured = found.measurements[VIDEO]
    assert (measured.num_frames, measured.against_original, measured.lacking) == (COUNT, True, {})
    assert list(measured.figures) == [MADE, BICUBIC]
    folder = EnlargementStore(store.folder).path(found.id)
    for whose, name in ((MADE, VIDEO), (BICUBIC, TWIN_OF[VIDEO])):
        assert list(measured.figures[whose]) == list(FIGURES)
        with Film(folder / name) as film, Film(large) as meant:
            pairs = [(one.pixels, other.pixels) for one, other in zip(film, meant, strict=True)]
        shown, beside = (np.stack(pictures) for pictures in zip(*pairs, strict=True))
        for figure in ("psnr", "ssim", "colour_error", "warping_error"):
            expected = FIGURES[figure].function(shown, beside)
            assert measured.figures[whose][figure] == pytest.approx(expected), figure
    assert measured.figures[MADE]["psnr"] > measured.figures[BICUBIC]["psnr"] > 20


def test_the_original_is_there_to_be_looked_at_with_the_clips_own_timing(
    small: Path, large: Path, store: RunStore
) -> None:
    list(super_resolve(request_of(small), store=store, original=reference_to(large, field="original")))
    found = the_one(store)
    folder = EnlargementStore(store.folder).path(found.id)
    assert found.outputs[ORIGINAL_OF[VIDEO]] == COUNT
    assert seconds_of(folder / ORIGINAL_OF[VIDEO]) == pytest.approx(seconds_of(folder / TWIN_OF[VIDEO]))
    assert not list(folder.glob(".measuring-*"))


def test_without_an_original_what_needs_none_is_measured(small: Path, store: RunStore) -> None:
    list(super_resolve(request_of(small), store=store))
    measured = the_one(store).measurements[VIDEO]
    assert not measured.against_original
    assert set(measured.figures[MADE]) == set(measured.figures[BICUBIC]) == {"shrink_back", "flicker"}
    assert ORIGINAL_OF[VIDEO] not in the_one(store).outputs


def test_of_a_long_clip_bicubic_is_measured_beside_an_original_and_not_kept(
    small: Path, large: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_to(large, field="original")
    list(super_resolve(request_of(small), store=store, original=reference))
    short = the_one(store)
    monkeypatch.setattr(walk, "COMPARED", COUNT - 1)
    list(super_resolve(request_of(small), store=store, original=reference))
    long = EnlargementStore(store.folder).list()[0]
    assert long.id != short.id
    assert set(long.outputs) & {TWIN_OF[VIDEO], ORIGINAL_OF[VIDEO]} == set()
    # It went through the same encoder, in other parts.
    for whose in (MADE, BICUBIC):
        for name, value in short.measurements[VIDEO].figures[whose].items():
            assert long.measurements[VIDEO].figures[whose][name] == pytest.approx(value, rel=0.1), name
    list(super_resolve(request_of(small), store=store))
    assert list(EnlargementStore(store.folder).list()[0].measurements[VIDEO].figures) == [MADE]


def test_a_part_that_is_tried_is_held_against_the_same_part_of_the_original(
    small: Path, large: Path, store: RunStore
) -> None:
    enlargement = begin(request_of(small), store=store, original=reference_to(large, field="original"))
    last = followed(enlargement, store, Excerpt(start=1.2, seconds=0.2))[-1]  # in the second part
    assert isinstance(last, EnlargementFinished)
    assert last.path == EXCERPT
    tried = the_one(store)
    assert tried.state == "stopped"
    assert tried.outputs[ORIGINAL_OF[EXCERPT]] == tried.measurements[EXCERPT].num_frames == COUNT - PART
    assert tried.measurements[EXCERPT].figures[MADE]["psnr"] > 25  # of other pictures it would be below 20
    followed(enlargement, store)
    whole = the_one(store)
    assert set(whole.measurements) == {EXCERPT, VIDEO}


def test_an_original_may_come_later_and_nothing_is_made_twice(small: Path, large: Path, store: RunStore) -> None:
    list(super_resolve(request_of(small), store=store))
    enlargement = the_one(store)
    with pytest.raises(EnlargementError, match="complete"):
        followed(enlargement, store)
    video = EnlargementStore(store.folder).path(enlargement.id) / VIDEO
    stamp = video.stat().st_mtime_ns
    later = hold_against(enlargement.id, reference_to(large, field="original"), store=store)
    assert later.measurements == {}
    events = followed(later, store)
    assert isinstance(events[-1], EnlargementFinished)
    assert the_one(store).measurements[VIDEO].against_original
    assert video.stat().st_mtime_ns == stamp
    assert hold_against(enlargement.id, reference_to(large, field="original"), store=store).measurements


def test_left_off_while_measuring_it_is_complete_and_measured_the_next_time(
    small: Path, large: Path, store: RunStore
) -> None:
    enlargement = begin(request_of(small), store=store, original=reference_to(large, field="original"))
    seen: list[EnlargementEvent] = []

    def stop() -> Literal["cancel"] | None:
        return "cancel" if any(isinstance(event, FramesMeasured) for event in seen) else None

    work = EnlargeClip(enlargement_id=enlargement.id)
    for event in enlarge(work, store=store, owner="local", stop=stop):
        seen.append(event)
    assert not isinstance(seen[-1], EnlargementFinished)
    left = the_one(store)
    assert left.state == "complete"
    assert left.measurements == {}
    folder = EnlargementStore(store.folder).path(enlargement.id)
    (folder / ".measuring-killed").mkdir()
    followed(left, store)
    assert the_one(store).measurements[VIDEO].figures[MADE]["psnr"] > 20
    assert not list(folder.glob(".measuring-*"))


def test_closed_while_measuring_it_can_be_taken_up_at_once(small: Path, large: Path, store: RunStore) -> None:
    enlargement = begin(request_of(small), store=store, original=reference_to(large, field="original"))
    stream = enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner="local", stop=never)
    next(event for event in stream if isinstance(event, FramesMeasured))
    with pytest.raises(EnlargementError, match="being made"):
        hold_against(enlargement.id, None, store=store)
    stream.close()
    followed(the_one(store), store)
    assert VIDEO in the_one(store).measurements


def test_an_original_that_does_not_fit_is_refused_with_the_field_and_the_way_out(
    small: Path, large: Path, originals: np.ndarray, tmp_path: Path, store: RunStore
) -> None:
    reference = reference_to(large, field="original")
    with pytest.raises(RequestError, match=r"The original has 64×64, and small\.mp4 becomes 128×128 at 4×") as refused:
        begin(request_of(small, scale=4), store=store, original=reference)
    assert (refused.value.field, refused.value.way_out) == ("original", "Set scale to 2.")
    write_clip(Clip(frames=originals[:, :48], fps=25), tmp_path / "low.mp4")
    with pytest.raises(RequestError, match="has 64×48") as refused:
        begin(request_of(small), store=store, original=reference_to(tmp_path / "low.mp4", field="original"))
    assert "scale or crop" in refused.value.way_out
    write_clip(Clip(frames=originals[:-3], fps=25), tmp_path / "short.mp4")
    with pytest.raises(RequestError, match=f"has {COUNT - 3} pictures, and small.mp4 has {COUNT}") as refused:
        begin(request_of(small), store=store, original=reference_to(tmp_path / "short.mp4", field="original"))
    assert refused.value.field == "original"
    assert EnlargementStore(store.folder).list() == []


def test_an_original_that_changes_meanwhile_takes_nothing_from_what_was_made(
    small: Path, large: Path, store: RunStore
) -> None:
    enlargement = begin(request_of(small), store=store, original=reference_to(large, field="original"))
    large.write_bytes(large.read_bytes() + b"\0")
    events = followed(enlargement, store)
    assert isinstance(events[-1], EnlargementFinished)
    assert any(isinstance(event, Notice) and "could not be measured" in event.text for event in events)
    found = the_one(store)
    assert found.state == "complete"
    error = found.measurements[VIDEO].error
    assert error is not None
    assert error["field"] == "original"


def test_a_perfect_figure_survives_the_record(store: RunStore, tmp_path: Path) -> None:
    flat = np.full((3, 32, 32, 3), 128, np.uint8)
    path = write_pictures(tmp_path / "flat.mp4", [0, 512, 1024], pictures=list(flat))
    write_clip(Clip(frames=np.full((3, 64, 64, 3), 128, np.uint8), fps=25), tmp_path / "large.mp4")
    list(super_resolve(request_of(path), store=store, original=reference_to(tmp_path / "large.mp4", field="original")))
    figures = the_one(store).measurements[VIDEO].figures[MADE]
    assert figures["psnr"] > 45
    assert math.isnan(figures["flicker"])


def test_who_always_has_to_give_way_gets_on_by_a_part_each_turn_and_is_measured(
    small: Path, large: Path, store: RunStore
) -> None:
    enlargement = begin(request_of(small), store=store, original=reference_to(large, field="original"))
    work = EnlargeClip(enlargement_id=enlargement.id)
    turns = [list(enlarge(work, store=store, owner="local", stop=lambda: "give way")) for _ in range(2)]
    assert [isinstance(events[-1], EnlargementFinished) for events in turns] == [False, True]
    assert the_one(store).measurements[VIDEO].against_original


def test_as_a_job_it_is_measured_by_the_worker(small: Path, large: Path, store: RunStore) -> None:
    with JobQueue(store=store, in_process=True) as queue:
        enlargement = begin(request_of(small), store=store, original=reference_to(large, field="original"))
        job = queue.submit(EnlargeClip(enlargement_id=enlargement.id))
        assert until(lambda: now if (now := queue.get(job.id)).final else None).state == "complete"
    assert the_one(store).measurements[VIDEO].against_original
