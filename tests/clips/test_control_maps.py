"""Control maps as a type and as a file: exact there and back, and whatever else is in a file is refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from studio.clips import map_files
from studio.clips.control_maps import ControlMaps, only
from studio.clips.map_files import read_maps, write_maps
from studio.driving_world import render_with_maps, sample_scene
from studio.errors import MapsError


@pytest.fixture(scope="module")
def maps() -> ControlMaps:
    return render_with_maps(sample_scene(904), height=48, width=64, num_frames=3)[1]


def test_maps_come_back_from_their_file_as_they_were(maps: ControlMaps, tmp_path: Path) -> None:
    write_maps(maps, tmp_path / "maps.npz")
    back = read_maps(tmp_path / "maps.npz")
    for field in fields(ControlMaps):
        was, now = getattr(maps, field.name), getattr(back, field.name)
        if isinstance(was, np.ndarray):
            np.testing.assert_array_equal(now, was)
            assert now.dtype == was.dtype
        else:
            assert now == was, field.name
    first = (tmp_path / "maps.npz").read_bytes()
    write_maps(back, tmp_path / "maps.npz")
    assert (tmp_path / "maps.npz").read_bytes() == first


def test_which_maps_there_are_and_how_large(maps: ControlMaps) -> None:
    assert maps.names == ("edges", "lane_lines", "depth", "semantic", "optical_flow", "boxes", "ego_motion")
    assert (maps.num_frames, maps.size, maps.fps) == (3, (48, 64), 12.0)
    few = only(maps, ("semantic", "ego_motion"))
    assert few.names == ("semantic", "ego_motion")
    assert few.semantic_labels == maps.semantic_labels
    assert few.expansion_centre is maps.expansion_centre
    assert (ControlMaps().names, ControlMaps().num_frames, ControlMaps().size) == ((), 0, None)


def test_the_world_knows_where_its_motion_leads_to(maps: ControlMaps) -> None:
    assert maps.expansion_centre is not None
    assert np.allclose(maps.expansion_centre[:, 1], 0.45 * 48)
    assert (np.abs(maps.expansion_centre[:, 0] - 32) < 32).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"edges": np.zeros((2, 4, 4), np.float32)},
        {"edges": np.zeros((2, 4), np.uint8)},
        {"edges": np.zeros((2, 4, 4), np.uint8), "layout": np.zeros((2, 4, 5), np.uint8)},
        {"edges": np.zeros((2, 4, 4), np.uint8), "boxes": ((),)},
        {"optical_flow": np.zeros((2, 4, 4, 3), np.float32)},
        {"semantic": np.zeros((2, 4, 4), np.uint8)},
        {"ego_motion": np.zeros((2, 3), np.float32), "expansion_centre": np.zeros((3, 2), np.float32)},
        {"fps": float("nan")},
    ],
)
def test_arrays_that_do_not_fit_are_no_maps(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|one size|as many|needs"):
        ControlMaps(**wrong)  # type: ignore[arg-type]


def _zip_with(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def _npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=pickled)
    return file.getvalue()


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a file of maps was run",))


def test_a_file_from_anyone_is_read_with_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.npz"
    edges = _npy(np.zeros((1, 4, 4), np.uint8))
    huge = edges.replace(b"(1, 4, 4)", b"(9999, 99999, 9999)".ljust(9))
    bad_box = json.dumps([[{"instance_id": 1, "label": "car", "left": None, "top": 0, "right": 1, "bottom": 1}]])
    for content in (
        {"edges": pickle.dumps(_Harm())},
        {"edges": _npy(np.array([_Harm()], object), pickled=True)},
        {"edges": edges[:-4]},
        {"edges": huge},
        {"stranger": edges},
        {"edges": _npy(np.zeros((1, 4, 4), np.float64))},
        {"edges": edges, "boxes": _npy(np.array(bad_box))},
        {"edges": edges, "boxes": _npy(np.array("[[{}]]"))},
        {"edges": edges, "boxes": _npy(np.array("no json"))},
        {"semantic": _npy(np.full((1, 4, 4), 7, np.uint8)), "semantic_labels": _npy(np.array(["sky"]))},
        {"edges": edges, "fps": _npy(np.array(np.inf))},
        {},
    ):
        with pytest.raises(MapsError, match=r"bad\.npz is no file of maps"):
            read_maps(_zip_with(path, **content))
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(MapsError, match="cannot be read"):
        read_maps(path)
    monkeypatch.setattr(map_files, "MOST_BYTES", 100)
    with pytest.raises(MapsError, match="unpacks to more"):
        read_maps(_zip_with(path, edges=edges))
