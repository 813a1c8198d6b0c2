"""Conditions: what a request's files are once they are read and fitted, whichever family is given them.

A clip that is continued lends its last frames; a picture is a first frame; maps are brought to exactly the clip's
height, width and length. Whatever had to be done for that is said. Knows requests, films and maps. Refuses to know how
a family is given them (`families/` do).

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from studio.clips.control_maps import ControlMaps, MapName, only
from studio.clips.film import Film
from studio.clips.limits import ClipLimits
from studio.clips.map_files import is_file_of_maps, read_maps
from studio.clips.pictures import is_picture, read_picture
from studio.errors import RequestError
from studio.requests.checks import check_maps_there
from studio.requests.generation import GenerationRequest


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a clip starts from and keeps to, besides its prompt."""

    maps: ControlMaps | None = None
    """Those that are followed, at the clip's size and length; None where none are."""
    strengths: Mapping[MapName, float] = field(default_factory=dict)
    """Of each of them, above 0 and at most 1."""
    kept: np.ndarray | None = None
    """uint8 (kept frames, H, W, 3): the clip's first frames; None where it starts from noise alone."""
    notices: tuple[str, ...] = ()
    """What was done to the files, in sentences."""


def conditions_of(request: GenerationRequest) -> Conditions:
    """Read and fit what a request starts from and keeps to.

    Raises:
        RequestError: a map that is followed is not there, or the source has fewer frames than are kept.
        StudioError: a file is none that is read.
    """
    kept, about_source = _kept(request)
    maps, strengths, about_maps = _maps(request)
    return Conditions(maps=maps, strengths=strengths, kept=kept, notices=(*about_source, *about_maps))


# -- maps -------------------------------------------------------------------------------------------------------------


def _maps(request: GenerationRequest) -> tuple[ControlMaps | None, dict[MapName, float], tuple[str, ...]]:
    if request.control is None or request.conditioning_scale == 0:
        return None, {}, ()
    from studio.control_maps import fitted, read_control_video  # here, so that other clips are not held up by it

    path = request.control.path
    if is_file_of_maps(path):
        maps, notices = read_maps(path), ()
    else:
        taken = read_control_video(path, limits=ClipLimits(frames=request.num_frames, cut=True))
        maps, notices = taken.maps, taken.notices
    check_maps_there(request, maps.names)
    asked: Mapping[MapName, float] = request.control_strengths or dict.fromkeys(maps.names, 1.0)
    strengths: dict[MapName, float] = {name: asked[name] for name in maps.names if asked.get(name, 0) > 0}
    if not strengths:
        return None, {}, notices
    if maps.size is None and {"boxes", "ego_motion"} & strengths.keys():
        raise RequestError(
            f"Of {path.name} nothing says which size of picture its boxes and motion are of.",
            field="control",
            value=str(request.control),
            way_out="Put a map beside them that is a picture, such as layout.",
        )
    brought = fitted(
        only(maps, tuple(strengths)),
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        size=maps.size,
    )
    return brought.maps, strengths, (*notices, *(f"Maps: {_within(sentence)}" for sentence in brought.done))


# -- frames to begin with ---------------------------------------------------------------------------------------------


def _kept(request: GenerationRequest) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if request.source is None:
        return None, ()
    from studio.control_maps import fitted

    path, count = request.source.path, request.kept_frames
    if is_picture(path):
        frames, notices = read_picture(path)[None], []
    else:
        frames, fps = _last_frames(path, count)
        notices = []
        if count > 1 and abs(fps - request.fps) > 0.01 * request.fps:
            notices.append(
                f"{path.name} has {fps:.4g} frames a second, and the new clip is shown at {request.fps:g}: what is "
                "continued moves at another speed than before."
            )
    if len(frames) < count:
        raise RequestError(
            f"{path.name} has {len(frames)} frame{'s' if len(frames) > 1 else ''}, and {count} are to be kept.",
            field="kept_frames",
            value=count,
            way_out=f"Keep at most {len(frames)}.",
        )
    brought = fitted(
        ControlMaps(control_video=frames), height=request.height, width=request.width, num_frames=len(frames)
    )
    notices += [f"{path.name}: {_within(sentence)}" for sentence in brought.done]
    return brought.maps.control_video, tuple(notices)


def _last_frames(path: Path, count: int) -> tuple[np.ndarray, float]:
    """At most so many, uint8 (F, H, W, 3) with square pixels, and the clip's frames a second."""
    import cv2

    with Film(path) as film:
        info = film.info
    first = max(0, info.clip.num_frames - count)
    pictures = _ending(path, first, count)
    if len(pictures) < count and first > 0:  # it holds fewer than it claims
        pictures = _ending(path, 0, count)
    frames = np.stack(pictures)
    wide = round(frames.shape[2] * float(info.sample_aspect_ratio))
    if wide != frames.shape[2]:
        frames = np.stack([cv2.resize(frame, (wide, frame.shape[0])) for frame in frames])
    return frames, info.clip.fps


def _ending(path: Path, first: int, count: int) -> list[np.ndarray]:
    with Film(path, first=first) as film:
        return list(deque((picture.pixels for picture in film), maxlen=count))


def _within(sentence: str) -> str:
    """To stand behind a colon."""
    return sentence[0].lower() + sentence[1:]
