"""The Drive tab: what a clip shows becomes maps, to be looked at before anything is made from them.

A click writes a map set down, and a job that makes it; the tab reads its record and its log. So a reload, another tab
or a restarted studio finds it as it stands. Knows the queue, map sets and uploads. Refuses to know how a map is found.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from studio.clips.control_maps import EXTRACTED, TITLES, MapName
from studio.clips.reference import FileReference
from studio.clips.uploads import Uploads
from studio.drive import begin
from studio.drive.frames import read_stretch
from studio.errors import ClipError, MapsError, RequestError, StudioError
from studio.jobs import Job
from studio.records.folders import LOG
from studio.records.map_sets import SOURCE, MapSet, MapSetStore, video_of
from studio.requests.fields import label_of
from studio.requests.maps import USUAL, MapsRequest, read_maps_request
from studio.requests.work import MakeMaps
from studio.ui.attachment import signs_of
from studio.ui.components import message
from studio.ui.components.clip_video import clip_video
from studio.ui.components.static_html import facts
from studio.ui.components.synced_player import PlayerClip, player_record, served, synced_player
from studio.ui.forms.fields import FieldControls
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, text_of
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.panels.following import FollowPanel
from studio.ui.panels.insertion import InsertionPanel
from studio.ui.panels.maps import MOST_SHOWN, MapsProgress, facts_of, shown_first, status_of
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import copy_to_serve
from studio.ui.server.visitor import Visitor

LOOK_SECONDS = 0.7
CLIPS = [".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".ts", ".mpg", ".ogv"]
MAPS = [".npz", *CLIPS]
LISTED = 20
"""Map sets to choose among."""
_AS_IT_LOOKS = ("As it looks", "")
_NOTHING_YET = "Drop a clip, or name a seed of the driving world."


class DriveTab:
    """The tab's components and what they do. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext, browser: gr.BrowserState) -> None:
        self.context = context
        self.browser = browser
        self.store = MapSetStore(context.store.folder)
        self.deletion = DeletionPanel("map-set", "Delete these maps and their files for good?")
        self.following = FollowPanel(context, browser)
        self.insertion = InsertionPanel(context, browser, clips=CLIPS)
        self._uploads = Uploads(context.store.folder)
        self._settings = FieldControls(MapsRequest, elem_prefix="maps-")

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="desk", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
                self._build_sheet()
            with gr.Column(scale=8, min_width=320, elem_classes="stage", elem_id="maps-stage"):
                self._build_shown()
        self.following.build()
        self.insertion.build()
        self.kept = gr.State("")
        """Where the clip lies, as a reference's line."""
        self.kept_given = gr.State("")
        """The same of maps that were dropped."""
        self.corner = gr.State(None)
        """The first corner of a box that is being drawn."""
        self.scale = gr.State((1.0, 1.0))
        """Columns and rows of the picture that is drawn on, for each of the clip's own."""
        self.ticked = gr.State(None)
        """The maps in the player. The boxes that are ticked are no word of a page that looks by itself: their list is
        filled later."""
        self.chosen = gr.State("")
        self.progress = gr.State(MapsProgress())
        self.played = gr.State(None)
        self.seen = gr.State(None)
        self.timer = gr.Timer(LOOK_SECONDS, active=False)

    def _build_sheet(self) -> None:
        self.file = gr.File(
            label="A clip of a drive, or any other: MP4, WebM, MOV, MKV, AVI or GIF",
            file_types=CLIPS,
            height=96,
            elem_id="maps-file",
            elem_classes="upload",
        )
        self._settings.text(
            "world", label="Or a seed of the driving world", info="its maps are exact", placeholder="such as 904"
        )
        self.names = gr.CheckboxGroup(
            choices=[(TITLES[name], name) for name in EXTRACTED],
            value=list(USUAL),
            label="Maps",
            elem_id="maps-names",
        )
        with gr.Row(elem_classes="numbers"):
            self._settings.number("start", label="Begin at", info="seconds")
            self._settings.number("num_frames", label="Frames", info="at most")
        with gr.Accordion("Things to be followed", open=False, elem_id="maps-following"):
            self.picture = gr.Image(
                label="Click two corners of a vehicle",
                interactive=False,
                buttons=[],
                visible=False,
                elem_id="maps-picture",
            )
            self.boxes = gr.Textbox(
                label="Boxes",
                lines=2,
                max_lines=8,
                elem_id="maps-boxes",
                info="one a line: FRAME:LEFT,TOP,RIGHT,BOTTOM:name, in pixels of the clip",
                placeholder="0:310,280,420,360:car",
            )
        self.start = gr.Button("Extract maps", variant="primary", size="lg", elem_id="maps-extract")
        self.trouble = message.message(elem_id="maps-trouble")
        with gr.Accordion("Maps that are there already", open=False, elem_id="maps-given"):
            self.given = gr.File(
                label="An .npz of maps, or a control video of any program",
                file_types=MAPS,
                height=96,
                elem_id="maps-given-file",
                elem_classes="upload",
            )
            readable: tuple[MapName, ...] = ("edges", "depth", "lane_lines", "semantic", "layout", "control_video")
            self._settings.place(
                gr.Dropdown,
                "kind",
                label="What the control video shows",
                choices=[_AS_IT_LOOKS, *((TITLES[name], name) for name in readable)],
                value="",
            )
            self.take_in = gr.Button("Take them in", elem_id="maps-take-in")

    def _build_shown(self) -> None:
        self.list = gr.Dropdown(label="Maps of", choices=[], visible=False, elem_id="map-sets")
        self.status = message.message(message.quiet(_NOTHING_YET), elem_id="maps-status")
        with gr.Row(elem_classes="actions"):
            self.stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id="maps-stop")
            self.deletion.place_button(visible=False)
        self.deletion.place_question()
        self.answer = message.message(elem_id="maps-answer")
        self.picked = gr.CheckboxGroup(
            choices=[], visible=False, label="In the player", info=f"{MOST_SHOWN} at most", elem_id="maps-picked"
        )
        self.player = synced_player(elem_id="maps-player")
        self.video = clip_video(elem_id="maps-video", visible=False)
        self.about = facts(elem_id="maps-facts")
        self.files = gr.File(
            label="To keep: exact numbers (.npz) and a control video of each map",
            file_count="multiple",
            interactive=False,
            visible=False,
            elem_id="maps-files",
        )

    @property
    def _shown(self) -> list[Part]:
        """Everything that `_shows` may change."""
        return [
            *(self.list, self.status, self.stop, self.deletion.button, self.picked, self.player, self.video),
            *(self.about, self.files, self.ticked, self.chosen, self.progress, self.played, self.seen, self.timer),
            *self.following.offered,
        ]

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab) -> None:
        """Connect the tab, which looks anew whenever it is opened."""
        self.insertion.wire(tab)
        following = [self.browser, self.chosen, self.progress, self.ticked, self.played]
        arrived = [self.kept, self.picture, self.scale, self.corner, self.trouble]
        self.file.upload(self.take, [self.file, self._settings.by_field["start"]], arrived, **LIGHT)
        self.file.clear(self.drop, None, arrived, **LIGHT)
        self.given.upload(self.take_given, [self.given], [self.kept_given, self.trouble], **LIGHT)
        self.given.clear(self.drop_given, None, [self.kept_given, self.trouble], **LIGHT)
        drawing = [self.corner, self.scale, self.boxes, self.names]
        self.picture.select(self.draw, drawing, [self.corner, self.boxes, self.names, self.trouble], **LIGHT)
        asked = {self.browser, self.kept, self.kept_given, self.names, self.boxes, *self._settings.by_field.values()}
        self.start.click(self.begin, asked, [*self._shown, self.trouble, self.answer], **LIGHT)
        self.take_in.click(self.begin_given, asked, [*self._shown, self.trouble, self.answer], **LIGHT)
        tab.select(self.open, following, self._shown, **LIGHT)
        self.timer.tick(self.look, [*following, self.seen], self._shown, **LIGHT)
        self.list.input(self.choose, [self.browser, self.list], [*self._shown, self.answer], **LIGHT)
        picking = [self.browser, self.chosen, self.progress, self.picked, self.played]
        self.picked.input(self.open, picking, self._shown, **LIGHT)
        self.stop.click(self.leave_off, [self.browser, self.chosen], [self.answer], **LIGHT)
        self.deletion.wire()
        removed = self.deletion.really.click(
            self.remove, [self.browser, self.chosen], [self.answer, self.deletion.question], **LIGHT
        )
        removed.then(self.open, following, self._shown, **LIGHT)
        self.following.wire(tab, self.chosen)

    # -- what is brought ----------------------------------------------------------------------------------------------

    def take(self, path: Sent, start: Sent) -> Updates:
        """A clip has arrived: it is kept, and its first frame shown, to be drawn on."""
        try:
            reference = self._arrived(path)
            begins = float(start) if isinstance(start, (int, float)) and start > 0 else 0.0
            stretch = read_stretch(reference.path, start=begins, num_frames=1)
        except StudioError as error:
            return self.drop() | {self.trouble: message.of_error(error, label=_label(error))}
        return {
            self.kept: str(reference),
            self.picture: gr.update(value=stretch.clip.frames[0], visible=True),
            self.scale: stretch.scale,
            self.corner: None,
            self.trouble: {},
        }

    def drop(self) -> Updates:
        return {
            self.kept: "",
            self.picture: gr.update(value=None, visible=False),
            self.scale: (1.0, 1.0),
            self.corner: None,
            self.trouble: {},
        }

    def take_given(self, path: Sent) -> Updates:
        """Maps have arrived: they are kept, and read when they are taken in."""
        try:
            reference = self._arrived(path)
        except StudioError as error:
            return {self.kept_given: "", self.trouble: message.of_error(error)}
        note = message.quiet(f"{reference.path.name} is here. Press Take them in.")
        return {self.kept_given: str(reference), self.trouble: note}

    def drop_given(self) -> Updates:
        return {self.kept_given: "", self.trouble: {}}

    def _arrived(self, path: Sent) -> FileReference:
        """To the copy that is kept. Raises StudioError where no file arrived."""
        if not isinstance(path, str):
            raise ClipError("No file arrived.", field="clip", way_out="Drop one.")
        return self._uploads.refer(Path(path))

    def draw(self, corner: Sent, scale: Sent, boxes: Sent, names: Sent, event: gr.SelectData) -> Updates:
        """A corner was clicked: the second of two makes a box."""
        place = event.index
        if not (isinstance(place, (list, tuple)) and len(place) == 2):
            return {self.trouble: {}}
        across, down = scale if isinstance(scale, (list, tuple)) and len(scale) == 2 else (1.0, 1.0)
        here = [round(float(place[0]) / float(across)), round(float(place[1]) / float(down))]
        if not (isinstance(corner, list) and len(corner) == 2):
            words = f"One corner at {here[0]}, {here[1]}. Click the one opposite."
            return {self.corner: here, self.trouble: message.quiet(words)}
        left, right = sorted((corner[0], here[0]))
        top, bottom = sorted((corner[1], here[1]))
        if right - left < 4 or bottom - top < 4:
            return {
                self.corner: None,
                self.trouble: message.warn("That box is too small. Click its first corner anew."),
            }
        lines = [*text_of(boxes).splitlines(), f"0:{left},{top},{right},{bottom}:car"]
        note = message.quiet("The box is in the list below. Two more clicks draw another.")
        others = [name for name in names if name != "boxes"] if isinstance(names, list) else []
        ticked = gr.update(value=[*others, "boxes"])
        return {
            self.corner: None,
            self.boxes: "\n".join(lines),
            self.names: ticked,
            self.trouble: note,
        }

    # -- making -------------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        """The maps of the clip, or of the world whose seed is typed."""
        try:
            typed = self._settings.read(values)
        except StudioError as error:
            return self._refused(error)
        written = {name: value for name, value in typed.items() if value is not None and name != "kind"}
        written |= {"maps": values[self.names], "boxes": text_of(values[self.boxes])}
        if values[self.kept]:
            written["source"] = values[self.kept]
        return self._begin(values, written)

    def begin_given(self, values: Values) -> Updates:
        """The maps that were dropped."""
        if not values[self.kept_given]:
            return self._refused(RequestError("There are no maps yet.", field="given", way_out="Drop a file of them."))
        kind = text_of(values[self._settings.by_field["kind"]])
        return self._begin(values, {"given": values[self.kept_given], **({"kind": kind} if kind else {})})

    def _begin(self, values: Values, written: dict[str, Any]) -> Updates:
        visitor = Visitor(self.context, values[self.browser])
        try:
            if not {"world", "source", "given"} & written.keys():
                raise RequestError("There is no clip yet.", field="source", way_out=_NOTHING_YET)
            map_set = begin(read_maps_request(written), store=self.context.store, owner=visitor.owner)
            try:
                self.context.queue.submit(MakeMaps(map_set_id=map_set.id), owner=visitor.owner)
            except StudioError:
                self.store.delete(map_set.id)
                raise
        except StudioError as error:
            return self._refused(error)
        return self._shows(visitor, map_set.id, MapsProgress(), None, None) | {self.trouble: {}, self.answer: {}}

    def _refused(self, error: StudioError) -> Updates:
        label = _label(error)
        if not self.context.hosted:
            gr.Warning(html.escape(str(error)), title=label or "Not possible")
        return {self.trouble: message.of_error(error, label=label)}

    def leave_off(self, browser: Sent, chosen: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        try:
            job = self._jobs(visitor).get(text_of(chosen))
            if job is None:
                return {self.answer: message.quiet("It is not being made any more.")}
            self.context.queue.cancel(job.id, owner=visitor.owner)
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        return {self.answer: message.quiet("Stopping.")}

    def remove(self, browser: Sent, chosen: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        closed = self.deletion.closed()
        try:
            if text_of(chosen) in self._jobs(visitor):
                raise MapsError("They are being made, or about to be.", field="map set", way_out="Stop it first.")
            self.store.delete(text_of(chosen), owner=visitor.owner)
        except (StudioError, OSError) as error:
            fault = error if isinstance(error, StudioError) else MapsError(f"Not all could be deleted: {error}.")
            return closed | {self.answer: message.of_error(fault)}
        return closed | {self.answer: message.good("Deleted.")}

    def choose(self, browser: Sent, chosen: Sent) -> Updates:
        return self._shows(Visitor(self.context, browser), chosen, MapsProgress(), None, None) | {self.answer: {}}

    # -- looking ------------------------------------------------------------------------------------------------------

    def open(self, browser: Sent, chosen: Sent, progress: Sent, picked: Sent, played: Sent) -> Updates:
        """The tab was opened, or something was done: all as it is now."""
        return self._shows(Visitor(self.context, browser), chosen, progress, picked, played)

    def look(self, browser: Sent, chosen: Sent, progress: Sent, picked: Sent, played: Sent, seen: Sent) -> Updates:
        """What has changed since the page looked last; nothing where nothing has."""
        visitor = Visitor(self.context, browser)
        if self._signs(visitor, chosen) == seen:
            return gr.skip()
        return self._shows(visitor, chosen, progress, picked, played)

    def _shows(self, visitor: Visitor, chosen: Sent, progress: Sent, picked: Sent, played: Sent) -> Updates:
        signs = self._signs(visitor, chosen)  # before anything is read: what comes meanwhile is seen the next time
        try:
            mine = self.store.list(owner=visitor.owner)[:LISTED]
        except StudioError:  # a hosted page whose browser has no id yet
            mine = []
        map_set = next((each for each in mine if each.id == chosen), mine[0] if mine else None)
        listed = gr.update(
            choices=[(_line(each), each.id) for each in mine],
            value=map_set.id if map_set else None,
            visible=len(mine) > 1,
        )
        if map_set is None:
            nothing = message.quiet(_NOTHING_YET)
            return self._bare() | {self.list: listed, self.status: nothing, self.seen: signs, self.chosen: ""}
        known = progress if isinstance(progress, MapsProgress) else MapsProgress()
        if known.map_set != map_set.id:
            known = MapsProgress(map_set=map_set.id)
        known = known.with_events(self.store.events(map_set.id, after=known.read))
        job = self._jobs(visitor).get(map_set.id)
        waits = job is not None and job.state == "queued"
        if map_set.id != chosen:
            signs, picked = self._signs(visitor, map_set.id), None
        return self._plays(map_set, picked, played) | {
            self.list: listed,
            self.status: status_of(map_set, self.store.state_of(map_set), known, waits=waits),
            self.stop: gr.update(visible=job is not None),
            self.deletion.button: gr.update(visible=job is None),
            self.about: facts_of(map_set, known.notices),
            self.chosen: map_set.id,
            self.progress: known,
            self.seen: signs,
            self.timer: gr.Timer(active=True),
        }

    def _bare(self) -> Updates:
        """The stage with nothing on it."""
        hidden = (self.stop, self.deletion.button, self.video, self.files, self.picked)
        return {
            **{part: gr.update(visible=False) for part in hidden},
            self.player: {},
            self.about: {},
            self.progress: MapsProgress(),
            self.ticked: None,
            self.played: None,
            self.timer: gr.Timer(active=False),
        }

    def _plays(self, map_set: MapSet, picked: Sent, played: Sent) -> Updates:
        """The clip and the maps that are ticked, under one clock; nothing where they are shown already."""
        ticked = picked if isinstance(picked, list) else shown_first(map_set)
        chosen: list[MapName] = [name for name in map_set.maps if name in ticked]
        names = chosen[:MOST_SHOWN] or shown_first(map_set)
        stamp = [map_set.id, map_set.state, *names]
        if stamp == played:
            return {self.picked: gr.update(value=names), self.ticked: names}
        folder = self.store.path(map_set.id)
        titled: list[tuple[str, str]] = [(TITLES[name], video_of(name)) for name in names]
        if SOURCE in map_set.outputs:
            titled.insert(0, (map_set.title, SOURCE))
        there = [(title, _to_serve(folder / file, map_set)) for title, file in titled if file in map_set.outputs]
        first, *others = [PlayerClip(title=title, url=served(path)) for title, path in there] or [None]
        player: object = {}
        if first is not None and others:
            is_clip = SOURCE in map_set.outputs
            player = player_record(
                reference=first,
                others=[each for each in others if each is not None],
                fps=map_set.fps or 24.0,
                num_frames=map_set.num_frames,
                overlay=is_clip,
            )
        alone = there[0][1] if len(there) == 1 else None
        changed: Updates = {
            self.player: player,
            self.video: gr.update(value=alone, visible=alone is not None),
            self.picked: gr.update(
                choices=[(TITLES[name], name) for name in map_set.maps], value=names, visible=len(map_set.maps) > 1
            ),
            self.ticked: names,
            self.played: stamp,
        }
        is_other = not (isinstance(played, list) and played[:2] == stamp[:2])
        if is_other:
            kept = [name for name in map_set.outputs if name != SOURCE]
            files = [_to_serve(folder / name, map_set) for name in kept]
            changed[self.files] = gr.update(value=files or None, visible=bool(files))
            changed |= self.following.offers(map_set)
        return changed

    def _jobs(self, visitor: Visitor) -> dict[str, Job]:
        """Those that wait or run, by the map set that they make."""
        jobs = visitor.jobs(ended=0, kinds=("maps",))
        return {job.work.map_set_id: job for job in jobs if isinstance(job.work, MakeMaps)}

    def _signs(self, visitor: Visitor, chosen: Sent) -> object:
        """Changes whenever there is something new to show; cheap to ask."""
        files = [*sorted(self.store.folder.glob("*/map_set.json"))]
        if isinstance(chosen, str) and any(path.parent.name == chosen for path in files):
            files.append(self.store.path(chosen) / LOG)
        return ((chosen,), *signs_of(files, visitor.jobs(ended=0, kinds=("maps",))))


def _label(error: StudioError) -> str:
    """Of the control that an error speaks of."""
    known = {"source": "Clip", "given": "Maps that are there already", "world": "Seed", "maps": "Maps"}
    return known.get(error.field) or label_of(MapsRequest, error.field)


def _line(map_set: MapSet) -> str:
    """A map set in a few words, for the list."""
    day = map_set.created[5:16].replace("T", " ")
    return f"{map_set.title}, {len(map_set.maps or map_set.request.maps)} maps · {day}"


def _to_serve(path: Path, map_set: MapSet) -> str:
    """A copy that the page may show, under a name that says what it is."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in Path(map_set.title).stem)[:60]
    return copy_to_serve(path, f"{stem or 'clip'}-{path.name}")
