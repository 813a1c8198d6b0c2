"""Small clips, and requests that are quickly done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from studio.clips.clip import Clip
from studio.clips.write import write_clip
from studio.preset import find_preset
from studio.requests.training import FinetuneRequest, TrainingClip, finetune_request_for


def moving_square(path: Path, seed: int, *, num_frames: int = 11, size: int = 48, fps: float = 8) -> Path:
    """A clip of a bright square that moves, on its own background."""
    draw = np.random.default_rng(seed)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    frames[:] = draw.integers(0, 120, 3)
    for number, frame in enumerate(frames):
        left = (3 * number + 5 * seed) % (size - 16)
        frame[10:26, left : left + 16] = draw.integers(160, 255, 3)
    write_clip(Clip(frames=frames, fps=fps), path)
    return path


def asked(clips: tuple[TrainingClip, ...], **fields: Any) -> FinetuneRequest:
    """Small and quick."""
    few = {"height": 32, "width": 32, "num_frames": 5, "fps": 8.0, "max_train_steps": 4, "checkpointing_steps": 2}
    return finetune_request_for(find_preset("wan"), clips=clips, **(few | fields))
