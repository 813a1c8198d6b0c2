"""The road: a centre line in the plane, straight or winding, and what lies how far to its left.

Knows curvature, arc length and lanes. Refuses to know vehicles, colours and cameras.

Along the road a place is (s, d): s metres of arc length from where the ego vehicle starts, d metres to the left of the
centre line. Traffic keeps to the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LANE_METRES = 3.3
"""Width of one lane."""
BEHIND_METRES = 60.0
"""How much road is laid out behind the start."""
AHEAD_METRES = 640.0
"""How much road is laid out beyond the last place that the ego vehicle reaches."""
_STEP_METRES = 2.0
_BEND_BEGINS = -30.0
_BEND_RADIANS = 1.0
_BETWEEN_BENDS_METRES = 30.0
_SPIRAL_METRES = 12.0


@dataclass(frozen=True, kw_only=True)
class Road:
    """The centre line, sampled every two metres; each array is (n,)."""

    s: np.ndarray
    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    """Radians, counter-clockwise from world X."""
    curvature: np.ndarray
    """One over metres; positive bends to the left."""

    def curvature_at(self, s: np.ndarray) -> np.ndarray:
        return np.interp(s, self.s, self.curvature)

    def place(self, s: np.ndarray, d: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World x, y and the road's heading at places (s, d); shapes broadcast."""
        heading = np.interp(s, self.s, self.heading)
        x = np.interp(s, self.s, self.x) - d * np.sin(heading)
        y = np.interp(s, self.s, self.y) + d * np.cos(heading)
        return x, y, heading


def lay_road(curvature: float, reach_metres: float) -> Road:
    """A road that begins in its first bend (or is straight, when `curvature` is 0), long enough for `reach_metres`.

    Bends to one side and to the other take turns, each of one radian, so the heading stays within one radian for ever
    and whatever lies further along the road also lies further ahead.
    """
    count = int((BEHIND_METRES + max(reach_metres, 0.0) + AHEAD_METRES) / _STEP_METRES) + 1
    s = -BEHIND_METRES + _STEP_METRES * np.arange(count)
    bend = np.zeros(count)
    if curvature:
        arc = _BEND_RADIANS / abs(curvature)
        phase = (s - _BEND_BEGINS) % (2 * (arc + _BETWEEN_BENDS_METRES))
        bend[phase < arc] = curvature
        second = phase - arc - _BETWEEN_BENDS_METRES
        bend[(second >= 0) & (second < arc)] = -curvature
        bend[s < _BEND_BEGINS] = 0.0
        window = int(_SPIRAL_METRES / _STEP_METRES)
        bend = np.convolve(bend, np.full(window, 1 / window), mode="same")
    heading = np.concatenate([[0.0], np.cumsum(0.5 * (bend[1:] + bend[:-1]) * _STEP_METRES)])
    middle = 0.5 * (heading[1:] + heading[:-1])
    x = -BEHIND_METRES + np.concatenate([[0.0], np.cumsum(np.cos(middle) * _STEP_METRES)])
    y = np.concatenate([[0.0], np.cumsum(np.sin(middle) * _STEP_METRES)])
    return Road(s=s, x=x, y=y, heading=heading, curvature=bend)


def half_width(lanes: int) -> float:
    """Metres from the centre line to either edge of the carriageway."""
    return lanes * LANE_METRES / 2


def lanes_forward(lanes: int) -> int:
    """How many of the lanes lead our way: 1 of 2, 2 of 3, 2 of 4."""
    return 1 if lanes == 2 else 2


def lane_centre(lanes: int, lane: int) -> float:
    """Metres to the left of the centre line of lane number `lane`, counted from the right-hand edge, from 0."""
    return -half_width(lanes) + (lane + 0.5) * LANE_METRES
