"""The driving world: seeds become scenes, frames, exact control maps and captions.

Everything is a pure function of a seed and a size, in NumPy and OpenCV, with no model and no download.
Knows no model. Refuses to know torch, pipelines, and who is asking.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from studio.clips.clip import Clip
from studio.clips.control_maps import ControlMaps
from studio.driving_world.camera import Camera
from studio.driving_world.captions import caption
from studio.driving_world.maps import cover, measure
from studio.driving_world.painter import paint
from studio.driving_world.scene import (
    LANE_COUNTS,
    ROADS,
    SETTINGS,
    STYLES,
    TIMES_OF_DAY,
    VEHICLE_ACTIONS,
    VEHICLE_COLOURS,
    VEHICLE_TYPES,
    WEATHERS,
    Scene,
    attributes,
    sample_scene,
)
from studio.driving_world.stage import Stage

__all__ = [
    "LANE_COUNTS",
    "ROADS",
    "SETTINGS",
    "STYLES",
    "TIMES_OF_DAY",
    "VEHICLE_ACTIONS",
    "VEHICLE_COLOURS",
    "VEHICLE_TYPES",
    "WEATHERS",
    "Scene",
    "attributes",
    "caption",
    "render",
    "render_cover",
    "render_frames",
    "render_with_maps",
    "sample_scene",
    "without",
]


def render(scene: Scene, *, height: int = 128, width: int = 128, num_frames: int = 17, fps: float = 12.0) -> Clip:
    """The clip of a scene, with its caption; frame i shows the moment i / fps seconds."""
    return _film(_stage(scene, height, width, num_frames, fps), fps)


def render_with_maps(
    scene: Scene, *, height: int = 128, width: int = 128, num_frames: int = 17, fps: float = 12.0
) -> tuple[Clip, ControlMaps]:
    """The same clip as `render`, and what it shows, measured from the same geometry."""
    stage = _stage(scene, height, width, num_frames, fps)
    return _film(stage, fps), replace(measure(stage), fps=fps)


def render_frames(
    scene: Scene, *, height: int = 128, width: int = 128, num_frames: int = 17, fps: float = 12.0
) -> np.ndarray:
    """The clip's pictures alone, uint8 (F, H, W, 3): also of a scene with nobody in it, of which no caption speaks."""
    return paint(_stage(scene, height, width, num_frames, fps))


def render_cover(
    scene: Scene, instance_id: int, *, height: int = 128, width: int = 128, num_frames: int = 17, fps: float = 12.0
) -> np.ndarray:
    """How much of each pixel one of the scene's vehicles or people covers, 0 to 1, float32 (F, H, W)."""
    return cover(_stage(scene, height, width, num_frames, fps), instance_id)


def without(scene: Scene, instance_id: int) -> Scene:
    """The same scene, had one of its vehicles never come: its shadow and its lamps are gone with it."""
    return replace(scene, vehicles=tuple(each for each in scene.vehicles if each.instance_id != instance_id))


def _film(stage: Stage, fps: float) -> Clip:
    words = caption(stage.scene, num_frames=len(stage.times), fps=fps)
    return Clip(frames=paint(stage), fps=fps, caption=words)


def _stage(scene: Scene, height: int, width: int, num_frames: int, fps: float) -> Stage:
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, not {fps}")
    return Stage(scene, Camera(height=height, width=width), np.arange(num_frames) / fps)
