"""What the two doors for clips promise: what goes out plays anywhere and carries its settings, whole or not at all;
what comes in is loaded as it should look or refused with a reason, and nothing that is sent in does harm."""

import http.server
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
import psutil
import pytest
from support import clip_corpus
from support.clip_corpus import CASES, Case, Surroundings, level, picture
from support.patience import PATIENCE_SECONDS

from studio.clips import read as read_module
from studio.clips.clip import Clip
from studio.clips.limits import ClipLimits
from studio.clips.read import LoadedClip, read_clip, read_settings
from studio.clips.reference import reference_to
from studio.clips.write import thumbnail_jpeg, write_clip
from studio.errors import ClipError, ClipRefused, StorageError
from studio.preset import find_preset
from studio.records.run import request_in_settings
from studio.requests.generation import request_for, request_to_json

PROJECT = Path(__file__).parent.parent.parent
FOOTAGE = PROJECT.parent / "shared" / "clips" / "road_day_960x540.mp4"
pytestmark = pytest.mark.timeout(1200)
"""The whole corpus is made and read in one fixture: about a minute of computing, which a busy machine may stretch."""
posix = pytest.mark.skipif(os.name != "posix", reason="resource limits and process groups are POSIX")


def smooth_clip(frames: int = 9, height: int = 96, width: int = 128, fps: float = 8) -> Clip:
    """A coloured gradient that drifts: what 4:2:0 keeps well."""
    rows, columns = np.mgrid[:height, :width]
    drift = [np.stack([columns + 4 * t, rows + 40, 200 - rows - t], axis=-1) for t in range(frames)]
    return Clip(frames=np.stack(drift).clip(0, 255).astype(np.uint8), fps=fps)


