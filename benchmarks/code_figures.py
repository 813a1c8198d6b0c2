"""What the code is like, before and after: the figures that a review counts, for two commits side by side.

    python benchmarks/code_figures.py --before 960a2aa

writes results/code_figures.md. Counts what stands in `studio/`: its Python, JavaScript, CSS and HTML.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.family import FAMILIES

PROJECT = Path(__file__).parent.parent
RESULT = PROJECT / "benchmarks" / "results" / "code_figures.md"

FAMILY_CLASSES = {name for family in FAMILIES.values() for name in (family.pipeline, family.transformer)}
AT_HOME = ("family.py", "pipelines/families", "pocket")
"""Where a family's classes may be named."""
COLOUR = re.compile(r"""#(?:[0-9a-fA-F]{3,4}){1,2}(?=["';,\s)!])|\b(?:rgb|hsl)a?\(\s*\d""")
LONG_FUNCTION, LONG_CLASS = 60, 250


@dataclass(frozen=True)
class Source:
    """One file of `studio/`."""

    name: str
    text: str

    @property
    def room(self) -> str:
        return self.name.split("/")[0].removesuffix(".py")

    @property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text))) if self.name.endswith(".py") else []


def sources(project: Path) -> list[Source]:
    """Every file that a person writes, in a project's `studio/`."""
    studio = project / "studio"
    paths = sorted(path for ending in ("py", "js", "css", "html") for path in studio.rglob(f"*.{ending}"))
    return [Source(path.relative_to(studio).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def at_commit(commit: str, folder: Path) -> Path:
    """The project as it was at a commit, unpacked."""
    archive = subprocess.run(["git", "archive", commit, "studio"], cwd=PROJECT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def imported(source: Source) -> set[str]:
    """The other rooms that a file imports, wherever in it the import stands."""
    names = set()
    for node in source.nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "studio" else {base}
    rooms = {name.split(".")[1] for name in names if name.startswith("studio.")}
    return rooms - {source.room, "__version__"}


def lines_of(node: ast.AST) -> int:
    return getattr(node, "end_lineno", 0) - getattr(node, "lineno", 0) + 1


def longer(files: list[Source], kinds: tuple[type[ast.AST], ...], limit: int) -> list[str]:
    """The names of functions or classes of more than so many lines."""
    nodes = (node for file in files for node in file.nodes if isinstance(node, kinds))
    return [getattr(node, "name", "") for node in nodes if lines_of(node) > limit]


def words(file: Source) -> Iterator[str]:
    """Names, and texts that are no docstring, in a Python file."""
    for node in file.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def classes_abroad(files: list[Source]) -> int:
    """How often the pipeline or transformer class of a family is named outside its row and its file."""
    abroad = (file for file in files if not file.name.startswith(AT_HOME))
    return sum(word in FAMILY_CLASSES for file in abroad for word in words(file))


def renames(files: list[Source]) -> int:
    """How often a file is moved to its place outside the one module that knows how."""
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("replace", "rename")
        and (len(node.args) < 2 or ast.unparse(node.func.value) == "os")
        and ast.unparse(node.func) != "dataclasses.replace"
        for file in files
        if file.name != "storage.py"
        for node in file.nodes
    )


def colours(files: list[Source]) -> int:
    """Colours spelled out anywhere but in the palette; the driving world paints pictures and is let be."""
    page = (file for file in files if file.name != "palette.css" and file.room != "driving_world")
    return sum(len(COLOUR.findall(file.text)) for file in page)


def figures(files: list[Source]) -> dict[str, str]:
    """Each figure by its name."""
    python = [file for file in files if file.name.endswith(".py")]
    lines: Callable[[list[Source]], int] = lambda some: sum(file.text.count("\n") for file in some)  # noqa: E731
    written = sum(bool(line.strip()) for file in python for line in file.text.splitlines())
    anys = sum(isinstance(node, ast.Name) and node.id == "Any" for file in python for node in file.nodes)
    functions = longer(python, (ast.FunctionDef, ast.AsyncFunctionDef), LONG_FUNCTION)
    classes = longer(python, (ast.ClassDef,), LONG_CLASS)
    rooms = {file.room for file in python} - {"__init__"}
    return {
        "rooms (entries of `studio/` with Python in them)": f"{len(rooms)}",
        "arrows between rooms": f"{len({(file.room, other) for file in python for other in imported(file)})}",
        f"functions of more than {LONG_FUNCTION} lines": f"{len(functions)}",
        f"classes of more than {LONG_CLASS} lines": f"{len(classes)}" + (f" ({', '.join(classes)})" if classes else ""),
        "`Any`": f"{anys}",
        "`Any` per 1,000 lines of Python that are not blank": f"{1000 * anys / written:.1f}",
        "`dict[Any, Any]`": f"{sum(file.text.count('dict[Any, Any]') for file in python)}",
        "`dict[str, Any]`": f"{sum(file.text.count('dict[str, Any]') for file in python)}",
        "classes of a family named elsewhere": f"{classes_abroad(python)}",
        "files moved into place outside `storage`": f"{renames(python)}",
        "colours outside the palette": f"{colours(files)}",
        "lines of JavaScript": f"{lines([file for file in files if file.name.endswith('.js')]):,}",
        "lines of Python": f"{lines(python):,}",
        "lines in all": f"{lines(files):,}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="COMMIT", help="what to hold the working tree against")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = figures(sources(at_commit(chosen.before, Path(folder))))
    after = figures(sources(PROJECT))
    rows = [f"| {name} | {before[name]} | {after[name]} |" for name in after]
    table = "\n".join([f"| | {chosen.before} | now |", "| --- | --: | --: |", *rows])
    RESULT.write_text(
        f"# What the code is like\n\nWritten by `benchmarks/code_figures.py`.\n\n{table}\n", encoding="utf-8"
    )
    print(table)


if __name__ == "__main__":
    main()
