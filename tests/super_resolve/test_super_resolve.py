"""Super-resolution: a clip of any length becomes larger, whatever happens on the way; nothing else of it changes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from support.clip_corpus import picture
from support.films import packets_of, seconds_of, with_everything, write_pictures
from support.patience import until

from studio.clips.film import Film
from studio.clips.read import read_clip, read_settings
from studio.clips.reference import reference_to
from studio.clips.scene_cuts import SceneCuts
from studio.clips.shrinking import shrunk
from studio.errors import EnlargementError, RequestError
from studio.events import EnlargementEvent, EnlargementFinished, EnlargementStarted, FramesEnlarged, Notice, never
from studio.jobs import JobQueue
from studio.records.enlargements import EnlargementStore
from studio.records.runs import RunStore
from studio.requests.super_resolution import Excerpt, SuperResolutionRequest, read_super_resolution_request
from studio.requests.work import EnlargeClip
from studio.super_resolve import begin, enlarge, forecast, super_resolve
from studio.super_resolve.methods import BackProjection, enlarged, upscaler_for
from studio.super_resolve.walk import PART

LONG = 5 * PART + 7


def noise(count: int, height: int = 24, width: int = 32) -> list[np.ndarray]:
    """Pictures that drift, each unlike the others."""
    generator = np.random.default_rng(0)
    base = generator.integers(40, 200, (height // 4, width // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    return [np.roll(base, index, 1) for index in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """Uneven timestamps, and a last part that is not full."""
    times = np.cumsum(np.random.default_rng(1).integers(300, 900, LONG)).tolist()
    return write_pictures(tmp_path / "long.mp4", times, pictures=noise(LONG))


def request_of(path: Path, **fields: object) -> SuperResolutionRequest:
    return read_super_resolution_request({"source": reference_to(path, field="source"), "method": "lanczos"} | fields)


def made(events: Sequence[EnlargementEvent], store: RunStore) -> Path:
    last = events[-1]
    assert isinstance(last, EnlargementFinished)
    return EnlargementStore(store.folder).path(last.enlargement_id) / last.path


# ------------------------------------------------------------------------------------------------- the methods


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("method", ["bicubic", "lanczos", "back-projection"])
def test_every_picture_becomes_what_its_method_makes_of_it(
    method: str, scale: int, tmp_path: Path, store: RunStore
) -> None:
    path = write_pictures(tmp_path / "clip.mp4", [512 * n for n in range(6)])
    request = request_of(path, method=method, scale=scale)
    result = read_clip(made(list(super_resolve(request, store=store)), store)).clip.frames
    upscaler = upscaler_for(request)
    with Film(path) as film:
        expected = np.concatenate([upscaler(each.pixels[None]) for each in film])
    assert result.shape == expected.shape == (6, 48 * scale, 64 * scale, 3)
    assert np.abs(result.astype(int) - expected).mean() < 2  # what H.264 rounds away


@pytest.mark.parametrize("scale", [2, 4])
def test_back_projection_shrinks_back_to_what_was_given(scale: int) -> None:
    given = np.random.default_rng(0).integers(30, 220, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    back = {
        name: shrunk(large.astype(np.float32), scale)
        for name, large in (
            ("corrected", BackProjection(scale, 3)(given[None])[0]),
            ("bicubic", enlarged(given, scale)),
        )
    }
    psnr = {name: 10 * np.log10(255**2 / np.mean((each - given) ** 2)) for name, each in back.items()}
    assert psnr["corrected"] >= 45
    assert psnr["corrected"] >= psnr["bicubic"] + 10


@pytest.mark.parametrize("scale", [2, 4])
def test_shrinking_is_what_torch_calls_antialiased_bicubic(scale: int) -> None:
    picture_ = np.random.default_rng(0).uniform(0, 255, (24, 32, 3)).astype(np.float32)
    planes = torch.from_numpy(picture_).permute(2, 0, 1)[None]
    size = (24 // scale, 32 // scale)
    theirs = torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    assert np.abs(shrunk(picture_, scale) - theirs.numpy()).max() < 1e-3


def test_a_cut_is_where_a_new_scene_begins_and_motion_and_flashes_of_light_are_none() -> None:
    one, other = noise(30), [255 - each for each in noise(30)]
    looking = SceneCuts()
    found = [looking.begins(each) for each in [*one, *other]]
    assert [index for index, begins in enumerate(found) if begins] == [30]
    looking = SceneCuts()
    fading = [(each * (1 - index / 30)).astype(np.uint8) for index, each in enumerate(one)]
    assert not any(looking.begins(each) for each in fading)


# ------------------------------------------------------------------------------------------------- the whole


def test_sound_timing_chapters_and_titles_are_kept_and_the_settings_lie_inside(tmp_path: Path, store: RunStore) -> None:
    path = with_everything(tmp_path)
    request = request_of(path)
    result = made(list(super_resolve(request, store=store)), store)
    assert seconds_of(result) == seconds_of(path)
    for kind in ("audio", "subtitle"):
        assert packets_of(result, kind) == packets_of(path, kind)
    settings = read_settings(result)
    assert settings is not None
    assert read_super_resolution_request(settings["super_resolution"]) == request


def test_streams_that_mp4_cannot_hold_come_in_a_second_file(tmp_path: Path, store: RunStore) -> None:
    path = with_everything(tmp_path, suffix=".mkv")
    events = list(super_resolve(request_of(path), store=store))
    assert any(isinstance(event, Notice) and "video.mkv" in event.text for event in events)
    assert packets_of(made(events, store).with_name("video.mkv"), "subtitle") == packets_of(path, "subtitle")


def test_an_odd_size_stays_as_it_is_times_the_scale(tmp_path: Path, store: RunStore) -> None:
    path = tmp_path / "odd.gif"
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.height, stream.width, stream.pix_fmt = 37, 51, "rgb8"
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(picture(index, 37, 51), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="rgb8")))
        container.mux(stream.encode(None))
    result = made(list(super_resolve(request_of(path), store=store)), store)
    assert read_clip(result).clip.frames.shape == (4, 74, 102, 3)


def test_progress_counts_every_picture_and_says_how_long_it_will_take(long_clip: Path, store: RunStore) -> None:
    events = list(super_resolve(request_of(long_clip), store=store))
    assert isinstance(events[0], EnlargementStarted)
    assert (events[0].num_frames, events[0].done) == (LONG, 0)
    progress = [event for event in events if isinstance(event, FramesEnlarged)]
    assert [event.done for event in progress] == sorted({event.done for event in progress})
    assert (progress[-1].done, progress[-1].num_frames, progress[-1].eta_seconds) == (LONG, LONG, 0)
    assert all(event.frames_per_second > 0 for event in progress)


def test_a_forecast_is_measured_and_leaves_nothing_behind(long_clip: Path, store: RunStore) -> None:
    request = request_of(long_clip, scale=4)
    before = sorted(store.folder.iterdir())
    found = forecast(request, store=store)
    assert (found.num_frames, found.height, found.width) == (LONG, 96, 128)
    assert found.seconds > 0
    assert found.output_bytes > 0
    assert sorted(store.folder.iterdir()) == before


# ------------------------------------------------------------------------------------------------- on the way


def test_stopped_anywhere_it_goes_on_and_the_file_is_the_same(long_clip: Path, store: RunStore) -> None:
    whole = made(list(super_resolve(request_of(long_clip), store=store)), store).read_bytes()
    enlargements = EnlargementStore(store.folder)
    enlargement = begin(request_of(long_clip), store=store)
    work = EnlargeClip(enlargement_id=enlargement.id)
    for pictures in (3, PART + 2, 2 * PART):
        stream = enlarge(work, store=store, owner="local", stop=never)
        next(event for event in stream if isinstance(event, FramesEnlarged) and event.done >= pictures)
        stream.close()
        assert enlargements.get(enlargement.id).state == "stopped"
    kept = {path: path.stat().st_mtime_ns for path in (enlargements.path(enlargement.id) / "parts").iterdir()}
    assert kept
    events = list(enlarge(work, store=store, owner="local", stop=lambda: _unchanged(kept)))
    assert isinstance(events[0], EnlargementStarted)
    assert events[0].done == PART * len(kept)
    assert made(events, store).read_bytes().replace(enlargement.id.encode(), b"") == _without_id(whole)
    assert enlargements.get(enlargement.id).state == "complete"
    assert not (enlargements.path(enlargement.id) / "parts").exists()


def _unchanged(kept: dict[Path, int]) -> None:
    if not next(iter(kept)).parent.exists():  # all is made; what follows is measuring
        return
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def _without_id(file: bytes) -> bytes:
    at = file.index(b'"enlargement_id": "') + len(b'"enlargement_id": "')
    return file.replace(file[at : file.index(b'"', at)], b"")


KILLED = """
import sys
from functools import partial
from pathlib import Path
from studio.events import never
from studio.records.runs import RunStore
from studio.requests.work import EnlargeClip
from studio.super_resolve import enlarge

