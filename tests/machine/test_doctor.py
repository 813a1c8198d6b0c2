"""Doctor: every finding that is not well says what to do, and nothing a sick machine has makes the doctor fall over."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from studio import preset as presets
from studio.machine import doctor
from studio.machine.doctor import Finding, examine
from studio.machine.hardware import GB, Machine

SMALL = Machine(
    cpu_name="a processor",
    cores=2,
    ram_total=8 * GB,
    ram_free=6 * GB,
    accelerator=None,
    accelerator_name=None,
    vram_total=0,
    vram_free=0,
    bf16=False,
    hosted=None,
)


def _by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_this_machine_is_examined_without_a_fault_in_the_pocket_model(tmp_path: Path) -> None:
    found = _by_subject(examine(runs=tmp_path / "runs", cache=tmp_path))
    assert {"Python", "torch", "diffusers", "Processor", "Accelerator", "Memory", "ffmpeg", "Runs"} <= set(found)
    assert found["ffmpeg"].state == "well"
    assert found["Runs"].state == "well"
    assert found["pocket"].state == "well"
    assert "checksums right" in found["pocket"].text
    assert not (tmp_path / "runs").exists(), "looking must not make the folder"


def test_models_that_enlarge_are_examined_too(tmp_path: Path) -> None:
    found = _by_subject(examine(machine=SMALL, cache=tmp_path))
    assert "does not fit" in found["swiftvr, to enlarge"].text
    assert found["realesrgan, to enlarge"].state in ("well", "note")


def test_findings_print_and_go_into_json(tmp_path: Path) -> None:
    for finding in examine(machine=SMALL, cache=tmp_path):
        assert finding.subject in str(finding)
        assert finding.way_out in str(finding)
        assert json.loads(json.dumps(dataclasses.asdict(finding)))["state"] in ("well", "note", "fault")


def test_every_fault_and_every_missing_checkpoint_has_a_way_out(tmp_path: Path) -> None:
    for finding in examine(machine=SMALL, cache=tmp_path):
        if finding.state == "fault" or "not here" in finding.text:
            assert finding.way_out, finding


def test_what_does_not_fit_says_why_with_numbers(tmp_path: Path) -> None:
    large = _by_subject(examine(machine=SMALL, cache=tmp_path))["wan2.1-t2v-14b"]
    assert "does not fit" in large.text
    assert "8.0 GB of memory and no accelerator" in large.text


def test_a_broken_preset_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("title = ")
    faults = [finding for finding in examine(machine=SMALL, presets_folder=tmp_path) if finding.state == "fault"]
    assert any("broken.toml" in finding.text for finding in faults)


def test_a_damaged_embedded_checkpoint_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(presets.PROJECT_FOLDER)
    shutil.copytree(here / "assets" / "pocket" / "driving-t2v", tmp_path / "assets" / "pocket" / "driving-t2v")
    (tmp_path / "presets").mkdir()
    shutil.copy(here / "presets" / "pocket.toml", tmp_path / "presets")
    monkeypatch.setattr(presets, "PROJECT_FOLDER", tmp_path)
    assert _by_subject(examine(machine=SMALL))["pocket"].state == "well"
    weights = next((tmp_path / "assets").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    found = _by_subject(examine(machine=SMALL))["pocket"]
    assert (found.state, weights.name in found.text) == ("fault", True)
    assert "git checkout" in found.way_out


@pytest.mark.parametrize("program", ["/nowhere/ffmpeg", "false", "true"])
def test_an_ffmpeg_that_does_not_run_is_a_fault(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    path = shutil.which(program) or program
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", path)
    found = doctor._ffmpeg()
    assert found.state == "fault"
    assert "IMAGEIO_FFMPEG_EXE" in found.way_out


@pytest.mark.skipif(os.name != "posix", reason="a name below a file is a POSIX way of failing")
def test_a_runs_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = doctor._runs_folder(tmp_path / "file" / "runs")
    assert found.state == "fault"
    assert "DAILIES_RUNS" in found.way_out
