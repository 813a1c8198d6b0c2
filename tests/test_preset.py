"""Presets: the folder is the catalogue, every file in it is checked, and a fault is named with its way out."""

import importlib.util
import re
from pathlib import Path

import pytest

from studio.errors import PresetError, UnknownPreset
from studio.preset import MAX_PRESET_BYTES, Preset, find_preset, list_presets, presets_folder, read_preset

CATALOGUE, FAULTS = list_presets(Path(__file__).parent.parent / "presets")
FROM_THE_HUB = [preset for preset in CATALOGUE if preset.weights.repo is not None]

SMALL = """
title = "Small"
summary = "A preset for tests."
tasks = ["text-to-video"]
pipeline = "WanPipeline"
torch_dtype = "float32"

[weights]
folder = "assets/small"
licence = "Apache-2.0"

[size]
multiple_of = 16
minimum = 60
maximum = 250

[frames]
multiple_of = 4
offset = 1
minimum = 5
maximum = 32

[memory]
transformer_parameters = 1000
text_encoder_parameters = 10
vae_parameters = 100
source = "Made up."

[defaults]
height = 64
width = 96
num_frames = 17
fps = 12
num_inference_steps = 4
guidance_scale = 4.0
"""


def _written(folder: Path, text: str = SMALL, name: str = "small") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_preset_in_the_catalogue_is_readable() -> None:
    assert not FAULTS, [str(fault) for fault in FAULTS]
    named = {preset.name for preset in CATALOGUE}
    assert named >= {
        "pocket",
        "wan2.1-t2v-1.3b",
        "wan2.1-t2v-14b",
        "wan2.2-ti2v-5b",
        "ltx-video",
        "cogvideox-2b",
        "cogvideox-5b",
        "latte-1",
        "hunyuanvideo-1.5",
        "hunyuanvideo",
        "mochi-1",
        "allegro",
        "sana-video",
    }


def test_the_pocket_model_comes_first() -> None:
    assert CATALOGUE[0].name == "pocket"


@pytest.mark.parametrize("preset", CATALOGUE, ids=lambda preset: preset.name)
def test_every_pipeline_is_where_its_family_says(preset: Preset) -> None:
    """Looked up in the text of the library's front page: importing it would take longer than the rest of this file."""
    found = importlib.util.find_spec(preset.checkpoint.library)
    assert found is not None
    assert found.origin is not None
    assert f'"{preset.pipeline}"' in Path(found.origin).read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", FROM_THE_HUB, ids=lambda preset: preset.name)
def test_a_preset_from_the_hub_is_pinned_or_says_that_it_is_not(preset: Preset) -> None:
    pinned = preset.weights.revision is not None and re.fullmatch(r"[0-9a-f]{40}", preset.weights.revision)
    assert pinned or "revision" in preset.notes


@pytest.mark.parametrize("preset", CATALOGUE, ids=lambda preset: preset.name)
def test_native_sizes_and_lengths_are_on_the_presets_own_grid(preset: Preset) -> None:
    for height, width in preset.size.native:
        assert preset.size.nearest(height, "height") == (height,)
        assert preset.size.nearest(width, "width") == (width,)
        assert preset.size.max_pixels is None or height * width <= preset.size.max_pixels
    if preset.frames.native is not None:
        assert preset.frames.nearest(preset.frames.native) == (preset.frames.native,)
    assert preset.defaults.prompts, "a form without an example is a blank page"


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("pocket", (5, 9, 17, 33)),
        ("wan2.1-t2v-1.3b", (5, 81)),
        ("ltx-video", (9, 161, 257)),
        ("mochi-1", (7, 85, 163)),
        ("latte-1", (16,)),
        ("allegro", (24, 40, 56, 72, 88)),
    ],
)
def test_each_family_takes_its_own_lengths(name: str, lengths: tuple[int, ...]) -> None:
    rule = find_preset(name, presets_folder()).frames
    assert [frames for frames in range(1, 400) if rule.nearest(frames) == (frames,) and frames in lengths] == [*lengths]
    assert all(rule.nearest(frames) != (frames,) for frames in (1, 4, 400))


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [(1, (64,)), (64, (64,)), (65, (64, 80)), (79, (64, 80)), (240, (240,)), (241, (240,)), (9999, (240,))],
)
def test_the_nearest_sizes_are_named_within_the_ends(tmp_path: Path, asked: int, nearest: tuple[int, ...]) -> None:
    """The ends themselves, 60 and 250, are off the grid of 16: the first and last valid sizes lie inside."""
    rule = read_preset(_written(tmp_path)).size
    assert rule.nearest(asked, "height") == rule.nearest(asked, "width") == nearest


