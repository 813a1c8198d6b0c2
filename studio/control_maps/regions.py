"""Regions: road, sky and the rest, by colour and smoothness, with thresholds of the whole clip and not of a frame.

A frame alone finds the sky and loses it again in the next. So the clip is looked at first (`Looks`), each frame is
judged by what was found there, judgements are averaged over neighbouring frames, and a region goes on above a lower
threshold than it begins at. Knows a clip. Refuses to know what stands beside the road.

Shapes: F frames, H rows, W columns, h rows and w columns of the size that is worked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

LABELS = ("other", "road", "sky")
"""Name of class n at position n."""
OTHER, ROAD, SKY = range(3)
WORKED_AT = 320
"""Columns, at most: regions are large, and their borders are found again when they are enlarged."""
AVERAGED_OVER = 5
"""Frames."""
BEGINS, GOES_ON = 0.6, 0.4
"""Averaged judgements, 0 to 1, at which a region begins, and above which it goes on."""
SKY_SPREAD = 14.0
"""How far a pixel's colour may lie from the sky's in its row."""
_SEED = (0.70, 0.86, 0.40, 0.60)
"""Top, bottom, left and right of the patch of road ahead of us, as shares of the picture."""
_SHADOW = 0.45
"""How much lightness counts beside colour: a road has shadows."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What the regions of a clip look like."""

    road: np.ndarray
    """float32, (F, 3): the road's colour ahead of us, in LAB, steadied over frames."""
    road_spread: float
    """How far from it the road's own pixels lie, typically."""
    sky: np.ndarray
    """float32, (h, 3): the sky's colour in each row, in LAB: it is another at the top than near the horizon."""
    sky_there: bool


def regions(frames: np.ndarray, horizon: np.ndarray, paint: np.ndarray | None = None) -> np.ndarray:
    """Classes of a clip, uint8 (F, H, W); `LABELS` names them.

    Args:
        frames: uint8 RGB, (F, H, W, 3).
        horizon: float, (F,): its row in each frame.
        paint: uint8, (F, H, W), 255 on lane lines: they lie on the road, and it goes on beyond them.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, WORKED_AT / width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    rows = horizon * size[1] / height
    looks = looks_of(small, rows)
    judged = np.stack([judge(frame, looks, number, rows[number]) for number, frame in enumerate(small)])
    if paint is not None:
        for each, mask in zip(judged, paint, strict=True):
            on_paint = cv2.dilate(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.ones((3, 3), np.uint8))
            each[..., 0] = np.maximum(each[..., 0], (on_paint > 0))
    judged = averaged(judged)
    return np.stack([_classes(each, row, (height, width)) for each, row in zip(judged, rows, strict=True)])


def looks_of(small: list[np.ndarray], rows: np.ndarray) -> Looks:
    """Of frames of the size that is worked at, uint8 RGB (h, w, 3)."""
    labs = np.stack([_lab(frame) for frame in small])
    smooth = np.stack([_roughness(frame) < _SMOOTH for frame in small])
    patches = labs[(slice(None), *_patch(small[0].shape))].reshape(len(small), -1, 3)
    road = np.median(patches, axis=1)
    spread = [np.median(_distance(patch, colour)) for patch, colour in zip(patches, road, strict=True)]
    reach = 4
    steadied = [np.median(road[max(0, each - reach) : each + reach + 1], axis=0) for each in range(len(road))]
    top = max(2, round(0.04 * labs.shape[1]))
    # Between houses the sky is seen above the road, if anywhere.
    width = labs.shape[2]
    middle = (slice(None), slice(0, top), slice(round(0.35 * width), round(0.65 * width)))
    there = float(smooth[middle].mean()) > 0.25
    return Looks(
        road=np.array(steadied, np.float32),
        road_spread=float(np.clip(np.mean(spread), 2.0, 9.0)),
        sky=_sky_profile(labs, smooth, middle, int(rows.max())) if there else np.zeros((labs.shape[1], 3), np.float32),
        sky_there=there,
    )


def _sky_profile(labs: np.ndarray, smooth: np.ndarray, middle: tuple[slice, ...], last: int) -> np.ndarray:
    """`Looks.sky`, from the top downward: each row's is that of its smooth pixels that are much like the row above."""
    profile = np.zeros((labs.shape[1], 3), np.float32)
    colour = np.median(labs[middle][smooth[middle]], axis=0)
    for row in range(labs.shape[1]):
        alike = smooth[:, row] & (_distance(labs[:, row], colour) < SKY_SPREAD)
        if row <= last and alike.mean() > 0.02:
            colour = colour + np.clip(np.median(labs[:, row][alike], axis=0) - colour, -2, 2)
        profile[row] = colour
    return profile


