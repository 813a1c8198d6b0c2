"""How the pocket super-resolver comes about: what it learns from, every stage, and what is not let out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from studio.chopgrad import Backprop
from studio.clips.shrinking import shrunk as shrunk_by_numbers
from studio.pipelines.super_resolver import OneStepDetails, RecurrentRefiner, SuperResolverPipeline
from studio.pocket.super_resolver import details_recipe, photographs, recipe
from studio.pocket.super_resolver.adversary import Adversary
from studio.pocket.super_resolver.data import LENGTH, SIDE, Clips, read_examples, store_clips, stored_clips
from studio.pocket.super_resolver.degradation import degraded, encoded
from studio.pocket.super_resolver.train import DETAILED, FIGURES, TOY, train


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures where two of the listed photographs would be, one of them held out."""
    root = tmp_path_factory.mktemp("root")
    learnt = next(each for each in photographs.listed() if not each.held_out)
    held_out = next(each for each in photographs.listed() if each.held_out)
    for seed, each in enumerate((learnt, held_out)):
        path = root / "usr/share" / each.file
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (1200, 900), interpolation=cv2.INTER_CUBIC))
    return root


@pytest.fixture(scope="module")
def trained(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    train("all", folder, amounts=TOY, photographs=debian, device="cpu", gate=False, on_event=lambda _: None)
    return folder


@pytest.mark.thorough
def test_every_stage_runs_and_what_comes_out_is_a_pipeline(trained: Path) -> None:
    pipeline = SuperResolverPipeline.from_pretrained(trained / "export")
    made, _ = pipeline(torch.rand(1, 2, 3, 12, 16), 4)
    assert made.shape == (1, 2, 3, 48, 64)
    figures = json.loads((trained / "export" / FIGURES).read_text())
    assert set(figures["held_out_psnr"]) == {"enlarge", "restore", DETAILED}
    assert pipeline.details is not None
    assert len(figures["photographs"]) == 1
    words = (trained / "export/README.md").read_text(encoding="utf-8")
    learnt = next(each for each in photographs.listed() if each.file in figures["photographs"])
    assert f"| {learnt.title} | {learnt.author} | {learnt.licence} |" in words


@pytest.mark.thorough
def test_a_stage_that_is_done_goes_on_from_there(trained: Path) -> None:
    said: list[str] = []
    train("refiner", trained, amounts=TOY, device="cpu", on_event=lambda event: said.append(str(event)))
    assert not said  # all of its steps are done


@pytest.mark.thorough
def test_weights_that_are_worse_than_the_filter_are_not_exported(trained: Path, tmp_path: Path) -> None:
    worse = RecurrentRefiner()
    for parameter in worse.tails.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    good = (trained / "refiner.pt").read_bytes()
    torch.save(worse.state_dict(), trained / "refiner.pt")
    try:
        with pytest.raises(recipe.NoGain, match="enlarge at 2×"):
            train("export", trained, export_to=tmp_path / "out", on_event=lambda _: None)
    finally:
        (trained / "refiner.pt").write_bytes(good)
    assert not (tmp_path / "out").exists()


def test_a_held_out_photograph_gives_no_clip_to_learn_from(debian: Path) -> None:
    learnt, held_out = photographs.present(debian), photographs.present(debian, held_out=True)
    assert len(learnt) == len(held_out) == 1
    assert learnt[0][1] != held_out[0][1]


def test_every_listed_photograph_has_an_author_and_a_licence() -> None:
    listed = photographs.listed()
    assert len({each.file for each in listed}) == len(listed)
    assert all(each.title and each.author and each.licence for each in listed)


def test_without_the_photographs_that_were_promised_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the listed photographs"):
        store_clips(tmp_path / "clips", photographs=tmp_path, of_photographs=8, of_worlds=0)
    assert not (tmp_path / "clips").exists()


def test_the_same_photograph_gives_the_same_clips(debian: Path) -> None:
    (_, path), *_ = photographs.present(debian)
    clips = [
        photographs.Moving(photographs.read(path)).clip(np.random.default_rng(5), length=3, side=64) for _ in range(2)
    ]
    assert clips[0].shape == (3, 64, 64, 3)
    assert np.array_equal(*clips)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_clip_is_degraded_the_same_way_for_the_same_seed_and_otherwise_for_another(scale: int) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    one, same, other = (degraded(clip, scale, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (3, 48 // scale, 64 // scale, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_codec_costs_what_its_quality_says_and_keeps_odd_sizes() -> None:
    clip = cv2.resize(np.random.default_rng(0).random((15, 17, 3), np.float32) * 255, (51, 45))[None].repeat(4, 0)
    errors = [np.abs(encoded(clip, crf) - clip).mean() for crf in (10, 40)]
    assert encoded(clip, 20).shape == clip.shape
    assert errors[0] < errors[1]


@pytest.mark.parametrize("scale", [2, 4])
def test_what_is_learnt_from_was_shrunk_as_what_is_measured(scale: int) -> None:
    large = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    by_numbers = np.rint(np.clip(shrunk_by_numbers(large.astype(np.float32), scale), 0, 255))
    tensor = torch.from_numpy(large).permute(2, 0, 1).float().div(255)[None, None]
    by_tensors = recipe.shrunk(tensor, scale)[0, 0].permute(1, 2, 0).mul(255).round().numpy()
    assert np.abs(by_tensors - by_numbers).max() <= 1


@pytest.mark.parametrize("task", ["enlarge", "restore"])
@pytest.mark.parametrize("scale", [2, 4])
def test_pairs_show_the_same_place_the_same_way_round(task: recipe.Task, scale: int) -> None:
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), np.uint8))
    clip = clip.repeat_interleave(4, dim=2).repeat_interleave(
        4, dim=3
    )  # each old pixel of both scales is of one colour
    clips = Clips(large=clip, degraded={each: clip[:, :, ::each, ::each].contiguous() for each in (2, 4)})
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        small, large = recipe.pairs(clips, generator, torch.device("cpu"), task=task, scale=scale, batch=2, crop=32)
        assert large.shape == (2, 2, 3, 32, 32)
        assert small.shape == (2, 2, 3, 32 // scale, 32 // scale)
        if task == "restore":
            assert torch.equal(small, large[..., ::scale, ::scale])
        else:
            assert (small - recipe.shrunk(large, scale)).abs().max() == 0


@pytest.mark.thorough
def test_a_memory_learns(trained: Path) -> None:
    """Gradients reach the weights that look back."""
    clips = stored_clips(trained / "clips")
    assert clips.large.shape[1:] == (LENGTH, SIDE, SIDE, 3)
    refiner = RecurrentRefiner(channels=8, num_blocks=3)
    for parameter in refiner.tails.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    upsampler = recipe.solve(clips, examples=4).requires_grad_(False)
    loss_of = recipe.objective_of(refiner, upsampler, clips, task="enlarge", batch=1, crop=64)
    loss_of(0, torch.Generator().manual_seed(0)).backward()
    looking_back = [p.grad for name, p in refiner.named_parameters() if "past" in name]
    assert looking_back
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in looking_back)


@pytest.mark.thorough
def test_clips_for_judging_are_there_and_no_two_alike(trained: Path) -> None:
    examples = read_examples(trained / "held_out.npz")
    assert len({clip.tobytes() for clip, _ in examples}) == len(examples) >= 8


# ---------------------------------------------------------------------------------------------------- what is made up


def given_of(trained: Path, *, length: int | None = None) -> details_recipe.Given:
    clips = stored_clips(trained / "clips")
    restorer = RecurrentRefiner(channels=8, num_blocks=3).requires_grad_(False)
    upsampler = recipe.solve(clips, examples=4).requires_grad_(False)
    return details_recipe.Given(upsampler=upsampler, restorer=restorer, clips=clips, batch=1, crop=32, length=length)


def loud_details() -> OneStepDetails:
    torch.manual_seed(0)
    details = OneStepDetails(channels=8, latent_channels=4, denoiser_channels=8, num_denoiser_blocks=2)
    for parameter in [*details.decoder.tails.parameters(), *details.denoiser.tail.parameters()]:
        torch.nn.init.normal_(parameter, std=0.02)
    return details


def gradients_of(stage: details_recipe.PixelStage, given: details_recipe.Given, mode: str) -> dict[str, torch.Tensor]:
    stage.zero_grad()
    loss_of = details_recipe.pixel_objective(stage, given, how=Backprop(mode=mode))
    loss = loss_of(0, torch.Generator().manual_seed(0))
    assert torch.isfinite(loss)
    return {name: p.grad.clone() for name, p in stage.named_parameters() if p.grad is not None}


@pytest.mark.thorough
def test_pixels_are_learnt_through_whole_clips_as_if_all_of_a_clip_were_held(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_recipe, "AT_ONCE", 2)
    monkeypatch.setattr(torch, "autocast", lambda *_: contextlib.nullcontext())
    stage, given = details_recipe.PixelStage(loud_details()).eval(), given_of(trained)
    exact, full = (gradients_of(stage, given, mode) for mode in ("exact", "full"))
    assert set(exact) == set(full)
    for name, gradient in full.items():
        torch.testing.assert_close(exact[name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    assert any("past" in name and gradient.abs().sum() > 0 for name, gradient in exact.items())
    assert any(name.startswith("adversary") for name in exact)
    assert not any("encoder" in name for name in exact)


def test_whoever_makes_and_whoever_judges_learn_apart() -> None:
    torch.manual_seed(0)
    adversary = Adversary(channels=4)
    made, real, beside = (torch.rand(2, 3, 32, 32, requires_grad=True) for _ in range(3))
    adversary.fooled(made, beside).backward()
    assert made.grad is not None
    assert all(p.grad is None for p in adversary.parameters())
    made.grad = None
    adversary.learns(made, real, beside).backward()
    assert made.grad is None
    assert all(p.grad is not None for p in adversary.parameters())


def test_the_adversary_learns_to_tell_blurred_pictures_from_sharp_ones() -> None:
    torch.manual_seed(0)
    adversary = Adversary(channels=8)
    optimizer = torch.optim.AdamW(adversary.parameters(), lr=2e-3)
    for _ in range(60):
        real = torch.rand(4, 3, 32, 32)
        blurred = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
        loss = adversary.learns(blurred, real, blurred)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 1.0  # 2 where it cannot tell


@pytest.mark.parametrize("stage", ["autoencoder", "latent"])
@pytest.mark.thorough
def test_what_latents_carry_and_the_step_between_them_are_learnt(trained: Path, stage: str) -> None:
    details, given = loud_details(), given_of(trained)
    learns = details.denoiser if stage == "latent" else details.encoder
    objective = details_recipe.latent_objective if stage == "latent" else details_recipe.autoencoder_objective
    loss_of = objective(details, given)
    optimizer = torch.optim.AdamW(details.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(12):
        loss = loss_of(0, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learns.parameters())
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


@pytest.mark.thorough
def test_details_that_make_it_worse_than_the_filter_are_not_exported(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gains(*_: object, details: OneStepDetails | None = None, **__: object) -> dict[int, tuple[float, float]]:
        return {2: (30.0, 31.0 if details is None else 29.0)}

    monkeypatch.setattr(recipe, "gains", gains)
    with pytest.raises(recipe.NoGain, match=f"{DETAILED} at 2×"):
        train("export", trained, export_to=tmp_path / "out", on_event=lambda _: None)
    assert not (tmp_path / "out").exists()
