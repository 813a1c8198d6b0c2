"""Maps as films: written with what they show, read back, and recognised where nobody says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.clip_corpus import picture
from support.maps import f1

from studio.clips.clip import Clip
from studio.clips.control_maps import MAP_NAMES, ControlMaps, MapName
from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.control_maps import over, painted, read_control_video, write_control_video
from studio.control_maps.control_videos import READABLE
from studio.control_maps.layout import layout
from studio.driving_world import render_with_maps, sample_scene
from studio.errors import ClipRefused, RequestError


@pytest.fixture(scope="module")
def world() -> tuple[Clip, ControlMaps]:
    scene = sample_scene(904, time_of_day="day", weather="clear")
    clip, exact = render_with_maps(scene, height=192, width=320, num_frames=5)
    return clip, replace(exact, layout=np.stack([layout(frame) for frame in clip.frames]))


def test_every_map_is_painted_at_the_clips_size(world: tuple[Clip, ControlMaps]) -> None:
    clip, maps = world
    for name in maps.names:
        pictures = painted(maps, name)
        assert pictures.shape == clip.frames.shape
        assert pictures.dtype == np.uint8
        assert pictures.any()
        assert over(clip.frames, pictures).shape == clip.frames.shape
    with pytest.raises(RequestError, match="There is no control video among these maps"):
        painted(maps, "control_video")


def test_near_is_white_far_is_dark_and_what_is_not_known_is_black() -> None:
    depth = np.array([[[4, 8, 40, np.inf, np.nan]]], np.float32)
    assert painted(ControlMaps(depth=depth), "depth")[0, 0, :, 0].tolist() == [255, 128, 26, 0, 0]


def test_flow_that_is_not_known_is_black() -> None:
    flow = np.full((1, 4, 4, 2), 3, np.float32)
    known = np.zeros((1, 4, 4), bool)
    known[0, 0] = True
    pictures = painted(ControlMaps(optical_flow=flow, optical_flow_known=known), "optical_flow")
    assert pictures[0, 0].any()
    assert not pictures[0, 1:].any()


@pytest.mark.parametrize("name", READABLE[:-1])
@pytest.mark.parametrize("says", ["file", "looks", "person"])
def test_a_control_video_is_read_back_as_the_map_that_it_shows(
    name: MapName, says: str, world: tuple[Clip, ControlMaps], tmp_path: Path
) -> None:
    _, maps = world
    path = tmp_path / "control.mp4"
    write_control_video(maps, name, path)
    if says != "file":  # as another program would write it
        write_clip(read_clip(path).clip, path)
    taken = read_control_video(path, kind=name if says == "person" else None)
    if says == "looks" and name == "lane_lines":
        assert taken.kind == "edges"  # thin and white, as edges are
        return
    assert taken.kind == name
    reason = {"file": "as the file itself says", "person": "as it was said to be", "looks": "it is|its colours"}[says]
    assert any(part in taken.notices[0] for part in reason.split("|"))
    found, exact = getattr(taken.maps, name), getattr(maps, name)
    if name in ("edges", "lane_lines"):
        assert f1(found, exact, tolerance=0) > 0.97
    elif name == "layout":
        assert np.abs(found.astype(int) - exact).mean() < 2
    elif name == "depth":
        near = exact < 30
        assert np.median(np.abs(found[near] / exact[near] - 1)) < 0.06
        assert np.isinf(found[np.isinf(exact)]).mean() > 0.95
    else:
        labels = np.array(taken.maps.semantic_labels)
        assert (labels[found] == np.array(maps.semantic_labels)[exact]).mean() > 0.95
    assert taken.maps.fps == pytest.approx(12)


def test_other_pictures_are_kept_as_they_came_and_that_is_said(world: tuple[Clip, ControlMaps], tmp_path: Path) -> None:
    clip, maps = world
    mask = np.zeros((4, 64, 64, 3), np.uint8)
    mask[:, :40] = 255
    posterised = (np.stack([picture(n) for n in range(4)]) // 128 * 127 + 64).astype(np.uint8)
    for name, frames in (
        ("film", clip.frames),
        ("grey", np.repeat(clip.frames[..., 1:2], 3, -1)),
        ("mask", mask),
        ("foreign", posterised),
        ("flow", painted(maps, "optical_flow")),
    ):
        write_clip(Clip(frames=frames, fps=12), tmp_path / f"{name}.mp4")
        taken = read_control_video(tmp_path / f"{name}.mp4")
        assert taken.maps.names == ("control_video",), name
        assert taken.maps.control_video is not None
        assert np.abs(taken.maps.control_video.astype(int) - frames).mean() < 12
        assert "kept as it came" in taken.notices[0]


def test_of_depth_from_elsewhere_it_is_said_that_metres_are_not_known(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 200, 96).astype(np.uint8)[:, None], (1, 128))
    ramp = cv2.rectangle(ramp, (40, 30), (70, 80), 230, -1)
    write_clip(Clip(frames=np.repeat(ramp[None, ..., None], 3, -1).repeat(3, 0), fps=12), tmp_path / "depth.mp4")
    taken = read_control_video(tmp_path / "depth.mp4")
    assert taken.kind == "depth"
    assert "only nearer and farther is known" in taken.notices[-1]


def test_odd_sizes_come_back_as_they_were(tmp_path: Path) -> None:
    edges = np.zeros((2, 33, 47), np.uint8)
    edges[:, 10] = 255
    write_control_video(ControlMaps(edges=edges, fps=10.0), "edges", tmp_path / "odd.mp4")
    assert read_clip(tmp_path / "odd.mp4").clip.frames.shape == (2, 34, 48, 3)
    taken = read_control_video(tmp_path / "odd.mp4")
    np.testing.assert_array_equal(taken.maps.edges, edges)


def test_numbers_that_no_picture_holds_are_not_guessed(world: tuple[Clip, ControlMaps], tmp_path: Path) -> None:
    write_control_video(world[1], "optical_flow", tmp_path / "flow.mp4")
    for name in set(MAP_NAMES) - set(READABLE):
        with pytest.raises(RequestError, match="its numbers are not in them"):
            read_control_video(tmp_path / "flow.mp4", kind=name)
    assert read_control_video(tmp_path / "flow.mp4").kind == "control_video"
    (tmp_path / "no.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(ClipRefused):
        read_control_video(tmp_path / "no.mp4")
