"""`harmonise` and `insertions`: a vehicle put into a clip from a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.__main__ import main
from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.driving_world import render, sample_scene
from studio.errors import RequestError


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "drive.mp4"
    write_clip(render(sample_scene(904), height=96, width=160, num_frames=4), path)
    return path


def test_a_render_is_put_in_copied_listed_and_deleted(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    asked = ["--render", "bus:green:rear", "--path", "0:80,70,30 3:90,70,32", "--strength", "0.8"]
    assert main(["harmonise", str(clip), *asked, "-o", str(out), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [lines[0]["event"], lines[-2]["event"]] == ["InsertionStarted", "InsertionFinished"]
    assert lines[-1]["path"] == str(out)
    assert read_clip(out).clip.num_frames == 4
    assert main(["insertions", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["state"], listed["of"]) == (
        lines[-1]["id"],
        "complete",
        "drive.mp4: bus:green:rear",
    )
    assert main(["insertions", "--delete", listed["id"]]) == 0
    capsys.readouterr()
    assert main(["insertions"]) == 0
    assert capsys.readouterr().out == ""


def test_a_path_out_of_the_clip_is_refused_in_words(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["harmonise", str(clip), "--render", "car", "--path", "0:80,70,30 9:80,70,30"])
    assert status == RequestError.exit_status
    assert "End it at frame 3" in capsys.readouterr().err


def test_somewhere_no_video_can_go_is_refused_before_anything_is_made(clip: Path, tmp_path: Path) -> None:
    asked = ["--render", "car", "--path", "0:80,70,30", "-o", str(tmp_path / "out.gif")]
    assert main(["harmonise", str(clip), *asked]) == RequestError.exit_status
    assert not (tmp_path / "runs").exists()
