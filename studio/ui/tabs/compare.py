"""The Compare tab: a grid from the form's settings on the left, and on the right the comparison that is looked at.

A click writes a comparison down, and a job that walks it; the tab looks at the record. So a reload, another tab or a
restarted studio finds it as it stands. Knows the grid's form, and what each button asks. Refuses to know how a clip is
made, how a score is measured, and how either is drawn.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import NamedTuple

import gradio as gr

from studio.compare import Cell, Comparison, cells_of
from studio.compare.wording import method_title
from studio.errors import StudioError
from studio.machine.pace import predict
from studio.records.run import Run
from studio.ui.components import message
from studio.ui.components.values import Message
from studio.ui.forms.comparison import GridForm, grid_label, method_choices, ticked_of
from studio.ui.forms.generation import Form, Restoring, label_of
from studio.ui.listeners import LIGHT, Sent, Updates, Values, sent_by, text_of
from studio.ui.panels.comparing_enlargements import ComparingEnlargements
from studio.ui.panels.shown_comparison import ComparisonPanel, numbers_of, picked_with
from studio.ui.server.comparison_jobs import ComparisonJobs
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor
from studio.ui.wording import seconds_text, settings_line

_TO_THE_PLAYER = "() => { document.getElementById('compare-player')?.scrollIntoView({block: 'nearest'}); }"
MAKE, ENLARGE = "make", "enlarge"
"""The two kinds of comparison."""


class TwinButton(NamedTuple):
    """A button "Compare with full" beside a clip that another tab shows."""

    button: gr.Button
    shown: gr.State
    """Says which clip."""
    run: Callable[[Sent, Sent], Run]
    """Of a browser's storage and what `shown` says; raises StudioError."""
    answer: gr.HTML
    """Where it is said if nothing can be compared."""


class CompareTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them to the other tabs."""

    def __init__(self, context: PageContext, browser: gr.BrowserState, form: Form, restoring: Restoring) -> None:
        """
        Args:
            context: The page's.
            browser: What the browser's storage holds.
            form: Says whatever the grid's own controls do not.
            restoring: What a cell's settings are restored into.
        """
        self.context = context
        self.browser = browser
        self.restoring = restoring
        self.grid = GridForm(form)
        self.jobs = ComparisonJobs(context)
        self.panel = ComparisonPanel(context, self.jobs)
        self.enlargements = ComparingEnlargements(context, browser)

    def build(self) -> None:
        self.task = gr.Radio(
            [("Ways of making a clip", MAKE), ("Ways of enlarging clips (super-resolution)", ENLARGE)],
            value=MAKE,
            label="What is compared",
            elem_classes="segments",
            elem_id="compare-task",
        )
        with gr.Column(elem_id="compare-make") as self.making:
            self._build_making()
        with gr.Column(visible=False, elem_id="compare-enlarge") as self.enlarging:
            self.enlargements.build()

    def _build_making(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="sheet"):
                self.base = message.message(message.quiet(""), elem_id="compare-base")
                self.grid.place()
                self.estimate = message.message(elem_id="compare-estimate")
                self.start = gr.Button("Compare", variant="primary", size="lg", elem_id="compare-start")
                self.trouble = message.message(elem_id="compare-trouble")
            with gr.Column(scale=9, min_width=320, elem_classes="stage", elem_id="compare-stage"):
                self.panel.build()

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab, tabs: gr.Tabs, twins: Iterable[TwinButton]) -> None:
        """Connect the tab.

        Args:
            tab: This tab, which looks anew whenever it is opened.
            tabs: All of them, to switch between.
            twins: The clips of other tabs that can be compared with their full twin.
        """
        self._wire_grid(tab)
        self.enlargements.wire(tab)
        self.task.input(self.turn, [self.task], [self.making, self.enlarging], **LIGHT)
        panel, deletion = self.panel, self.panel.deletion
        looking = [self.browser, panel.shown, panel.picked, panel.seen]
        tab.select(panel.look_first, looking, panel.outputs, **LIGHT)
        panel.timer.tick(panel.look, looking, panel.outputs, **LIGHT)
        panel.earlier.input(panel.choose_earlier, [self.browser, panel.earlier], panel.outputs, **LIGHT)
        shown, picked = [self.browser, panel.shown], [self.browser, panel.shown, panel.picked]
        changed = [*panel.outputs, self.trouble]
        panel.stop.click(self.ask_to_stop, shown, [self.trouble], **LIGHT)
        panel.go_on.click(self.take_up, picked, changed, **LIGHT)
        deletion.wire()
        deletion.really.click(self.remove, shown, changed, **LIGHT)
        panel.table.pick(self.pick, picked, changed, **LIGHT)
        panel.table.restore(self.load_cell, shown, [*self.restoring.restored, self.trouble], **LIGHT)
        chosen = panel.plot.choose(self.choose_point, shown, [*changed, *self.restoring.restored], **LIGHT)
        chosen.then(None, None, None, js=_TO_THE_PLAYER, **LIGHT)
        for twin in twins:
            self._wire_twin(twin, tabs)

    def _wire_grid(self, tab: gr.Tab) -> None:
        grid = self.grid
        tab.select(self.introduce, {*grid.inputs}, [self.base, grid.methods, self.estimate], **LIGHT)
        gr.on(
            [control.change for control in grid.controls],
            self.count,
            grid.inputs,
            [self.estimate],
            trigger_mode="always_last",
            **LIGHT,
        )
        self.start.click(self.begin, {*grid.inputs, self.browser}, [*self.panel.outputs, self.trouble], **LIGHT)

    def _wire_twin(self, twin: TwinButton, tabs: gr.Tabs) -> None:
        def compare_with_full(browser: Sent, shown: Sent) -> Updates:
            try:
                updates = self.begin_twin(browser, twin.run(browser, shown))
            except StudioError as error:
                gr.Warning(html.escape(str(error)), title="Not compared")
                return {twin.answer: message.of_error(error)}
            return updates | {tabs: gr.Tabs(selected="compare"), self.task: MAKE} | self.turn(MAKE)

        changed = [*self.panel.outputs, twin.answer, tabs, self.task, self.making, self.enlarging]
        twin.button.click(compare_with_full, [self.browser, twin.shown], changed, **LIGHT)

    def turn(self, task: Sent) -> Updates:
        """The form and the stage of the other kind of comparison."""
        return {self.making: gr.update(visible=task == MAKE), self.enlarging: gr.update(visible=task == ENLARGE)}

    # -- the grid -----------------------------------------------------------------------------------------------------

    def introduce(self, values: Values) -> Updates:
        """The tab was opened: what the form says now, which methods its model takes, and what the grid would be."""
        updates: Updates = {self.estimate: self.count(values)}
        try:
            request, preset = self.grid.form.request_of(values, prompt="a prompt")
        except StudioError as error:
            return updates | {self.base: message.of_error(error, label=label_of(error))}
        choices = method_choices(preset.pipeline)
        offered = {name for _, name in choices}
        kept = [name for name in ticked_of(values[self.grid.methods]) if name in offered]
        words = settings_line(request.model_copy(update={"seed": 0})).removesuffix(" · seed 0")
        return updates | {
            self.base: message.quiet(f"With the settings of the Generate tab: {preset.title} · {words}."),
            self.grid.methods: gr.update(choices=choices, value=kept),
        }

    def count(self, values: Values) -> Message:
        """How much the grid is, before the click."""
        try:
            cells = cells_of(self.grid.read(values, prompt="a prompt"))
        except StudioError as error:
            return message.of_error(error, label=grid_label(error))
        groups = len({cell.group for cell in cells})
        words = f"{len(cells)} clips" if groups == 1 else f"{len(cells)} clips in {groups} groups"
        known = [predict(cell.request, self.context.store.folder) for cell in cells]
        if all(each is not None for each in known):
            words += f", at most about {seconds_text(sum(each.seconds for each in known if each))}"
        return message.quiet(words + ". Clips that are here already are not made again.")

    # -- the buttons --------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        """The grid is written down, and a job that walks it."""
        visitor = Visitor(self.context, values[self.browser])
        try:
            comparison = self.jobs.begin(visitor, self.grid.read(values))
        except StudioError as error:
            gr.Warning(html.escape(str(error)), title=grid_label(error) or "Not possible")
            return {self.trouble: message.of_error(error, label=grid_label(error))}
        return self._shows(visitor, comparison) | {self.trouble: {}}

    def begin_twin(self, browser: Sent, run: Run) -> Updates:
        """A clip and its full twin.

        Raises:
            StudioError: the clip is the full one itself, is not there, or no more is taken now.
        """
        visitor = Visitor(self.context, browser)
        return self._shows(visitor, self.jobs.begin_twin(visitor, run))

    def _shows(self, visitor: Visitor, comparison: Comparison) -> Updates:
        """Another comparison than was shown before."""
        return self.panel.shows(comparison, None) | self.panel.lists(visitor, comparison)

    def ask_to_stop(self, browser: Sent, shown: Sent) -> Updates:
        try:
            self.jobs.stop(Visitor(self.context, browser), shown)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        return {self.trouble: message.quiet("Stopping. What is made already is kept.")}

    def take_up(self, browser: Sent, shown: Sent, picked: Sent) -> Updates:
        """A stopped comparison goes on, and its failed cells are tried again."""
        try:
            comparison = self.jobs.go_on(Visitor(self.context, browser), shown)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        return self.panel.shows(comparison, numbers_of(picked)) | {self.trouble: {}}

    def remove(self, browser: Sent, shown: Sent) -> Updates:
        """The comparison goes, its clips stay; this visitor's newest takes its place."""
        visitor = Visitor(self.context, browser)
        try:
            self.jobs.delete(visitor, shown)
            latest = self.jobs.latest(visitor)
        except StudioError as error:
            return self.panel.deletion.closed() | {self.trouble: message.of_error(error)}
        self.panel.files.remove(text_of(shown))
        updates = self._shows(visitor, latest[0]) if latest else self.panel.shows_nothing()
        return updates | {self.trouble: message.good("Deleted. Its clips stay among the runs.")}

    # -- one cell -----------------------------------------------------------------------------------------------------

    def pick(self, browser: Sent, shown: Sent, picked: Sent, event: gr.EventData) -> Updates:
        """A clip is ticked or unticked."""
        try:
            comparison, cell = self._cell(browser, shown, event)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        ticked = sent_by(event).get("on") is True
        numbers = picked_with(comparison, numbers_of(picked) or [], cell, ticked=ticked)
        return self.panel.shows(comparison, numbers) | {self.trouble: {}}

    def choose_point(self, browser: Sent, shown: Sent, event: gr.EventData) -> Updates:
        """A point of the plot: its clip beside its reference, and its settings in the form."""
        try:
            comparison, cell = self._cell(browser, shown, event)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        picked = [] if cell.is_reference else [cell.number]
        updates = self.panel.shows(comparison, picked, chosen=cell.number, keep_player=cell.is_reference)
        return updates | self._restores(cell)

    def load_cell(self, browser: Sent, shown: Sent, event: gr.EventData) -> Updates:
        """A row's settings go into the form."""
        try:
            _, cell = self._cell(browser, shown, event)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        return self._restores(cell)

    def _restores(self, cell: Cell) -> Updates:
        words = f"The settings of {method_title(cell.method)}, seed {cell.request.seed}, are in the Generate form."
        return self.restoring.restores(cell.request, words) | {self.trouble: message.good(words)}

    def _cell(self, browser: Sent, shown: Sent, event: gr.EventData) -> tuple[Comparison, Cell]:
        """The comparison that is shown, and the cell that was clicked."""
        comparison = self.jobs.get(Visitor(self.context, browser), shown)
        return comparison, comparison.cell(sent_by(event).get("cell", -1))
