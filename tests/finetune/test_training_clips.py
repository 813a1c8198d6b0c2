"""Clips become samples: whatever people have is either used, or named with the reason; the split is never a trap."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from support.small_training import asked, moving_square

from studio.clips.clip import Clip
from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.errors import RequestError
from studio.finetune import begin
from studio.finetune.clips import Sample, _held_out, caption_of, poster, samples_of, shaped
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.records.versions import ClipRecord, VersionStore
from studio.requests.training import MAX_CLIPS, FinetuneRequest, TrainingClip, finetune_request_for

Clips = tuple[TrainingClip, ...]


def training_clip(path: Path, **fields: Any) -> TrainingClip:
    return TrainingClip(path=path, **({"caption": path.stem} | fields))


def request_of(*paths: Path, **fields: Any) -> FinetuneRequest:
    return asked(tuple(training_clip(path) for path in paths), **fields)


def counting(path: Path, *, num_frames: int, fps: float, size: tuple[int, int] = (32, 32)) -> Path:
    """A clip whose frames grow lighter: their grey says when they were."""
    frames = np.empty((num_frames, *size, 3), np.uint8)
    frames[:] = np.linspace(20, 230, num_frames).astype(np.uint8)[:, None, None, None]
    write_clip(Clip(frames=frames, fps=fps), path)
    return path


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def reasons(records: tuple[ClipRecord, ...]) -> dict[str, str]:
    return {record.name: record.left_out for record in records if record.left_out}


def held(samples: list[Sample]) -> set[tuple[int, int]]:
    """Held-out samples, as (clip, first frame)."""
    return {(sample.clip, sample.first_frame) for sample in samples if sample.held_out}


# -- frames -----------------------------------------------------------------------------------------------------------


def test_8k_and_one_frame_a_second_are_read_like_any_other(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=7680x4320:r=1", "-frames:v", 2, "-preset", "ultrafast", tmp_path / "8k.mp4")
    slow = counting(tmp_path / "slow.mp4", num_frames=3, fps=1)
    samples, (large, slideshow), notices = samples_of(request_of(tmp_path / "8k.mp4", slow))
    assert (large.width, large.height, large.samples) == (7680, 4320, 3)
    assert any("scaled down from 7680×4320" in notice for notice in notices)
    assert slideshow.samples == 24 // 5
    assert {sample.frames.shape for sample in samples} == {(5, 32, 32, 3)}


@pytest.mark.parametrize("fps", [4.0, 15.0, 24000 / 1001, 60.0])
def test_clips_of_any_rate_are_seen_at_the_rate_asked_for(tmp_path: Path, fps: float) -> None:
    clip = counting(tmp_path / "two-seconds.mp4", num_frames=round(2 * fps), fps=fps)
    samples, (record,), notices = samples_of(request_of(clip))
    assert len(samples) == record.samples == 3, "2 s at 8 frames a second, 5 a sample; the 16th is left over"
    assert [sample.first_frame for sample in samples] == [0, 5, 10]
    assert record.fps == pytest.approx(fps, rel=0.01)
    assert any("resampled" in notice for notice in notices)
    # Time goes on evenly through all samples, whatever the rate was.
    greys = np.concatenate([sample.frames for sample in samples]).mean((1, 2, 3))
    wanted = np.interp(np.arange(15) / 8, np.arange(round(2 * fps)) / fps, np.linspace(20, 230, round(2 * fps)))
    assert np.abs(greys - wanted).max() <= 210 / (2 * fps) / 2 + 6, "the nearest frame in time, and a little coding"


def test_long_clips_give_several_samples_and_short_ones_are_named(tmp_path: Path) -> None:
    long = counting(tmp_path / "long.mp4", num_frames=23, fps=8)
    short = counting(tmp_path / "short.mp4", num_frames=4, fps=8)
    samples, records, notices = samples_of(request_of(long, short))
    assert [record.samples for record in records] == [4, 0]
    assert {sample.clip for sample in samples} == {0}
    assert reasons(records) == {
        "short.mp4": "at 8 frames a second it has 4 frames, fewer than the 5 of a sample.",
    }
    assert any(notice.startswith("short.mp4 was left out") for notice in notices)


def test_of_a_clip_of_minutes_the_beginning_is_used_and_that_is_said(tmp_path: Path) -> None:
    """Two and a half minutes at 12 frames a second are more than the 1,500 frames that are read."""
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:r=12:d=150", "-preset", "ultrafast", tmp_path / "long.mp4")
    samples, (record,), notices = samples_of(request_of(tmp_path / "long.mp4", fps=12.0))
    assert record.seconds == pytest.approx(150, abs=0.1)
    assert len(samples) == record.samples == 1500 // 5
    assert "long.mp4: it is long: its first 125 s were read, of 150 s" in notices


def test_samples_are_uint8_of_the_asked_size_and_carry_their_captions(tmp_path: Path) -> None:
    small = counting(tmp_path / "small.mp4", num_frames=5, fps=8, size=(16, 24))
    large = counting(tmp_path / "large.mp4", num_frames=5, fps=8, size=(128, 96))
    samples, records, notices = samples_of(request_of(small, large, height=32, width=48))
    assert all(sample.frames.shape == (5, 32, 48, 3) and sample.frames.dtype == np.uint8 for sample in samples)
    assert [sample.caption for sample in samples] == ["small", "large"]
    assert [(record.height, record.width) for record in records] == [(16, 24), (128, 96)]
    assert "small.mp4 is smaller than 48×32 and was enlarged." in notices
    assert not any("large.mp4 is smaller" in notice for notice in notices)
    assert poster(samples[0]).shape == (32, 48, 3)


@pytest.mark.parametrize("upright", [False, True])
def test_shaping_keeps_the_middle_and_the_aspect(upright: bool) -> None:
    """A disc in the middle of a long frame is still a disc in the middle, and what is cut off is both ends alike."""
    rows, columns = np.mgrid[:80, :200]
    frame = np.zeros((80, 200, 3), np.uint8)
    frame[(rows - 39.5) ** 2 + (columns - 99.5) ** 2 < 30**2] = 255
    frame[:, :55] = frame[:, 145:] = (0, 0, 200)  # beyond the 80 columns that remain
    frame = frame.transpose(1, 0, 2) if upright else frame
    (seen,) = shaped(frame[None], 40, 40)
    assert seen.shape == (40, 40, 3)
    assert seen.dtype == np.uint8
    disc = seen[..., 0] > 127
    down, across = np.nonzero(disc)
    assert down.mean() == pytest.approx(19.5, abs=0.3)
    assert across.mean() == pytest.approx(19.5, abs=0.3)
    assert np.ptp(down) == pytest.approx(np.ptp(across), abs=1)
    assert np.ptp(down) + 1 == pytest.approx(30, abs=2), "halved, as the 80 rows are"
    assert not (seen[..., 2].astype(int) - seen[..., 0] > 100).any()


@pytest.mark.parametrize(("size", "asked_for"), [((30, 200), (64, 32)), ((33, 17), (16, 48)), ((48, 48), (48, 48))])
def test_shaping_fits_any_shape_to_any_other(size: tuple[int, int], asked_for: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    seen = shaped(frames, *asked_for)
    assert seen.shape == (2, *asked_for, 3)
    if size == asked_for:
        assert np.array_equal(seen, frames)


# -- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unusable(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Clips that nobody can learn from, and the word that says why."""
    folder = tmp_path_factory.mktemp("unusable")
    whole = moving_square(folder / "whole.mp4", 7, num_frames=16)
    text = folder / "text.mp4"
    text.write_text("#EXTM3U\nhttp://elsewhere.example/clip.ts\n", encoding="utf-8")
    truncated = folder / "truncated.mp4"
    truncated.write_bytes(whole.read_bytes()[:1500])
    sound = folder / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=440:duration=1", "-c:a", "aac", sound)
    counting(folder / "one-frame.mp4", num_frames=1, fps=8)
    large = folder / "9k.mp4"
    ffmpeg(*("-f", "lavfi", "-i", "color=gray:size=8448x4320:rate=8:duration=0.25"), "-preset", "ultrafast", large)
    empty = folder / "empty.mp4"
    empty.touch()
    huge = folder / "huge.mp4"
    huge.write_bytes(whole.read_bytes())
    os.truncate(huge, 220_000_000)  # takes no room on the disk
    (folder / "folder.mp4").mkdir()
    (folder / "link.mp4").symlink_to(whole)
    found = {
        "text.mp4": "is text",
        "truncated.mp4": "damaged",
        "sound.mp4": "no video",
        "one-frame.mp4": "at least|fewer|photograph",
        "9k.mp4": "8448×4320.*Scale it down",
        "empty.mp4": "is empty",
        "huge.mp4": "at most 200 MB",
        "missing.mp4": "cannot be found",
        "folder.mp4": "is a folder",
        "link.mp4": "is a symbolic link",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.mp4")  # reading it would wait for ever
        found["pipe.mp4"] = "is a pipe"
    return {name: (folder / name, why) for name, why in found.items()}


def test_each_clip_that_cannot_be_used_is_named_with_its_reason_and_the_others_go_on(
    unusable: dict[str, tuple[Path, str]], clips: Clips, tmp_path: Path
) -> None:
    again = tmp_path / "again.mp4"
    again.write_bytes(clips[0].path.read_bytes())
    slow = counting(tmp_path / "one-a-second.mp4", num_frames=2, fps=1)
    bad = [training_clip(path) for path, _ in unusable.values()]
    request = asked((clips[0], *bad, training_clip(again), training_clip(slow)))
    samples, records, notices = samples_of(request)
    said = reasons(records)
    assert said.keys() == {*unusable, "again.mp4"}
    for name, (_, why) in unusable.items():
        assert re.search(why, said[name]), (name, said[name])
    assert said["again.mp4"] == "it is the same file as square-0.mp4."
    for name in said:
        assert sum(notice.startswith(f"{name} was left out: ") for notice in notices) == 1
    # One frame a second is few, but evenly timed: it is used, and said.
    by_name = {record.name: record for record in records}
    assert by_name["huge.mp4"].sha256 == "", "not even read"
    assert by_name["one-a-second.mp4"].samples == 3
    assert any("one-a-second.mp4: resampled from 1 to 8" in notice for notice in notices)
    assert {sample.clip for sample in samples} == {0, len(request.clips) - 1}
    assert all(record.samples == 0 and record.held_out == 0 for record in records if record.left_out)


def test_where_all_are_unusable_every_reason_is_told(unusable: dict[str, tuple[Path, str]]) -> None:
    names = ("text.mp4", "sound.mp4", "missing.mp4")
    with pytest.raises(RequestError) as refused:
        samples_of(request_of(*(unusable[name][0] for name in names)))
    assert refused.value.field == "clips"
    assert refused.value.way_out
    for name, why in zip(names, ("is text", "has no video", "cannot be found"), strict=True):
        assert name in refused.value.message
        assert why in refused.value.message


@pytest.mark.parametrize("count", [0, MAX_CLIPS + 1])
def test_no_clips_and_too_many_are_refused(count: int) -> None:
    with pytest.raises(RequestError, match=f"{count} clips were given") as refused:
        finetune_request_for(find_preset("wan"), clips=(TrainingClip(path=Path("a.mp4"), caption="a"),) * count)
    assert refused.value.field == "clips"


# -- the split --------------------------------------------------------------------------------------------------------


def test_from_four_usable_clips_on_whole_clips_are_held_out(clips: Clips, tmp_path: Path) -> None:
    broken = training_clip(tmp_path / "missing.mp4")
    samples, records, _ = samples_of(asked((*clips[:3], broken, clips[3])))
    assert held(samples) == {(4, 0), (4, 5)}, "the last clip, both its samples"
    assert [record.held_out for record in records] == [0, 0, 0, 0, 2]
    assert len([sample for sample in samples if not sample.held_out]) == 6


def test_below_four_the_end_of_the_longest_clip_is_held_out(clips: Clips, tmp_path: Path) -> None:
    long = moving_square(tmp_path / "long.mp4", 9, num_frames=21)
    samples, _, notices = samples_of(asked((clips[0], training_clip(long), clips[1])))
    assert len(samples) == 8
    assert held(samples) == {(1, 10), (1, 15)}
    assert not any("held out" in notice for notice in notices)


def test_one_sample_is_trained_on_and_scored_and_that_is_said(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "single.mp4", 3, num_frames=6)
    samples, (record,), notices = samples_of(request_of(clip))
    assert len(samples) == 1
    assert not held(samples)
    assert record.held_out == 0
    assert any("only one sample" in notice for notice in notices)


def test_nothing_is_held_out_where_nobody_wants_it_and_the_notice_says_no_more_than_that(clips: Clips) -> None:
    samples, _, notices = samples_of(asked(clips[:1], validation_share=0))
    assert len(samples) == 2
    assert not held(samples)
    assert "Nothing is held out: scores are of what was trained on." in notices
    assert not any("only one sample" in notice for notice in notices)


def test_what_a_person_marks_wins_over_the_split(clips: Clips, tmp_path: Path) -> None:
    marked = (clips[0].model_copy(update={"held_out": True}), *clips[1:])
    samples, _, _ = samples_of(asked(marked))
    assert held(samples) == {(0, 0), (0, 5)}
    kept = (*clips[:4], clips[4].model_copy(update={"held_out": False}))
    samples, _, _ = samples_of(asked(kept))
    assert held(samples) == {(3, 0), (3, 5)}, "not the last one, which is to be trained on"
    # A mark on a clip that cannot be used marks nothing: the split decides as if it were not there.
    lost = training_clip(tmp_path / "missing.mp4", held_out=True)
    samples, _, _ = samples_of(asked((*clips[:2], lost)))
    assert held(samples) == {(0, 5)}


def test_marking_every_clip_is_refused_before_anything_is_begun(clips: Clips, tmp_path: Path) -> None:
    every = tuple(clip.model_copy(update={"held_out": True}) for clip in clips[:2])
    store = RunStore(tmp_path / "runs")
    with pytest.raises(RequestError, match="nothing is left to train on") as refused:
        begin(asked(every), store=store)
    assert refused.value.field == "clips"
    assert not VersionStore(store.folder).list()
    # The only clip that was not marked may turn out to be unusable.
    with pytest.raises(RequestError, match=r"nothing is left to train on.*missing\.mp4: it cannot be found") as refused:
        samples_of(asked((every[0], training_clip(tmp_path / "missing.mp4"))))
    assert refused.value.field == "clips"


def test_the_split_never_takes_everything_and_holds_something_out_wherever_it_can() -> None:
    """All splits of up to five clips of up to three samples, at every kind of share, with and without a mark."""
    some = [TrainingClip(path=Path(f"{number}.mp4"), caption="a") for number in range(5)]
    requests = {
        (clips, share, to_train): asked(
            tuple(
                clip.model_copy(update={"held_out": False if number == to_train else None})
                for number, clip in enumerate(some[:clips])
            ),
            validation_share=share,
        )
        for clips in range(1, 6)
        for share in (1e-6, 0.2, 0.35, 0.4, 0.5)
        for to_train in (None, 0)
    }
    for (clips, share, to_train), request in requests.items():
        for counts in itertools.product(range(4), repeat=clips):
            out = _held_out(list(counts), request)
            total = sum(counts)
            free = total - (counts[to_train] if to_train is not None else 0)
            assert len(out) < max(total, 1), (counts, share)
            assert bool(out) == (total > 1 and free > 0), (counts, share)
            assert all(number < counts[clip] and clip != to_train for clip, number in out), (counts, share)
            if sum(map(bool, counts)) < 4 and out:
                ends = {clip: min(number for each, number in out if each == clip) for clip, _ in out}
                assert len(out) == sum(counts[clip] - first for clip, first in ends.items()), "ends, without gaps"


# -- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "caption"),
    [
        ({"request": {"prompt": "a fox in the snow"}}, "a fox in the snow"),
        ({"world": {"seed": 3}, "caption": "a wet road at night"}, "a wet road at night"),
        ({"request": {"prompt": "  "}}, "my first clip"),
        ({"request": "a stranger's"}, "my first clip"),
        ({"request": {"prompt": ["no", "words"]}, "caption": 7}, "my first clip"),
        (None, "my first clip"),
    ],
)
def test_a_first_caption_is_what_the_file_says_of_itself_or_its_name(
    tmp_path: Path, settings: dict[str, Any] | None, caption: str
) -> None:
    path = tmp_path / "my_first--clip.mp4"
    write_clip(Clip(frames=np.zeros((2, 16, 16, 3), np.uint8), fps=8), path, settings=settings)
    assert caption_of(path, read_clip(path).settings) == caption


def test_a_file_without_settings_or_a_name_to_speak_of_has_a_caption_too() -> None:
    assert caption_of(Path("not_there.mp4"), None) == "not there"
    assert caption_of(Path("___.mp4"), None) == "a clip"
