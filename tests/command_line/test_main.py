"""The command line: the same verbs as the page, with exit statuses and JSON that programs can rely on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from studio.__main__ import main
from studio.clips.read import read_clip, read_settings
from studio.preset import find_preset
from studio.requests.generation import GenerationRequest, request_for, request_to_json

PROJECT = Path(__file__).parent.parent.parent
SMALL = ["--height", "64", "--width", "64", "--num-frames", "5", "--steps", "2", "--seed", "7"]


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))


def _json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_generate_writes_the_clip_and_the_run_is_found_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    assert main(["generate", "--prompt", "a red car at dusk", *SMALL, "-o", str(output), "--json"]) == 0
    events = _json_lines(capsys.readouterr().out)
    assert events[0]["event"] == "RunStarted"
    assert events[-1]["event"] == "RunFinished"
    assert read_clip(output).clip.frames.shape == (5, 64, 64, 3)
    assert main(["runs", "red car", "--json"]) == 0
    (run,) = _json_lines(capsys.readouterr().out)
    assert run["id"] == events[-1]["run_id"]
    assert run["request"]["seed"] == 7


def test_the_settings_of_a_clip_make_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (tmp_path / f"{name}.mp4" for name in ("first", "again", "other"))
    assert main(["generate", "--prompt", "a blue bus in the snow", *SMALL, "-o", str(first)]) == 0
    assert main(["generate", "--settings", str(first), "-o", str(again)]) == 0
    assert main(["generate", "--settings", str(first), "--seed", "8", "-o", str(other)]) == 0
    capsys.readouterr()
    frames = [read_clip(path).clip.frames for path in (first, again, other)]
    assert (frames[0] == frames[1]).all()
    assert (frames[0] != frames[2]).any()
    settings = read_settings(other)
    assert settings is not None
    assert settings["request"]["seed"] == 8


@pytest.mark.parametrize(
    ("flags", "status", "code", "said"),
    [
        (["--prompt", ""], 2, "prompt", "empty"),
        (["--prompt", "x" * 10_000], 2, "prompt", "2,000"),
        (["--prompt", "a road", "--height", "100"], 2, "grid", "96 and 112"),
        (["--prompt", "a road", "--num-frames", "100000"], 2, "request", "num_frames"),
        (["--prompt", "a road", "--height", "tall"], 2, "request", "height = 'tall'"),
        (["--prompt", "a road", "--offload", "disk"], 2, "request", "'sequential'"),
        (["--prompt", "a road", "--preset", "sora-9"], 3, "unknown_preset", "pocket"),
        (["--prompt", "a road", "-o", "/nowhere/at/all/out.mp4"], 2, "request", "folder"),
        (["--prompt", "a road", "--source", "nothing.mp4"], 2, "request", "nothing.mp4 cannot be read"),
        (["--prompt", "a road", "--source", __file__], 2, "request", "Leave source empty"),
        (["--prompt", "a road", "--control", __file__], 2, "request", "Leave control empty"),
        (["--settings", "nothing.mp4"], 2, "request", "nothing.mp4"),
        (
            # Small enough to fit beside whatever else the suite holds in memory by then.
            [
                "--prompt",
                "road",
                "--preset",
                "wan2.1-t2v-1.3b",
                "--height",
                "128",
                "--width",
                "128",
                "--num-frames",
                "5",
            ],
            4,
            "weights_missing",
            "download",
        ),
    ],
)
def test_bad_input_names_the_field_and_the_way_out(
    flags: list[str], status: int, code: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    os.chdir(tmp_path)
    assert main(["generate", *flags, "--json"]) == status
    error = _json_lines(capsys.readouterr().out)[-1]
    assert error["code"] == code
    assert said in error["message"] + error["way_out"]
    assert code == "weights_missing" or not (tmp_path / "runs").exists(), "refused before anything is begun"


def test_a_dry_run_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "a road", "--dry-run"]) == 0
    (said,) = _json_lines(capsys.readouterr().out)
    assert said["request"]["num_inference_steps"] == 30
    assert not (tmp_path / "runs").exists()


def test_a_measuring_of_no_steps_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "pocket", "--steps", "0", "--json"]) == 2
    (error,) = _json_lines(capsys.readouterr().out)
    assert (error["code"], error["field"]) == ("request", "num_inference_steps")


def test_every_field_of_a_request_has_a_flag_that_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "compare"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        apart = {"cache"} if command == "compare" else set()  # its methods say it
        for name in GenerationRequest.model_fields.keys() - apart:
            assert f"--{name.replace('_', '-')} " in said, name
        assert "How strongly the prompt is followed" in said


def test_settings_are_taken_over_field_by_field_and_none_empties_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.json"
    request = request_for(find_preset("pocket"), prompt="a road", seed=7, source=f"{'0' * 64}  /clips/a.mp4")
    settings.write_text(json.dumps(request_to_json(request.model_copy(update={"flow_shift": 3.0}))), encoding="utf-8")
    assert main(["generate", "--settings", str(settings), "--dry-run", "--json"]) == 2
    assert "Leave source empty" in _json_lines(capsys.readouterr().out)[-1]["way_out"]
    emptied = ["--source", "none", "--flow-shift", "none", "--steps", "3"]
    assert main(["generate", "--settings", str(settings), *emptied, "--dry-run"]) == 0
    (said,) = _json_lines(capsys.readouterr().out)
    changed = {"flow_shift": None, "num_inference_steps": 3, "source": None}
    assert said["request"] == request_to_json(request.model_copy(update=changed))


def test_interrupting_cancels_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "studio", "generate", "--prompt", "a road", "--steps", "200", "--json"]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "StepFinished":
            process.send_signal(signal.SIGINT)
            break
    process.stdout.read()
    assert process.wait() == 130
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert json.loads((folder / "run.json").read_text())["state"] == "cancelled"


def test_presets_say_whether_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    presets = _json_lines(capsys.readouterr().out)
    assert presets[0]["name"] == "pocket"
    assert presets[0]["verdict"]["fits"] is True
    assert len(presets) >= 12
    assert all(preset["verdict"]["why"] for preset in presets)
    assert main(["presets", "wan2.1-t2v-14b"]) == 0
    assert "Apache-2.0" in capsys.readouterr().out


def test_models_that_enlarge_are_presets_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    by_name = {preset["name"]: preset for preset in _json_lines(capsys.readouterr().out)}
    assert "GB" in by_name["swiftvr"]["verdict"]["why"]
    assert main(["presets", "swiftvr"]) == 0
    shown = capsys.readouterr().out
    assert "Apache-2.0" in shown
    assert "could not be reached" in shown
    assert main(["presets", "nothing"]) != 0
    refused = capsys.readouterr().err
    assert "wan2.1-t2v-14b" in refused
    assert "swiftvr" in refused


def test_the_doctor_examines_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    assert len(_json_lines(capsys.readouterr().out)) >= 5


def test_the_world_is_rendered_with_its_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    output, maps = tmp_path / "world.mp4", tmp_path / "maps.npz"
    size = ["--height", "64", "--width", "96", "--num-frames", "5"]
    assert main(["world", "render", "--seed", "3", *size, "--maps", str(maps), "-o", str(output), "--json"]) == 0
    (said,) = _json_lines(capsys.readouterr().out)
    assert len(said["caption"].split()) >= 5
    assert read_clip(output).clip.frames.shape == (5, 64, 96, 3)
    with np.load(maps) as written:
        assert written["depth"].shape == (5, 64, 96)
        assert written["optical_flow"].shape == (5, 64, 96, 2)
        assert json.loads(str(written["boxes"]))


def test_help_is_there_without_loading_torch() -> None:
    code = "import sys; from studio.__main__ import main; main([]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout
