"""A vehicle is put into a clip: where it stands, what may change, what is refused, and that the record says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.patience import until

from studio.clips.clip import Clip
from studio.clips.cut_out import CutOut
from studio.clips.read import read_clip
from studio.clips.reference import reference_to
from studio.clips.write import write_clip
from studio.drive import begin_insertion, insert, insert_vehicle
from studio.drive.inserting import Inserter, seen_part
from studio.drive.vehicles import pasted_at, places, rendered
from studio.driving_world import VEHICLE_COLOURS, VEHICLE_TYPES, render, sample_scene
from studio.errors import InsertionError, RequestError, StudioError
from studio.events import FramesHarmonised, InsertionFinished, InsertionStarted, Notice, never
from studio.jobs import JobQueue
from studio.pipelines.harmoniser import Harmoniser, zone_of
from studio.records.insertions import PASTE, RESULT, SOURCE, Insertion, InsertionStore
from studio.records.runs import RunStore
from studio.requests.fields import choices_of
from studio.requests.insertion import InsertionRequest, PathPoint, RenderedVehicle, read_insertion_request
from studio.requests.work import InsertVehicle

PATH = "0:60,70,30 6:90,74,36"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of the world by night, as anybody's."""
    path = tmp_path_factory.mktemp("clips") / "drive.mp4"
    scene = sample_scene(904, time_of_day="night", weather="clear")
    write_clip(render(scene, height=96, width=160, num_frames=9), path)
    return path


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cut-out, with room around it."""
    pixels = np.zeros((60, 100, 4), np.uint8)
    pixels[10:50, 20:90] = (200, 40, 40, 255)
    path = tmp_path_factory.mktemp("vehicles") / "car.png"
    Image.fromarray(pixels).save(path)
    return path


def request_of(clip: Path, vehicle: Path | None = None, **fields: Any) -> InsertionRequest:
    named = {"vehicle": reference_to(vehicle, field="vehicle")} if vehicle else {}
    return read_insertion_request({"source": reference_to(clip, field="source"), "path": PATH} | named | fields)


def loud() -> Harmoniser:
    import torch

    torch.manual_seed(0)
    network = Harmoniser(channels=8, denoiser_channels=8, num_denoiser_blocks=2)
    torch.nn.init.normal_(network.decoder.tail.weight, std=0.1)
    return network.eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------------------ the verb


def test_a_cut_out_is_put_into_a_clip_and_the_record_holds_all_three_videos(
    drive: Path, vehicle: Path, store: RunStore
) -> None:
    events = list(insert_vehicle(request_of(drive, vehicle, num_frames=8), store=store))
    assert isinstance(events[0], InsertionStarted)
    assert (events[0].num_frames, events[0].height, events[0].width) == (8, 96, 160)
    assert any(isinstance(event, Notice) and "Frames 1 to 8 of 9" in event.text for event in events)
    assert [event.done for event in events if isinstance(event, FramesHarmonised)][-1] == 8
    assert isinstance(events[-1], InsertionFinished)
    insertions = InsertionStore(store.folder)
    insertion = insertions.get(events[-1].insertion_id)
    assert insertion.state == "complete"
    assert insertion.title == "drive.mp4: car.png"
    clips = {
        name: read_clip(insertions.path(insertion.id) / name).clip.frames.astype(int)
        for name in (SOURCE, PASTE, RESULT)
    }
    there = np.s_[3, 60:68, 70:80]
    assert np.abs(clips[PASTE][there] - clips[SOURCE][there]).mean() > 30
    assert np.abs(clips[RESULT][there] - clips[PASTE][there]).mean() > 5  # by night it is lit as by night
    assert np.abs(clips[RESULT][7] - clips[SOURCE][7]).mean() < 2  # after the path's end it is gone
    assert np.abs(clips[RESULT][:, :30] - clips[SOURCE][:, :30]).mean() < 2


def test_a_frame_stays_bit_for_bit_but_for_the_vehicles_zone() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)
    cut = rendered(RenderedVehicle(type="car", colour="blue", view="rear"))
    for width in (40.0, 200.0):  # the second is larger than what the harmoniser looks at
        place = PathPoint(frame=0, x=200, y=260, width=width)
        pasted, made = Inserter(loud())(frame, cut, place)
        paste = pasted_at(cut, place, height=300, width=420)
        assert paste is not None
        alpha = np.zeros((300, 420), np.float32)
        alpha[paste.rows, paste.columns] = paste.alpha
        outside = zone_of(alpha) == 0
        assert np.array_equal(made[outside], frame[outside])
        assert np.array_equal(pasted[alpha == 0], frame[alpha == 0])
        assert (made != pasted)[~outside].mean() > 0.3


def test_what_is_stopped_is_said_to_be_and_begins_anew(drive: Path, vehicle: Path, store: RunStore) -> None:
    insertion = begin_insertion(request_of(drive, vehicle, num_frames=2, path="0:60,70,30"), store=store)
    work = InsertVehicle(insertion_id=insertion.id)
    list(insert(work, store=store, owner="local", stop=lambda: "cancel"))
    insertions = InsertionStore(store.folder)
    assert insertions.get(insertion.id).state == "stopped"
    list(insert(work, store=store, owner="local", stop=never))
    assert insertions.get(insertion.id).state == "complete"
    with pytest.raises(InsertionError, match="is complete"):
        list(insert(work, store=store, owner="local", stop=never))


def test_another_owner_does_not_see_it(drive: Path, vehicle: Path, store: RunStore) -> None:
    insertion = begin_insertion(request_of(drive, vehicle), store=store, owner="ann")
    with pytest.raises(InsertionError, match="no insertion"):
        list(insert(InsertVehicle(insertion_id=insertion.id), store=store, owner="bob", stop=never))
    assert InsertionStore(store.folder).list(owner="bob") == []


def test_a_clip_that_changed_meanwhile_is_refused_and_the_record_says_so(
    drive: Path, vehicle: Path, store: RunStore, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(drive.read_bytes())
    insertion = begin_insertion(request_of(copy, vehicle), store=store)
    write_clip(Clip(frames=np.zeros((2, 16, 16, 3), np.uint8), fps=10), copy)
    with pytest.raises(RequestError, match="not what it was"):
        list(insert(InsertVehicle(insertion_id=insertion.id), store=store, owner="local", stop=never))
    failed: Insertion = InsertionStore(store.folder).get(insertion.id)
    assert failed.state == "failed"
    assert failed.error is not None


def test_the_queue_does_it(drive: Path, vehicle: Path, store: RunStore) -> None:
    insertion = begin_insertion(request_of(drive, vehicle, num_frames=2, path="0:60,70,30"), store=store)
    with JobQueue(store=store, in_process=True, verbs={"clip": "support.scripted_generate:generate"}) as queue:
        job = queue.submit(InsertVehicle(insertion_id=insertion.id), owner="local")
        until(lambda: queue.get(job.id).state in ("complete", "failed"))
    assert InsertionStore(store.folder).get(insertion.id).outputs == (RESULT, PASTE, SOURCE)


# ------------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"path": "0:60,70"}, "path", "no place of a path"),
        ({"path": "0:60,70,30 0:70,70,30"}, "path", "goes from frame 0 to frame 0"),
        ({"path": "0:60,70,30 9:70,70,30"}, "path", "names frame 9, and 9 frames are taken"),
        ({"path": "0:300,70,30"}, "path", "nothing of the vehicle is in the picture"),
        ({"path": "0:60,nan,30"}, "path", "will not do"),
        ({"path": "0:60,70,3"}, "path", "will not do"),
        ({"path": "0:60,70,400"}, "path", "more than twice as wide"),
        ({"path": ""}, "path", "no path yet"),
        ({"strength": 1.5}, "strength", "will not do"),
        ({"start": 5.0}, "start", "ends after"),
        ({"render": "car:red:rear"}, "vehicle", "not both"),
        ({"colour": "red"}, "colour", "Unknown setting"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field_and_nothing_is_begun(
    fields: dict[str, Any], field: str, words: str, drive: Path, vehicle: Path, store: RunStore
) -> None:
    with pytest.raises(StudioError, match=words) as refused:
        begin_insertion(request_of(drive, vehicle, **fields), store=store)
    assert refused.value.field is not None
    assert refused.value.field.startswith(field)
    assert InsertionStore(store.folder).list() == []


def test_a_vehicle_that_does_not_exist_is_refused(drive: Path) -> None:
    with pytest.raises(RequestError, match="No vehicle is named"):
        request_of(drive)
    for unknown in ("tram", "car:red:rear:big", "car:pink"):
        with pytest.raises(RequestError):
            request_of(drive, render=unknown)


@pytest.mark.parametrize("fault", ["a photograph", "nothing", "a text", "too large"])
def test_a_picture_that_is_no_cut_out_is_refused(fault: str, drive: Path, store: RunStore, tmp_path: Path) -> None:
    path = tmp_path / "car.png"
    match fault:
        case "a photograph":
            Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(path)
        case "nothing":
            Image.fromarray(np.zeros((20, 20, 4), np.uint8)).save(path)
        case "too large":
            Image.fromarray(np.zeros((1, 5000, 4), np.uint8)).save(path)
        case _:
            path.write_text("no picture")
    with pytest.raises(InsertionError) as refused:
        begin_insertion(request_of(drive, path), store=store)
    assert refused.value.field == "vehicle"
    assert refused.value.way_out


def test_requests_know_the_vehicles_that_the_world_has() -> None:
    fields = RenderedVehicle.model_fields
    assert choices_of(fields["type"]) == VEHICLE_TYPES
    assert choices_of(fields["colour"]) == VEHICLE_COLOURS


# ----------------------------------------------------------------------------------------------- vehicles and their way


def test_between_two_places_it_goes_straight_and_beyond_them_it_is_not_there() -> None:
    path = [PathPoint(frame=2, x=10, y=20, width=10), PathPoint(frame=6, x=30, y=40, width=20)]
    standing = places(path, 9)
    assert [place is not None for place in standing] == [False, False, True, True, True, True, True, False, False]
    assert standing[4] == PathPoint(frame=4, x=20, y=30, width=15)
    assert all(place is not None for place in places(path[:1], 9))


@pytest.mark.parametrize(("x", "width"), [(60.0, 40.0), (60.5, 40.0), (61.25, 17.0), (58.0, 96.0)])
def test_a_vehicle_stands_where_its_path_says(x: float, width: float) -> None:
    block = CutOut(colours=np.full((30, 60, 3), 200, np.uint8), alpha=np.ones((30, 60), np.float32))
    paste = pasted_at(block, PathPoint(frame=0, x=x, y=80, width=width), height=120, width=160)
    assert paste is not None
    alpha = np.zeros((120, 160))
    alpha[paste.rows, paste.columns] = paste.alpha
    columns, rows = np.arange(160) + 0.5, np.arange(120) + 0.5
    assert alpha.sum() == pytest.approx(width * width / 2, rel=0.08)
    assert (alpha.sum(axis=0) * columns).sum() / alpha.sum() == pytest.approx(x, abs=0.05)
    assert (alpha.sum(axis=1) * rows).sum() / alpha.sum() == pytest.approx(80 - width / 4, abs=0.3)


def test_beyond_the_pictures_edge_there_is_nothing_to_paste() -> None:
    block = CutOut(colours=np.full((30, 60, 3), 200, np.uint8), alpha=np.ones((30, 60), np.float32))
    assert pasted_at(block, PathPoint(frame=0, x=-50, y=80, width=40), height=120, width=160) is None
    half = pasted_at(block, PathPoint(frame=0, x=0, y=80, width=40), height=120, width=160)
    assert half is not None
    assert half.columns.start == 0
    part = seen_part(half, height=120, width=160)
    assert part == (slice(0, 120), slice(0, 160))


@pytest.mark.parametrize("view", ["rear", "front", "left", "right"])
def test_the_worlds_vehicles_are_cut_out_whole(view: str) -> None:
    cut = rendered(RenderedVehicle.model_validate({"type": "car", "colour": "yellow", "view": view}))
    height, width = cut.alpha.shape
    assert height >= 60
    assert (1.6 if view in ("left", "right") else 0.8) < width / height < 4
    solid = cut.colours[cut.alpha == 1]
    yellow = (solid[:, 0] > 1.4 * solid[:, 2].astype(float)) & (solid[:, 1] > 1.2 * solid[:, 2].astype(float))
    assert yellow.mean() > 0.25
