"""Vehicles that are put into clips: cut out of a picture, or rendered by the driving world; and where they stand.

Knows cut-outs, and how one becomes pixels and an alpha somewhere in a picture. Refuses to know how it is lit.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from studio.clips.cut_out import CutOut, trimmed
from studio.errors import InsertionError
from studio.requests.insertion import PathPoint, RenderedVehicle, View

if TYPE_CHECKING:
    from studio.driving_world import Scene

_ACTIONS: dict[View, str] = {"rear": "drives ahead", "front": "approaches", "left": "crosses", "right": "crosses"}
"""What a vehicle does while it shows that side of itself."""
_RENDERED_AT = 640
_FRAMES, _FPS = 24, 8.0
_SEEDS = 12
"""Worlds that are looked through for a vehicle that nothing hides."""


def rendered(vehicle: RenderedVehicle) -> CutOut:
    """A vehicle of the driving world on a clear day, as large as it is seen there in full.

    Raises:
        InsertionError: no world shows it so.
    """
    from studio.driving_world import render_cover, render_frames, sample_scene
    from studio.driving_world.traffic import Cross

    best: tuple[float, Scene, int] | None = None
    small = {"height": _RENDERED_AT // 4, "width": _RENDERED_AT // 4, "num_frames": _FRAMES, "fps": _FPS}
    for seed in range(_SEEDS):
        scene = sample_scene(
            seed,
            time_of_day="day",
            weather="clear",
            vehicle_type=vehicle.type,
            vehicle_colour=vehicle.colour,
            vehicle_action=_ACTIONS[vehicle.view],
        )
        main = scene.vehicles[0]
        if isinstance(main.manoeuvre, Cross) and (main.manoeuvre.direction > 0) != (vehicle.view == "left"):
            continue
        alone = replace(scene, vehicles=(main,), pedestrians=())
        area, frame = _best_frame(render_cover(alone, main.instance_id, **small))
        if area > (best[0] if best else 0):
            best = area, alone, frame
    if best is None:
        raise InsertionError(
            f"No world shows {vehicle} in full.", field="render", value=str(vehicle), way_out="Take another view."
        )
    _, scene, frame = best
    # The second of two frames is the moment that is wanted; the very first moment is the first of them.
    large = {"height": _RENDERED_AT, "width": _RENDERED_AT, "num_frames": 2, "fps": _FPS / max(1, frame)}
    cover = render_cover(scene, scene.vehicles[0].instance_id, **large)[min(1, frame)]
    cut = trimmed(render_frames(scene, **large)[min(1, frame)], cover)
    assert cut is not None
    return cut


def _best_frame(covers: np.ndarray) -> tuple[float, int]:
    """Of covers (F, H, W), the frame that shows most of a thing which touches no edge, and how many pixels that is."""
    edge = np.pad(np.zeros((covers.shape[1] - 2, covers.shape[2] - 2), bool), 1, constant_values=True)
    areas = np.where((covers[:, edge] > 0).any(axis=1), 0, covers.sum(axis=(1, 2)))
    best = int(areas.argmax())
    return float(areas[best]), best


def places(path: Sequence[PathPoint], num_frames: int) -> list[PathPoint | None]:
    """Where the vehicle stands in each frame: straight between the places of its path; None where it is not there."""
    if len(path) == 1:
        return [path[0].model_copy(update={"frame": frame}) for frame in range(num_frames)]
    frames = [point.frame for point in path]
    rows = [[point.x for point in path], [point.y for point in path], [point.width for point in path]]
    standing: list[PathPoint | None] = []
    for frame in range(num_frames):
        if not frames[0] <= frame <= frames[-1]:
            standing.append(None)
            continue
        x, y, width = (float(np.interp(frame, frames, row)) for row in rows)
        standing.append(PathPoint(frame=frame, x=x, y=y, width=width))
    return standing


@dataclass(frozen=True, kw_only=True)
class Pasted:
    """A vehicle in a stretch of a picture."""

    rows: slice
    columns: slice
    """Where in the picture the stretch lies."""
    colours: np.ndarray
    """float32, (h, w, 3), 0…255, multiplied by alpha."""
    alpha: np.ndarray
    """float32, (h, w), 0…1."""

    def over(self, picture: np.ndarray) -> np.ndarray:
        """A copy of the picture, uint8 (H, W, 3), with the vehicle pasted over it."""
        pasted = picture.copy()
        part = pasted[self.rows, self.columns]
        pasted[self.rows, self.columns] = np.rint(part * (1 - self.alpha[..., None]) + self.colours).astype(np.uint8)
        return pasted


def pasted_at(vehicle: CutOut, place: PathPoint, *, height: int, width: int) -> Pasted | None:
    """A vehicle at a place of its path, to the fraction of a pixel; None where nothing of it is in the picture."""
    import cv2  # here, as doors import this room to draw themselves

    own_height, own_width = vehicle.alpha.shape
    factor = place.width / own_width
    colours = vehicle.colours.astype(np.float32) * vehicle.alpha[..., None]
    both = np.concatenate([colours, vehicle.alpha[..., None]], axis=2)
    if factor < 1:  # sampled from something about its final size: a finer grid would be read between its lines
        size = (max(1, math.ceil(own_width * factor)), max(1, math.ceil(own_height * factor)))
        both = cv2.resize(both, size, interpolation=cv2.INTER_AREA)
    across, down = place.width / both.shape[1], own_height * factor / both.shape[0]
    left, top = place.x - place.width / 2, place.y - own_height * factor
    first_column, first_row = (max(0, math.floor(edge) - 1) for edge in (left, top))
    last_column = min(width, math.ceil(left + place.width) + 1)
    last_row = min(height, math.ceil(place.y) + 1)
    if last_column <= first_column or last_row <= first_row:
        return None
    # OpenCV counts from the middles of pixels, a path from their corners.
    move = np.array(
        [
            [across, 0, left - first_column + across / 2 - 0.5],
            [0, down, top - first_row + down / 2 - 0.5],
        ]
    )
    laid = cv2.warpAffine(
        both, move, (last_column - first_column, last_row - first_row), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0, 0)
    )
    alpha = np.clip(laid[..., 3], 0, 1)
    if not alpha.any():
        return None
    return Pasted(
        rows=slice(first_row, last_row),
        columns=slice(first_column, last_column),
        colours=laid[..., :3],
        alpha=alpha,
    )
