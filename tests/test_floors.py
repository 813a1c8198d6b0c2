"""Who may import whom (CONTRIBUTING.md draws the house): imports go downward only, and the offender is named."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

WORDS = {"errors", "events", "storage", "preset", "family", "clips", "requests", "records", "machine"}
MODELS = {
    "pipelines",
    "pocket",
    "driving_world",
    "caching",
    "chopgrad",
    "mobius",
    "pvdm",
    "metrics",
    "distributed",
}
VERBS = {"profiling", "generate", "block_watch", "super_resolve", "drive", "compare", "finetune", "jobs", "remote"}
DOORS = {"ui", "command_line", "__main__"}
FLOOR = {room: floor for floor, rooms in enumerate((WORDS, MODELS, VERBS, DOORS)) for room in rooms}

VISITS = {
    "pipelines": {"pvdm", "mobius"},
    "pocket": {"driving_world", "mobius", "pvdm", "chopgrad", "distributed"},
}
"""The named visits between neighbours on the models floor."""

FOREIGN = {
    "words": {"torch", "diffusers", "gradio", "transformers", "ray"},
    "ui": {"torch", "diffusers", "ray", "transformers"},
    "driving_world": {"torch", "diffusers", "gradio", "transformers", "ray"},
}
"""Libraries that a room or floor refuses to know, wherever in the file the import stands."""

FILES = sorted((PROJECT / "studio").rglob("*.py"))


def _room(path: Path) -> str:
    first = path.relative_to(PROJECT / "studio").parts[0]
    return first.removesuffix(".py")


def _imports(path: Path) -> set[tuple[str, ...]]:
    """Every module that the file imports anywhere, as dotted parts."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            base = tuple((node.module or "").split("."))
            found |= {(*base, alias.name) for alias in node.names} if base == ("studio",) else {base}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_go_downward_only(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert not _imports(path) - {("__future__", "annotations"), ("__future__",)}
        return
    assert room in FLOOR, f"studio/{room} stands on no floor: name it in tests/test_floors.py"
    for parts in _imports(path):
        if parts[0] != "studio" or len(parts) == 1 or parts[1] in (room, "__version__"):
            continue
        other = parts[1]
        assert other in FLOOR, f"{path.name} imports studio.{other}, which stands on no floor"
        downward = FLOOR[other] < FLOOR[room] or other in VISITS.get(room, set())
        same_floor = FLOOR[other] == FLOOR[room] and room not in MODELS
        assert downward or same_floor, f"studio/{room} must not import studio/{other}: it is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_rooms_keep_out_what_they_refuse_to_know(path: Path) -> None:
    room = _room(path)
    refused = FOREIGN.get(room, set()) | (FOREIGN["words"] if room in WORDS else set())
    offenders = {parts[0] for parts in _imports(path)} & refused
    assert not offenders, f"studio/{room} refuses to know {', '.join(sorted(offenders))}"
