"""Films: pictures of any number pass one by one, and what is not pixels is as it was."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clip_corpus import picture
from support.films import TICKS, UNEVEN, packets_of, seconds_of, with_everything, write_pictures

from studio.clips.film import Film, FilmInfo, Picture, PictureWriter, join
from studio.clips.read import read_clip, read_settings
from studio.errors import ClipRefused


def doubled(path: Path, folder: Path, *, a_part: int = 4) -> tuple[list[Path], FilmInfo]:
    """Each pixel four times, in parts of so many pictures."""
    parts: list[Path] = []
    with Film(path) as film:
        pictures = [Picture(each.pixels.repeat(2, 0).repeat(2, 1), each.pts) for each in film]
    for number in range(0, len(pictures), a_part):
        parts.append(folder / f"{number:06d}.nut")
        height, width = pictures[0].pixels.shape[:2]
        with PictureWriter(parts[-1], film.info, height=height, width=width) as writer:
            for each in pictures[number : number + a_part]:
                writer.write(each)
    return parts, film.info


def test_every_picture_comes_once_with_the_timestamp_it_has(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mp4")
    with Film(path) as film:
        pictures = list(film)
    assert [each.pts * film.info.time_base for each in pictures] == [Fraction(stamp, TICKS) for stamp in UNEVEN]
    for index, each in enumerate(pictures):
        assert np.abs(each.pixels.astype(int) - picture(index)).mean() < 6
    assert film.count == len(UNEVEN)
    assert film.notices == ()


def test_pictures_are_those_of_a_clip_that_is_read_whole(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mp4", [512 * n for n in range(9)])
    with Film(path) as film:
        assert np.array_equal(np.stack([each.pixels for each in film]), read_clip(path).clip.frames)


def test_reading_may_begin_at_any_picture(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mp4")
    with Film(path) as film:
        whole = list(film)
    with Film(path, first=7) as film:
        rest = list(film)
    assert [each.pts for each in rest] == [each.pts for each in whole[7:]]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(rest, whole[7:], strict=True))
    with Film(path, first=50) as film:
        assert list(film) == []
    assert film.count == len(UNEVEN)


def test_nothing_but_the_pixels_changes(tmp_path: Path) -> None:
    path = with_everything(tmp_path)
    parts, info = doubled(path, tmp_path)
    left_out = join(path, parts, tmp_path / "out.mp4", info, settings={"scale": 2})
    assert left_out == ()
    assert seconds_of(tmp_path / "out.mp4") == seconds_of(path)
    for kind in ("audio", "subtitle"):
        assert packets_of(tmp_path / "out.mp4", kind) == packets_of(path, kind)
    assert read_settings(tmp_path / "out.mp4") == {"scale": 2}
    with av.open(str(path)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        old, new = before.streams.video[0], after.streams.video[0]
        assert (new.width, new.height) == (2 * old.width, 2 * old.height)
        assert new.sample_aspect_ratio == old.sample_aspect_ratio == Fraction(4, 3)
        for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
            assert getattr(new.codec_context, name) == getattr(old.codec_context, name), name
        assert [stream.language for stream in after.streams.audio] == ["eng", "deu"]
        assert after.chapters() == before.chapters()
        assert after.metadata["title"] == "A drive"


def test_pixels_survive_the_way_through(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mp4", [512 * n for n in range(9)])
    parts, info = doubled(path, tmp_path)
    join(path, parts, tmp_path / "out.mp4", info)
    before, after = read_clip(path).clip.frames, read_clip(tmp_path / "out.mp4").clip.frames
    assert len(after) == len(before)
    assert np.abs(after[:, ::2, ::2].astype(int) - before).mean() < 1.5


def test_what_mp4_cannot_hold_is_named_and_matroska_has_it(tmp_path: Path) -> None:
    path = with_everything(tmp_path, suffix=".mkv")
    parts, info = doubled(path, tmp_path)
    left_out = join(path, parts, tmp_path / "out.mp4", info)
    assert len(left_out) == 1
    assert "subtitle" in left_out[0]
    assert len(packets_of(tmp_path / "out.mp4", "audio")) == 2
    assert join(path, parts, tmp_path / "out.mkv", info) == ()
    for kind in ("audio", "subtitle"):
        assert packets_of(tmp_path / "out.mkv", kind) == packets_of(path, kind)
    # Matroska counts in milliseconds.
    assert max(abs(a - b) for a, b in zip(seconds_of(tmp_path / "out.mkv"), seconds_of(path), strict=True)) <= 0.001


def test_a_turned_film_is_upright_and_its_pixels_are_turned_with_it(tmp_path: Path) -> None:
    path = with_everything(tmp_path, turned=90)
    parts, info = doubled(path, tmp_path)
    assert (info.clip.height, info.clip.width) == (64, 48)
    assert info.sample_aspect_ratio == Fraction(3, 4)
    join(path, parts, tmp_path / "out.mp4", info)
    with av.open(str(tmp_path / "out.mp4")) as after:
        frame = next(after.decode(video=0))
        assert frame.side_data.get("DISPLAYMATRIX") is None
        assert (frame.height, frame.width) == (128, 96)


def test_equal_pictures_give_equal_files(tmp_path: Path) -> None:
    path = with_everything(tmp_path)
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        parts, info = doubled(path, tmp_path / name)
        join(path, parts, tmp_path / name / "out.mp4", info)
        digests.append((tmp_path / name / "out.mp4").read_bytes())
    assert digests[0] == digests[1]


def test_a_part_is_whole_or_not_there(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mp4")
    with Film(path) as film:
        first = next(iter(film))
    writer = PictureWriter(tmp_path / "part.nut", film.info, height=48, width=64)
    with suppress(KeyError), writer:
        writer.write(first)
        raise KeyError
    assert [each.name for each in tmp_path.glob("*part*")] == []
    assert list(tmp_path.glob(".*")) == []


def test_the_film_of_a_stranger_is_refused_like_his_clips(tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text("#EXTM3U\nfilm.mp4\n")
    with pytest.raises(ClipRefused, match="text"), Film(tmp_path / "list.mp4"):
        pass
    with pytest.raises(ClipRefused, match="found"), Film(tmp_path / "none.mp4"):
        pass


def test_a_film_may_be_left_in_the_middle(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mp4")
    with Film(path) as film:
        next(iter(film))
    assert film._process.returncode is not None
