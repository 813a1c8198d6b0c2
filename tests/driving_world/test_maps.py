"""The control maps measure the very frames they come with."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from studio.clips.clip import Clip
from studio.clips.control_maps import ControlMaps
from studio.driving_world import Scene, render_with_maps, sample_scene
from studio.driving_world.camera import EYE_METRES, Camera
from studio.driving_world.palette import VEHICLE_PAINTS
from studio.driving_world.traffic import Follow

SEEDS = (0, 3, 11, 42, 500, 513)


@cache
def _by_day(seed: int) -> tuple[Scene, Clip, ControlMaps]:
    scene = sample_scene(seed, time_of_day="day", weather="clear")
    return (scene, *render_with_maps(scene, num_frames=6))


def _labelled(maps: ControlMaps, label: str) -> np.ndarray:
    assert maps.semantic is not None
    return maps.semantic == maps.semantic_labels.index(label)


def _inner(mask: np.ndarray) -> np.ndarray:
    """A mask, (H, W), without the pixels on its rim, whose colours are mixed by anti-aliasing."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_map_has_the_size_of_the_clip(seed: int) -> None:
    _, clip, maps = _by_day(seed)
    shape = clip.frames.shape[:3]
    assert maps.depth is not None
    assert maps.optical_flow is not None
    assert maps.ego_motion is not None
    assert maps.boxes is not None
    assert maps.depth.shape == shape
    assert maps.depth.dtype == np.float32
    assert maps.optical_flow.shape == (*shape, 2)
    assert maps.optical_flow.dtype == np.float32
    assert np.isfinite(maps.optical_flow).all()
    assert maps.ego_motion.shape == (shape[0], 3)
    assert len(maps.boxes) == shape[0]
    for array in (maps.semantic, maps.lane_lines, maps.edges):
        assert array is not None
        assert array.shape == shape
        assert array.dtype == np.uint8


@pytest.mark.parametrize("seed", SEEDS)
def test_pixels_have_the_colours_of_what_they_are_labelled(seed: int) -> None:
    _, clip, maps = _by_day(seed)
    colours = {
        label: clip.frames[0][_inner(_labelled(maps, label)[0])].astype(float) for label in ("sky", "road", "lane_line")
    }
    sky, road, line = (colours[label] for label in ("sky", "road", "lane_line"))
    assert (sky[:, 2] > 190).all(), "the sky is blue or a white cloud"
    assert np.median(np.ptp(road, axis=1)) < 25, "asphalt is grey"
    assert np.median(line.max(axis=1)) > np.median(road.max(axis=1)) + 60, "paint is brighter than asphalt"


@pytest.mark.parametrize("colour", ["red", "blue", "yellow", "green"])
@pytest.mark.parametrize("kind", ["car", "truck", "bus"])
def test_the_main_vehicle_is_where_its_box_and_label_say_in_its_own_colour(kind: str, colour: str) -> None:
    scene = sample_scene(
        9,
        time_of_day="day",
        weather="clear",
        vehicle_type=kind,
        vehicle_colour=colour,
        vehicle_action="drives ahead",
        road="straight",
    )
    clip, maps = render_with_maps(scene, num_frames=2)
    assert maps.boxes is not None
    box = next(box for box in maps.boxes[0] if box.instance_id == 1)
    assert box.label == kind
    rows, columns = np.nonzero(_labelled(maps, kind)[0])
    inside = (columns + 1 > box.left) & (columns < box.right) & (rows + 1 > box.top) & (rows < box.bottom)
    assert inside.mean() > 0.9
    within = np.zeros(clip.frames.shape[1:3], bool)
    within[round(box.top) : round(box.bottom), round(box.left) : round(box.right)] = True
    body = clip.frames[0][within & _inner(_labelled(maps, kind)[0])].astype(float)
    paint = np.array(VEHICLE_PAINTS[colour])
    likeness = (body @ paint) / (np.linalg.norm(body, axis=1) * np.linalg.norm(paint))
    assert (likeness > 0.97).mean() > 0.25


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lead_vehicle_is_as_deep_as_its_gap(seed: int) -> None:
    scene = sample_scene(seed, vehicle_action="drives ahead", road="straight", vehicle_type="car", weather="clear")
    _, maps = render_with_maps(scene, num_frames=2)
    assert maps.depth is not None
    assert maps.boxes is not None
    manoeuvre = scene.vehicles[0].manoeuvre
    assert isinstance(manoeuvre, Follow)
    box = next(box for box in maps.boxes[0] if box.instance_id == 1)
    row, column = round((box.top + box.bottom) / 2), round((box.left + box.right) / 2)
    # The gap is reckoned to the middle of a car 4.2 metres long, of which the rear is seen.
    assert maps.depth[0, row, column] == pytest.approx(manoeuvre.gap_start - 2.1, abs=0.3)


