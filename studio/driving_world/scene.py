"""A scene: everything about a small world, drawn once from a seed.

Knows the words for what can be asked for, and how a seed chooses among them. Refuses to know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, pi
from typing import TypeVar

import numpy as np

from studio.driving_world.road import LANE_METRES, half_width, lane_centre, lanes_forward
from studio.driving_world.traffic import Cross, EgoMotion, Follow, Manoeuvre, Overtake, Stream, Turn, Walk

TIMES_OF_DAY = ("day", "dusk", "night")
WEATHERS = ("clear", "rain", "fog", "snow")
LANE_COUNTS = (2, 3, 4)
VEHICLE_TYPES = ("car", "truck", "bus", "motorbike")
VEHICLE_COLOURS = ("red", "blue", "white", "black", "yellow", "green", "orange")
VEHICLE_ACTIONS = ("drives ahead", "brakes", "pulls away", "overtakes", "approaches", "crosses", "turns")
ROADS = ("straight", "left curve", "right curve", "junction")
SETTINGS = ("city", "suburb", "countryside", "desert")
STYLES = ("default", "desert")
"""How the world is painted; "desert" is held out, and drawn only when asked for by name."""

SIDE_ROAD_METRES = 2 * LANE_METRES
"""Width of the road that a junction crosses ours with."""
_MAX_SEED = 2**32 - 1
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """One vehicle, and what it does."""

    instance_id: int
    type: str
    colour: str
    manoeuvre: Manoeuvre


@dataclass(frozen=True, kw_only=True)
class Pedestrian:
    """One person on foot."""

    instance_id: int
    coat: int
    """Which of the palette's coats."""
    walk: Walk


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All of a small world's parameters. Equal scenes render to equal frames."""

    seed: int
    style: str
    time_of_day: str
    weather: str
    lanes: int
    """Lanes of our road, both ways together."""
    road: str
    """One of `ROADS`."""
    setting: str
    """One of `SETTINGS`."""
    curvature: float
    """Of the first bend, one over metres; positive bends to the left."""
    junction_at: float
    """Metres along the road to the middle of the side road; infinite without one."""
    zebra: bool
    """A zebra crossing lies in front of the junction."""
    lights_green_at: float
    """Seconds at which our traffic light turns green; infinitely early when it is green all along."""
    ego: EgoMotion
    vehicle_action: str
    """What the main vehicle, `vehicles[0]`, does: one of `VEHICLE_ACTIONS`."""
    vehicles: tuple[Vehicle, ...]
    pedestrians: tuple[Pedestrian, ...]

    @property
    def has_junction(self) -> bool:
        return self.junction_at < inf


def sample_scene(
    seed: int,
    *,
    time_of_day: str | None = None,
    weather: str | None = None,
    lanes: int | None = None,
    vehicle_type: str | None = None,
    vehicle_colour: str | None = None,
    vehicle_action: str | None = None,
    road: str | None = None,
    style: str = "default",
) -> Scene:
    """The scene of `seed`, 0 to 2**32 - 1; each word given forces that attribute and leaves the rest to the seed."""
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must be from 0 to {_MAX_SEED}, not {seed}")
    _check("time_of_day", time_of_day, TIMES_OF_DAY)
    _check("weather", weather, WEATHERS)
    _check("lanes", lanes, LANE_COUNTS)
    _check("vehicle_type", vehicle_type, VEHICLE_TYPES)
    _check("vehicle_colour", vehicle_colour, VEHICLE_COLOURS)
    _check("vehicle_action", vehicle_action, VEHICLE_ACTIONS)
    _check("road", road, ROADS)
    _check("style", style, STYLES)

    dice = np.random.Generator(np.random.PCG64(seed))
    # Every word is drawn whether or not it is forced, so forcing one leaves the draws of the others as they were.
    drawn_time = _choose(dice, TIMES_OF_DAY, (0.44, 0.26, 0.30))
    drawn_weather = _choose(dice, WEATHERS, (0.40, 0.20, 0.20, 0.20))
    drawn_lanes = _choose(dice, LANE_COUNTS, (0.36, 0.32, 0.32))
    drawn_type = _choose(dice, VEHICLE_TYPES, (0.40, 0.22, 0.20, 0.18))
    drawn_colour = _choose(dice, VEHICLE_COLOURS)
    drawn_road = _choose(dice, ROADS, (0.38, 0.18, 0.18, 0.26))
    drawn_setting = _choose(dice, SETTINGS[:3], (0.4, 0.3, 0.3))
    open_road_action = _choose(dice, VEHICLE_ACTIONS[:5], (0.40, 0.18, 0.12, 0.17, 0.13))
    junction_action = _choose(dice, ("drives ahead", "brakes", "crosses", "turns"), (0.16, 0.14, 0.38, 0.32))

    if road is None:
        road = "junction" if vehicle_action in ("crosses", "turns") else drawn_road
        if vehicle_action in ("pulls away", "overtakes", "approaches") and road == "junction":
            road = "straight"
    action = vehicle_action or (junction_action if road == "junction" else open_road_action)
    if (action in ("crosses", "turns")) != (road == "junction") and action not in ("drives ahead", "brakes"):
        raise ValueError(
            f"vehicle_action {action!r} does not happen on road {road!r}; leave one of the two to the seed"
        )
    staging = _Staging(
        dice=dice,
        lanes=lanes or drawn_lanes,
        road=road,
        setting="desert" if style == "desert" else drawn_setting,
        type=vehicle_type or drawn_type,
        colour=vehicle_colour or drawn_colour,
        action=action,
    )
    return staging.scene(seed, style, time_of_day or drawn_time, weather or drawn_weather)


