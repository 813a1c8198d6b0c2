"""The parts of a page that benchmarks write: whatever stands between two marks."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, marks: tuple[str, str], words: str) -> None:
    """Replace what lies between the marks; a page that lacks one of them is left as it is."""
    text = page.read_text(encoding="utf-8")
    if not all(mark in text for mark in marks):
        return
    before, _, rest = text.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    page.write_text(before + "\n\n".join([marks[0], words.strip(), marks[1]]) + after, encoding="utf-8")
