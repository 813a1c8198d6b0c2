"""Make a clip that follows: the maps that are chosen, a prompt, and what was made, beside what it followed.

The clip is a job and a run like every other; what is seen of it comes through an attachment. Knows the form, map sets
and the queue. Refuses to know how maps are found, and how a clip is made.
"""

from __future__ import annotations

import html
import tempfile
from pathlib import Path

import gradio as gr

from studio.clips.control_maps import MAP_NAMES, TITLES, MapName
from studio.clips.film import Film
from studio.clips.pictures import is_picture, read_picture
from studio.clips.uploads import Uploads
from studio.drive.following import (
    CONTINUED,
    USUAL,
    check_driver,
    drivers,
    followed_by,
    of_map_set,
    proposed,
    write_beside,
)
from studio.errors import ClipError, JobError, RequestError, StudioError
from studio.jobs import Job
from studio.machine.weights import folder_of
from studio.preset import Preset, find_preset
from studio.records.map_sets import MapSet
from studio.records.run import Run
from studio.records.versions import VersionStore
from studio.requests.checks import check_request
from studio.requests.generation import GenerationRequest, new_seed, read_request
from studio.ui.attachment import Attachments, News
from studio.ui.components import message
from studio.ui.components.synced_player import MOST_CLIPS, PlayerClip, player_record, served, synced_player
from studio.ui.forms.generation import Form, label_of
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, text_of
from studio.ui.panels.live import LivePanel
from studio.ui.panels.preset_card import verdict_line
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import clip_to_serve, copy_to_serve
from studio.ui.server.visitor import Visitor

PICTURES = [".png", ".jpg", ".jpeg", ".webp"]
CLIPS = [".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"]
INVITATION = "Extract maps, say what is to be seen instead, and press Make the clip."


