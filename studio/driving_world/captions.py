"""Captions: what is to be seen in a clip, in varied English.

Knows words, and enough geometry to tell what is in view. Refuses to know pixels. What is too far, too small, outside
the picture, behind the main vehicle or swallowed by fog is not named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from studio.driving_world.camera import FOCAL, HORIZON
from studio.driving_world.palette import palette_for
from studio.driving_world.road import Road, lay_road
from studio.driving_world.roadside import fixtures
from studio.driving_world.scene import Scene, Vehicle
from studio.driving_world.traffic import Cross, EgoTrack, Stream, Track, Turn, track, track_ego

MOST_WORDS = 35
_HALF_VIEW = 0.5 / FOCAL
"""Tangent of half the angle of view of a square picture: what a wider one shows as well is not named."""
_SEEN_SHARE = 0.4
"""In how many of the frames something must be in view to be named."""

_NUMBER = {2: "two", 3: "three", 4: "four"}
_TIME = {
    "day": ("by day", "in daylight", "during the day", "in the daytime"),
    "dusk": ("at dusk", "at sunset", "at dusk", "in the dusk"),
    "night": ("at night", "after dark", "at night", "in the dark of night"),
}
_WEATHER = {
    "clear": ("under a clear sky", "in clear weather", "in clear air", "with a clear sky"),
    "rain": ("in the rain", "in steady rain", "on a wet road in the rain", "while rain falls"),
    "fog": ("in thick fog", "in the fog", "through dense fog", "in grey fog"),
    "snow": ("in the snow", "in falling snow", "while snow falls", "amid snow"),
}
_TIME_WORD = {"day": "daytime", "dusk": "dusk", "night": "night"}
_WEATHER_WORD = {"clear": "clear", "rain": "rainy", "fog": "foggy", "snow": "snowy"}
_PLACE = {"city": "a city", "suburb": "a suburb", "countryside": "the countryside", "desert": "the desert"}
_DOES = {
    "drives ahead": ("drives ahead", "drives ahead of us", "cruises in front", "leads the way in our lane"),
    "brakes": ("brakes ahead of us", "brakes in front with its brake lights on", "slows down, braking"),
    "pulls away": ("pulls away from us", "pulls away ahead", "speeds up and pulls away"),
    "overtakes": ("overtakes us on the left", "overtakes on the left", "passes us on the left, overtaking"),
    "approaches": ("approaches in the oncoming lane", "comes towards us", "approaches from the opposite direction"),
}
_DOING = {
    "drives ahead": "driving ahead",
    "brakes": "braking ahead",
    "pulls away": "pulling away",
    "overtakes": "overtaking on the left",
    "approaches": "approaching in the oncoming lane",
}


def caption(scene: Scene, *, num_frames: int = 17, fps: float = 12.0, variant: int | None = None) -> str:
    """A sentence or two of 8 to 35 words about a clip; `variant` picks another wording of the same facts."""
    dice = np.random.Generator(np.random.PCG64([scene.seed, 11, 0 if variant is None else variant + 1]))
    pick = partial(_pick, dice)
    view = _look(scene, np.arange(num_frames) / fps)
    main = scene.vehicles[0]
    vehicle = _with_article(f"{main.colour} {main.type}")
    does, doing = _action(scene, main, pick)
    road = _road(scene, view, pick)
    time, weather = pick(_TIME[scene.time_of_day]), pick(_WEATHER[scene.weather])
    mood = f"{_WEATHER_WORD[scene.weather]} {_TIME_WORD[scene.time_of_day]}"
    place = _PLACE[scene.setting]
    templates = (
        f"{vehicle} {does} on {road} {time}, {weather}",
        f"{time}, {weather}, {vehicle} {does} on {road}",
        f"a dashcam view of {road} {time}, {weather}: {vehicle} {does}",
        f"driving through {place} {time}, {weather}, on {road}: {vehicle} {does}",
        f"a {mood} drive on {road}: {vehicle} {does}",
        f"on {road} in {place}, {vehicle} {does} {time}, {weather}",
        f"{vehicle} {doing}, {road}, {mood}, {place}",
    )
    sentence = pick(templates)
    extras = list(view.extras)
    dice.shuffle(extras)
    for extra in extras[: int(dice.integers(0, 3))]:
        longer = f"{sentence}; {extra}"
        if len(longer.split()) <= MOST_WORDS:
            sentence = longer
    return sentence[0].upper() + sentence[1:] + "."


def _pick(dice: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(dice.integers(len(options)))]


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _action(scene: Scene, main: Vehicle, pick: partial[str]) -> tuple[str, str]:
    """What the main vehicle does, as a verb and as a participle."""
    match main.manoeuvre:
        case Cross(direction=direction):
            sides = "from right to left" if direction > 0 else "from left to right"
            does = pick((f"crosses the junction {sides}", f"crosses in front of us {sides}"))
            return does, f"crossing the junction {sides}"
        case Turn(direction=direction):
            side = "left" if direction > 0 else "right"
            return pick(
                (f"turns {side} at the junction", f"turns {side} ahead of us")
            ), f"turning {side} at the junction"
        case _:
            return pick(_DOES[scene.vehicle_action]), _DOING[scene.vehicle_action]


def _road(scene: Scene, view: _View, pick: partial[str]) -> str:
    count = _NUMBER[scene.lanes]
    name = pick((f"a {count}-lane road", f"a road with {count} lanes"))
    match scene.road:
        case "left curve" | "right curve":
            side = scene.road.split()[0]
            return f"{name} {pick((f'curving to the {side}', f'that bends to the {side}', f'in a {side} curve'))}"
        case "junction" if view.junction and scene.vehicle_action not in ("crosses", "turns"):
            return f"{name} {pick(('at a junction', 'with a junction ahead', 'near a junction'))}"
        case "junction":
            return name
        case _:
            return name if "with" in name else name.replace("a ", pick(("a ", "a straight ")), 1)


@dataclass(frozen=True, kw_only=True)
class _View:
    """What besides the main vehicle can be seen."""

    junction: bool
    extras: tuple[str, ...]
    """Clauses that may be added."""


def _look(scene: Scene, times: np.ndarray) -> _View:
    road = lay_road(scene.curvature, float(scene.ego.distance(times).max()))
    ego = track_ego(scene.ego, road, times)
    # Beyond one and a half times the haze's length less than a quarter of a thing's own colour is left.
    clear_metres = 1.5 * palette_for(scene.time_of_day, scene.weather, scene.style).haze_metres
    main = _seen(track(scene.vehicles[0].manoeuvre, scene.ego, road, times), ego)
    extras: list[str] = []
    for vehicle in scene.vehicles[1:]:
        other = _seen(track(vehicle.manoeuvre, scene.ego, road, times), ego)
        if _named(other, main, min(34.0, clear_metres)) and isinstance(vehicle.manoeuvre, Stream):
            way = "comes the other way" if vehicle.manoeuvre.direction < 0 else "drives in the next lane"
            extras.append(f"{_with_article(f'{vehicle.colour} {vehicle.type}')} {way}")
            break
    extras += _people(scene, road, ego, times, main, min(24.0, clear_metres))
    extras += _roadside(scene, road, ego, min(45.0, clear_metres))
    to_junction = scene.junction_at - ego.s
    junction = bool(np.mean((to_junction > 5) & (to_junction < min(36.0, clear_metres))) >= _SEEN_SHARE)
    return _View(junction=junction, extras=tuple(extras))


def _seen(where: Track, ego: EgoTrack) -> tuple[np.ndarray, np.ndarray]:
    """How far to the right of us something is, over its distance ahead, and that distance; each (F,)."""
    return _relative(where.x, where.y, ego.x, ego.y, ego.yaw)


def _relative(
    x: np.ndarray, y: np.ndarray, ego_x: np.ndarray, ego_y: np.ndarray, yaw: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    dx, dy = x - ego_x, y - ego_y
    forward = np.cos(yaw) * dx + np.sin(yaw) * dy
    right = np.sin(yaw) * dx - np.cos(yaw) * dy
    return right / np.maximum(forward, 0.1), forward


def _named(thing: tuple[np.ndarray, np.ndarray], main: tuple[np.ndarray, np.ndarray], farthest: float) -> bool:
    """Whether something is near enough, in the picture and clear of the main vehicle for enough of the frames."""
    slant, forward = thing
    main_slant, main_forward = main
    hidden = (main_forward > 1) & (main_forward < forward) & (np.abs(slant - main_slant) * main_forward < 1.9)
    in_view = (forward > 3.5) & (forward < farthest) & (np.abs(slant) < 0.92 * _HALF_VIEW)
    return bool(np.mean(in_view & ~hidden) >= _SEEN_SHARE)


def _people(
    scene: Scene, road: Road, ego: EgoTrack, times: np.ndarray, main: tuple[np.ndarray, np.ndarray], farthest: float
) -> list[str]:
    walking = 0
    for person in scene.pedestrians:
        if _named(_seen(track(person.walk, scene.ego, road, times), ego), main, farthest):
            if person.walk.speed_d:
                return ["a pedestrian crosses the road"]
            walking += 1
    return [] if not walking else ["a pedestrian walks on the pavement" if walking == 1 else "pedestrians walk by"]


def _roadside(scene: Scene, road: Road, ego: EgoTrack, farthest: float) -> list[str]:
    """Trees, buildings and lights that the middle frame shows."""
    palette = palette_for(scene.time_of_day, scene.weather, scene.style)
    middle = len(ego.s) // 2
    found = fixtures(scene, palette, float(ego.s[middle]), float(ego.s[middle]) + farthest)
    x, y, _ = road.place(np.array([f.s for f in found]), np.array([f.d for f in found]))
    slant, forward = _relative(x, y, ego.x[middle], ego.y[middle], ego.yaw[middle])
    tall_enough = np.array([f.shape.points[:, 2].max() * f.scale[2] for f in found]) > 0.03 * forward / HORIZON
    visible = (forward > 4) & (forward < farthest) & (np.abs(slant) < 0.95 * _HALF_VIEW) & tall_enough
    kinds = [fixture.kind for fixture, seen in zip(found, visible.tolist(), strict=True) if seen]
    extras: list[str] = []
    if scene.setting == "desert":
        if kinds.count("tree") >= 2:
            extras.append("cacti stand by the road")
    elif kinds.count("tree") >= 2:
        extras.append("trees line the road" if kinds.count("tree") >= 4 else "there are trees by the road")
    if kinds.count("building") >= 2:
        lit = ", their windows lit" if palette.lamps_lit else ""
        extras.append(f"buildings stand on the side{lit}" if scene.setting == "city" else f"houses stand nearby{lit}")
    if "traffic_light" in kinds:
        extras.append(f"the traffic light is {'green' if scene.lights_green_at <= 0 else 'red'}")
    return extras
