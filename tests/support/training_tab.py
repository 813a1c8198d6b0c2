"""The Fine-tune tab without a browser: with clips uploaded, and versions begun and learnt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import gradio as gr

from studio.preset import list_presets
from studio.records.versions import LORA_FILE, Scores, Version
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.finetune import FinetuneTab
from support.page_values import values_of
from support.patience import until

SMALL = {"width": 64, "height": 64, "num_frames": 9, "max_train_steps": 8, "objective": "latent"}
SIZE = (9, 12.0, 64, 64)
"""Frames, rate, height and width of a sample."""


def tab_of(context: PageContext) -> FinetuneTab:
    presets, _ = list_presets()
    with gr.Blocks():
        tab = FinetuneTab(context, presets)
        tab.build()
    return tab


def settings(tab: FinetuneTab, ids: Any, listed: Any, **changes: Any) -> dict[Any, Any]:
    """The clips and the form's values as Gradio hands them over."""
    form = tab.form
    changed = {form.controls[name]: value for name, value in (SMALL | changes).items()}
    return given(tab, ids, listed) | values_of(form.inputs) | changed


def given(
    tab: FinetuneTab, ids: Any, listed: Any, *, origin: Any = "", licence: Any = "", size: Any = SIZE, **sent: Any
) -> dict[Any, Any]:
    """What the clips' own controls say, and how large a sample is to be; by name whatever else of theirs is sent."""
    clips = tab.clips
    own = {clips.ids: ids, clips.list: listed, clips.origin: origin, clips.licence: licence}
    return own | dict(zip(tab.form.size, size, strict=True)) | {getattr(clips, name): sent[name] for name in sent}


def uploaded(tab: FinetuneTab, *files: str, ids: Any = None) -> tuple[list[str], dict[str, Any]]:
    """Ids and the list's value, once every file was read."""
    updates = tab.clips.add(given(tab, ids or [], {}, files=list(files)))
    ids, listed = updates[tab.clips.ids], updates[tab.clips.list]

    def read() -> bool:
        nonlocal listed
        if any(row["state"] == "reading" for row in listed["clips"]):
            listed = tab.clips.look(given(tab, ids, listed, seen=None))[tab.clips.list]
            return False
        return True

    until(read)
    return ids, listed


def begun(tab: FinetuneTab, film: Callable[..., str], **changes: Any) -> Version:
    """A version that was written down by the button, and is not waited for any more."""
    ids, listed = uploaded(tab, film(f"{time.monotonic_ns()}.mp4", seed=time.monotonic_ns() % 1000))
    updates = tab.begin(settings(tab, ids, listed, **changes))
    for job in tab.context.queue.jobs(states=("queued",)):
        tab.context.queue.cancel(job.id)
    return tab.versions.get(updates[tab.chosen])


def learnt(tab: FinetuneTab, version: Version, *, base: float, own: float) -> None:
    """As if it had been trained to its end."""
    scores = said(Scores, psnr=base)
    (tab.versions.path(version.id) / LORA_FILE).write_bytes(b"weights")
    tab.versions.write(replace(version, state="complete", base_scores=scores, scores=replace(scores, psnr=own)))


def said(kind: Any, **known: Any) -> Any:
    """A record in which every figure that the test does not care about is 1."""
    return kind(**{each.name: 1 for each in fields(kind)} | known)
