"""MapsRequest: all that is needed to have the maps of a clip again.

Knows fields and ranges. Refuses to know how a map is found.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.clips.control_maps import EXTRACTED, MAP_NAMES, SHORT_NAMES, Box, MapName
from studio.clips.reference import FileReference
from studio.errors import RequestError
from studio.requests.generation import read_as, record_of

MOST_FRAMES = 129
"""Of a clip whose maps are made: they lie in memory together."""
LARGEST_SIDE = 960
"""Pixels: larger clips are scaled down first."""
USUAL: tuple[MapName, ...] = tuple(name for name in EXTRACTED if name != "boxes")
"""Those that need nothing but the clip."""


class GivenBox(BaseModel):
    """A thing to be followed, as somebody drew it in one frame; in pixels of the clip as it came."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    frame: int = Field(default=0, ge=0, lt=MOST_FRAMES)
    """In which frame, counted from 0 where the maps begin."""
    left: float = Field(ge=0)
    top: float = Field(ge=0)
    right: float = Field(gt=0)
    bottom: float = Field(gt=0)
    label: str = Field(default="car", min_length=1, max_length=40)
    """What it is."""

    def as_box(self, number: int) -> Box:
        return Box(
            instance_id=number, label=self.label, left=self.left, top=self.top, right=self.right, bottom=self.bottom
        )


def _as_names(written: object) -> object:
    """A list of words, as it was typed, as names."""
    words = re.split(r"[,\s]+", written.strip()) if isinstance(written, str) else written
    if not isinstance(words, (list, tuple)):
        return words
    names = [SHORT_NAMES.get(str(word), str(word)) for word in words if str(word)]
    for name, word in zip(names, words, strict=False):
        if name not in EXTRACTED:
            known = [*EXTRACTED, *SHORT_NAMES]
            raise RequestError(
                f"No map is called {str(word)[:40]!r}.",
                field="maps",
                value=str(word)[:40],
                way_out=f"Choose among: {', '.join(known)}.",
            )
    return tuple(name for name in EXTRACTED if name in names)


_BOX = re.compile(r"\s*(?:(\d+)\s*:)?([^:]+)(?::\s*(.+?))?\s*")


def _as_boxes(written: object) -> object:
    """Lines as they are typed, `FRAME:LEFT,TOP,RIGHT,BOTTOM:label`, as records."""
    lines = [line for line in written.splitlines() if line.strip()] if isinstance(written, str) else written
    if not isinstance(lines, (list, tuple)):
        return lines
    return tuple(_as_box(line) if isinstance(line, str) else line for line in lines)


def _as_box(line: str) -> dict[str, object]:
    parts = _BOX.fullmatch(line)
    numbers = [word.strip() for word in parts[2].split(",")] if parts else []
    try:
        left, top, right, bottom = (float(word) for word in numbers)
    except ValueError:
        raise RequestError(
            f"{line[:60]!r} is no box.",
            field="boxes",
            value=line[:60],
            way_out="Write LEFT,TOP,RIGHT,BOTTOM in pixels, if need be with the frame before and the name after it: "
            "12:310,280,420,360:car.",
        ) from None
    record: dict[str, object] = {"left": left, "top": top, "right": right, "bottom": bottom}
    if parts and parts[1]:
        record["frame"] = int(parts[1])
    if parts and parts[3]:
        record["label"] = parts[3]
    return record


def _as_kind(written: object) -> object:
    return SHORT_NAMES.get(written, written) if isinstance(written, str) else written


class MapsRequest(BaseModel):
    """One clip, one seed of the driving world, or one file of maps: exactly one of the three."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: FileReference | None = None
    """The clip that is measured."""
    world: int | None = Field(default=None, ge=0, lt=2**63)
    """A seed of the driving world, whose maps are exact."""
    given: FileReference | None = None
    """Maps that are there already: an .npz of maps, or a control video of any program."""
    kind: Annotated[MapName | None, BeforeValidator(_as_kind)] = None
    """What a given control video shows; None asks the file, and then its looks."""
    maps: Annotated[tuple[MapName, ...], BeforeValidator(_as_names)] = USUAL
    """Which maps."""
    boxes: Annotated[tuple[GivenBox, ...], BeforeValidator(_as_boxes)] = Field(default=(), max_length=8)
    """Things to be followed through the clip, such as 0:310,280,420,360:car."""
    start: float = Field(default=0.0, ge=0)
    """Seconds of the clip before the first frame that is measured."""
    num_frames: int = Field(default=81, ge=1, le=MOST_FRAMES)
    """How many frames at most."""
    height: int = Field(default=288, ge=32, le=LARGEST_SIDE, multiple_of=2)
    """Rows of a world's pictures."""
    width: int = Field(default=512, ge=32, le=LARGEST_SIDE, multiple_of=2)
    """Columns of a world's pictures."""
    fps: float = Field(default=12.0, ge=1, le=60)
    """Frames a second of a world."""


def read_maps_request(written: dict[str, Any] | str | bytes) -> MapsRequest:
    """A request from a record or JSON that came from outside.

    Raises:
        RequestError: not JSON, a field nobody knows, or a value out of range; the field is named.
    """
    request = read_as(MapsRequest, record_of(written))
    named = [name for name in ("source", "world", "given") if getattr(request, name) is not None]
    if len(named) != 1:
        raise RequestError(
            "Maps are of one thing: a clip, a world, or a file of maps." if named else "Nothing is named to be mapped.",
            field="source",
            value=", ".join(named) or None,
            way_out="Name exactly one: a clip, a seed of the driving world, or maps that are there.",
        )
    if not request.maps:
        raise RequestError("No map is asked for.", field="maps", way_out=f"Choose among: {', '.join(EXTRACTED)}.")
    for number, box in enumerate(request.boxes):
        if box.right <= box.left or box.bottom <= box.top:
            raise RequestError(
                f"Box {number + 1} is empty: its right edge must lie right of its left one, its lower below its upper.",
                field="boxes",
                value=str(box),
                way_out="Write LEFT,TOP,RIGHT,BOTTOM.",
            )
    if request.boxes and request.source is None:
        raise RequestError(
            "Boxes are drawn on a clip: a world knows its own, and maps that are there are taken as they come.",
            field="boxes",
            value=len(request.boxes),
            way_out="Leave them out, or name the clip.",
        )
    if request.source is not None and "boxes" in request.maps and not request.boxes:
        raise RequestError(
            "Boxes are followed, not found: there is none to begin with.",
            field="boxes",
            way_out="Draw one, or leave boxes out.",
        )
    if request.boxes and request.source is not None and "boxes" not in request.maps:
        request = request.model_copy(update={"maps": tuple(n for n in MAP_NAMES if n in (*request.maps, "boxes"))})
    return request


RecordedMaps: TypeAlias = Annotated[MapsRequest, BeforeValidator(read_maps_request)]
"""A request as a field of something that is written down."""
