"""`maps` and `map-sets`: the Drive tab's maps from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.__main__ import main
from studio.clips.map_files import read_maps
from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene
from studio.errors import MapsError, RequestError


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))


def _json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_clips_maps_are_made_fitted_listed_and_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, out = tmp_path / "drive.mp4", tmp_path / "maps"
    write_clip(render(sample_scene(904), height=96, width=160, num_frames=5), clip)
    chosen = ["--maps", "edges,lanes", "--box", "60,30,100,60:car", "--fit", "64x48x9"]
    assert main(["maps", str(clip), *chosen, "-o", str(out), "--json"]) == 0
    lines = _json_lines(capsys)
    assert [lines[0]["event"], lines[-2]["event"]] == ["MapsStarted", "MapsFinished"]
    assert lines[-1]["maps"] == ["edges", "lane_lines", "boxes"]
    assert any("repeated 4 times" in notice for notice in lines[-1]["notices"])
    maps = read_maps(out / "maps.npz")
    assert (maps.num_frames, maps.size) == (9, (48, 64))
    assert {path.name for path in out.iterdir()} == {"maps.npz", "edges.mp4", "lane_lines.mp4", "boxes.mp4"}
    assert main(["map-sets", "--json"]) == 0
    (listed,) = _json_lines(capsys)
    assert (listed["state"], listed["of"]) == ("complete", "drive.mp4")
    assert main(["map-sets", "--delete", listed["id"]]) == 0
    capsys.readouterr()
    assert main(["map-sets"]) == 0
    assert capsys.readouterr().out == ""


def test_a_world_and_its_control_videos_go_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "64", "--width", "96", "--num-frames", "3"]
    assert main(["maps", "--world", "904", *size, "-o", str(tmp_path / "world")]) == 0
    assert "exact" in capsys.readouterr().out
    assert main(["maps", "--given", str(tmp_path / "world" / "depth.mp4")]) == 0
    assert "depth.mp4 is taken for depth: as the file itself says." in capsys.readouterr().out
    assert main(["maps", "--given", str(tmp_path / "world" / "maps.npz")]) == 0
    assert "maps.npz holds layout, edges, lanes, depth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Nothing is named to be mapped"),
        (["gone.mp4"], "gone.mp4 cannot be read"),
        (["--world", "x"], "world = 'x' will not do"),
        (["--world", "1", "--maps", "lidar"], "No map is called 'lidar'. Choose among: layout, edges"),
        (["--world", "1", "--fit", "1x2"], "'1x2' is no size and length. Write 832x480x81."),
        (["--world", "1", "--fit", "8x8x8"], "Name one with -o."),
        (["--world", "1", "--box", "a"], "'a' is no box"),
    ],
)
def test_nonsense_is_refused_with_the_way_out(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["maps", *arguments]) == RequestError.exit_status
    assert words in capsys.readouterr().err
    assert main(["map-sets", "--delete", "no"]) == MapsError.exit_status
