"""Control maps: the stage that the painter paints, measured instead.

Knows which surface each pixel's centre falls on, and from that surface's corners everything else: a flat face whose
corners are known at two moments gives its depth and its motion exactly. Refuses to know colour, light and weather:
rain, snow and haze are as air, and a shadow is the road it lies on.

With d = (x, y, 1) the ray through a pixel, and M = [B - A, C - A, A] made of three corners of a face in camera metres,
a point P of the face is P = M (a, b, 1)^T = z d, so

    1 / z = (row 3 of M^-1) d        and        P' is along (M' M^-1) d

where M' is made of the same corners one frame later.

Shapes: F frames, H rows, W columns, K surfaces seen in a frame.
"""

from __future__ import annotations

import cv2
import numpy as np

from studio.clips.control_maps import Box, ControlMaps
from studio.driving_world.camera import EYE_METRES, NEAR_METRES
from studio.driving_world.painter import FIXED_POINT_DIGITS, fixed_point
from studio.driving_world.road import LANE_METRES
from studio.driving_world.stage import SEMANTIC_LABELS, Stage

_SKY, _GROUND, _FIRST_RIDGE = 0, 1, 2
_LARGEST_TREBLED = 640
FAR_ROW = 0.6
"""Of the height: where the lines of our own lane begin."""


def measure(stage: Stage) -> ControlMaps:
    """Every map of a stage."""
    return _Tape(stage).maps()


def cover(stage: Stage, instance_id: int) -> np.ndarray:
    """Which share of each pixel an object covers where nothing nearer hides it, float32 (F, H, W), 0 to 1."""
    return _Tape(stage).cover(instance_id)


