"""The Runs tab: what was made, found again; its settings restored, its clip downloaded, its folder deleted.

A clip that the studio made carries its settings: dropped here, it restores the whole form. Knows the runs and the
guarded reader of clips. Refuses to let any other decoder see an upload.
"""

from __future__ import annotations

import html
from pathlib import Path

import gradio as gr

from studio.clips.read import read_settings
from studio.errors import ClipError, StudioError, UnknownPreset
from studio.preset import Preset, find_preset
from studio.records.run import Run, request_in_settings
from studio.requests.generation import GenerationRequest
from studio.ui.components import message
from studio.ui.components.clip_video import clip_video
from studio.ui.components.static_html import facts, run_grid, step_timeline
from studio.ui.components.values import RunGrid
from studio.ui.forms.generation import Restoring
from studio.ui.listeners import LIGHT, Sent, Updates, sent_by, text_of
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.panels.run_progress import picture_address, timeline_of
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import clip_to_serve, poster_bytes
from studio.ui.server.visitor import Visitor
from studio.ui.wording import result_facts, run_tile, settings_facts

PAGE = 24
"""Runs shown at first, and added by each "Show more"."""
ANY_PRESET = ""


class RunsTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them to the form of the other tab."""

    def __init__(self, context: PageContext, presets: list[Preset], browser: gr.BrowserState) -> None:
        self.context = context
        self.presets = presets
        self.browser = browser
        self.deletion = DeletionPanel("run", "Delete this run and its clip for good?")

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=7, min_width=320, elem_classes="sheet"):
                with gr.Row(elem_classes="numbers"):
                    self.search = gr.Textbox(
                        label="Search",
                        placeholder="words of the prompt, or a run's id",
                        min_width=180,
                        scale=3,
                        elem_id="search",
                    )
                    self.preset = gr.Dropdown(
                        label="Preset",
                        choices=[("All", ANY_PRESET), *((preset.title, preset.name) for preset in self.presets)],
                        value=ANY_PRESET,
                        min_width=140,
                        scale=2,
                        elem_id="filter-preset",
                    )
                self.grid = run_grid(elem_id="runs")
                self.more = gr.Button("Show more", size="sm", visible=False, elem_id="more")
                self.drop = gr.File(
                    label="Restore settings from an mp4 that the studio made",
                    file_types=[".mp4"],
                    height=96,
                    elem_id="drop",
                    elem_classes="upload",
                )
                self.dropped = message.message(elem_id="dropped")
            with gr.Column(scale=5, min_width=320, elem_classes="stage"):
                self._build_shown()
        self.chosen = gr.State("")
        self.limit = gr.State(PAGE)

    def _build_shown(self) -> None:
        self.hint = message.message(message.quiet("Choose a run to see it."), elem_id="run-hint")
        with gr.Column(visible=False, elem_id="run") as self.shown:
            self.video = clip_video(elem_id="run-clip")
            with gr.Row(elem_classes="actions"):
                self.restore = gr.Button("Restore into Generate", size="sm", elem_id="run-restore")
                self.compare = gr.Button("Compare with full", size="sm", elem_id="run-compare")
                self.download = gr.DownloadButton("Download mp4", size="sm", elem_id="run-download")
                self.deletion.place_button()
            self.deletion.place_question()
            self.settings = facts(elem_id="run-settings")
            self.timeline = step_timeline(elem_id="run-timeline")
            self.facts = facts(elem_id="run-facts")

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab, tabs: gr.Tabs, form: Restoring) -> None:
        """Connect the tab.

        Args:
            tab: This tab, which looks anew whenever it is opened.
            tabs: All of them, to switch to the form.
            form: What a run's settings are restored into.
        """
        wanted = [self.browser, self.search, self.preset, self.limit, self.chosen]
        listed = [self.grid, self.more, self.limit]
        for event in (tab.select, self.search.submit, self.preset.input):
            event(self.list, wanted, listed, **LIGHT)
        self.search.change(self.list, wanted, listed, trigger_mode="always_last", **LIGHT)
        self.more.click(self.list_more, wanted, listed, **LIGHT)
        shown = [
            self.chosen,
            self.shown,
            self.hint,
            self.video,
            self.download,
            self.settings,
            self.timeline,
            self.facts,
            self.deletion.question,
            self.restore,
        ]
        self.grid.choose(self.choose, [self.browser], shown, **LIGHT)
        self.deletion.wire()
        deleted = self.deletion.really.click(self.remove, [self.browser, self.chosen], shown, **LIGHT)
        deleted.then(self.list, wanted, listed, **LIGHT)

        def restore(browser: Sent, chosen: Sent) -> Updates:
            try:
                run = self.run_shown(browser, chosen)
            except StudioError as error:
                return {self.hint: message.of_error(error)}
            restored = form.restores(run.request, "These are the settings of the run you chose.")
            return restored | {tabs: gr.Tabs(selected="generate")}

        def restore_from_file(path: Sent) -> Updates:
            try:
                request = request_of_file(path)
            except StudioError as error:
                gr.Warning(html.escape(str(error)), title="Not restored")
                return {self.dropped: message.of_error(error), self.drop: None}
            restored = form.restores(request, "These are the settings inside the clip you dropped.")
            return restored | {tabs: gr.Tabs(selected="generate"), self.dropped: {}, self.drop: None}

        self.restore.click(restore, [self.browser, self.chosen], [*form.restored, tabs, self.hint], **LIGHT)
        self.drop.upload(restore_from_file, [self.drop], [*form.restored, tabs, self.dropped, self.drop], **LIGHT)

    # -- the list -----------------------------------------------------------------------------------------------------

    def list(self, browser: Sent, text: Sent, preset: Sent, limit: Sent, chosen: Sent) -> Updates:
        """Runs of this visitor that match, newest first."""
        limit = limit if isinstance(limit, int) and 0 < limit <= 50 * PAGE else PAGE
        text = text[:200] if isinstance(text, str) else ""
        wanted = preset if isinstance(preset, str) and preset else None
        try:
            owner = Visitor(self.context, browser).owner
            runs = self.context.store.search(text, owner=owner, preset=wanted, limit=limit)
            total = self.context.store.count(text, owner=owner, preset=wanted)
        except StudioError as error:
            return {self.grid: RunGrid(runs=[], total=0, empty=str(error)), self.more: gr.update(visible=False)}
        tiles = [run_tile(run, picture_address(poster_bytes(run))) for run in runs]
        empty = "No run matches." if text or wanted else "No runs yet: generate a clip."
        return {
            self.grid: RunGrid(runs=tiles, total=total, chosen=text_of(chosen), empty=empty),
            self.more: gr.update(visible=total > len(runs)),
            self.limit: limit,
        }

    def list_more(self, browser: Sent, text: Sent, preset: Sent, limit: Sent, chosen: Sent) -> Updates:
        return self.list(browser, text, preset, limit + PAGE if isinstance(limit, int) else PAGE, chosen)

    # -- one run ------------------------------------------------------------------------------------------------------

    def choose(self, browser: Sent, event: gr.EventData) -> Updates:
        """The run that was clicked. What the browser sends is looked up as this visitor's, or not at all."""
        sent = sent_by(event)
        try:
            run = self.run_shown(browser, sent.get("run"))
        except StudioError as error:
            return {self.hint: message.of_error(error), self.shown: gr.update(visible=False), self.chosen: ""}
        clip = clip_to_serve(run)
        failure = run.error or {}
        words = " ".join(str(failure.get(part, "")) for part in ("message", "way_out")).strip()
        return {
            self.chosen: run.id,
            self.shown: gr.update(visible=True),
            self.hint: message.warn(words) if words else {},
            self.video: gr.update(value=clip, visible=clip is not None),
            self.download: gr.update(value=clip, visible=clip is not None),
            self.settings: settings_facts(run, self._title_of(run)),
            self.timeline: timeline_of(run),
            self.facts: result_facts(run),
            self.restore: gr.update(interactive=True),
        } | self.deletion.closed()

    def remove(self, browser: Sent, chosen: Sent) -> Updates:
        try:
            run = self.run_shown(browser, chosen)
            self.context.store.delete(run.id, owner=run.owner)
        except StudioError as error:
            return self.deletion.closed() | {self.hint: message.of_error(error)}
        gone: Updates = {self.chosen: "", self.shown: gr.update(visible=False), self.hint: message.good("Deleted.")}
        return gone | self.deletion.closed()

    def run_shown(self, browser: Sent, run_id: Sent) -> Run:
        """A run of this visitor's.

        Raises:
            StudioError: there is none.
        """
        return Visitor(self.context, browser).run(run_id)

    def _title_of(self, run: Run) -> str:
        return next((preset.title for preset in self.presets if preset.name == run.request.preset), run.request.preset)


def request_of_file(path: Sent) -> GenerationRequest:
    """The request inside an uploaded clip.

    Raises:
        ClipError: not a clip, or none that the studio made.
        RequestError: settings that this version does not know.
        UnknownPreset: settings of a preset that is not here.
    """
    if not isinstance(path, str):
        raise ClipError("No file arrived.", field="clip", way_out="Drop an mp4 that the studio made.")
    settings = read_settings(Path(path))
    if settings is None:
        raise ClipError(
            "This clip carries no settings of the studio's.",
            field="clip",
            way_out="Drop an mp4 that was downloaded from here; other programs and sites often strip the settings.",
        )
    request = request_in_settings(settings)
    try:
        find_preset(request.preset)
    except UnknownPreset as error:
        raise UnknownPreset(
            f"The clip was made with the preset {request.preset[:80]!r}, which is not here.",
            field="preset",
            value=request.preset,
            way_out="Put its file into the presets folder.",
        ) from error
    return request
