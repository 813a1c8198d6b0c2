"""Who may know whom (CONTRIBUTING.md draws the house): imports go downward only, and the offender is named."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

WORDS = {"errors", "events", "storage", "palette", "preset", "family", "clips", "requests", "records", "machine"}
MODELS = {
    "pipelines",
    "pocket",
    "driving_world",
    "control_maps",
    "caching",
    "chopgrad",
    "metrics",
    "distributed",
    "processor",
    "mobius",
    "pvdm",
}
VERBS = {"generate", "block_watch", "profiling", "finetune", "compare", "jobs", "remote", "super_resolve", "drive"}
DOORS = {"ui", "command_line", "__main__"}
FLOOR = {room: floor for floor, rooms in enumerate((WORDS, MODELS, VERBS, DOORS)) for room in rooms}

VISITS = {
    ("pocket", "driving_world"): "the pocket models are trained on its scenes",
    ("pipelines", "control_maps"): "maps are fitted to the clip and painted as its model takes them",
    ("control_maps", "metrics"): "optical flow, and where it can be trusted, are found as the metrics do",
    ("pocket", "distributed"): "on several cores, one process each",
    ("pocket", "pipelines"): "the super-resolver and the driver are pipelines of our own",
    ("pocket", "control_maps"): "the driver learns from what is found in clips, as a person's will be",
    ("pocket", "chopgrad"): "the super-resolver's last stage goes back through clips",
    ("generate", "block_watch"): "what blocks did is told by it",
    ("profiling", "generate"): "a profile is made of a few uncached runs",
    ("finetune", "generate"): "samples before and after",
    ("compare", "generate"): "a cell is a run",
    ("jobs", "generate"): "a model is loaded ahead of time by its first run",
    ("remote", "generate"): "the same verb, elsewhere",
    ("command_line", "driving_world"): "`world render` is that room's own tool",
    ("command_line", "pocket"): "`pocket train` is that room's own tool",
}
"""The visits between neighbours, and past a floor, one by one, with the reason. Words know each other freely."""

HEAVY = {"torch", "diffusers", "transformers", "ray", "peft", "torchao"}
FOREIGN = {
    **{room: HEAVY | {"gradio"} for room in WORDS},
    **{room: {"gradio"} for room in MODELS | VERBS},
    **{room: HEAVY for room in DOORS},
    "driving_world": HEAVY | {"gradio"},
    "control_maps": HEAVY | {"gradio"},
    "command_line": HEAVY | {"gradio"},
}
"""Libraries that a room refuses to know, wherever in a file the import stands."""

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


def _arrows(path: Path) -> set[str]:
    """The other rooms that a file imports."""
    rooms = {parts[1] for parts in _imports(path) if parts[0] == "studio" and len(parts) > 1}
    return rooms - {_room(path), "__version__"}


def _allowed(room: str, other: str) -> bool:
    if FLOOR[room] == FLOOR[other] == 0 or (room, other) in VISITS:
        return True
    past_a_floor = room in DOORS and other in MODELS
    return FLOOR[other] < FLOOR[room] and not past_a_floor


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_go_downward_and_visits_are_named(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert _imports(path) <= {("__future__",)}
        return
    assert room in FLOOR, f"studio/{room} stands on no floor: name it in tests/test_floors.py"
    for other in _arrows(path):
        assert other in FLOOR, f"{path.name} imports studio.{other}, which stands on no floor"
        if room == "__main__" and other == "command_line":
            continue
        assert _allowed(room, other), f"studio/{room} must not import studio/{other}"


def test_every_named_visit_is_paid() -> None:
    """A visit that nobody pays any more must not stay allowed."""
    paid = {(_room(path), other) for path in FILES for other in _arrows(path)}
    assert set(VISITS) <= paid, set(VISITS) - paid


def test_no_room_is_reached_from_itself() -> None:
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        arrows.setdefault(_room(path), set()).update(_arrows(path))

    def walk(room: str, trail: tuple[str, ...]) -> None:
        assert room not in trail, f"a circle: {' -> '.join((*trail, room))}"
        for other in arrows.get(room, ()):
            walk(other, (*trail, room))

    for room in arrows:
        walk(room, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_rooms_keep_out_what_they_refuse_to_know(path: Path) -> None:
    room = _room(path)
    offenders = {parts[0] for parts in _imports(path)} & FOREIGN.get(room, set())
    assert not offenders, f"studio/{room} refuses to know {', '.join(sorted(offenders))}"
