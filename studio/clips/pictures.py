"""Pictures: a still from outside, read with care.

Knows Pillow. Refuses to know what a picture is for.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from studio.clips.limits import ClipLimits
from studio.errors import ClipRefused

FORMATS = ("PNG", "JPEG", "WEBP")
"""What is opened, by Pillow's names."""
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_LIMITS = ClipLimits()


def is_picture(path: Path) -> bool:
    """Whether a file begins as a picture does."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def read_picture(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), upright, over black.

    Raises:
        ClipRefused: it is none that is read, it is damaged, or it is too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            if max(width, height) > _LIMITS.stored_side or width * height > _LIMITS.stored_area:
                raise _refused(path, f"has {width}×{height} pixels; at most {_LIMITS.stored_area:,} are read")
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _refused(path, "is no picture that is read here, or it is damaged") from error
    black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, upright).convert("RGB"))


def _refused(path: Path, why: str) -> ClipRefused:
    return ClipRefused(
        f"{path.name} {why}.", field="picture", value=path.name, way_out=f"Give one of these: {', '.join(FORMATS)}."
    )