def judge(frame: np.ndarray, looks: Looks, number: int, row: float) -> np.ndarray:
    """float32, (h, w, 2): how much each pixel looks like road, and like sky, 0 to 1."""
    lab, rough = _lab(frame), _roughness(frame)
    below = np.arange(frame.shape[0], dtype=np.float32)[:, None] + 0.5 - row
    far = _distance(lab, looks.road[number]) / (4.5 * looks.road_spread) + rough / (3 * _SMOOTH)
    road = _falling(far, 1.0, 0.18) * (below > 0)
    if not looks.sky_there:
        return np.stack([road, np.zeros_like(road)], axis=-1)
    apart = _distance(lab, looks.sky[:, None])
    sky = _falling(apart / SKY_SPREAD, 1.0, 0.12) * _falling(rough / _SMOOTH, 1.6, 0.3) * (below < 0)
    return np.stack([road, sky], axis=-1).astype(np.float32)


def averaged(judged: np.ndarray) -> np.ndarray:
    """Each judgement the mean of those of the frames around it, (F, …)."""
    reach = AVERAGED_OVER // 2
    summed = np.concatenate([np.zeros_like(judged[:1], np.float64), np.cumsum(judged, axis=0, dtype=np.float64)])
    frames = np.arange(len(judged))
    first, last = np.maximum(frames - reach, 0), np.minimum(frames + reach + 1, len(judged))
    return ((summed[last] - summed[first]) / (last - first).reshape(-1, *[1] * (judged.ndim - 1))).astype(np.float32)


def _classes(judged: np.ndarray, row: float, size: tuple[int, int]) -> np.ndarray:
    """uint8, (H, W), from one frame's averaged judgements."""
    height, width = judged.shape[:2]
    seed = np.zeros((height, width), bool)
    seed[_patch(judged.shape)] = True
    # Paint, cracks and shadows on the road are road; what stands on it is larger than they are.
    side = max(3, width // 40) | 1
    likely = cv2.morphologyEx(judged[..., 0], cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    road = _through(likely, seed)
    road[: max(0, int(np.ceil(row - 0.5)))] = 0
    top = np.zeros((height, width), bool)
    top[0] = True
    sky = _with_clouds(_through(judged[..., 1], top))
    classes = np.zeros(size, np.uint8)
    for kind, mask in ((ROAD, road), (SKY, sky)):
        large = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        classes[large > 0.5] = kind
    return classes


def _through(likely: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """uint8, (h, w): what goes on from the seed, and has begun somewhere."""
    count, parts = cv2.connectedComponents((likely > GOES_ON).astype(np.uint8))
    kept = [
        part for part in range(1, count) if (seed & (parts == part)).any() and (likely[parts == part] > BEGINS).any()
    ]
    return np.isin(parts, kept).astype(np.uint8)


def _with_clouds(sky: np.ndarray) -> np.ndarray:
    """What the sky lies all around of, or what it lies below of, is sky: nothing else hangs there."""
    if not sky.any():
        return sky
    padded = cv2.copyMakeBorder(sky, 1, 0, 1, 1, cv2.BORDER_CONSTANT, value=1)
    padded[:, 0] = padded[:, -1] = 0
    count, parts, figures, _ = cv2.connectedComponentsWithStats((padded == 0).astype(np.uint8), connectivity=4)
    size = sky.size
    for part in range(1, count):
        left, _, width, _, area = figures[part]
        if area < 0.06 * size and left > 0 and left + width < padded.shape[1]:
            padded[parts == part] = 1
    return padded[1:, 1:-1]


def _patch(shape: tuple[int, ...]) -> tuple[slice, slice]:
    top, bottom, left, right = _SEED
    height, width = shape[:2]
    return slice(round(top * height), round(bottom * height)), slice(round(left * width), round(right * width))


def _lab(frame: np.ndarray) -> np.ndarray:
    """float32: lightness 0 to 100, and two of colour."""
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _distance(lab: np.ndarray, colour: np.ndarray) -> np.ndarray:
    apart = lab - colour
    return np.sqrt((_SHADOW * apart[..., 0]) ** 2 + apart[..., 1] ** 2 + apart[..., 2] ** 2)


_SMOOTH = 9.0
"""Levels by which a smooth surface's neighbours differ, at most."""


def _roughness(frame: np.ndarray) -> np.ndarray:
    """float32, (h, w): how much a pixel differs from the mean of those around it, averaged over a few."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.blur(np.abs(grey - cv2.blur(grey, (3, 3))), (5, 5)) * 2


def _falling(value: np.ndarray, middle: float, width: float) -> np.ndarray:
    """1 well below the middle, 0 well above it."""
    return 1 / (1 + np.exp(np.clip((value - middle) / width, -30, 30)))
