"""One message in place, beside what it is about. Knows its tones; refuses to know its reasons."""

from __future__ import annotations

from studio.errors import StudioError
from studio.ui.components.static_html import StaticHtml
from studio.ui.components.values import Message

message = StaticHtml[Message]("message")


def quiet(words: str) -> Message:
    return {"tone": "quiet", "words": words, "field": ""}


def good(words: str) -> Message:
    return {"tone": "good", "words": words, "field": ""}


def warn(words: str) -> Message:
    return {"tone": "warn", "words": words, "field": ""}


def of_error(error: StudioError, *, label: str = "") -> Message:
    """An error in the studio's words, with the label of the field it names."""
    return {"tone": "error", "words": str(error), "field": label}
