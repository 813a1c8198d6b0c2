"""The Fine-tune tab: clips and settings become a version; its training is followed, stopped, gone on with and judged.

A click writes a version down, and a job that trains it; the tab reads the version's log. So a reload, another tab or a
restarted studio finds the training as it stands. Knows the queue, the versions and the form. Refuses to know how a
model is trained, and to start anything on a hosted page.
"""

from __future__ import annotations

import html

import gradio as gr

from studio.errors import JobError, StudioError, from_json
from studio.finetune import begin, preset_of
from studio.machine import weights
from studio.preset import Preset
from studio.records.folders import LOG
from studio.records.versions import Version
from studio.requests.work import TrainVersion
from studio.ui.attachment import Signs, signs_of
from studio.ui.components import message
from studio.ui.components.static_html import facts, training_plot
from studio.ui.components.values import Message
from studio.ui.forms.training import FinetuneForm, finetune_label
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, sent_by
from studio.ui.panels.enlarger_training import EnlargerTrainingPanel
from studio.ui.panels.training_clips import ClipsPanel
from studio.ui.panels.training_progress import (
    TrainingProgress,
    before_and_after,
    facts_of,
    plot_of,
    prediction_of,
    words_of,
)
from studio.ui.panels.versions import VersionsPanel, training_job, trainings
from studio.ui.server.page_context import PageContext

LOOK_SECONDS = 2.0
LENT = "its graphics card is lent for a minute at a time, and a training takes longer"
ABOUT_PREDICT = "Predict takes two steps that are not kept, and says how long all will take, in how much memory."
SHARED = "it would keep the machine from everybody else for as long as it takes"


class FinetuneTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext, presets: list[Preset]) -> None:
        self.context = context
        self.form = FinetuneForm(presets)
        self.clips = ClipsPanel(context, self.form)
        self.panel = VersionsPanel(context)
        self.versions = self.panel.versions
        self.enlarger = EnlargerTrainingPanel(context)

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        self.task = gr.Radio(
            [("Make clips like mine", "make"), ("Enlarge clips like mine (super-resolution)", "enlarge")],
            value="make",
            label="What is to be learnt",
            elem_classes="segments",
            elem_id="training-task",
        )
        with gr.Column(elem_id="training-make") as self.making:
            self._build_making()
        with gr.Column(visible=False, elem_id="training-enlarge") as self.enlarging:
            self.enlarger.build()

    def _build_making(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=6, min_width=320, elem_classes="sheet"):
                self.clips.build()
                self.form.place_main()
                with gr.Accordion("More settings", open=False, elem_id="training-more"):
                    self.form.place_more()
                with gr.Row(elem_classes="actions", elem_id="training-starting"):
                    self.start = gr.Button("Fine-tune", variant="primary", size="lg", elem_id="training-start")
                    self.predict = gr.Button("Predict", size="lg", elem_id="training-predict")
                if not self.context.hosted:
                    message.message(message.quiet(ABOUT_PREDICT), elem_id="training-about-predict")
                self.trouble = message.message(
                    message.quiet(self._why_not()) if self.context.hosted else None, elem_id="training-trouble"
                )
            with gr.Column(scale=7, min_width=320, elem_classes="stage", elem_id="training-stage"):
                self._build_shown()
        self.chosen = gr.State("")
        self.progress = gr.State(TrainingProgress())
        self.seen = gr.State(None)
        self.timer = gr.Timer(LOOK_SECONDS, active=False)

    def _build_shown(self) -> None:
        self.heading = facts(elem_id="training-heading")
        self.status = message.message(elem_id="training-status")
        with gr.Row(visible=False, elem_classes="actions", elem_id="training-stopping") as self.stopping:
            self.stop = gr.Button("Stop", variant="stop", size="sm", elem_id="training-stop")
        with gr.Row(visible=False, elem_classes="actions", elem_id="training-going-on") as self.going_on:
            self.go_on = gr.Button("Go on", size="sm", elem_id="training-go-on")
        self.answer = message.message(elem_id="training-answer")
        self.plot = training_plot(elem_id="training-plot")
        self.figures = facts(elem_id="training-facts")
        self.panel.build_player()
        self.panel.build_list()

    @property
    def _shown(self) -> list[Part]:
        """Everything that `_shows` may change."""
        return [
            *(
                self.chosen,
                self.progress,
                self.seen,
                self.timer,
                self.heading,
                self.status,
                self.stopping,
                self.going_on,
            ),
            *(self.answer, self.plot, self.figures, *self.panel.outputs),
        ]

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab) -> None:
        """Connect the tab, which looks anew whenever it is opened."""
        clips, panel, form = self.clips, self.panel, self.form
        self.enlarger.wire(tab)
        self.task.input(self.turn, [self.task], [self.making, self.enlarging], **LIGHT)
        form.wire()
        clips.wire(tab, self.timer)
        following = [self.chosen, self.progress, panel.paired, panel.picked]
        tab.select(self.open, following, self._shown, **LIGHT)
        panel.prompt.select(self.pick, [self.chosen, self.progress, panel.paired], self._shown, **LIGHT)
        self.timer.tick(self.look, [*following, self.seen], self._shown, **LIGHT)
        for button, start in ((self.start, self.begin), (self.predict, self.foretell)):
            button.click(start, {*clips.inputs, *form.inputs}, [*self._shown, self.trouble], **LIGHT)
        self.stop.click(self.leave_off, [self.chosen], [self.answer], **LIGHT)
        self.go_on.click(self.take_up, following, self._shown, **LIGHT)
        panel.list.choose(self.choose, [panel.paired], [*self._shown, panel.answer, panel.deletion.question], **LIGHT)
        panel.push.wire(self.chosen)
        panel.deletion.wire()
        for button, act in (
            (panel.promote, panel.put_forward),
            (panel.roll_back, panel.undo),
            (panel.deletion.really, panel.remove),
        ):
            acted = button.click(act, [self.chosen], [panel.answer, panel.deletion.question], **LIGHT)
            acted.then(self.open, following, self._shown, **LIGHT)

    def turn(self, task: Sent) -> Updates:
        """The form of the other kind of training."""
        return {self.making: gr.update(visible=task == "make"), self.enlarging: gr.update(visible=task == "enlarge")}

    # -- the buttons --------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        """The version is written down, and a job that trains it; the form stays as it is."""
        return self._begin(values, predict=False)

    def foretell(self, values: Values) -> Updates:
        """The version is written down, and a job that says what training it would take."""
        return self._begin(values, predict=True)

    def _begin(self, values: Values, *, predict: bool) -> Updates:
        try:
            self._refuse_strangers()
            clips = self.clips.clips(values)
            request, preset = self.form.request_of(values, clips)
            weights.folder_of(preset)
            version = begin(request, store=self.context.store)
            try:
                self.context.queue.submit(TrainVersion(version_id=version.id, predict=predict))
            except StudioError:
                self.versions.delete(version.id)
                raise
        except StudioError as error:
            label = finetune_label(error)
            if not self.context.hosted:
                gr.Warning(html.escape(str(error)), title=label or "Not possible")
            return {self.trouble: message.of_error(error, label=label)}
        return self._shows(version.id, TrainingProgress(), None) | {self.trouble: {}, self.answer: {}}

    def leave_off(self, chosen: Sent) -> Updates:
        try:
            self._refuse_strangers()
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        job = training_job(self.context, str(chosen))
        if job is None:
            return {self.answer: message.quiet("It is not being trained any more.")}
        self.context.queue.cancel(job.id)
        return {self.answer: message.quiet("Stopping after the step under way. What was learnt is kept.")}

    def take_up(self, chosen: Sent, progress: Sent, paired: Sent, prompt: Sent = "") -> Updates:
        """A stopped or failed version goes on from its last checkpoint."""
        try:
            self._refuse_strangers()
            version = self.versions.get(chosen)
            preset_of(version)  # which refuses one that has changed, before the worker would
            self._refuse_twice(version)
            self.context.queue.submit(TrainVersion(version_id=version.id))
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return self._shows(version.id, progress, paired, prompt) | {self.answer: {}}

    def choose(self, paired: Sent, event: gr.EventData) -> Updates:
        sent = sent_by(event)
        closed = self.panel.deletion.closed() | {self.panel.answer: {}, self.answer: {}}
        return self._shows(sent.get("version"), TrainingProgress(), paired) | closed

    def _refuse_strangers(self) -> None:
        if self.context.hosted:
            raise JobError(self._why_not())

    def _why_not(self) -> str:
        reason = LENT if self.context.machine.hosted == "zerogpu" else SHARED
        return f"A fine-tune cannot be started on this shared page: {reason}. Run the studio on a machine of your own."

    def _refuse_twice(self, version: Version) -> None:
        if training_job(self.context, version.id) is not None:
            raise JobError("It is being trained, or waits for it.", field="version", value=version.id)

    # -- looking ------------------------------------------------------------------------------------------------------

    def open(self, chosen: Sent, progress: Sent, paired: Sent, prompt: Sent = "") -> Updates:
        """The tab was opened, or something was done: all as it is now."""
        return self._shows(chosen, progress, paired, prompt)

    def pick(self, chosen: Sent, progress: Sent, paired: Sent, event: gr.SelectData) -> Updates:
        """The clips of another sample prompt."""
        every = list(before_and_after(progress)) if isinstance(progress, TrainingProgress) else []
        prompt = every[event.index] if isinstance(event.index, int) and event.index < len(every) else ""
        return self._shows(chosen, progress, paired, prompt) | {self.panel.picked: prompt}

    def look(self, chosen: Sent, progress: Sent, paired: Sent, prompt: Sent, seen: Sent) -> Updates:
        """What has changed since the page looked last; nothing where nothing has."""
        return gr.skip() if self._signs(chosen) == seen else self._shows(chosen, progress, paired, prompt)

    def _shows(self, chosen: Sent, progress: Sent, paired: Sent, prompt: Sent = "") -> Updates:
        signs = self._signs(chosen)  # before anything is read, so that what comes meanwhile is seen the next time
        versions = self.versions.list()
        now = next(iter(trainings(self.context)), None)
        wanted = (chosen, now, versions[0].id if versions else None)
        version = next((each for name in wanted for each in versions if each.id == name), None)
        if version is None:
            nothing = {self.heading: {}, self.status: {}, self.plot: {}, self.figures: {}, self.chosen: ""}
            hidden = {self.stopping: gr.update(visible=False), self.going_on: gr.update(visible=False)}
            updates = (
                nothing
                | hidden
                | {self.progress: TrainingProgress()}
                | self.panel.shows(versions, None, TrainingProgress(), paired, "")
            )
        else:
            begun = TrainingProgress(version=version.id)
            known = progress if isinstance(progress, TrainingProgress) and progress.version == version.id else begun
            same = known is progress
            known = known.with_events(self.versions.events(version.id, after=known.read))
            updates = self._shows_training(version, known) | self.panel.shows(versions, version, known, paired, prompt)
            if not same:
                updates |= self.panel.offers(version)
            if version.id != chosen:
                signs = self._signs(version.id)
        return updates | {self.seen: signs, self.timer: gr.Timer(active=True)}

    def _shows_training(self, version: Version, progress: TrainingProgress) -> Updates:
        state, request = self.panel.state_of(version), version.request
        job = training_job(self.context, version.id)
        waits = job is not None and job.state == "queued"
        running = state == "training"
        mine = not self.context.hosted
        updates: Updates = {
            self.chosen: version.id,
            self.progress: progress,
            self.heading: {"title": version.title, "note": _line(version), "rows": [], "notes": []},
            self.status: status_of(version, state, progress, waits=waits),
            self.plot: plot_of(progress, request.max_train_steps),
            self.figures: facts_of(progress, running=running),
            self.stopping: gr.update(visible=mine and (running or waits)),
            self.going_on: gr.update(visible=mine and not (running or waits or state == "complete")),
        }
        return updates if running or waits else updates | {self.answer: {}}

    def _signs(self, chosen: Sent) -> Signs:
        """Changes whenever there is something new to show; cheap to ask."""
        folder = self.versions.folder
        files = [*sorted(folder.glob("*/version.json")), folder / "promoted.json"]
        if isinstance(chosen, str) and chosen and any(path.parent.name == chosen for path in files):
            files.append(self.versions.path(chosen) / LOG)
        return ((chosen,), *signs_of(files, trainings(self.context).values()))


