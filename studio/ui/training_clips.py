"""The clips to learn from: uploaded, read behind the page, captioned and held out, and what cannot be used named.

Knows uploads, the guarded reader of clips and where copies stay. Refuses to know how a clip becomes samples, and to let
any other decoder see an upload.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.clip import read_clip, thumbnail_jpeg
from studio.errors import RequestError, StudioError
from studio.finetune.clips import LIMITS, caption_of, kept
from studio.finetune_request import MAX_CLIPS, TrainingClip
from studio.ui.components import message
from studio.ui.components.clip_list import clip_list
from studio.ui.progress import picture_address
from studio.ui.rooms import Rooms
from studio.ui.shown import seconds_text, size_text

ENDINGS = [".mp4", ".m4v", ".mov", ".webm", ".mkv"]
REMEMBERED = 1000
"""Uploads whose findings are kept, of all pages together."""
PATIENCE_SECONDS = 1.5
"""How long an upload waits for its findings before the list shows that they are still to come."""
MAX_CAPTION = 2000


@dataclass(frozen=True, kw_only=True)
class Found:
    """What reading an upload has shown."""

    name: str
    fault: str = ""
    """Why it cannot be read; nothing below is known then."""
    path: Path = Path()
    """The copy that stays."""
    sha256: str = ""
    caption: str = ""
    picture: str = ""
    """The first frame, as a `data:` address."""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    file_bytes: int = 0


class ClipsPanel:
    """The upload, the list and two fields that go for all clips.

    A page knows its clips by ids that only the server hands out; captions and ticks come back with the list's value.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="training-clips")
        self._found: OrderedDict[str, Future[Found]] = OrderedDict()

    def build(self) -> None:
        self.files = gr.File(
            label=f"Clips to learn from: 1 to {MAX_CLIPS} MP4 or WebM files",
            file_count="multiple",
            file_types=ENDINGS,
            height=96,
            visible=not self._rooms.hosted,
            elem_id="training-files",
        )
        self.said = message.message(elem_id="training-clips-said")
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

    @property
    def inputs(self) -> list[Any]:
        """What `clips` takes, without the frames and the rate."""
        return [self.ids, self.list, self.origin, self.licence]

    @property
    def outputs(self) -> list[Any]:
        return [self.files, self.said, self.list, self.ids, self.seen]

    # -- what happens -------------------------------------------------------------------------------------------------

    def add(self, files: Any, ids: Any, listed: Any, num_frames: Any, fps: float) -> dict[Any, Any]:
        """Files have arrived: they are read behind the page, and the quick ones are shown at once."""
        if self._rooms.hosted:
            return {self.files: None}
        ids = _ids(ids)
        paths = [Path(file) for file in files if isinstance(file, str)] if isinstance(files, list) else []
        room = max(0, MAX_CLIPS - len(ids))
        begun = {secrets.token_hex(8): path for path in paths[:room]}
        for clip_id, path in begun.items():
            self._found[clip_id] = self._readers.submit(self._read, path)
        while len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        wait([self._found[clip_id] for clip_id in begun if clip_id in self._found], PATIENCE_SECONDS)
        said = {}
        if len(paths) > room:
            left = ", ".join(path.name for path in paths[room:])
            said = message.warn(f"A fine-tune takes {MAX_CLIPS} clips at most. Not taken: {left[:300]}.")
        return self._shows([*ids, *begun], listed, num_frames, fps) | {self.files: None, self.said: said}

    def remove(self, ids: Any, listed: Any, num_frames: Any, fps: float, event: gr.EventData) -> dict[Any, Any]:
        asked = event._data if isinstance(event._data, dict) else {}
        return self._shows([each for each in _ids(ids) if each != asked.get("clip")], listed, num_frames, fps)

    def look(self, ids: Any, listed: Any, num_frames: Any, fps: float, seen: Any) -> dict[Any, Any]:
        """What a page has not been told yet; nothing where there is nothing new."""
        shown = self._shows(_ids(ids), listed, num_frames, fps)
        return {} if shown[self.seen] == seen else shown

    def clips(self, ids: Any, listed: Any, origin: Any, licence: Any, *, num_frames: Any, fps: float) -> Any:
        """What there is to learn from.

        Raises:
            RequestError: nothing usable, files that are still being read, or a caption that is missing.
        """
        rows = self._rows(_ids(ids), listed, num_frames, fps)
        if any(row["state"] == "reading" for row in rows):
            raise RequestError("Some clips are still being read.", field="clips", way_out="Wait a moment.")
        usable = [row for row in rows if row["state"] == "ready"]
        if not usable:
            what = "None of the clips can be used." if rows else "There is nothing to learn from yet."
            raise RequestError(what, field="clips", way_out="Add MP4 or WebM clips above.")
        for row in usable:
            if not row["caption"].strip():
                raise RequestError(
                    f"{row['name']} has no caption.", field="clips", way_out="Say in a few words what is to be seen."
                )
        if all(row["held_out"] for row in usable):
            raise RequestError(
                "Every clip is held out.", field="clips", way_out="Untick at least one, so that there is one to learn."
            )
        marked = any(row["held_out"] for row in usable)
        return tuple(
            TrainingClip(
                path=found.path,
                caption=row["caption"].strip(),
                origin=_line(origin),
                licence=_line(licence),
                held_out=row["held_out"] if marked else None,
            )
            for row in usable
            if (found := self._known(row["id"])) is not None
        )

    # -- what is so ---------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> Found:
        name = path.name
        try:
            loaded = read_clip(path, limits=LIMITS, fps=1.0)  # one picture a second tells as much, in little memory
            caption = caption_of(path)
            copy = kept(path, self._rooms.store.folder)
            info = loaded.info
            return Found(
                name=name,
                path=copy,
                sha256=copy.parent.name,
                caption=caption[:MAX_CAPTION],
                picture=picture_address(thumbnail_jpeg(loaded.clip.frames[0], longest=128)),
                width=info.width,
                height=info.height,
                seconds=info.seconds,
                file_bytes=info.file_bytes,
            )
        except (StudioError, OSError) as error:
            return Found(name=name, fault=str(error))

    def _known(self, clip_id: str) -> Found | None:
        """What is known of an upload; None while it is being read."""
        reading = self._found.get(clip_id)
        if reading is None:
            return Found(name="A clip", fault="It was uploaded too long ago. Add it again.")
        return reading.result() if reading.done() else None

    def _shows(self, ids: list[str], listed: Any, num_frames: Any, fps: float) -> dict[Any, Any]:
        rows = self._rows(ids, listed, num_frames, fps)
        told = [(row["id"], row["state"], row["note"]) for row in rows]
        return {self.list: {"clips": rows}, self.ids: ids, self.seen: told}

    def _rows(self, ids: list[str], listed: Any, num_frames: Any, fps: float) -> list[dict[str, Any]]:
        """The list's rows, with the captions and ticks that the page has given them."""
        typed = _typed(listed)
        rows: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        for clip_id in ids:
            found = self._known(clip_id)
            row = {"id": clip_id, "state": "reading", "name": "", "line": "", "picture": "", "note": ""}
            row |= {"caption": "", "held_out": False}
            if found is not None:
                fault = found.fault or _fault(found, names, num_frames, fps)
                names.setdefault(found.sha256, found.name)
                caption, held_out = typed.get(clip_id, (None, False))
                row |= {"state": "left out" if fault else "ready", "name": found.name[:120], "note": fault}
                row |= {"picture": found.picture, "caption": found.caption if caption is None else caption}
                row |= {"held_out": held_out}
                if found.width:
                    size = f"{found.width}×{found.height}"
                    row["line"] = f"{size} · {seconds_text(found.seconds)} · {size_text(found.file_bytes)}"
            rows.append(row)
        return rows


