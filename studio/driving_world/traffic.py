"""How everything that moves moves: the ego vehicle, and manoeuvres as closed formulas of time.

Knows the road. Refuses to know colours, shapes and cameras. Every position is a formula of continuous time, so a clip
may have any length and any frame rate, and a frame does not depend on the frames before it.

Shapes: F moments in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi
from typing import assert_never

import numpy as np

from studio.driving_world.road import LANE_METRES, Road

WHEELBASE_METRES = 2.7
"""Of the ego vehicle; turns curvature into a steering angle."""
BLINK_SECONDS = 0.7


@dataclass(frozen=True, kw_only=True)
class EgoMotion:
    """Speed that settles exponentially from one value to another, and may rise again when a light turns green."""

    speed_start: float
    """Metres a second at time 0."""
    speed_end: float
    """Metres a second once settled."""
    settle_seconds: float
    go_at: float = inf
    """Seconds until driving off again; never, when infinite."""
    go_speed: float = 8.0
    """Metres a second after driving off."""
    lane_offset: float = 0.0
    """Metres to the left of the road's centre line."""
    sway_metres: float = 0.08
    sway_phase: float = 0.0

    def speed(self, t: np.ndarray) -> np.ndarray:
        since = np.maximum(t - self.go_at, 0.0)
        settling = (self.speed_start - self.speed_end) * np.exp(-t / self.settle_seconds)
        return self.speed_end + settling + self.go_speed * (1 - np.exp(-since / 2.0))

    def distance(self, t: np.ndarray) -> np.ndarray:
        """Metres along the road since time 0: the integral of `speed`."""
        since = np.maximum(t - self.go_at, 0.0)
        tau = self.settle_seconds
        settling = (self.speed_start - self.speed_end) * tau * (1 - np.exp(-t / tau))
        return self.speed_end * t + settling + self.go_speed * (since - 2.0 * (1 - np.exp(-since / 2.0)))

    def offset(self, t: np.ndarray) -> np.ndarray:
        """Metres to the left of the centre line: the lane's middle, with a driver's slight sway."""
        return self.lane_offset + self.sway_metres * np.sin(0.9 * t + self.sway_phase)


@dataclass(frozen=True, kw_only=True)
class Follow:
    """Drives in front of us; the gap settles exponentially from one length to another."""

    gap_start: float
    gap_end: float
    settle_seconds: float
    lane_offset: float
    brakes_until: float = 0.0
    """Seconds for which the brake lights are lit."""


@dataclass(frozen=True, kw_only=True)
class Overtake:
    """Passes us in another lane, draws ahead and comes back into ours."""

    gap_start: float
    closing_speed: float
    """Metres a second faster than we drive, at first."""
    lane_from: float
    lane_to: float


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One of an endless row of vehicles in a lane: seen from us, it travels round a ring of `ring` metres."""

    lane_offset: float
    direction: int
    """+1 drives our way, -1 comes towards us."""
    speed: float
    start: float
    ring: float


@dataclass(frozen=True, kw_only=True)
class Cross:
    """Drives straight through the junction, from side to side."""

    junction_at: float
    direction: int
    """+1 goes to the left, -1 to the right."""
    speed: float
    passes_at: float
    """Seconds at which it passes the centre line of our road."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Drives in front of us and turns into the side road."""

    lane_offset: float
    start: float
    speed: float
    turns_at: float
    """Metres along the road where the arc begins."""
    radius: float
    direction: int
    """+1 turns left, -1 turns right."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A pedestrian: along the road, or across it."""

    s: float
    d: float
    speed_s: float
    speed_d: float


