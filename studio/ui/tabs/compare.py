"""The Compare tab: a grid from the form's settings, its table as it fills, the plot, and clips side by side.

A click writes a comparison down, and a job that walks it; the tab looks at the record. So a reload, another tab or a
restarted studio finds it as it stands. Knows the comparisons, the form's values and the player. Refuses to know how a
clip is made, how a score is measured, and how either is drawn.
"""

from __future__ import annotations

import html
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from studio.compare import (
    Cell,
    Comparison,
    Comparisons,
    Grid,
    cells_of,
    method_of,
)
from studio.compare.export import to_csv, to_json_text
from studio.compare.page import to_html
from studio.compare.wording import title_of
from studio.errors import ComparisonError, JobError, RequestError, RunError, StudioError
from studio.jobs import Job
from studio.machine.pace import predict
from studio.records.run import Run
from studio.requests.work import WalkComparison
from studio.ui.components import message
from studio.ui.components.comparison_table import comparison_table
from studio.ui.components.pareto_plot import pareto_plot
from studio.ui.components.synced_player import served, synced_player
from studio.ui.forms.comparison import GridForm, grid_label, method_choices, ticked_of
from studio.ui.forms.generation import label_of
from studio.ui.listeners import LIGHT, Values, sent_by
from studio.ui.panels.comparison import (
    MOST_PICKED,
    may_be_shown,
    name_of,
    player_value,
    plot_value,
    status_of,
    table_value,
)
from studio.ui.panels.comparison_export import export_html
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import clip_to_serve
from studio.ui.server.visitor import owner_of
from studio.ui.tabs.generate import GenerateTab
from studio.ui.tabs.runs import RunsTab
from studio.ui.wording import seconds_text, settings_line

MOST_CELLS_OF_A_VISITOR = 24
"""Where strangers share the machine."""
LISTED = 12
"""Earlier comparisons to choose among."""
PLAYER_BYTES = 40 * 10**6
"""Above this the player's own page is not prepared: a browser should not be handed it unasked."""
NOTHING_YET = (
    "No comparison yet. Faster ways of making a clip are held against the full one, from the same noise: how much "
    "faster, how near, frame by frame. Choose methods and press Compare, or press Compare with full beside any clip "
    "that was made with a cache."
)


class CompareTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them to the other tabs."""

    def __init__(self, context: PageContext, browser: gr.BrowserState, generate: GenerateTab) -> None:
        self.context = context
        self.browser = browser
        self.generate = generate
        self.grid = GridForm(generate.form)
        self.book = Comparisons(context.store)
        self._exports = Path(get_upload_folder()) / "comparisons" / secrets.token_hex(16)

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_classes="sheet"):
                self._build_grid()
            with gr.Column(scale=9, min_width=320, elem_classes="stage", elem_id="compare-stage"):
                self._build_shown()
        self.shown = gr.State("")
        self.picked = gr.State(None)  # None: nobody has chosen yet
        self.told = gr.State("")
        self.timer = gr.Timer(1.0, active=False)

    def _build_grid(self) -> None:
        self.base = message.message(message.quiet(""), elem_id="compare-base")
        self.grid.place()
        self.estimate = message.message(elem_id="compare-estimate")
        self.start = gr.Button("Compare", variant="primary", size="lg", elem_id="compare-start")
        self.trouble = message.message(elem_id="compare-trouble")

    def _build_shown(self) -> None:
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
            self.files = {
                ending: gr.DownloadButton(label, size="sm", visible=False, elem_id=f"export-{ending}")
                for ending, label in (("csv", "CSV"), ("json", "JSON"), ("html", "HTML page"))
            }
            self.player_file = gr.DownloadButton("Player as HTML", size="sm", visible=False, elem_id="export-player")
            self.delete = gr.Button("Delete", size="sm", visible=False, elem_id="compare-delete")
        with gr.Row(visible=False, elem_classes="actions", elem_id="compare-confirm") as self.confirm:
            self.question = message.message(
                message.warn("Delete this comparison for good? Its clips stay among the runs."),
                elem_id="compare-question",
            )
            self.really = gr.Button("Delete it", variant="stop", size="sm", elem_id="compare-delete-really")
            self.not_really = gr.Button("Keep it", size="sm", elem_id="compare-keep")

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab, tabs: gr.Tabs, runs: RunsTab) -> None:
        """Connect the tab.

        Args:
            tab: This tab, which looks anew whenever it is opened.
            tabs: All of them, to switch between.
            runs: The tab whose clips can be compared with their full twin.
        """
        asked = self.grid.inputs
        seen = [
            *(self.shown, self.picked, self.told, self.timer, self.earlier, self.status),
            *(self.stopping, self.going_on, self.go_on),
            *(self.player, self.plot, self.table, self.actions, *self.files.values(), self.player_file),
            *(self.delete, self.confirm),
        ]
        about = [self.base, self.grid.methods, self.estimate]
        tab.select(self.look_first, [self.browser, self.shown, self.picked, self.told], seen, **LIGHT)
        tab.select(self.introduce, asked, about, **LIGHT)
        gr.on(
            [control.change for control in self.grid.controls],
            self.count,
            asked,
            [self.estimate],
            trigger_mode="always_last",
            **LIGHT,
        )
        self.timer.tick(self.look, [self.browser, self.shown, self.picked, self.told], seen, **LIGHT)
        self.start.click(self.begin, asked | {self.browser}, [*seen, self.trouble], **LIGHT)
        self.stop.click(self.ask_to_stop, [self.browser, self.shown], [self.trouble], **LIGHT)
        self.go_on.click(self.take_up, [self.browser, self.shown, self.picked], [*seen, self.trouble], **LIGHT)
        self.delete.click(self.ask, None, [self.confirm], **LIGHT)
        self.not_really.click(self.keep, None, [self.confirm], **LIGHT)
        self.really.click(self.remove, [self.browser, self.shown], [*seen, self.trouble], **LIGHT)
        self.earlier.input(self.choose_earlier, [self.browser, self.earlier], seen, **LIGHT)
        self.table.pick(self.pick, [self.browser, self.shown, self.picked], [*seen, self.trouble], **LIGHT)
        loaded = [*self.generate.changed, self.generate.trouble, self.trouble]
        chosen = self.plot.choose(self.choose_point, [self.browser, self.shown], [*seen, *loaded], **LIGHT)
        chosen.then(None, None, None, js=_TO_THE_PLAYER, **LIGHT)
        self.table.restore(self.load_cell, [self.browser, self.shown], loaded, **LIGHT)
        for button, take, said in (
            (self.generate.compare, self._run_of_job, (self.generate.shown_job, self.generate.trouble)),
            (runs.compare, self._run, (runs.chosen, runs.hint)),
        ):
            self._wire_twin(button, take, *said, tabs=tabs, seen=seen)

    def _wire_twin(
        self, button: gr.Button, take: Any, which: gr.State, said: gr.HTML, *, tabs: gr.Tabs, seen: list[Any]
    ) -> None:
        def compare_with_full(browser: Any, chosen: Any) -> dict[Any, Any]:
            try:
                updates = self.begin_twin(browser, take(browser, chosen))
            except StudioError as error:
                gr.Warning(html.escape(str(error)), title="Not compared")
                return {said: message.of_error(error)}
            return updates | {tabs: gr.Tabs(selected="compare")}

        button.click(compare_with_full, [self.browser, which], [*seen, said, tabs], **LIGHT)

    # -- the grid -----------------------------------------------------------------------------------------------------

    def introduce(self, values: Values) -> dict[Any, Any]:
        """The tab was opened: what the form says now, which methods its model takes, and what the grid would be."""
        updates: dict[Any, Any] = {self.estimate: self.count(values)}
        try:
            request, preset = self.generate.form.request_of(values, prompt="a prompt")
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

    def count(self, values: Values) -> dict[str, Any]:
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

    def begin(self, values: Values) -> dict[Any, Any]:
        """The grid is written down, and a job that walks it."""
        try:
            owner = self._owner(values[self.browser])
            grid = self.grid.read(values)
            self._refuse_too_much(owner, grid)
            comparison = self._begin(grid, owner)
        except StudioError as error:
            gr.Warning(html.escape(str(error)), title=grid_label(error) or "Not possible")
            return {self.trouble: message.of_error(error, label=grid_label(error))}
        return self._shows(comparison, None) | self._lists(owner, comparison.id) | {self.trouble: {}}

    def begin_twin(self, browser: Any, run: Run) -> dict[Any, Any]:
        """A finished clip and its uncached twin of the same seed, which is made where it is not here yet.

        Raises:
            StudioError: the clip is the full one itself, is not there, or no more is taken now.
        """
        if run.state != "complete":
            raise RunError("There is no clip to compare.", field="run", way_out="Choose a finished one.")
        if run.request.cache is None:
            raise RequestError(
                "This clip was computed in full: there is nothing to hold it against.",
                field="cache",
                way_out="Open the Compare tab, and choose methods to hold against it.",
            )
        owner, method = self._owner(browser), method_of(run.request)
        for earlier in self.book.list(owner=owner, limit=LISTED):
            if len(earlier.cells) == 2 and earlier.cells[1].run_id == run.id and earlier.cells[0].state != "failed":
                return self._shows(earlier, None) | self._lists(owner, earlier.id)
        grid = Grid(base=run.request, methods=(method,))
        self._refuse_too_much(owner, grid)
        comparison = self._begin(grid, owner, pinned={method.text: run.id})
        return self._shows(comparison, None) | self._lists(owner, comparison.id)

    def _begin(self, grid: Grid, owner: str, *, pinned: dict[str, str] | None = None) -> Comparison:
        comparison = self.book.begin(grid, owner=owner, pinned=pinned)
        try:
            self.context.queue.submit(WalkComparison(comparison_id=comparison.id), owner=owner)
        except StudioError:
            self.book.delete(comparison.id)
            raise
        return comparison

    def _job(self, comparison: Comparison) -> Job | None:
        """The job that walks a comparison, or is to."""
        return self.context.queue.job_for(WalkComparison(comparison_id=comparison.id))

    def _refuse_too_much(self, owner: str, grid: Grid) -> None:
        if not self.context.hosted:
            return
        if len(cells_of(grid)) > MOST_CELLS_OF_A_VISITOR:
            raise RequestError(
                f"On this shared page a grid has at most {MOST_CELLS_OF_A_VISITOR} clips.",
                field="grid",
                way_out="Leave out prompts, seeds or methods.",
            )
        if any(each.state == "running" for each in self.book.list(owner=owner)):
            raise JobError("Your last comparison is still under way.", way_out="Wait for it, or stop it.")

    def ask_to_stop(self, browser: Any, shown: Any) -> dict[Any, Any]:
        try:
            job = self._job(self.book.get(shown, owner=self._owner(browser)))
            if job is not None:
                self.context.queue.cancel(job.id)
            self.book.stop(shown)  # which only does something where nobody walks it
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        return {self.trouble: message.quiet("Stopping. What is made already is kept.")}

    def take_up(self, browser: Any, shown: Any, picked: Any) -> dict[Any, Any]:
        """A stopped comparison goes on, and its failed cells are tried again."""
        try:
            comparison = self.book.get(shown, owner=self._owner(browser))
            comparison = self.book.go_on(comparison.id, again=True)
            self.context.queue.submit(WalkComparison(comparison_id=comparison.id), owner=comparison.owner)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        return self._shows(comparison, _numbers(picked)) | {self.trouble: {}}

    # -- deleting -----------------------------------------------------------------------------------------------------

    def ask(self) -> dict[Any, Any]:
        return {self.confirm: gr.update(visible=True)}

    def keep(self) -> dict[Any, Any]:
        return {self.confirm: gr.update(visible=False)}

    def remove(self, browser: Any, shown: Any) -> dict[Any, Any]:
        """The comparison goes, its clips stay; this visitor's newest takes its place."""
        try:
            owner = self._owner(browser)
            if self._job(self.book.get(shown, owner=owner)) is not None:
                raise JobError("The comparison is under way.", field="comparison", way_out="Stop it first.")
            self.book.delete(shown, owner=owner)
            newest = self.book.list(owner=owner, limit=1)
        except StudioError as error:
            return {self.trouble: message.of_error(error), self.confirm: gr.update(visible=False)}
        shutil.rmtree(self._exports / str(shown), ignore_errors=True)
        said = {self.trouble: message.good("Deleted. Its clips stay among the runs.")}
        if not newest:
            return self._shows_nothing() | said
        return self._shows(newest[0], None) | self._lists(owner, newest[0].id) | said

    # -- looking ------------------------------------------------------------------------------------------------------

    def look_first(self, browser: Any, shown: Any, picked: Any, told: Any) -> Any:
        """The tab was opened: the comparison shown, or else this visitor's newest."""
        if told and told == self._version(shown):
            return gr.skip()  # the player goes on where it is
        try:
            owner = self._owner(browser)
            newest = self.book.list(owner=owner, limit=1)
        except StudioError:
            return {self.table: {"empty": NOTHING_YET}}
        if not newest:
            return {self.table: {"empty": NOTHING_YET}}
        try:
            comparison = self.book.get(shown, owner=owner)
        except ComparisonError:
            comparison, picked = newest[0], None
        return self._shows(comparison, _numbers(picked)) | self._lists(owner, comparison.id)

    def look(self, browser: Any, shown: Any, picked: Any, told: Any) -> Any:
        """What has changed since the page was told; nothing where nothing has."""
        try:
            if self._version(shown) == told:
                return gr.skip()
            comparison = self.book.get(shown, owner=self._owner(browser))
        except StudioError:
            return {self.timer: gr.Timer(active=False)}
        return self._shows(comparison, _numbers(picked), keep_player=True)

    def choose_earlier(self, browser: Any, chosen: Any) -> dict[Any, Any]:
        try:
            return self._shows(self.book.get(chosen, owner=self._owner(browser)), None)
        except StudioError as error:
            return {self.status: message.of_error(error)}

    def pick(self, browser: Any, shown: Any, picked: Any, event: gr.EventData) -> dict[Any, Any]:
        """A clip is ticked or unticked. One of another reference takes the place of all that were."""
        sent = sent_by(event)
        try:
            comparison = self.book.get(shown, owner=self._owner(browser))
            cell = comparison.cell(sent.get("cell", -1))
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        numbers = [number for number in _numbers(picked) or [] if number != cell.number]
        if sent.get("on") is True:
            numbers = [
                number
                for number in numbers
                if number < len(comparison.cells) and comparison.cells[number].reference == cell.reference
            ]
            numbers = [*numbers, cell.number][-MOST_PICKED:]
        return self._shows(comparison, numbers) | {self.trouble: {}}

    def choose_point(self, browser: Any, shown: Any, event: gr.EventData) -> dict[Any, Any]:
        """A point of the plot: its clip beside its reference, and its settings in the form."""
        sent = sent_by(event)
        try:
            comparison = self.book.get(shown, owner=self._owner(browser))
            cell = comparison.cell(sent.get("cell", -1))
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        picked = [] if cell.is_reference else [cell.number]
        updates = self._shows(comparison, picked, chosen=cell.number, keep_player=cell.is_reference)
        return updates | self._loads(cell)

    def load_cell(self, browser: Any, shown: Any, event: gr.EventData) -> dict[Any, Any]:
        """A row's settings go into the form."""
        sent = sent_by(event)
        try:
            return self._loads(self.book.get(shown, owner=self._owner(browser)).cell(sent.get("cell", -1)))
        except StudioError as error:
            return {self.trouble: message.of_error(error)}

    def _loads(self, cell: Cell) -> dict[Any, Any]:
        name = title_of(cell.method)
        words = message.good(f"The settings of {name}, seed {cell.request.seed}, are in the Generate form.")
        return self.generate.shows(cell.request) | {self.generate.trouble: words, self.trouble: words}

    # -- showing ------------------------------------------------------------------------------------------------------

    def _shows(
        self,
        comparison: Comparison,
        picked: list[int] | None,
        *,
        chosen: int | None = None,
        keep_player: bool = False,
    ) -> dict[Any, Any]:
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
        here = self._job(comparison) is not None
        elsewhere = comparison.state == "running" and not here and self.book.is_walked(comparison.id)
        at_work = here or elsewhere
        if comparison.state == "running" and not at_work:  # whoever walked it was killed
            comparison = replace(comparison, state="stopped")
        failures = any(cell.state == "failed" for cell in comparison.cells)
        updates: dict[Any, Any] = {
            self.shown: comparison.id,
            self.picked: picked,
            self.told: self._version(comparison.id),
            self.timer: gr.Timer(active=at_work),
            self.status: status_of(comparison),
            self.stopping: gr.update(visible=here),
            self.going_on: gr.update(visible=not at_work and (comparison.state == "stopped" or failures)),
            self.go_on: gr.update(value="Go on" if comparison.state == "stopped" else "Try the failed clips again"),
            self.actions: gr.update(visible=True),
            self.delete: gr.update(visible=not at_work),
            self.confirm: gr.update(visible=False),
            self.plot: plot_value(comparison, chosen if chosen is not None else (picked or [None])[-1]),
            self.table: table_value(comparison, picked or []),
        } | self._exported(comparison)
        if not keep_player:
            updates |= self._played(comparison, picked or [])
        return updates

    def _shows_nothing(self) -> dict[Any, Any]:
        """As on a page that has no comparison yet."""
        hidden = (self.stopping, self.going_on, self.actions, self.confirm, self.earlier, self.player_file)
        return {
            **{part: gr.update(visible=False) for part in hidden},
            **{part: {} for part in (self.status, self.plot, self.player)},
            self.table: {"empty": NOTHING_YET},
            self.timer: gr.Timer(active=False),
            self.shown: "",
            self.picked: None,
            self.told: "",
        }

    def _lists(self, owner: str, shown: str) -> dict[Any, Any]:
        """The comparisons to choose among."""
        choices = [(name_of(each), each.id) for each in self.book.list(owner=owner, limit=LISTED)]
        known = any(each == shown for _, each in choices)
        return {self.earlier: gr.update(choices=choices, value=shown if known else None, visible=len(choices) > 1)}

    def _played(self, comparison: Comparison, picked: list[int]) -> dict[Any, Any]:
        """The player with a reference and the clips that were picked; empty where one of them is gone."""
        nothing = {self.player: {}, self.player_file: gr.update(visible=False)}
        cells = [comparison.cells[number] for number in picked if number < len(comparison.cells)]
        cells = [cell for cell in cells if may_be_shown(comparison, cell)]
        if not cells:
            return nothing
        reference = comparison.cells[cells[0].reference]
        try:
            runs = [self.context.store.get(cell.run_id or "", owner=comparison.owner) for cell in (reference, *cells)]
            copies = [clip_to_serve(run) for run in runs]
            if not all(copies):
                return nothing
            clips = [str(copy) for copy in copies]
            record = player_value(comparison, reference, cells, [served(clip) for clip in clips])
            page = None
            if sum(Path(clip).stat().st_size for clip in clips) <= PLAYER_BYTES:
                title = f"{reference.request.prompt[:120]} · seed {reference.request.seed}"
                page = self._written(
                    comparison, "player.html", export_html(record, [Path(clip) for clip in clips], title=title)
                )
        except (StudioError, OSError) as error:
            return nothing | {self.status: message.warn(f"The clips cannot be shown: {error}")}
        return {self.player: record, self.player_file: gr.update(value=page, visible=page is not None)}

    def _exported(self, comparison: Comparison) -> dict[Any, Any]:
        """The three files, written anew with each cell, so that what is downloaded is what is seen."""
        texts = {
            "csv": lambda: to_csv(comparison),
            "json": lambda: to_json_text(comparison),
            "html": lambda: to_html(comparison, self.context.store),
        }
        nothing = {button: gr.update(visible=False) for button in self.files.values()}
        if not comparison.ended:
            return nothing
        try:
            return {
                self.files[ending]: gr.update(
                    value=self._written(comparison, f"comparison.{ending}", text()), visible=True
                )
                for ending, text in texts.items()
            }
        except OSError:  # a full disk: the figures are on the page all the same
            return nothing

    def _written(self, comparison: Comparison, name: str, text: str) -> str:
        folder = self._exports / comparison.id
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="")
        return str(path)

    def _version(self, comparison_id: Any) -> str:
        """Changes whenever the record or its job does."""
        try:
            written = self.book.path(str(comparison_id)).stat().st_mtime_ns
            job = self.context.queue.job_for(WalkComparison(comparison_id=str(comparison_id)))
            return f"{comparison_id}:{written}:{job.state if job else ''}"
        except (OSError, ValueError):
            return ""

    # -- looking up, always as this visitor ---------------------------------------------------------------------------

    def _owner(self, browser: Any) -> str:
        return owner_of(browser, hosted=self.context.hosted)

    def _run(self, browser: Any, run_id: Any) -> Run:
        return self.context.store.get(run_id if isinstance(run_id, str) else "", owner=self._owner(browser))

    def _run_of_job(self, browser: Any, job_id: Any) -> Run:
        job = self.context.queue.get(job_id if isinstance(job_id, str) else "", owner=self._owner(browser))
        return self._run(browser, job.run_id)


_TO_THE_PLAYER = "() => { document.getElementById('compare-player')?.scrollIntoView({block: 'nearest'}); }"


def _numbers(picked: Any) -> list[int] | None:
    return [number for number in picked if isinstance(number, int)] if isinstance(picked, list) else None
