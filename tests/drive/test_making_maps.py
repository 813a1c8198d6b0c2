"""A clip, a world or a file becomes a map set; whatever goes wrong, the record says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.films import with_everything, write_pictures
from support.patience import until

from studio.clips.map_files import read_maps, write_maps
from studio.clips.read import read_clip
from studio.clips.reference import reference_to
from studio.clips.write import write_clip
from studio.control_maps import read_control_video, write_control_video
from studio.drive import begin, export, make, make_maps
from studio.drive.frames import read_stretch
from studio.drive.verb import Size
from studio.driving_world import render_with_maps, sample_scene
from studio.errors import ClipRefused, MapsError, RequestError, StudioError
from studio.events import FramesMapped, MapsEvent, MapsFinished, MapsStarted, Notice, never
from studio.jobs import JobQueue
from studio.records.map_sets import NUMBERS, SOURCE, MapSet, MapSetStore
from studio.records.runs import RunStore
from studio.requests.maps import USUAL, MapsRequest, read_maps_request
from studio.requests.work import MakeMaps


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of the world, as anybody's."""
    path = tmp_path_factory.mktemp("clips") / "drive.mp4"
    write_clip(render_with_maps(sample_scene(904), height=96, width=160, num_frames=9)[0], path)
    return path


def request_of(path: Path | None = None, **fields: Any) -> MapsRequest:
    named = {} if path is None else {"source": reference_to(path, field="source")}
    return read_maps_request(named | fields)


def made(request: MapsRequest, store: RunStore) -> tuple[MapSet, list[MapsEvent]]:
    events = list(make_maps(request, store=store))
    last = events[-1]
    assert isinstance(last, MapsFinished)
    return MapSetStore(store.folder).get(last.map_set_id), events


def test_a_clip_becomes_maps_with_their_numbers_and_videos(drive: Path, store: RunStore) -> None:
    map_set, events = made(request_of(drive, num_frames=5), store)
    assert isinstance(events[0], MapsStarted)
    assert (events[0].num_frames, events[0].height, events[0].width) == (5, 96, 160)
    assert any(isinstance(event, FramesMapped) for event in events)
    assert map_set.state == "complete"
    assert map_set.maps == USUAL
    folder = MapSetStore(store.folder).path(map_set.id)
    assert set(map_set.outputs) == {NUMBERS, SOURCE, *(f"{name}.mp4" for name in USUAL)}
    assert all((folder / name).is_file() for name in map_set.outputs)
    maps = read_maps(folder / NUMBERS)
    assert maps.names == USUAL
    assert (maps.num_frames, maps.size, maps.fps) == (5, (96, 160), 12.0)
    said = [event.text for event in events if isinstance(event, Notice)]
    assert tuple(said) == map_set.notices
    assert "Frames 1 to 5 of 9 were taken." in said
    assert read_clip(folder / "edges.mp4").clip.frames.shape == (5, 96, 160, 3)


def test_a_world_gives_exact_maps_and_its_clip(store: RunStore) -> None:
    map_set, _ = made(request_of(world=904, height=64, width=96, num_frames=3, maps="edges,depth,layout,boxes"), store)
    assert map_set.maps == ("layout", "edges", "depth", "boxes")
    exact = render_with_maps(sample_scene(904), height=64, width=96, num_frames=3)[1]
    maps = read_maps(MapSetStore(store.folder).path(map_set.id) / NUMBERS)
    np.testing.assert_array_equal(maps.depth, exact.depth)
    np.testing.assert_array_equal(maps.edges, exact.edges)
    assert maps.boxes == exact.boxes
    assert "exact" in map_set.notices[0]


