"""The stage: a scene over a stretch of time, as outlines in the picture, ready to be painted or measured.

Knows geometry only. The painter and the control maps walk the same stage in the same order, so what one shows the
other measures. Refuses to know how light and colours mix, and what a map is for.

Shapes: F frames, O objects, V points of all objects together, N faces of all objects together, L outlines in a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi

import numpy as np

from studio.driving_world import shapes
from studio.driving_world.camera import EYE_METRES, NEAR_METRES, Camera, clip_near
from studio.driving_world.palette import COATS, VEHICLE_PAINTS, Colour, Palette, mix, palette_for
from studio.driving_world.road import LANE_METRES, Road, half_width, lane_centre, lanes_forward, lay_road
from studio.driving_world.roadside import PAVEMENT_METRES, Fixture, fixtures, has_pavement
from studio.driving_world.scene import SIDE_ROAD_METRES, Scene, zebra_distance
from studio.driving_world.shapes import Paint, Shape
from studio.driving_world.traffic import EgoTrack, Track, track, track_ego

SEMANTIC_LABELS = (
    "sky",
    "hill",
    "ground",
    "road",
    "pavement",
    "lane_line",
    "road_marking",
    "building",
    "tree",
    "rock",
    "lamp",
    "sign",
    "traffic_light",
    "car",
    "truck",
    "bus",
    "motorbike",
    "pedestrian",
)
"""Name of semantic class n at position n."""
VIEW_METRES = 105.0
"""Things that stand up are drawn at least as far as this, and farther in large pictures; the road goes on for ever."""
_STATIONS = np.array([1.6, 2.4, 3.4, 4.6, 6, 8, 10.5, 13.5, 17, 21.5, 27, 34, 43, 55, 70, 90, 120, 165, 230, 330, 620])
"""Metres ahead at which the edges of a winding road are reckoned; a straight one needs the first and the last."""
_DASH_METRES, _DASH_PERIOD = 3.2, 8.0
_LINE_METRES = 0.2
_DASHES_TO = 80.0
_FIRST_FIXTURE_ID = 100
_SHORTEST_DETAIL = 0.5
"""Small faces are left out where this many metres are less than a pixel."""


@dataclass(frozen=True, kw_only=True)
class GroundLayer:
    """Outlines of one colour that lie on the ground."""

    label: str
    colour: Colour
    """As in full daylight."""
    outlines: np.ndarray
    """float32, (F, L, k, 2) image pixels."""
    shown: np.ndarray
    """bool, (F, L)."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One object, static or moving, before it is projected."""

    label: str
    instance_id: int
    """0 for what is not counted one by one: buildings, trees, rocks and lamps."""
    shape: Shape
    scale: tuple[float, float, float]
    x: np.ndarray
    y: np.ndarray
    yaw: np.ndarray
    colours: np.ndarray
    """float32, (F, 8, 3), by paint slot."""
    shining: np.ndarray
    """float32, (F, 8): 1 where a slot gives light of its own."""
    stride: np.ndarray | None = None
    """(F,) phase of a pedestrian's walk."""


