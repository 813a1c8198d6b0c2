"""Maps are brought to exactly a size and a length, and it is said what was done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.maps import f1

from studio.clips.control_maps import PICTURES, Box, ControlMaps
from studio.control_maps import fitted
from studio.driving_world import render_with_maps, sample_scene
from studio.errors import RequestError


@pytest.fixture(scope="module")
def maps() -> ControlMaps:
    clip, exact = render_with_maps(sample_scene(904), height=96, width=160, num_frames=5)
    return replace(exact, layout=np.ascontiguousarray(clip.frames[..., 1]))


def test_maps_that_fit_are_left_as_they_are(maps: ControlMaps) -> None:
    brought = fitted(maps, height=96, width=160, num_frames=5)
    assert brought.maps is maps
    assert brought.done == ()


@pytest.mark.parametrize("size", [(48, 80, 5), (192, 320, 9), (64, 64, 3), (100, 120, 17), (33, 200, 1)])
def test_every_map_has_exactly_the_size_and_length_that_was_asked_for(
    maps: ControlMaps, size: tuple[int, int, int]
) -> None:
    height, width, num_frames = size
    brought = fitted(maps, height=height, width=width, num_frames=num_frames)
    assert brought.maps.names == maps.names
    for name in PICTURES:
        array = getattr(brought.maps, name)
        if array is not None:
            assert array.shape[:3] == (num_frames, height, width)
            assert array.dtype == getattr(maps, name).dtype
    assert brought.maps.boxes is not None
    assert len(brought.maps.boxes) == num_frames
    assert brought.maps.ego_motion is not None
    assert len(brought.maps.ego_motion) == num_frames
    for box in (box for frame in brought.maps.boxes for box in frame):
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height


def test_what_was_done_is_said_in_words(maps: ControlMaps) -> None:
    said = fitted(maps, height=64, width=64, num_frames=9).done
    assert said == (
        "Only 5 of 9 frames are there: the last one is repeated 4 times.",
        "Cropped from 160×96 to its middle 96×96, the shape that is made.",
        "Scaled from 96×96 to 64×64.",
    )
    assert fitted(maps, height=96, width=160, num_frames=2).done == ("Trimmed from 5 frames to the first 2.",)


def test_lines_stay_lines_classes_stay_classes_and_the_sky_stays_far(maps: ControlMaps) -> None:
    small = fitted(maps, height=48, width=80, num_frames=5).maps
    assert small.edges is not None
    assert maps.edges is not None
    assert maps.semantic is not None
    assert small.semantic is not None
    assert small.depth is not None
    assert set(np.unique(small.edges)) == {0, 255}
    exact = render_with_maps(sample_scene(904), height=48, width=80, num_frames=5)[1]
    assert f1(small.edges, exact.edges) > 0.75
    assert set(np.unique(small.semantic)) <= set(np.unique(maps.semantic))
    sky = small.semantic == maps.semantic_labels.index("sky")
    assert np.isinf(small.depth[sky]).all()


def test_flow_and_places_are_in_pixels_of_the_new_size(maps: ControlMaps) -> None:
    large = fitted(maps, height=192, width=320, num_frames=5).maps
    assert large.optical_flow is not None
    assert maps.optical_flow is not None
    assert large.expansion_centre is not None
    assert maps.expansion_centre is not None
    np.testing.assert_allclose(large.optical_flow[0, ::2, ::2], 2 * maps.optical_flow[0])
    np.testing.assert_allclose(large.expansion_centre, 2 * maps.expansion_centre)


def test_what_is_repeated_stands_still(maps: ControlMaps) -> None:
    longer = fitted(maps, height=96, width=160, num_frames=8).maps
    assert longer.optical_flow is not None
    assert longer.ego_motion is not None
    assert not longer.optical_flow[4:].any()
    assert not longer.ego_motion[5:, :2].any()
    assert longer.depth is not None
    assert maps.depth is not None
    np.testing.assert_array_equal(longer.depth[7], maps.depth[4])


def test_a_box_beyond_the_crop_is_gone() -> None:
    boxes = (Box(instance_id=1, label="car", left=0, top=40, right=20, bottom=60),)
    maps = ControlMaps(edges=np.zeros((1, 100, 200), np.uint8), boxes=(boxes,))
    assert fitted(maps, height=100, width=100, num_frames=1).maps.boxes == ((),)


@pytest.mark.parametrize("field", ["height", "width", "num_frames"])
def test_nothing_is_not_a_size(maps: ControlMaps, field: str) -> None:
    size = {"height": 96, "width": 160, "num_frames": 5} | {field: 0}
    with pytest.raises(RequestError, match=field):
        fitted(maps, **size)
    with pytest.raises(RequestError, match="no maps"):
        fitted(ControlMaps(), height=1, width=1, num_frames=1)
