"""Fine-tuning a model that enlarges: clips and a few settings become a version; its training is followed and judged.

A click writes a version down, and a job that trains it; the panel reads the version's log, as the rest of the tab does.
Knows the queue, the versions and the form. Refuses to know how such a model is trained.
"""

from __future__ import annotations

import html
from pathlib import Path

import gradio as gr

from studio.clips.uploads import Uploads
from studio.errors import ClipError, JobError, StudioError, VersionError, from_json
from studio.finetune.enlarger_verb import begin
from studio.jobs import Job
from studio.machine import weights
from studio.preset import EnlargerPreset, list_enlargers
from studio.records.enlarger_versions import EnlargerVersion, EnlargerVersionStore
from studio.records.folders import LOG
from studio.requests.enlarger_training import MAX_CLIPS, TRAINED, EnlargerTraining, read_enlarger_training
from studio.requests.fields import label_of
from studio.requests.super_resolution import method_title
from studio.requests.work import TrainEnlarger
from studio.ui.attachment import Signs, signs_of
from studio.ui.components import message
from studio.ui.components.static_html import facts, training_plot
from studio.ui.components.values import Fact, Facts, Message
from studio.ui.forms.fields import FieldControls
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, text_of
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.panels.training_clips import ENDINGS
from studio.ui.panels.training_progress import TrainingProgress, facts_of, plot_of, words_of
from studio.ui.server.page_context import PageContext

LOOK_SECONDS = 2.0
HOSTED = "A fine-tune cannot be started on this shared page. Run the studio on a machine of your own."
ABOUT = (
    "Give sharp clips of what you enlarge. They are made smaller here, and the model learns to undo that: pixels are "
    "compared over whole stretches, gradients going back a few pictures at a time (ChopGrad)."
)