def _fault(found: Found, names: dict[str, str], num_frames: Any, fps: float) -> str:
    """Why a clip that can be read gives nothing to learn from; empty where it does."""
    if found.sha256 in names:
        return f"It is the same file as {names[found.sha256]}."
    frames = round(found.seconds * fps)
    if frames > LIMITS.frames or frames * found.width * found.height > LIMITS.total_pixels:
        return "It is too long for its size. Cut it, or make it smaller."
    wanted = num_frames if isinstance(num_frames, (int, float)) else 1
    if frames < wanted:
        return f"At {fps:g} frames a second it has {frames} frames, fewer than the {wanted:g} of a sample."
    return ""


def _ids(ids: Any) -> list[str]:
    return [each for each in ids if isinstance(each, str)][:MAX_CLIPS] if isinstance(ids, list) else []


def _typed(listed: Any) -> dict[str, tuple[str | None, bool]]:
    """Captions and ticks by id, of what a browser sent as the list's value; it may be anything."""
    rows = listed.get("clips") if isinstance(listed, dict) else None
    found = {}
    for row in rows[:MAX_CLIPS] if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("id"), str) and row.get("state") == "ready":
            caption = row.get("caption")
            found[row["id"]] = (
                caption[:MAX_CAPTION] if isinstance(caption, str) else None,
                row.get("held_out") is True,
            )
    return found


def _line(text: Any) -> str:
    return " ".join(text.split())[:200] if isinstance(text, str) else ""
