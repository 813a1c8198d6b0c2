"""The colours: what each thing looks like under each sky.

Knows colour, light and haze. Refuses to know geometry. Colours are RGB, 0 to 255.

The look is flat-shaded and clean, so that a small model can learn it: each time of day and each weather has a colour
cast of its own, and can be told from any single frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Colour = tuple[float, float, float]

VEHICLE_PAINTS: dict[str, Colour] = {
    "red": (214, 30, 38),
    "blue": (30, 88, 220),
    "white": (242, 244, 248),
    "black": (32, 33, 40),
    "yellow": (255, 222, 30),
    "green": (28, 158, 78),
    "orange": (252, 112, 10),
}

COATS: tuple[Colour, ...] = ((206, 70, 64), (60, 104, 178), (238, 196, 76), (112, 78, 138), (70, 150, 126))
WALLS: tuple[Colour, ...] = ((214, 178, 140), (196, 124, 98), (160, 172, 188), (226, 214, 188), (146, 130, 152))
ROOFS: tuple[Colour, ...] = ((150, 74, 60), (98, 92, 104), (122, 96, 78))
LEAVES: tuple[Colour, ...] = ((58, 136, 70), (84, 154, 66), (44, 118, 84))
TRUNK: Colour = (104, 76, 56)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Every colour that a frame needs, for one time of day, weather and style."""

    sky: tuple[Colour, Colour, Colour]
    """Overhead, half-way down, and at the horizon, where it is also the colour of haze."""
    haze_metres: float
    """Distance over which haze hides all but a third."""
    light: Colour
    """What daylight multiplies every colour by, 0 to 1."""
    headlights: float
    """How much of full light our own headlights give back nearby, 0 to 1."""
    lamps_lit: bool
    """Street lamps, headlights and windows shine."""
    glow: float
    """Strength of the halo round a lamp, 0 to 1."""
    wet: bool
    """Lamps are mirrored in the road."""
    ground: Colour
    road: Colour
    wheel_tracks: Colour | None
    """Two bands in each lane that tyres have left; None leaves the road plain."""
    pavement: Colour
    kerb: Colour
    white_paint: Colour
    yellow_paint: Colour
    hill: tuple[Colour, Colour]
    """Far ridge, near ridge."""
    shadow: float
    """What a vehicle's shadow leaves of the road's colour, 0 to 1."""
    snow_cover: float
    """How white leaves and roofs are, 0 to 1."""
    celestial: str
    """What hangs in the sky: "sun", "moon", "clouds" or "" for an overcast."""
    falling: str
    """What falls: "rain", "snow" or ""."""
    falling_colour: Colour


_SKIES: dict[tuple[str, str], tuple[Colour, Colour, Colour]] = {
    ("day", "clear"): ((56, 128, 222), (116, 180, 242), (206, 232, 248)),
    ("day", "rain"): ((104, 118, 138), (134, 148, 166), (164, 176, 190)),
    ("day", "fog"): ((196, 202, 208), (206, 211, 216), (214, 218, 221)),
    ("day", "snow"): ((178, 192, 212), (204, 214, 228), (226, 232, 240)),
    ("dusk", "clear"): ((64, 48, 126), (206, 88, 118), (255, 188, 100)),
    ("dusk", "rain"): ((70, 60, 96), (122, 90, 112), (182, 126, 116)),
    ("dusk", "fog"): ((176, 132, 138), (206, 152, 136), (226, 172, 140)),
    ("dusk", "snow"): ((104, 88, 150), (184, 132, 160), (240, 184, 164)),
    ("night", "clear"): ((6, 10, 34), (14, 24, 62), (40, 54, 102)),
    ("night", "rain"): ((12, 16, 28), (22, 30, 46), (42, 54, 74)),
    ("night", "fog"): ((48, 54, 68), (60, 67, 82), (74, 82, 98)),
    ("night", "snow"): ((24, 30, 56), (44, 54, 86), (82, 94, 130)),
}

