"""What is extracted from a clip of the driving world is what the world says is there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from support.maps import box_iou, extracted, f1, iou, result_of

from studio.clips.clip import Clip
from studio.clips.control_maps import EXTRACTED, ControlMaps
from studio.control_maps import DrawnBox, extract
from studio.control_maps.depth import depth
from studio.control_maps.regions import LABELS, ROAD, SKY
from studio.driving_world import render_with_maps, sample_scene

SEEDS = (901, 904, 906)
HEIGHT, WIDTH = 192, 336


@cache
def _world(seed: int, num_frames: int = 7, *, height: int = HEIGHT, width: int = WIDTH) -> tuple[Clip, ControlMaps]:
    scene = sample_scene(seed, time_of_day="day", weather="clear")
    return render_with_maps(scene, height=height, width=width, num_frames=num_frames)


def _is(maps: ControlMaps, *labels: str) -> np.ndarray:
    return np.isin(maps.semantic, [maps.semantic_labels.index(label) for label in labels])


ON_ROAD = ("road", "lane_line", "road_marking")


def test_edges_lie_where_regions_meet() -> None:
    scores = []
    for seed in SEEDS:
        clip, exact = _world(seed)
        maps = extracted(clip, "edges").maps
        scores.append(f1(maps.edges, exact.edges))
        other = _world(SEEDS[SEEDS.index(seed) - 1])[1].edges
        assert scores[-1] > f1(maps.edges, other) + 0.1
    assert np.mean(scores) > 0.6


def test_lanes_are_the_paint_that_leads_ahead() -> None:
    scores = []
    for seed in SEEDS:
        clip, exact = _world(seed)
        maps = extracted(clip, "lane_lines").maps
        scores.append(f1(maps.lane_lines, exact.lane_lines))
    assert np.mean(scores) > 0.7


def test_our_own_lane_lies_between_two_lines_that_meet_at_the_horizon() -> None:
    clip, _ = _world(904)
    extraction = extracted(clip, "lane_lines")
    own = extraction.maps.own_lane
    assert own is not None
    assert np.isfinite(own).all()
    assert any("Both lines of our lane were found in" in notice for notice in extraction.notices)
    left, right = own[:, 0], own[:, 1]
    assert (left[:, 1, 0] < WIDTH / 2).all()
    assert (right[:, 1, 0] > WIDTH / 2).all()
    assert (left[:, 0, 0] < right[:, 0, 0]).all()  # they do not cross on the road
    lean = (left[:, 1] - left[:, 0], right[:, 1] - right[:, 0])
    slopes = [each[:, 0] / each[:, 1] for each in lean]
    up = (right[:, 1, 0] - left[:, 1, 0]) / (slopes[1] - slopes[0])
    assert abs(np.median(HEIGHT - up) - 0.45 * HEIGHT) < 0.06 * HEIGHT


def _column_at(line: np.ndarray, row: float) -> np.ndarray:
    """Where straight lines, (…, 2, 2), pass that row."""
    far, near = line[..., 0, :], line[..., 1, :]
    share = (row - far[..., 1]) / (near[..., 1] - far[..., 1])
    return far[..., 0] + share * (near[..., 0] - far[..., 0])


def test_our_own_lane_is_found_where_the_world_says_it_is() -> None:
    off = []
    for seed in (904, 905, 906, 909, 915):
        clip, exact = _world(seed)
        maps = extracted(clip, "lane_lines").maps
        assert maps.own_lane is not None
        assert exact.own_lane is not None
        assert exact.lane_lines is not None
        off.append(_column_at(maps.own_lane, 0.75 * HEIGHT) - _column_at(exact.own_lane, 0.75 * HEIGHT))
    assert np.nanmedian(np.abs(off)) < 6  # of 336 columns


def test_flow_is_better_where_its_mask_trusts_it_and_the_last_frame_has_none() -> None:
    for seed in SEEDS:
        clip, exact = _world(seed)
        maps = extracted(clip, "optical_flow").maps
        assert maps.optical_flow is not None
        assert maps.optical_flow_known is not None
        assert exact.optical_flow is not None
        error = np.linalg.norm(maps.optical_flow - exact.optical_flow, axis=-1)[:-1]
        known = maps.optical_flow_known[:-1]
        assert 0.3 < known.mean() < 1
        assert error[known].mean() < 0.75 * error[~known].mean()
        assert not maps.optical_flow_known[-1].any()
        assert not maps.optical_flow[-1].any()


def test_ego_motion_says_where_to_how_fast_and_which_way_it_turns() -> None:
    off, ratios, signs = [], [], []
    for seed in range(900, 912):
        clip, exact = _world(seed, 3, height=256, width=448)
        maps = extracted(clip, "ego_motion").maps
        assert maps.ego_motion is not None
        assert maps.expansion_centre is not None
        assert exact.ego_motion is not None
        assert exact.expansion_centre is not None
        off.append(np.abs(maps.expansion_centre[0] - exact.expansion_centre[0]))
        told = np.isfinite(maps.ego_motion[:-1, 0]) & (exact.ego_motion[:-1, 0] > 1)
        ratios += (maps.ego_motion[:-1, 0] / exact.ego_motion[:-1, 0])[told].tolist()
        if abs(exact.ego_motion[0, 1]) > 0.03:
            signs.append(np.sign(maps.ego_motion[0, 1]) == np.sign(exact.ego_motion[0, 1]))
    assert (np.nanmedian(off, axis=0) < (10, 4)).all()  # of 448 and 256 pixels
    assert len(ratios) >= 2  # the world's road has hardly a corner to be followed
    assert 0.8 < np.median(ratios) < 1.25
    assert len(signs) >= 3
    assert np.mean(signs) >= 0.75


def test_a_car_that_stands_has_no_centre_of_motion() -> None:
    clip, _ = _world(904)
    standing = Clip(frames=np.repeat(clip.frames[:1], 5, axis=0), fps=12.0)
    maps = extracted(standing, "ego_motion").maps
    assert maps.ego_motion is not None
    assert maps.expansion_centre is not None
    assert (maps.ego_motion[:, :2] == 0).all()
    assert np.isnan(maps.expansion_centre).all()


def test_road_and_sky_are_told_from_the_rest_in_every_frame() -> None:
    roads, skies = [], []
    for seed in SEEDS:
        clip, exact = _world(seed)
        maps = extracted(clip, "semantic").maps
        assert maps.semantic is not None
        assert maps.semantic_labels == LABELS
        road, sky = maps.semantic == ROAD, maps.semantic == SKY
        roads.append(iou(road, _is(exact, *ON_ROAD)))
        skies.append(iou(sky, _is(exact, "sky")))
        shares = sky.mean(axis=(1, 2))
        assert np.abs(np.diff(shares)).max() < 0.05  # it does not come and go
    assert np.mean(roads) > 0.75
    assert np.mean(skies) > 0.75


def test_depth_follows_from_the_road_and_the_sky_is_infinitely_far() -> None:
    clip, exact = _world(904)
    maps = extracted(clip, "depth", "semantic").maps
    assert maps.depth is not None
    assert exact.depth is not None
    both = (maps.semantic == ROAD) & _is(exact, "road") & (exact.depth < 40)
    ratio = maps.depth[both] / exact.depth[both]
    assert 0.85 < np.median(ratio) < 1.18
    assert np.isinf(maps.depth[maps.semantic == SKY]).all()
    assert np.isfinite(maps.depth[maps.semantic == ROAD]).all()


def test_what_stands_on_the_road_has_the_depth_of_its_foot() -> None:
    classes = np.zeros((100, 60), np.uint8)
    classes[:40] = SKY
    classes[50:] = ROAD
    classes[55:80, 20:40] = 0  # a car
    found = depth(classes, 45.0)
    car = found[60:80, 20:40]
    assert np.ptp(car) == 0
    assert car[0, 0] == pytest.approx(found[80, 30])
    assert found[79, 50] > found[90, 50]
    assert np.isinf(found[0, 0])


def test_where_nothing_says_what_is_road_depth_is_not_known() -> None:
    found = depth(np.zeros((20, 20), np.uint8), 9.0)
    assert np.isnan(found).all()
    assert np.isnan(depth(np.full((20, 20), ROAD, np.uint8), np.nan)).all()


def test_a_drawn_box_follows_its_car_to_both_ends_of_the_clip() -> None:
    for seed in (904, 906):
        clip, exact = _world(seed, 13)
        assert exact.boxes is not None
        middle = next(box for box in exact.boxes[6] if box.label in ("car", "bus") and box.width > 24)
        maps = extracted(clip, "boxes", drawn=(DrawnBox(frame=6, box=middle),)).maps
        assert maps.boxes is not None
        overlaps = [
            box_iou(found[0], next(box for box in there if box.instance_id == middle.instance_id))
            for found, there in zip(maps.boxes, exact.boxes, strict=True)
        ]
        assert min(overlaps) > 0.7


def test_a_thing_that_is_gone_has_no_box() -> None:
    clip, exact = _world(904)
    assert exact.boxes is not None
    frames = clip.frames.copy()
    frames[4:] = np.random.default_rng(0).integers(0, 255, frames[4:].shape, np.uint8)
    drawn = (DrawnBox(frame=0, box=exact.boxes[0][0]),)
    maps = extracted(Clip(frames=frames, fps=12.0), "boxes", drawn=drawn).maps
    assert maps.boxes is not None
    assert [len(frame) for frame in maps.boxes] == [1, 1, 1, 1, 0, 0, 0]


def test_only_what_is_asked_for_is_there_and_progress_comes_to_its_end() -> None:
    clip, _ = _world(904)
    work = extract(clip.frames, fps=12.0, names=("depth", "layout"))
    steps = []
    try:
        while True:
            steps.append(next(work))
    except StopIteration as ended:
        maps = ended.value.maps
    assert maps.names == ("layout", "depth")
    assert maps.own_lane is None
    assert steps[-1].done == steps[-1].total
    assert [step.done for step in steps] == sorted(step.done for step in steps)


@pytest.mark.parametrize("shape", [(1, 48, 64), (2, 34, 130), (3, 33, 47)])
@pytest.mark.parametrize("kind", ["noise", "black"])
def test_any_picture_has_maps_of_its_size(shape: tuple[int, int, int], kind: str) -> None:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (*shape, 3), np.uint8) if kind == "noise" else np.zeros((*shape, 3), np.uint8)
    names = tuple(name for name in EXTRACTED if name != "boxes")
    maps = result_of(extract(frames, fps=25.0, names=names)).maps
    assert maps.names == names
    assert maps.size == shape[1:]
    assert maps.num_frames == shape[0]
