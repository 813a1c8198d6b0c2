"""Cut-outs: pictures with an alpha channel, as people bring them.

Knows Pillow's readers of PNG and WebP, and bounds what they may be asked to read. Refuses to know what is shown.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.errors import InsertionError

LARGEST_BYTES = 32_000_000
LARGEST_SIDE = 4096
_FORMATS = ("PNG", "WEBP")


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """A thing, and nothing around it."""

    colours: np.ndarray
    """uint8, (H, W, 3), RGB; where alpha is 0 they mean nothing."""
    alpha: np.ndarray
    """float32, (H, W), 0…1; its outermost rows and columns are not empty."""


def trimmed(colours: np.ndarray, alpha: np.ndarray) -> CutOut | None:
    """Without the rows and columns that show nothing; None where nothing is left."""
    rows, columns = (np.flatnonzero((alpha > 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return CutOut(colours=colours[part], alpha=alpha[part].astype(np.float32))


def read_cut_out(path: Path, *, field: str) -> CutOut:
    """A cut-out from a file.

    Raises:
        InsertionError: it is no PNG or WebP that can be read, it is too large, or nothing of it is transparent.
    """
    from PIL import Image, UnidentifiedImageError

    def refused(why: str, way_out: str) -> InsertionError:
        return InsertionError(f"{path.name} {why}", field=field, value=path.name, way_out=way_out)

    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise refused(f"has more than {LARGEST_BYTES / 1e6:g} MB.", "Make it smaller.")
        with Image.open(path, formats=_FORMATS) as picture:
            if max(picture.size) > LARGEST_SIDE:
                raise refused(
                    f"has {picture.width}×{picture.height} pixels.", f"Make it at most {LARGEST_SIDE} on a side."
                )
            has_alpha = "A" in picture.getbands() or "transparency" in picture.info
            pixels = np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise refused("is no PNG or WebP that can be read.", "Save the cut-out as PNG.") from error
    cut = trimmed(pixels[..., :3], pixels[..., 3] / np.float32(255))
    if not has_alpha or (pixels[..., 3] == 255).all():
        raise refused("has nothing transparent: the vehicle is not cut out.", "Cut it out, and save it with its alpha.")
    if cut is None:
        raise refused("is transparent all over.", "Save the cut-out with the vehicle in it.")
    return cut