work = EnlargeClip(enlargement_id=sys.argv[2])
for event in enlarge(work, store=RunStore(Path(sys.argv[1])), owner="local", stop=never):
    print(type(event).__name__, flush=True)
"""


@pytest.mark.thorough
@pytest.mark.xfail(
    strict=False,
    reason="On a quiet machine about every third try ends with pictures that lie some levels off, or with what "
    "measuring left behind; why the pictures differ is not found yet.",
)
def test_killed_at_any_moment_it_goes_on_and_the_file_is_the_same(long_clip: Path, store: RunStore) -> None:
    whole = made(list(super_resolve(request_of(long_clip), store=store)), store).read_bytes()
    enlargements = EnlargementStore(store.folder)
    chance, kills = random.Random(0), 0
    while kills < 15:
        enlargement = begin(request_of(long_clip), store=store)
        state = ""
        while state != "complete":
            process = subprocess.Popen(
                [sys.executable, "-c", KILLED, str(store.folder), enlargement.id], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            if process.stdout.readline() and kills < 15:
                time.sleep(chance.uniform(0, 0.25))
                process.send_signal(signal.SIGKILL)
            process.wait()
            kills += process.returncode == -signal.SIGKILL
            # A process that was being started may hold the lock for another moment.
            state = until(partial(_at_rest, enlargements, enlargement.id))
            assert state in ("stopped", "complete")
            if process.returncode == 0:
                assert state == "complete"
        result = (enlargements.path(enlargement.id) / "video.mp4").read_bytes()
        assert _without_id(result) == _without_id(whole)
        assert list(enlargements.path(enlargement.id).rglob(".*")) == []


def _at_rest(enlargements: EnlargementStore, enlargement_id: str) -> str | None:
    state = enlargements.state_of(enlargements.get(enlargement_id))
    return None if state == "running" else state


def test_a_part_that_was_tried_first_is_not_made_again(long_clip: Path, store: RunStore) -> None:
    enlargement = begin(request_of(long_clip), store=store)
    enlargements = EnlargementStore(store.folder)
    excerpt = Excerpt(start=2.0, seconds=0.5)
    tried = list(
        enlarge(EnlargeClip(enlargement_id=enlargement.id, excerpt=excerpt), store=store, owner="local", stop=never)
    )
    assert made(tried, store).name == "excerpt.mp4"
    assert seconds_of(made(tried, store))[0] == 0
    parts = enlargements.path(enlargement.id) / "parts"
    kept = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert 1 <= len(kept) <= 2
    events = list(
        enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner="local", stop=lambda: _unchanged(kept))
    )
    assert isinstance(events[0], EnlargementStarted)
    assert events[0].done == PART * len(kept)
    whole = made(list(super_resolve(request_of(long_clip), store=store)), store).read_bytes()
    assert _without_id(made(events, store).read_bytes()) == _without_id(whole)


def test_stopped_and_kept_it_is_a_video_as_far_as_it_goes(long_clip: Path, store: RunStore) -> None:
    seen: list[EnlargementEvent] = []

    def stop() -> Literal["keep"] | None:
        return "keep" if seen and isinstance(seen[-1], FramesEnlarged) and seen[-1].done >= 2 * PART else None

    enlargement = begin(request_of(long_clip), store=store)
    for event in enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner="local", stop=stop):
        seen.append(event)
    result = made(seen, store)
    assert len(seconds_of(result)) in (2 * PART, 3 * PART)
    assert EnlargementStore(store.folder).get(enlargement.id).partial


def test_as_a_job_it_is_followed_cancelled_and_gone_on_with(long_clip: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "queued")
    enlargements = EnlargementStore(store.folder)
    with JobQueue(store=store, in_process=True) as queue:
        enlargement = begin(request_of(long_clip, method="back-projection", back_projections=50), store=store)
        work = EnlargeClip(enlargement_id=enlargement.id)
        job = queue.submit(work)
        until(lambda: [e for _, e in enlargements.events(enlargement.id) if isinstance(e, FramesEnlarged)])
        queue.cancel(job.id)
        assert until(lambda: now if (now := queue.get(job.id)).final else None).state == "cancelled"
        assert enlargements.get(enlargement.id).state == "stopped"
        again = queue.submit(work)
        assert until(lambda: now if (now := queue.get(again.id)).final else None).state == "complete"
    assert enlargements.get(enlargement.id).state == "complete"


def test_whoever_cancels_waits_for_one_picture_at_most(long_clip: Path, store: RunStore) -> None:
    asked: list[int] = []

    def stop() -> Literal["cancel"] | None:
        asked.append(1)
        return "cancel" if len(asked) == PART + 5 else None

    enlargement = begin(request_of(long_clip), store=store)
    events = list(enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner="local", stop=stop))
    assert not isinstance(events[-1], EnlargementFinished)
    assert len(asked) == PART + 5
    parts = EnlargementStore(store.folder).path(enlargement.id) / "parts"
    assert [path.name for path in parts.iterdir()] == ["000000.nut"]


# ------------------------------------------------------------------------------------------------- what is refused


def test_what_cannot_be_done_is_refused_before_anything_is_made(tmp_path: Path, store: RunStore) -> None:
    path = write_pictures(tmp_path / "clip.mp4", [0, 512])
    with pytest.raises(RequestError, match="2 or 4") as refused:
        request_of(path, scale=3)
    assert refused.value.field == "scale"
    wide = write_pictures(tmp_path / "wide.mp4", [0, 512], pictures=[np.zeros((16, 2064, 3), np.uint8)] * 2)
    with pytest.raises(RequestError, match="8192") as refused:
        begin(request_of(wide, scale=4), store=store)
    assert refused.value.way_out.startswith("Set scale to 2")
    request = request_of(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RequestError, match="not what it was"):
        begin(request, store=store)
    assert EnlargementStore(store.folder).list() == []


def test_what_is_complete_is_not_made_again_and_two_cannot_make_one(tmp_path: Path, store: RunStore) -> None:
    path = write_pictures(tmp_path / "clip.mp4", [0, 512, 1024])
    enlargement = begin(request_of(path), store=store)
    work = EnlargeClip(enlargement_id=enlargement.id)
    stream = enlarge(work, store=store, owner="local", stop=never)
    next(stream)
    with pytest.raises(EnlargementError, match="being made"):
        next(enlarge(work, store=store, owner="local", stop=never))
    list(stream)
    with pytest.raises(EnlargementError, match="complete"):
        next(enlarge(work, store=store, owner="local", stop=never))
    with pytest.raises(EnlargementError, match="no enlargement"):
        next(enlarge(work, store=store, owner="somebody else", stop=never))


def test_an_excerpt_after_the_end_is_refused_and_the_record_says_so(tmp_path: Path, store: RunStore) -> None:
    path = write_pictures(tmp_path / "clip.mp4", [0, 512, 1024])
    enlargement = begin(request_of(path), store=store)
    work = EnlargeClip(enlargement_id=enlargement.id, excerpt=Excerpt(start=9, seconds=1))
    with pytest.raises(RequestError, match="after the clip's end"):
        list(enlarge(work, store=store, owner="local", stop=never))
    failed = EnlargementStore(store.folder).get(enlargement.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["field"] == "start"
    assert list(enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner="local", stop=never))


def test_a_clip_that_breaks_off_is_enlarged_as_far_as_it_can_be_read(tmp_path: Path, store: RunStore) -> None:
    path = write_pictures(tmp_path / "clip.mkv", [512 * n for n in range(3 * PART)], pictures=noise(3 * PART))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.9)])
    events = list(super_resolve(request_of(path), store=store))
    last = EnlargementStore(store.folder).get(events[-1].enlargement_id)  # type: ignore[union-attr]
    assert last.num_frames is not None
    assert 2 * PART < last.num_frames <= 3 * PART
    assert len(seconds_of(made(events, store))) == last.num_frames
