"""An upload is read once, hashed once and kept once, whoever asks for it afterwards."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.small_training import moving_square

from studio.clips import read as read_module
from studio.clips.limits import ClipLimits
from studio.clips.read import READING_PROGRAM
from studio.clips.reference import check_unchanged
from studio.clips.uploads import FOLDER, Uploads
from studio.clips.write import write_clip
from studio.errors import ClipError, ClipRefused
from studio.finetune.clips import samples_of
from studio.preset import find_preset
from studio.requests.training import TrainingClip, finetune_request_for


@dataclass
class Counted:
    """How often a file was opened by a reading process, and how often one was hashed."""

    log: Path
    hashings: int = 0

    @property
    def readings(self) -> int:
        return len(self.log.read_text(encoding="utf-8"))


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted(tmp_path / "readings")
    counted.log.touch()
    program = tmp_path / "program.py"
    program.write_text(
        f"import runpy\nwith open({str(counted.log)!r}, 'a') as log: log.write('x')\n"
        f"runpy.run_path({str(READING_PROGRAM)!r}, run_name='__main__')\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(read_module, "READING_PROGRAM", program)
    digest = hashlib.file_digest

    def counting(file: io.BufferedReader, name: str) -> object:
        counted.hashings += 1
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return counted


def test_an_upload_is_read_once_and_hashed_once_and_never_hashed_again(tmp_path: Path, counted: Counted) -> None:
    path = moving_square(tmp_path / "square.mp4", 1)
    uploads = Uploads(tmp_path / "runs")
    clip = uploads.take(path, limits=ClipLimits())
    assert (counted.readings, counted.hashings) == (1, 1)
    path.unlink()
    assert uploads.take(clip.path, limits=ClipLimits()) == clip, "the copy, as a page that comes back asks for it"
    assert (counted.readings, counted.hashings) == (2, 1)
    clips = (TrainingClip(path=clip.path, caption="a square"),)
    _, (record,), _ = samples_of(finetune_request_for(find_preset("pocket"), clips=clips, num_frames=9, fps=8.0))
    assert record.sha256 == clip.sha256
    assert (counted.readings, counted.hashings) == (3, 1), "its frames are read for training, its checksum is known"


def test_what_is_taken_says_all_that_a_page_shows_and_a_request_refers_to(tmp_path: Path) -> None:
    path = moving_square(tmp_path / "square.mp4", 1, num_frames=11, size=48, fps=8)
    write_clip(read_module.read_clip(path).clip, path, settings={"caption": "a square"})
    clip = Uploads(tmp_path / "runs").take(path, limits=ClipLimits())
    assert clip.path.read_bytes() == path.read_bytes()
    assert (clip.info.width, clip.info.height, clip.info.num_frames, clip.info.fps) == (48, 48, 11, 8)
    assert clip.settings == {"caption": "a square"}
    picture = cv2.imdecode(np.frombuffer(clip.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (48, 48, 3)
    assert clip.reference.path == clip.path
    assert clip.reference.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    check_unchanged(clip.reference, field="source")


def test_what_cannot_be_read_is_refused_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip", encoding="utf-8")
    with pytest.raises(ClipRefused, match=r"text\.mp4 is text"):
        Uploads(tmp_path / "runs").take(tmp_path / "text.mp4", limits=ClipLimits())
    assert not (tmp_path / "runs").exists()


def test_an_upload_is_kept_once_under_its_content_and_a_safe_name(tmp_path: Path) -> None:
    path = moving_square(tmp_path / "über: <b>.._drive.mp4", 1)
    uploads = Uploads(tmp_path / "runs")
    first = uploads.keep(path)
    assert first.read_bytes() == path.read_bytes()
    assert first.parent.parent == tmp_path / "runs" / FOLDER
    assert set(first.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    again = path.with_name("another name.mp4")
    again.write_bytes(path.read_bytes())
    renamed = uploads.keep(again)
    assert (renamed.parent, renamed.name) == (first.parent, "another-name.mp4"), "a person finds it by its own name"
    assert renamed.samefile(first), "and it takes no more room"
    assert uploads.keep(again) == uploads.keep(renamed) == renamed
    path.unlink()
    assert first.is_file(), "it stays when the upload goes"
    with pytest.raises(ClipError, match="cannot be read"):
        uploads.keep(path)
