"""The Generate tab: the form on the left; on the right what is being made, and the queue.

A click submits and returns at once: jobs live in the queue, not in a Gradio event. What is seen of them comes through
an attachment. Knows the form, and what each button asks of the queue. Refuses to know how a clip is made.
"""

from __future__ import annotations

import html

import gradio as gr
from gradio.events import Dependency

from studio.errors import JobError, StudioError
from studio.machine.weights import folder_of
from studio.preset import Preset, find_preset
from studio.records.run import Run
from studio.records.versions import VersionStore
from studio.requests.generation import GenerationRequest, new_seed
from studio.ui.attachment import Attachments, News
from studio.ui.components import message
from studio.ui.forms.generation import Form, label_of
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, sent_by, text_of
from studio.ui.panels.estimate import EstimatePanel
from studio.ui.panels.live import LivePanel
from studio.ui.panels.preset import PresetPanel
from studio.ui.panels.queue import QueuePanel
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor


class GenerateTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them."""

    def __init__(
        self, context: PageContext, presets: list[Preset], masthead: gr.HTML, browser: gr.BrowserState
    ) -> None:
        self.context = context
        self.browser = browser
        self.form = Form(presets, VersionStore(context.store.folder))
        self.preset = PresetPanel(context, self.form.first)
        self.estimate = EstimatePanel(self.form, context.store.folder)
        self.live = LivePanel()
        self.queue = QueuePanel(context, masthead)
        self.attachments = Attachments(context, self)

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
                self._build_form()
            with gr.Column(scale=7, min_width=320, elem_classes="stage"):
                self.live.build()
                self.queue.build()
        self.timer = gr.Timer(6 if self.context.hosted else 2)

    def _build_form(self) -> None:
        self.form.place_prompt()
        self.preset.place_ideas()
        with gr.Accordion("Negative prompt", open=False, elem_id="negative"):
            self.form.place_negative_prompt()
        self.form.place_preset()
        self.preset.place_card()
        self.form.place_adapter()
        self.form.place_numbers()
        self.form.place_cache()
        self.preset.place_measuring()
        with gr.Accordion("More settings", open=False, elem_id="advanced"):
            self.form.place_advanced()
            self.form.place_conditions()
        self.estimate.build()
        self.generate = gr.Button("Generate", variant="primary", elem_id="generate", size="lg")
        self.trouble = message.message(elem_id="trouble")

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, page: gr.Blocks) -> None:
        form, live, queue, shown = self.form, self.live, self.queue, [self.browser, self.live.shown_job]
        loaded = page.load(self.welcome, [self.browser], [self.browser, *self._changed], **LIGHT)
        self.estimate.after(loaded)
        self._then_attach(loaded)
        submitting = gr.on(
            [self.generate.click, form.prompt.submit],
            self.submit,
            {*form.inputs, self.browser},
            [self.browser, self.trouble],
            **LIGHT,
        )
        self._then_attach(submitting)
        for button, handler in ((live.again, self.submit_again), (live.vary, self.submit_varied)):
            self._then_attach(button.click(handler, shown, [self.browser, self.trouble], **LIGHT))
        live.restore.click(self.restore_shown, shown, self.restored, **LIGHT)
        live.stop.click(self.stop_shown, shown, [self.trouble], **LIGHT)
        live.keep.click(self.keep_shown, shown, [self.trouble], **LIGHT)
        acted = queue.list.act(self.act, [self.browser], [self.browser, self.trouble, queue.chose], **LIGHT)
        chosen = acted.then(
            self.attachments.attach_chosen, [self.browser, queue.chose], self._live, trigger_mode="multiple", **LIGHT
        )
        self.estimate.after(chosen)
        acted.then(queue.look, shown, queue.outputs, **LIGHT)
        self.timer.tick(queue.look, shown, queue.outputs, **LIGHT)
        self._wire_form()

    def _then_attach(self, event: Dependency) -> None:
        # "multiple": Gradio would drop an attachment asked for while the one before it still goes on.
        attach = self.attachments.attach
        self.estimate.after(event.then(attach, [self.browser], self._live, trigger_mode="multiple", **LIGHT))

    def _wire_form(self) -> None:
        form, cache = self.form, self.form.cache
        form.preset.input(self.choose_preset, [form.preset], self.restored, **LIGHT)
        chosen = [cache.choice, cache.rival, form.preset]
        gr.on([cache.choice.input, cache.rival.input], self.choose_cache, chosen, cache.opening, **LIGHT)
        self.preset.wire(form, self.timer)
        self.estimate.wire()

    @property
    def _live(self) -> list[Part]:
        return [*self.live.outputs, *self.queue.outputs, self.browser]

    @property
    def _changed(self) -> list[Part]:
        """Everything that `shows` may change."""
        return [*self.form.outputs, *self.preset.outputs]

    # -- the form -----------------------------------------------------------------------------------------------------

    def welcome(self, browser: Sent) -> Updates:
        """A page was opened: the browser gets its id, and the form what its last job was asked."""
        visitor = Visitor(self.context, browser)
        updates: Updates = {self.browser: visitor.remembers()}
        request = visitor.request_of(visitor.remembered)
        if request is not None:
            return updates | self.shows(request)
        # What was fine-tuned or promoted since the server was started.
        return updates | self.form.versions_shown(self.form.first.name if self.form.first else "")

    def shows(self, request: GenerationRequest) -> Updates:
        """What makes the form show a request, with the card of its preset."""
        updates = self.form.shows(request)
        try:
            preset = find_preset(request.preset)
        except StudioError:
            return updates
        return updates | self.preset.shows(preset)

    def restores(self, request: GenerationRequest, words: str) -> Updates:
        """The same, with a word on where the settings come from."""
        return self.shows(request) | {self.trouble: message.good(words)}

    @property
    def restored(self) -> list[Part]:
        """Everything that `restores` may change."""
        return [*self._changed, self.trouble]

    def choose_preset(self, name: Sent) -> Updates:
        try:
            preset = find_preset(str(name))
        except StudioError as error:
            return {self.trouble: message.of_error(error, label=label_of(error))}
        return self.form.starts_from(preset) | self.preset.shows(preset) | {self.trouble: {}}

    def choose_cache(self, choice: Sent, rival: Sent, name: Sent) -> Updates:
        """The settings of the method that was chosen."""
        try:
            pipeline = find_preset(str(name)).pipeline
        except StudioError:
            pipeline = ""
        return self.form.cache.opened(str(choice), str(rival), pipeline)

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, values: Values) -> Updates:
        """The form becomes a job. Whatever is wrong is said beside the button, and the form keeps what was typed."""
        try:
            request, preset = self.form.request_of(values)
            folder_of(preset)  # weights that are missing or damaged are better said now than by the job
        except StudioError as error:
            return self._refused(error)
        return self._submit(Visitor(self.context, values[self.browser]), request)

    def submit_again(self, browser: Sent, shown: Sent) -> Updates:
        return self._resubmit(browser, shown)

    def submit_varied(self, browser: Sent, shown: Sent) -> Updates:
        return self._resubmit(browser, shown, seed=new_seed())

    def _resubmit(self, browser: Sent, shown: Sent, **changes: int) -> Updates:
        visitor = Visitor(self.context, browser)
        request = visitor.request_of(visitor.job(shown))
        if request is None:
            return self._refused(JobError("There is no clip to do again.", way_out="Generate one."))
        return self._submit(visitor, request.model_copy(update=changes))

    def _submit(self, visitor: Visitor, request: GenerationRequest) -> Updates:
        try:
            job = self.context.queue.submit(request, owner=visitor.owner)
        except StudioError as error:
            return self._refused(error)
        others = [each for each in visitor.jobs(ended=0) if each.id != job.id]
        if not others:
            return {self.browser: visitor.remembers(job.id), self.trouble: {}}
        place = f"{len(others)} before it" if len(others) > 1 else "one before it"
        words = message.good(f"In the queue, {place}. Seed {request.seed}.")
        return {self.browser: visitor.remembers(), self.trouble: words}

    def _refused(self, error: StudioError) -> Updates:
        gr.Warning(html.escape(str(error)), title=label_of(error) or "Not possible")
        return {self.trouble: message.of_error(error, label=label_of(error))}

    # -- what is shown, and the queue ---------------------------------------------------------------------------------

    def draw(self, visitor: Visitor, news: News) -> Updates:
        """What an attachment has found."""
        updates = self.live.shows(visitor, news)
        if not news.of_state:
            return updates
        return updates | self.queue.shows(visitor, news.job.id) | {self.browser: visitor.remembers(news.job.id)}

    def draw_idle(self, visitor: Visitor) -> Updates:
        return self.live.idle() | self.queue.shows(visitor, "")

    def run_shown(self, browser: Sent, shown: Sent) -> Run:
        """The run whose clip is shown.

        Raises:
            StudioError: there is none.
        """
        visitor = Visitor(self.context, browser)
        return visitor.run(self.context.queue.get(text_of(shown), owner=visitor.owner).run_id)

    def restore_shown(self, browser: Sent, shown: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        request = visitor.request_of(visitor.job(shown))
        if request is None:
            return self._refused(JobError("There is nothing to restore from.", way_out="Generate a clip."))
        return self.restores(request, "These are the settings of the clip shown.")

    def stop_shown(self, browser: Sent, shown: Sent) -> Updates:
        return self._stop(browser, shown, keep=False)

    def keep_shown(self, browser: Sent, shown: Sent) -> Updates:
        return self._stop(browser, shown, keep=True)

    def _stop(self, browser: Sent, shown: Sent, *, keep: bool) -> Updates:
        try:
            self.context.queue.cancel(text_of(shown), keep=keep, owner=Visitor(self.context, browser).owner)
        except StudioError as error:
            return self._refused(error)
        words = "Stopping after this step, to keep what was reached." if keep else "Stopping."
        return {self.trouble: message.quiet(words)}

    def act(self, browser: Sent, event: gr.EventData) -> Updates:
        """A button of the queue."""
        visitor, chose = Visitor(self.context, browser), self.queue.chose
        try:
            job = self.queue.act(visitor, sent_by(event))
        except StudioError as error:
            return self._refused(error) | {chose: False}
        kept = visitor.remembers(job.id if job else None)
        return {self.browser: kept, self.trouble: {}, chose: job is not None}