def test_maps_from_a_file_and_control_videos_are_taken_as_they_come(store: RunStore, tmp_path: Path) -> None:
    exact = render_with_maps(sample_scene(904), height=64, width=96, num_frames=3)[1]
    write_maps(exact, tmp_path / "mine.npz")
    map_set, _ = made(request_of(given=reference_to(tmp_path / "mine.npz", field="given")), store)
    assert map_set.maps == exact.names
    assert map_set.title == "mine.npz"
    assert map_set.notices[0].startswith("mine.npz holds edges, lanes, depth")

    write_control_video(exact, "edges", tmp_path / "canny.mp4")
    write_clip(read_clip(tmp_path / "canny.mp4").clip, tmp_path / "canny.mp4")  # as from another program
    map_set, _ = made(request_of(given=reference_to(tmp_path / "canny.mp4", field="given")), store)
    assert map_set.maps == ("edges",)
    assert "canny.mp4 is taken for edges: it is black, with thin white lines." in map_set.notices
    given = reference_to(tmp_path / "canny.mp4", field="given")
    map_set, _ = made(request_of(given=given, kind="lanes"), store)
    assert map_set.maps == ("lane_lines",)


def test_a_box_is_given_in_pixels_of_the_clip_as_it_came(store: RunStore, tmp_path: Path) -> None:
    clip, exact = render_with_maps(sample_scene(904), height=544, width=1088, num_frames=3)
    write_clip(clip, tmp_path / "large.mp4")
    assert exact.boxes is not None
    car = next(box for box in exact.boxes[0] if box.label == "car" and box.width > 40)
    line = f"0:{car.left},{car.top},{car.right},{car.bottom}:car"
    map_set, _ = made(request_of(tmp_path / "large.mp4", maps="boxes", boxes=(line,)), store)
    assert (map_set.height, map_set.width) == (480, 960)
    assert "The clip was scaled from 1088×544 to 960×480." in map_set.notices
    maps = read_maps(MapSetStore(store.folder).path(map_set.id) / NUMBERS)
    assert maps.boxes is not None
    assert maps.boxes[0][0].left == pytest.approx(car.left * 960 / 1088)
    assert maps.boxes[2]


def test_the_stretch_that_is_measured_begins_where_it_was_asked_for(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "even.mp4", [512 * n for n in range(10)])
    whole = read_stretch(path, start=0, num_frames=50).clip
    part = read_stretch(path, start=0.12, num_frames=4)
    np.testing.assert_array_equal(part.clip.frames, whole.frames[3:7])
    assert part.notices == ("Frames 4 to 7 of 10 were taken.",)
    wide = with_everything(tmp_path)  # its pixels are wider than high, and its rate varies
    stretch = read_stretch(wide, start=0, num_frames=5)
    assert stretch.clip.width / stretch.clip.height == pytest.approx(64 * 4 / 3 / 48, rel=0.03)
    assert any("rate varies" in notice for notice in stretch.notices)


def test_maps_are_written_elsewhere_at_exactly_the_size_that_is_asked_for(
    drive: Path, store: RunStore, tmp_path: Path
) -> None:
    map_set, _ = made(request_of(drive, maps="edges,flow"), store)
    assert export(map_set.id, tmp_path / "as-they-are", store=store) == ()
    assert {path.name for path in (tmp_path / "as-they-are").iterdir()} == set(map_set.outputs)
    done = export(map_set.id, tmp_path / "fit", store=store, size=Size(height=64, width=64, num_frames=17))
    assert len(done) == 3
    maps = read_maps(tmp_path / "fit" / NUMBERS)
    assert (maps.num_frames, maps.size) == (17, (64, 64))
    assert read_control_video(tmp_path / "fit" / "edges.mp4").maps.num_frames == 17


def test_whoever_stops_it_finds_it_stopped_and_may_have_it_made_anew(drive: Path, store: RunStore) -> None:
    map_set = begin(request_of(drive, maps="edges"), store=store)
    work = MakeMaps(map_set_id=map_set.id)
    events = list(make(work, store=store, owner="local", stop=lambda: "cancel"))
    assert not any(isinstance(event, MapsFinished) for event in events)
    map_sets = MapSetStore(store.folder)
    assert map_sets.state_of(map_sets.get(map_set.id)) == "stopped"
    stream = make(work, store=store, owner="local", stop=never)
    next(stream)
    with pytest.raises(MapsError, match="is being made"):
        next(make(work, store=store, owner="local", stop=never))
    stream.close()
    assert map_sets.get(map_set.id).state == "stopped"
    assert isinstance(list(make(work, store=store, owner="local", stop=never))[-1], MapsFinished)
    with pytest.raises(MapsError, match="is complete"):
        next(make(work, store=store, owner="local", stop=never))
    with pytest.raises(MapsError, match="There is no map set"):
        map_sets.seen_by("somebody", map_set.id)
    map_sets.delete(map_set.id)
    assert map_sets.list() == []