@pytest.mark.parametrize(
    ("asked", "nearest"), [(1, (5,)), (5, (5,)), (6, (5, 9)), (29, (29,)), (32, (29,)), (99, (29,))]
)
def test_the_nearest_lengths_are_named_within_the_ends(tmp_path: Path, asked: int, nearest: tuple[int, ...]) -> None:
    assert read_preset(_written(tmp_path)).frames.nearest(asked) == nearest


@pytest.mark.parametrize(("asked", "nearest"), [(1, (320,)), (320, (320,)), (500, (320, 720)), (1280, (720,))])
def test_a_side_may_take_only_certain_lengths(asked: int, nearest: tuple[int, ...]) -> None:
    rule = find_preset("allegro", presets_folder()).size
    assert rule.nearest(asked, "height") == nearest
    assert rule.nearest(560, "width") == (560,)
    assert rule.nearest(600, "width") == (560, 800)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (("[size]", "colour = 1\n[size]"), ("colour", "licence", "revision")),
        (('title = "Small"', 'titel = "Small"'), ("titel", "title", "summary")),
        (("multiple_of = 16", "multiple_off = 16"), ("size.multiple_off", "multiple_of")),
        (("height = 64", "height = 65"), ("defaults.height = 65",)),
        (("num_frames = 17", "num_frames = 16"), ("defaults.num_frames = 16",)),
        (('folder = "assets/small"', 'folder = "a"\nrepo = "b/c"'), ("exactly one",)),
        (('folder = "assets/small"', 'repo = "b/c"\nrevision = "main"'), ("weights.revision",)),
        (('tasks = ["text-to-video"]', "tasks = []"), ("tasks",)),
        (('pipeline = "WanPipeline"', 'pipeline = "os.system"'), ("pipeline",)),
        (("guidance_scale = 4.0", "guidance_scale = nan"), ("guidance_scale",)),
        (('title = "Small"', 'title = "Small'), ("cannot be read",)),
        (('title = "Small"', 'name = "other"\ntitle = "Small"'), ("calls itself 'other'",)),
    ],
)
def test_a_fault_in_a_preset_is_named(tmp_path: Path, edit: tuple[str, str], named: tuple[str, ...]) -> None:
    path = _written(tmp_path, SMALL.replace(*edit))
    with pytest.raises(PresetError) as caught:
        read_preset(path)
    assert all(word in str(caught.value) for word in ("small.toml", *named)), str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = " + b"[" * 5000, b"#" * (MAX_PRESET_BYTES + 1), b""])
def test_rubbish_in_the_folder_is_a_fault_and_no_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rubbish.toml").write_bytes(content)
    _written(tmp_path)
    presets, faults = list_presets(tmp_path)
    assert [preset.name for preset in presets] == ["small"]
    assert ["rubbish.toml" in str(fault) for fault in faults] == [True]


def test_an_unknown_preset_is_answered_with_those_there_are(tmp_path: Path) -> None:
    _written(tmp_path)
    with pytest.raises(UnknownPreset, match="small"):
        find_preset("../secrets", tmp_path)


def test_the_digest_is_of_the_meaning_and_not_of_the_spelling(tmp_path: Path) -> None:
    plain = read_preset(_written(tmp_path))
    respelt = read_preset(_written(tmp_path, "# a comment\n" + SMALL.replace("height = 64", "height = 6_4")))
    changed = read_preset(_written(tmp_path, SMALL.replace("fps = 12", "fps = 13")))
    assert plain.digest == respelt.digest != changed.digest