class _Tape:
    """Measures one stage. A surface is a number: sky, bare ground, ridges, ground layers, then the objects' faces."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        camera = stage.camera
        # Pixels are sampled at the middle one of three by three, since OpenCV draws an outline half a pixel too wide.
        self.scale = 3 if max(camera.height, camera.width) <= _LARGEST_TREBLED else 1
        self.first_layer = _FIRST_RIDGE + len(stage.horizon)
        self.first_face = self.first_layer + len(stage.ground)
        number = {label: position for position, label in enumerate(SEMANTIC_LABELS)}
        labels = ["sky", "ground"] + ["hill"] * len(stage.horizon) + [layer.label for layer in stage.ground]
        labels += [stage.actors[owner].label for owner in stage.face_owner]
        # A shadow is never drawn here, so the number that stands for it does not matter.
        self.semantics = np.array([number.get(label, 0) for label in labels], np.uint8)
        instances = np.array([actor.instance_id for actor in stage.actors])
        self.instances = np.concatenate([np.zeros(self.first_face, int), instances[stage.face_owner]])
        self.points = fixed_point(stage.image, self.scale)
        self.layers = [fixed_point(layer.outlines, self.scale) for layer in stage.ground]
        self.ridges = [fixed_point(ridge, self.scale) for ridge in stage.horizon]
        rows, columns = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
        self.ray_x = (columns - camera.centre_x) / camera.focal
        self.ray_y = (rows - camera.horizon_y) / camera.focal

    def maps(self) -> ControlMaps:
        stage = self.stage
        frames = len(stage.times)
        surfaces = np.stack([self._surfaces(frame) for frame in range(frames)])
        semantic = self.semantics[surfaces]
        depth = np.stack([self._depth(surfaces[frame], frame) for frame in range(frames)])
        flow = np.zeros((*surfaces.shape, 2), np.float32)
        for frame in range(frames - 1):
            flow[frame] = self._flow(surfaces[frame], depth[frame], frame)
        ego = stage.ego
        return ControlMaps(
            depth=depth.astype(np.float32),
            semantic=semantic,
            semantic_labels=SEMANTIC_LABELS,
            optical_flow=flow,
            boxes=tuple(self._boxes(surfaces[frame], frame) for frame in range(frames)),
            lane_lines=np.where(semantic == SEMANTIC_LABELS.index("lane_line"), 255, 0).astype(np.uint8),
            own_lane=self._own_lane(),
            edges=_borders(semantic.astype(np.int64) * 4096 + self.instances[surfaces]),
            ego_motion=np.stack([ego.speed, ego.yaw_rate, ego.steering], axis=1).astype(np.float32),
            expansion_centre=self._expansion_centres(),
        )

    def cover(self, instance_id: int) -> np.ndarray:
        shares = []
        for frame in range(len(self.stage.times)):
            shown = (self.instances[self._painted(frame)] == instance_id).astype(np.float32)
            height, width = (extent // self.scale for extent in shown.shape)
            shares.append(shown.reshape(height, self.scale, width, self.scale).mean(axis=(1, 3)))
        return np.stack(shares)

    def _canvas(self) -> np.ndarray:
        camera = self.stage.camera
        return np.zeros((camera.height * self.scale, camera.width * self.scale), np.int32)

    def _sampled(self, canvas: np.ndarray) -> np.ndarray:
        return canvas[self.scale // 2 :: self.scale, self.scale // 2 :: self.scale]

    def _outline(self, frame: int, face: int) -> np.ndarray:
        stage = self.stage
        if stage.face_crosses_near[frame, face]:
            return fixed_point(stage.clipped(frame, face), self.scale)
        return self.points[frame, stage.face_starts[face] : stage.face_starts[face + 1]]

    def _surfaces(self, frame: int) -> np.ndarray:
        """The number of the surface that each pixel shows, int32 (H, W)."""
        return self._sampled(self._painted(frame)).copy()

    def _painted(self, frame: int) -> np.ndarray:
        """The number of the surface that each place of the canvas shows, in the painter's own order."""
        stage, canvas = self.stage, self._canvas()
        for position, ridge in enumerate(self.ridges):
            cv2.fillPoly(canvas, [ridge[frame]], _FIRST_RIDGE + position, cv2.LINE_8, FIXED_POINT_DIGITS)
        horizon = self._canvas_horizon()
        canvas[horizon:] = _GROUND
        for position, (layer, outlines) in enumerate(zip(stage.ground, self.layers, strict=True)):
            seen = layer.shown[frame]
            if layer.label != "shadow" and seen.any():
                shape = list(outlines[frame][seen])
                cv2.fillPoly(canvas, shape, self.first_layer + position, cv2.LINE_8, FIXED_POINT_DIGITS)
        for face in stage.order[frame].tolist():
            colour = self.first_face + face
            cv2.fillConvexPoly(canvas, self._outline(frame, face), colour, cv2.LINE_8, FIXED_POINT_DIGITS)
        return canvas

    def _canvas_horizon(self) -> int:
        """The first canvas row whose centre lies below the horizon."""
        return int(np.ceil(self.stage.camera.horizon_y * self.scale - 0.5))

    def _corners(self, frame: int, faces: np.ndarray) -> np.ndarray:
        """M of each face, (K, 3, 3): three well-spread corners as columns B - A, C - A and A."""
        stage = self.stage
        starts = stage.face_starts[faces]
        count = stage.face_starts[faces + 1] - starts
        points = stage.points[frame].astype(np.float64)
        first, second, third = points[starts], points[starts + count // 3], points[starts + 2 * count // 3]
        return np.stack([second - first, third - first, first], axis=-1)

    def _faces_in(self, surfaces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where faces show, (H, W) bool; which they are, (K,); and which of those each such pixel shows."""
        where = surfaces >= self.first_face
        faces, position = np.unique(surfaces[where] - self.first_face, return_inverse=True)
        return where, faces, position

    def _rays(self, where: np.ndarray) -> np.ndarray:
        """d of each chosen pixel, (n, 3)."""
        return np.stack([self.ray_x[where], self.ray_y[where], np.ones(int(where.sum()))], axis=-1)

    def _depth(self, surfaces: np.ndarray, frame: int) -> np.ndarray:
        """Metres along the optical axis, float64 (H, W); infinite for the sky and the ridges on the horizon."""
        depth = np.full(surfaces.shape, np.inf)
        ground = (surfaces == _GROUND) | ((surfaces >= self.first_layer) & (surfaces < self.first_face))
        # At a small size the row next to the horizon may have its centre a hair above it.
        depth[ground] = EYE_METRES / np.maximum(self.ray_y[ground], 1e-5)
        where, faces, position = self._faces_in(surfaces)
        if len(faces):
            inverse = np.linalg.pinv(self._corners(frame, faces))
            nearness = np.einsum("nk,nk->n", inverse[position, 2], self._rays(where))
            z = 1 / np.maximum(nearness, 1e-6)
            # A pixel on the rim of a face seen edge-on may miss the face by a hair, which its depth would magnify.
            every = self.stage.points[frame, :, 2]
            starts = self.stage.face_starts[:-1]
            low = np.minimum.reduceat(every, starts)[faces]
            high = np.maximum.reduceat(every, starts)[faces]
            depth[where] = np.clip(z, np.maximum(low, NEAR_METRES)[position], high[position])
        return depth

    def _flow(self, surfaces: np.ndarray, depth: np.ndarray, frame: int) -> np.ndarray:
        """Pixels (dx, dy) by which what each pixel shows moves until the next frame, (H, W, 2)."""
        camera, ego = self.stage.camera, self.stage.ego
        yaw, turn = ego.yaw[frame], ego.yaw[frame + 1] - ego.yaw[frame]
        dx, dy = ego.x[frame + 1] - ego.x[frame], ego.y[frame + 1] - ego.y[frame]
        ahead, leftward = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
        # The world stands still: take away our own step, then our own turn. At infinity the step is nothing.
        forward = 1 - ahead / depth
        left = -self.ray_x - leftward / depth
        next_forward = np.cos(turn) * forward + np.sin(turn) * left
        next_right = np.sin(turn) * forward - np.cos(turn) * left
        moved = np.stack([next_right, self.ray_y + np.zeros_like(forward), next_forward], axis=-1)
        where, faces, position = self._faces_in(surfaces)
        if len(faces):
            step = self._corners(frame + 1, faces) @ np.linalg.pinv(self._corners(frame, faces))
            ahead_of_eye = np.einsum("nij,nj->ni", step[position], self._rays(where))
            moved[where] = ahead_of_eye
        # What has come nearer than the near plane by then has left the picture; its flow only points outward.
        scale = camera.focal / np.maximum(moved[..., 2], NEAR_METRES / np.minimum(depth, 1e9))
        flow = np.empty((*surfaces.shape, 2))
        flow[..., 0] = moved[..., 0] * scale - camera.focal * self.ray_x
        flow[..., 1] = moved[..., 1] * scale - camera.focal * self.ray_y
        return flow

    def _expansion_centres(self) -> np.ndarray:
        """float32, (F, 2): where the way to the next moment leads to in the picture; of the last, that of the one
        before. NaN where the car stands."""
        camera, ego = self.stage.camera, self.stage.ego
        centres = np.full((len(ego.x), 2), np.nan, np.float32)
        dx, dy, yaw = np.diff(ego.x), np.diff(ego.y), ego.yaw[:-1]
        ahead, leftward = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
        moves = ahead > 1e-3
        centres[:-1, 0][moves] = camera.centre_x - camera.focal * leftward[moves] / ahead[moves]
        centres[:-1, 1][moves] = camera.horizon_y
        if len(centres) > 1:
            centres[-1] = centres[-2]
        return centres

    def _own_lane(self) -> np.ndarray:
        """float32, (F, 2, 2, 2): the edges of our own lane, left and right, from where the road is seen at `FAR_ROW` to
        the picture's lower edge; the stretch is short enough to be straight in any bend."""
        stage, camera, height = self.stage, self.stage.camera, self.stage.camera.height
        rows = np.array([FAR_ROW * height, height])
        ahead = EYE_METRES * camera.focal / (rows - camera.horizon_y)
        s = stage.ego.s[:, None, None] + ahead
        middle = stage.scene.ego.lane_offset
        d = np.array([middle + LANE_METRES / 2, middle - LANE_METRES / 2])[:, None]
        return stage.seen_on_road(*np.broadcast_arrays(s, d)).astype(np.float32)

    def _boxes(self, surfaces: np.ndarray, frame: int) -> tuple[Box, ...]:
        """One box for each object with a number of its own that shows at least one pixel; nearest first."""
        stage, camera = self.stage, self.stage.camera
        order = stage.order[frame]
        shown = self.instances[surfaces]
        boxes: list[Box] = []
        for owner in np.argsort(stage.depth[frame]).tolist():
            actor = stage.actors[owner]
            faces = order[stage.face_owner[order] == owner].tolist()
            seen_pixels = int((shown == actor.instance_id).sum()) if actor.instance_id and faces else 0
            if not seen_pixels:
                continue
            silhouette = self._canvas()
            outlines = [self._outline(frame, face) for face in faces]
            for outline in outlines:
                cv2.fillConvexPoly(silhouette, outline, 1, cv2.LINE_8, FIXED_POINT_DIGITS)
            corners = (np.concatenate(outlines) / 2**FIXED_POINT_DIGITS + 0.5) / self.scale
            left, top = np.clip(corners.min(axis=0), 0, (camera.width, camera.height)).tolist()
            right, bottom = np.clip(corners.max(axis=0), 0, (camera.width, camera.height)).tolist()
            boxes.append(
                Box(
                    instance_id=actor.instance_id,
                    label=actor.label,
                    left=left,
                    top=top,
                    right=right,
                    bottom=bottom,
                    visible_fraction=min(1.0, seen_pixels / max(int(self._sampled(silhouette).sum()), 1)),
                )
            )
        return tuple(boxes)


def _borders(regions: np.ndarray) -> np.ndarray:
    """255 where a pixel's region differs from that of its right or lower neighbour; (F, H, W) to uint8 (F, H, W)."""
    edges = np.zeros(regions.shape, np.uint8)
    edges[:, :, :-1][regions[:, :, :-1] != regions[:, :, 1:]] = 255
    edges[:, :-1][regions[:, :-1] != regions[:, 1:]] = 255
    return edges