def test_the_queue_makes_maps(drive: Path, store: RunStore) -> None:
    map_set = begin(request_of(drive, maps="layout"), store=store)
    with JobQueue(store=store, in_process=True, verbs={"clip": "support.scripted_generate:generate"}) as queue:
        job = queue.submit(MakeMaps(map_set_id=map_set.id), owner="local")
        until(lambda: queue.get(job.id).state == "complete")
    assert MapSetStore(store.folder).get(map_set.id).maps == ("layout",)


def test_what_fails_on_the_way_is_in_the_record(store: RunStore, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    map_set = begin(request_of(given=reference_to(tmp_path / "bad.npz", field="given")), store=store)
    with pytest.raises(MapsError, match=r"bad\.npz is no file of maps"):
        list(make(MakeMaps(map_set_id=map_set.id), store=store, owner="local", stop=never))
    record = MapSetStore(store.folder).get(map_set.id)
    assert record.state == "failed"
    assert record.error is not None
    assert record.error["code"] == "maps"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Nothing is named"),
        ({"world": 1, "given": "0" * 64 + "  x.npz"}, "one thing"),
        ({"world": -1}, "world"),
        ({"world": 1, "maps": "edges,lidar"}, "No map is called 'lidar'"),
        ({"world": 1, "maps": ()}, "No map is asked for"),
        ({"world": 1, "num_frames": 130}, "num_frames"),
        ({"world": 1, "height": 33}, "height"),
        ({"world": 1, "colour": 1}, "Unknown setting 'colour'"),
        ({"world": 1, "boxes": ("1,2,3",)}, "no box"),
        ({"world": 1, "boxes": ("10,10,5,20",)}, "Box 1 is empty"),
        ({"world": 1, "boxes": ("nan,1,2,3",)}, "boxes"),
        ({"world": 1, "boxes": ("1,2,30,40",)}, "Boxes are drawn on a clip"),
        ({"world": 1, "kind": "lidar"}, "kind"),
    ],
)
def test_nonsense_is_refused_with_its_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        request_of(**fields)


def test_what_a_clip_does_not_have_is_refused_before_anything_is_made(
    drive: Path, store: RunStore, tmp_path: Path
) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no clip")
    refusals: list[tuple[MapsRequest, type[StudioError], str]] = [
        (request_of(tmp_path / "no.mp4"), ClipRefused, "not a video"),
        (request_of(drive, start=9.0), RequestError, "ends after"),
        (request_of(drive, boxes=("400,10,420,30",)), RequestError, "lies outside"),
    ]
    for request, kind, words in refusals:
        with pytest.raises(kind, match=words):
            begin(request, store=store)
    with pytest.raises(RequestError, match="there is none to begin with"):
        request_of(drive, maps="boxes")
    assert MapSetStore(store.folder).list() == []
    late = begin(request_of(drive, boxes=("50:10,10,30,30",)), store=store)
    with pytest.raises(RequestError, match="drawn in frame 50"):
        list(make(MakeMaps(map_set_id=late.id), store=store, owner="local", stop=never))


def test_a_request_comes_back_from_its_record(drive: Path, store: RunStore) -> None:
    request = request_of(drive, maps="lanes flow", boxes=("3:1,2,30,40:big truck",), start=0.1)
    assert request.maps == ("lane_lines", "optical_flow", "boxes")
    box = request.boxes[0]
    assert (box.frame, box.left, box.bottom, box.label) == (3, 1, 40, "big truck")
    map_set = begin(request, store=store)
    assert MapSetStore(store.folder).get(map_set.id).request == request
