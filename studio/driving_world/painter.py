"""The painter: a stage becomes frames.

Knows OpenCV's polygons, light, haze, lamps and weather. Refuses to know how anything moves or what it is called.

Small pictures are painted at twice their size with anti-aliased edges and averaged down; large ones are painted with
anti-aliased edges alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, pi

import cv2
import numpy as np

from studio.driving_world.camera import EYE_METRES, Camera
from studio.driving_world.palette import Palette, as_array, mix, palette_for
from studio.driving_world.shapes import VEHICLE_SHAPES, Paint
from studio.driving_world.stage import Stage

FIXED_POINT_DIGITS = 4
"""Binary digits after the point in the coordinates given to OpenCV."""
_FAR = 2**24
"""Coordinates, in OpenCV's fixed point, are held within this."""
_LARGEST_DOUBLED = 320
_LAMP_METRES = 0.3


def paint(stage: Stage) -> np.ndarray:
    """All frames of a stage: uint8, (F, H, W, 3), RGB."""
    brush = _Brush(stage)
    return np.stack([brush.frame(frame) for frame in range(len(stage.times))])


def fixed_point(image: np.ndarray, scale: float) -> np.ndarray:
    """Image pixels (corner-based) to OpenCV's fixed point (centre-based) on a canvas `scale` times as large."""
    moved = image * np.float32(scale * 2**FIXED_POINT_DIGITS)
    moved -= np.float32(2 ** (FIXED_POINT_DIGITS - 1))
    np.clip(moved, -_FAR, _FAR, out=moved)
    return moved.astype(np.int32, order="C")


@dataclass(frozen=True, kw_only=True)
class _Backdrop:
    """What stays the same from frame to frame; images are uint8 on the painter's canvas."""

    bare: np.ndarray
    """(H, W, 3): the sky's gradient above the horizon, the ground's own colour below it."""
    horizon_row: int
    """First canvas row of the ground."""
    ground_light: np.ndarray
    """(rows below the horizon, W, 3): what light and haze together leave of the ground's own colour."""
    ground_haze: np.ndarray
    """(rows below the horizon, W, 3): what haze adds."""


@lru_cache(maxsize=32)
def _backdrop(time_of_day: str, weather: str, style: str, height: int, width: int, scale: int) -> _Backdrop:
    palette = palette_for(time_of_day, weather, style)
    camera = Camera(height=height * scale, width=width * scale)
    rows = np.arange(camera.height) + 0.5
    share = np.clip(rows / camera.horizon_y, 0, 1)[:, None]
    top, middle, low = (as_array(colour) for colour in palette.sky)
    sky = np.where(share < 0.55, top + (middle - top) * share / 0.55, middle + (low - middle) * (share - 0.55) / 0.45)
    horizon_row = ceil(camera.horizon_y - 0.5)
    depth = EYE_METRES * camera.focal / np.maximum(rows[horizon_row:] - camera.horizon_y, 0.05)
    keep = np.exp(-depth / palette.haze_metres)[:, None, None]
    columns = (np.arange(camera.width) + 0.5 - camera.centre_x) / camera.focal
    beam = np.exp(-((columns[None, :] / 0.5) ** 2)) * np.exp(-depth / 22.0)[:, None]
    light = as_array(palette.light) * (1 - palette.headlights * beam[..., None])
    light = light + palette.headlights * beam[..., None] * np.array([1.0, 0.96, 0.84])
    haze = np.broadcast_to((1 - keep) * low, (len(depth), camera.width, 3))
    sky[horizon_row:] = palette.ground
    return _Backdrop(
        bare=np.broadcast_to(sky[:, None, :], (camera.height, camera.width, 3)).round().astype(np.uint8),
        horizon_row=horizon_row,
        ground_light=(255 * np.clip(light * keep, 0, 1)).round().astype(np.uint8),
        ground_haze=haze.round().astype(np.uint8),
    )


