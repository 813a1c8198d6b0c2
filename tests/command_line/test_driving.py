"""`drive`: a clip that follows another one, from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.maps import file_of_maps
from support.tiny_checkpoints import save, write_preset

import studio.__main__ as door
from studio import pipelines
from studio.__main__ import main
from studio.clips.read import read_clip
from studio.clips.reference import reference_to
from studio.clips.write import write_clip
from studio.drive import begin
from studio.driving_world import render, sample_scene
from studio.errors import MapsError, PresetError, RequestError, StudioError
from studio.records.map_sets import MapSetStore
from studio.records.runs import RunStore
from studio.requests.maps import read_maps_request

PROMPT = ["--prompt", "a red car, on a road", "--seed", "3", "--steps", "2"]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for name in ("wan-vace", "wan"):
        write_preset(name, save(name, folder), folder / "presets")
    return folder / "presets"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DAILIES_PRESETS", str(catalogue))
    yield
    pipelines.unload()


@pytest.fixture
def road(tmp_path: Path) -> Path:
    write_clip(render(sample_scene(904), height=64, width=96, num_frames=13), tmp_path / "road.mp4")
    return tmp_path / "road.mp4"


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def only_run(tmp_path: Path) -> Any:
    (run,) = RunStore(tmp_path / "runs").search()
    return run


def test_a_clips_maps_are_made_and_followed_in_one_run_like_every_other(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "night.mp4"
    chosen = ["--control", "edges,lanes:0.7", "--strength", "0.8", "--start", "0.2", "--cache", "budget:speedup=1"]
    assert main(["drive", str(road), *chosen, *PROMPT, "-o", str(out), "--json"]) == 0
    events = [line["event"] for line in json_lines(capsys)]
    kinds = ("MapsStarted", "MapsFinished", "RunStarted", "StepFinished", "RunFinished")
    assert sorted(map(events.index, kinds)) == list(map(events.index, kinds)), "in this order"
    assert read_clip(out).clip.frames.shape == (9, 32, 32, 3)
    request = only_run(tmp_path).request
    (map_set,) = MapSetStore(tmp_path / "runs").list()
    assert request.control.path == MapSetStore(tmp_path / "runs").path(map_set.id) / "maps.npz"
    assert (request.control_strengths, request.conditioning_scale) == ({"edges": 1.0, "lane_lines": 0.7}, 0.8)
    assert map_set.maps == ("edges", "lane_lines")
    assert (map_set.num_frames, map_set.request.start) == (9, 0.2)
    assert request.fps == map_set.fps, "it is shown at the speed of what it follows"

    # The maps are there now: they are followed again by their id, and the clip goes on from the one that was made.
    again = ["drive", map_set.id, *PROMPT, "--continue", str(out), "--kept-frames", "3"]
    assert main(again) == 0
    newest = RunStore(tmp_path / "runs").search()[0].request
    assert newest.control == request.control
    assert (newest.kept_frames, newest.source.path) == (3, out)


def test_maps_of_a_file_are_followed_as_long_as_they_are_and_a_picture_begins_the_clip(tmp_path: Path) -> None:
    maps = file_of_maps(tmp_path / "maps.npz", num_frames=6)
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "p.png")
    flags = ["--first-frame", str(tmp_path / "p.png"), "--model", "wan-vace"]
    assert main(["drive", str(maps.path), *PROMPT, *flags]) == 0
    request = only_run(tmp_path).request
    assert (request.num_frames, request.fps, request.control_strengths) == (5, 8.0, {})
    assert request.source.path == tmp_path / "p.png"


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["{road}", "--preset", "wan"], PresetError, "takes no maps"),
        (["{road}", "--preset", "nobody"], StudioError, "No preset"),
        (["{road}", "--control", "borders"], RequestError, "control_strengths"),
        (["{road}", "--control", "edges:3"], RequestError, "control_strengths"),
        (["{road}", "--width", "100"], StudioError, "grid"),
        (["{road}", "--first-frame", "gone.png"], RequestError, "gone.png"),
        (["{road}", "--kept-frames", "3"], RequestError, "no source"),
        (["{road}", "--cache", "magcache"], RequestError, "count twice"),
        (["{road}", "--start", "99"], RequestError, "ends after"),
        (["gone.mp4"], RequestError, "There is no file"),
        (["{maps}", "--start", "1"], RequestError, "begin where they begin"),
        (["{maps}", "--control", "depth"], RequestError, "no depth"),
        (["{words}"], StudioError, ""),
    ],
)
def test_nonsense_is_refused_before_anything_is_loaded(
    arguments: list[str], kind: type[StudioError], words: str, road: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def no_model(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("studio.pipelines.load", no_model)
    (tmp_path / "words.mp4").write_text("no film")
    file_of_maps(tmp_path / "maps.npz")
    places = {"road": road, "maps": tmp_path / "maps.npz", "words": tmp_path / "words.mp4"}
    with pytest.raises(kind, match=words):
        run_raising(["drive", *(part.format(**places) for part in arguments), *PROMPT])


def run_raising(arguments: list[str]) -> None:
    """The command, whose error is not made a line of text."""
    chosen = door._parser().parse_args(arguments)
    chosen.command(chosen)


def test_a_map_set_that_is_not_complete_is_not_followed(road: Path, tmp_path: Path) -> None:
    request = read_maps_request({"source": reference_to(road, field="source"), "maps": "edges"})
    waiting = begin(request, store=RunStore(tmp_path / "runs"))
    with pytest.raises(MapsError, match="not complete"):
        run_raising(["drive", waiting.id, *PROMPT])
