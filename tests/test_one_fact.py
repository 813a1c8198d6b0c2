"""One fact, one place: what stands in two rooms begins to disagree. The offender is named, with its line."""

import ast
import re
from pathlib import Path

from studio.family import FAMILIES
from studio.palette import DAY, NIGHT
from studio.ui.theme import COLOURS, theme

PROJECT = Path(__file__).parent.parent
STUDIO = PROJECT / "studio"

CLASS_NAMES = {name for each in FAMILIES.values() for name in (each.pipeline, each.transformer)}
AT_HOME = {"family.py", "pipelines/families", "pipelines/driver", "pocket"}
"""The facts, how each pipeline is called, and the models we train ourselves, which are made of Wan's classes."""


def _sources(*endings: str) -> list[Path]:
    return sorted(path for path in STUDIO.rglob("*") if path.suffix in endings)


def _name(path: Path) -> str:
    return path.relative_to(STUDIO).as_posix()


def _words(path: Path) -> list[tuple[int, str]]:
    """Identifiers and whole texts of a Python file, with their lines; docstrings may speak of what they like."""
    words = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.append((node.lineno, node.value))
        elif isinstance(node, ast.Name | ast.Attribute):
            words.append((node.lineno, node.id if isinstance(node, ast.Name) else node.attr))
        elif isinstance(node, ast.alias):
            words.append((node.lineno, node.name))
    return words


def test_the_classes_of_a_family_are_named_in_its_row_and_its_file_alone() -> None:
    named = [
        f"{_name(path)}:{line}: {word}"
        for path in _sources(".py")
        if not any(_name(path).startswith(home) for home in AT_HOME)
        for line, word in _words(path)
        if word in CLASS_NAMES
    ]
    assert named == []


def test_files_are_put_in_place_by_storage_alone() -> None:
    moves = {"replace", "rename", "renames", "move"}
    moved = [
        f"{_name(path)}:{node.lineno}: {ast.unparse(node.func)}"
        for path in _sources(".py")
        if _name(path) != "storage.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in moves
        # A text's `replace` takes two arguments, a path's takes one, and `os.replace` is os's.
        and (len(node.args) < 2 or ast.unparse(node.func.value) == "os")
        and ast.unparse(node.func) != "dataclasses.replace"
    ]
    assert moved == []


def test_a_colour_has_its_name_in_the_palette_alone() -> None:
    colour = re.compile(r"""#(?:[0-9a-fA-F]{3,4}){1,2}(?=["';,\s)!])|\b(?:rgb|hsl)a?\(\s*\d""")
    # The driving world paints its scenes: those are a picture's colours, not the page's.
    coloured = [
        f"{_name(path)}:{number}: {match.group()}"
        for path in _sources(".py", ".js", ".css", ".html")
        if path.name != "palette.css" and not _name(path).startswith("driving_world")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in colour.finditer(line)
    ]
    assert coloured == []


def test_every_colour_is_used_and_every_colour_used_is_in_the_palette() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in _sources(".py", ".js", ".css", ".html")}
    sheets = "\n".join(text for path, text in texts.items() if path.name != "palette.css")
    own = set(re.findall(r"--([\w-]+):", sheets))
    used = {
        *re.findall(r"var\(--([\w-]+)\)", sheets),
        *re.findall(r"colour\('([\w-]+)'\)", sheets),
        *re.findall(r"""DAY\["([\w-]+)"\]""", sheets),
    }
    gradios = {name for name in used if hasattr(theme(), name.replace("-", "_"))}
    # A variable that a sheet sets itself belongs to its element.
    assert used - own - gradios - set(DAY) == set()
    hues = {f"hue-{number}" for number in range(8)}  # taken by number
    assert set(DAY) - used - set(COLOURS.values()) - hues == set()


def test_what_shines_by_night_has_its_colour_by_day() -> None:
    assert set(NIGHT) == set(DAY)