class _Brush:
    """Paints one stage, frame by frame; what can be reckoned for all frames at once is reckoned here first."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        camera, scene = stage.camera, stage.scene
        self.palette: Palette = stage.palette
        self.scale = 2 if max(camera.height, camera.width) <= _LARGEST_DOUBLED else 1
        self.backdrop = _backdrop(
            scene.time_of_day, scene.weather, scene.style, camera.height, camera.width, self.scale
        )
        self.points = fixed_point(stage.image, self.scale)
        self.colours = self._face_colours()
        self.ground = [(layer.colour, fixed_point(layer.outlines, self.scale), layer.shown) for layer in stage.ground]
        self.ridges = [fixed_point(ridge, self.scale) for ridge in stage.horizon]
        shining = np.stack([actor.shining for actor in stage.actors], axis=1)
        upright = np.array([actor.label != "building" for actor in stage.actors])[stage.face_owner]
        self.glowing = (shining[:, stage.face_owner, stage.face_paint] > 0.5) & upright
        """bool, (F, N): faces with a halo. Windows shine without one."""
        moving = np.array([actor.label in VEHICLE_SHAPES for actor in stage.actors])[stage.face_owner]
        self.screening = moving & (stage.face_paint == Paint.BODY)
        """bool, (N,): faces that hide the halo of what is behind them."""
        dice = np.random.Generator(np.random.PCG64([scene.seed, 7]))
        self.falling = dice.random((90, 4)) if self.palette.falling else None
        """(n, 4), 0 to 1: where each drop or flake starts, and how it differs from the others."""

    def _face_colours(self) -> np.ndarray:
        """Every face's colour in every frame, lit, shaded and hazed: float32, (F, N, 3)."""
        stage, palette = self.stage, self.palette
        own = np.stack([actor.colours for actor in stage.actors], axis=1)
        shining = np.stack([actor.shining for actor in stage.actors], axis=1)[..., None]
        depth = np.maximum(stage.depth, 0.0).astype(np.float32)[..., None, None]
        # Things are lit more brightly and more neutrally than the ground, so that yellow stays yellow at sunset.
        ambient = as_array(palette.light) ** 0.6
        ambient = 0.45 * ambient + 0.55 * ambient.mean()
        light = ambient + palette.headlights * 0.6 * np.exp(-depth / 26.0)
        keep = np.exp(-depth / palette.haze_metres)
        # Lamps pierce the haze better than paint does.
        keep = np.where(shining > 0, np.sqrt(keep), keep)
        lit = own * np.where(shining > 0, 1.0, np.minimum(light, 1.0))
        frames, slots = slice(None), (stage.face_owner, stage.face_paint)
        shade = np.where(shining[frames, *slots, 0] > 0, 1.0, stage.face_shade)[..., None]
        keep_face = keep[frames, *slots]
        colour = lit[frames, *slots] * shade * keep_face + as_array(palette.sky[2]) * (1 - keep_face)
        return np.clip(colour, 0, 255)

    def frame(self, frame: int) -> np.ndarray:
        canvas = self.backdrop.bare.copy()
        self._heavens(canvas, frame)
        self._ridges(canvas, frame)
        self._ground(canvas, frame)
        self._objects(canvas, frame)
        camera = self.stage.camera
        if self.scale > 1:
            canvas = cv2.resize(canvas, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        if self.palette.glow > 0:
            cv2.add(canvas, self._halo(frame), dst=canvas)
        if self.falling is not None:
            self._fall(canvas, frame)
        return canvas

    def _heavens(self, canvas: np.ndarray, frame: int) -> None:
        """Sun, moon or clouds, infinitely far."""
        if not self.palette.celestial:
            return
        stage = self.stage
        yaw = float(stage.ego.yaw[frame])
        seed = stage.scene.seed
        focal = stage.camera.focal * self.scale

        def disc(bearing: float, elevation: float, wide: float, high: float, colour: tuple[float, ...]) -> None:
            azimuth = (bearing - yaw + pi) % (2 * pi) - pi
            if abs(azimuth) > 1.2:
                return
            image = stage.camera.project_direction(np.array(azimuth), np.array(elevation))
            x, y = (image * self.scale - 0.5).tolist()
            cv2.ellipse(canvas, ((x, y), (2 * wide * focal, 2 * high * focal), 0.0), colour, -1, cv2.LINE_AA)

        bearing = (seed * 0.618) % 1 * 0.7 - 0.35
        match self.palette.celestial:
            case "sun":
                disc(bearing, 0.13, 0.075, 0.075, mix((255, 214, 120), self.palette.sky[2], 0.25))
                disc(bearing, 0.13, 0.058, 0.058, (255, 238, 176))
            case "moon":
                disc(bearing, 0.36, 0.046, 0.046, (236, 238, 220))
            case _:
                for k in range(5):
                    at = (seed * 0.377 + k * 0.2) % 1 * 2.6 - 1.3
                    lift = 0.22 + 0.16 * ((seed * 0.713 + k * 0.37) % 1)
                    for across, up, wide, high in ((0.0, 0.0, 0.15, 0.032), (0.04, 0.022, 0.08, 0.036)):
                        disc(at + across, lift + up, wide, high, (248, 251, 255))

    def _ridges(self, canvas: np.ndarray, frame: int) -> None:
        haze = np.exp(-min(900.0 / self.palette.haze_metres, 50.0) * 0.35)
        light = as_array(self.palette.light) ** 0.8
        for ridge, colour in zip(self.ridges, self.palette.hill, strict=True):
            lit = as_array(colour) * light * haze + as_array(self.palette.sky[2]) * (1 - haze)
            cv2.fillPoly(canvas, [ridge[frame]], lit.tolist(), cv2.LINE_AA, FIXED_POINT_DIGITS)

    def _ground(self, canvas: np.ndarray, frame: int) -> None:
        """Everything on the ground in its own colours first; then light and haze over the lot in two strokes."""
        below = canvas[self.backdrop.horizon_row :]
        for colour, outlines, shown in self.ground:
            visible = shown[frame]
            if visible.all():
                cv2.fillPoly(canvas, list(outlines[frame]), colour, cv2.LINE_AA, FIXED_POINT_DIGITS)
            elif visible.any():
                cv2.fillPoly(canvas, list(outlines[frame][visible]), colour, cv2.LINE_AA, FIXED_POINT_DIGITS)
        cv2.multiply(below, self.backdrop.ground_light, dst=below, scale=1 / 255)
        cv2.add(below, self.backdrop.ground_haze, dst=below)

    def _outlines(self, frame: int, faces: np.ndarray) -> list[np.ndarray]:
        """The outlines of `faces` in OpenCV's fixed point."""
        stage, points = self.stage, self.points[frame]
        starts, ends = stage.face_starts[faces].tolist(), stage.face_starts[faces + 1].tolist()
        outlines = [points[start:end] for start, end in zip(starts, ends, strict=True)]
        for position in np.flatnonzero(stage.face_crosses_near[frame, faces]).tolist():
            outlines[position] = fixed_point(stage.clipped(frame, int(faces[position])), self.scale)
        return outlines

    def _objects(self, canvas: np.ndarray, frame: int) -> None:
        """Everything that stands up, far to near."""
        faces = self.stage.order[frame]
        colours = self.colours[frame, faces].tolist()
        for outline, colour in zip(self._outlines(frame, faces), colours, strict=True):
            cv2.fillConvexPoly(canvas, outline, colour, cv2.LINE_AA, FIXED_POINT_DIGITS)

    def _halo(self, frame: int) -> np.ndarray:
        """Light round the lamps, at half the picture's size: lamps in painting order, blacked out by nearer bodies."""
        stage = self.stage
        camera = stage.camera
        glow = np.zeros((camera.height // 2, camera.width // 2, 3), np.uint8)
        faces = stage.order[frame]
        faces = faces[self.glowing[frame, faces] | self.screening[faces]]
        shrink = 2 * self.scale
        depths = stage.points[frame, stage.face_starts[faces], 2].tolist()
        lamps = self.glowing[frame, faces].tolist()
        colours = (self.colours[frame, faces] * (0.8 * self.palette.glow)).tolist()
        for outline, lamp, colour, depth in zip(self._outlines(frame, faces), lamps, colours, depths, strict=True):
            if lamp:
                self._lamp(glow, outline // shrink, colour, max(depth, 2.0))
            else:
                cv2.fillConvexPoly(glow, outline // shrink, (0, 0, 0), cv2.LINE_8, FIXED_POINT_DIGITS)
        blurred = cv2.GaussianBlur(glow, (0, 0), 0.016 * camera.focal, borderType=cv2.BORDER_REPLICATE)
        return cv2.resize(blurred, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)

    def _lamp(self, glow: np.ndarray, outline: np.ndarray, light: list[float], depth: float) -> None:
        """One lamp's light, and its mirror image where the road is wet."""
        camera = self.stage.camera
        (xa, ya), (xb, yb) = outline[0].tolist(), outline[len(outline) // 2].tolist()
        x, y = (xa + xb) // 2, (ya + yb) // 2
        radius = _LAMP_METRES * camera.focal / depth / 2
        cv2.circle(glow, (x, y), int(radius * 2**FIXED_POINT_DIGITS), light, -1, cv2.LINE_AA, FIXED_POINT_DIGITS)
        if self.palette.wet:
            foot = int((camera.horizon_y + EYE_METRES * camera.focal / depth) / 2 * 2**FIXED_POINT_DIGITS)
            dim = [channel * 0.5 for channel in light]
            low = foot + (foot - y) * 9 // 10
            cv2.line(glow, (x, foot), (x, low), dim, max(1, int(1.2 * radius)), cv2.LINE_AA, FIXED_POINT_DIGITS)

    def _fall(self, canvas: np.ndarray, frame: int) -> None:
        """Rain or snow: a few soft strokes that move smoothly with time, the same at any size."""
        assert self.falling is not None
        height, width = canvas.shape[:2]
        t = float(self.stage.times[frame])
        u, v, w, z = self.falling.T
        veil = canvas.copy()
        colour = self.palette.falling_colour
        fixed = 2**FIXED_POINT_DIGITS
        if self.palette.falling == "rain":
            count = 42
            y = (v + t * (1.7 + 0.8 * w)) % 1.2 - 0.1
            x = (u - 0.12 * (y + t * 0.3)) % 1.0
            long = 0.07 + 0.05 * w
            ends = np.stack([x, y, x - 0.12 * long, y + long], axis=1)[:count] * [width, height, width, height]
            thick = max(1, round(height / 128))
            for xa, ya, xb, yb in (ends * fixed).astype(int).tolist():
                cv2.line(veil, (xa, ya), (xb, yb), colour, thick, cv2.LINE_AA, FIXED_POINT_DIGITS)
            share = 0.34
        else:
            count = 48
            y = (v + t * (0.28 + 0.30 * z)) % 1.1 - 0.05
            x = (u + 0.03 * np.sin(2.2 * t + 6.28 * w) + 0.05 * t) % 1.0
            radius = (0.0045 + 0.0075 * z) * height
            flakes = np.stack([x * width, y * height, radius], axis=1)[:count] * fixed
            for xc, yc, r in flakes.astype(int).tolist():
                cv2.circle(veil, (xc, yc), r, colour, -1, cv2.LINE_AA, FIXED_POINT_DIGITS)
            share = 0.8
        cv2.addWeighted(veil, share, canvas, 1 - share, 0, dst=canvas)
