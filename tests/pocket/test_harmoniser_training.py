"""How the pocket harmoniser comes about: what it learns from, every stage, and what is not let out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.chopgrad import Backprop
from studio.driving_world import sample_scene
from studio.pipelines.harmoniser import Harmoniser, load_harmoniser
from studio.pocket.data import HELD_OUT_SEEDS, TRAINING_SEED
from studio.pocket.harmoniser import recipe
from studio.pocket.harmoniser.data import LENGTH, MEASURED, SIDE, pair_of, read_pairs, stored_pairs
from studio.pocket.harmoniser.train import FIGURES, TOY, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    train("all", folder, amounts=TOY, device="cpu", gate=False, on_event=lambda _: None)
    return folder


def loud() -> Harmoniser:
    torch.manual_seed(0)
    network = Harmoniser(channels=8, latent_channels=4, denoiser_channels=8, num_denoiser_blocks=4)
    for part in (network.denoiser.tail, network.decoder.tail, network.denoiser.tuning, network.decoder.tuning):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    return network


def test_every_stage_runs_and_what_comes_out_is_a_checked_checkpoint(trained: Path) -> None:
    network = load_harmoniser(trained / "export")
    assert sum(p.numel() for p in network.parameters()) <= 1_000_000
    assert sum(path.stat().st_size for path in (trained / "export").glob("*.safetensors")) < 3_000_000
    figures = json.loads((trained / "export" / FIGURES).read_text())["held_out_psnr"]
    assert set(figures) == set(MEASURED)
    words = (trained / "export/README.md").read_text(encoding="utf-8")
    assert f"| fog | {figures['fog']['paste']:.2f} dB |" in words


def test_a_stage_that_is_done_goes_on_from_there(trained: Path) -> None:
    said: list[str] = []
    train("pixels", trained, amounts=TOY, device="cpu", on_event=lambda event: said.append(str(event)))
    assert not said  # all of its steps are done


def test_weights_that_are_worse_than_the_paste_are_not_exported(trained: Path, tmp_path: Path) -> None:
    worse = Harmoniser()
    torch.nn.init.normal_(worse.decoder.tail.weight, std=0.3)
    good = (trained / "pixels.pt").read_bytes()
    torch.save(worse.state_dict(), trained / "pixels.pt")
    try:
        with pytest.raises(recipe.NoGain, match="night"):
            train("export", trained, export_to=tmp_path / "out", on_event=lambda _: None)
    finally:
        (trained / "pixels.pt").write_bytes(good)
    assert not (tmp_path / "out").exists()


def test_pairs_are_of_training_worlds_and_those_for_judging_of_others(trained: Path) -> None:
    assert json.loads((trained / "pairs/pairs.json").read_text())["first_seed"] == TRAINING_SEED >= HELD_OUT_SEEDS
    learnt, held_out = stored_pairs(trained / "pairs"), read_pairs(trained / "held_out.npz")
    assert learnt.source.shape == (TOY.pairs, LENGTH, SIDE, SIDE, 3)
    assert len(held_out.source) == TOY.held_out_worlds * len(MEASURED)


def test_a_pair_differs_on_the_vehicle_and_about_it_alone() -> None:
    into, cut_from = (sample_scene(7, time_of_day=hour, weather="clear") for hour in ("night", "day"))
    pair = pair_of((into, cut_from), 1, height=96, width=96, num_frames=2)
    assert (pair.zone[pair.cover > 127] == 255).all()
    off = np.abs(pair.wanted.astype(int) - pair.source).sum(axis=-1)
    assert off[pair.zone == 0].sum() < 0.05 * off.sum()  # halos reach a little farther
    same = sample_scene(7, time_of_day="night", weather="clear")
    itself = pair_of((into, same), 1, height=96, width=96, num_frames=2)
    assert np.array_equal(itself.vehicle, itself.wanted)


def test_a_batch_is_a_paste_and_its_truth_the_same_way_round(trained: Path) -> None:
    pairs = stored_pairs(trained / "pairs")
    for seed in range(4):
        example = recipe.examples(pairs, torch.Generator().manual_seed(seed), torch.device("cpu"), batch=2, crop=96)
        assert example.source.shape == (2, LENGTH, 3, 96, 96)
        outside = (example.alpha == 0).expand_as(example.source)
        assert torch.equal(example.paste[outside], example.source[outside])
        untouched = (example.zone == 0).expand_as(example.source)
        assert (example.wanted - example.source).abs()[untouched].mean() < 0.01
        assert (example.wanted - example.source).abs()[example.on.bool().expand_as(example.source)].mean() > 0.05


def test_the_paste_leaves_all_of_its_error_and_the_truth_hardly_any(trained: Path) -> None:
    given = recipe.Given(pairs=stored_pairs(trained / "pairs"), batch=2, crop=96)
    example = given.example(torch.Generator().manual_seed(0), torch.device("cpu"))
    shares = recipe.Shares(example=example)
    assert float(shares.of(example.wanted)) < 0.1
    half = example.wanted + (example.paste - example.wanted) / 2
    assert float(shares.of(example.wanted)) < float(shares.of(half)) < float(shares.of(example.paste)) <= 1.001
    parts = sum(shares.of(half[:, part], part) for part in (slice(0, 2), slice(2, LENGTH)))
    torch.testing.assert_close(parts, shares.of(half))


def gradients_of(network: Harmoniser, given: recipe.Given, mode: str) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss = recipe.pixel_objective(network, given, how=Backprop(mode=mode))(0, torch.Generator().manual_seed(0))
    assert torch.isfinite(loss)
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_pixels_are_learnt_through_whole_clips_as_if_all_of_a_clip_were_held(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "AT_ONCE", 2)
    monkeypatch.setattr(torch, "autocast", lambda *_: contextlib.nullcontext())
    network = loud()
    given = recipe.Given(pairs=stored_pairs(trained / "pairs"), batch=1, crop=64)
    exact, full = (gradients_of(network, given, mode) for mode in ("exact", "full"))
    assert set(exact) == set(full) == {name for name, _ in network.named_parameters()}
    for name, gradient in full.items():
        torch.testing.assert_close(exact[name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    for part in ("decoder.blocks", "denoiser.blocks"):
        assert any(name.startswith(part) and "past" in name and g.abs().sum() > 0 for name, g in exact.items())


@pytest.mark.parametrize("stage", ["autoencoder", "latent", "pixel"])
def test_every_stage_learns(trained: Path, stage: str) -> None:
    network, given = loud(), recipe.Given(pairs=stored_pairs(trained / "pairs"), batch=2, crop=64)
    loss_of = getattr(recipe, f"{stage}_objective")(network, given)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = loss_of(0, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.97 * losses[0]
