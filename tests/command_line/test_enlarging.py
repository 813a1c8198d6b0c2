"""`upscale` and `enlargements`: the tab's work from a shell."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from support.films import seconds_of, write_pictures

from studio.__main__ import main
from studio.clips.read import read_clip
from studio.command_line import enlarging
from studio.errors import ClipRefused, EnlargementError, RequestError


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))


def _json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_clip_is_enlarged_listed_and_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_pictures(tmp_path / "in.mp4")
    assert (
        main(["upscale", str(clip), "--scale", "4", "--method", "lanczos", "-o", str(tmp_path / "out.mp4"), "--json"])
        == 0
    )
    events = _json_lines(capsys)
    assert events[0]["event"] == "EnlargementStarted"
    assert events[-1]["event"] == "EnlargementFinished"
    assert read_clip(tmp_path / "out.mp4").clip.frames.shape[1:] == (192, 256, 3)
    assert seconds_of(tmp_path / "out.mp4") == seconds_of(clip)
    assert main(["enlargements", "--json"]) == 0
    (listed,) = _json_lines(capsys)
    assert (listed["state"], listed["source"]) == ("complete", "in.mp4")
    assert main(["enlargements", "--delete", listed["id"]]) == 0
    capsys.readouterr()
    assert main(["enlargements", "--json"]) == 0
    assert _json_lines(capsys) == []


def test_a_part_is_made_first_and_the_rest_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_pictures(tmp_path / "in.mp4")
    assert main(["upscale", str(clip), "--excerpt", "0.1", "0.1", "--json"]) == 0
    enlargement = _json_lines(capsys)[-1]["enlargement_id"]
    assert main(["upscale", "--go-on", enlargement, "-o", str(tmp_path / "out.mp4"), "--json"]) == 0
    started = _json_lines(capsys)[0]
    assert started["done"] == started["num_frames"] == 10
    assert read_clip(tmp_path / "out.mp4").clip.frames.shape[1:] == (96, 128, 3)


def test_interrupted_it_says_how_to_go_on_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()
    interrupted.set()
    monkeypatch.setattr(enlarging, "cancel_on_signal", lambda: interrupted)
    assert main(["upscale", str(write_pictures(tmp_path / "in.mp4"))]) == 130
    enlargement = capsys.readouterr().err.partition("--go-on ")[2].split()[0]
    monkeypatch.undo()
    assert (
        main(["upscale", "--go-on", enlargement, "--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out.mp4")])
        == 0
    )
    assert read_clip(tmp_path / "out.mp4").clip.frames.shape[1:] == (96, 128, 3)


def test_the_figures_against_an_original_are_printed_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_pictures(tmp_path / "in.mp4")
    assert main(["upscale", str(clip), "--method", "back-projection", "-o", str(tmp_path / "large.mp4")]) == 0
    said = capsys.readouterr().out
    assert "Shrink-back, dB" in said
    assert "Flicker, × the given clip's" in said
    assert "PSNR" not in said
    arguments = ["upscale", str(clip), "--method", "lanczos", "--original", str(tmp_path / "large.mp4")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for words in ("video.mp4, 10 pictures", "Lanczos", "Bicubic", "PSNR, dB", "VMAF-NEG", "Warping error, × the orig"):
        assert words in said
    assert main(["enlargements", "--json"]) == 0
    newest, _ = _json_lines(capsys)
    figures = newest["measurements"]["video.mp4"]["figures"]
    assert figures["made"]["psnr"] > figures["bicubic"]["psnr"] > 20
    assert main(["enlargements", newest["id"]]) == 0
    assert f"{figures['made']['psnr']:.2f}" in capsys.readouterr().out


def test_methods_are_compared_on_one_clip_and_what_is_stored_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(write_pictures(tmp_path / "in.mp4"))
    assert main(["upscale", clip, "--method", "lanczos", "-o", str(tmp_path / "large.mp4"), "--json"]) == 0
    known = _json_lines(capsys)[-1]["enlargement_id"]
    compared = ["upscale", clip, "--compare", "lanczos", "bicubic", "--original", str(tmp_path / "large.mp4")]
    assert main([*compared, "--json"]) == 0
    lines = _json_lines(capsys)
    lanczos, bicubic = [line for line in lines if "method" in line]
    assert lanczos["id"] == known
    made = [line["enlargement_id"] for line in lines if line.get("event") == "EnlargementStarted"]
    assert made == [bicubic["id"]]
    assert main(compared) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["seconds", "Lanczos", "Bicubic"]
    assert "VMAF-NEG" in said[0]
    assert main(["enlargements", "--json"]) == 0
    assert len(_json_lines(capsys)) == 2
    assert main(["upscale", clip, "--compare", "lanczos", "--excerpt", "0", "1"]) == RequestError.exit_status
    assert "Leave it out, or leave out --compare" in capsys.readouterr().err
    assert main(["upscale", clip, "--compare", "lanczos", "--restore", "true"]) == RequestError.exit_status
    assert "pocket:restore=true" in capsys.readouterr().err
    assert main(["upscale", clip, "--compare", "sharpest"]) == RequestError.exit_status
    assert "No method is called 'sharpest'" in capsys.readouterr().err


def test_methods_are_compared_on_several_clips_and_their_means_are_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(write_pictures(tmp_path / "one.mp4"))
    other = str(write_pictures(tmp_path / "other.mp4", [512 * number for number in range(6)]))
    large = str(tmp_path / "large.mp4")
    assert main(["upscale", one, "--method", "back-projection", "-o", large]) == 0
    capsys.readouterr()
    compared = ["upscale", one, other, "--compare", "lanczos", "back-projection:back_projections=1"]
    assert main([*compared, "--original", large, "--original", "none", "-o", str(tmp_path / "files")]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "PSNR, dB" in said[0]
    titles = ["Lanczos", "Lanczos + back-projection (b", "Bicubic"]
    assert [line for line in said if line.startswith("--")] == ["-- one.mp4", "-- other.mp4", "-- mean over 2 clips"]
    for place in (2, 6, 10):
        assert [line[:28].strip() for line in said[place : place + 3]] == titles
    lines = list(csv.DictReader((tmp_path / "files/comparison.csv").open(encoding="utf-8", newline="")))
    psnr = {(line["clip"], line["method"]): line["psnr"] for line in lines}
    assert psnr["other.mp4", "Lanczos"] == ""
    assert float(psnr["one.mp4", "Lanczos"]) == float(psnr["mean over 2", "Lanczos"]) > 20
    assert json.loads((tmp_path / "files/comparison.json").read_text(encoding="utf-8"))["means"]
    for arguments, words in (
        ([*compared, "--original", large], "1 originals were named for 2 clips"),
        ([*compared, "--original", "none", "--original", large], "The original has 10 pictures"),
        (["upscale", one, other], "one clip is enlarged at a time"),
    ):
        assert main(arguments) == RequestError.exit_status
        assert words in capsys.readouterr().err


def test_an_original_may_be_named_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_pictures(tmp_path / "in.mp4")
    assert main(["upscale", str(clip), "-o", str(tmp_path / "large.mp4"), "--json"]) == 0
    enlargement = _json_lines(capsys)[-1]["enlargement_id"]
    assert main(["upscale", "--go-on", enlargement, "--original", str(tmp_path / "large.mp4")]) == 0
    assert "VMAF-NEG" in capsys.readouterr().out
    assert main(["upscale", "--go-on", enlargement, "--original", str(clip)]) == RequestError.exit_status
    said = capsys.readouterr().err
    assert "The original has 64×48, and in.mp4 becomes 128×96 at 2×" in said
    assert "scale or crop it first" in said


def test_a_forecast_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", str(write_pictures(tmp_path / "in.mp4")), "--forecast"]) == 0
    assert "10 pictures become 128×96" in capsys.readouterr().out
    assert main(["enlargements", "--json"]) == 0
    assert _json_lines(capsys) == []


def test_what_cannot_be_done_says_why_and_ends_with_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(write_pictures(tmp_path / "in.mp4"))
    (tmp_path / "text.mp4").write_text("no clip")
    for arguments, kind, words in (
        ([clip, "--scale", "3"], RequestError, "2 or 4"),
        ([clip, "-o", str(tmp_path / "out.avi")], RequestError, ".mp4"),
        ([clip, "-o", str(tmp_path / "nowhere/out.mp4")], RequestError, "no folder"),
        ([str(tmp_path / "none.mp4")], RequestError, "No such file"),
        ([str(tmp_path / "text.mp4")], ClipRefused, "text"),
        (["--go-on", "20260101-000000-00000000"], EnlargementError, "no enlargement"),
        (["--go-on", "20260101-000000-00000000", "--scale", "4"], RequestError, "keeps the settings"),
    ):
        assert main(["upscale", *arguments]) == kind.exit_status, arguments
        assert words in capsys.readouterr().err, arguments
