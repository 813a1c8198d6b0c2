"""Control videos: a map as a film, as other programs make and take them (ComfyUI's workflows above all).

Written with a word inside that says what it shows. Read with that word, with what a person says it shows, or, where
nobody says, by how it looks: then it is said what it was taken for, and why. Knows films and paintings. Refuses to
guess numbers that a picture does not hold.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from studio.clips.clip import Clip
from studio.clips.control_maps import MAP_NAMES, TITLES, ControlMaps, MapName
from studio.clips.limits import ClipLimits
from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.control_maps.painting import SEMANTIC_COLOURS, WHITE_METRES, painted, semantic_colours
from studio.errors import RequestError

SETTING = "control_map"
"""The key of the file's settings."""
USUAL_FPS = 24.0
"""Where nobody has said."""
READABLE: tuple[MapName, ...] = ("layout", "edges", "lane_lines", "depth", "semantic", "control_video")
"""What a picture holds; of the others it only gives an impression."""
_LOOKED_AT = 12
"""Frames by which a kind is told."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A control video that was read."""

    maps: ControlMaps
    kind: MapName
    notices: tuple[str, ...]
    """What it was taken for, and why; what was changed while reading."""


def write_control_video(maps: ControlMaps, name: MapName, path: Path, *, size: tuple[int, int] | None = None) -> None:
    """One map as an mp4.

    Raises:
        RequestError: that map is not there.
        StudioError: as `write_clip`.
    """
    pictures = painted(maps, name, size=size)
    odd = [side % 2 for side in pictures.shape[1:3]]
    if any(odd):  # no browser plays odd sizes: the last row or column is there twice
        pictures = np.pad(pictures, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    said: dict[str, Any] = {"kind": name, "size": list(painted_size(maps, size) or pictures.shape[1:3])}
    if name == "semantic":
        said["labels"] = list(maps.semantic_labels)
    write_clip(Clip(frames=pictures, fps=maps.fps or USUAL_FPS), path, settings={SETTING: said})


def painted_size(maps: ControlMaps, size: tuple[int, int] | None) -> tuple[int, int] | None:
    return maps.size or size


def read_control_video(path: Path, *, kind: MapName | None = None, limits: ClipLimits = ClipLimits()) -> Taken:  # noqa: B008
    """A control video, whoever made it.

    Args:
        kind: What it shows; None asks the file, and then its looks.

    Raises:
        ClipRefused: it is no clip that is read.
        RequestError: such a map cannot be read from pictures.
    """
    if kind is not None and kind not in READABLE:
        raise RequestError(
            f"{TITLES.get(kind, str(kind))} cannot be read back from pictures: its numbers are not in them.",
            field="kind",
            value=kind,
            way_out=f"Give the .npz of maps, or one of: {', '.join(READABLE)}.",
        )
    loaded = read_clip(path, limits=limits)
    frames = loaded.clip.frames
    notices = [f"{path.name}: {notice}." for notice in loaded.notices]
    said = (loaded.settings or {}).get(SETTING)
    said = said if isinstance(said, dict) else {}
    if kind is not None:
        why = "as it was said to be"
    elif (named := _kind_named(said)) is not None:
        kind, why = named, "as the file itself says"
    else:
        kind, why = guess(frames)
    notices.insert(0, f"{path.name} is taken for {TITLES[kind].lower()}: {why}.")
    frames = _as_written(frames, said)
    fields = _fields_of(kind, frames, said)
    if kind == "depth" and not said:
        notices.append(
            "Of its depth only nearer and farther is known: metres are reckoned as if the studio had painted it."
        )
    return Taken(maps=ControlMaps(fps=loaded.clip.fps, **fields), kind=kind, notices=tuple(notices))


def guess(frames: np.ndarray) -> tuple[MapName, str]:
    """What pictures look most like, and why."""
    looked = frames[:: max(1, len(frames) // _LOOKED_AT)][:_LOOKED_AT]
    colour = looked.max(axis=-1).astype(np.int16) - looked.min(axis=-1)
    if float((colour > 40).mean()) > 0.005:
        return _guess_coloured(looked)
    grey = looked[..., 1]
    lit = float((grey > 127).mean())
    if float(((grey < 48) | (grey > 207)).mean()) > 0.93 and lit > 0:
        if lit < 0.25:
            return "edges", "it is black, with thin white lines"
        return (
            "control_video",
            "it is black and white, with areas and not lines: a mask, perhaps. It is kept as it came",
        )
    rough = [float((np.abs(cv2.Laplacian(each, cv2.CV_16S, ksize=1)) > 6).mean()) for each in grey]
    steps = [float(np.abs(np.diff(each.astype(np.int16), axis=1)).max()) for each in grey]
    if max(rough) < 0.03 and np.median(steps) < 24:
        return "layout", "it is grey and blurred throughout"
    if float(np.median(rough)) < 0.08:
        return "depth", "it is grey, with smooth areas and sharp borders; white is taken for near"
    return (
        "control_video",
        "it is a grey picture with all its detail, of no kind that is measured here. It is kept as it came",
    )


def _guess_coloured(looked: np.ndarray) -> tuple[MapName, str]:
    palette = np.array(list(SEMANTIC_COLOURS.values()), np.int32)
    pixels = looked[:, ::4, ::4].reshape(-1, 3).astype(np.int32)
    near = np.abs(pixels[:, None] - palette[None]).max(axis=-1).min(axis=1) <= 20
    if float(near.mean()) > 0.9:
        return "semantic", "its colours are those that the studio paints classes with"
    cells = (pixels // 16) @ np.array([256, 16, 1])
    counts = np.sort(np.bincount(cells))[::-1]
    if counts[:24].sum() > 0.92 * len(cells):
        return (
            "control_video",
            "it has few colours, as another program paints classes; what they mean nobody says. It is kept as it came",
        )
    return "control_video", "it is of no kind that is measured here. It is kept as it came"


def _kind_named(said: dict[str, Any]) -> MapName | None:
    named = next((name for name in MAP_NAMES if name == said.get("kind")), None)
    # Flow, boxes and motion are painted to be looked at: as pictures they can still be followed.
    return named if named is None or named in READABLE else "control_video"


def _as_written(frames: np.ndarray, said: dict[str, Any]) -> np.ndarray:
    """Without the row or column that was there twice."""
    size = said.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        return frames
    return (
        frames[:, : size[0], : size[1]]
        if 0 <= frames.shape[1] - size[0] <= 1 >= frames.shape[2] - size[1] >= 0
        else frames
    )


def _fields_of(kind: MapName, frames: np.ndarray, said: dict[str, Any]) -> dict[str, Any]:
    grey = np.ascontiguousarray(frames[..., 1])
    match kind:
        case "layout":
            return {"layout": grey}
        case "edges" | "lane_lines":
            return {kind: (grey > 127).astype(np.uint8) * 255}
        case "depth":
            with np.errstate(divide="ignore"):
                return {"depth": (WHITE_METRES * 255 / grey.astype(np.float32)).astype(np.float32)}
        case "semantic":
            named = said.get("labels")
            sound = isinstance(named, list) and named and all(label in SEMANTIC_COLOURS for label in named)
            labels = tuple(named) if isinstance(named, list) and sound else tuple(SEMANTIC_COLOURS)
            return {"semantic": _nearest(frames, semantic_colours(labels)), "semantic_labels": labels}
        case _:
            return {"control_video": frames}


def _nearest(frames: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """uint8, (F, H, W): which colour each pixel is nearest to."""
    classes = np.zeros(frames.shape[:3], np.uint8)
    for number, frame in enumerate(frames.astype(np.int32)):
        apart = [((frame - colour) ** 2).sum(axis=-1) for colour in colours.astype(np.int32)]
        classes[number] = np.argmin(np.stack(apart), axis=0)
    return classes
