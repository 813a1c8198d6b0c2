"""Where a preset's weights are, and fetching them: size, free disk and licence first, then progress, and a way to stop.

A download belongs to the studio and not to a page: a reload shows it going on. Knows `weights` and threads. Refuses to
download anything on a hosted page, and anything that was not asked for twice: once for its size, once for the files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import gradio as gr

from studio.errors import StudioError, WeightsError
from studio.machine import weights
from studio.machine.weights import DownloadPlan, Snapshot
from studio.preset import Preset, find_preset
from studio.ui.components import message
from studio.ui.components.values import Message
from studio.ui.listeners import LIGHT, Part, Sent, Updates
from studio.ui.wording import licence_text, size_text


@dataclass
class _Download:
    """One fetch, told by its own thread."""

    preset: Preset
    plan: DownloadPlan
    snapshot: Snapshot | None
    fetched: int = 0
    error: StudioError | None = None
    done: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"download {self.preset.name}", daemon=True).start()

    def _run(self) -> None:
        try:
            weights.download(
                self.preset, on_progress=self._tell, cancelled=self.cancelled.is_set, snapshot=self.snapshot
            )
        except StudioError as error:
            self.error = error
        finally:
            self.done = True

    def _tell(self, fetched: int, _: int) -> None:
        self.fetched = fetched


class WeightsPanel:
    """The line under the preset and its two buttons."""

    def __init__(self, *, hosted: bool, snapshot: Snapshot | None = None) -> None:
        """Args: hosted: whether strangers may come. snapshot: what fetches, for tests; None takes the Hub's client."""
        self._hosted = hosted
        self._snapshot = snapshot
        self._plans: dict[str, DownloadPlan] = {}
        self._downloads: dict[str, _Download] = {}

    def build(self, first: Preset | None) -> None:
        self.line = message.message(self._line(first) if first else None, elem_id="weights")
        with gr.Row(elem_classes="actions"):
            self.fetch = gr.Button("Download", size="sm", visible=self._may_fetch(first), elem_id="download-weights")
            self.cancel = gr.Button("Cancel the download", size="sm", visible=False, elem_id="cancel-download")

    @property
    def outputs(self) -> list[Part]:
        return [self.line, self.fetch, self.cancel]

    def wire(self, preset: gr.Dropdown, timer: gr.Timer) -> None:
        self.fetch.click(self.go_on, [preset], self.outputs, **LIGHT)
        self.cancel.click(self.stop, [preset], self.outputs, **LIGHT)
        timer.tick(self.look, [preset], self.outputs, **LIGHT)

    # -- what the buttons do ------------------------------------------------------------------------------------------

    def go_on(self, name: Sent) -> Iterator[Updates]:
        """First click: what it would take. Second click: do it."""
        yield {self.line: gr.skip()}
        if self._hosted:
            return
        try:
            preset = find_preset(str(name))
            if preset.name not in self._plans:
                # A Hub that cannot be reached is asked again for half a minute before it is given up.
                yield {self.line: message.quiet("Asking the Hub how large it is …")}
                self._plans[preset.name] = weights.plan_download(preset, snapshot=self._snapshot)
            elif not self._running(preset.name):
                download = _Download(preset, self._plans[preset.name], self._snapshot)
                self._downloads[preset.name] = download
                download.start()
        except StudioError as error:
            yield self.shows(name) | {self.line: message.of_error(error)}
        else:
            yield self.shows(name)

    def stop(self, name: Sent) -> Updates:
        download = self._running(str(name))
        if download is not None:
            download.cancelled.set()
        return self.shows(name)

    def look(self, name: Sent) -> Updates:
        """News of a download under way; nothing otherwise, so that an answer given stays to be read."""
        download = self._downloads.get(str(name))
        if download is None:
            return dict.fromkeys(self.outputs, gr.skip())
        done = download.done  # before it is shown, so that an end that comes meanwhile is told the next time
        shown = self.shows(name)
        if done:
            # Told once: from now on the weights are here, or the plan may be asked for again.
            del self._downloads[str(name)]
            self._plans.pop(str(name), None)
        return shown

    def shows(self, name: Sent) -> Updates:
        """The line and the buttons for the preset of that name."""
        try:
            preset = find_preset(str(name))
        except StudioError:
            return {self.line: {}, self.fetch: gr.update(visible=False), self.cancel: gr.update(visible=False)}
        running = self._running(preset.name)
        plan = self._plans.get(preset.name)
        label = f"Download {size_text(plan.missing_bytes)}" if plan else "Download: how large is it?"
        return {
            self.line: self._line(preset),
            self.fetch: gr.update(value=label, visible=self._may_fetch(preset) and running is None),
            self.cancel: gr.update(visible=running is not None),
        }

    # -- what is so ---------------------------------------------------------------------------------------------------

    def _running(self, name: str) -> _Download | None:
        download = self._downloads.get(name)
        return download if download is not None and not download.done else None

    def _may_fetch(self, preset: Preset | None) -> bool:
        return preset is not None and not self._hosted and preset.weights.repo is not None and not _is_here(preset)

    def _line(self, preset: Preset) -> Message:
        download = self._downloads.get(preset.name)
        if download is not None and download.error is not None:
            return message.of_error(download.error)
        if download is not None and not download.done:
            whole = download.plan.missing_bytes
            stopping = "Stopping the download" if download.cancelled.is_set() else "Fetching the weights"
            return {
                **message.quiet(f"{stopping}: {size_text(download.fetched)} of {size_text(whole)}."),
                "share": download.fetched / whole if whole else 1.0,
            }
        if _is_here(preset):
            return message.quiet("Weights: here." if preset.weights.repo else "Weights: part of the studio.")
        if self._hosted:
            return message.warn("Weights: not on this page. The presets that are can be used.")
        plan = self._plans.get(preset.name)
        if plan is None:
            return message.warn("Weights: not on this machine yet.")
        room = "" if plan.fits_disk else ", which is too little"
        words = f"{size_text(plan.missing_bytes)} to fetch from {plan.repo}; {size_text(plan.free_bytes)} free{room}."
        return message.warn(f"{words} Licence: {licence_text(preset)}.")


def _is_here(preset: Preset) -> bool:
    try:
        return weights.state(preset).ready
    except WeightsError:
        return False
