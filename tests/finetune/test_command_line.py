"""`python -m studio finetune`, `versions` and `rollback`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.device import two_cards_or_none

from studio.__main__ import main
from studio.records.versions import LORA_FILE, VersionStore
from studio.requests.training import TrainingClip

Clips = tuple[TrainingClip, ...]
SMALL = ["--preset", "wan", "--height", "32", "--width", "32", "--num-frames", "5", "--fps", "8"]


def records(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_clips_become_a_version_that_is_listed_promoted_used_and_rolled_back(
    clips: Clips, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    paths = [str(clip.path) for clip in clips[:3]]
    asked = [*SMALL, "--objective", "latent", "--max-train-steps", "2", "--caption", "a first one", "--licence", "CC0"]
    assert main(["finetune", *paths, *asked, *runs, "--json"]) == 0
    events = records(capsys.readouterr().out)
    assert [event["step"] for event in events if event["event"] == "TrainingStep"] == [1, 2]
    version_id = events[-1]["version_id"]

    assert main(["versions", "--json", *runs]) == 0
    (listed,) = records(capsys.readouterr().out)
    assert (listed["id"], listed["state"], listed["promoted"]) == (version_id, "complete", False)
    assert main(["versions", "--card", version_id, *runs]) == 0
    assert "a first one" in capsys.readouterr().out

    # What is promoted is what new requests start from, and "none" is the model as it came.
    dry = ["generate", "--prompt", "a square", *SMALL, *runs, "--dry-run"]
    assert main(["versions", "--promote", version_id, *runs]) == 0
    for more, adapter in (([], version_id), (["--adapter", "none"], None)):
        capsys.readouterr()
        assert main([*dry, *more]) == 0
        assert records(capsys.readouterr().out)[0]["request"]["adapter"] == adapter
    assert main(["rollback", "wan", *runs]) == 0
    assert "as it came" in capsys.readouterr().out
    assert main(["rollback", "wan", *runs]) > 0
    assert main(["versions", "--delete", version_id, *runs]) == 0
    assert VersionStore(tmp_path / "runs").list() == []


def test_a_dry_run_says_what_would_be_trained_on_and_writes_nothing(
    clips: Clips, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(clip.path) for clip in clips]
    held_out = ["--hold-out", paths.pop()]
    assert main(["finetune", *paths, *held_out, *SMALL, "--runs", str(tmp_path / "runs"), "--dry-run"]) == 0
    (said,) = records(capsys.readouterr().out)
    assert (said["samples"], said["held_out"]) == (10, 2)
    assert said["clips"][0]["caption"] == "square 0", "a caption that is not given is made of the file's name"
    assert not list((tmp_path / "runs").rglob("version.json"))


def test_a_forecast_measures_two_steps_and_keeps_nothing(
    clips: Clips, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(clip.path) for clip in clips]
    asked = ["finetune", *paths, *SMALL, "--num-frames", "9", "--objective", "pixel", "--runs", str(tmp_path / "runs")]
    assert main([*asked, "--forecast", "--json"]) == 0
    (said,) = records(capsys.readouterr().out)
    assert 0 < said["decoder_bytes"] < said["full_decoder_bytes"]
    assert said["eta_seconds"] > 50 * said["step_seconds"] > 0
    assert not list((tmp_path / "runs").rglob("version.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "0 clips"),
        (["nowhere.mp4"], "cannot be found"),
        (["a.mp4", "--caption", "one", "--caption", "two"], "2 captions"),
        (["a.mp4", "--learning-rate", "99"], "learning_rate"),
        (["a.mp4", "--learning-rate", "quick"], "learning_rate"),
        (["a.mp4", "--num-frames", "6"], "Nearest valid: 5 and 9"),
        (["a.mp4", "--objective", "beauty"], "objective"),
        (["--go-on", "20260101-000000-00000000"], "no version"),
    ],
)
def test_what_will_not_do_is_said_with_its_field_and_the_way_out(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    sizes = [] if "--go-on" in arguments or "--num-frames" in arguments else SMALL
    assert main(["finetune", *arguments, *(sizes or SMALL[:2]), *runs]) > 0
    assert words in capsys.readouterr().err


@two_cards_or_none
@pytest.mark.thorough
def test_two_processes_under_torchrun_make_what_one_makes_with_twice_the_samples(
    clips: Clips, tmp_path: Path, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "finetune",
        *(str(clip.path) for clip in clips[:3]),
        *SMALL,
        "--objective",
        "pixel",
        "--max-train-steps",
        "2",
    ]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [sys.executable, *together, "-m", "studio", *asked, "--runs", str(tmp_path / "two")],
        env=os.environ | {"DAILIES_PRESETS": str(catalogue), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        check=True,
    )
    assert main([*asked, "--gradient-accumulation-steps", "2", "--runs", str(tmp_path / "one")]) == 0
    made = []
    for name in ("one", "two"):
        versions = VersionStore(tmp_path / name)
        (version,) = versions.list()
        made.append(load_file(versions.path(version.id) / LORA_FILE))
    for name, tensor in made[0].items():
        torch.testing.assert_close(made[1][name], tensor, rtol=1e-4, atol=1e-7)