def noise_clip(frames: int) -> Clip:
    """What no encoder makes small."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, 96, 128, 3), np.uint8)
    return Clip(frames=noise, fps=8)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


# ----------------------------------------------------------------------------------------------------- writing


def test_a_written_clip_plays_in_every_browser_and_starts_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(smooth_clip(frames=17), path)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
        assert (context.color_range, context.colorspace, context.color_trc) == (1, 1, 1)  # limited, BT.709
        keys = [frame.time or 0.0 for frame in container.decode(stream) if frame.key_frame]
    assert np.diff(keys).max() <= 0.5
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_written_clip_comes_back_as_it_was(tmp_path: Path) -> None:
    original = smooth_clip(fps=30000 / 1001)
    write_clip(original, tmp_path / "clip.mp4")
    loaded = read_clip(tmp_path / "clip.mp4")
    assert loaded.clip.fps == pytest.approx(30000 / 1001)
    assert loaded.notices == ()
    assert decibels(loaded.clip.frames, original.frames) > 38


def test_equal_clips_and_settings_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        write_clip(smooth_clip(), tmp_path / name, settings={"seed": 7, "prompt": "a road"})
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"seed": 2**63, "guidance_scale": 0.1, "source": None, "nested": {"list": [1, 2]}},
        {"prompt": "quotes \" ' equals = semicolon ; hash # backslash \\ newline \n\r\t nul \0 brackets [x]"},
        {"prompt": "猫 🚗 é \u202e and a lone surrogate \ud800"},
        {"prompt": "<script>alert(1)</script>", "long": "x" * 100_000},
    ],
    ids=["none", "numbers", "punctuation", "unicode", "long"],
)
def test_the_settings_in_a_file_come_back_to_the_letter(tmp_path: Path, settings: dict) -> None:
    write_clip(smooth_clip(2), tmp_path / "clip.mp4", settings=settings)
    assert read_settings(tmp_path / "clip.mp4") == read_clip(tmp_path / "clip.mp4").settings == settings


def test_a_request_comes_back_out_of_its_clip_with_the_files_it_refers_to(tmp_path: Path) -> None:
    (tmp_path / "maps.npz").write_bytes(b"maps")
    files = {"source": f"{'a' * 64}  /clips/a 'road'; #1.mp4", "control": reference_to(tmp_path / "maps.npz", field="")}
    request = request_for(find_preset("pocket"), prompt="a road", seed=1, **files)
    write_clip(smooth_clip(2), tmp_path / "clip.mp4", settings={"request": request_to_json(request)})
    assert request_in_settings(read_settings(tmp_path / "clip.mp4") or {}) == request


def test_a_strangers_file_has_no_settings(tmp_path: Path) -> None:
    write_clip(smooth_clip(2), tmp_path / "bare.mp4")
    assert read_settings(tmp_path / "bare.mp4") is None
    comments = ["words", '{"prompt": "another program\'s"}', '{"dailies": 3}', '{"dailies": {"fps": NaN}}', "[" * 9000]
    for index, comment in enumerate(comments):
        path = clip_corpus.encode(tmp_path / f"{index}.mp4", *clip_corpus.H264, "-metadata", f"comment={comment}")
        assert read_settings(path) is None, comment
        assert read_clip(path).settings is None, comment
    with pytest.raises(ClipRefused):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("clip", "settings", "name", "says"),
    [
        (smooth_clip(2, 95, 127), None, "clip.mp4", "127×95.*to 126×94"),
        (Clip(frames=np.empty((0, 16, 16, 3), np.uint8), fps=8), None, "clip.mp4", "without frames"),
        (smooth_clip(2, fps=5000), None, "clip.mp4", "5000 frames a second.*0.01 to 1000"),
        (smooth_clip(2), None, "clip.avi", r"must end in \.mp4"),
        (smooth_clip(2), {"x": float("nan")}, "clip.mp4", "no JSON"),
        (smooth_clip(2), {"x": object()}, "clip.mp4", "no JSON"),
        (smooth_clip(2), {"x": "x" * 300_000}, "clip.mp4", "at most 256,000"),
        (smooth_clip(2), None, "nowhere/clip.mp4", "No such file"),
    ],
    ids=["odd-size", "no-frames", "rate", "suffix", "nan", "object", "long", "no-folder"],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, clip: Clip, settings: dict | None, name: str, says: str
) -> None:
    with pytest.raises((ClipError, StorageError), match=says):
        write_clip(clip, tmp_path / name, settings=settings)
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    """A file-size limit stands in for the disk: both stop the encoder in the middle of a write."""
    (tmp_path / "clip.mp4").write_bytes(b"old")
    code = (
        "import resource, sys; from pathlib import Path; from test_clip import *; from studio.errors import DiskFull\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: write_clip(noise_clip(9), Path(sys.argv[1]))\n"
        "except DiskFull as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "clip.mp4")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests"), str(Path(__file__).parent)]),
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"no room on the disk for clip\.mp4.*larger disk", said)
    assert (tmp_path / "clip.mp4").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


@posix
def test_a_writer_killed_at_work_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"old")
    code = (
        "import sys; from pathlib import Path; from test_clip import *; print('ready', flush=True)\n"
        "while True: write_clip(noise_clip(40), Path(sys.argv[1]))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests"), str(Path(__file__).parent)]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "clip.mp4")],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while not any(entry.suffix == ".part" for entry in tmp_path.iterdir()):
            time.sleep(0.005)
        os.killpg(writer.pid, signal.SIGKILL)
    now = (tmp_path / "clip.mp4").read_bytes()
    # The kill may fall on the second round, when the first clip stands there, whole.
    assert now == b"old" or len(read_clip(tmp_path / "clip.mp4").clip.frames) == 40


def decoded(jpeg: bytes) -> np.ndarray:
    """uint8, (H, W, 3), RGB."""
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found[..., ::-1]


def test_a_thumbnail_is_a_small_jpeg_in_the_right_colours() -> None:
    frame = picture(0, 540, 960)
    small = decoded(thumbnail_jpeg(frame, longest=160))
    assert small.shape == (90, 160, 3)
    assert np.abs(small[5, 5].astype(int) - clip_corpus.CORNERS[0]).max() < 12
    tiny = decoded(thumbnail_jpeg(frame[:4, :6]))
    assert tiny.shape == (4, 6, 3), "never enlarged"


# --------------------------------------------------------------------------------------- reading: the whole corpus

CORPUS_LIMITS = ClipLimits(cpu_seconds=5, wall_seconds=PATIENCE_SECONDS)
"""Five seconds of computing for any case; the clock gets more, as it runs on while a busy machine does other things."""


@dataclass(frozen=True)
class Outcome:
    loaded: LoadedClip | None
    reason: str
    error: BaseException | None
    seconds: float


@dataclass(frozen=True)
class Results:
    outcomes: dict[str, Outcome]
    hits_before: int
    """What the control drew from the canary server."""
    hits_after: int


class _Canary(http.server.ThreadingHTTPServer):
    """A server on this machine that nobody should ever call."""

    daemon_threads = True
    hits = 0

    def __init__(self) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert isinstance(self.server, _Canary)
                self.server.hits += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(clip_corpus.canary_clip())

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


def _read(path: Path) -> Outcome:
    start = time.monotonic()
    try:
        loaded, reason, error = read_clip(path, limits=CORPUS_LIMITS), "", None
    except ClipRefused as refused:
        loaded, reason, error = None, str(refused), None
    except BaseException as unexpected:
        loaded, reason, error = None, "", unexpected
    return Outcome(loaded, reason, error, time.monotonic() - start)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Every case made and read once, two at a time, while the canary server listens."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "canary.mp4").write_bytes(clip_corpus.canary_clip())
    canary = _Canary()
    threading.Thread(target=canary.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{canary.server_port}/canary.mp4"
        paths = clip_corpus.build(folder / "cases", Surroundings(folder / "canary.mp4", url))
        # The control: a decoder that is handed an open file follows this playlist. The canary can sing.
        with paths["refers-hls-http"].open("rb") as playlist, av.open(playlist, "r") as naive:
            assert shows_canary(next(naive.decode(video=0)).to_ndarray(format="rgb24"))
        before = canary.hits
        with ThreadPoolExecutor(2) as pool:
            outcomes = dict(zip(paths, pool.map(_read, paths.values()), strict=True))
        yield Results(outcomes, before, canary.hits)
    finally:
        canary.shutdown()
        canary.server_close()


def test_the_corpus_has_enough_of_each_kind() -> None:
    expectations = [case.expected.loads for case in CASES.values()]
    assert len(expectations) >= 200
    assert expectations.count(True) >= 80
    assert expectations.count(False) >= 80


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_clip_is_loaded_as_it_should_look_or_refused_with_a_reason(case: Case, results: Results) -> None:
    outcome = results.outcomes[case.name]
    assert outcome.error is None, repr(outcome.error)
    assert "takes too long" not in outcome.reason
    assert "crashed" not in outcome.reason
    assert "an answer that cannot be" not in outcome.reason
    expected = case.expected
    if expected.loads is not None:
        assert (outcome.loaded is not None) == expected.loads, outcome.reason or "loaded"
    if outcome.loaded is None:
        assert re.search(expected.says, outcome.reason), outcome.reason
        assert len(outcome.reason) > 20
        assert outcome.reason.isprintable()
        return
    _check_loaded(outcome.loaded, case)


def shows_canary(frame: np.ndarray) -> bool:
    return bool(np.abs(frame.mean(axis=(0, 1)) - clip_corpus.CANARY).max() < 30)


def _check_loaded(loaded: LoadedClip, case: Case) -> None:
    expected, frames = case.expected, loaded.clip.frames
    assert frames.dtype == np.uint8
    assert len(frames) <= CORPUS_LIMITS.frames
    assert frames.shape[1:3] == (loaded.info.height, loaded.info.width)
    assert not shows_canary(frames[0])
    assert any(re.search(expected.says, notice) for notice in loaded.notices) or not expected.says, loaded.notices
    if not expected.says and expected.levels is not None:
        assert loaded.notices == (), "a healthy clip is no cause for alarm"
    if expected.size is not None:
        assert frames.shape[1:3] == expected.size
    if expected.frames is not None:
        assert loaded.info.num_frames == expected.frames
    if expected.fps is not None:
        assert loaded.clip.fps == pytest.approx(expected.fps)
    if expected.corners is not None:
        assert corners_shown(frames[0]) == expected.corners
    if expected.levels is not None:
        shown = levels_shown(frames)
        assert len(shown) == len(expected.levels)
        assert np.abs(shown - [level(index) for index in expected.levels]).max() < 12, shown


def corners_shown(frame: np.ndarray) -> tuple[int, ...]:
    """Which of the test picture's corner colours stands nearest to each corner's."""
    height, width = frame.shape[0] // 8, frame.shape[1] // 8
    patches = [frame[:height, :width], frame[:height, -width:], frame[-height:, :width], frame[-height:, -width:]]
    colours = np.array(clip_corpus.CORNERS, float)
    return tuple(int(np.abs(colours - patch.mean(axis=(0, 1))).max(axis=1).argmin()) for patch in patches)


def levels_shown(frames: np.ndarray) -> np.ndarray:
    """Mean grey in the middle of each frame."""
    height, width = frames.shape[1:3]
    middle = frames[:, height // 2 - height // 12 : height // 2 + height // 12 + 1, width // 2 - 2 : width // 2 + 2]
    return middle.mean(axis=(1, 2, 3))


def test_no_clip_makes_the_loader_call_out(results: Results) -> None:
    assert results.hits_before > 0, "the control drew no request: this test could not fail"
    assert results.hits_after == results.hits_before


def test_no_clip_keeps_the_loader_waiting(results: Results) -> None:
    slowest = max(results.outcomes, key=lambda name: results.outcomes[name].seconds)
    assert results.outcomes[slowest].seconds < CORPUS_LIMITS.wall_seconds, slowest


def test_the_corpus_leaves_no_process_behind(results: Results) -> None:
    left = [child for child in psutil.Process().children(recursive=True) if "clip_reading.py" in child.cmdline()]
    assert left == []


# --------------------------------------------------------------------------------------------------- reading: times


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """Eight frames at 8 a second, each of its own grey."""
    return clip_corpus.encode(tmp_path / "counting.mp4", *clip_corpus.H264)


@pytest.mark.parametrize(
    ("fps", "shown"),
    [
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, [0, 2, 4, 6]),
        (16, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (2, [0, 4]),
    ],
)
def test_another_rate_shows_each_moments_own_frame(counting: Path, fps: float, shown: list[int]) -> None:
    loaded = read_clip(counting, fps=fps)
    assert loaded.clip.fps == fps
    found = [min(range(8), key=lambda index: abs(level(index) - grey)) for grey in levels_shown(loaded.clip.frames)]
    # Doubling the rate puts half the ticks exactly between two frames, where either is right.
    assert len(found) == len(shown)
    assert all(abs(one - other) <= (1 if fps > 8 else 0) for one, other in zip(found, shown, strict=True)), found
    assert found == sorted(found)
    assert bool(loaded.notices) == (fps != 8)


def test_uneven_frames_are_evened_out_within_half_a_frame(tmp_path: Path) -> None:
    """The times are read here from the file itself, and each tick is held against the frame nearest to it."""
    made = CASES["uneven-rate"].make(tmp_path)
    with av.open(str(made)) as container:
        times = np.array([float(frame.time or 0) for frame in container.decode(video=0)])
    for fps in (None, 30.0):
        clip = read_clip(made, fps=fps).clip
        for tick, grey in enumerate(levels_shown(clip.frames)):
            shown = min(range(8), key=lambda index: abs(level(index) - grey))
            distance = np.abs(times - times[0] - tick / clip.fps)
            assert distance[shown] <= distance.min() + 1e-3
            assert tick > 0 or shown == 0


def test_a_fast_clip_too_long_at_its_own_rate_loads_at_a_slower_one(tmp_path: Path) -> None:
    path = clip_corpus.encode(tmp_path / "a.mp4", *clip_corpus.H264, count=400, fps="400", height=16, width=16)
    with pytest.raises(ClipRefused, match=r"400 frames.*at most 300 .*300 frames a second or fewer"):
        read_clip(path)
    assert read_clip(path, fps=300).clip.num_frames == 300
    assert read_clip(path, fps=25).clip.num_frames == 25


@pytest.mark.parametrize("fps", [4.0, 7.0, 15.0, 24000 / 1001, 60.0])
def test_how_many_frames_a_clip_has_at_another_rate_is_known_from_its_facts(tmp_path: Path, fps: float) -> None:
    for count in (2, 3, 11):
        write_clip(replace(smooth_clip(count), fps=fps), tmp_path / "clip.mp4")
        for rate in (1.0, 3.0, 8.0, 12.5, 30.0, 90.0):
            loaded = read_clip(tmp_path / "clip.mp4", fps=rate)
            assert loaded.info.frames_at(rate) == loaded.clip.num_frames, (count, rate)


def test_real_footage_loads() -> None:
    if not FOOTAGE.exists():
        pytest.skip("the sample footage does not lie beside the repository")
    loaded = read_clip(FOOTAGE, fps=2)
    assert loaded.clip.frames.shape[1:] == (540, 960, 3)
    assert 10 < loaded.clip.num_frames <= 300
    assert loaded.clip.frames.std(axis=(1, 2, 3)).min() > 10, "no frame is blank"


# -------------------------------------------------------------------------------------------------- reading: limits


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (ClipLimits(file_bytes=100), "at most 0.0001 MB"),
        (ClipLimits(seconds=0.5), "longer than 0.5 s"),
        (ClipLimits(frames=7), "8 frames.*at most 7"),
        (ClipLimits(fewest_frames=9), "holds 8 pictures; a clip has at least 9"),
        (ClipLimits(stored_frames=7), "more than 7 pictures"),
        (ClipLimits(side=63), "64×48.*at most 63"),
        (ClipLimits(area=3000), "64×48"),
        (ClipLimits(total_pixels=64 * 48 * 7), "at most 7 of 64×48"),
        (ClipLimits(streams=0), "1 streams; at most 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_limit_is_kept_and_named(counting: Path, limits: ClipLimits, says: str) -> None:
    with pytest.raises(ClipRefused, match=says) as refusal:
        read_clip(counting, limits=limits)
    assert refusal.value.way_out


@pytest.mark.parametrize(
    ("limits", "fps", "wanted"),
    [
        (ClipLimits(frames=5, cut=True), None, 5),
        (ClipLimits(total_pixels=64 * 48 * 3, cut=True), None, 3),
        (ClipLimits(frames=5, cut=True), 40.0, 5),
        (ClipLimits(frames=8, cut=True), None, 8),
    ],
    ids=["frames", "pixels", "in the middle of repeated frames", "just enough"],
)
def test_of_a_clip_too_long_the_beginning_is_read_where_that_is_asked_for(
    counting: Path, limits: ClipLimits, fps: float | None, wanted: int
) -> None:
    whole = read_clip(counting, fps=fps)
    cut = read_clip(counting, limits=limits, fps=fps)
    assert np.array_equal(cut.clip.frames, whole.clip.frames[:wanted])
    assert cut.info.num_frames == 8
    told = any("it is long: its first" in notice for notice in cut.notices)
    assert told == (wanted < whole.clip.num_frames)


def test_a_clip_too_large_is_scaled_down_as_it_is_read_where_that_is_asked_for(counting: Path, tmp_path: Path) -> None:
    whole = read_clip(counting)
    small = read_clip(counting, limits=ClipLimits(area=800), least=(12, 16))
    assert small.clip.frames.shape == (8, 24, 32, 3)
    assert (small.info.width, small.info.height) == (64, 48)
    assert "it is large: scaled down from 64×48 to 32×24 as it was read" in small.notices
    halved = whole.clip.frames.reshape(8, 24, 2, 32, 2, 3).mean((2, 4))
    assert decibels(small.clip.frames, halved) > 25
    turned = tmp_path / "turned.mp4"
    clip_corpus.ffmpeg("-display_rotation", "90", "-i", counting, "-c", "copy", turned)
    assert read_clip(turned, limits=ClipLimits(area=800), least=(16, 12)).clip.frames.shape == (8, 32, 24, 3)

    # Where it need not be, it is not, and never to less than was asked for.
    assert np.array_equal(read_clip(counting, least=(12, 16)).clip.frames, whole.clip.frames)
    few = ClipLimits(total_pixels=24 * 32 * 7)
    with pytest.raises(ClipRefused, match="at most 7 of 32×24"):
        read_clip(counting, limits=few, least=(24, 16))
    assert read_clip(counting, limits=few, least=(1, 1)).clip.num_frames == 8
    with pytest.raises(ClipRefused, match="at most 63 a side"):
        read_clip(counting, limits=ClipLimits(stored_side=63), least=(1, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_too_little_memory_is_a_refusal(tmp_path: Path) -> None:
    path = clip_corpus.encode(tmp_path / "a.mp4", *clip_corpus.H264, height=1024, width=1024, count=2)
    assert read_clip(path).clip.num_frames == 2
    with pytest.raises(ClipRefused, match=r"memory|damaged"):
        read_clip(path, limits=ClipLimits(memory_bytes=4_000_000))


@posix
def test_the_reading_process_can_open_one_file_and_write_none(tmp_path: Path) -> None:
    code = """