class FollowPanel:
    """The form and the stage beside it. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext, browser: gr.BrowserState) -> None:
        self.context = context
        self.browser = browser
        self.form = Form(drivers(), VersionStore(context.store.folder), elem_prefix="drive-")
        self.live = LivePanel(elem_prefix="drive-", invitation=INVITATION)
        self.attachments = Attachments(context, self, shows=_follows_something)
        self._uploads = Uploads(context.store.folder)

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="sheet", elem_id="drive-sheet"):
                self._build_form()
            with gr.Column(scale=8, min_width=320, elem_classes="stage", elem_id="drive-stage"):
                self.live.build()
                self.player = synced_player(elem_id="drive-player")
        self.source = gr.State("")
        """What the clip begins with, as a reference's line."""
        self.chose = gr.State(False)
        """Whether a job was just submitted, which is then watched."""

    def _build_form(self) -> None:
        gr.Markdown("### Make a clip that follows")
        self.form.place_prompt()
        self.form.place_preset()
        first = self.form.first
        self.verdict = message.message(
            verdict_line(first, self.context.machine) if first else None, elem_id="drive-verdict"
        )
        self.sliders: dict[MapName, gr.Slider] = {
            name: gr.Slider(
                0, 1, value=0, step=0.05, label=TITLES[name], visible=False, elem_id=f"drive-strength-{name}"
            )
            for name in MAP_NAMES
        }
        self.overall = gr.Slider(
            0,
            2,
            value=1,
            step=0.05,
            label="All of them",
            info="how closely maps are followed",
            elem_id="drive-strength",
        )
        with gr.Accordion("Begin with a picture, or go on from a clip", open=False, elem_id="drive-begin"):
            self.file = gr.File(
                label="A picture to begin with, or a clip to go on from",
                file_types=[*PICTURES, *CLIPS],
                height=96,
                elem_id="drive-source",
                elem_classes="upload",
            )
            self.kept = gr.Number(
                label="Kept frames",
                info="the clip's last ones",
                value=CONTINUED,
                step=1,
                minimum=1,
                visible=False,
                elem_id="drive-kept-frames",
            )
        self.form.place_numbers()
        self.form.place_cache()
        with gr.Accordion("More settings", open=False, elem_id="drive-advanced"):
            self.form.place_negative_prompt()
            self.form.place_adapter()
            self.form.place_advanced()
        self.make = gr.Button("Make the clip", variant="primary", size="lg", elem_id="drive-generate")
        self.reprompt = gr.Button("Change only the prompt", elem_id="drive-reprompt")
        self.trouble = message.message(elem_id="drive-trouble")

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab, map_set: gr.State) -> None:
        """Args: tab: which attaches whenever it is opened. map_set: the id of the one that is followed."""
        form, live = self.form, self.live
        shown, said = [self.browser, live.shown_job], [self.browser, self.chose, self.trouble]
        self._map_set = map_set
        opened = tab.select(self._nothing, None, [self.trouble], **LIGHT)
        opened.then(self.attachments.attach, [self.browser], self._watched, trigger_mode="multiple", **LIGHT)
        asked = {*form.inputs, *self.sliders.values(), self.overall, self.kept, self.source, self.browser, map_set}
        for event in (
            gr.on([self.make.click, form.prompt.submit], self.submit, asked, said, **LIGHT),
            self.reprompt.click(self.submit_reprompted, [*shown, form.prompt], said, **LIGHT),
            live.again.click(self.submit_again, shown, said, **LIGHT),
            live.vary.click(self.submit_varied, shown, said, **LIGHT),
        ):
            chosen = self.attachments.attach_chosen
            event.then(chosen, [self.browser, self.chose], self._watched, trigger_mode="multiple", **LIGHT)
        live.stop.click(self.stop_shown, shown, [self.trouble], **LIGHT)
        live.keep.click(self.keep_shown, shown, [self.trouble], **LIGHT)
        live.restore.click(self.restore_shown, shown, self._restored, **LIGHT)
        begun = [self.source, self.kept, self.trouble]
        self.file.upload(self.take, [self.file], begun, **LIGHT)
        self.file.clear(self.drop, None, begun, **LIGHT)
        changed = [*form.outputs, self.verdict, self.trouble]
        form.preset.input(self.choose_preset, [form.preset, map_set, self.browser], changed, **LIGHT)
        cache = form.cache
        picked = [cache.choice, cache.rival, form.preset]
        gr.on([cache.choice.input, cache.rival.input], self.choose_cache, picked, cache.opening, **LIGHT)

    @property
    def _watched(self) -> list[Part]:
        return [*self.live.outputs, self.player]

    @property
    def _restored(self) -> list[Part]:
        return [
            *self.form.outputs,
            *self.sliders.values(),
            self.overall,
            self.kept,
            self.source,
            self.trouble,
            self.chose,
        ]

    def _nothing(self) -> Updates:
        return {self.trouble: {}}

    # -- what is followed ---------------------------------------------------------------------------------------------

    @property
    def offered(self) -> list[Part]:
        """Everything that `offers` may change."""
        return [*self.sliders.values(), self.form.controls["num_frames"], self.form.controls["fps"]]

    def offers(self, map_set: MapSet) -> Updates:
        """A strength for each map of a set that has just been chosen, and a clip of its length and speed."""
        closely = [name for name in USUAL if name in map_set.maps] or list(map_set.maps[:1])
        updates: Updates = {
            slider: gr.update(value=float(name in closely), visible=name in map_set.maps)
            for name, slider in self.sliders.items()
        }
        if self.form.first is not None and map_set.state == "complete":
            updates |= self._as_long(map_set.id, self.form.first, owner=None)
        return updates

    def _as_long(self, map_set_id: str, preset: Preset, *, owner: str | None) -> Updates:
        """Of the maps' length and speed, where there are any."""
        try:
            fields = proposed(preset, of_map_set(map_set_id, store=self.context.store, owner=owner))
        except StudioError:
            return {}
        return {self.form.controls[name]: fields[name] for name in ("num_frames", "fps") if name in fields}

    def choose_preset(self, name: Sent, map_set: Sent, browser: Sent) -> Updates:
        try:
            preset = find_preset(text_of(name))
            owner = Visitor(self.context, browser).owner
        except StudioError as error:
            return {self.trouble: message.of_error(error, label=label_of(error))}
        updates = self.form.starts_from(preset) | self._as_long(text_of(map_set), preset, owner=owner)
        return updates | {self.verdict: verdict_line(preset, self.context.machine), self.trouble: {}}

    def choose_cache(self, choice: Sent, rival: Sent, name: Sent) -> Updates:
        """The settings of the method that was chosen."""
        try:
            pipeline = find_preset(str(name)).pipeline
        except StudioError:
            pipeline = ""
        return self.form.cache.opened(str(choice), str(rival), pipeline)

    def take(self, path: Sent) -> Updates:
        """A picture or a clip has arrived, is looked at and kept."""
        try:
            if not isinstance(path, str):
                raise ClipError("No file arrived.", field="source", way_out="Drop one.")
            picture = is_picture(Path(path))
            if picture:
                read_picture(Path(path))
                words = "The clip will begin with this picture."
            else:
                with Film(Path(path)) as film:
                    words = f"The clip will go on from the end of these {film.info.clip.num_frames} frames."
            reference = self._uploads.refer(Path(path))
        except StudioError as error:
            return self.drop() | {self.trouble: message.of_error(error, label="Begin with")}
        return {
            self.source: str(reference),
            self.kept: gr.update(visible=not picture, value=1 if picture else CONTINUED),
            self.trouble: message.quiet(words),
        }

    def drop(self) -> Updates:
        return {self.source: "", self.kept: gr.update(visible=False), self.trouble: {}}

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, values: Values) -> Updates:
        """The form becomes a job. Whatever is wrong is said beside the button, and the form keeps what was typed."""
        visitor = Visitor(self.context, values[self.browser])
        try:
            request, preset = self._request(values, visitor)
            folder_of(preset)
        except StudioError as error:
            return self._refused(error)
        return self._submit(visitor, request)

    def _request(self, values: Values, visitor: Visitor) -> tuple[GenerationRequest, Preset]:
        """Raises StudioError, naming the field at fault."""
        chosen = text_of(values[self._map_set])
        if not chosen:
            raise RequestError("There are no maps yet.", field="control", way_out="Extract some first.")
        followed = of_map_set(chosen, store=self.context.store, owner=visitor.owner)
        strengths = {name: values[self.sliders[name]] for name in followed.maps}
        closely = {name: value for name, value in strengths.items() if value != 0}
        if not closely:
            raise RequestError(
                "No map is followed: all strengths are 0.", field="control_strengths", way_out="Raise one."
            )
        fields: dict[str, object] = {
            "control": str(followed.control),
            "control_strengths": closely,
            "conditioning_scale": values[self.overall],
        }
        if values[self.source]:
            fields |= {"source": values[self.source], "kept_frames": values[self.kept] or 1}
        request = read_request(self.form.read(values).model_dump() | fields)
        preset = find_preset(request.preset)
        check_driver(preset)
        check_request(request, preset)
        return request, preset

    def submit_again(self, browser: Sent, shown: Sent) -> Updates:
        return self._resubmit(browser, shown)

    def submit_varied(self, browser: Sent, shown: Sent) -> Updates:
        return self._resubmit(browser, shown, seed=new_seed())

    def submit_reprompted(self, browser: Sent, shown: Sent, prompt: Sent) -> Updates:
        """The clip that is shown once more, seed and maps and all, with the prompt that is typed."""
        return self._resubmit(browser, shown, prompt=text_of(prompt))

    def _resubmit(self, browser: Sent, shown: Sent, **changes: object) -> Updates:
        visitor = Visitor(self.context, browser)
        request = visitor.request_of(visitor.job(shown))
        if request is None:
            return self._refused(JobError("There is no clip to do again.", way_out="Make one."))
        again = request.model_copy(update=changes)
        try:
            check_request(again, find_preset(again.preset))
        except StudioError as error:
            return self._refused(error)
        return self._submit(visitor, again)

    def _submit(self, visitor: Visitor, request: GenerationRequest) -> Updates:
        try:
            job = self.context.queue.submit(request, owner=visitor.owner)
        except StudioError as error:
            return self._refused(error)
        return {self.browser: visitor.remembers(job.id), self.chose: True, self.trouble: {}}

    def _refused(self, error: StudioError) -> Updates:
        label = "Maps" if error.field.startswith("control") else label_of(error)
        gr.Warning(html.escape(str(error)), title=label or "Not possible")
        return {self.trouble: message.of_error(error, label=label), self.chose: False}

    # -- what is shown ------------------------------------------------------------------------------------------------

    def draw(self, visitor: Visitor, news: News) -> Updates:
        """What an attachment has found."""
        updates = self.live.shows(visitor, news)
        if news.of_state:
            run = visitor.run_of(news.job) if news.job.final else None
            updates[self.player] = {} if run is None else self._beside(visitor, run)
        return updates

    def draw_idle(self, visitor: Visitor) -> Updates:
        return self.live.idle() | {self.player: {}}

    def _beside(self, visitor: Visitor, run: Run) -> object:
        """The clip, beside what it followed; nothing where that is gone."""
        clip, request = clip_to_serve(run), run.request
        map_set = followed_by(request, store=self.context.store, owner=visitor.owner)
        if clip is None or map_set is None:
            return {}
        try:
            with tempfile.TemporaryDirectory() as folder:
                films = write_beside(request, map_set, Path(folder), store=self.context.store, most=MOST_CLIPS - 1)
                there = [(title, copy_to_serve(path, path.name)) for title, path in films]
        except (StudioError, OSError):
            return {}
        played = [PlayerClip(title=title, url=served(path)) for title, path in there]
        first, others = played[0], [PlayerClip(title=request.prompt, url=served(clip)), *played[1:]]
        return player_record(reference=first, others=others, fps=request.fps, num_frames=request.num_frames)

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
            return self._refused(JobError("There is nothing to restore from.", way_out="Make a clip."))
        strengths = request.control_strengths or dict.fromkeys(self.sliders, 1.0)
        updates = self.form.shows(request) | {slider: strengths.get(name, 0) for name, slider in self.sliders.items()}
        return updates | {
            self.overall: request.conditioning_scale,
            self.kept: request.kept_frames,
            self.source: "" if request.source is None else str(request.source),
            self.trouble: message.good("These are the settings of the clip shown; the maps are those chosen above."),
        }

    def stop_shown(self, browser: Sent, shown: Sent) -> Updates:
        return self._stop(browser, shown, keep=False)

    def keep_shown(self, browser: Sent, shown: Sent) -> Updates:
        return self._stop(browser, shown, keep=True)

    def _stop(self, browser: Sent, shown: Sent, *, keep: bool) -> Updates:
        try:
            self.context.queue.cancel(text_of(shown), keep=keep, owner=Visitor(self.context, browser).owner)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        words = "Stopping after this step, to keep what was reached." if keep else "Stopping."
        return {self.trouble: message.quiet(words)}


def _follows_something(job: Job) -> bool:
    """Whether a job is a clip that is held to maps."""
    return isinstance(job.work, GenerationRequest) and job.work.control is not None