@pytest.mark.parametrize("seed", SEEDS)
def test_ground_is_as_deep_as_a_level_camera_says_and_the_sky_is_infinitely_far(seed: int) -> None:
    _, clip, maps = _by_day(seed)
    assert maps.depth is not None
    camera = Camera(height=clip.height, width=clip.width)
    rows = np.arange(clip.height)[:, None] + 0.5
    expected = EYE_METRES * camera.focal / np.maximum(rows - camera.horizon_y, 1e-3) + np.zeros(clip.width)
    for label in ("road", "lane_line", "pavement"):
        seen = _labelled(maps, label)[0] & (expected < 1000)
        assert seen.any()
        assert np.allclose(maps.depth[0][seen], expected[seen], rtol=1e-4)
    assert np.isinf(maps.depth[_labelled(maps, "sky")]).all()
    upright = ~np.isinf(maps.depth)
    assert (maps.depth[upright] > 0).all()


def _not_covered_next(maps: ControlMaps, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel lands in the next frame, and which pixels still show there what they show here."""
    assert maps.optical_flow is not None
    assert maps.semantic is not None
    height, width = maps.semantic.shape[1:]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    to_x, to_y = x + maps.optical_flow[frame, ..., 0], y + maps.optical_flow[frame, ..., 1]
    inside = (to_x >= 1) & (to_x <= width - 2) & (to_y >= 1) & (to_y <= height - 2)
    column, row = np.clip(np.rint(to_x), 0, width - 1).astype(int), np.clip(np.rint(to_y), 0, height - 1).astype(int)
    same = maps.semantic[frame + 1][row, column] == maps.semantic[frame]
    return to_x, to_y, inside & same


@pytest.mark.parametrize("seed", SEEDS)
def test_flow_warps_the_next_frame_onto_this_one(seed: int) -> None:
    scene = sample_scene(seed, time_of_day="day", weather="clear")
    clip, maps = render_with_maps(scene, num_frames=4, height=256, width=256)
    now, following = clip.frames[2].astype(np.float32), clip.frames[3].astype(np.float32)
    to_x, to_y, kept = _not_covered_next(maps, 2)
    warped = cv2.remap(following, to_x, to_y, cv2.INTER_LINEAR)
    with_flow, without = np.abs(warped - now).mean(axis=-1)[kept], np.abs(following - now).mean(axis=-1)[kept]
    assert with_flow.mean() < 1.6
    changed = without > 20
    assert changed.sum() > 100
    assert with_flow[changed].mean() < 0.4 * without[changed].mean()


@pytest.mark.parametrize("kind", ["crosses", "overtakes", "turns", "approaches"])
def test_flow_follows_a_vehicle_that_moves_by_itself(kind: str) -> None:
    scene = sample_scene(
        4, time_of_day="day", weather="clear", vehicle_action=kind, vehicle_type="bus", vehicle_colour="red"
    )
    clip, maps = render_with_maps(scene, num_frames=10)
    to_x, to_y, kept = _not_covered_next(maps, 8)
    vehicle = _inner(_labelled(maps, "bus")[8]) & kept
    assert vehicle.sum() > 40
    now, following = clip.frames[8].astype(np.float32), clip.frames[9].astype(np.float32)
    warped = cv2.remap(following, to_x, to_y, cv2.INTER_LINEAR)
    with_flow = np.abs(warped - now).mean(axis=-1)[vehicle].mean()
    assert with_flow < 8
    assert with_flow < 0.6 * np.abs(following - now).mean(axis=-1)[vehicle].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_and_ego_motion_foretell_the_flow_of_what_stands_still(seed: int) -> None:
    _, clip, maps = _by_day(seed)
    assert maps.depth is not None
    assert maps.optical_flow is not None
    assert maps.ego_motion is not None
    camera = Camera(height=clip.height, width=clip.width)
    building = _labelled(maps, "building")[2] | _labelled(maps, "road")[2] & (maps.depth[2] < 60)
    rows, columns = np.nonzero(building)
    z = maps.depth[2][building]
    x = (columns + 0.5 - camera.centre_x) / camera.focal * z
    speed, yaw_rate, _ = maps.ego_motion[2:4].mean(axis=0)
    turn = yaw_rate / clip.fps
    ahead = z - speed / clip.fps
    forward, right = ahead * np.cos(turn) - x * np.sin(turn), x * np.cos(turn) + ahead * np.sin(turn)
    moved = camera.centre_x + camera.focal * right / forward - (columns + 0.5)
    near_middle = np.abs(moved) < 8
    # The driver's slight sway is not in the yaw rate, and comes to a fraction of a pixel.
    assert np.abs(moved - maps.optical_flow[2][building][:, 0])[near_middle].mean() < 0.6
    assert len(rows) > 100


def test_the_last_frame_has_no_flow() -> None:
    _, _, maps = _by_day(0)
    assert maps.optical_flow is not None
    assert not maps.optical_flow[-1].any()


def test_a_hidden_vehicle_shows_less_of_itself_than_one_in_the_open() -> None:
    fractions: list[float] = []
    for seed in range(12):
        _, maps = render_with_maps(sample_scene(seed), num_frames=1)
        assert maps.boxes is not None
        for box in maps.boxes[0]:
            assert 0 < box.visible_fraction <= 1
            assert box.right > box.left
            assert box.bottom > box.top
            fractions.append(box.visible_fraction)
            if box.instance_id == 1:
                assert box.visible_fraction > 0.3, "the main vehicle is in the open"
    assert min(fractions) < 0.9, "something is partly hidden somewhere"


@pytest.mark.parametrize("weather", ["rain", "fog", "snow"])
def test_weather_and_light_leave_the_maps_as_they_are(weather: str) -> None:
    _, clear = render_with_maps(sample_scene(6, weather="clear", time_of_day="day"), num_frames=2)
    _, other = render_with_maps(sample_scene(6, weather=weather, time_of_day="night"), num_frames=2)
    assert clear.semantic is not None
    assert other.semantic is not None
    assert (clear.semantic != other.semantic).mean() < 0.01


def test_edges_follow_the_borders_of_what_is_labelled() -> None:
    _, _, maps = _by_day(3)
    assert maps.edges is not None
    assert maps.semantic is not None
    changes = maps.semantic[:, :, 1:] != maps.semantic[:, :, :-1]
    assert (maps.edges[:, :, :-1][changes] == 255).all()
    assert 0.01 < (maps.edges == 255).mean() < 0.3


def test_a_standing_car_reports_no_speed_and_a_left_bend_a_left_turn() -> None:
    _, maps = render_with_maps(sample_scene(8, vehicle_action="crosses"), num_frames=40)
    assert maps.ego_motion is not None
    assert maps.ego_motion[-1, 0] < 0.3
    for road, sign in (("left curve", 1), ("right curve", -1)):
        _, maps = render_with_maps(sample_scene(8, road=road), num_frames=3)
        assert maps.ego_motion is not None
        assert (sign * maps.ego_motion[:, 1:] > 0.02).all()