class EnlargerTrainingPanel:
    """The components and what they do. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.versions = EnlargerVersionStore(context.store.folder)
        self.deletion = DeletionPanel("enlarger-version", "Delete this version for good?")
        self._uploads = Uploads(context.store.folder)
        self._settings = FieldControls(EnlargerTraining, elem_prefix="enlarger-")

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=6, min_width=320, elem_classes="sheet"):
                self._build_form()
            with gr.Column(scale=7, min_width=320, elem_classes="stage", elem_id="enlarger-stage"):
                self._build_shown()
        self.chosen = gr.State("")
        self.progress = gr.State(TrainingProgress())
        self.seen = gr.State(None)
        self.timer = gr.Timer(LOOK_SECONDS, active=False)

    def _build_form(self) -> None:
        settings = self._settings
        self.files = gr.File(
            label=f"Sharp clips to learn from: 1 to {MAX_CLIPS}",
            file_count="multiple",
            file_types=ENDINGS,
            height=96,
            visible=not self.context.hosted,
            elem_id="enlarger-files",
            elem_classes="upload",
        )
        settings.text("title", placeholder="empty: as the first clip")
        models = [(each.title, each.name) for each in list_enlargers()[0] if _can_learn(each)]
        settings.place(gr.Radio, "method", label="Model", choices=models, visible=len(models) > 1)
        settings.place(gr.Checkbox, "restore", label="Learn to restore", info="blur, noise and a codec, too")
        with gr.Row(elem_classes="numbers"):
            settings.number("max_train_steps")
            settings.number("learning_rate")
        with gr.Accordion("More settings", open=False, elem_id="enlarger-more"):
            for names in (("num_frames", "crop_size"), ("gradient_accumulation_steps", "validation_share"), ("seed",)):
                with gr.Row(elem_classes="numbers"):
                    for name in names:
                        settings.number(name)
            settings.choice("mode")
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button("Fine-tune", variant="primary", size="lg", elem_id="enlarger-start")
        message.message(message.quiet(ABOUT), elem_id="enlarger-about")
        why_not = message.quiet(HOSTED) if self.context.hosted else None
        self.trouble = message.message(why_not, elem_id="enlarger-trouble")

    def _build_shown(self) -> None:
        self.list = gr.Dropdown(label="Versions", choices=[], visible=False, elem_id="enlarger-versions")
        self.status = message.message(message.quiet("No version yet."), elem_id="enlarger-status")
        with gr.Row(elem_classes="actions"):
            self.stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id="enlarger-stop")
            self.go_on = gr.Button("Go on", size="sm", visible=False, elem_id="enlarger-go-on")
            self.deletion.place_button(visible=False)
        self.deletion.place_question()
        self.answer = message.message(elem_id="enlarger-answer")
        self.plot = training_plot(elem_id="enlarger-plot")
        self.figures = facts(elem_id="enlarger-facts")

    @property
    def _shown(self) -> list[Part]:
        """Everything that `_shows` may change."""
        return [
            *(self.list, self.status, self.stop, self.go_on, self.deletion.button, self.plot, self.figures),
            *(self.chosen, self.progress, self.seen, self.timer),
        ]

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab) -> None:
        following = [self.chosen, self.progress]
        tab.select(self.open, following, self._shown, **LIGHT)
        self.timer.tick(self.look, [*following, self.seen], self._shown, **LIGHT)
        settings = {self.files, *self._settings.by_field.values()}
        self.start.click(self.begin, settings, [*self._shown, self.trouble, self.answer], **LIGHT)
        self.list.input(self.choose, [self.list], [*self._shown, self.answer], **LIGHT)
        self.stop.click(self.leave_off, [self.chosen], [self.answer], **LIGHT)
        self.go_on.click(self.take_up, following, [*self._shown, self.answer], **LIGHT)
        self.deletion.wire()
        removed = self.deletion.really.click(self.remove, [self.chosen], [self.answer, self.deletion.question], **LIGHT)
        removed.then(self.open, following, self._shown, **LIGHT)

    # -- the buttons --------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        """The version is written down, and a job that trains it; the form stays as it is."""
        try:
            self._refuse_strangers()
            version = begin(self._request(values), store=self.context.store)
            try:
                self.context.queue.submit(TrainEnlarger(version_id=version.id))
            except StudioError:
                self.versions.delete(version.id)
                raise
        except StudioError as error:
            label = label_of(EnlargerTraining, error.field)
            if not self.context.hosted:
                gr.Warning(html.escape(str(error)), title=label or "Not possible")
            return {self.trouble: message.of_error(error, label=label)}
        return self._shows(version.id, TrainingProgress()) | {self.trouble: {}, self.answer: {}}

    def _request(self, values: Values) -> EnlargerTraining:
        """Raises StudioError where a control says what cannot be, or no clip is there."""
        files = values[self.files]
        paths = [Path(each) for each in files if isinstance(each, str)] if isinstance(files, list) else []
        if not paths:
            raise ClipError("There is no clip yet.", field="clips", way_out="Drop one or more above.")
        written = {name: value for name, value in self._settings.read(values).items() if value is not None}
        clips = [self._uploads.refer(path) for path in paths]
        return read_enlarger_training({"clips": clips} | written)

    def leave_off(self, chosen: Sent) -> Updates:
        job = self._job(text_of(chosen))
        if job is None:
            return {self.answer: message.quiet("It is not being trained any more.")}
        try:
            self._refuse_strangers()
            self.context.queue.cancel(job.id)
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return {self.answer: message.quiet("Stopping after the steps under way. What was learnt is kept.")}

    def take_up(self, chosen: Sent, progress: Sent) -> Updates:
        """A stopped or failed version goes on from its last checkpoint."""
        try:
            self._refuse_strangers()
            version = self.versions.get(chosen)
            if self._job(version.id) is not None:
                raise JobError("It is being trained, or waits for it.", field="version", value=version.id)
            self.context.queue.submit(TrainEnlarger(version_id=version.id))
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return self._shows(version.id, progress) | {self.answer: {}}

    def remove(self, chosen: Sent) -> Updates:
        closed = self.deletion.closed()
        try:
            self._refuse_strangers()
            if self._job(text_of(chosen)) is not None:
                raise VersionError("It is being trained, or about to be.", field="version", way_out="Stop it first.")
            self.versions.delete(text_of(chosen))
        except (StudioError, OSError) as error:
            fault = error if isinstance(error, StudioError) else VersionError(f"Not all could be deleted: {error}.")
            return closed | {self.answer: message.of_error(fault)}
        return closed | {self.answer: message.good("Deleted.")}

    def choose(self, chosen: Sent) -> Updates:
        return self._shows(chosen, TrainingProgress()) | {self.answer: {}}

    def _refuse_strangers(self) -> None:
        if self.context.hosted:
            raise JobError(HOSTED)

    def _jobs(self) -> list[Job]:
        queue = self.context.queue
        return queue.jobs(states=("running", "queued"), kinds=("enlarger training",))

    def _job(self, version_id: str) -> Job | None:
        """The job that trains a version or is to."""
        for job in self._jobs():
            if isinstance(job.work, TrainEnlarger) and job.work.version_id == version_id:
                return job
        return None

    # -- looking ------------------------------------------------------------------------------------------------------

    def open(self, chosen: Sent, progress: Sent) -> Updates:
        """The tab was opened, or something was done: all as it is now."""
        return self._shows(chosen, progress)

    def look(self, chosen: Sent, progress: Sent, seen: Sent) -> Updates:
        """What has changed since the page looked last; nothing where nothing has."""
        return gr.skip() if self._signs(chosen) == seen else self._shows(chosen, progress)

    def _shows(self, chosen: Sent, progress: Sent) -> Updates:
        signs = self._signs(chosen)  # before anything is read: what comes meanwhile is seen the next time
        every = self.versions.list()
        version = next((each for each in every if each.id == chosen), every[0] if every else None)
        listed = gr.update(
            choices=[(_line(each), each.id) for each in every],
            value=version.id if version else None,
            visible=len(every) > 1,
        )
        if version is None:
            return self._bare() | {self.list: listed, self.seen: signs}
        begun = TrainingProgress(version=version.id)
        known = progress if isinstance(progress, TrainingProgress) and progress.version == version.id else begun
        known = known.with_events(self.versions.events(version.id, after=known.read))
        job, state = self._job(version.id), self.versions.state_of(version)
        waits = job is not None and job.state == "queued"
        mine = not self.context.hosted
        if version.id != chosen:
            signs = self._signs(version.id)
        return {
            self.list: listed,
            self.status: status_of(version, state, known, waits=waits),
            self.stop: gr.update(visible=mine and job is not None),
            self.go_on: gr.update(visible=mine and job is None and state != "complete"),
            self.deletion.button: gr.update(visible=mine and job is None),
            self.plot: plot_of(known, version.request.max_train_steps),
            self.figures: _figures(version, known, running=state == "training"),
            self.chosen: version.id,
            self.progress: known,
            self.seen: signs,
            self.timer: gr.Timer(active=True),
        }

    def _bare(self) -> Updates:
        """The stage with nothing on it."""
        hidden: Updates = {part: gr.update(visible=False) for part in (self.stop, self.go_on, self.deletion.button)}
        nothing: Updates = {self.plot: {}, self.figures: {}, self.chosen: "", self.progress: TrainingProgress()}
        return hidden | nothing | {self.status: message.quiet("No version yet."), self.timer: gr.Timer(active=False)}

    def _signs(self, chosen: Sent) -> Signs:
        """Changes whenever there is something new to show; cheap to ask."""
        files = [*sorted(self.versions.folder.glob("*/version.json"))]
        if isinstance(chosen, str) and any(path.parent.name == chosen for path in files):
            files.append(self.versions.path(chosen) / LOG)
        return ((chosen,), *signs_of(files, self._jobs()))


def _can_learn(preset: EnlargerPreset) -> bool:
    return preset.pipeline == TRAINED and weights.state(preset).ready


def _line(version: EnlargerVersion) -> str:
    """A version in a few words, for the list."""
    day = version.created[5:16].replace("T", " ")
    return f"{version.title}, {method_title(version.request.method)} · {day}"


def _figures(version: EnlargerVersion, progress: TrainingProgress, *, running: bool) -> Facts:
    """What it scored at each scale, then what its steps took."""
    known = facts_of(progress, running=running)
    scored: list[Fact] = [
        {"name": f"{scale}×", "value": f"{before:.2f} → {version.psnr.get(scale, before):.2f} dB", "strong": True}
        for scale, before in version.base_psnr.items()
    ]
    note = f"{method_title(version.request.method)}, {'restoring' if version.request.restore else 'enlarging'}"
    return {**known, "title": version.title, "note": note, "rows": [*scored, *known["rows"]]}


def status_of(version: EnlargerVersion, state: str, progress: TrainingProgress, *, waits: bool) -> Message:
    """The message over the plot."""
    total = version.request.max_train_steps
    if waits:
        return message.quiet("It begins when it is its turn in the queue.")
    if state == "training":
        if not progress.total and not progress.stage:
            return message.quiet("It begins.")
        words = f"{words_of(progress, total)} Clips asked for meanwhile wait."
        return {**message.quiet(words), "share": progress.step / total}
    if state == "waiting":
        return message.warn("Not begun. Press Go on to train it.")
    if state == "stopped":
        kept = "What was learnt is kept, and can be used." if version.step else "Nothing was learnt yet."
        return message.warn(f"Stopped after {version.step} of {total} steps. {kept}")
    if state == "failed":
        return message.of_error(from_json(version.error or {"message": "It failed."}))
    if version.worse_than_base:
        return message.warn("Done, and worse than the model it came from: try fewer steps or a lower learning rate.")
    gains = [version.psnr[scale] - before for scale, before in version.base_psnr.items() if scale in version.psnr]
    if not gains:
        return message.good("Done.")
    what = "of held-out stretches" if version.held_out else "of what it was trained on, for too few to hold any out"
    return message.good(
        f"Done: {sum(gains) / len(gains):+.2f} dB PSNR over the model it came from, {what}. "
        "The Super-resolution tab offers it."
    )
