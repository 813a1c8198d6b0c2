"""Several methods on several clips: the Compare tab's second task.

A click writes the enlargements down, those that are not stored, and the list of them; each is a job of the queue. So
what is stopped goes on where it was, and a reload, another tab or a restarted studio finds it as it stands. Knows the
queue, uploads and records. Refuses to know how pictures are enlarged, and how figures are drawn.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from studio.clips.reference import FileReference
from studio.clips.uploads import Uploads
from studio.errors import EnlargementError, StudioError
from studio.jobs import Job
from studio.records.enlargement_comparisons import EnlargementComparison, EnlargementComparisonStore
from studio.records.enlargements import Enlargement, EnlargementStore
from studio.records.folders import LOG
from studio.requests.fields import label_of
from studio.requests.super_resolution import SuperResolutionRequest
from studio.requests.work import EnlargeClip
from studio.super_resolve import (
    OverClips,
    begin_comparison,
    enlargements_of,
    files_of,
    is_done,
    over_clips,
    paired,
    source_of,
)
from studio.ui.attachment import Signs, signs_of
from studio.ui.components import message
from studio.ui.components.static_html import facts, figure_table, pareto_plot
from studio.ui.components.synced_player import synced_player
from studio.ui.components.values import Fact, Facts, Message
from studio.ui.forms.comparison import ticked_of
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, sent_by, text_of
from studio.ui.panels import enlargers
from studio.ui.panels.comparison_files import ComparisonFiles
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.panels.enlargement import ENDINGS, SCALES, EnlargementProgress, refuse_too_long
from studio.ui.panels.enlargement_comparison import (
    may_be_played,
    most_side_by_side,
    name_of,
    notes_of,
    plot_of,
    status_of,
    table_of,
)
from studio.ui.panels.enlargement_player import side_by_side
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor

LOOK_SECONDS = 1.0
LISTED = 12
"""Earlier comparisons to choose among."""
MOST_CLIPS = 12
_TO_THE_PLAYER = "() => { document.getElementById('methods-player')?.scrollIntoView({block: 'nearest'}); }"


class _Shown(NamedTuple):
    """A comparison as it stands."""

    comparison: EnlargementComparison
    enlargements: list[Enlargement]
    table: OverClips
    jobs: dict[str, Job]
    """Those that wait or run, by the enlargement that they make."""
    signs: Signs


class ComparingEnlargements:
    """The components and what they do. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext, browser: gr.BrowserState) -> None:
        self.context = context
        self.browser = browser
        self.book = EnlargementComparisonStore(context.store.folder)
        self.store = EnlargementStore(context.store.folder)
        self.files = ComparisonFiles(("csv", "json"), elem_prefix="methods-export")
        self.deletion = DeletionPanel("methods", "Delete this comparison? Its enlargements stay.")
        self._uploads = Uploads(context.store.folder)

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="sheet"):
                self._build_form()
            with gr.Column(scale=9, min_width=320, elem_classes="stage", elem_id="methods-stage"):
                self._build_shown()
        self.shown = gr.State("")
        self.picked = gr.State(None)  # None: nobody has chosen yet
        self.played = gr.State(None)
        self.seen = gr.State(())
        self.timer = gr.Timer(LOOK_SECONDS, active=False)

    def _build_form(self) -> None:
        self.clips = gr.File(
            label=f"Clips to enlarge: 1 to {MOST_CLIPS}",
            file_count="multiple",
            file_types=ENDINGS,
            height=96,
            elem_id="methods-clips",
            elem_classes="upload",
        )
        self.originals = gr.File(
            label="Their large originals, if any, named alike",
            file_count="multiple",
            file_types=ENDINGS,
            height=96,
            elem_id="methods-originals",
            elem_classes="upload",
        )
        self.pairs = facts(elem_id="methods-pairs")
        self.scale = gr.Radio(SCALES, value="2", label="Scale", elem_classes="segments", elem_id="methods-scale")
        self.methods = gr.CheckboxGroup(
            choices=self._choices(),
            value=[name for _, name in enlargers.method_choices()][:2],
            label="Methods",
            elem_id="methods-ticked",
        )
        with gr.Accordion("More rows", open=False, elem_id="methods-more"):
            self.rows = gr.Textbox(
                label="Methods with settings",
                info="One a line.",
                placeholder="pocket:back_projections=0",
                lines=2,
                max_lines=6,
                elem_id="methods-rows",
            )
        self.count = message.message(elem_id="methods-count")
        self.start = gr.Button("Compare", variant="primary", size="lg", elem_id="methods-start")
        self.trouble = message.message(elem_id="methods-trouble")

    def _build_shown(self) -> None:
        self.earlier = gr.Dropdown(
            label="Comparison", choices=[], value=None, visible=False, filterable=False, elem_id="methods-earlier"
        )
        self.status = message.message(message.quiet(NOTHING_YET), elem_id="methods-status")
        with gr.Row(elem_classes="actions"):
            self.stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id="methods-stop")
            self.go_on = gr.Button("Go on", size="sm", visible=False, elem_id="methods-go-on")
        self.notices = message.message(elem_id="methods-notices")
        self.answer = message.message(elem_id="methods-answer")
        self.player = synced_player(elem_id="methods-player")
        self.plot = pareto_plot(elem_id="methods-plot")
        self.table = figure_table(elem_id="methods-table")
        with gr.Row(visible=False, elem_classes="actions", elem_id="methods-actions") as self.actions:
            self.files.build()
            self.deletion.place_button(visible=False)
        self.deletion.place_question()

    @property
    def _outputs(self) -> list[Part]:
        """Everything that `_shows` may change."""
        return [
            *(self.earlier, self.status, self.stop, self.go_on, self.notices, self.player, self.plot, self.table),
            *(self.actions, *self.files.outputs, self.deletion.button, self.shown, self.picked, self.played),
            *(self.seen, self.timer),
        ]

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab) -> None:
        """Connect the parts, which look anew whenever the tab is opened."""
        form = {self.clips, self.originals, self.scale, self.methods, self.rows}
        looking = [self.browser, self.shown, self.picked, self.played]
        tab.select(self.open, looking, self._outputs, **LIGHT)
        tab.select(self.offer, None, [self.methods], **LIGHT)
        self.timer.tick(self.look, [*looking, self.seen], self._outputs, **LIGHT)
        for control in (self.clips, self.originals, self.scale):
            control.change(self.introduce, form, [self.pairs, self.count, self.trouble], **LIGHT)
        for control in (self.methods, self.rows):
            control.change(self.foretell, form, [self.count], trigger_mode="always_last", **LIGHT)
        changed = [*self._outputs, self.trouble, self.answer]
        self.start.click(self.begin, form | {self.browser}, changed, **LIGHT)
        self.earlier.input(self.choose, [self.browser, self.earlier], changed, **LIGHT)
        self.stop.click(self.leave_off, [self.browser, self.shown], [self.answer], **LIGHT)
        self.go_on.click(self.take_up, looking, changed, **LIGHT)
        self.table.pick(self.pick, looking, changed, **LIGHT)
        chosen = self.plot.choose(self.choose_point, looking, changed, **LIGHT)
        chosen.then(None, None, None, js=_TO_THE_PLAYER, **LIGHT)
        self.deletion.wire()
        removed = [self.deletion.question, *changed]
        self.deletion.really.click(self.remove, [self.browser, self.shown], removed, **LIGHT)

    def offer(self) -> Updates:
        """The models and versions that there are by now."""
        return {self.methods: gr.update(choices=self._choices())}

    def _choices(self) -> list[tuple[str, str]]:
        return [*enlargers.method_choices(), *enlargers.variant_choices(self.context.store)]

    # -- the form -----------------------------------------------------------------------------------------------------

    def introduce(self, values: Values) -> Updates:
        """Clips or originals have come or gone: which belongs to which."""
        try:
            pairs = self._pairs(values)
            drawn = _facts_of(pairs, _scale(values[self.scale])) if pairs else {}
        except StudioError as error:
            return {self.pairs: {}, self.count: {}, self.trouble: message.of_error(error, label=_label(error))}
        return {self.pairs: drawn, self.trouble: {}} | self.foretell(values)

    def foretell(self, values: Values) -> Updates:
        """How much it is, before the click."""
        files = values[self.clips]
        clips, methods = len(files) if isinstance(files, list) else 0, len(self._methods(values))
        if not clips or not methods:
            return {self.count: {}}
        words = f"{clips} clips × {methods} methods: {clips * methods} enlargements. What is stored is not made again."
        return {self.count: message.quiet(words)}

    def _methods(self, values: Values) -> list[str]:
        typed = text_of(values[self.rows]).splitlines()
        return [*ticked_of(values[self.methods]), *(line.strip() for line in typed if line.strip())]

    def _pairs(self, values: Values) -> list[tuple[FileReference, FileReference | None]]:
        """Raises StudioError where a file is no clip, or an original belongs to none."""
        clips, originals = (self._arrived(values[each]) for each in (self.clips, self.originals))
        if len(clips) > MOST_CLIPS:
            raise EnlargementError(
                f"{len(clips)} clips are too many for one comparison.",
                field="source",
                value=len(clips),
                way_out=f"Give at most {MOST_CLIPS}.",
            )
        return paired(clips, originals, scale=_scale(values[self.scale])) if clips else []

    def _arrived(self, files: Sent) -> list[FileReference]:
        """The copies that are kept."""
        paths = [Path(each) for each in files if isinstance(each, str)] if isinstance(files, list) else []
        return [self._uploads.refer(path) for path in paths]

    # -- the buttons --------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        """The enlargements are written down, and a job for each that is not stored."""
        visitor = Visitor(self.context, values[self.browser])
        try:
            owner, scale = visitor.owner, _scale(values[self.scale])
            pairs = self._pairs(values)
            if self.context.hosted:
                for clip, _ in pairs:
                    refuse_too_long(source_of(clip, scale=scale))
            comparison = begin_comparison(
                pairs, self._methods(values), scale=scale, store=self.context.store, owner=owner
            )
        except StudioError as error:
            if not self.context.hosted:
                gr.Warning(html.escape(str(error)), title=_label(error) or "Not possible")
            return {self.trouble: message.of_error(error, label=_label(error))}
        trouble = self._submit(visitor, comparison)
        return self._shows(visitor, comparison.id, None, None) | {self.trouble: trouble, self.answer: {}}

    def _submit(self, visitor: Visitor, comparison: EnlargementComparison) -> Message | dict[str, object]:
        """A job for each enlargement that lacks something and has none; what is said where the queue takes no more."""
        jobs = self._jobs(visitor)
        try:
            for each in enlargements_of(comparison, self.context.store):
                if not is_done(each) and each.id not in jobs:
                    self.context.queue.submit(EnlargeClip(enlargement_id=each.id), owner=visitor.owner)
        except StudioError as error:
            return message.of_error(error)
        return {}

    def leave_off(self, browser: Sent, shown: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        try:
            comparison = self.book.seen_by(visitor.owner, shown)
            jobs = self._jobs(visitor)
            for each in reversed(comparison.enlargements):  # who runs last: the next one would begin meanwhile
                if each in jobs:
                    self.context.queue.cancel(jobs[each].id, owner=visitor.owner)
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return {self.answer: message.quiet("Stopping. What was made is kept.")}

    def take_up(self, browser: Sent, shown: Sent, picked: Sent, played: Sent) -> Updates:
        """What was stopped goes on, and what failed is tried again."""
        visitor = Visitor(self.context, browser)
        try:
            trouble = self._submit(visitor, self.book.seen_by(visitor.owner, shown))
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return self._shows(visitor, shown, picked, played) | {self.trouble: trouble, self.answer: {}}

    def remove(self, browser: Sent, shown: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        closed = self.deletion.closed()
        try:
            self.book.delete(shown, owner=visitor.owner)
        except StudioError as error:
            return closed | {self.answer: message.of_error(error)}
        self.files.remove(text_of(shown))
        said = message.good("Deleted. Its enlargements stay in the Super-resolution tab.")
        return closed | self._shows(visitor, "", None, None) | {self.answer: said}

    def choose(self, browser: Sent, chosen: Sent) -> Updates:
        return self._shows(Visitor(self.context, browser), chosen, None, None) | {self.answer: {}}

    # -- one cell -----------------------------------------------------------------------------------------------------

    def pick(self, browser: Sent, shown: Sent, picked: Sent, played: Sent, event: gr.EventData) -> Updates:
        """The pictures of one more method are in the player, or of one less; another clip's take all the others'
        place."""
        sent = sent_by(event)
        return self._picks(browser, shown, picked, played, text_of(sent.get("key")), ticked=sent.get("on") is True)

    def choose_point(self, browser: Sent, shown: Sent, picked: Sent, played: Sent, event: gr.EventData) -> Updates:
        """A point of the plot: its pictures are in the player."""
        visitor = Visitor(self.context, browser)
        rows = [] if (found := self._found(visitor, shown)) is None else found.table.rows
        cell = sent_by(event).get("cell")
        if not (isinstance(cell, int) and 0 <= cell < len(rows)):
            return {self.answer: {}}
        key = rows[cell].enlargement.id
        return self._picks(browser, shown, picked, played, key, ticked=True, chosen=cell)

    def _picks(
        self,
        browser: Sent,
        shown: Sent,
        picked: Sent,
        played: Sent,
        key: str,
        *,
        ticked: bool,
        chosen: int | None = None,
    ) -> Updates:
        before = [each for each in picked if isinstance(each, str)] if isinstance(picked, list) else []
        others = [each for each in before if each != key]
        wanted = [*others, key] if ticked else others
        return self._shows(Visitor(self.context, browser), shown, wanted, played, chosen=chosen) | {self.answer: {}}

    # -- looking ------------------------------------------------------------------------------------------------------

    def open(self, browser: Sent, shown: Sent, picked: Sent, played: Sent) -> Updates:
        """The tab was opened: the comparison shown, or else this visitor's newest."""
        return self._shows(Visitor(self.context, browser), shown, picked, played)

    def look(self, browser: Sent, shown: Sent, picked: Sent, played: Sent, seen: Sent) -> Updates:
        """What has changed since the page looked last; nothing where nothing has."""
        visitor = Visitor(self.context, browser)
        return gr.skip() if self._signs(visitor, shown) == seen else self._shows(visitor, shown, picked, played)

    def _signs(self, visitor: Visitor, shown: Sent) -> Signs:
        """Changes whenever there is something new to show; cheap to ask."""
        with suppress(StudioError):
            comparison = self.book.seen_by(visitor.owner, shown)
            folders = [self.store.path(each) for each in comparison.enlargements]
            files = [folder / name for folder in folders for name in (self.store.record_name, LOG)]
            jobs = self._jobs(visitor)
            return signs_of(files, [job for each, job in jobs.items() if each in comparison.enlargements])
        return ()

    def _found(self, visitor: Visitor, shown: Sent) -> _Shown | None:
        """The comparison of that id as it stands; None where there is none of this visitor's."""
        signs = self._signs(visitor, shown)  # before anything is read: what comes meanwhile is seen the next time
        with suppress(StudioError):
            comparison, jobs = self.book.seen_by(visitor.owner, shown), self._jobs(visitor)
            enlargements = enlargements_of(comparison, self.context.store)
            return _Shown(comparison, enlargements, over_clips(enlargements), jobs, signs)
        return None

    def _jobs(self, visitor: Visitor) -> dict[str, Job]:
        jobs = visitor.jobs(ended=0, kinds=("enlargement",))
        return {job.work.enlargement_id: job for job in jobs if isinstance(job.work, EnlargeClip)}

    # -- showing ------------------------------------------------------------------------------------------------------

    def _shows(
        self, visitor: Visitor, shown: Sent, picked: Sent, played: Sent, *, chosen: int | None = None
    ) -> Updates:
        try:
            mine = self.book.list(owner=visitor.owner)[:LISTED]
        except StudioError:  # a hosted page whose browser has no id yet
            mine = []
        known = any(each.id == shown for each in mine)
        found = self._found(visitor, shown if known else mine[0].id if mine else "")
        if found is None:
            return self._bare()
        picked = picked if known else None
        listed = [(name_of(each, enlargements_of(each, self.context.store)), each.id) for each in mine]
        waiting = [each for each, job in found.jobs.items() if job.state == "queued"]
        running = [each for each in found.enlargements if each.id in found.jobs]
        side = _picked(picked, found.enlargements)
        undone = any(not is_done(each) for each in found.enlargements)
        texts = files_of(found.table) if found.table.names else {}
        notices = " ".join(found.comparison.notices)
        return {
            self.earlier: gr.update(choices=listed, value=found.comparison.id, visible=len(listed) > 1),
            self.status: status_of(found.enlargements, {each.id: self._how_far(each, found.jobs) for each in running}),
            self.stop: gr.update(visible=bool(running)),
            self.go_on: gr.update(visible=not running and undone),
            self.notices: message.warn(notices) if notices else {},
            self.plot: plot_of(found.table, chosen),
            self.table: table_of(found.table, notes_of(found.enlargements, waiting), [each.id for each in side]),
            self.actions: gr.update(visible=True),
            self.deletion.button: gr.update(visible=not running),
            self.shown: found.comparison.id,
            self.picked: None if picked is None else [each.id for each in side],
            self.seen: found.signs,
            self.timer: gr.Timer(active=bool(running)),
            **self.files.shows(found.comparison.id, texts),
            **self._plays(found.comparison, side, played),
        }

    def _how_far(self, enlargement: Enlargement, jobs: dict[str, Job]) -> str:
        """In words; nothing where it waits."""
        if jobs[enlargement.id].state == "queued":
            return ""
        progress = EnlargementProgress().with_events(self.store.events(enlargement.id))
        if progress.measured is not None:
            return f"{progress.measured.done} of {progress.measured.num_frames} pictures are measured"
        if progress.latest is not None:
            return f"{progress.latest.done} of {progress.latest.num_frames} pictures"
        return "it begins"

    def _plays(self, comparison: EnlargementComparison, side: Sequence[Enlargement], played: Sent) -> Updates:
        """The player with what was picked; nothing where it shows that already."""
        stamp = [comparison.id, *(f"{each.id} {sorted(each.outputs)} {len(each.measurements)}" for each in side)]
        if stamp == played:
            return {}
        nothing: Updates = {self.player: {}, self.played: stamp} | self.files.without_player()
        if not side:
            return nothing
        try:
            laid = side_by_side(side[0], side, self.store)
            if laid is None:
                return nothing
            record, files = laid
            page = self.files.shows_player(comparison.id, side[0].source.name, record, files)
        except (StudioError, OSError) as error:
            return nothing | {self.status: message.warn(f"The pictures cannot be shown: {error}")}
        return {self.player: record, self.played: stamp} | page

    def _bare(self) -> Updates:
        """As on a page that has no comparison yet."""
        hidden = (self.earlier, self.stop, self.go_on, self.actions)
        return {
            **{part: gr.update(visible=False) for part in hidden},
            **{part: {} for part in (self.notices, self.player, self.plot, self.table)},
            self.status: message.quiet(NOTHING_YET),
            self.shown: "",
            self.picked: None,
            self.played: None,
            self.seen: (),
            self.timer: gr.Timer(active=False),
        }


NOTHING_YET = (
    "No comparison yet. Each clip is enlarged by each method, and every figure stands beside the others; with the "
    "large originals it is said how near each comes to them. Drop clips, tick methods, and press Compare."
)


def _picked(picked: Sent, enlargements: Sequence[Enlargement]) -> list[Enlargement]:
    """Whose pictures are in the player: those picked last of one clip, or the first clip's where nobody has chosen."""
    playable = [each for each in enlargements if may_be_played(each)]
    if not isinstance(picked, list):
        wanted = playable
        last = playable[0] if playable else None
    else:
        by_id = {each.id: each for each in playable}
        wanted = [by_id[each] for each in picked if each in by_id]
        last = wanted[-1] if wanted else None
    if last is None:
        return []
    of_clip = [each for each in wanted if _same_clip(each, last)]
    most = most_side_by_side(last)
    return of_clip[-most:] if isinstance(picked, list) else of_clip[:most]


def _same_clip(one: Enlargement, other: Enlargement) -> bool:
    return (one.request.source.sha256, one.original) == (other.request.source.sha256, other.original)


def _facts_of(pairs: Sequence[tuple[FileReference, FileReference | None]], scale: int) -> Facts:
    """The clips, each with what it is held against."""
    rows: list[Fact] = []
    for clip, original in pairs:
        source = source_of(clip, scale=scale)
        against = "no original" if original is None else f"against {original.path.name}"
        what = f"{source.width}×{source.height}, {source.num_frames} pictures; {against}"
        rows.append(Fact(name=clip.path.name, value=what))
    return {"title": "Clips", "note": "", "rows": rows, "notes": []}


def _scale(value: Sent) -> int:
    return 4 if value == "4" else 2


def _label(error: StudioError) -> str:
    """Of the control that an error speaks of."""
    return {"original": "Originals", "source": "Clips", "method": "Methods"}.get(error.field) or label_of(
        SuperResolutionRequest, error.field
    )
