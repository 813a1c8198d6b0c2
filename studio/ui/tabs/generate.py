"""The Generate tab: the form on the left; on the right what is being made, and the queue.

A click submits and returns at once: jobs live in the queue, not in a Gradio event. What is seen of them comes through
`attach`, which replays what a job has said and goes along with it; a reload, another tab or another device attaches
again. Knows the queue, the runs and the form. Refuses to know how a clip is made.
"""

from __future__ import annotations

import asyncio
import html
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import gradio as gr

from studio.compare import Comparisons
from studio.errors import JobError, RunError, StudioError
from studio.events import GenerationEvent
from studio.jobs import Busy, Dead, Job, Ready, Starting, WorkerState
from studio.machine.pace import predict
from studio.machine.weights import folder_of
from studio.preset import Preset, find_preset
from studio.records.event_log import EventTail
from studio.records.run import Run
from studio.records.versions import VersionStore
from studio.requests.generation import GenerationRequest, new_seed
from studio.requests.work import WalkComparison, WorkKind
from studio.ui.components import message
from studio.ui.components.facts import facts
from studio.ui.components.live_status import live_status
from studio.ui.components.prompt_ideas import prompt_ideas
from studio.ui.components.queue_list import queue_list
from studio.ui.components.step_timeline import step_timeline
from studio.ui.forms.generation import Form, label_of
from studio.ui.listeners import LIGHT, Values, sent_by, text_of
from studio.ui.panels.preset_card import card, verdict_line
from studio.ui.panels.profile import MeasurePanel
from studio.ui.panels.run_progress import Progress, idle_status, timeline_of
from studio.ui.panels.weights import WeightsPanel
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import clip_to_serve
from studio.ui.server.visitor import introduced, known_id, owner_of
from studio.ui.wording import FAILED, WATCHED, job_row, machine_line, result_facts, seconds_text, words_of

LOOK_SECONDS = 0.15
"""How often an attached page looks for news of its job."""
PATIENCE_SECONDS = 5.0
"""How long a page that attaches anew waits for its earlier attachment to end."""
ENDED_JOBS_LISTED = 4
"""Jobs that have ended and are still listed under the queue."""
IDLE_WORDS = "Nothing is being made."


class JobNews(NamedTuple):
    """What an attached page finds when it looks."""

    job: Job
    title: str
    """What it makes, in words."""
    worker: str
    """What the worker is doing, in words."""


@dataclass
class Watchers:
    """Which attachment each open page listens to, and what it shows: a new one ends the one before it."""

    newest: dict[str, str] = field(default_factory=dict)
    going: dict[str, list[str]] = field(default_factory=dict)
    """By session: the attachments that have not ended yet."""
    watched: dict[str, str] = field(default_factory=dict)
    """By session: the job that its attachment shows."""

    def begin(self, session: str) -> str:
        token = self.newest[session] = secrets.token_hex(8)
        self.going.setdefault(session, []).append(token)
        return token

    async def alone(self, session: str, token: str) -> None:
        """Wait for the attachments before this one to end, so that their last words do not come after its first."""
        patience = PATIENCE_SECONDS
        while self.still(session, token) and self.going[session] != [token] and patience > 0:
            await asyncio.sleep(LOOK_SECONDS / 5)
            patience -= LOOK_SECONDS / 5

    def still(self, session: str, token: str) -> bool:
        return self.newest.get(session) == token

    def shows(self, session: str, token: str, job: str) -> None:
        if self.still(session, token):
            self.watched[session] = job

    def end(self, session: str, token: str) -> None:
        self.going[session].remove(token)
        if not self.going[session]:
            del self.going[session]
        if self.still(session, token):
            del self.newest[session]
            self.watched.pop(session, None)


class GenerateTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them."""

    def __init__(
        self, context: PageContext, presets: list[Preset], masthead: gr.HTML, browser: gr.BrowserState
    ) -> None:
        self.context = context
        self.form = Form(presets, VersionStore(context.store.folder))
        self.masthead = masthead
        self.browser = browser
        self.weights = WeightsPanel(hosted=context.hosted)
        self.measuring = MeasurePanel(context)
        self.watchers = Watchers()

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        first = self.form.first
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
                self._build_form(first)
            with gr.Column(scale=7, min_width=320, elem_classes="stage"):
                self._build_stage()
        self.shown_job = gr.State("")
        self.chose = gr.State(False)
        self.timer = gr.Timer(6 if self.context.hosted else 2)
        self.until_measured = gr.Timer(5)

    def _build_form(self, first: Preset | None) -> None:
        self.form.place_prompt()
        self.ideas = prompt_ideas({"prompts": list(first.defaults.prompts) if first else []}, elem_id="ideas")
        with gr.Accordion("Negative prompt", open=False, elem_id="negative"):
            self.form.place_negative_prompt()
        self.form.place_preset()
        with gr.Column(elem_classes="tight"):
            self.verdict = message.message(
                verdict_line(first, self.context.machine) if first else {}, elem_id="verdict"
            )
            self.weights.build(first)
        with gr.Accordion("About this preset", open=False, elem_id="about-preset"):
            self.card = facts(card(first, self.context.machine) if first else {}, elem_id="preset-card")
        self.form.place_adapter()
        self.form.place_numbers()
        self.form.place_cache()
        self.measuring.build(first)
        with gr.Accordion("More settings", open=False, elem_id="advanced"):
            self.form.place_advanced()
        self.estimate = message.message(elem_id="estimate")
        self.generate = gr.Button("Generate", variant="primary", elem_id="generate", size="lg")
        self.trouble = message.message(elem_id="trouble")

    def _build_stage(self) -> None:
        self.video = gr.Video(
            visible=False,
            autoplay=True,
            loop=True,
            interactive=False,
            show_label=False,
            label="The clip",
            buttons=[],
            height=320,
            elem_id="clip",
        )
        self.status = live_status(idle_status(IDLE_WORDS), elem_id="live")
        with gr.Row(visible=False, elem_classes="actions", elem_id="stopping") as self.stopping:
            self.stop = gr.Button("Stop", variant="stop", size="sm", elem_id="stop")
            self.keep = gr.Button("Stop and keep", size="sm", elem_id="stop-and-keep")
        self.timeline = step_timeline(elem_id="timeline")
        with gr.Column(visible=False, elem_id="result") as self.result:
            with gr.Row(elem_classes="actions"):
                self.again = gr.Button("Once more", size="sm", elem_id="again")
                self.vary = gr.Button("Vary seed", size="sm", elem_id="vary")
                self.restore = gr.Button("Restore settings", size="sm", elem_id="restore")
                self.compare = gr.Button("Compare with full", size="sm", elem_id="compare-with-full")
                self.download = gr.DownloadButton("Download mp4", size="sm", elem_id="download")
            self.facts = facts(elem_id="result-facts")
        self.queue = queue_list(elem_id="queue")

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, page: gr.Blocks) -> None:
        form, live = self.form, self._live_outputs()

        def then_attach(event: Any, attach: Any = self.attach, *more: Any) -> None:
            # "multiple": Gradio would drop an attachment asked for while the one before it still goes on.
            watched = event.then(attach, [self.browser, *more], live, trigger_mode="multiple", **LIGHT)
            watched.then(self.estimate_of, form.inputs, [self.estimate], **LIGHT)  # what has ended has taught something

        loaded = page.load(self.welcome, [self.browser], [self.browser, *self.changed], **LIGHT)
        loaded.then(self.estimate_of, form.inputs, [self.estimate], **LIGHT)
        then_attach(loaded)
        submitting = gr.on(
            [self.generate.click, form.prompt.submit],
            self.submit,
            form.inputs | {self.browser},
            [self.browser, self.trouble],
            **LIGHT,
        )
        then_attach(submitting)
        for button, seed in ((self.again, False), (self.vary, True)):
            handler = self.submit_varied if seed else self.submit_again
            then_attach(button.click(handler, [self.browser, self.shown_job], [self.browser, self.trouble], **LIGHT))
        self.restore.click(self.restore_shown, [self.browser, self.shown_job], [*self.changed, self.trouble], **LIGHT)
        self.stop.click(self.stop_shown, [self.browser, self.shown_job], [self.trouble], **LIGHT)
        self.keep.click(self.keep_shown, [self.browser, self.shown_job], [self.trouble], **LIGHT)
        acted = self.queue.act(self.act, [self.browser], [self.browser, self.trouble, self.chose], **LIGHT)
        then_attach(acted, self.attach_chosen, self.chose)
        acted.then(self.look, [self.browser, self.shown_job], [self.queue, self.masthead], **LIGHT)
        self.timer.tick(self.look, [self.browser, self.shown_job], [self.queue, self.masthead], **LIGHT)
        self.weights.wire(self.form.preset, self.timer)
        asked = [self.form.controls[name] for name in ("preset", "num_inference_steps", "flow_shift")]
        self.measuring.wire(asked, self.timer)
        self._wire_form()

    def _wire_form(self) -> None:
        form = self.form
        form.preset.input(
            self.choose_preset,
            [form.preset],
            [*self.changed, self.trouble],
            **LIGHT,
        )
        self.ideas.idea(self.take_idea, [form.preset], [form.prompt], **LIGHT)
        gr.on(
            [form.cache.choice.input, form.cache.rival.input],
            self.choose_cache,
            [form.cache.choice, form.cache.rival, form.preset],
            form.cache.opening,
            **LIGHT,
        )
        measured = [form.controls[name] for name in form.controls if name not in ("prompt", "negative_prompt", "seed")]
        gr.on(
            [control.change for control in measured],
            self.estimate_of,
            form.inputs,
            [self.estimate],
            trigger_mode="always_last",
            **LIGHT,
        )
        self.until_measured.tick(self.estimate_again, form.inputs, [self.estimate, self.until_measured], **LIGHT)

    def _live_outputs(self) -> list[Any]:
        return [
            self.status,
            self.timeline,
            self.video,
            self.download,
            self.stopping,
            self.result,
            self.facts,
            self.queue,
            self.masthead,
            self.shown_job,
            self.browser,
        ]

    @property
    def changed(self) -> list[Any]:
        """Everything that `shows` may change."""
        return [*self.form.outputs, self.card, self.verdict, self.ideas, *self.weights.outputs, *self.measuring.outputs]

    # -- the form -----------------------------------------------------------------------------------------------------

    def welcome(self, browser: Any) -> dict[Any, Any]:
        """A page was opened: the browser gets its id, and the form what its last job was asked."""
        browser = introduced(browser)
        updates: dict[Any, Any] = {self.browser: browser}
        job = self._job(browser, known_id(browser, "job"))
        request = self._request_of(browser, job)
        if request is not None:
            return updates | self.shows(request)
        # What was fine-tuned or promoted since the server was started.
        return updates | self.form.versions_shown(self.form.first.name if self.form.first else "")

    def shows(self, request: GenerationRequest) -> dict[Any, Any]:
        """What makes the form show a request, with the card of its preset."""
        updates = self.form.shows(request)
        try:
            preset = find_preset(request.preset)
        except StudioError:
            return updates
        return updates | self._introduces(preset)

    def _introduces(self, preset: Preset) -> dict[Any, Any]:
        return (
            {
                self.card: card(preset, self.context.machine),
                self.verdict: verdict_line(preset, self.context.machine),
                self.ideas: {"prompts": list(preset.defaults.prompts)},
            }
            | self.weights.shows(preset.name)
            | self.measuring.shows(preset.name)
        )

    def choose_preset(self, name: Any) -> dict[Any, Any]:
        try:
            preset = find_preset(str(name))
        except StudioError as error:
            return {self.trouble: message.of_error(error, label=label_of(error))}
        return self.form.starts_from(preset) | self._introduces(preset) | {self.trouble: {}}

    def choose_cache(self, choice: Any, rival: Any, name: Any) -> dict[Any, Any]:
        """The settings of the method that was chosen."""
        try:
            pipeline = find_preset(str(name)).pipeline
        except StudioError:
            pipeline = ""
        return self.form.cache.opened(str(choice), str(rival), pipeline)

    def take_idea(self, name: Any, event: gr.EventData) -> Any:
        """The prompt at the position that was clicked; a position that is not there changes nothing."""
        try:
            prompts = find_preset(str(name)).defaults.prompts
        except StudioError:
            return gr.skip()
        index = sent_by(event).get("index")
        return prompts[index] if isinstance(index, int) and 0 <= index < len(prompts) else gr.skip()

    def estimate_of(self, values: Values) -> dict[str, Any]:
        """How long it will take, or what is wrong with it, before the click."""
        try:
            request, _ = self.form.request_of(values, prompt="a prompt")
        except StudioError as error:
            return message.of_error(error, label=label_of(error))
        known = predict(request, self.context.store.folder)
        if known is not None:
            span = f"{seconds_text(known.low)} to {seconds_text(known.high)}"
            cached = "" if request.cache is None else " without a cache"
            return message.quiet(f"About {seconds_text(known.seconds)}{cached} ({span}), going by {known.basis}.")
        return message.quiet("Not measured yet on this machine: the first run will tell.")

    def estimate_again(self, values: Values) -> tuple[Any, Any]:
        """The same while nothing is measured yet: the worker may be measuring behind the page. Then no more."""
        try:
            request, _ = self.form.request_of(values, prompt="a prompt")
        except StudioError:
            return gr.skip(), gr.skip()
        if predict(request, self.context.store.folder) is None:
            return gr.skip(), gr.skip()
        return self.estimate_of(values), gr.Timer(active=False)

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, values: Values) -> dict[Any, Any]:
        """The form becomes a job. Whatever is wrong is said beside the button, and the form keeps what was typed."""
        try:
            request, preset = self.form.request_of(values)
            folder_of(preset)  # weights that are missing or damaged are better said now than by the job
        except StudioError as error:
            return self._refused(error)
        return self._submit(values[self.browser], request)

    def submit_again(self, browser: Any, shown: Any) -> dict[Any, Any]:
        return self._resubmit(browser, shown, {})

    def submit_varied(self, browser: Any, shown: Any) -> dict[Any, Any]:
        return self._resubmit(browser, shown, {"seed": new_seed()})

    def _resubmit(self, browser: Any, shown: Any, changes: dict[str, Any]) -> dict[Any, Any]:
        request = self._request_of(browser, self._job(browser, shown))
        if request is None:
            return self._refused(JobError("There is no clip to do again.", way_out="Generate one."))
        return self._submit(browser, request.model_copy(update=changes))

    def _submit(self, browser: Any, request: GenerationRequest) -> dict[Any, Any]:
        try:
            job = self.context.queue.submit(request, owner=self._owner(browser))
        except StudioError as error:
            return self._refused(error)
        others = [each for each in self._jobs(browser, ended=0) if each.id != job.id]
        if others:
            place = f"{len(others)} before it" if len(others) > 1 else "one before it"
            return {
                self.browser: introduced(browser),
                self.trouble: message.good(f"In the queue, {place}. Seed {request.seed}."),
            }
        return {self.browser: introduced(browser) | {"job": job.id}, self.trouble: {}}

    def _refused(self, error: StudioError) -> dict[Any, Any]:
        gr.Warning(html.escape(str(error)), title=label_of(error) or "Not possible")
        return {self.trouble: message.of_error(error, label=label_of(error))}

    def restore_shown(self, browser: Any, shown: Any) -> dict[Any, Any]:
        request = self._request_of(browser, self._job(browser, shown))
        if request is None:
            return self._refused(JobError("There is nothing to restore from.", way_out="Generate a clip."))
        return self.shows(request) | {self.trouble: message.good("These are the settings of the clip shown.")}

    # -- stopping, and the queue's buttons ----------------------------------------------------------------------------

    def stop_shown(self, browser: Any, shown: Any) -> dict[Any, Any]:
        return self._stop(browser, shown, keep=False)

    def keep_shown(self, browser: Any, shown: Any) -> dict[Any, Any]:
        return self._stop(browser, shown, keep=True)

    def _stop(self, browser: Any, shown: Any, *, keep: bool) -> dict[Any, Any]:
        try:
            owner = self._owner(browser)
            self.context.queue.cancel(text_of(shown), keep=keep, owner=owner)
        except StudioError as error:
            return self._refused(error)
        words = "Stopping after this step, to keep what was reached." if keep else "Stopping."
        return {self.trouble: message.quiet(words)}

    def act(self, browser: Any, event: gr.EventData) -> dict[Any, Any]:
        """A button of the queue. What it sends is data from outside: unknown words do nothing, jobs are looked up."""
        sent = sent_by(event)
        action, job_id = sent.get("action"), text_of(sent.get("job"))
        queue = self.context.queue
        kept, chose = introduced(browser), False
        try:
            owner = self._owner(browser)
            if action in ("pause", "resume") and not self.context.hosted:
                queue.pause() if action == "pause" else queue.resume()
            elif action == "show":
                kept["job"], chose = queue.get(job_id, owner=owner).id, True
            elif action == "cancel":
                job = queue.cancel(job_id, owner=owner)
                if isinstance(job.work, WalkComparison) and job.final:  # it had not begun: nobody else will say so
                    Comparisons(self.context.store).stop(job.work.comparison_id)
            elif action == "up":
                queue.move(job_id, self._place_among_mine(owner, job_id) - 1, owner=owner)
            elif action == "retry":
                again = queue.retry(job_id, owner=owner)
                chose = again.kind in WATCHED
                kept |= {"job": again.id} if chose else {}
        except StudioError as error:
            return self._refused(error) | {self.chose: False}
        return {self.browser: kept, self.trouble: {}, self.chose: chose}

    def _place_among_mine(self, owner: str, job_id: str) -> int:
        waiting = [job.id for job in self.context.queue.jobs(owner=owner, states=("queued",))]
        return max(1, waiting.index(job_id)) if job_id in waiting else 1

    # -- watching -----------------------------------------------------------------------------------------------------

    async def attach(self, browser: Any, request: gr.Request) -> AsyncIterator[Any]:
        """Show what is at work for this visitor, and when it has ended what comes after; else their last job.

        A page that is already watching a job goes on with that one: an attachment that comes late, after a submission
        into the queue, takes nothing away that was chosen meanwhile.
        """
        yield gr.skip()
        session = str(request.session_hash)
        async for update in self._attach(browser, session, goes_on=self.watchers.watched.get(session, "")):
            yield update

    async def attach_chosen(self, browser: Any, chose: Any, request: gr.Request) -> AsyncIterator[Any]:
        """After a button of the queue: show the job that was chosen, though another may be at work.

        Cancelling, moving and pausing choose nothing, and leave what is shown to whoever follows it.
        """
        yield gr.skip()
        if chose:
            async for update in self._attach(browser, str(request.session_hash), chosen=known_id(browser, "job")):
                yield update

    async def _attach(
        self, browser: Any, session: str, *, chosen: str = "", goes_on: str = ""
    ) -> AsyncIterator[dict[Any, Any]]:
        """Ends when nothing of this visitor's is left to watch, or when the page attaches anew.

        Args:
            browser: What the browser's storage holds.
            session: The open page's.
            chosen: A job to show, whatever became of it.
            goes_on: A job to show unless it has ended.
        """
        token = self.watchers.begin(session)
        if chosen:
            self.watchers.shows(session, token, chosen)

        def wanted() -> bool:
            return self.watchers.still(session, token)

        try:
            await self.watchers.alone(session, token)
            job = await asyncio.to_thread(self._job_to_show, browser, chosen, goes_on)
            if job is None and wanted():
                yield await asyncio.to_thread(self._idle, browser)
            while job is not None:
                self.watchers.shows(session, token, job.id)
                async for update in self._watch(browser, job.id, wanted):
                    yield update
                # A job that had ended before it was shown was asked for: it stays.
                follow_on = wanted() and not job.final
                job = await asyncio.to_thread(self._next_to_show, browser, job.id) if follow_on else None
        except JobError:  # its job was removed, or the browser's storage was cleared meanwhile
            yield await asyncio.to_thread(self._idle, browser)
        finally:
            self.watchers.end(session, token)

    async def _watch(self, browser: Any, job_id: str, wanted: Callable[[], bool]) -> AsyncIterator[dict[Any, Any]]:
        """Updates of the live area until the job has ended, as few as the news allow."""
        progress, tail, state_shown = Progress(), None, None
        owner = self._owner(browser)
        while wanted():
            # The job first: what a final job had to say is in its log by the time it is final.
            news = await asyncio.to_thread(self._news_of, job_id, owner)
            if news.job.run_id is not None and (tail is None or tail.path.parent.name != news.job.run_id):
                progress, tail = (
                    Progress(),
                    self.context.queue.tail(news.job),
                )  # a comparison makes one run after another
            heard = False
            for event in await asyncio.to_thread(self._said, news.job, tail):
                heard = progress.add(event) or heard
            state = (news.job.state, news.job.position, news.title, news.worker)
            if heard or state != state_shown:
                update = {
                    self.status: progress.status(news.job, title=news.title, worker=news.worker),
                    self.timeline: progress.timeline(),
                }
                if state != state_shown:
                    update |= await asyncio.to_thread(self._around, browser, news.job, progress)
                state_shown = state
                if wanted():
                    yield update
            if news.job.final:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _news_of(self, job_id: str, owner: str) -> JobNews:
        queue = self.context.queue
        job = queue.get(job_id, owner=owner)
        worker = worker_words(queue.worker_state(), paused=queue.paused)
        return JobNews(job, words_of(job, self.context.store).title, worker)

    def _said(self, job: Job, tail: EventTail | None) -> list[GenerationEvent]:
        """What the job's run has said since the page looked last."""
        if tail is None:
            return []
        return [cast(GenerationEvent, event) for _, event in (*tail.read(), *self.context.queue.last_word(job, tail))]

    def _around(self, browser: Any, job: Job, progress: Progress) -> dict[Any, Any]:
        """Everything around the bars, which changes only when the job's state does."""
        run = self._run(browser, job) if job.final else None
        clip = clip_to_serve(run) if run is not None else None
        return {
            self.shown_job: job.id,
            self.browser: introduced(browser) | {"job": job.id},
            self.video: gr.update(value=clip, visible=clip is not None),
            self.download: gr.update(value=clip, visible=clip is not None),
            self.stopping: gr.update(visible=job.state == "running"),
            self.result: gr.update(visible=job.final),
            self.facts: result_facts(run) if run is not None and run.placement is not None else {},
            self.queue: self._queue_value(browser, job.id),
            self.masthead: self._masthead_value(),
        } | ({self.timeline: timeline_of(run)} if run is not None and not progress.step_milliseconds else {})

    def _idle(self, browser: Any) -> dict[Any, Any]:
        return {
            self.status: idle_status(IDLE_WORDS),
            self.timeline: {},
            self.video: gr.update(value=None, visible=False),
            self.stopping: gr.update(visible=False),
            self.result: gr.update(visible=False),
            self.queue: self._queue_value(browser, ""),
            self.masthead: self._masthead_value(),
        }

    def look(self, browser: Any, shown: Any) -> dict[Any, Any]:
        """The queue and the worker as they are now."""
        return {self.queue: self._queue_value(browser, text_of(shown)), self.masthead: self._masthead_value()}

    def _queue_value(self, browser: Any, shown: str) -> dict[str, Any]:
        jobs = self._jobs(browser, ended=ENDED_JOBS_LISTED)
        return {
            "paused": self.context.queue.paused,
            "may_pause": not self.context.hosted,
            "jobs": [job_row(job, self.context.store, shown=shown, may_move=True) for job in jobs],
        }

    def _masthead_value(self) -> dict[str, Any]:
        worker = self.context.queue.worker_state()
        paused = self.context.queue.paused
        return {
            "machine": machine_line(self.context.machine),
            "worker": worker_words(worker, paused=paused),
            "worker_state": "paused" if paused and isinstance(worker, Ready) else worker.state,
        }

    # -- looking up, always as this visitor ---------------------------------------------------------------------------

    def _owner(self, browser: Any) -> str:
        return owner_of(browser, hosted=self.context.hosted)

    def _job(self, browser: Any, job_id: Any) -> Job | None:
        try:
            return self.context.queue.get(text_of(job_id), owner=self._owner(browser)) if job_id else None
        except StudioError:
            return None

    def _request_of(self, browser: Any, job: Job | None) -> GenerationRequest | None:
        """What was asked for the clip that a job makes; of a comparison the clip made last."""
        if job is None or isinstance(job.work, GenerationRequest):
            return job.work if job is not None and isinstance(job.work, GenerationRequest) else None
        run = self._run(browser, job)
        return None if run is None else run.request

    def _jobs(self, browser: Any, *, ended: int, kinds: tuple[WorkKind, ...] | None = None) -> list[Job]:
        """This visitor's jobs: what runs and waits, and the last few that ended."""
        try:
            owner = self._owner(browser)
        except JobError:
            return []
        queue = self.context.queue
        waiting = queue.jobs(owner=owner, states=("running", "queued"), kinds=kinds)
        return waiting + (
            queue.jobs(owner=owner, states=("complete", "cancelled", *FAILED), limit=ended) if ended else []
        )

    def _job_to_show(self, browser: Any, chosen: str, goes_on: str) -> Job | None:
        """What was asked for; else what is at work or next in line; else the job that the browser remembers."""
        watched = self._job(browser, goes_on)
        return (
            self._job(browser, chosen)
            or (watched if watched is not None and not watched.final else None)
            or next(iter(self._jobs(browser, ended=0, kinds=WATCHED)), None)
            or self._job(browser, known_id(browser, "job"))
        )

    def _next_to_show(self, browser: Any, last: str) -> Job | None:
        """The next of this visitor's jobs at work or waiting, after one has ended."""
        return next((job for job in self._jobs(browser, ended=0, kinds=WATCHED) if job.id != last), None)

    def _run(self, browser: Any, job: Job) -> Run | None:
        if job.run_id is None:
            return None
        try:
            return self.context.store.get(job.run_id, owner=self._owner(browser))
        except RunError:
            return None


def worker_words(worker: WorkerState, *, paused: bool) -> str:
    """What the worker process is doing, in a few words."""
    match worker:
        case Starting():
            return "Starting up: the model is being loaded"
        case Dead():
            return "The worker has ended" + (f": {worker.reason}" if worker.reason else "; it is being started")
        case Busy(kind="profile"):
            return "Measuring a model"
        case Busy(kind="training"):
            return "Fine-tuning a version"
        case Busy():
            return "At work" if worker.preset or worker.kind == "comparison" else "The model is being loaded"
        case Ready() if paused:
            return "The queue is paused"
        case Ready():
            return f"Ready, {worker.preset} is loaded" if worker.preset else "Ready"
