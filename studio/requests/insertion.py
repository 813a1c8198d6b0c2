"""InsertionRequest: all that is needed to put a vehicle into a clip again.

Knows fields, ranges and how a path is spelled. Refuses to know how a vehicle is lit, and how long a clip is.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.clips.reference import FileReference
from studio.errors import RequestError
from studio.requests.generation import read_as, record_of

MOST_FRAMES = 241
"""Of a clip that a vehicle is put into: they lie in memory together."""
View = Literal["rear", "front", "left", "right"]
"""What of a rendered vehicle is seen; left and right are the way that it drives."""
VehicleType = Literal["car", "truck", "bus", "motorbike"]
VehicleColour = Literal["red", "blue", "white", "black", "yellow", "green", "orange"]


class RenderedVehicle(BaseModel):
    """A vehicle of the driving world, crude and by day, such as car:red:rear."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    type: VehicleType = "car"
    colour: VehicleColour = "red"
    view: View = "rear"

    def __str__(self) -> str:
        return f"{self.type}:{self.colour}:{self.view}"


class PathPoint(BaseModel):
    """Where the vehicle stands in one frame, in pixels of the clip."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    frame: int = Field(ge=0, lt=MOST_FRAMES)
    """Counted from 0 where the clip is begun."""
    x: float = Field(allow_inf_nan=False)
    """The middle of its lower edge, from the left."""
    y: float = Field(allow_inf_nan=False)
    """Its lower edge, where it stands on the road, from the top."""
    width: float = Field(ge=8, le=8192)
    """How wide it is there."""

    def __str__(self) -> str:
        return f"{self.frame}:{self.x:g},{self.y:g},{self.width:g}"


_POINT = re.compile(r"(\d+)\s*:\s*([^,\s]+)\s*,\s*([^,\s]+)\s*,\s*([^,\s]+)")
_SPELLED = "Write FRAME:X,Y,WIDTH for each place, such as 0:120,300,80 24:300,310,120; it goes straight between them."


def _as_path(written: object) -> object:
    """Places as they are typed, `FRAME:X,Y,WIDTH FRAME:X,Y,WIDTH`, as records."""
    if not isinstance(written, str):
        return written
    points = []
    for word in re.sub(r"\s*([:,])\s*", r"\1", written).split():
        parts = _POINT.fullmatch(word)
        try:
            numbers = [float(each) for each in parts.groups()[1:]] if parts else []
            x, y, width = numbers
        except ValueError:
            raise RequestError(
                f"{word[:60]!r} is no place of a path.", field="path", value=word[:60], way_out=_SPELLED
            ) from None
        assert parts is not None
        points.append({"frame": int(parts[1]), "x": x, "y": y, "width": width})
    if not points:
        raise RequestError("There is no path yet.", field="path", way_out=_SPELLED)
    return tuple(points)


def _as_vehicle(written: object) -> object:
    """`TYPE:COLOUR:VIEW` as a record; what is left out is as usual."""
    if not isinstance(written, str):
        return written
    words = [word.strip() for word in written.split(":")]
    if len(words) > len(RenderedVehicle.model_fields):
        raise RequestError(
            f"{written[:60]!r} is no vehicle.",
            field="render",
            value=written[:60],
            way_out="Write TYPE:COLOUR:VIEW, such as car:red:rear.",
        )
    return {name: word for name, word in zip(RenderedVehicle.model_fields, words, strict=False) if word}


class InsertionRequest(BaseModel):
    """A clip, a vehicle, and the way that it takes through the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: FileReference
    """The clip."""
    vehicle: FileReference | None = None
    """A picture of a vehicle, cut out: PNG or WebP with an alpha channel."""
    render: Annotated[RenderedVehicle | None, BeforeValidator(_as_vehicle)] = None
    """Instead of a picture, a vehicle of the driving world: TYPE:COLOUR:VIEW, such as car:red:rear."""
    path: Annotated[tuple[PathPoint, ...], BeforeValidator(_as_path)] = Field(min_length=1, max_length=64)
    """Where it stands: FRAME:X,Y,WIDTH, in pixels of the clip: the middle of its lower edge, and its width. It goes
    straight from place to place; before the first and after the last it is not there. One place alone holds for all
    frames."""
    strength: float = Field(default=1.0, ge=0, le=1)
    """How much it is lit and shadowed like the rest; 0 leaves the paste as it is."""
    start: float = Field(default=0.0, ge=0)
    """Seconds of the clip before the first frame."""
    num_frames: int = Field(default=81, ge=1, le=MOST_FRAMES)
    """How many frames at most."""


def read_insertion_request(written: dict[str, Any] | str | bytes) -> InsertionRequest:
    """A request from a record or JSON that came from outside.

    Raises:
        RequestError: not JSON, a field nobody knows, or a value out of range; the field is named.
    """
    request = read_as(InsertionRequest, record_of(written))
    named = [name for name in ("vehicle", "render") if getattr(request, name) is not None]
    if len(named) != 1:
        raise RequestError(
            "A vehicle is a picture or a render, not both." if named else "No vehicle is named.",
            field="vehicle",
            value=", ".join(named) or None,
            way_out="Name a picture with an alpha channel, or a render such as car:red:rear.",
        )
    for before, after in pairwise(request.path):
        if after.frame <= before.frame:
            raise RequestError(
                f"The path goes from frame {before.frame} to frame {after.frame}.",
                field="path",
                value=str(after),
                way_out="Name each frame once, in their order.",
            )
    return request


RecordedInsertion: TypeAlias = Annotated[InsertionRequest, BeforeValidator(read_insertion_request)]
"""A request as a field of something that is written down."""
