"""The project's own promises: what a Space installs is what pyproject names, and importing costs nothing."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def _pyproject() -> dict:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def test_a_space_installs_exactly_the_dependencies_of_pyproject() -> None:
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert required == _pyproject()["project"]["dependencies"]


def test_every_dependency_has_a_floor_and_a_cap() -> None:
    project = _pyproject()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (line for group in groups for line in group):
        assert re.fullmatch(r"[\w.\[\]-]+>=[\d.]+,<[\d.]+", requirement), requirement


def test_the_space_front_matter_agrees_with_the_project() -> None:
    front_matter = (PROJECT / "README.md").read_text(encoding="utf-8").split("---")[1]
    said = dict(line.split(": ", 1) for line in front_matter.strip().splitlines() if ": " in line)
    assert said["sdk"] == "gradio"
    assert said["app_file"] == "app.py"
    assert said["python_version"] == '"3.12"'
    floor = next(line for line in _pyproject()["project"]["dependencies"] if line.startswith("gradio"))
    assert tuple(map(int, said["sdk_version"].split("."))) >= tuple(
        map(int, re.findall(r">=([\d.]+)", floor)[0].split("."))
    )


def test_importing_studio_loads_nothing_heavy() -> None:
    code = (
        "import sys, studio, studio.requests.generation, studio.events, studio.records.runs, studio.jobs, "
        "studio.clips.clip; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "diffusers", "transformers", "gradio", "av", "cv2"} & set(loaded)


def test_no_file_names_a_machine_or_a_registry() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.split()
    forbidden = re.compile(r"(^|[\s\"'=(])/(work|root|home|farm)/|pypi\.[a-z]|index-url|files\.pythonhosted")
    for name in tracked:
        path = PROJECT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".yml") and path != Path(__file__) and path.exists():
            found = forbidden.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{name}: {found.group(0)!r}"
