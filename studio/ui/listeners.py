"""What every listener of the page has in common: how it is set up, and what goes in and what comes out by component.

Knows Gradio's components and events. Refuses to know what any listener does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypedDict

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

Part: TypeAlias = Component | BlockContext
"""Of a page: what has a value, or what holds others."""
Sent: TypeAlias = object
"""What a browser sends: it may be anything, until somebody has looked."""
Values: TypeAlias = Mapping[Part, Sent]
"""What a browser sends, by control."""
Updates: TypeAlias = dict[Part, object]
"""What is to be shown, by component."""


class Light(TypedDict):
    """How a listener is set up."""

    show_progress: Literal["hidden"]
    concurrency_limit: None
    api_visibility: Literal["private"]


LIGHT: Light = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
"""For every listener: the heavy work is elsewhere, so none has to wait for another, and none is an interface."""


def sent_by(event: gr.EventData) -> dict[str, Sent]:
    """The record that a component of ours sent with its event; empty where what came is none."""
    return event._data if isinstance(event._data, dict) else {}


def text_of(value: Sent) -> str:
    """A text that was sent; empty for anything else."""
    return value if isinstance(value, str) else ""
