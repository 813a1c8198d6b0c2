"""The comparison that is looked at: its state, its plot, its table as it fills, and clips side by side.

Looks at the record now and then, whoever walks it. Knows what each part wants to be given. Refuses to begin or change a
comparison.
"""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from studio.compare import Cell, Comparison
from studio.compare.export import files_of
from studio.errors import ComparisonError, StudioError
from studio.ui.attachment import Signs, signs_of
from studio.ui.components import message
from studio.ui.components.static_html import comparison_table, pareto_plot
from studio.ui.components.synced_player import served, synced_player
from studio.ui.components.values import ComparisonTable
from studio.ui.listeners import Part, Sent, Updates
from studio.ui.panels.comparison import (
    MOST_PICKED,
    may_be_shown,
    name_of,
    player_value,
    plot_value,
    status_of,
    table_value,
)
from studio.ui.panels.comparison_files import ComparisonFiles
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.server.comparison_jobs import ComparisonJobs
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import clip_to_serve
from studio.ui.server.visitor import Visitor

NOTHING_YET = (
    "No comparison yet. Faster ways of making a clip are held against the full one, from the same noise: how much "
    "faster, how near, frame by frame. Choose methods and press Compare, or press Compare with full beside any clip "
    "that was made with a cache."
)


class ComparisonPanel:
    """What is seen of a comparison. Its buttons are connected by the tab, which knows what they do."""

    def __init__(self, context: PageContext, jobs: ComparisonJobs) -> None:
        self._context = context
        self._jobs = jobs
        self.files = ComparisonFiles(("csv", "json", "html"), elem_prefix="export")
        question = "Delete this comparison for good? Its clips stay among the runs."
        self.deletion = DeletionPanel("compare", question)

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        self.earlier = gr.Dropdown(
            label="Comparison",
            choices=[],
            value=None,
            visible=False,
            filterable=False,
            elem_id="compare-earlier",
        )
        self.status = message.message(elem_id="compare-status")
        with gr.Row(visible=False, elem_classes="actions", elem_id="compare-stopping") as self.stopping:
            self.stop = gr.Button("Stop", variant="stop", size="sm", elem_id="compare-stop")
        with gr.Row(visible=False, elem_classes="actions", elem_id="compare-going-on") as self.going_on:
            self.go_on = gr.Button("Go on", size="sm", elem_id="compare-go-on")
        self.player = synced_player(elem_id="compare-player")
        self.plot = pareto_plot(elem_id="pareto")
        self.table = comparison_table({"empty": NOTHING_YET}, elem_id="compare-table")
        with gr.Row(visible=False, elem_classes="actions", elem_id="compare-actions") as self.actions:
            self.files.build()
            self.deletion.place_button(visible=False)
        self.deletion.place_question()
        self.shown = gr.State("")
        self.picked = gr.State(None)  # None: nobody has chosen yet
        self.seen = gr.State(())
        self.timer = gr.Timer(1.0, active=False)

    @property
    def outputs(self) -> list[Part]:
        """Everything that `shows` and `lists` may change."""
        return [
            *(self.shown, self.picked, self.seen, self.timer, self.earlier, self.status, self.stopping, self.going_on),
            *(self.go_on, self.player, self.plot, self.table, self.actions, *self.files.outputs),
            *(self.deletion.button, self.deletion.question),
        ]

    # -- looking ------------------------------------------------------------------------------------------------------

    def look_first(self, browser: Sent, shown: Sent, picked: Sent, seen: Sent) -> Updates:
        """The tab was opened: the comparison shown, or else this visitor's newest."""
        if seen and seen == self._signs(shown):
            return gr.skip()  # the player goes on where it is
        visitor = Visitor(self._context, browser)
        try:
            newest = next(iter(self._jobs.latest(visitor)), None)
        except StudioError:
            newest = None
        if newest is None:
            return {self.table: ComparisonTable(empty=NOTHING_YET)}
        try:
            comparison = self._jobs.get(visitor, shown)
        except ComparisonError:
            comparison, picked = newest, None
        return self.shows(comparison, numbers_of(picked)) | self.lists(visitor, comparison)

    def look(self, browser: Sent, shown: Sent, picked: Sent, seen: Sent) -> Updates:
        """What has changed since the page was told; nothing where nothing has."""
        try:
            if self._signs(shown) == seen:
                return gr.skip()
            comparison = self._jobs.get(Visitor(self._context, browser), shown)
        except StudioError:
            return {self.timer: gr.Timer(active=False)}
        return self.shows(comparison, numbers_of(picked), keep_player=True)

    def choose_earlier(self, browser: Sent, chosen: Sent) -> Updates:
        try:
            return self.shows(self._jobs.get(Visitor(self._context, browser), chosen), None)
        except StudioError as error:
            return {self.status: message.of_error(error)}

    def _signs(self, comparison_id: Sent) -> Signs:
        """Of the record and of its job."""
        if not isinstance(comparison_id, str) or not comparison_id:
            return ()
        job = self._jobs.job(comparison_id)
        return signs_of([self._jobs.book.path(comparison_id)], [job] if job else [])

    # -- showing ------------------------------------------------------------------------------------------------------

    def shows(
        self,
        comparison: Comparison,
        picked: list[int] | None,
        *,
        chosen: int | None = None,
        keep_player: bool = False,
    ) -> Updates:
        """Everything that shows a comparison.

        Args:
            comparison: As it stands.
            picked: Cells in the player; None takes the first that can be shown, so that there is something to see.
            chosen: The point that was clicked; None marks the one picked last.
            keep_player: The player shows these already, and is not to be started anew.
        """
        if picked is None:
            first = next((cell.number for cell in comparison.cells if may_be_shown(comparison, cell)), None)
            picked, keep_player = (None, False) if first is None else ([first], False)
        here = self._jobs.job(comparison.id) is not None
        elsewhere = comparison.state == "running" and not here and self._jobs.book.is_walked(comparison.id)
        at_work = here or elsewhere
        if comparison.state == "running" and not at_work:  # whoever walked it was killed
            comparison = replace(comparison, state="stopped")
        failures = any(cell.state == "failed" for cell in comparison.cells)
        updates: Updates = {
            self.shown: comparison.id,
            self.picked: picked,
            self.seen: self._signs(comparison.id),
            self.timer: gr.Timer(active=at_work),
            self.status: status_of(comparison),
            self.stopping: gr.update(visible=here),
            self.going_on: gr.update(visible=not at_work and (comparison.state == "stopped" or failures)),
            self.go_on: gr.update(value="Go on" if comparison.state == "stopped" else "Try the failed clips again"),
            self.actions: gr.update(visible=True),
            self.deletion.button: gr.update(visible=not at_work),
            self.plot: plot_value(comparison, chosen if chosen is not None else (picked or [None])[-1]),
            self.table: table_value(comparison, picked or []),
        }
        texts = files_of(comparison, self._context.store) if comparison.ended else {}
        updates |= self.deletion.closed() | self.files.shows(comparison.id, texts)
        return updates if keep_player else updates | self._plays(comparison, picked or [])

    def shows_nothing(self) -> Updates:
        """As on a page that has no comparison yet."""
        hidden = (self.stopping, self.going_on, self.actions, self.earlier)
        emptied = (self.status, self.plot, self.player)
        updates: Updates = {part: gr.update(visible=False) for part in hidden}
        updates |= {part: {} for part in emptied}
        updates |= {self.table: ComparisonTable(empty=NOTHING_YET), self.timer: gr.Timer(active=False)}
        updates |= {self.shown: "", self.picked: None, self.seen: ()}
        return updates | self.deletion.closed() | self.files.without_player()

    def lists(self, visitor: Visitor, shown: Comparison) -> Updates:
        """The comparisons to choose among."""
        choices = [(name_of(each), each.id) for each in self._jobs.latest(visitor)]
        known = any(each == shown.id for _, each in choices)
        return {self.earlier: gr.update(choices=choices, value=shown.id if known else None, visible=len(choices) > 1)}

    def _plays(self, comparison: Comparison, picked: list[int]) -> Updates:
        """The player with a reference and the clips that were picked; empty where one of them is gone."""
        nothing: Updates = {self.player: {}} | self.files.without_player()
        cells = [comparison.cells[number] for number in picked if number < len(comparison.cells)]
        cells = [cell for cell in cells if may_be_shown(comparison, cell)]
        if not cells:
            return nothing
        reference = comparison.cells[cells[0].reference]
        try:
            clips = self._clips(comparison, reference, *cells)
            if clips is None:
                return nothing
            record = player_value(comparison, reference, cells, [served(clip) for clip in clips])
            title = f"{reference.request.prompt[:120]} · seed {reference.request.seed}"
            page = self.files.shows_player(comparison.id, title, record, clips)
        except (StudioError, OSError) as error:
            return nothing | {self.status: message.warn(f"The clips cannot be shown: {error}")}
        return {self.player: record} | page

    def _clips(self, comparison: Comparison, *cells: Cell) -> list[str] | None:
        """Copies of their clips that the page may show; None where one has none."""
        runs = [self._context.store.get(cell.run_id or "", owner=comparison.owner) for cell in cells]
        clips = [clip for run in runs if (clip := clip_to_serve(run)) is not None]
        return clips if len(clips) == len(cells) else None


def numbers_of(picked: Sent) -> list[int] | None:
    """The cells that a page says are in its player; None where nobody has chosen yet."""
    return [number for number in picked if isinstance(number, int)] if isinstance(picked, list) else None


def picked_with(comparison: Comparison, picked: list[int], cell: Cell, *, ticked: bool) -> list[int]:
    """The cells in the player once one is ticked or unticked; one of another reference takes all the others' place."""
    others = [number for number in picked if number != cell.number and number < len(comparison.cells)]
    if not ticked:
        return others
    fitting = [number for number in others if comparison.cells[number].reference == cell.reference]
    return [*fitting, cell.number][-MOST_PICKED:]