def attributes(scene: Scene) -> dict[str, str | int | float]:
    """What is exactly so in a scene: labels for balanced sampling and for scoring."""
    main = scene.vehicles[0]
    return {
        "time_of_day": scene.time_of_day,
        "weather": scene.weather,
        "lanes": scene.lanes,
        "road": scene.road,
        "setting": scene.setting,
        "style": scene.style,
        "vehicle_type": main.type,
        "vehicle_colour": main.colour,
        "vehicle_action": scene.vehicle_action,
        "pedestrians": len(scene.pedestrians),
        "ego_speed": scene.ego.speed_start,
        "ego_speed_end": scene.ego.speed_end,
        "curvature": scene.curvature,
    }


def _check(field: str, value: str | int | None, known: Sequence[str | int]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{field} must be one of {', '.join(map(str, known))}, not {value!r}")


def _choose(dice: np.random.Generator, options: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
    if weights is None:
        return options[int(dice.random() * len(options))]
    return options[int(np.searchsorted(np.cumsum(weights), dice.random() * sum(weights), side="right"))]


@dataclass(kw_only=True)
class _Staging:
    """Places the actors once the words have been chosen."""

    dice: np.random.Generator
    lanes: int
    road: str
    setting: str
    type: str
    colour: str
    action: str

    def scene(self, seed: int, style: str, time_of_day: str, weather: str) -> Scene:
        curvature = 0.0
        if self.road in ("left curve", "right curve"):
            curvature = (1 if self.road == "left curve" else -1) / self._between(62, 120)
        turn_left = self.dice.random() < 0.5
        own_lane = int(self.dice.random() * lanes_forward(self.lanes))
        if self.action == "turns":
            own_lane = lanes_forward(self.lanes) - 1 if turn_left else 0
        if self.action == "overtakes":
            own_lane = 0
        lane = lane_centre(self.lanes, own_lane)
        junction_at, zebra, green_at = inf, False, -inf
        match self.action:
            case "crosses":
                ego, main, junction_at = self._crossing(lane)
                green_at = ego.go_at - 0.8
                zebra = bool(self.dice.random() < 0.6)
            case "turns":
                ego, main, junction_at = self._turning(lane, 1 if turn_left else -1)
            case "overtakes":
                ego, main = self._overtaking(lane, own_lane)
            case "approaches":
                ego, main = self._approaching(lane, own_lane)
            case _:
                ego, main = self._leading(lane)
                if self.road == "junction":
                    junction_at = self._between(24, 34)
        vehicles = [Vehicle(instance_id=1, type=self.type, colour=self.colour, manoeuvre=main)]
        for manoeuvre in self._other_traffic(ego, own_lane):
            vehicles.append(self._extra(len(vehicles) + 1, manoeuvre))
        return Scene(
            seed=seed,
            style=style,
            time_of_day=time_of_day,
            weather=weather,
            lanes=self.lanes,
            road=self.road,
            setting=self.setting,
            curvature=curvature,
            junction_at=junction_at,
            zebra=zebra,
            lights_green_at=green_at,
            ego=ego,
            vehicle_action=self.action,
            vehicles=tuple(vehicles),
            pedestrians=tuple(self._people(junction_at if zebra else inf, len(vehicles) + 1)),
        )

    def _between(self, low: float, high: float) -> float:
        return float(low + (high - low) * self.dice.random())

    def _gap(self) -> float:
        """Metres to a lead vehicle, so that it is at least 16 pixels wide in a picture of 128 for most of a clip."""
        low, high = {"car": (7.5, 11.0), "truck": (10.0, 15.0), "bus": (11.5, 16.0), "motorbike": (5.5, 7.5)}[self.type]
        return self._between(low, high)

    def _cruise(self, lane: float, low: float = 6.0, high: float = 13.0, lose: float = 0.0) -> EgoMotion:
        if self.road in ("left curve", "right curve"):
            high = min(high, 10.0)
        speed = self._between(low, high)
        end = max(speed - lose, 2.0) if lose else max(speed + self._between(-1.5, 2.0), 3.0)
        return EgoMotion(
            speed_start=speed,
            speed_end=end,
            settle_seconds=1.8 if lose else 3.0,
            lane_offset=lane,
            sway_phase=self._between(0, 2 * pi),
        )

    def _leading(self, lane: float) -> tuple[EgoMotion, Follow]:
        gap = self._gap()
        if self.action == "brakes":
            ego = self._cruise(lane, 7.0, 12.0, lose=6.0)
            follow = Follow(
                gap_start=gap + 3.0, gap_end=0.8 * gap, settle_seconds=1.2, lane_offset=lane, brakes_until=3.0
            )
            return ego, follow
        if self.action == "pulls away":
            ego = self._cruise(lane, 4.0, 9.0)
            return ego, Follow(gap_start=0.85 * gap, gap_end=2.6 * gap, settle_seconds=2.6, lane_offset=lane)
        ego = self._cruise(lane)
        return ego, Follow(gap_start=gap, gap_end=gap * self._between(0.9, 1.2), settle_seconds=3.0, lane_offset=lane)

    def _overtaking(self, lane: float, own_lane: int) -> tuple[EgoMotion, Overtake]:
        ego = self._cruise(lane, 5.0, 9.0)
        beside = lane_centre(self.lanes, own_lane + 1)
        gap = {"car": 6.0, "truck": 8.0, "bus": 9.0, "motorbike": 5.5}[self.type] + self._between(0, 1.5)
        closing = self._between(4.5, 6.5)
        return ego, Overtake(gap_start=gap, closing_speed=closing, lane_from=beside, lane_to=lane)

    def _approaching(self, lane: float, own_lane: int) -> tuple[EgoMotion, Stream]:
        ego = self._cruise(lane, 4.0, 7.0)
        facing = lane_centre(self.lanes, lanes_forward(self.lanes))
        beside = lanes_forward(self.lanes) - own_lane
        start = self._between(19, 22) + 4.0 * (beside - 1) + {"truck": 3.0, "bus": 4.0}.get(self.type, 0.0)
        return ego, Stream(lane_offset=facing, direction=-1, speed=self._between(4.5, 6.0), start=start, ring=260.0)

    def _crossing(self, lane: float) -> tuple[EgoMotion, Cross, float]:
        reach = self._between(2.0, 4.5)
        speed = self._between(3.0, 5.0)
        ego = EgoMotion(
            speed_start=speed,
            speed_end=0.0,
            settle_seconds=reach / speed,
            go_at=self._between(5.5, 7.5),
            lane_offset=lane,
            sway_phase=self._between(0, 2 * pi),
        )
        length = {"truck": 2.5, "bus": 4.0}.get(self.type, 0.0)
        junction_at = reach + 9.0 + 0.5 * length + (-1.5 if self.type == "motorbike" else 0.0)
        direction = 1 if self.dice.random() < 0.5 else -1
        # It should pass our own lane, not the centre line, in the middle of a short clip.
        speed_across = self._between(5.5, 8.0)
        passes_at = self._between(0.55, 0.8) - direction * lane / speed_across
        return (
            ego,
            Cross(junction_at=junction_at, direction=direction, speed=speed_across, passes_at=passes_at),
            junction_at,
        )

    def _turning(self, lane: float, direction: int) -> tuple[EgoMotion, Turn, float]:
        ego = self._cruise(lane, 4.0, 5.5, lose=2.5)
        start = self._gap() + {"truck": 1.0, "bus": 1.0}.get(self.type, 0.0)
        speed = self._between(5.0, 6.0)
        turns_at = start + self._between(0.5, 2.0)
        # The arc must end in the middle of the side road's nearer or farther lane, whatever lane it starts from.
        radius = {"car": 5.5, "truck": 7.5, "bus": 8.0, "motorbike": 5.0}[self.type]
        junction_at = turns_at + radius - direction * LANE_METRES / 2
        return (
            ego,
            Turn(lane_offset=lane, start=start, speed=speed, turns_at=turns_at, radius=radius, direction=direction),
            junction_at,
        )

    def _other_traffic(self, ego: EgoMotion, own_lane: int) -> list[Manoeuvre]:
        """Streams in the other lanes; never in ours, where only the main vehicle drives."""
        if self.road == "junction":
            return []
        streams: list[Manoeuvre] = []
        for lane in range(self.lanes):
            forward = lane < lanes_forward(self.lanes)
            present, start, ring = self.dice.random() < 0.55, self._between(14, 60), self._between(150, 220)
            taken = lane == own_lane or (self.action == "overtakes" and lane == own_lane + 1)
            if taken or not present or (self.action == "approaches" and not forward):
                continue
            speed = max(ego.speed_end, 3.0) + self._between(-2.0, 2.0) if forward else self._between(6, 10)
            offset = lane_centre(self.lanes, lane)
            direction = 1 if forward else -1
            streams.append(Stream(lane_offset=offset, direction=direction, speed=speed, start=start, ring=ring))
        return streams

    def _extra(self, instance_id: int, manoeuvre: Manoeuvre) -> Vehicle:
        """Another vehicle, of a colour that the main one does not have, so that the caption points at one only."""
        colours = [colour for colour in VEHICLE_COLOURS if colour != self.colour]
        kind = _choose(self.dice, VEHICLE_TYPES, (0.6, 0.15, 0.1, 0.15))
        return Vehicle(instance_id=instance_id, type=kind, colour=_choose(self.dice, colours), manoeuvre=manoeuvre)

    def _people(self, zebra_junction_at: float, first_id: int) -> list[Pedestrian]:
        people: list[Pedestrian] = []
        edge = half_width(self.lanes)
        if self.setting in ("city", "suburb"):
            for _ in range(int(self.dice.random() * (4 if self.setting == "city" else 2.5))):
                side = 1 if self.dice.random() < 0.35 else -1
                pace = self._between(1.0, 1.6) * (1 if self.dice.random() < 0.5 else -1)
                s, d = self._between(9, 30), side * (edge + self._between(1.0, 1.8))
                if self.road == "junction" and s > 10:
                    s = self._between(6, 10)
                people.append(self._person(first_id + len(people), Walk(s=s, d=d, speed_s=pace, speed_d=0.0)))
        if zebra_junction_at < inf:
            side = 1 if self.dice.random() < 0.5 else -1
            at = zebra_junction_at - zebra_distance()
            walk = Walk(s=at, d=side * self._between(0.4, 0.8) * edge, speed_s=0.0, speed_d=-side * 1.4)
            people.append(self._person(first_id + len(people), walk))
        return people

    def _person(self, instance_id: int, walk: Walk) -> Pedestrian:
        return Pedestrian(instance_id=instance_id, coat=int(self.dice.random() * 5), walk=walk)


def zebra_distance() -> float:
    """Metres from the middle of a junction back to the middle of its zebra crossing."""
    return SIDE_ROAD_METRES / 2 + 1.6