_DESERT_SKIES: dict[tuple[str, str], tuple[Colour, Colour, Colour]] = {
    ("day", "clear"): ((70, 150, 176), (232, 190, 148), (250, 216, 170)),
    ("day", "rain"): ((120, 116, 118), (156, 142, 134), (188, 168, 150)),
    ("day", "fog"): ((216, 194, 164), (224, 202, 170), (230, 208, 176)),
    ("day", "snow"): ((196, 192, 198), (220, 212, 208), (236, 226, 216)),
    ("dusk", "clear"): ((104, 36, 84), (224, 84, 58), (255, 176, 72)),
    ("dusk", "rain"): ((90, 60, 76), (140, 86, 82), (190, 118, 92)),
    ("dusk", "fog"): ((196, 128, 100), (214, 142, 102), (230, 158, 108)),
    ("dusk", "snow"): ((130, 88, 120), (196, 128, 124), (240, 180, 138)),
    ("night", "clear"): ((22, 10, 40), (44, 22, 62), (92, 50, 84)),
    ("night", "rain"): ((24, 18, 32), (36, 28, 44), (62, 48, 62)),
    ("night", "fog"): ((66, 52, 58), (78, 62, 66), (92, 74, 76)),
    ("night", "snow"): ((40, 28, 58), (62, 48, 80), (104, 84, 116)),
}

_LIGHT: dict[str, Colour] = {"day": (1.0, 1.0, 1.0), "dusk": (0.80, 0.60, 0.62), "night": (0.22, 0.26, 0.42)}
_HAZE_METRES = {"clear": 420.0, "rain": 120.0, "fog": 28.0, "snow": 95.0}


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with a `share`, 0 to 1, of `second` in it."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))  # type: ignore[return-value]


@lru_cache(maxsize=64)
def palette_for(time_of_day: str, weather: str, style: str) -> Palette:
    """The colours of one kind of hour."""
    desert = style == "desert"
    sky = (_DESERT_SKIES if desert else _SKIES)[time_of_day, weather]
    dim = {"clear": 1.0, "rain": 0.8, "fog": 0.92, "snow": 0.95}[weather]
    light = tuple(channel * dim for channel in _LIGHT[time_of_day])
    ground: Colour = (222, 176, 112) if desert else (112, 168, 74)
    road: Colour = (124, 102, 92) if desert else (96, 100, 108)
    tracks: Colour | None = None
    pavement: Colour = (200, 168, 126) if desert else (168, 164, 160)
    kerb: Colour = (214, 192, 158) if desert else (204, 202, 198)
    if weather == "rain":
        ground, pavement = mix(ground, (70, 96, 84), 0.5), mix(pavement, (120, 130, 142), 0.5)
        road, tracks = (62, 70, 84), (112, 126, 146)
    elif weather == "snow":
        ground, pavement, kerb = (240, 244, 250), (228, 234, 242), (206, 214, 226)
        road, tracks = (164, 170, 182), (122, 128, 140)
    elif weather == "fog":
        ground = mix(ground, sky[2], 0.15)
    celestial = ""
    if weather == "clear":
        celestial = {"day": "clouds", "dusk": "sun", "night": "moon"}[time_of_day]
    far: Colour = (176, 108, 84) if desert else (96, 142, 150)
    near: Colour = (198, 130, 88) if desert else (86, 142, 92)
    if weather == "snow":
        far, near = mix(far, (240, 244, 250), 0.7), mix(near, (240, 244, 250), 0.8)
    white: Colour = (250, 250, 246)
    return Palette(
        sky=sky,
        haze_metres=_HAZE_METRES[weather],
        light=light,  # type: ignore[arg-type]
        headlights={"day": 0.0, "dusk": 0.12, "night": 0.75}[time_of_day],
        lamps_lit=time_of_day != "day",
        glow={"day": 0.0, "dusk": 0.55, "night": 1.0}[time_of_day],
        wet=weather == "rain",
        ground=ground,
        road=road,
        wheel_tracks=tracks,
        pavement=pavement,
        kerb=kerb,
        white_paint=white if weather != "snow" else (250, 252, 255),
        yellow_paint=(250, 200, 40),
        hill=(mix(far, sky[2], 0.55), mix(near, sky[2], 0.3)),
        shadow={"clear": 0.5, "rain": 0.6, "fog": 0.72, "snow": 0.7}[weather],
        snow_cover=0.75 if weather == "snow" else 0.0,
        celestial=celestial,
        falling=weather if weather in ("rain", "snow") else "",
        falling_colour=mix((214, 226, 244), sky[2], 0.2) if weather == "rain" else (252, 253, 255),
    )


def as_array(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)
