"""Engines: models that enlarge are loaded as every preset is, and make the same pictures wherever the work began."""

from __future__ import annotations

import gc
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.films import write_pictures
from support.tiny_checkpoints import write_toml
from support.tiny_upscalers import TINY, preset_for, save

from studio import pipelines
from studio.clips.film import Film
from studio.clips.reference import reference_to
from studio.errors import DoesNotFit, NumericalError, PresetError, WeightsCorrupt, WeightsMissing
from studio.events import EnlargementStarted, FramesEnlarged, StopWish, never
from studio.family import SUPER_RESOLVERS
from studio.machine import hardware, weights
from studio.machine.placement import verdict
from studio.pipelines.swiftvr import ReAE
from studio.preset import ENLARGERS, EnlargerPreset, list_enlargers
from studio.records.enlargements import Enlargement, EnlargementStore
from studio.records.runs import RunStore
from studio.requests.caches import METHODS
from studio.requests.super_resolution import Excerpt, read_super_resolution_request
from studio.requests.work import EnlargeClip
from studio.super_resolve import begin, enlarge, forecast
from studio.super_resolve.engines import upscaler_of
from studio.super_resolve.engines.windows import ModelUpscaler, Windowed, starts
from studio.super_resolve.walk import PART

HEIGHT, WIDTH = 27, 45
AT_ONCE = 24


