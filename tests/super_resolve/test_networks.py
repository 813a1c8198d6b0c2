"""The pocket super-resolver as a method: tiles cannot be seen, and a part is the same wherever the work began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.films import write_pictures

from studio.clips.read import read_clip
from studio.clips.reference import reference_to
from studio.errors import RequestError, WeightsCorrupt
from studio.events import EnlargementFinished, FramesEnlarged, never
from studio.pipelines.super_resolver import (
    LeastSquaresUpsampler,
    OneStepDetails,
    RecurrentRefiner,
    SuperResolverPipeline,
    load_super_resolver,
)
from studio.preset import find_enlarger
from studio.records.enlargements import EnlargementStore
from studio.records.runs import RunStore
from studio.requests.super_resolution import read_super_resolution_request
from studio.requests.work import EnlargeClip
from studio.super_resolve import begin, enlarge, forecast
from studio.super_resolve.networks import PocketSuperResolver

SCALES = pytest.mark.parametrize("scale", [2, 4])


@pytest.fixture
def pipeline() -> SuperResolverPipeline:
    """Untrained, and loud: what it adds would show every fault."""
    torch.manual_seed(0)
    networks = [RecurrentRefiner(channels=8, num_blocks=3) for _ in range(2)]
    details = OneStepDetails(channels=8, latent_channels=4, denoiser_channels=8, num_denoiser_blocks=2)
    for network in (*networks, details.decoder):
        for parameter in network.tails.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    torch.nn.init.normal_(details.denoiser.tail.weight, std=0.05)
    return SuperResolverPipeline(LeastSquaresUpsampler(), *networks, details)


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@SCALES
@pytest.mark.parametrize("how", [{"back_projections": 0}, {"back_projections": 2}, {"restore": True, "detail": 1.0}])
def test_tiled_is_untiled(pipeline: SuperResolverPipeline, scale: int, how: dict[str, Any]) -> None:
    given = pictures(4, 45, 58)
    whole = PocketSuperResolver(pipeline, scale, **how)(given)
    tiled = PocketSuperResolver(pipeline, scale, **how, tile=5)(given)
    assert whole.shape == (4, 45 * scale, 58 * scale, 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # where a sum that ends in a half is rounded


@SCALES
def test_nothing_is_carried_over_a_cut(pipeline: SuperResolverPipeline, scale: int) -> None:
    given = pictures(3, 12, 16)
    upscaler = PocketSuperResolver(pipeline, scale)
    remembering = upscaler(given)
    upscaler.reset()
    assert np.array_equal(upscaler(given), remembering)
    assert not np.array_equal(PocketSuperResolver(pipeline, scale)(given[2:]), remembering[2:])


def test_restoring_is_another_network_and_leaves_the_given_clip_behind(pipeline: SuperResolverPipeline) -> None:
    given = pictures(2, 12, 16)
    plain = PocketSuperResolver(pipeline, 2, back_projections=0)(given)
    assert not np.array_equal(PocketSuperResolver(pipeline, 2, restore=True, back_projections=0)(given), plain)


def test_detail_depends_on_as_many_pictures_as_the_method_says(pipeline: SuperResolverPipeline) -> None:
    given = pictures(8, 12, 16)
    upscaler = PocketSuperResolver(pipeline, 2, restore=True, detail=1.0)
    whole = upscaler(given)
    late = PocketSuperResolver(pipeline, 2, restore=True, detail=1.0)(given[8 - upscaler.memory - 1 :])
    assert np.abs(late[-1].astype(int) - whole[-1]).max() <= 1
    assert upscaler.memory > PocketSuperResolver(pipeline, 2, restore=True).memory


def test_a_model_that_goes_on_makes_the_file_that_was_never_stopped(tmp_path: Path) -> None:
    """Over a scene cut, with the shipped weights."""
    drift = np.random.default_rng(0).integers(60, 190, (6, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    shown = [np.roll(drift if n < 30 else 255 - drift, n, 1) for n in range(60)]
    clip = write_pictures(tmp_path / "clip.mp4", [512 * n for n in range(60)], pictures=shown)
    request = read_super_resolution_request({"source": reference_to(clip, field="source"), "method": "pocket"})
    made = []
    for stopped in (False, True):
        store = RunStore(tmp_path / f"runs-{stopped}")
        work = EnlargeClip(enlargement_id=begin(request, store=store).id)
        if stopped:
            events = enlarge(work, store=store, owner="local", stop=never)
            next(event for event in events if isinstance(event, FramesEnlarged) and event.done >= 30)
            events.close()
        *_, last = enlarge(work, store=store, owner="local", stop=never)
        assert isinstance(last, EnlargementFinished)
        made.append(EnlargementStore(store.folder).path(work.enlargement_id) / last.path)
    whole, gone_on = (read_clip(path).clip.frames for path in made)
    assert whole.shape == (60, 48, 64, 3)
    assert np.array_equal(gone_on, whole)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": "poket"}, "method"),
        ({"method": "lanczos", "restore": True}, "restore"),
        ({"method": "lanczos", "detail": 0.5}, "detail"),
        ({"method": "pocket", "detail": 0.5}, "detail"),
    ],
)
def test_a_method_that_is_none_or_cannot_is_refused_by_name(
    tmp_path: Path, fields: dict[str, object], field: str
) -> None:
    clip = write_pictures(tmp_path / "clip.mp4", [0, 512])
    request = read_super_resolution_request({"source": reference_to(clip, field="source")} | fields)
    store = RunStore(tmp_path / "runs")
    with pytest.raises(RequestError) as refused:
        begin(request, store=store)
    assert refused.value.field == field
    assert refused.value.way_out
    assert not EnlargementStore(store.folder).list()


def test_a_model_is_foretold_by_a_process_of_its_own_which_ends(tmp_path: Path) -> None:
    clip = write_pictures(tmp_path / "clip.mp4", [512 * n for n in range(12)])
    request = read_super_resolution_request({"source": reference_to(clip, field="source"), "method": "pocket"})
    store = RunStore(tmp_path / "runs")
    elsewhere, here = forecast(request, store=store), forecast(request, store=store, here=True)
    assert (elsewhere.num_frames, elsewhere.height, elsewhere.width) == (12, 96, 128)
    assert elsewhere.memory_bytes == here.memory_bytes
    assert not list((tmp_path / "runs").glob(".forecast-*"))


def test_weights_that_were_changed_are_not_loaded(tmp_path: Path) -> None:
    folder = find_enlarger("pocket").weights_folder
    assert folder is not None
    for path in folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    weights = tmp_path / "refiner/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsCorrupt, match="refiner"):
        load_super_resolver(tmp_path)
