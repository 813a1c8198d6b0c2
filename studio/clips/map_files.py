"""Files of maps: exact numbers in one .npz, which NumPy reads anywhere, written whole and read with care.

What comes from outside may be anything: nothing in it is ever run, and how much it will be is known before it is
unpacked. Knows the file. Refuses to know who made it.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from studio.clips.control_maps import ARRAYS, MAP_NAMES, Box, ControlMaps, MapName
from studio.errors import MapsError
from studio.storage import whole

ENDING = ".npz"
MOST_BYTES = 3_000_000_000
"""Of the unpacked arrays together."""
_ZIP = b"PK\x03\x04"
_BESIDES = ("boxes", "semantic_labels", "fps")
_MOST_BOXES = 20_000


def write_maps(maps: ControlMaps, path: Path) -> None:
    """Whole or not at all; equal maps give equal bytes.

    Raises:
        DiskFull, StorageError
    """
    arrays: dict[str, np.ndarray] = {name: array for name in ARRAYS if (array := getattr(maps, name)) is not None}
    if maps.boxes is not None:
        arrays["boxes"] = np.array(json.dumps([[asdict(box) for box in frame] for frame in maps.boxes]))
    if maps.semantic_labels:
        arrays["semantic_labels"] = np.array(maps.semantic_labels)
    if maps.fps is not None:
        arrays["fps"] = np.array(maps.fps)
    with whole(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            # A bare ZipInfo bears no date, so that equal maps are equal files.
            info = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(info, member.getbuffer(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=1)


def is_file_of_maps(path: Path) -> bool:
    """Whether it begins as one does; everything else is taken for a film."""
    try:
        with path.open("rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError:
        return False


def maps_named_in(path: Path) -> tuple[MapName, ...]:
    """Which maps a file says that it holds, in the usual order; nothing is unpacked.

    Raises:
        MapsError: it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {each.removesuffix(".npy") for each in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _refused(path, f"it cannot be read ({str(error)[:120]})") from error
    return tuple(name for name in MAP_NAMES if name in names)


def read_maps(path: Path) -> ControlMaps:
    """Maps that `write_maps` wrote, or somebody else under the same names.

    Raises:
        MapsError: it is no such file, it holds what no map is, or too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unknown = [
                each.filename for each in members if each.filename.removesuffix(".npy") not in (*ARRAYS, *_BESIDES)
            ]
            if unknown or not members:
                raise _refused(path, f"it holds {unknown[0][:60]!r}, which is no map" if unknown else "it is empty")
            if sum(each.file_size for each in members) > MOST_BYTES:
                raise _refused(path, f"it unpacks to more than {MOST_BYTES / 1e9:g} GB")
            fields = {each.filename.removesuffix(".npy"): _array_in(archive, each, path) for each in members}
        return _maps_of(fields)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError) as error:
        raise _refused(path, f"it cannot be read ({str(error)[:120]})") from error


def _refused(path: Path, why: str) -> MapsError:
    return MapsError(
        f"{path.name} is no file of maps: {why}.",
        field="maps",
        value=path.name,
        way_out=f"Give an {ENDING} that the studio wrote, or one with these arrays: {', '.join(ARRAYS)}.",
    )


def _array_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    with archive.open(member) as file:
        shape, dtype = _announced(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
            raise _refused(path, f"{member.filename[:60]!r} is not the array that it says it is")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _announced(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _maps_of(fields: dict[str, np.ndarray]) -> ControlMaps:
    """Raises ValueError, KeyError or TypeError where they are none."""
    written: dict[str, Any] = {name: fields[name] for name in ARRAYS if name in fields}
    if "boxes" in fields:
        written["boxes"] = _boxes_of(json.loads(str(fields["boxes"])))
    if "semantic_labels" in fields:
        written["semantic_labels"] = tuple(str(label)[:40] for label in fields["semantic_labels"].ravel()[:256])
    if "fps" in fields:
        written["fps"] = float(fields["fps"])
    maps = ControlMaps(**written)
    if maps.semantic is not None and maps.semantic.size and int(maps.semantic.max()) >= len(maps.semantic_labels):
        raise ValueError(f"semantic has a class {int(maps.semantic.max())} without a name")
    return maps


def _boxes_of(frames: Any) -> tuple[tuple[Box, ...], ...]:
    if not isinstance(frames, list) or sum(len(frame) for frame in frames) > _MOST_BOXES:
        raise ValueError("boxes are a list of boxes for each frame, and not so many")
    return tuple(tuple(_box_of(record) for record in frame) for frame in frames)


def _box_of(record: dict[str, Any]) -> Box:
    box = Box(**record)
    numbers = (box.left, box.top, box.right, box.bottom, box.visible_fraction)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise ValueError("a box without its numbers")
    if not isinstance(box.instance_id, int) or not isinstance(box.label, str) or len(box.label) > 40:
        raise ValueError("a box without a number or a name")
    return box
