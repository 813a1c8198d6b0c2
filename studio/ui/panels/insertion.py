"""Put a vehicle in: a clip, a vehicle and its way through the picture become a job; what comes of it is played.

A click on the first frame adds a place to the path. Knows the queue, insertions and uploads. Refuses to know how a
vehicle is lit.
"""

from __future__ import annotations

import html
from pathlib import Path

import gradio as gr

from studio.clips.reference import FileReference
from studio.clips.uploads import Uploads
from studio.drive import begin_insertion
from studio.drive.frames import read_stretch
from studio.errors import ClipError, RequestError, StudioError, from_json
from studio.events import FramesHarmonised
from studio.jobs import Job
from studio.records.folders import LOG
from studio.records.insertions import PASTE, RESULT, SOURCE, Insertion, InsertionStore
from studio.requests.fields import choices_of, label_of
from studio.requests.insertion import InsertionRequest, RenderedVehicle, read_insertion_request
from studio.requests.work import InsertVehicle
from studio.ui.attachment import signs_of
from studio.ui.components import message
from studio.ui.components.synced_player import PlayerClip, player_record, served, synced_player
from studio.ui.components.values import Message
from studio.ui.forms.fields import FieldControls
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, text_of
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import copy_to_serve
from studio.ui.server.visitor import Visitor
from studio.ui.wording import seconds_text

LOOK_SECONDS = 0.7
PICTURES = [".png", ".webp"]
_NOTHING_YET = "Drop a clip, and say where the vehicle stands."
_TITLES = {SOURCE: "Clip", PASTE: "Pasted", RESULT: "Lit and shadowed"}


