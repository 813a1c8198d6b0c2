"""The clips to learn from: uploaded, read behind the page, captioned and held out, and what cannot be used named.

Knows uploads and what was typed beside them. Refuses to know how a clip becomes samples, and where copies stay.
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr

from studio.clips.uploads import UploadedClip, Uploads
from studio.errors import RequestError, StudioError
from studio.finetune.clips import LIMITS, caption_of, fault_of
from studio.records.folders import records_naming_uploads
from studio.requests.training import MAX_CLIPS, TrainingClip
from studio.ui.components import message
from studio.ui.components.static_html import clip_list
from studio.ui.components.values import ClipList, ClipRow
from studio.ui.forms.training import FinetuneForm, SampleSize
from studio.ui.listeners import LIGHT, Part, Sent, Updates, Values, sent_by
from studio.ui.panels.run_progress import picture_address
from studio.ui.server.page_context import PageContext
from studio.ui.wording import seconds_text, size_text

ENDINGS = [".mp4", ".m4v", ".mov", ".webm", ".mkv"]
REMEMBERED = 1000
"""Uploads whose findings are kept, of all pages together."""
PATIENCE_SECONDS = 1.5
"""How long an upload waits for its findings before the list shows that they are still to come."""
MAX_CAPTION = 2000
GLANCE = replace(LIMITS, area=512 * 512, frames=120)
"""An upload is only looked at, so small pictures do."""


@dataclass(frozen=True, kw_only=True)
class ListedClip:
    """An upload as the list shows it."""

    name: str
    """As it was called where it came from."""
    fault: str = ""
    """Why it cannot be read."""
    clip: UploadedClip | None = None
    """None where it cannot."""
    caption: str = ""
    picture: str = ""
    """The first frame, as a `data:` address."""


Row = tuple[ClipRow, UploadedClip | None]
"""A clip as the page shows it, and the upload; None while it is being read, or where it cannot be."""


class ClipsPanel:
    """The upload, the list and two fields that go for all clips.

    A page knows its clips by ids that only the server hands out; captions and ticks come back with the list's value.
    The browser remembers clips by their content, with what was typed, so that a reload finds them again.
    """

    def __init__(self, context: PageContext, form: FinetuneForm) -> None:
        """Args: form: says what a sample is to be."""
        self._context = context
        self._form = form
        self._uploads = Uploads(context.store.folder)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="training-clips")
        self._listed: OrderedDict[str, Future[ListedClip]] = OrderedDict()

    def build(self) -> None:
        self.files = gr.File(
            label=f"Clips to learn from: 1 to {MAX_CLIPS} MP4 or WebM files",
            file_count="multiple",
            file_types=ENDINGS,
            height=96,
            visible=not self._context.hosted,
            elem_id="training-files",
            elem_classes="upload",
        )
        self.answer = message.message(elem_id="training-clips-said")
        self.list = clip_list(elem_id="training-clips")
        with gr.Row(elem_classes="numbers"):
            self.origin = gr.Textbox(
                label="Origin",
                info="of all clips, for the model card",
                placeholder="filmed by myself",
                max_lines=1,
                min_width=120,
                elem_id="training-origin",
            )
            self.licence = gr.Textbox(
                label="Licence",
                info="of all clips",
                placeholder="CC-BY-4.0",
                max_lines=1,
                min_width=120,
                elem_id="training-licence",
            )
        self.ids = gr.State([])
        self.seen = gr.State(None)
        # The secret only keeps the value readable after a restart.
        self.remembered = gr.BrowserState([], storage_key="dailies-clips", secret="dailies")

    @property
    def inputs(self) -> set[Part]:
        """The components that `clips` wants the values of."""
        return {*self._listing, self.origin, self.licence}

    @property
    def _listing(self) -> set[Part]:
        """What the list depends on."""
        return {self.ids, self.list, *self._form.size}

    @property
    def outputs(self) -> list[Part]:
        return [self.files, self.answer, self.list, self.ids, self.seen, self.remembered]

    def wire(self, tab: gr.Tab, timer: gr.Timer) -> None:
        """Args: tab: looks anew whenever it is opened. timer: ticks when there may be news."""
        self.files.upload(self.add, {self.files, *self._listing}, self.outputs, **LIGHT)
        self.list.remove(self.remove, {*self._listing}, self.outputs, **LIGHT)
        self.list.edit(self.edited, {*self._listing}, [self.remembered], trigger_mode="always_last", **LIGHT)
        tab.select(self.recall, {self.remembered, self.ids, *self._form.size}, self.outputs, **LIGHT)
        timer.tick(self.look, {self.seen, *self._listing}, self.outputs, **LIGHT)
        sizes = [control.change for control in self._form.size]
        gr.on(sizes, self.look, {self.seen, *self._listing}, self.outputs, trigger_mode="always_last", **LIGHT)

    # -- what happens -------------------------------------------------------------------------------------------------

    def add(self, values: Values) -> Updates:
        """Files have arrived: they are read behind the page, and the quick ones are shown at once."""
        if self._context.hosted:
            return {self.files: None}
        files, ids = values[self.files], _ids(values[self.ids])
        paths = [Path(file) for file in files if isinstance(file, str)] if isinstance(files, list) else []
        room = max(0, MAX_CLIPS - len(ids))
        begun = {secrets.token_hex(8): path for path in paths[:room]}
        for clip_id, path in begun.items():
            self._listed[clip_id] = self._readers.submit(self._read, path)
        self._readers.submit(self._sweep)
        self._wait_for(begun)
        warning = {}
        if len(paths) > room:
            left = ", ".join(path.name for path in paths[room:])
            warning = message.warn(f"A fine-tune takes {MAX_CLIPS} clips at most. Not taken: {left[:300]}.")
        rows = self._rows([*ids, *begun], values[self.list], self._form.size_of(values))
        return self._shows(rows) | {self.files: None, self.answer: warning}

    def recall(self, values: Values) -> Updates:
        """The clips that the browser remembers and that are still kept here, on a page that has none yet."""
        remembered = values[self.remembered]
        if values[self.ids] or self._context.hosted or not isinstance(remembered, list):
            return gr.skip()
        begun: dict[str, dict[str, object]] = {}
        for row in remembered[:MAX_CLIPS]:
            path = self._uploads.find(str(row.get("sha256"))) if isinstance(row, dict) else None
            if path is not None:
                clip_id = secrets.token_hex(8)
                self._listed[clip_id] = self._known_by(path.parent.name) or self._readers.submit(self._read, path)
                begun[clip_id] = {**row, "id": clip_id, "state": "ready"}
        self._wait_for(begun)
        rows = self._rows([*begun], {"clips": [*begun.values()]}, self._form.size_of(values))
        return self._shows(rows) if begun else gr.skip()

    def remove(self, values: Values, event: gr.EventData) -> Updates:
        gone = sent_by(event).get("clip")
        ids = [each for each in _ids(values[self.ids]) if each != gone]
        return self._shows(self._rows(ids, values[self.list], self._form.size_of(values)))

    def edited(self, values: Values) -> Updates:
        """What the browser is to remember after something was typed or ticked."""
        return self._remembers(self._rows_of(values))

    def look(self, values: Values) -> Updates:
        """What a page has not been told yet; nothing where there is nothing new."""
        shown = self._shows(self._rows_of(values))
        return gr.skip() if shown[self.seen] == values[self.seen] else shown

    def clips(self, values: Values) -> tuple[TrainingClip, ...]:
        """What there is to learn from, as the controls of `inputs` say it.

        Raises:
            RequestError: nothing usable, files that are still being read or are gone, or a caption that is missing.
        """
        rows = self._rows_of(values)
        if any(row["state"] == "reading" for row, _ in rows):
            raise RequestError("Some clips are still being read.", field="clips", way_out="Wait a moment.")
        usable = [(row, clip) for row, clip in rows if clip is not None and row["state"] == "ready"]
        if not usable:
            what = "None of the clips can be used." if rows else "There is nothing to learn from yet."
            raise RequestError(what, field="clips", way_out="Add MP4 or WebM clips above.")
        for row, _ in usable:
            if not (row["caption"] or "").strip():
                raise RequestError(
                    f"{row['name']} has no caption.", field="clips", way_out="Say in a few words what is to be seen."
                )
        if all(row["held_out"] for row, _ in usable):
            raise RequestError(
                "Every clip is held out.", field="clips", way_out="Untick at least one, so that there is one to learn."
            )
        for row, clip in usable:
            try:
                os.utime(clip.path.parent)  # so that it stays until a version refers to it
            except OSError as error:
                raise RequestError(
                    f"{row['name']} is not kept here any more.", field="clips", way_out="Remove it, and add it again."
                ) from error
        marked = any(row["held_out"] for row, _ in usable)
        return tuple(
            TrainingClip(
                path=clip.path,
                caption=(row["caption"] or "").strip(),
                origin=_line(values[self.origin]),
                licence=_line(values[self.licence]),
                held_out=row["held_out"] if marked else None,
            )
            for row, clip in usable
        )

    # -- what is so ---------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> ListedClip:
        try:
            clip = self._uploads.take(path, limits=GLANCE)
        except (StudioError, OSError) as error:
            return ListedClip(name=path.name, fault=str(error))
        caption, picture = caption_of(path, clip.settings)[:MAX_CAPTION], picture_address(clip.thumbnail)
        return ListedClip(name=path.name, clip=clip, caption=caption, picture=picture)

    def _sweep(self) -> None:
        self._uploads.sweep(named_in=records_naming_uploads(self._context.store.folder))

    def _known(self, clip_id: str) -> ListedClip | None:
        """What is known of an upload; None while it is being read."""
        reading = self._listed.get(clip_id)
        if reading is None:
            return ListedClip(name="A clip", fault="It was uploaded too long ago. Add it again.")
        return reading.result() if reading.done() else None

    def _known_by(self, sha256: str) -> Future[ListedClip] | None:
        """The reading of a content that was read already."""
        done = [(each, each.result().clip) for each in list(self._listed.values()) if each.done()]
        return next((each for each, clip in done if clip is not None and clip.sha256 == sha256), None)

    def _wait_for(self, begun: Iterable[str]) -> None:
        while len(self._listed) > REMEMBERED:
            self._listed.popitem(last=False)
        wait([self._listed[clip_id] for clip_id in begun if clip_id in self._listed], PATIENCE_SECONDS)

    def _shows(self, rows: list[Row]) -> Updates:
        seen = [(row["id"], row["state"], row["note"]) for row, _ in rows]
        ids = [row["id"] for row, _ in rows]
        listed: Updates = {self.list: ClipList(clips=[row for row, _ in rows]), self.ids: ids, self.seen: seen}
        return listed | self._remembers(rows)

    def _remembers(self, rows: list[Row]) -> Updates:
        """Nothing new while clips are being read, some of which may have been remembered before."""
        if any(row["state"] == "reading" for row, _ in rows):
            return {self.remembered: gr.skip()}
        known = [
            {"sha256": clip.sha256, "caption": row["caption"], "held_out": row["held_out"]}
            for row, clip in rows
            if clip is not None
        ]
        return {self.remembered: known}

    def _rows_of(self, values: Values) -> list[Row]:
        """The list's rows as the page has them."""
        return self._rows(_ids(values[self.ids]), values[self.list], self._form.size_of(values))

    def _rows(self, ids: list[str], listed: Sent, size: SampleSize) -> list[Row]:
        """The list's rows, with the captions and ticks that the page has given them."""
        typed = _typed(listed)
        rows: list[Row] = []
        names: dict[str, str] = {}
        for clip_id in ids:
            known = self._known(clip_id)
            clip = known.clip if known is not None else None
            caption, held_out = typed.get(clip_id, (None, False))
            row = ClipRow(
                id=clip_id, state="reading", name="", line="", note="", picture="", caption=caption, held_out=held_out
            )
            if known is not None:
                fault = known.fault
                if clip is not None:
                    fault = _fault(clip, names.get(clip.sha256), size)
                    names.setdefault(clip.sha256, known.name)
                    row["line"] = _line_of(clip, size)
                row["state"] = "left out" if fault else "ready"
                row["name"], row["note"], row["picture"] = known.name[:120], fault, known.picture
                row["caption"] = known.caption if caption is None else caption
            rows.append((row, clip))
        return rows


