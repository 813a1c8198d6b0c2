"""Training can stop anywhere and go on as if it had not."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.driving_world import VEHICLE_TYPES, render_with_maps, sample_scene
from studio.pocket import autoencoder_recipe as recipe
from studio.pocket import denoiser_recipe, text_recipe
from studio.pocket.amounts import TOY
from studio.pocket.architecture import FPS, SPECK, build_autoencoder, build_text_encoder
from studio.pocket.data import HELD_OUT_SEEDS, crops, render_training_world, render_world, store_worlds
from studio.pocket.export import load_pipeline
from studio.pocket.loop import Plan, Trainee, train_steps
from studio.pocket.optimizer import MuonWithAdamW, orthogonalised
from studio.pocket.train import train


def _train(path: Path, *, until: int) -> dict[str, torch.Tensor]:
    """A speck of an autoencoder on noise, up to `until` of 10 steps, as a process of its own would do it."""
    vae = build_autoencoder(SPECK)
    recipe.initialise(vae, torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 5, 32, 32, 3), dtype=np.uint8))
    plan = Plan(steps=10, warmup_steps=2)
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
    _train(tmp_path / "parts.pt", until=9)
    assert torch.load(tmp_path / "parts.pt")["step"] == 8  # what it goes on from
    parts = _train(tmp_path / "parts.pt", until=99)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_training_changes_the_weights(tmp_path: Path) -> None:
    before = _train(tmp_path / "none.pt", until=0)
    after = _train(tmp_path / "some.pt", until=99)
    assert not torch.equal(before["decoder.conv_in.weight"], after["decoder.conv_in.weight"])


def test_a_rate_that_follows_the_clock_has_fallen_when_time_is_up() -> None:
    plan = Plan(steps=1000, seconds=10.0, warmup_steps=10, falling_share=0.5)
    assert plan.rate(100, 1.0) == plan.rate(100, 4.9) == 1.0
    assert plan.rate(100, 7.5) == pytest.approx(0.5)
    assert plan.rate(100, 10.0) == plan.rate(100, 12.0) == 0.0
    assert plan.rate(750, 1.0) == pytest.approx(0.5)  # and steps end it as well


def test_a_run_by_the_clock_ends_with_its_seconds_and_goes_on_with_what_is_left(tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 4)
    plan = Plan(steps=10**9, seconds=0.4)

    def run() -> tuple[Trainee, float]:
        trainee = Trainee.of(module, plan, lambda name, parameter: parameter.ndim == 2)
        began = time.monotonic()
        list(train_steps(trainee, plan, _square_of(module), stage="test", state_path=tmp_path / "state.pt"))
        return trainee, time.monotonic() - began

    first, _ = run()
    assert first.step % 8 == 0
    assert first.seconds >= 0.4
    again, _ = run()
    assert again.step <= first.step + 8


def _square_of(module: torch.nn.Module) -> Callable[[int, torch.Generator], torch.Tensor]:
    return lambda step, generator: module(torch.randn(2, 4, generator=generator)).square().mean()


def test_a_loss_that_is_no_number_ends_the_stage_with_its_name(tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 4)
    plan = Plan(steps=16)
    trainee = Trainee.of(module, plan, lambda name, parameter: False)
    with pytest.raises(ArithmeticError, match="reading is nan at step 8"):
        list(
            train_steps(
                trainee,
                plan,
                lambda step, generator: module(torch.full((1, 4), torch.nan)).sum(),
                stage="reading",
                state_path=tmp_path / "state.pt",
            )
        )


def test_held_out_worlds_are_refused_as_training_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held out"):
        store_worlds(tmp_path, clips=2, first_seed=HELD_OUT_SEEDS - 1)


def test_crops_are_the_pixels_of_one_clip_in_order() -> None:
    clip = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 8, 8, 3), np.uint8)
    batch = crops(torch.from_numpy(clip)[None], torch.Generator().manual_seed(0), batch=2, length=5, size=4)
    assert batch.shape == (2, 3, 5, 4, 4)
    assert torch.allclose((batch[0, 0, :, 0, 0] + 1) * 127.5, torch.arange(5.0), atol=1e-4)


def test_muon_steps_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalised(matrices).float())
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


def test_the_optimizer_steps_as_its_rules_say_whatever_else_has_the_same_shape() -> None:
    torch.manual_seed(0)
    matrices, others = [torch.randn(6, 4, requires_grad=True) for _ in range(3)], [torch.randn(5, requires_grad=True)]
    before = [parameter.detach().clone() for parameter in (*matrices, *others)]
    optimizer = MuonWithAdamW(matrices, others, muon_lr=0.1, adam_lr=0.01, weight_decay=0.5)
    (sum(m.pow(3).sum() for m in matrices) + others[0].pow(3).sum()).backward()
    gradients = [parameter.grad.clone() for parameter in (*matrices, *others)]
    optimizer.step()
    for matrix, old, gradient in zip(matrices, before, gradients, strict=False):
        momentum = 0.05 * gradient
        update = orthogonalised((0.05 * gradient + 0.95 * momentum)[None])[0].float()
        assert torch.allclose(matrix, old * (1 - 0.1 * 0.5) - 0.1 * 1.5**0.5 * update, atol=1e-6)
    # AdamW's first step is the sign of the gradient.
    assert torch.allclose(others[0], before[-1] - 0.01 * gradients[-1].sign(), atol=1e-5)


def test_covers_are_the_share_of_each_cell_that_vehicles_and_lane_lines_take() -> None:
    seed = 3
    _, maps = render_with_maps(sample_scene(seed), height=64, width=64, num_frames=2, fps=FPS)
    made = render_training_world(seed, num_frames=2, size=64)
    covers = made.covers
    assert covers.shape == (2, 2, 8, 8)
    assert maps.semantic is not None
    kinds = (VEHICLE_TYPES, ("lane_line",))
    for cover, names in zip(covers.swapaxes(0, 1), kinds, strict=True):
        wanted = np.isin(maps.semantic, [maps.semantic_labels.index(name) for name in names])
        assert cover[1, 4, 4] == pytest.approx(wanted[1, 32:40, 32:40].mean())
        assert cover.sum() * 64 == pytest.approx(wanted.sum())
        assert 0 < cover.mean() < 1
    assert np.array_equal(made.world.frames, render_world(seed, num_frames=2, size=64).frames)


def test_vehicles_and_lane_lines_weigh_more_than_the_rest_of_the_road() -> None:
    objective = denoiser_recipe.DenoiserObjective(vehicle_weight=8.0, lane_weight=3.0)
    covers = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.5], [0.0, 1 / 6]]).view(4, 2, 1, 1, 1)
    assert objective.weights(covers).flatten().tolist() == pytest.approx([1.0, 9.0, 4.0, 2.5])


@pytest.mark.thorough
def test_the_whole_training_ends_in_a_checkpoint_that_diffusers_runs(tmp_path: Path) -> None:
    train("all", tmp_path, amounts=TOY, device="cpu", export_to=tmp_path / "out", on_event=lambda event: None)
    pipeline = load_pipeline(tmp_path / "out")
    tokenizer = pipeline.tokenizer.backend_tokenizer
    assert tokenizer.padding is tokenizer.truncation is None  # though training had it pad and cut
    pipeline.set_progress_bar_config(disable=True)
    clip = pipeline(
        "a red car", num_frames=5, height=32, width=32, num_inference_steps=1, max_sequence_length=64, output_type="np"
    ).frames
    assert clip.shape == (1, 5, 32, 32, 3)
    assert np.isfinite(clip).all()
