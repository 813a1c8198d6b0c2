"""Training can stop anywhere and go on as if it had not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.driving_world import VEHICLE_TYPES, render_with_maps, sample_scene
from studio.pocket import autoencoder_recipe as recipe
from studio.pocket import denoiser_recipe, text_recipe
from studio.pocket.architecture import FPS, SPECK, build_autoencoder, build_text_encoder
from studio.pocket.data import HELD_OUT_SEEDS, crops, store_worlds, vehicle_cover
from studio.pocket.loop import Plan, Trainee, train_steps
from studio.pocket.optimizer import orthogonalised


def _train(path: Path, *, until: int) -> dict[str, torch.Tensor]:
    """A speck of an autoencoder on noise, up to `until` of 6 steps, as a process of its own would do it."""
    vae = build_autoencoder(SPECK)
    recipe.initialise(vae, torch.Generator().manual_seed(0))
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 32, 32, 3), dtype=np.uint8)
    plan = Plan(steps=6, warmup_steps=2)
    trainee = Trainee.of(vae, plan, recipe.is_muon_matrix)
    loss_of = recipe.objective_of(
        vae, pixels, lambda step: recipe.CropPlan(batch=2, length=5, size=16), recipe.AutoencoderObjective()
    )

    def loss_until(step: int, generator: torch.Generator) -> torch.Tensor:
        if step == until:
            raise KeyboardInterrupt
        return loss_of(step, generator)

    with suppress(KeyboardInterrupt):
        list(train_steps(trainee, _saving_always(plan), loss_until, stage="test", state_path=path))
    return {"average": trainee.average["decoder.conv_in.weight"], **vae.state_dict()}


def _saving_always(plan: Plan) -> Plan:
    return Plan(steps=plan.steps, warmup_steps=plan.warmup_steps, save_every_seconds=-1.0)


def test_a_run_that_stopped_and_went_on_is_bit_for_bit_the_run_that_did_not(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole.pt", until=99)
    _train(tmp_path / "parts.pt", until=3)
    parts = _train(tmp_path / "parts.pt", until=99)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_training_changes_the_weights(tmp_path: Path) -> None:
    before = _train(tmp_path / "none.pt", until=0)
    after = _train(tmp_path / "some.pt", until=99)
    assert not torch.equal(before["decoder.conv_in.weight"], after["decoder.conv_in.weight"])


def test_held_out_worlds_are_refused_as_training_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held out"):
        store_worlds(tmp_path, clips=2, first_seed=HELD_OUT_SEEDS - 1)


def test_crops_are_the_pixels_of_one_clip_in_order() -> None:
    clip = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 8, 8, 3), np.uint8)
    batch = crops(clip[None], torch.Generator().manual_seed(0), batch=2, length=5, size=4)
    assert batch.shape == (2, 3, 5, 4, 4)
    assert torch.allclose((batch[0, 0, :, 0, 0] + 1) * 127.5, torch.arange(5.0), atol=1e-4)


def test_muon_steps_have_singular_values_near_one() -> None:
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalised(matrix).float())
    assert singular.min() > 0.5
    assert singular.max() < 1.5


def test_opening_the_past_taps_keeps_the_image_autoencoder_nearly_as_it_was() -> None:
    vae = build_autoencoder(SPECK)
    recipe.initialise(vae, torch.Generator().manual_seed(0))
    still = torch.rand(1, 1, 32, 32, 3, generator=torch.Generator().manual_seed(1)).mul(255).byte().numpy()
    before = recipe.reconstruct(vae, still)
    recipe.open_past_taps(vae)
    assert np.array_equal(before, recipe.reconstruct(vae, still))


def test_a_text_encoder_learns_to_say_what_a_caption_states() -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(SPECK)
    denoiser_recipe.initialise_text_encoder(encoder, torch.Generator().manual_seed(0))
    reader = text_recipe.Reader(encoder, {"colour": 2})
    # Captions of five tokens and an end; the colour is the token at a place that moves about.
    ids = torch.randint(10, 300, (64, 1, 16))
    ids[:, :, 6:] = 0
    labels = torch.arange(64) % 2
    ids[torch.arange(64), 0, torch.arange(64) % 5] = 5 + labels
    ids[:, :, 5] = 1
    plan = Plan(steps=60, muon_lr=0.01, adam_lr=2e-3, warmup_steps=5)
    trainee = Trainee.of(reader, plan, denoiser_recipe.is_muon_matrix)
    loss_of = text_recipe.objective_of(reader, ids, {"colour": labels}, batch=32)
    losses = []
    for step in range(plan.steps):
        trainee.optimizer.scale_lr(plan.rate(step))
        loss = loss_of(step, torch.Generator().manual_seed(step))
        loss.backward()
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert text_recipe.accuracy(reader, ids[:, 0], {"colour": labels})["colour"] > 0.9


def test_the_cover_of_vehicles_is_their_share_of_each_cell() -> None:
    seed = 3
    _, maps = render_with_maps(sample_scene(seed), height=64, width=64, num_frames=2, fps=FPS)
    cover = vehicle_cover(seed, num_frames=2, size=64)
    assert cover.shape == (2, 8, 8)
    assert maps.semantic is not None
    vehicles = [maps.semantic_labels.index(name) for name in VEHICLE_TYPES]
    assert cover[1, 4, 4] == pytest.approx(np.isin(maps.semantic[1, 32:40, 32:40], vehicles).mean())
    assert cover.sum() * 64 == pytest.approx(np.isin(maps.semantic, vehicles).sum())
    assert 0 < cover.mean() < 1