def _line_of(clip: UploadedClip, size: SampleSize) -> str:
    """What a clip is, and how much of a long one is used."""
    info = clip.info
    line = f"{info.width}×{info.height} · {seconds_text(info.seconds)} · {size_text(info.file_bytes)}"
    if info.seconds * size.fps <= LIMITS.frames:
        return line
    return f"{line} · its first {seconds_text(LIMITS.frames / size.fps)} are used"


def _fault(clip: UploadedClip, twin: str | None, size: SampleSize) -> str:
    """Why a clip gives nothing to learn from, as far as the form says what a sample is."""
    fault = fault_of(size, twin=twin, frames=clip.info.frames_at(size.fps) if all(size) else None)
    return fault[:1].upper() + fault[1:]


def _ids(ids: Sent) -> list[str]:
    return [each for each in ids if isinstance(each, str)][:MAX_CLIPS] if isinstance(ids, list) else []


def _typed(listed: Sent) -> dict[str, tuple[str | None, bool]]:
    """Captions and ticks by id, of what a browser sent as the list's value; it may be anything."""
    rows = listed.get("clips") if isinstance(listed, dict) else None
    typed = {}
    for row in rows[:MAX_CLIPS] if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            caption = row.get("caption")
            typed[row["id"]] = (
                caption[:MAX_CAPTION] if isinstance(caption, str) else None,
                row.get("held_out") is True,
            )
    return typed


def _line(text: Sent) -> str:
    return " ".join(text.split())[:200] if isinstance(text, str) else ""