def _line(version: Version) -> str:
    """What a version was asked, in one line."""
    request = version.request
    clips = len(request.clips)
    return (
        f"{request.preset} · {request.objective} · {clips} clip{'s' if clips != 1 else ''} · "
        f"{request.width}×{request.height} × {request.num_frames} · rank {request.lora_rank} · "
        f"learning rate {request.learning_rate:g}"
    )


def status_of(version: Version, state: str, progress: TrainingProgress, *, waits: bool) -> Message:
    """The value of the message over the plot."""
    total = version.request.max_train_steps
    if state == "training":
        if not progress.total and not progress.stage:
            return message.quiet("It begins.")
        words = f"{words_of(progress, total)} Clips asked for meanwhile wait."
        share = progress.stage_share if progress.stage and not progress.steps else None
        return {**message.quiet(words), "share": progress.step / total if share is None else share}
    if waits:
        return message.quiet("It begins when it is its turn in the queue.")
    if state == "waiting":
        return message.warn("Not begun. Press Go on to train it.")
    if state == "stopped" and progress.predicted is not None and not version.step:
        return message.quiet(f"{prediction_of(progress, total)} Nothing is trained yet: press Go on to train it.")
    if state == "stopped":
        kept = "What was learnt is kept, and can be used." if version.step else "Nothing was learnt yet."
        return message.warn(f"Stopped after {version.step} of {total} steps. {kept}")
    if state == "failed":
        return message.of_error(from_json(version.error or {"message": "It failed."}))
    if version.worse_than_base:
        return message.warn("Done, and worse than the model it came from: try fewer steps or a lower learning rate.")
    if version.scores is None or version.base_scores is None:
        return message.good("Done.")
    gain = version.scores.psnr - version.base_scores.psnr
    what = "of held-out samples" if version.held_out else "of what it was trained on, for too few to hold any out"
    return message.good(f"Done: {gain:+.2f} dB PSNR over the model it came from, {what}.")
