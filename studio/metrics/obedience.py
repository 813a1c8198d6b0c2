"""Obedience: how near what a clip shows lies to the maps that it was held to, frame by frame.

Whatever was given is compared with the same map, found again in the clip by the same means. Knows maps as arrays.
Refuses to know how a map is found, and what would be good: a benchmark says what another clip's maps score, and those
of the source itself after an autoencoder's round trip, and where between the two a model lies.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np

from studio.clips.control_maps import ControlMaps, MapName

_SMALL = 1e-6


def per_frame(given: ControlMaps, found: ControlMaps) -> dict[MapName, np.ndarray]:
    """By map that both have, float (F,): 1 where a frame shows what was given; NaN where there was nothing to show.

    Raises:
        ValueError: the maps are of different sizes or lengths.
    """
    if given.num_frames != found.num_frames or given.size != found.size:
        raise ValueError(
            f"maps of {given.num_frames} frames of {given.size} do not go with {found.num_frames} of {found.size}"
        )
    common: list[MapName] = [
        name for name in MEASURED if getattr(given, name) is not None and getattr(found, name) is not None
    ]
    return {name: MEASURED[name](given, found) for name in common}


def f1(wanted: np.ndarray, found: np.ndarray, *, tolerance: int = 0) -> float:
    """Of two sets of pixels, bool (H, W); a pixel counts as found within `tolerance` pixels. NaN where neither has
    any."""
    if not wanted.any() and not found.any():
        return float("nan")
    near_wanted, near_found = (_grown(each, tolerance) for each in (wanted, found))
    precision = (found & near_wanted).sum() / max(found.sum(), 1)
    recall = (wanted & near_found).sum() / max(wanted.sum(), 1)
    return float(2 * precision * recall / max(precision + recall, _SMALL))


def _grown(pixels: np.ndarray, by: int) -> np.ndarray:
    if by == 0:
        return pixels
    return cv2.dilate(pixels.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)).astype(bool)


def chamfer(wanted: np.ndarray, found: np.ndarray) -> float:
    """Mean distance in pixels from each set of pixels to the other, both ways; NaN where one is empty."""
    if not wanted.any() or not found.any():
        return float("nan")
    away = [cv2.distanceTransform((~each).astype(np.uint8), cv2.DIST_L2, 5) for each in (wanted, found)]
    return float((away[0][found].mean() + away[1][wanted].mean()) / 2)


def mean_iou(wanted: np.ndarray, found: np.ndarray, classes: int) -> float:
    """Mean intersection over union of the classes that there are in either, of class numbers of any one shape."""
    shares = []
    for number in range(classes):
        a, b = wanted == number, found == number
        if either := int((a | b).sum()):
            shares.append((a & b).sum() / either)
    return float(np.mean(shares)) if shares else float("nan")


def lane_offsets(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """By frame, the median distance in pixels from our lane's lines, as given, to those found, at the rows that both
    reach.

    Args:
        wanted, found: `own_lane`, float (F, 2, 2, 2).
    """
    out = np.full(len(wanted), np.nan)
    for frame, (a, b) in enumerate(zip(wanted, found, strict=True)):
        distances = [_apart(mine, theirs) for mine, theirs in zip(a, b, strict=True)]
        if known := [each for each in distances if np.isfinite(each)]:
            out[frame] = np.median(known)
    return out


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    """Median distance across between two lines, each from its far end to its near one as x and y."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    top, bottom = max(first[0, 1], second[0, 1]), min(first[1, 1], second[1, 1])
    if bottom <= top:
        return float("nan")
    rows = np.linspace(top, bottom, 9)
    at = [np.interp(rows, line[:, 1], line[:, 0]) for line in (first, second)]
    return float(np.median(np.abs(at[0] - at[1])))


def _lines(name: str, tolerance: int) -> Callable[[ControlMaps, ControlMaps], np.ndarray]:
    def measured(given: ControlMaps, found: ControlMaps) -> np.ndarray:
        pairs = zip(getattr(given, name) > 0, getattr(found, name) > 0, strict=True)
        return np.array([f1(a, b, tolerance=tolerance) for a, b in pairs])

    return measured


def _alike(given: ControlMaps, found: ControlMaps) -> np.ndarray:
    """Correlation of layouts, whatever their mean and spread: a night is darker than the day that it follows."""
    assert given.layout is not None
    assert found.layout is not None
    return np.array([_correlation(a, b) for a, b in zip(given.layout, found.layout, strict=True)])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (each.astype(np.float64) - each.mean() for each in (a, b))
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), _SMALL))


def _regions(given: ControlMaps, found: ControlMaps) -> np.ndarray:
    """Over the labels that both know."""
    assert given.semantic is not None
    assert found.semantic is not None
    shared = [label for label in given.semantic_labels if label in found.semantic_labels and label != "other"]
    numbers = []
    for maps in (given, found):
        assert maps.semantic is not None
        table = np.array([shared.index(each) if each in shared else len(shared) for each in maps.semantic_labels])
        numbers.append(table[maps.semantic])
    return np.array([mean_iou(a, b, len(shared)) for a, b in zip(*numbers, strict=True)])


def _directions(given: ControlMaps, found: ControlMaps) -> np.ndarray:
    """Cosine of flow's directions where both are known and something moves, from 0 at right angles or worse to 1."""
    assert given.optical_flow is not None
    assert found.optical_flow is not None
    out = np.full(given.num_frames, np.nan)
    for frame in range(given.num_frames - 1):
        a, b = given.optical_flow[frame], found.optical_flow[frame]
        there = (np.linalg.norm(a, axis=-1) > _MOVES) & (np.linalg.norm(b, axis=-1) > _MOVES)
        for maps in (given, found):
            if maps.optical_flow_known is not None:
                there &= maps.optical_flow_known[frame]
        if there.any():
            a, b = a[there], b[there]
            cosine = (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
            out[frame] = float(np.clip(cosine, 0, 1).mean())
    return out


_MOVES = 0.5
"""Pixels from a frame to the next above which something moves."""

MEASURED: Mapping[MapName, Callable[[ControlMaps, ControlMaps], np.ndarray]] = MappingProxyType(
    {
        "layout": _alike,
        "edges": _lines("edges", 0),
        "lane_lines": _lines("lane_lines", 1),
        "semantic": _regions,
        "optical_flow": _directions,
    }
)
"""How each map's frames are compared: by correlation, F1 at the very pixel, F1 within one, mean intersection over
union, and how well directions agree."""
