"""The Super-resolution tab: a clip of any length becomes larger; a part of it can be tried first.

A click writes an enlargement down, and a job that makes it; the tab reads its record and its log. So a reload, another
tab or a restarted studio finds it as it stands. Knows the queue, enlargements and uploads. Refuses to know how pictures
are enlarged.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from studio.clips.reference import FileReference
from studio.clips.uploads import Uploads
from studio.errors import ClipError, EnlargementError, RequestError, StudioError, from_json
from studio.jobs import Job
from studio.preset import list_enlargers
from studio.records.enlargements import (
    TWIN_OF,
    VIDEO,
    Enlargement,
    EnlargementStore,
)
from studio.records.folders import LOG
from studio.requests.fields import label_of
from studio.requests.generation import read_as
from studio.requests.super_resolution import (
    Excerpt,
    SuperResolutionRequest,
    method_title,
    read_super_resolution_request,
)
from studio.requests.work import EnlargeClip
from studio.super_resolve import (
    begin,
    begun,
    beside,
    check_original,
    forecast,
    hold_against,
    is_done,
    look_at,
    request_by,
)
from studio.ui.attachment import signs_of
from studio.ui.components import message
from studio.ui.components.clip_video import clip_video
from studio.ui.components.static_html import facts, figure_table
from studio.ui.components.synced_player import synced_player
from studio.ui.components.values import Fact
from studio.ui.forms.fields import FieldControls
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, sent_by, text_of
from studio.ui.panels import enlargers
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.panels.enlargement import (
    ENDINGS,
    SCALES,
    EnlargementProgress,
    facts_of_source,
    figures_of,
    forecast_of,
    may_be_played,
    most_picked,
    refuse_too_long,
    status_of,
)
from studio.ui.panels.enlargement_player import side_by_side, to_serve
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor

LOOK_SECONDS = 1.0
LISTED = 20
"""Enlargements to choose among."""
AS_IT_CAME = ("As it came", "")


class SuperResolutionTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext, browser: gr.BrowserState) -> None:
        self.context = context
        self.browser = browser
        self.store = EnlargementStore(context.store.folder)
        self.deletion = DeletionPanel("enlargement", "Delete this enlargement and its files for good?")
        self._uploads = Uploads(context.store.folder)
        self._settings = FieldControls(SuperResolutionRequest, elem_prefix="enlarge-")
        self._excerpt = FieldControls(Excerpt, elem_prefix="enlarge-part-")

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
                self.file = gr.File(
                    label="A clip to enlarge, of any length: MP4, WebM, MOV, MKV, AVI or GIF",
                    file_types=ENDINGS,
                    height=96,
                    elem_id="enlarge-file",
                    elem_classes="upload",
                )
                self.source = facts(elem_id="enlarge-source")
                self.original = gr.File(
                    label="Its large original, if there is one, to hold the result against",
                    file_types=ENDINGS,
                    height=96,
                    elem_id="enlarge-original",
                    elem_classes="upload",
                )
                self.beside = message.message(elem_id="enlarge-beside")
                self._settings.place(gr.Radio, "scale", choices=SCALES, elem_classes="segments")
                self._settings.place(gr.Radio, "method", choices=enlargers.method_choices())
                self.model = facts(enlargers.card(self._method, self.context.machine), elem_id="enlarge-model")
                self._settings.place(
                    gr.Dropdown,
                    "adapter",
                    choices=self._versions(),
                    value=AS_IT_CAME[1],
                    visible=len(self._versions()) > 1,
                    info="of the model, fine-tuned on your clips",
                )
                self._settings.place(
                    gr.Checkbox, "restore", label="Restore", info="take blur, noise and a codec's marks away, too"
                )
                self._settings.place(
                    gr.Slider,
                    "detail",
                    minimum=0,
                    maximum=1,
                    step=0.05,
                    visible=False,
                    info="made up where nothing can be known; 0 adds nothing",
                )
                self.forecast = message.message(elem_id="enlarge-forecast")
                with gr.Row(elem_classes="actions"):
                    self.start = gr.Button("Enlarge", variant="primary", size="lg", elem_id="enlarge-start")
                    self.try_out = gr.Button("Try a part", size="lg", elem_id="enlarge-try")
                with gr.Row(elem_classes="numbers"):
                    self._excerpt.number("start", value=0, label="Part begins at", info="seconds")
                    self._excerpt.number("seconds", value=1, label="Part lasts", info="seconds; kept for the whole")
                self.methods = gr.CheckboxGroup(
                    choices=enlargers.method_choices(),
                    value=[],
                    label="Several methods",
                    info="beside one another, from the queue",
                    elem_id="enlarge-methods",
                )
                self.compare = gr.Button("Compare methods", elem_id="enlarge-compare")
                self.trouble = message.message(elem_id="enlarge-trouble")
                if others := enlargers.absent(self.context.machine):
                    with gr.Accordion("Models that are not here yet", open=False, elem_id="enlarge-others"):
                        for name, other in others.items():
                            facts(other, elem_id=f"enlarge-other-{name}")
            with gr.Column(scale=8, min_width=320, elem_classes="stage", elem_id="enlarge-stage"):
                self._build_shown()
        self.kept = gr.State("")
        """Where the upload lies, as a reference's line."""
        self.kept_original = gr.State("")
        """The same of the original."""
        self.chosen = gr.State("")
        self.progress = gr.State(EnlargementProgress())
        self.played = gr.State(None)
        self.picked = gr.State([])
        """Enlargements beside the one that is chosen, in the player."""
        self.seen = gr.State(None)
        self.timer = gr.Timer(LOOK_SECONDS, active=False)

    def _build_shown(self) -> None:
        self.list = gr.Dropdown(label="Enlargements", choices=[], visible=False, elem_id="enlargements")
        self.status = message.message(message.quiet("Drop a clip to enlarge it."), elem_id="enlarge-status")
        with gr.Row(elem_classes="actions"):
            self.stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id="enlarge-stop")
            self.keep = gr.Button("Stop and keep", size="sm", visible=False, elem_id="enlarge-keep")
            self.go_on = gr.Button("Go on", size="sm", visible=False, elem_id="enlarge-go-on")
            self.download = gr.DownloadButton("Download", size="sm", visible=False, elem_id="enlarge-download")
            self.deletion.place_button(visible=False)
        self.deletion.place_question()
        self.answer = message.message(elem_id="enlarge-answer")
        self.player = synced_player(elem_id="enlarge-player")
        self.video = clip_video(elem_id="enlarge-video", visible=False)
        self.figures = figure_table(elem_id="enlarge-figures")
        self.about = facts(elem_id="enlarge-facts")

    @property
    def _shown(self) -> list[Part]:
        """Everything that `_shows` may change."""
        return [
            *(self.list, self.status, self.stop, self.keep, self.go_on, self.download, self.deletion.button),
            *(
                self.player,
                self.video,
                self.figures,
                self.about,
                self.chosen,
                self.progress,
                self.played,
                self.seen,
                self.timer,
            ),
        ]

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab) -> None:
        """Connect the tab, which looks anew whenever it is opened."""
        settings = {self.kept, self.kept_original, *self._settings.by_field.values()}
        following = [self.browser, self.chosen, self.progress, self.played, self.picked]
        foretold = [self.source, self.forecast, self.trouble]
        self.file.upload(self.take, {self.file, *settings}, [self.kept, *foretold], **LIGHT)
        self.file.clear(self.drop, None, [self.kept, *foretold], **LIGHT)
        held_against = [self.kept_original, self.beside, *foretold]
        self.original.upload(self.take_original, {self.original, *settings}, held_against, **LIGHT)
        self.original.clear(self.drop_original, settings, held_against, **LIGHT)
        method = self._settings.by_field["method"]
        method.input(self.describe, [method], [self.model], **LIGHT)
        restore, detail = (self._settings.by_field[name] for name in ("restore", "detail"))
        for control in (method, restore):
            control.input(self.offer_detail, [method, restore], [detail], **LIGHT)
        for control in self._settings.by_field.values():
            control.input(self.foretell, settings, foretold, **LIGHT)
        comparing = {self.browser, self.methods, *settings}
        self.compare.click(self.begin_several, comparing, [*self._shown, self.trouble, self.answer], **LIGHT)
        picking = [self.browser, self.chosen, self.progress, self.picked]
        self.figures.pick(self.pick, picking, [*self._shown, self.picked], **LIGHT)
        begins = {self.browser, *settings, *self._excerpt.by_field.values()}
        for button, act in ((self.start, self.begin), (self.try_out, self.begin_part)):
            button.click(act, begins, [*self._shown, self.trouble, self.answer], **LIGHT)
        tab.select(self.open, following, self._shown, **LIGHT)
        tab.select(self.offer, None, [self._settings.by_field["adapter"]], **LIGHT)
        self.timer.tick(self.look, [*following, self.seen], self._shown, **LIGHT)
        self.list.input(self.choose, [self.browser, self.list], [*self._shown, self.answer], **LIGHT)
        for button, act in ((self.stop, self.leave_off), (self.keep, self.leave_off_and_keep)):
            button.click(act, [self.browser, self.chosen], [self.answer], **LIGHT)
        going_on = [self.browser, self.chosen]
        self.go_on.click(self.take_up, going_on, [*self._shown, self.answer], **LIGHT)
        self.deletion.wire()
        removed = self.deletion.really.click(self.remove, going_on, [self.answer, self.deletion.question], **LIGHT)
        removed.then(self.open, following, self._shown, **LIGHT)

    @property
    def _method(self) -> str:
        """The one that a new page offers."""
        return str(getattr(self._settings.by_field["method"], "value", ""))

    def offer(self) -> Updates:
        """The versions that there are by now."""
        versions = self._versions()
        return {self._settings.by_field["adapter"]: gr.update(choices=versions, visible=len(versions) > 1)}

    def _versions(self) -> list[tuple[str, str]]:
        """The model as it came, and the versions of it that can be used."""
        return [AS_IT_CAME, *((title, each.id) for title, each in enlargers.versions(self.context.store))]

    # -- the clip -----------------------------------------------------------------------------------------------------

    def take(self, values: Values) -> Updates:
        """A file has arrived: it is kept, and looked at."""
        try:
            reference = self._arrived(values[self.file])
        except StudioError as error:
            return self.drop() | {self.trouble: message.of_error(error)}
        return {self.kept: reference} | self.foretell({**values, self.kept: reference})

    def _arrived(self, path: Sent) -> str:
        """A reference's line to the copy that is kept. Raises StudioError where no file arrived."""
        if not isinstance(path, str):
            raise ClipError("No file arrived.", field="clip", way_out="Drop a clip.")
        return str(self._uploads.refer(Path(path)))

    def take_original(self, values: Values) -> Updates:
        """The clip that the small one came from has arrived: it is kept, and held against what will be made.

        What is refused is said in the original's own place, where no forecast that is still on its way takes it off.
        """
        try:
            reference = self._arrived(values[self.original])
            if values[self.kept]:
                self._original({**values, self.kept_original: reference})
        except StudioError as error:
            refusal = message.of_error(error, label=_label(error))
            return {self.kept_original: "", self.beside: refusal} | self.foretell({**values, self.kept_original: ""})
        name = FileReference.model_validate(reference).path.name
        note = message.quiet(f"The result will be held against {name}.")
        kept: Updates = {self.kept_original: reference, self.beside: note}
        return kept | self.foretell({**values, self.kept_original: reference})

    def drop_original(self, values: Values) -> Updates:
        """The original is taken away, and with it whatever spoke against it."""
        return {self.kept_original: "", self.beside: {}} | self.foretell({**values, self.kept_original: ""})

    def _original(self, values: Values) -> FileReference | None:
        """The original, where there is one. Raises StudioError where it does not fit the clip and the scale."""
        line = text_of(values[self.kept_original])
        if not line:
            return None
        reference = FileReference.model_validate(line)
        request = self._request(values)
        check_original(reference, request, look_at(request))
        return reference

    def offer_detail(self, method: Sent, restore: Sent) -> Updates:
        """The knob for detail, where the model has one and is to restore."""
        presets = {preset.name: preset for preset in list_enlargers()[0]}
        preset = presets.get(text_of(method))
        offered = preset is not None and preset.details and restore is True
        shown = gr.update(visible=True) if offered else gr.update(visible=False, value=0)
        return {self._settings.by_field["detail"]: shown}

    def describe(self, method: Sent) -> Updates:
        """The card of the model that is chosen."""
        return {self.model: enlargers.card(text_of(method), self.context.machine) or {}}

    def drop(self) -> Updates:
        return {self.kept: "", self.source: {}, self.forecast: {}, self.trouble: {}}

    def foretell(self, values: Values) -> Updates:
        """What the clip is, and what enlarging it with these settings will take."""
        if not values[self.kept]:
            return {self.source: {}, self.forecast: {}, self.trouble: {}}
        try:
            request = self._request(values)
            source = look_at(request)
            shown: Updates = {self.source: facts_of_source(source, request), self.trouble: {}}
            self._original(values)
            return shown | {self.forecast: forecast_of(forecast(request, store=self.context.store))}
        except StudioError as error:
            return {self.forecast: {}, self.trouble: message.of_error(error, label=_label(error))}

    def _request(self, values: Values) -> SuperResolutionRequest:
        """Raises StudioError where a control says what cannot be, or no clip is there."""
        if not values[self.kept]:
            raise ClipError("There is no clip yet.", field="clip", way_out="Drop one above.")
        written = {name: value for name, value in self._settings.read(values).items() if value is not None}
        return read_super_resolution_request({"source": text_of(values[self.kept])} | written)

    # -- the buttons --------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        """The enlargement is written down, and a job that makes it; one of which a part was tried is gone on with."""
        return self._begin(values, None)

    def begin_part(self, values: Values) -> Updates:
        try:
            excerpt = read_as(Excerpt, self._excerpt.read(values))
        except StudioError as error:
            return self._refused(error)
        return self._begin(values, excerpt)

    def _begin(self, values: Values, excerpt: Excerpt | None) -> Updates:
        visitor = Visitor(self.context, values[self.browser])
        try:
            request = self._request(values)
            self._refuse_too_much(request)
            original = self._original(values)
            known = self._known(visitor, request, original, excerpt)
            enlargement = known or begin(request, store=self.context.store, owner=visitor.owner, original=original)
            try:
                if known is not None and original is not None:
                    hold_against(known.id, original, store=self.context.store)
                self._submit(visitor, enlargement, excerpt)
            except StudioError:
                if known is None:
                    self.store.delete(enlargement.id)
                raise
        except StudioError as error:
            return self._refused(error)
        return self._shows(visitor, enlargement.id, EnlargementProgress(), None) | {self.trouble: {}, self.answer: {}}

    def begin_several(self, values: Values) -> Updates:
        """An enlargement by each method that is ticked; those that are stored are not made again."""
        visitor = Visitor(self.context, values[self.browser])
        ticked = values[self.methods]
        store, troubles, latest = self.context.store, [], ""
        try:
            request = self._request(values)
            self._refuse_too_much(request)
            original = self._original(values)
            if not isinstance(ticked, list) or not ticked:
                raise RequestError("No method is ticked.", field="method", way_out="Tick those to be compared.")
        except StudioError as error:
            return self._refused(error)
        for method in ticked:
            try:
                wanted = request if method == request.method else request_by(str(method), request)
                one = begun(wanted, store=store, owner=visitor.owner, original=original)
                if not is_done(one) and self._job(visitor, one.id) is None:
                    self._submit(visitor, one, None)
                latest = one.id
            except StudioError as error:
                troubles.append(f"{method_title(str(method))}: {error}")
        trouble = message.warn(" ".join(troubles)) if troubles else {}
        if not latest:
            return {self.trouble: trouble}
        return self._shows(visitor, latest, EnlargementProgress(), None) | {self.trouble: trouble, self.answer: {}}

    def pick(self, browser: Sent, chosen: Sent, progress: Sent, picked: Sent, event: gr.EventData) -> Updates:
        """The pictures of one more method, or of one less, are in the player."""
        key, ticked = sent_by(event).get("key"), sent_by(event).get("on") is True
        shown = picked if isinstance(picked, list) and picked else [chosen]
        others = [each for each in shown if each != key]
        kept = [*others, key] if ticked else others
        return self._shows(Visitor(self.context, browser), chosen, progress, None, kept) | {self.picked: kept}

    def _refuse_too_much(self, request: SuperResolutionRequest) -> None:
        if self.context.hosted:
            refuse_too_long(look_at(request))

    def _known(
        self,
        visitor: Visitor,
        request: SuperResolutionRequest,
        original: FileReference | None,
        excerpt: Excerpt | None,
    ) -> Enlargement | None:
        """An enlargement of this visitor's that asks for the same: its parts need not be made.

        One that is complete only where there is something left to do: to be held against another original.
        """
        same = [each for each in self.store.list(owner=visitor.owner)[:LISTED] if each.request == request]
        going_on = [each for each in same if each.state != "complete"]
        to_measure = [each for each in same if each.state == "complete" and original not in (None, each.original)]
        return next(iter(going_on if excerpt else [*going_on, *to_measure]), None)

    def _submit(self, visitor: Visitor, enlargement: Enlargement, excerpt: Excerpt | None) -> None:
        if self._job(visitor, enlargement.id) is not None:
            raise EnlargementError("It is being made, or waits for it.", field="enlargement", way_out="Stop it first.")
        work = EnlargeClip(enlargement_id=enlargement.id, excerpt=excerpt)
        self.context.queue.submit(work, owner=visitor.owner)

    def _refused(self, error: StudioError) -> Updates:
        label = _label(error)
        if not self.context.hosted:
            gr.Warning(html.escape(str(error)), title=label or "Not possible")
        return {self.trouble: message.of_error(error, label=label)}

    def leave_off(self, browser: Sent, chosen: Sent) -> Updates:
        return self._leave_off(browser, chosen, keep=False)

    def leave_off_and_keep(self, browser: Sent, chosen: Sent) -> Updates:
        return self._leave_off(browser, chosen, keep=True)

    def _leave_off(self, browser: Sent, chosen: Sent, *, keep: bool) -> Updates:
        visitor = Visitor(self.context, browser)
        try:
            job = self._job(visitor, text_of(chosen))
            if job is None:
                return {self.answer: message.quiet("It is not being made any more.")}
            self.context.queue.cancel(job.id, keep=keep, owner=visitor.owner)
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return {self.answer: message.quiet("Stopping. What was made is kept.")}

    def take_up(self, browser: Sent, chosen: Sent) -> Updates:
        """All of a stopped or failed one, from the first part that is missing."""
        visitor = Visitor(self.context, browser)
        try:
            enlargement = self.store.seen_by(visitor.owner, chosen)
            self._submit(visitor, enlargement, None)
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return self._shows(visitor, enlargement.id, EnlargementProgress(), None) | {self.answer: {}}

    def remove(self, browser: Sent, chosen: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        closed = self.deletion.closed()
        try:
            if self._job(visitor, text_of(chosen)) is not None:
                raise EnlargementError(
                    "It is being made, or about to be.", field="enlargement", way_out="Stop it first."
                )
            self.store.delete(text_of(chosen), owner=visitor.owner)
        except (StudioError, OSError) as error:
            fault = error if isinstance(error, StudioError) else EnlargementError(f"Not all could be deleted: {error}.")
            return closed | {self.answer: message.of_error(fault)}
        return closed | {self.answer: message.good("Deleted.")}

    def choose(self, browser: Sent, chosen: Sent) -> Updates:
        return self._shows(Visitor(self.context, browser), chosen, EnlargementProgress(), None) | {self.answer: {}}

    def _job(self, visitor: Visitor, enlargement_id: str) -> Job | None:
        """The job that makes it or is to, all of it or a part."""
        return self._jobs(visitor).get(enlargement_id)

    # -- looking ------------------------------------------------------------------------------------------------------

    def open(self, browser: Sent, chosen: Sent, progress: Sent, played: Sent, picked: Sent) -> Updates:
        """The tab was opened, or something was done: all as it is now."""
        return self._shows(Visitor(self.context, browser), chosen, progress, played, picked)

    def look(self, browser: Sent, chosen: Sent, progress: Sent, played: Sent, picked: Sent, seen: Sent) -> Updates:
        """What has changed since the page looked last; nothing where nothing has."""
        visitor = Visitor(self.context, browser)
        if self._signs(visitor, chosen) == seen:
            return gr.skip()
        return self._shows(visitor, chosen, progress, played, picked)

    def _shows(self, visitor: Visitor, chosen: Sent, progress: Sent, played: Sent, picked: Sent = None) -> Updates:
        signs = self._signs(visitor, chosen)  # before anything is read: what comes meanwhile is seen the next time
        try:
            mine = self.store.list(owner=visitor.owner)[:LISTED]
        except StudioError:  # a hosted page whose browser has no id yet
            mine = []
        enlargement = next((each for each in mine if each.id == chosen), mine[0] if mine else None)
        listed = gr.update(
            choices=[(_line(each), each.id) for each in mine],
            value=enlargement.id if enlargement else None,
            visible=len(mine) > 1,
        )
        if enlargement is None:
            nothing = message.quiet("Drop a clip to enlarge it.")
            return self._bare() | {self.list: listed, self.status: nothing, self.seen: signs, self.chosen: ""}
        known = progress if isinstance(progress, EnlargementProgress) else EnlargementProgress()
        if known.enlargement != enlargement.id:
            known = EnlargementProgress(enlargement=enlargement.id)
        known = known.with_events(self.store.events(enlargement.id, after=known.read))
        job = self._job(visitor, enlargement.id)
        waits, state = job is not None and job.state == "queued", self.store.state_of(enlargement)
        if enlargement.id != chosen:
            signs = self._signs(visitor, enlargement.id)
        about = facts_of_source(enlargement.source, enlargement.request)
        if enlargement.original is not None:
            about["rows"].append(Fact(name="original", value=enlargement.original.path.name))
        to_measure = state == "complete" and VIDEO not in enlargement.measurements
        jobs = self._jobs(visitor)
        rows = [each for each in beside(enlargement, mine) if self._is_shown(each, jobs)]
        rows = rows if enlargement in rows else []  # a part stands alone
        shown = _picked(picked, rows, enlargement)
        notes = {each.id: self._note(each, jobs) for each in rows}
        return self._plays(enlargement, shown, played) | {
            self.list: listed,
            self.status: status_of(enlargement, state, known, waits=waits, at_work=job is not None),
            self.stop: gr.update(visible=job is not None),
            self.keep: gr.update(visible=job is not None and not waits),
            self.go_on: gr.update(
                value="Measure" if to_measure else "Go on",
                visible=job is None and (to_measure or state in ("stopped", "failed", "waiting")),
            ),
            self.figures: figures_of(enlargement, rows, notes, [each.id for each in shown]),
            self.deletion.button: gr.update(visible=job is None),
            self.about: {**about, "notes": list(known.notices or enlargement.notices)},
            self.chosen: enlargement.id,
            self.progress: known,
            self.seen: signs,
            self.timer: gr.Timer(active=True),
        }

    def _bare(self) -> Updates:
        """The stage with nothing on it."""
        hidden = (self.stop, self.keep, self.go_on, self.download, self.deletion.button, self.video)
        return {
            **{part: gr.update(visible=False) for part in hidden},
            self.player: {},
            self.figures: {},
            self.about: {},
            self.progress: EnlargementProgress(),
            self.played: None,
            self.timer: gr.Timer(active=False),
        }

    def _jobs(self, visitor: Visitor) -> dict[str, Job]:
        """Those that wait or run, by the enlargement that they make."""
        jobs = visitor.jobs(ended=0, kinds=("enlargement",))
        return {job.work.enlargement_id: job for job in jobs if isinstance(job.work, EnlargeClip)}

    def _is_shown(self, each: Enlargement, jobs: Mapping[str, Job]) -> bool:
        """Whether there is something to say of it beside others: parts that were only tried are left out."""
        return each.state in ("complete", "failed") or each.id in jobs

    def _note(self, each: Enlargement, jobs: Mapping[str, Job]) -> str:
        """What is being done with one, or went wrong."""
        if each.id in jobs:
            return "It waits in the queue." if jobs[each.id].state == "queued" else "It is at work."
        return str(from_json(each.error)) if each.state == "failed" and each.error else ""

    def _plays(self, enlargement: Enlargement, picked: list[Enlargement], played: Sent) -> Updates:
        """The pictures beside bicubic ones and the original's, or a long clip alone; nothing where they are shown."""
        folder = self.store.path(enlargement.id)
        whole = VIDEO in enlargement.outputs
        stamp = [enlargement.id, *enlargement.outputs, *(_stamp(folder / each) for each in enlargement.outputs)]
        stamp += [each.id for each in picked]
        if stamp == played:
            return {}
        video = to_serve(folder / VIDEO, enlargement) if whole else None
        shown = side_by_side(enlargement, picked, self.store)
        player: object = {} if shown is None else shown[0]
        return {
            self.player: player,
            self.video: gr.update(value=video, visible=whole and TWIN_OF[VIDEO] not in enlargement.outputs),
            self.download: gr.update(value=video, visible=whole),
            self.played: stamp,
        }

    def _signs(self, visitor: Visitor, chosen: Sent) -> object:
        """Changes whenever there is something new to show; cheap to ask."""
        files = [*sorted(self.store.folder.glob("*/enlargement.json"))]
        if isinstance(chosen, str) and any(path.parent.name == chosen for path in files):
            files.append(self.store.path(chosen) / LOG)
        return ((chosen,), *signs_of(files, visitor.jobs(ended=0, kinds=("enlargement",))))


def _picked(picked: Sent, rows: list[Enlargement], enlargement: Enlargement) -> list[Enlargement]:
    """Whose pictures are in the player: those that were ticked and can be there, else those that are shown alone."""
    ticked = picked if isinstance(picked, list) else []
    found = [each for each in rows if each.id in ticked and may_be_played(each, enlargement)]
    return found[: most_picked(enlargement)] or [enlargement]


def _label(error: StudioError) -> str:
    """Of the control that an error speaks of."""
    if error.field == "original":
        return "Original"
    return label_of(SuperResolutionRequest, error.field) or label_of(Excerpt, error.field)


def _line(enlargement: Enlargement) -> str:
    """An enlargement in a few words, for the list."""
    request, source = enlargement.request, enlargement.source
    day = enlargement.created[5:16].replace("T", " ")
    return f"{source.name}, {request.scale}×, {method_title(request.method)} · {day}"


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
