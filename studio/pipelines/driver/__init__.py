"""The pocket driver: diffusers' VACE, told its maps without loss, and given frames kept exactly."""

from __future__ import annotations

from studio.pipelines.driver.pipeline import CONTROL_CHANNELS, DrivingPipeline, control_of
from studio.pipelines.driver.planes import (
    CELL,
    CHANNELS,
    FOLLOWED,
    FRAMES,
    GROUPS,
    channels_of,
    channels_of_group,
    planes_of,
)

__all__ = [
    "CELL",
    "CHANNELS",
    "CONTROL_CHANNELS",
    "FOLLOWED",
    "FRAMES",
    "GROUPS",
    "DrivingPipeline",
    "channels_of",
    "channels_of_group",
    "control_of",
    "planes_of",
]