def moving(count: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Pictures that drift, each unlike the others."""
    generator = np.random.default_rng(seed)
    base = generator.integers(0, 255, (-(-height // 3), -(-width // 3), 3), np.uint8).repeat(3, 0).repeat(3, 1)
    return np.stack([np.roll(base, index, 1)[:height, :width] for index in range(count)])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("upscalers")
    return {name: save(name, folder) for name in TINY}


@pytest.fixture(scope="module", params=TINY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def upscaler(name: str, checkpoints: dict[str, Path]) -> Iterator[ModelUpscaler]:
    loaded = upscaler_of(preset_for(name, checkpoints[name]), 2)
    assert isinstance(loaded, ModelUpscaler)
    yield loaded
    pipelines.unload()


@pytest.fixture
def copied(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(checkpoints[name], tmp_path / name))


def chunks(upscaler: ModelUpscaler, pictures: np.ndarray) -> np.ndarray:
    """As the walk gives them, from the beginning of a scene."""
    upscaler.reset()
    parts = [pictures[first : first + AT_ONCE] for first in range(0, len(pictures), AT_ONCE)]
    return np.concatenate([upscaler(part) for part in parts])


# ------------------------------------------------------------------------------------------------- what is made


def test_an_odd_clip_becomes_as_many_larger_pictures_and_the_same_ones_again(upscaler: ModelUpscaler) -> None:
    given = moving(10)
    first, again = chunks(upscaler, given), chunks(upscaler, given)
    assert first.shape == (10, 2 * HEIGHT, 2 * WIDTH, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert first.std() > 5
    assert not np.array_equal(first[0], first[9])
    assert not np.array_equal(first, chunks(upscaler, 255 - given))


@pytest.mark.parametrize("scale", [2, 4])
def test_every_scale_that_a_preset_names_is_made(scale: int, name: str, checkpoints: dict[str, Path]) -> None:
    preset = preset_for(name, checkpoints[name])
    if scale not in preset.scales:
        pytest.skip(f"{name} has no {scale}")
    made = upscaler_of(preset, scale)(moving(2, 9, 13))
    assert made.shape == (2, 9 * scale, 13 * scale, 3)


def test_begun_later_it_makes_the_same_pictures(upscaler: ModelUpscaler) -> None:
    """A killed enlargement goes on with the part that is missing: as far back as `memory` is all that counts."""
    back = -(-upscaler.memory // AT_ONCE)
    given = moving((back + 2) * AT_ONCE, 9, 13)
    whole, later = chunks(upscaler, given), chunks(upscaler, given[AT_ONCE:])
    assert np.array_equal(whole[(back + 1) * AT_ONCE :], later[back * AT_ONCE :])
    assert not np.array_equal(whole[AT_ONCE : 2 * AT_ONCE], later[:AT_ONCE])


def test_a_scene_has_any_length_and_knows_nothing_of_the_one_before(upscaler: ModelUpscaler) -> None:
    scenes = [moving(count, 9, 13, seed=count) for count in (1, 2, 3, 4, 7, 24)]
    alone = [chunks(upscaler, scene) for scene in scenes]
    for scene, expected in zip(reversed(scenes), reversed(alone), strict=True):
        upscaler.reset()
        made = upscaler(scene)
        assert len(made) == len(scene)
        assert np.array_equal(made, expected)


def test_a_scene_that_begins_within_a_chunk_goes_on_in_the_next(upscaler: ModelUpscaler) -> None:
    upscaler.reset()
    first, then = moving(17 + AT_ONCE, 9, 13)[:17], moving(17 + AT_ONCE, 9, 13)[17:]
    made = [upscaler(first), upscaler(then)]
    upscaler.reset()
    assert [len(each) for each in made] == [17, AT_ONCE]
    assert not np.array_equal(made[1], upscaler(then)), "nothing was carried on"


def held(upscaler: ModelUpscaler) -> int:
    """Bytes that an engine keeps between two calls, its model apart."""
    gc.collect()
    kept = list(vars(upscaler).values())
    kept += [value for state in kept if isinstance(state, dict) for value in state.values()]
    return sum(value.nbytes for value in kept if isinstance(value, np.ndarray | torch.Tensor))


def test_no_more_is_kept_after_four_chunks_than_after_one(upscaler: ModelUpscaler) -> None:
    given = moving(4 * AT_ONCE, 9, 13)
    chunks(upscaler, given[:AT_ONCE])
    after_one = held(upscaler)
    chunks(upscaler, given)
    assert held(upscaler) == after_one > 0


def test_a_tile_at_a_time_leaves_a_picture_as_it_would_be_whole() -> None:
    """Where a tile's pixels do not depend on its borders, tiling them changes nothing."""

    class Plain(Windowed):
        def __init__(self) -> None:
            pass

    window = moving(3, 101, 67)
    bounds = {"tile": (48, 32), "multiple_of": 8, "scale": 2}
    tiled = Plain()._tiled(
        window, slice(1, 3), made=lambda tile: tile.repeat(2, 1).repeat(2, 2).astype(np.float32) / 255, **bounds
    )
    assert np.array_equal(tiled, window[1:].repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("length", [49, 56, 64, 100, 1080])
def test_tiles_reach_from_one_end_to_the_other_and_overlap(length: int) -> None:
    on_the_grid = -(-length // 8) * 8
    found = starts(on_the_grid, 48, 8)
    assert found[0] == 0
    assert found[-1] + 48 == on_the_grid
    assert all(8 <= later - earlier <= 38 and later % 8 == 0 for earlier, later in itertools.pairwise(found))


# ------------------------------------------------------------------------------------------- SwiftVR's autoencoder


def test_the_autoencoder_gives_in_pieces_what_it_gives_whole() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = ReAE(latent_channels=4, encoder_channels=6, decoder_channels=(8, 8, 6, 6)).eval()
        pictures = torch.rand(24, 3, 32, 48)
    with torch.no_grad():
        z, _ = autoencoder.encode(pictures)
        whole, _ = autoencoder.decode(z)
        memory, carried, pieces, back = None, None, [], []
        for piece in pictures.split((4, 12, 8)):
            latents, memory = autoencoder.encode(piece, memory)
            pieces.append(latents)
        for latent in torch.cat(pieces).split(2):
            made, carried = autoencoder.decode(latent, carried)
            back.append(made)
    assert z.shape == (6, 4, 2, 3)
    assert whole.shape == pictures.shape
    assert torch.allclose(torch.cat(pieces), z, atol=1e-6)
    assert torch.allclose(torch.cat(back), whole, atol=1e-6)


def test_the_autoencoder_at_its_published_widths_has_its_published_size() -> None:
    """1.5 and 39.5 million, as its authors say; a file of those tensors is read by their names alone."""
    with torch.device("meta"):
        autoencoder = ReAE()
    sizes = [sum(each.numel() for each in part.parameters()) for part in (autoencoder.encoder, autoencoder.decoder)]
    assert [round(size / 1e6, 1) for size in sizes] == [1.5, 39.5]


@pytest.mark.parametrize("fault", ["missing", "one more", "another shape"])
def test_tensors_that_are_not_the_autoencoders_are_refused(fault: str, copied: Callable[[str], Path]) -> None:
    folder = copied("swiftvr")
    tensors = load_file(folder / "reae.safetensors")
    if fault == "missing":
        del tensors["decoder.13.conv3d.weight"]
    elif fault == "one more":
        tensors["decoder.13.conv.weight"] = torch.zeros(1)
    else:
        tensors["encoder.17.weight"] = torch.zeros(4, 7, 3, 3)
    save_file(tensors, folder / "reae.safetensors")
    with pytest.raises(WeightsCorrupt, match="tensors of ReAE"):
        upscaler_of(preset_for("swiftvr", folder), 2)


# ------------------------------------------------------------------------------------------------- loading


def model_file(name: str, folder: Path) -> Path:
    part = SUPER_RESOLVERS[TINY[name].pipeline].parts.get("vae")
    place = folder / (part.path if part else "vae")
    return place if place.is_file() else place / "diffusion_pytorch_model.safetensors"


def test_weights_with_nan_are_refused(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    path = model_file(name, folder)
    tensors = load_file(path)
    tensors[next(iter(tensors))].view(-1)[0] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(WeightsCorrupt, match="NaN"):
        upscaler_of(preset_for(name, folder), 2)


def test_weights_that_are_not_whole_are_refused(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    path = model_file(name, folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsCorrupt, match="cannot be read"):
        upscaler_of(preset_for(name, folder), 2)


def test_a_folder_that_is_not_there_is_said_to_be_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        upscaler_of(preset_for(name, tmp_path / "nothing"), 2)
    with pytest.raises(WeightsMissing):
        upscaler_of(preset_for(name, tmp_path), 2, folder=tmp_path)


def test_what_is_missing_is_named(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    preset = preset_for(name, folder)
    assert weights.state(preset).ready
    model_file(name, folder).unlink()
    known = weights.state(preset)
    assert not known.ready
    assert known.missing[0].startswith(("vae/", "reae."))
    with pytest.raises(WeightsCorrupt, match=r"lacks (vae/|reae\.)"):
        upscaler_of(preset, 2)


@pytest.mark.parametrize("name", ["kandinsky", "dove"])
def test_an_index_of_another_model_is_refused(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("diffusers", "os", 1).replace('"diffusers",', '"os",', 1))
    with pytest.raises(WeightsCorrupt):
        upscaler_of(preset_for(name, folder), 2)


def test_a_model_too_large_for_the_machine_is_refused_before_it_is_read(checkpoints: dict[str, Path]) -> None:
    preset = preset_for("dove", checkpoints["dove"])
    memory = preset.memory.model_copy(update={"parameters": 10**13})
    with pytest.raises(DoesNotFit, match="memory"):
        upscaler_of(preset.model_copy(update={"memory": memory}), 2)


def test_pictures_with_nan_are_refused(upscaler: ModelUpscaler) -> None:
    with pytest.raises(NumericalError, match="NaN"):
        upscaler._in_range(np.full((1, 2, 2, 3), np.nan, np.float32))


def test_a_pipeline_that_nobody_calls_is_refused(checkpoints: dict[str, Path]) -> None:
    preset = preset_for("ltx", checkpoints["ltx"]).model_copy(update={"pipeline": "WanPipeline"})
    with pytest.raises(PresetError, match="no pipeline WanPipeline to enlarge"):
        upscaler_of(preset, 2)


class _Enough(Exception):
    """Somebody wants the work to end."""


def test_a_window_is_ended_between_two_layers_and_leaves_the_model_as_it_was(
    name: str, checkpoints: dict[str, Path]
) -> None:
    """Whoever asks after one layer is heard after the next, in the denoiser and the autoencoder alike."""
    pictures = moving(AT_ONCE)
    asked, last = 0, 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == last:
            raise _Enough

    upscaler = upscaler_of(preset_for(name, checkpoints[name]), 2, check=check)
    asked = 0
    meant = chunks(upscaler, pictures)
    of_a_window = asked
    assert of_a_window > 40
    for share in (0.05, 0.5, 0.95):
        asked, last = 0, int(share * of_a_window)
        with pytest.raises(_Enough):
            chunks(upscaler, pictures)
        assert asked == last
    asked, last = 0, -1
    assert np.array_equal(chunks(upscaler, pictures), meant)
    layers = [layer for model in upscaler._loaded.models.values() for layer in model.modules()]  # pyright: ignore
    assert not any(layer._forward_pre_hooks for layer in layers)
    pipelines.unload()


# ------------------------------------------------------------------------------------------------- from the verb


@pytest.fixture
def offered(name: str, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnlargerPreset:
    """A tiny preset, in a catalogue of its own."""
    preset = preset_for(name, checkpoints[name])
    write_toml(preset, tmp_path / "presets" / ENLARGERS)
    monkeypatch.setenv("DAILIES_PRESETS", str(tmp_path / "presets"))
    return preset


@pytest.mark.thorough
def test_a_part_tried_first_is_that_of_the_whole_clip(offered: EnlargerPreset, tmp_path: Path) -> None:
    """Begun in the middle and gone on with, every part is the one that would have been, across a scene's beginning."""
    pictures = [*moving(40, 16, 26), *(255 - moving(3 * PART, 16, 26))]
    clip = write_pictures(tmp_path / "clip.mp4", [1000 * index for index in range(len(pictures))], pictures=pictures)
    request = read_super_resolution_request(
        {"source": reference_to(clip, field="source"), "method": offered.name, "scale": 2}
    )
    store = RunStore(tmp_path / "runs")
    whole, later = begin(request, store=store), begin(request, store=store)
    folders = [EnlargementStore(store.folder).path(each.id) for each in (whole, later)]
    kept: dict[str, bytes] = {}

    def made(enlargement: Enlargement, excerpt: Excerpt | None = None) -> None:
        work = EnlargeClip(enlargement_id=enlargement.id, excerpt=excerpt)
        for event in enlarge(work, store=store, owner="local", stop=never):
            if isinstance(event, FramesEnlarged) and enlargement is whole:
                kept.update({part.name: part.read_bytes() for part in (folders[0] / "parts").glob("*.nut")})

    made(whole)
    made(later, Excerpt(start=3.4, seconds=1.0))
    tried = {part.name: part.read_bytes() for part in (folders[1] / "parts").glob("*.nut")}
    assert 1 <= len(tried) < len(kept)
    assert all(kept[part] == content for part, content in tried.items())
    made(later)
    with Film(folders[1] / "video.mp4") as film:
        assert (film.info.clip.height, film.info.clip.width, sum(1 for _ in film)) == (32, 52, len(pictures))


@pytest.mark.parametrize("name", ["dove"], indirect=True)
def test_a_cancel_within_a_window_keeps_the_parts_before_it(offered: EnlargerPreset, tmp_path: Path) -> None:
    pictures = list(moving(3 * PART, 16, 26))
    clip = write_pictures(tmp_path / "clip.mp4", [1000 * index for index in range(len(pictures))], pictures=pictures)
    request = read_super_resolution_request({"source": reference_to(clip, field="source"), "method": offered.name})
    store = RunStore(tmp_path / "runs")
    enlargement = begin(request, store=store)
    work, folder = EnlargeClip(enlargement_id=enlargement.id), EnlargementStore(store.folder).path(enlargement.id)
    asked = 0

    def stop() -> StopWish | None:
        """A few layers after the first part lies there, within the second one's window."""
        nonlocal asked
        asked += (folder / "parts/000000.nut").is_file()
        return "cancel" if asked > 5 else None

    events = list(enlarge(work, store=store, owner="local", stop=stop))
    assert asked == 6
    assert isinstance(events[-1], FramesEnlarged)
    assert EnlargementStore(store.folder).get(enlargement.id).state == "stopped"
    assert [path.name for path in (folder / "parts").iterdir()] == ["000000.nut"]
    events = list(enlarge(work, store=store, owner="local", stop=never))
    assert isinstance(events[0], EnlargementStarted)
    assert events[0].done == PART
    assert EnlargementStore(store.folder).get(enlargement.id).state == "complete"


@pytest.mark.parametrize("name", ["swiftvr"], indirect=True)
def test_a_forecast_counts_all_pictures_that_are_made_at_once(offered: EnlargerPreset, tmp_path: Path) -> None:
    clip = write_pictures(
        tmp_path / "clip.mp4", [1000 * index for index in range(30)], pictures=list(moving(30, 18, 26))
    )
    request = read_super_resolution_request({"source": reference_to(clip, field="source"), "method": offered.name})
    began = time.perf_counter()
    foretold = forecast(request, store=RunStore(tmp_path))
    assert foretold.num_frames == 30
    assert 0 < foretold.seconds <= 30 / AT_ONCE * (time.perf_counter() - began)
    plain = forecast(request.model_copy(update={"method": "lanczos"}), store=RunStore(tmp_path))
    assert foretold.memory_bytes > plain.memory_bytes


@pytest.mark.parametrize("name", ["dove"], indirect=True)
def test_a_model_that_does_not_run_here_is_refused_before_it_is_queued(offered: EnlargerPreset, tmp_path: Path) -> None:
    memory = offered.memory.model_copy(update={"parameters": 10**13})
    write_toml(offered.model_copy(update={"memory": memory}), tmp_path / "presets" / ENLARGERS)
    clip = write_pictures(tmp_path / "clip.mp4", [0, 1000], pictures=list(moving(2, 18, 26)))
    request = read_super_resolution_request({"source": reference_to(clip, field="source"), "method": offered.name})
    with pytest.raises(DoesNotFit, match=r"does not run here.*GB"):
        begin(request, store=RunStore(tmp_path / "runs"))


# ------------------------------------------------------------------------------------------------- the presets


FULL_SIZE = [preset for preset in list_enlargers()[0] if preset.weights.repo is not None]


def test_every_family_that_enlarges_has_a_preset_and_a_tiny_checkpoint() -> None:
    assert {preset.pipeline for preset in FULL_SIZE} == SUPER_RESOLVERS.keys()
    assert {tiny.pipeline for tiny in TINY.values()} == SUPER_RESOLVERS.keys()


@pytest.mark.parametrize("preset", FULL_SIZE, ids=lambda preset: preset.name)
def test_a_card_says_what_was_not_seen_and_whether_it_runs_here(preset: EnlargerPreset) -> None:
    assert "could not be reached" in preset.notes
    assert preset.weights.licence_note
    assert preset.window is not None
    judged = verdict(preset, hardware.measure())
    assert "GB" in judged.why


@pytest.mark.parametrize("row", SUPER_RESOLVERS.values(), ids=lambda row: row.engine)
@pytest.mark.parametrize("method", METHODS)
def test_why_a_cache_saves_nothing_is_said(row: Any, method: str) -> None:
    assert row.why_not_cached(method).endswith(".")
