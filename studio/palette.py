"""The colours of `palette.css`, for what is not the page: Gradio's theme, an exported page, a printed plot.

Knows how that one style sheet is written: custom properties under `:root`, those that differ by night under `.dark`.
Refuses to name a colour itself.
"""

from __future__ import annotations

import re
from pathlib import Path

STYLE_SHEET = Path(__file__).parent / "palette.css"

_BLOCKS = dict(re.findall(r"(?sm)^(:root|\.dark) \{\n(.*?)^\}", STYLE_SHEET.read_text(encoding="utf-8")))


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): ([^;]+);", _BLOCKS[block]))


DAY = _colours(":root")
"""A colour by its name, in CSS's words."""

NIGHT = DAY | _colours(".dark")


def by_the_readers_choice() -> str:
    """The sheet for a page without a switch of its own: day or night as the reader's system has it."""
    return f":root {{\n{_BLOCKS[':root']}}}\n@media (prefers-color-scheme: dark) {{ :root {{\n{_BLOCKS['.dark']}}} }}"
