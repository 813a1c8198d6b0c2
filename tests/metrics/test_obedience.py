"""Obedience: 1 where a clip shows what it was held to, less the further it is off, nothing where nothing was asked."""

from __future__ import annotations

import numpy as np
import pytest

from studio.clips.control_maps import ControlMaps
from studio.driving_world import render_with_maps, sample_scene
from studio.metrics.obedience import chamfer, f1, lane_offsets, mean_iou, per_frame


def world(seed: int) -> ControlMaps:
    return render_with_maps(sample_scene(seed), height=64, width=64, num_frames=5)[1]


def test_what_is_held_to_itself_scores_one_and_another_world_less() -> None:
    mine, other = world(1), world(2)
    same, others = per_frame(mine, mine), per_frame(mine, other)
    assert set(same) == {"edges", "lane_lines", "semantic", "optical_flow"}
    for name, values in same.items():
        assert np.nanmin(values) > 0.999, name
        assert np.nanmean(others[name]) < 0.95, name
        assert len(values) == 5


def test_edges_that_are_two_pixels_off_score_less_than_those_one_off_and_a_tolerance_forgives_them() -> None:
    edges = world(1).edges
    assert edges is not None
    there = edges[0] > 0
    off = [np.roll(there, shift, axis=1) for shift in range(3)]
    scores = [f1(there, each) for each in off]
    assert scores[0] == pytest.approx(1)
    assert scores[0] > scores[1] > scores[2]
    assert f1(there, off[1], tolerance=1) > 0.95
    assert [chamfer(there, each) for each in off] == sorted(chamfer(there, each) for each in off)


def test_where_neither_has_anything_there_is_nothing_to_say() -> None:
    nothing, some = np.zeros((8, 8), bool), np.eye(8, dtype=bool)
    assert np.isnan(f1(nothing, nothing))
    assert f1(some, nothing) == 0
    assert np.isnan(chamfer(some, nothing))
    assert np.isnan(lane_offsets(np.full((1, 2, 2, 2), np.nan, np.float32), np.zeros((1, 2, 2, 2), np.float32))).all()


def test_a_lanes_offset_is_measured_across_it() -> None:
    line = np.array([[[[30, 20], [10, 60]], [[34, 20], [54, 60]]]], np.float32)
    assert lane_offsets(line, line + np.array([3, 0], np.float32)).tolist() == [3.0]


def test_classes_that_are_nowhere_do_not_count() -> None:
    first, second = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert mean_iou(first, second, 6) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_darker_layout_of_the_same_shape_is_alike() -> None:
    layout = np.random.default_rng(0).integers(60, 250, (2, 8, 8), dtype=np.uint8)
    found = per_frame(ControlMaps(layout=layout), ControlMaps(layout=layout // 3))
    assert found["layout"].min() > 0.99


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="do not go with"):
        per_frame(ControlMaps(edges=np.zeros((2, 8, 8), np.uint8)), ControlMaps(edges=np.zeros((2, 8, 9), np.uint8)))