class Stage:
    """A scene seen by a camera at some moments."""

    def __init__(self, scene: Scene, camera: Camera, times: np.ndarray) -> None:
        self.scene = scene
        self.camera = camera
        self.times = times
        self.view_metres = float(np.clip(0.82 * camera.focal, VIEW_METRES, 300.0))
        self.palette: Palette = palette_for(scene.time_of_day, scene.weather, scene.style)
        reach = float(np.max(scene.ego.distance(times)))
        self.road: Road = lay_road(scene.curvature, reach)
        self.ego: EgoTrack = track_ego(scene.ego, self.road, times)
        self._cos, self._sin = np.cos(self.ego.yaw)[:, None], np.sin(self.ego.yaw)[:, None]
        self.actors: list[Actor] = self._movers() + self._fixtures(reach)
        self._pose_actors()
        self._mesh()

    # The ground

    def _seen_from_above(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World x, y, each (F, n), to camera right and forward, each (F, n)."""
        dx, dy = x - self.ego.x[:, None], y - self.ego.y[:, None]
        return self._sin * dx - self._cos * dy, self._cos * dx + self._sin * dy

    def _on_ground(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World x, y, each (F, n), to image pixels (F, n, 2) and depth (F, n)."""
        right, forward = self._seen_from_above(x, y)
        return self.camera.project(right, np.full_like(right, EYE_METRES), forward), forward

    def seen_on_road(self, s: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Places (s, d) along and across the road, each (F, …), to image pixels (F, …, 2)."""
        x, y, _ = self.road.place(s, d)
        frames = len(self.times)
        image, _ = self._on_ground(x.reshape(frames, -1), y.reshape(frames, -1))
        return image.reshape(*s.shape, 2)

    @cached_property
    def _lengthwise(self) -> np.ndarray:
        """Metres along the road of its stations, (F, S)."""
        stations = _STATIONS if self.scene.curvature else _STATIONS[[0, -1]]
        return self.ego.s[:, None] + stations[None]

    def _ribbon(self, label: str, colour: Colour, *bands: tuple[float, float]) -> GroundLayer:
        """Bands along the road, each between two offsets to the left of the centre line."""
        offsets = np.array(bands).reshape(-1)
        s = self._lengthwise
        x, y, heading = self.road.place(s, 0.0)
        spread_x = x[..., None] - np.sin(heading)[..., None] * offsets
        spread_y = y[..., None] + np.cos(heading)[..., None] * offsets
        frames, stations = s.shape
        image, _ = self._on_ground(spread_x.reshape(frames, -1), spread_y.reshape(frames, -1))
        image = image.reshape(frames, stations, len(bands), 2, 2)
        outlines = np.concatenate([image[:, :, :, 0], image[:, ::-1, :, 1]], axis=1).transpose(0, 2, 1, 3)
        return GroundLayer(label=label, colour=colour, outlines=outlines, shown=np.ones((frames, len(bands)), bool))

    def _dashes(self, colour: Colour, offsets: list[float]) -> GroundLayer:
        """Broken lines along the road."""
        count = int(_DASHES_TO / _DASH_PERIOD) + 1
        first = np.floor(self.ego.s / _DASH_PERIOD) * _DASH_PERIOD
        start = first[:, None] + _DASH_PERIOD * np.arange(count)[None]
        end = start + _DASH_METRES
        nearest = self.ego.s[:, None] + _STATIONS[0]
        shown = np.repeat(end > nearest + 0.05, len(offsets), axis=1)
        start = np.maximum(start, nearest)
        end = np.maximum(end, nearest + 0.05)
        s = np.stack([start, start, end, end], axis=-1)[:, :, None, :]
        half = _LINE_METRES / 2
        d = np.array(offsets)[None, None, :, None] + np.array([half, -half, -half, half])
        s, d = np.broadcast_arrays(s, d)
        frames = s.shape[0]
        x, y, _ = self.road.place(s.reshape(frames, -1), d.reshape(frames, -1))
        image, _ = self._on_ground(x, y)
        return GroundLayer(label="lane_line", colour=colour, outlines=image.reshape(frames, -1, 4, 2), shown=shown)

    def _rectangles(self, label: str, colour: Colour, areas: list[tuple[float, float, float, float]]) -> GroundLayer:
        """Rectangles on the road: from and to along it, from and to across it."""
        corners = np.array([[(a, d), (a, c), (b, c), (b, d)] for a, b, c, d in areas]).reshape(-1, 2)
        x, y, _ = self.road.place(corners[:, 0], corners[:, 1])
        frames = len(self.times)
        image, depth = self._on_ground(np.tile(x, (frames, 1)), np.tile(y, (frames, 1)))
        shown = depth.reshape(frames, -1, 4).max(axis=-1) > NEAR_METRES
        return GroundLayer(label=label, colour=colour, outlines=image.reshape(frames, -1, 4, 2), shown=shown)

    @cached_property
    def ground(self) -> list[GroundLayer]:
        """What lies on the ground, in painting order."""
        scene, palette = self.scene, self.palette
        edge = half_width(scene.lanes)
        paved = has_pavement(scene)
        kerb, verge = 0.3, edge + (PAVEMENT_METRES if paved else 0.9)
        layers: list[GroundLayer] = []
        side_half, middle = SIDE_ROAD_METRES / 2, scene.junction_at
        if scene.has_junction:
            far = 160.0
            if paved:
                walk = (middle - side_half - 2.2, middle + side_half + 2.2, -far, far)
                layers.append(self._rectangles("pavement", palette.pavement, [walk]))
            rim = (middle - side_half - 0.3, middle + side_half + 0.3, -far, far)
            layers.append(self._rectangles("pavement", palette.kerb, [rim]))
        layers.append(self._ribbon("pavement" if paved else "ground", palette.pavement, (-verge, -edge), (edge, verge)))
        layers.append(self._ribbon("pavement", palette.kerb, (-edge - kerb, -edge + 0.1), (edge - 0.1, edge + kerb)))
        if scene.has_junction:
            crossing = (middle - side_half, middle + side_half, -160.0, 160.0)
            layers.append(self._rectangles("road", palette.road, [crossing]))
        layers.append(self._ribbon("road", palette.road, (-edge, edge)))
        if palette.wheel_tracks is not None:
            tracks = []
            for lane in range(scene.lanes):
                centre = lane_centre(scene.lanes, lane)
                tracks += [(centre - 1.05, centre - 0.5), (centre + 0.5, centre + 1.05)]
            layers.append(self._ribbon("road", palette.wheel_tracks, *tracks))
        layers += self._markings(edge)
        layers.append(self._shadows())
        return layers

    def _markings(self, edge: float) -> list[GroundLayer]:
        scene, palette = self.scene, self.palette
        half = _LINE_METRES / 2
        middle = 0.0 if scene.lanes != 3 else half_width(3) - LANE_METRES
        inset = edge - 0.25
        solid = [(-inset - half, -inset + half), (inset - half, inset + half)]
        layers = [self._ribbon("lane_line", palette.white_paint, *solid)]
        if scene.lanes == 2:
            layers.append(self._dashes(palette.yellow_paint, [0.0]))
        else:
            double = [(middle - 0.27, middle - 0.09), (middle + 0.09, middle + 0.27)]
            layers.append(self._ribbon("lane_line", palette.yellow_paint, *double))
            borders = [-edge + LANE_METRES * lane for lane in range(1, scene.lanes)]
            white = [border for border in borders if abs(border - middle) > 0.1]
            layers.append(self._dashes(palette.white_paint, white))
        if scene.has_junction:
            layers += self._junction_markings(edge)
        return layers

    def _junction_markings(self, edge: float) -> list[GroundLayer]:
        """The junction's own surface covers our lane lines; then come the zebra crossing, if any, and the stop line."""
        scene, palette = self.scene, self.palette
        centre, side = scene.junction_at, SIDE_ROAD_METRES / 2
        before, after = centre - side, centre + side
        layers = [self._rectangles("road", palette.road, [(before - 0.1, after + 0.1, -edge + 0.02, edge - 0.02)])]
        own_edge = -edge + LANE_METRES * lanes_forward(scene.lanes)
        stop = before - 0.8
        if scene.zebra:
            at = centre - zebra_distance()
            clear = (at - 1.4, at + 1.4, -edge + 0.02, edge - 0.02)
            layers.append(self._rectangles("road", palette.road, [clear]))
            across = np.arange(-edge + 0.5, edge - 0.5, 1.1)
            bars = [(at - 1.2, at + 1.2, float(d), float(d) + 0.6) for d in across]
            layers.append(self._rectangles("road_marking", palette.white_paint, bars))
            stop = at - 2.0
        line = (stop - 0.25, stop + 0.25, -edge + 0.35, own_edge - 0.25)
        layers.append(self._rectangles("road_marking", palette.white_paint, [line]))
        return layers

    def _shadows(self) -> GroundLayer:
        """What lies in the shade of vehicles and people: road, as far as the maps are concerned."""
        rows = [o for o, actor in enumerate(self.actors) if actor.shape.footprint is not None]
        feet = np.array([self.actors[o].shape.footprint for o in rows], np.float32).reshape(-1, 4)
        scales = np.array([[self.actors[o].scale[0]] * 2 + [self.actors[o].scale[1]] * 2 for o in rows])
        feet = feet * scales.reshape(-1, 4)  # a scene may have nobody in it
        local_x = feet[:, [0, 0, 1, 1]]
        local_y = feet[:, [3, 2, 2, 3]]
        turn = self._turn[:, rows][..., None]
        right = self._right[:, rows][..., None] + np.sin(turn) * local_x - np.cos(turn) * local_y
        forward = self._forward[:, rows][..., None] + np.cos(turn) * local_x + np.sin(turn) * local_y
        image = self.camera.project(right, np.full_like(right, EYE_METRES), forward)
        shown = self.in_view[:, rows] & (forward.max(axis=-1) > NEAR_METRES)
        shade = tuple(channel * self.palette.shadow for channel in self.palette.road)
        return GroundLayer(label="shadow", colour=shade, outlines=image, shown=shown)  # type: ignore[arg-type]

    # What stands and moves

    def _movers(self) -> list[Actor]:
        scene, actors = self.scene, []
        for vehicle in scene.vehicles:
            where = track(vehicle.manoeuvre, scene.ego, self.road, self.times)
            colours, shining = self._vehicle_colours(vehicle.colour, where)
            actors.append(
                Actor(
                    label=vehicle.type,
                    instance_id=vehicle.instance_id,
                    shape=shapes.VEHICLE_SHAPES[vehicle.type](),
                    scale=(1.0, 1.0, 1.0),
                    x=where.x,
                    y=where.y,
                    yaw=where.yaw,
                    colours=colours,
                    shining=shining,
                )
            )
        for person in scene.pedestrians:
            where = track(person.walk, scene.ego, self.road, self.times)
            paint = {Paint.BODY: COATS[person.coat], Paint.DARK: (58, 58, 78), Paint.TRIM: (232, 188, 156)}
            colours, shining = self._still_colours({**paint, Paint.GLASS: (74, 52, 40)}, frozenset())
            actors.append(
                Actor(
                    label="pedestrian",
                    instance_id=person.instance_id,
                    shape=shapes.pedestrian(),
                    scale=(1.0, 1.0, 1.0),
                    x=where.x,
                    y=where.y,
                    yaw=where.yaw,
                    colours=colours,
                    shining=shining,
                    stride=2 * pi * 0.9 * self.times + person.instance_id,
                )
            )
        return actors

    def _vehicle_colours(self, colour: str, where: Track) -> tuple[np.ndarray, np.ndarray]:
        """By frame and slot: brake lights and indicators change as the vehicle moves."""
        lit = self.palette.lamps_lit
        frames = len(self.times)
        body = VEHICLE_PAINTS[colour]
        colours = np.zeros((frames, len(Paint), 3), np.float32)
        colours[:, Paint.BODY] = body
        colours[:, Paint.TRIM] = (206, 208, 214) if colour != "white" else (150, 156, 166)
        colours[:, Paint.DARK] = (34, 35, 40)
        colours[:, Paint.GLASS] = (44, 58, 80) if colour != "black" else (84, 100, 124)
        braking = where.braking[:, None]
        colours[:, Paint.TAIL] = np.where(braking, (255, 44, 36), (214, 26, 30) if lit else (140, 22, 28))
        colours[:, Paint.HEAD] = (255, 246, 214) if lit else (226, 232, 238)
        off = mix(body, (150, 70, 20), 0.5)
        for slot, side in ((Paint.LEFT_SIGNAL, 1), (Paint.RIGHT_SIGNAL, -1)):
            colours[:, slot] = np.where((where.signal == side)[:, None], (255, 168, 30), off)
        shining = np.zeros((frames, len(Paint)), np.float32)
        shining[:, Paint.TAIL] = np.where(where.braking, 1.0, 0.85 if lit else 0.0)
        shining[:, Paint.HEAD] = 1.0 if lit else 0.0
        shining[:, Paint.LEFT_SIGNAL] = where.signal == 1
        shining[:, Paint.RIGHT_SIGNAL] = where.signal == -1
        return colours, shining

    def _still_colours(self, paint: dict[Paint, Colour], shining: frozenset[Paint]) -> tuple[np.ndarray, np.ndarray]:
        frames = len(self.times)
        colours = np.zeros((frames, len(Paint), 3), np.float32)
        glow = np.zeros((frames, len(Paint)), np.float32)
        for slot, colour in paint.items():
            colours[:, slot] = colour
            glow[:, slot] = slot in shining
        return colours, glow

    def _fixtures(self, reach: float) -> list[Actor]:
        """Whatever stands beside the stretch of road that is seen."""
        start = float(np.min(self.ego.s))
        found = fixtures(self.scene, self.palette, start, reach + min(self.view_metres, 3.2 * self.palette.haze_metres))
        if not found:
            return []
        s, d = np.array([f.s for f in found]), np.array([f.d for f in found])
        x, y, yaw = self.road.place(s, d)
        return [
            self._fixture(fixture, k, float(x[k]), float(y[k]), float(yaw[k]) + (pi if fixture.turned else 0.0))
            for k, fixture in enumerate(found)
        ]

    def _fixture(self, fixture: Fixture, number: int, x: float, y: float, yaw: float) -> Actor:
        frames = len(self.times)
        colours, shining = self._still_colours(fixture.colours, fixture.shining)
        if fixture.kind == "traffic_light":
            green = self.times >= self.scene.lights_green_at
            for slot, on in ((Paint.TAIL, ~green), (Paint.HEAD, green)):
                colours[:, slot] = np.where(on[:, None], fixture.colours[slot], (56, 58, 64))
                shining[:, slot] = on
        return Actor(
            label=fixture.kind,
            instance_id=_FIRST_FIXTURE_ID + number if fixture.kind in ("sign", "traffic_light") else 0,
            shape=fixture.shape,
            scale=fixture.scale,
            x=np.full(frames, x),
            y=np.full(frames, y),
            yaw=np.full(frames, yaw),
            colours=colours,
            shining=shining,
        )

    def _pose_actors(self) -> None:
        """Each object's place and turn as the camera sees them, each (F, O); which are in view at all; their order."""
        x = np.stack([actor.x for actor in self.actors], axis=1)
        y = np.stack([actor.y for actor in self.actors], axis=1)
        yaw = np.stack([actor.yaw for actor in self.actors], axis=1)
        self._right, self._forward = self._seen_from_above(x, y)
        self._turn = yaw - self.ego.yaw[:, None]
        radius = np.array([actor.shape.radius * max(actor.scale[:2]) for actor in self.actors])
        ahead = (self._forward + radius > NEAR_METRES) & (self._forward - radius < self.view_metres)
        beside = np.abs(self._right) - radius < np.maximum(self._forward + radius, 0) * self.camera.half_view
        self.in_view = ahead & beside
        self.depth = self._forward
        """Metres along the axis to each object's origin, (F, O)."""

    def _mesh(self) -> None:
        """All objects' faces in one table, projected for every frame at once."""
        parts = [actor.shape for actor in self.actors]
        counts = np.array([len(shape.points) for shape in parts])
        faces = np.array([len(shape.paint) for shape in parts])
        point_owner = np.repeat(np.arange(len(parts)), counts)
        self.face_owner = np.repeat(np.arange(len(parts)), faces)
        first_point = np.concatenate([[0], np.cumsum(counts)])
        self.face_starts = np.concatenate(
            [shape.starts[:-1] + first_point[k] for k, shape in enumerate(parts)] + [first_point[-1:]]
        )
        self.face_paint = np.concatenate([shape.paint for shape in parts])
        self.face_shade = np.concatenate([shape.shade for shape in parts])
        self._behind_rank = np.concatenate([shape.rank_from_behind for shape in parts])
        self._ahead_rank = np.concatenate([shape.rank_from_ahead for shape in parts])
        local = np.concatenate(
            [s.points * np.array(a.scale, np.float32) for s, a in zip(parts, self.actors, strict=True)]
        )
        cos, sin = np.cos(self._turn).astype(np.float32), np.sin(self._turn).astype(np.float32)
        cos, sin = cos[:, point_owner], sin[:, point_owner]
        local_x = local[None, :, 0]
        if any(actor.stride is not None for actor in self.actors):
            local_x = local_x + self._strides(point_owner, counts)
        shape = (len(self.times), len(point_owner))
        self.points = np.empty((*shape, 3), np.float32)
        """Camera right, down and forward of every point, (F, V, 3)."""
        right, forward = self._right.astype(np.float32), self._forward.astype(np.float32)
        self.points[..., 0] = right[:, point_owner] + sin * local_x - cos * local[None, :, 1]
        self.points[..., 1] = EYE_METRES - local[None, :, 2]
        self.points[..., 2] = forward[:, point_owner] + cos * local_x + sin * local[None, :, 1]
        self.image = self.camera.project(self.points[..., 0], self.points[..., 1], self.points[..., 2])
        """Image pixels of every point, (F, V, 2); wrong for points nearer than the near plane."""
        self._choose_faces(np.concatenate([s.two_sided for s in parts]), np.concatenate([s.detail for s in parts]))

    def _strides(self, point_owner: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """How far each point has swung along its owner's x, (F, V)."""
        swing = np.concatenate([actor.shape.swing for actor in self.actors])
        still = np.zeros(len(self.times))
        phase = np.stack([still if actor.stride is None else actor.stride for actor in self.actors], axis=1)
        return (np.sin(phase)[:, point_owner] * swing).astype(np.float32)

    def _choose_faces(self, two_sided: np.ndarray, detail: np.ndarray) -> None:
        """Which faces show, (F, N) bool, and which of those reach nearer than the near plane."""
        starts = self.face_starts[:-1]
        first, second, third = (self.points[:, starts + k] for k in range(3))
        along, up = second - first, third - first
        # The outward normal times the first corner: below 0 where the face looks at the eye.
        facing = (
            (along[..., 1] * up[..., 2] - along[..., 2] * up[..., 1]) * first[..., 0]
            + (along[..., 2] * up[..., 0] - along[..., 0] * up[..., 2]) * first[..., 1]
            + (along[..., 0] * up[..., 1] - along[..., 1] * up[..., 0]) * first[..., 2]
        )
        depth = self.points[..., 2]
        nearest = np.minimum.reduceat(depth, starts, axis=1)
        farthest = np.maximum.reduceat(depth, starts, axis=1)
        shown = ((facing < 0) | two_sided) & self.in_view[:, self.face_owner] & (farthest > NEAR_METRES)
        shown &= ~(detail & (nearest > _SHORTEST_DETAIL * self.camera.focal))
        self.face_shown = shown
        self.face_crosses_near = shown & (nearest < NEAR_METRES)

    @cached_property
    def order(self) -> list[np.ndarray]:
        """For each frame, the faces that show, in painting order: farther objects first."""
        # The eye is behind an object when it lies on the far side of the object's own x axis.
        behind = -self._forward * np.cos(self._turn) + self._right * np.sin(self._turn) < 0
        distance = np.hypot(self._forward, self._right)
        place = np.argsort(np.argsort(-distance, axis=1), axis=1)
        chosen = []
        for frame in range(len(self.times)):
            faces = np.flatnonzero(self.face_shown[frame])
            owner = self.face_owner[faces]
            rank = np.where(behind[frame, owner], self._behind_rank[faces], self._ahead_rank[faces])
            chosen.append(faces[np.argsort(place[frame, owner] * 4096 + rank)])
        return chosen

    def clipped(self, frame: int, face: int) -> np.ndarray:
        """The outline, (k, 2) image pixels, of a face that reaches nearer than the near plane."""
        points = clip_near(self.points[frame, self.face_starts[face] : self.face_starts[face + 1]])
        return self.camera.project(points[:, 0], points[:, 1], points[:, 2])

    # The far distance

    @cached_property
    def horizon(self) -> list[np.ndarray]:
        """Two ridges, far and near, at infinity: image pixels, each (F, k, 2)."""
        bearing = np.arange(-72, 73, 3) * pi / 180
        ridges = []
        for layer, (base, height) in enumerate(((0.045, 0.05), (0.012, 0.035))):
            # Sampled at fixed compass bearings, so that a ridge keeps its shape as the car turns.
            step = pi / 60
            compass = (np.floor(self.ego.yaw / step) * step)[:, None] + bearing
            seed = self.scene.seed % 1000 + 500 * layer
            wave = np.sin(5 * compass + seed) + 0.6 * np.sin(11 * compass + 1.7 * seed)
            if self.scene.setting == "desert":
                wave = np.clip(2.2 * wave, -1, 1)
            elevation = base + height * (0.5 + 0.32 * wave)
            ridge = self.camera.project_direction(compass - self.ego.yaw[:, None], elevation)
            foot = self.camera.project_direction(bearing[[-1, 0]], np.zeros(2))
            feet = np.broadcast_to(foot, (len(ridge), 2, 2))
            ridges.append(np.concatenate([ridge, feet], axis=1))
        return ridges
