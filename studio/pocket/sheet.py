"""Contact sheets: clips as rows of frames in one PNG, to look at while something trains.

Knows arrays and PNG. Refuses to know where the pixels come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_sheet(path: Path, rows: Sequence[np.ndarray], *, every: int = 4, scale: int = 1) -> Path:
    """One row a clip: its frames (F, H, W, 3) uint8 taken `every` so many, side by side with a thin gap."""
    from PIL import Image

    strips = []
    for frames in rows:
        shown = [np.pad(frame, ((0, 2), (0, 2), (0, 0)), constant_values=255) for frame in frames[::every]]
        strips.append(np.concatenate(shown, axis=1))
    width = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in strips], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(sheet)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)
    return path
