"""A vehicle's cover, and the world had it never come: what pairs for learning to paste are made of."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from studio.driving_world import render, render_cover, render_frames, render_with_maps, sample_scene, without

SIZE = {"height": 128, "width": 128, "num_frames": 3}


def test_a_cover_is_where_the_maps_have_the_vehicle() -> None:
    scene = sample_scene(3, vehicle_action="drives ahead")
    cover = render_cover(scene, 1, **SIZE)
    _, maps = render_with_maps(scene, **SIZE)
    assert maps.boxes is not None
    for share, boxes in zip(cover, maps.boxes, strict=True):
        box = next(each for each in boxes if each.instance_id == 1)
        rows, columns = np.nonzero(share > 0)
        assert abs(rows.min() - box.top) <= 1
        assert abs(rows.max() + 1 - box.bottom) <= 1
        assert abs(columns.min() - box.left) <= 1
        assert abs(columns.max() + 1 - box.right) <= 1
    assert 0.05 < ((cover > 0) & (cover < 1)).sum() / (cover > 0).sum() < 0.5  # a rim of pixels is covered in part


def test_covers_are_the_same_at_any_hour_and_in_any_weather() -> None:
    by_day = render_cover(sample_scene(4, time_of_day="day", weather="clear"), 1, **SIZE)
    by_night = render_cover(sample_scene(4, time_of_day="night", weather="snow"), 1, **SIZE)
    assert by_day.any()
    assert np.array_equal(by_day, by_night)


def test_without_its_vehicle_a_scene_differs_about_the_vehicle_alone() -> None:
    scene = sample_scene(5, time_of_day="dusk", weather="rain")
    with_it, had_it_not_come = render(scene, **SIZE).frames, render_frames(without(scene, 1), **SIZE)
    cover = render_cover(scene, 1, **SIZE)
    near = np.stack([cv2.dilate(share, np.ones((61, 61), np.uint8)) for share in cover]) > 0
    assert np.array_equal(with_it[~near], had_it_not_come[~near])
    assert (with_it != had_it_not_come)[cover > 0.5].mean() > 0.5


def test_a_road_with_nobody_on_it_can_be_rendered() -> None:
    scene = sample_scene(5)
    deserted = replace(scene, vehicles=(), pedestrians=())
    assert render_frames(deserted, **SIZE).shape == (3, 128, 128, 3)
    assert not render_cover(deserted, 1, **SIZE).any()
