"""Extractions and agreement between maps, for tests."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from studio.clips.clip import Clip
from studio.clips.control_maps import Box, ControlMaps, MapName
from studio.clips.map_files import write_maps
from studio.clips.reference import FileReference, reference_to
from studio.control_maps import DrawnBox, Extraction, extract

T = TypeVar("T")


def result_of(work: Generator[Any, None, T]) -> T:
    """What a generator returns at its end."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return ended.value


def extracted(clip: Clip, *names: MapName, drawn: tuple[DrawnBox, ...] = ()) -> Extraction:
    """With the lens of the driving world's camera."""
    focal = 0.785 * (clip.height * clip.width) ** 0.5
    return result_of(extract(clip.frames, fps=clip.fps, names=names, drawn=drawn, focal=focal))


def file_of_maps(path: Path, *, height: int = 32, width: int = 32, num_frames: int = 9, **fields: Any) -> FileReference:
    """A few maps of nothing in particular: an edge that moves, lanes that stand, a layout from dark to light."""
    edges = np.zeros((num_frames, height, width), np.uint8)
    for frame, picture in enumerate(edges):
        picture[:, (3 * frame + 5) % width] = 255
    lanes = np.zeros_like(edges)
    lanes[:, height // 2 :, width // 3] = 255
    ramp = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    layout = np.broadcast_to(ramp, edges.shape).copy()
    write_maps(ControlMaps(**({"edges": edges, "lane_lines": lanes, "layout": layout, "fps": 8.0} | fields)), path)
    return reference_to(path, field="control")


def f1(one: np.ndarray, other: np.ndarray, *, tolerance: int = 1) -> float:
    """Of two masks, (F, H, W): what lies within so many pixels of the other."""
    kernel = np.ones((2 * tolerance + 1,) * 2, np.uint8)
    first, second = one > 0, other > 0
    wide = [np.stack([cv2.dilate(each.astype(np.uint8), kernel) for each in mask]) > 0 for mask in (first, second)]
    precision = (first & wide[1]).sum() / max(1, first.sum())
    recall = (second & wide[0]).sum() / max(1, second.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def box_iou(one: Box, other: Box) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one.width * one.height + other.width * other.height - shared)
