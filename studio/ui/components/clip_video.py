"""A clip that was made, playing by itself in a loop."""

from __future__ import annotations

import gradio as gr


def clip_video(*, elem_id: str, visible: bool = True) -> gr.Video:
    """The player of one clip; its buttons stand beside it."""
    return gr.Video(
        visible=visible,
        autoplay=True,
        loop=True,
        interactive=False,
        show_label=False,
        label="The clip",
        buttons=[],
        height=320,
        elem_id=elem_id,
    )