import sys; sys.path.insert(0, sys.argv[1])
from studio.clips.limits import ClipLimits
from studio.clips.reader_process import limit_process
import socket
limit_process(ClipLimits())
def attempt(name, act):
    try: act(); print(name, "done")
    except OSError: print(name, "barred")
clip = open(sys.argv[2], "rb")
attempt("second", lambda: open(sys.argv[2], "rb"))
attempt("socket", socket.socket)
clip.close()
attempt("alone", lambda: open(sys.argv[2], "rb"))
def write():
    with open(sys.argv[3], "wb") as file: file.write(b"x")
attempt("write", write)
"""
    clip_file = tmp_path / "clip.mp4"
    clip_file.write_bytes(b"x")
    command = [sys.executable, "-I", "-c", code, str(PROJECT), str(clip_file), str(tmp_path / "new")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert said[:4] == ["second barred", "socket barred", "alone done", "write barred"]


# --------------------------------------------------------------------------- reading: a process that goes wrong

_SAY = """
import json, os, struct, time
def say(kind, body): os.write(1, struct.pack('<cIQ', kind, 1, len(body)) + body)
"""
_HEADER = {
    "info": {"codec": "x", "width": 64, "height": 48, "fps": 8.0, "constant_rate": True}
    | {"num_frames": 8, "seconds": 1.0, "file_bytes": 1},
    "fps": 8.0,
    "most_frames": 8,
    "shape": {"stored_width": 64, "stored_height": 48, "transpose": False, "mirror": False, "upend": False},
}


def _header(**changed: object) -> str:
    return f"say(b'H', json.dumps({ {**_HEADER, **changed}!r}).encode())\n"


MISBEHAVIOURS = {
    "segfault": ("import ctypes; ctypes.string_at(0)", r"crashed \(on SIGSEGV\)"),
    "abort": ("import os; os.abort()", r"crashed \(on SIGABRT\)"),
    "error": ("raise SystemExit(3)", r"crashed \(with status 3\)"),
    "silence": ("import time; time.sleep(60)", "too long"),
    "busy": ("while True: pass", "too long"),
    "closed-and-sleeping": ("import os, time; os.close(1); time.sleep(60)", "too long|crashed"),
    "heir": ("import os, time\nif os.fork(): os._exit(0)\nos.setsid(); time.sleep(4)", "too long"),
    "noise": ("import os\nwhile True: os.write(1, os.urandom(65536))", "cannot be"),
    "endless-words": (_SAY + "os.write(1, struct.pack('<cIQ', b'H', 0, 1 << 60))\ntime.sleep(60)", "cannot be"),
    "no-json": (_SAY + "say(b'H', b'{')", "cannot be"),
    "deep-json": (_SAY + "say(b'H', b'[' * 100000)", "cannot be"),
    "other-json": (_SAY + "say(b'H', b'[]')", "cannot be"),
    "no-shape": (_SAY + _header(shape={}), "cannot be"),
    "no-size": (_SAY + _header(shape={**_HEADER["shape"], "stored_width": 0}), "cannot be"),
    "vast-size": (_SAY + _header(shape={**_HEADER["shape"], "stored_width": 10**9}), "cannot be"),
    "words-for-size": (_SAY + _header(shape={**_HEADER["shape"], "stored_width": "64"}), "cannot be"),
    "many-frames": (_SAY + _header(most_frames=10**9), "cannot be"),
    "no-rate": (_SAY + _header(fps=float("inf")), "cannot be"),
    "short-frame": (_SAY + _header() + "say(b'F', b'x')", "cannot be"),
    "frames-for-ever": (_SAY + _header() + "while True: say(b'F', bytes(64 * 48 * 3))", "cannot be"),
    "no-ending": (_SAY + _header() + "say(b'F', bytes(64 * 48 * 3))", "crashed"),
    "odd-ending": (_SAY + _header() + "say(b'E', b'{}')", "cannot be"),
}


@posix
@pytest.mark.parametrize(("program", "says"), MISBEHAVIOURS.values(), ids=MISBEHAVIOURS.keys())
def test_a_reading_process_that_goes_wrong_is_a_refusal(
    tmp_path: Path, counting: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(read_module, "READING_PROGRAM", tmp_path / "program.py")
    start = time.monotonic()
    with pytest.raises(ClipRefused, match=says):
        read_clip(counting, limits=ClipLimits(wall_seconds=1 if "too long" in says else 2 * PATIENCE_SECONDS))
    assert time.monotonic() - start < PATIENCE_SECONDS
    monkeypatch.undo()
    assert read_clip(counting).clip.num_frames == 8, "and the next clip is read as ever"


@posix
def test_computing_time_is_counted_apart_from_the_clock(
    tmp_path: Path, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from studio.clips.limits import ClipLimits\nfrom studio.clips.reader_process import limit_process\n"
        "limit_process(ClipLimits(cpu_seconds=1))\nwhile True: pass"
    )
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(read_module, "READING_PROGRAM", tmp_path / "program.py")
    start = time.monotonic()
    with pytest.raises(ClipRefused, match="takes too long"):
        read_clip(counting, limits=ClipLimits(wall_seconds=2 * PATIENCE_SECONDS))
    assert time.monotonic() - start < PATIENCE_SECONDS


@posix
def test_the_reading_process_sees_nothing_of_ours(
    tmp_path: Path, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    program = _SAY + (
        "seen = {name: value for name, value in os.environ.items() if name != 'LC_CTYPE'}\n"
        "say(b'R', json.dumps({'message': f'{seen} {os.getcwd()} {os.getsid(0) == os.getpid()}'}).encode())"
    )
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(read_module, "READING_PROGRAM", tmp_path / "program.py")
    with pytest.raises(ClipRefused, match=r"\{\} / True"):
        read_clip(counting)


# ------------------------------------------------------------------------------------------------ reading: mutants

MUTANTS = 80


@pytest.mark.thorough
def test_mutated_clips_are_loaded_or_refused(tmp_path: Path) -> None:
    """Seeded, so that a failure can be made again: its number is its name."""
    mutants = clip_corpus.mutants(MUTANTS, random.Random(20))
    paths = []
    for index, (kind, data) in enumerate(mutants):
        paths.append(tmp_path / f"{index}-{kind}")
        paths[-1].write_bytes(data)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(_read, paths))
    for path, outcome in zip(paths, outcomes, strict=True):
        assert outcome.error is None, f"{path.name}: {outcome.error!r}"
        assert not re.search("takes too long|crashed|cannot be$", outcome.reason), f"{path.name}: {outcome.reason}"
    loaded = sum(outcome.loaded is not None for outcome in outcomes)
    assert 0 < loaded < MUTANTS, "blows that always or never tell test nothing"


def test_clips_are_read_side_by_side(counting: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda _: read_clip(counting).clip.frames, range(4)))
    assert all(np.array_equal(clips[0], other) for other in clips[1:])


def test_a_refusal_is_a_record_a_page_can_show(tmp_path: Path) -> None:
    with pytest.raises(ClipRefused) as refusal:
        read_clip(tmp_path / "<b>\n.mp4")
    record = refusal.value.to_json()
    assert record["code"] == "clip_refused"
    assert json.dumps(record)
    assert "\n" not in str(record["message"])
    assert struct.calcsize("<cIQ") == 13, "the messages the programs above send"