class InsertionPanel:
    """The panel's components and what they do. `build` draws them, `wire` connects them."""

    def __init__(self, context: PageContext, browser: gr.BrowserState, *, clips: list[str]) -> None:
        self.context = context
        self.browser = browser
        self.store = InsertionStore(context.store.folder)
        self._clips = clips
        self._uploads = Uploads(context.store.folder)
        self._settings = FieldControls(InsertionRequest, elem_prefix="insertion-")

    # -- layout -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        with (
            gr.Accordion("Put a vehicle in", open=False, elem_id="insertion"),
            gr.Row(elem_classes="desk", equal_height=False),
        ):
            with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
                self._build_sheet()
            with gr.Column(scale=8, min_width=320, elem_classes="stage"):
                self.status = message.message(message.quiet(_NOTHING_YET), elem_id="insertion-status")
                self.stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id="insertion-stop")
                self.player = synced_player(elem_id="insertion-player")
                self.result = gr.File(
                    label="To keep: the clip with the vehicle in it",
                    interactive=False,
                    visible=False,
                    elem_id="insertion-file",
                )
        self.kept, self.kept_vehicle = gr.State(""), gr.State("")
        """Where the clip and the vehicle lie, as references' lines."""
        self.scale = gr.State((1.0, 1.0))
        """Columns and rows of the picture that is clicked on, for each of the clip's own."""
        self.chosen, self.played, self.seen = gr.State(""), gr.State(None), gr.State(None)
        self.timer = gr.Timer(LOOK_SECONDS, active=False)

    def _build_sheet(self) -> None:
        self.file = gr.File(
            label="The clip: MP4, WebM, MOV, MKV, AVI or GIF",
            file_types=self._clips,
            height=96,
            elem_id="insertion-clip",
            elem_classes="upload",
        )
        self.vehicle = gr.File(
            label="A vehicle, cut out: PNG or WebP with an alpha channel",
            file_types=PICTURES,
            height=96,
            elem_id="insertion-vehicle",
            elem_classes="upload",
        )
        with gr.Row(elem_classes="numbers"):
            self.looks = {
                name: gr.Dropdown(
                    label=label,
                    choices=list(choices_of(RenderedVehicle.model_fields[name])),
                    value=RenderedVehicle.model_fields[name].default,
                    min_width=96,
                    elem_id=f"insertion-{name}",
                )
                for name, label in (("type", "Or a render"), ("colour", "Colour"), ("view", "Seen from"))
            }
        self.picture = gr.Image(
            label="Click where it stands",
            interactive=False,
            buttons=[],
            visible=False,
            elem_id="insertion-picture",
        )
        with gr.Row(elem_classes="numbers"):
            self.frame = gr.Number(label="In frame", value=0, minimum=0, min_width=96, elem_id="insertion-frame")
            self.width = gr.Number(label="As wide as", value=80, minimum=8, min_width=96, elem_id="insertion-width")
        self.path = gr.Textbox(
            label=label_of(InsertionRequest, "path"),
            elem_id="insertion-path",
            lines=2,
            max_lines=8,
            info="FRAME:X,Y,WIDTH, in pixels of the clip: the middle of its lower edge",
            placeholder="0:120,300,80 24:300,310,120",
        )
        with gr.Row(elem_classes="numbers"):
            self._settings.number("start", label="Begin at", info="seconds")
            self._settings.number("num_frames", label="Frames", info="at most")
            self._settings.number("strength", label="Strength", info="0 is the paste", step=0.1)
        self.put = gr.Button("Put it in", variant="primary", size="lg", elem_id="insertion-put")
        self.trouble = message.message(elem_id="insertion-trouble")

    @property
    def _shown(self) -> list[Part]:
        """Everything that `_shows` may change."""
        return [self.status, self.stop, self.player, self.result, self.chosen, self.played, self.seen, self.timer]

    # -- wiring -------------------------------------------------------------------------------------------------------

    def wire(self, tab: gr.Tab) -> None:
        arrived = [self.kept, self.picture, self.scale, self.trouble]
        self.file.upload(self.take, [self.file, self._settings.by_field["start"]], arrived, **LIGHT)
        self.file.clear(self.drop, None, arrived, **LIGHT)
        self.vehicle.upload(self.take_vehicle, [self.vehicle], [self.kept_vehicle, self.trouble], **LIGHT)
        self.vehicle.clear(lambda: {self.kept_vehicle: ""}, None, [self.kept_vehicle], **LIGHT)
        standing = [self.scale, self.path, self.frame, self.width]
        self.picture.select(self.stand, standing, [self.path, self.frame, self.trouble], **LIGHT)
        asked = {
            *(self.browser, self.kept, self.kept_vehicle, self.path),
            *self.looks.values(),
            *self._settings.by_field.values(),
        }
        self.put.click(self.begin, asked, [*self._shown, self.trouble], **LIGHT)
        self.stop.click(self.leave_off, [self.browser, self.chosen], [self.trouble], **LIGHT)
        looking = [self.browser, self.chosen, self.played]
        tab.select(self.open, looking, self._shown, **LIGHT)
        self.timer.tick(self.look, [*looking, self.seen], self._shown, **LIGHT)

    # -- what is brought ----------------------------------------------------------------------------------------------

    def take(self, path: Sent, start: Sent) -> Updates:
        """A clip has arrived: it is kept, and its first frame shown, to be clicked on."""
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
            self.trouble: {},
        }

    def drop(self) -> Updates:
        nothing = gr.update(value=None, visible=False)
        return {self.kept: "", self.picture: nothing, self.scale: (1.0, 1.0), self.trouble: {}}

    def take_vehicle(self, path: Sent) -> Updates:
        try:
            reference = self._arrived(path)
        except StudioError as error:
            return {self.kept_vehicle: "", self.trouble: message.of_error(error, label="Vehicle")}
        return {self.kept_vehicle: str(reference), self.trouble: {}}

    def _arrived(self, path: Sent) -> FileReference:
        """To the copy that is kept. Raises StudioError where no file arrived."""
        if not isinstance(path, str):
            raise ClipError("No file arrived.", field="source", way_out="Drop one.")
        return self._uploads.refer(Path(path))

    def stand(self, scale: Sent, path: Sent, frame: Sent, width: Sent, event: gr.SelectData) -> Updates:
        """The picture was clicked: the vehicle stands there, in that frame; the next click is for a second later."""
        place = event.index
        if not (isinstance(place, (list, tuple)) and len(place) == 2):
            return {self.trouble: {}}
        across, down = scale if isinstance(scale, (list, tuple)) and len(scale) == 2 else (1.0, 1.0)
        number = int(frame) if isinstance(frame, (int, float)) and frame >= 0 else 0
        wide = width if isinstance(width, (int, float)) else 80
        point = f"{number}:{round(float(place[0]) / float(across))},{round(float(place[1]) / float(down))},{wide:g}"
        others = [each for each in text_of(path).split() if not each.startswith(f"{number}:")]
        points = sorted(
            [*others, point], key=lambda each: int(each.partition(":")[0] or 0) if each[:1].isdigit() else 0
        )
        return {
            self.path: " ".join(points),
            self.frame: number + _NEXT_PLACE,
            self.trouble: message.quiet("It is in the path below. A second place makes it move."),
        }

    # -- making -------------------------------------------------------------------------------------------------------

    def begin(self, values: Values) -> Updates:
        visitor = Visitor(self.context, values[self.browser])
        try:
            written = {name: value for name, value in self._settings.read(values).items() if value is not None}
            written["path"] = text_of(values[self.path])
            if not values[self.kept]:
                raise RequestError("There is no clip yet.", field="source", way_out=_NOTHING_YET)
            written["source"] = values[self.kept]
            if values[self.kept_vehicle]:
                written["vehicle"] = values[self.kept_vehicle]
            else:
                written["render"] = ":".join(text_of(values[look]) for look in self.looks.values())
            request = read_insertion_request(written)
            insertion = begin_insertion(request, store=self.context.store, owner=visitor.owner)
            try:
                self.context.queue.submit(InsertVehicle(insertion_id=insertion.id), owner=visitor.owner)
            except StudioError:
                self.store.delete(insertion.id)
                raise
        except StudioError as error:
            if not self.context.hosted:
                gr.Warning(html.escape(str(error)), title=_label(error) or "Not possible")
            return {self.trouble: message.of_error(error, label=_label(error))}
        return self._shows(visitor, insertion.id, None) | {self.trouble: {}}

    def leave_off(self, browser: Sent, chosen: Sent) -> Updates:
        visitor = Visitor(self.context, browser)
        try:
            job = self._jobs(visitor).get(text_of(chosen))
            if job is None:
                return {self.trouble: message.quiet("It is not being made any more.")}
            self.context.queue.cancel(job.id, owner=visitor.owner)
        except StudioError as error:
            return {self.trouble: message.of_error(error)}
        return {self.trouble: message.quiet("Stopping.")}

    # -- looking ------------------------------------------------------------------------------------------------------

    def open(self, browser: Sent, chosen: Sent, played: Sent) -> Updates:
        """The tab was opened: all as it is now."""
        return self._shows(Visitor(self.context, browser), chosen, played)

    def look(self, browser: Sent, chosen: Sent, played: Sent, seen: Sent) -> Updates:
        """What has changed since the page looked last; nothing where nothing has."""
        visitor = Visitor(self.context, browser)
        if self._signs(visitor, chosen) == seen:
            return gr.skip()
        return self._shows(visitor, chosen, played)

    def _shows(self, visitor: Visitor, chosen: Sent, played: Sent) -> Updates:
        try:
            mine = self.store.list(owner=visitor.owner)
        except StudioError:  # a hosted page whose browser has no id yet
            mine = []
        insertion = next((each for each in mine if each.id == chosen), mine[0] if mine else None)
        if insertion is None:
            hidden: Updates = {part: gr.update(visible=False) for part in (self.stop, self.result)}
            return hidden | {self.status: message.quiet(_NOTHING_YET), self.player: {}, self.chosen: ""}
        signs = self._signs(
            visitor, insertion.id
        )  # before anything is read: what comes meanwhile is seen the next time
        job = self._jobs(visitor).get(insertion.id)
        waits = job is not None and job.state == "queued"
        return self._plays(insertion, played) | {
            self.status: self._status(insertion, waits=waits),
            self.stop: gr.update(visible=job is not None),
            self.chosen: insertion.id,
            self.seen: signs,
            self.timer: gr.Timer(active=job is not None),
        }

    def _status(self, insertion: Insertion, *, waits: bool) -> Message:
        state = self.store.state_of(insertion)
        if waits:
            return message.quiet("It begins when it is its turn in the queue.")
        if state == "running":
            events = [event for _, event in self.store.events(insertion.id) if isinstance(event, FramesHarmonised)]
            if not events:
                return message.quiet("It begins.")
            done, total = events[-1].done, max(1, events[-1].total)
            words = f"{done} of {total} frames, {seconds_text(events[-1].eta_seconds)} left."
            return {**message.quiet(words), "share": done / total}
        if state == "failed":
            return message.of_error(from_json(insertion.error or {"message": "It failed."}))
        if state == "complete":
            return message.good(f"{insertion.num_frames} frames, in {seconds_text(insertion.seconds)}.")
        return message.warn("Not made. Press Put it in again.")

    def _plays(self, insertion: Insertion, played: Sent) -> Updates:
        """The clip, the paste and the result under one clock; nothing where they are shown already."""
        stamp = [insertion.id, insertion.state]
        if stamp == played:
            return {}
        if RESULT not in insertion.outputs:
            return {self.player: {}, self.result: gr.update(visible=False), self.played: stamp}
        folder = self.store.path(insertion.id)
        stem = "".join(letter if letter.isalnum() else "-" for letter in Path(insertion.title).stem)[:60] or "clip"
        paths = {name: copy_to_serve(folder / name, f"{stem}-{name}") for name in _TITLES}
        reference, *others = [PlayerClip(title=title, url=served(paths[name])) for name, title in _TITLES.items()]
        player = player_record(
            reference=reference, others=others, fps=insertion.fps or 24.0, num_frames=insertion.num_frames
        )
        return {
            self.player: player,
            self.result: gr.update(value=paths[RESULT], visible=True),
            self.played: stamp,
        }

    def _jobs(self, visitor: Visitor) -> dict[str, Job]:
        """Those that wait or run, by the insertion that they make."""
        jobs = visitor.jobs(ended=0, kinds=("insertion",))
        return {job.work.insertion_id: job for job in jobs if isinstance(job.work, InsertVehicle)}

    def _signs(self, visitor: Visitor, chosen: Sent) -> object:
        """Changes whenever there is something new to show; cheap to ask."""
        files = [*sorted(self.store.folder.glob(f"*/{InsertionStore.record_name}"))]
        if isinstance(chosen, str) and any(path.parent.name == chosen for path in files):
            files.append(self.store.path(chosen) / LOG)
        return ((chosen,), *signs_of(files, visitor.jobs(ended=0, kinds=("insertion",))))


_NEXT_PLACE = 24
"""Frames after which the next click is thought to be."""


def _frame_of(point: str) -> int:
    """The frame that a place of a path begins with; 0 where it does not."""
    words = point.partition(":")[0]
    return int(words) if words.isdecimal() else 0


def _label(error: StudioError) -> str:
    """Of the control that an error speaks of."""
    known = {"source": "Clip", "vehicle": "Vehicle", "render": "Or a render"}
    return known.get(error.field) or label_of(InsertionRequest, error.field)