Manoeuvre = Follow | Overtake | Stream | Cross | Turn | Walk


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where something is at each moment; each array is (F,)."""

    x: np.ndarray
    y: np.ndarray
    yaw: np.ndarray
    braking: np.ndarray
    """bool; brake lights are lit."""
    signal: np.ndarray
    """int8; +1 the left indicator is lit, -1 the right one, 0 neither."""


@dataclass(frozen=True, kw_only=True)
class EgoTrack:
    """Where we are at each moment; each array is (F,)."""

    x: np.ndarray
    y: np.ndarray
    yaw: np.ndarray
    s: np.ndarray
    speed: np.ndarray
    yaw_rate: np.ndarray
    """Radians a second, to the left."""
    steering: np.ndarray
    """Radians, to the left: that of a bicycle model with `WHEELBASE_METRES`."""


def track_ego(ego: EgoMotion, road: Road, times: np.ndarray) -> EgoTrack:
    """The ego vehicle at `times`, (F,) seconds."""
    s = ego.distance(times)
    speed = ego.speed(times)
    x, y, heading = road.place(s, ego.offset(times))
    sway_speed = ego.sway_metres * 0.9 * np.cos(0.9 * times + ego.sway_phase)
    # Below walking pace the sway would turn the car on the spot, so it fades out of the heading.
    yaw = heading + np.arctan2(sway_speed, np.maximum(speed, 4.0))
    curvature = road.curvature_at(s)
    return EgoTrack(
        x=x,
        y=y,
        yaw=yaw,
        s=s,
        speed=speed,
        yaw_rate=curvature * speed,
        steering=np.arctan(WHEELBASE_METRES * curvature),
    )


def track(manoeuvre: Manoeuvre, ego: EgoMotion, road: Road, times: np.ndarray) -> Track:
    """Something that carries out `manoeuvre`, at `times`, (F,) seconds."""
    match manoeuvre:
        case Follow():
            return _follow(manoeuvre, ego, road, times)
        case Overtake():
            return _overtake(manoeuvre, ego, road, times)
        case Stream():
            return _stream(manoeuvre, ego, road, times)
        case Cross():
            return _cross(manoeuvre, road, times)
        case Turn():
            return _turn(manoeuvre, road, times)
        case Walk():
            return _walk(manoeuvre, road, times)
        case _:
            assert_never(manoeuvre)


def _steady(x: np.ndarray, y: np.ndarray, yaw: np.ndarray) -> Track:
    return Track(x=x, y=y, yaw=yaw, braking=np.zeros(x.shape, bool), signal=np.zeros(x.shape, np.int8))


def _blink(times: np.ndarray) -> np.ndarray:
    return (times % BLINK_SECONDS) < 0.55 * BLINK_SECONDS


def _follow(follow: Follow, ego: EgoMotion, road: Road, times: np.ndarray) -> Track:
    change = (follow.gap_start - follow.gap_end) * np.exp(-times / follow.settle_seconds)
    x, y, heading = road.place(ego.distance(times) + follow.gap_end + change, follow.lane_offset)
    braking = times < follow.brakes_until
    return Track(x=x, y=y, yaw=heading, braking=braking, signal=np.zeros(x.shape, np.int8))


def _overtake(overtake: Overtake, ego: EgoMotion, road: Road, times: np.ndarray) -> Track:
    lead = 34.0
    gap = overtake.gap_start + lead * (1 - np.exp(-overtake.closing_speed * times / lead))
    share = np.clip((gap - 12.0) / 14.0, 0.0, 1.0)
    across = overtake.lane_to - overtake.lane_from
    d = overtake.lane_from + across * share * share * (3 - 2 * share)
    x, y, heading = road.place(ego.distance(times) + gap, d)
    speed = ego.speed(times) + overtake.closing_speed * np.exp(-overtake.closing_speed * times / lead)
    sideways = across * 6 * share * (1 - share) / 14.0 * overtake.closing_speed
    merging = (share > 0) & (share < 1)
    signal = np.where(merging & _blink(times), np.sign(across), 0).astype(np.int8)
    yaw = heading + np.arctan2(sideways, np.maximum(speed, 3.0))
    return Track(x=x, y=y, yaw=yaw, braking=np.zeros(x.shape, bool), signal=signal)


def _stream(stream: Stream, ego: EgoMotion, road: Road, times: np.ndarray) -> Track:
    behind = 40.0
    own = ego.distance(times)
    gap = (stream.start + stream.direction * stream.speed * times - own + behind) % stream.ring - behind
    x, y, heading = road.place(own + gap, stream.lane_offset)
    return _steady(x, y, heading if stream.direction > 0 else heading + pi)


def _cross(cross: Cross, road: Road, times: np.ndarray) -> Track:
    d = cross.direction * cross.speed * (times - cross.passes_at)
    # Keeping to the right of the side road: who goes to our left drives in its far lane.
    s = np.full(times.shape, cross.junction_at + cross.direction * LANE_METRES / 2)
    x, y, heading = road.place(s, d)
    return _steady(x, y, heading + cross.direction * pi / 2)


def _turn(turn: Turn, road: Road, times: np.ndarray) -> Track:
    travelled = turn.start + turn.speed * times
    arc = turn.radius * pi / 2
    on_arc = np.clip(travelled - turn.turns_at, 0.0, arc)
    beyond = np.maximum(travelled - turn.turns_at - arc, 0.0)
    angle = on_arc / turn.radius
    s = np.minimum(travelled, turn.turns_at) + turn.radius * np.sin(angle)
    d = turn.lane_offset + turn.direction * (turn.radius * (1 - np.cos(angle)) + beyond)
    x, y, heading = road.place(s, d)
    signal = np.where((beyond < 2.0) & _blink(times), turn.direction, 0).astype(np.int8)
    slows = (travelled < turn.turns_at + arc / 2) & (times >= 0)
    return Track(x=x, y=y, yaw=heading + turn.direction * angle, braking=slows, signal=signal)


def _walk(walk: Walk, road: Road, times: np.ndarray) -> Track:
    x, y, heading = road.place(walk.s + walk.speed_s * times, walk.d + walk.speed_d * times)
    return _steady(x, y, heading + np.arctan2(walk.speed_d, walk.speed_s))
