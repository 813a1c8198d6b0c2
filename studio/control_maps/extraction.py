"""Extraction: the maps of a clip, each by its own file, in an order in which each has what it needs.

Knows which map leans on which, and what was found where. Refuses to know how any of them is found.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.clips.control_maps import BESIDES, ControlMaps, MapName
from studio.control_maps import depth, edges, ego_motion, flow, following, lanes, layout, regions

USUAL_HORIZON = 0.45
"""Row, as a share of the height, where neither lanes nor motion tell one."""
_HORIZON_OVER = 9
"""Frames whose median the horizon is."""
_HORIZON_STRAYS = 0.06
"""Of the height: how far a frame's horizon may lie from the clip's."""
_FEWEST = 0.3
"""Of the frames: what is found in fewer is no horizon."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Some more of one map is done."""

    what: MapName
    done: int
    total: int
    """Of all that is to be done, in frames of single maps."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """The maps of a clip, and what to know about them."""

    maps: ControlMaps
    notices: tuple[str, ...]
    """What was found where, in sentences."""


def extract(
    frames: np.ndarray,
    *,
    fps: float,
    names: Collection[MapName],
    drawn: Sequence[following.DrawnBox] = (),
    focal: float | None = None,
) -> Generator[Progress, None, Extraction]:
    """The named maps of a clip.

    Args:
        frames: uint8 RGB, (F, H, W, 3), at least 32 pixels a side for optical flow.
        fps: Frames a second.
        names: Which.
        drawn: For `boxes`: what is to be followed.
        focal: Focal length in pixels; None takes that of most dashboard cameras.
    """
    work = _Work(frames, fps, set(names), drawn, focal)
    yield from work.carried_out()
    return Extraction(maps=work.maps(), notices=tuple(work.notices))


class _Work:
    def __init__(
        self,
        frames: np.ndarray,
        fps: float,
        names: set[MapName],
        drawn: Sequence[following.DrawnBox],
        focal: float | None,
    ) -> None:
        self.frames, self.fps, self.names, self.drawn, self.focal = frames, fps, names, drawn, focal
        self.count, self.height, self.width = frames.shape[:3]
        self.notices: list[str] = []
        self._found: dict[str, object] = {}
        self._done = 0
        on_geometry = bool(names & {"depth", "semantic"})
        stages: list[tuple[MapName, bool, Callable[[], Iterator[int]]]] = [
            ("layout", "layout" in names, self._layout),
            ("edges", "edges" in names, self._edges),
            ("lane_lines", "lane_lines" in names or on_geometry, self._lanes),
            ("optical_flow", "optical_flow" in names, self._flow),
            ("ego_motion", "ego_motion" in names or on_geometry, self._ego_motion),
            ("semantic", on_geometry, self._regions),
            ("depth", "depth" in names, self._depth),
            ("boxes", "boxes" in names, self._boxes),
        ]
        self._stages: list[tuple[MapName, Callable[[], Iterator[int]]]] = [
            (name, stage) for name, wanted, stage in stages if wanted
        ]

    def carried_out(self) -> Generator[Progress]:
        total = len(self._stages) * self.count
        for number, (name, stage) in enumerate(self._stages):
            for done in stage():
                yield Progress(what=name, done=number * self.count + min(done, self.count), total=total)

    def maps(self) -> ControlMaps:
        wanted = {*self.names, *(field for name in self.names for field in BESIDES.get(name, ()))}
        kept: dict[str, Any] = {name: value for name, value in self._found.items() if name in wanted}
        labels = regions.LABELS if "semantic" in wanted else ()
        return ControlMaps(fps=self.fps, semantic_labels=labels, **kept)

    # -- one map each -------------------------------------------------------------------------------------------------

    def _room(self, *last: int, kind: type = np.uint8) -> np.ndarray:
        return np.zeros((self.count, self.height, self.width, *last), kind)

    def _layout(self) -> Iterator[int]:
        room = self._found["layout"] = self._room()
        for number, frame in enumerate(self.frames):
            room[number] = layout.layout(frame)
            yield number + 1

    def _edges(self) -> Iterator[int]:
        room = self._found["edges"] = self._room()
        for number, frame in enumerate(self.frames):
            room[number] = edges.edges(frame)
            yield number + 1

    def _lanes(self) -> Iterator[int]:
        paint, own = self._room(), np.full((self.count, 2, 2), np.nan, np.float32)
        for number, frame in enumerate(self.frames):
            found = lanes.lanes(frame)
            paint[number], own[number] = found.paint, found.own
            yield number + 1
        both = int(np.isfinite(own[..., 0]).all(axis=1).sum())
        if "lane_lines" in self.names:
            self.notices.append(f"Both lines of our lane were found in {both} of {self.count} frames.")
        self._own, self._paint = lanes.steady(own), paint
        self._found |= {"lane_lines": paint, "own_lane": lanes.as_lines(self._own, height=self.height)}

    def _flow(self) -> Iterator[int]:
        moved, known = self._room(2, kind=np.float32), self._room(kind=np.bool_)
        for number in range(self.count - 1):
            moved[number], known[number] = flow.optical_flow(self.frames[number], self.frames[number + 1])
            yield number + 1
        share = float(known[:-1].mean()) if self.count > 1 else 0.0
        self.notices.append(f"Optical flow can be trusted for {100 * share:.0f} % of the pixels; the rest is masked.")
        self._found |= {"optical_flow": moved, "optical_flow_known": known}

    def _ego_motion(self) -> Iterator[int]:
        motion = np.full((self.count, 3), np.nan, np.float32)
        centres = np.full((self.count, 2), np.nan, np.float32)
        gap = ego_motion.gap_at(self.fps, self.count)
        known: dict[int, ego_motion.Step] = {}
        for number in range(self.count):
            first = int(np.clip(number - gap // 2, 0, max(0, self.count - 1 - gap)))
            if first + gap < self.count and first not in known:
                known[first] = ego_motion.step(self.frames[first], self.frames[first + gap], focal=self.focal)
            step = known.get(first, ego_motion.UNKNOWN)
            centres[number] = step.expansion_centre
            motion[number, 0] = step.speed * depth.ASSUMED_EYE_METRES * self.fps / gap
            motion[number, 1] = step.turn * self.fps / gap
            yield number + 1
        self._centres = ego_motion.steady(centres)
        if "ego_motion" in self.names:
            told = int(np.isfinite(centres[:, 0]).sum())
            self.notices.append(f"The motion's centre was found in {told} of {self.count} frames.")
        self._found |= {"ego_motion": motion, "expansion_centre": self._centres}

    def _regions(self) -> Iterator[int]:
        self._horizon = self._horizons()
        self._found["semantic"] = regions.regions(self.frames, self._horizon, self._paint)
        yield self.count

    def _depth(self) -> Iterator[int]:
        classes = self._found["semantic"]
        assert isinstance(classes, np.ndarray)
        room = self._found["depth"] = self._room(kind=np.float32)
        for number in range(self.count):
            room[number] = depth.depth(classes[number], float(self._horizon[number]), focal=self.focal)
            yield number + 1

    def _boxes(self) -> Iterator[int]:
        steps = max(1, len(self.drawn) * (self.count - 1))
        following_ = following.follow(self.frames, self.drawn)
        while True:
            try:
                yield round(self.count * next(following_) / steps)
            except StopIteration as ended:
                self._found["boxes"] = ended.value
                break
        boxes = self._found["boxes"]
        assert isinstance(boxes, tuple)
        for each in self.drawn:
            seen = sum(any(box.instance_id == each.box.instance_id for box in frame) for frame in boxes)
            self.notices.append(f"Box {each.box.instance_id} was followed through {seen} of {self.count} frames.")

    def _horizons(self) -> np.ndarray:
        """float, (F,): the horizon's row, by the lanes, else by the motion, else where it usually is."""
        by_lanes = lanes.vanishing_points(self._own, height=self.height)[:, 1]
        by_motion = self._centres[:, 1]
        for rows, whence in ((by_lanes, "lanes"), (by_motion, "motion")):
            sound = np.isfinite(rows) & (rows > 0.15 * self.height) & (rows < 0.8 * self.height)
            if sound.mean() < _FEWEST:
                continue
            usual = float(np.median(rows[sound]))
            self.notices.append(f"The horizon lies near row {usual:.0f} of {self.height}, by the {whence}.")
            strays = _HORIZON_STRAYS * self.height
            near = np.where(sound & (np.abs(rows - usual) < strays), rows, np.nan)
            reach = _HORIZON_OVER // 2
            around = [near[max(0, each - reach) : each + reach + 1] for each in range(self.count)]
            return np.array([float(np.nanmedian(each)) if np.isfinite(each).any() else usual for each in around])
        self.notices.append(
            f"Neither lanes nor motion tell where the horizon is: it is taken to lie at row "
            f"{USUAL_HORIZON * self.height:.0f} of {self.height}, and depth is as good as that."
        )
        return np.full(self.count, USUAL_HORIZON * self.height)
