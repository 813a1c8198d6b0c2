"""The pocket super-resolver's parts: a filter that is solved for, and a network that remembers a little and exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from studio.pipelines.super_resolver import (
    FOLD,
    GRID,
    LeastSquaresUpsampler,
    OneStepDetails,
    RecurrentRefiner,
    SuperResolverPipeline,
)
from studio.pipelines.super_resolver.upsampler import TAPS, LeastSquares

SCALES = pytest.mark.parametrize("scale", [2, 4])


def trained(channels: int = 8, num_blocks: int = 3) -> RecurrentRefiner:
    """A refiner whose last convolutions say something."""
    torch.manual_seed(0)
    refiner = RecurrentRefiner(channels=channels, num_blocks=num_blocks)
    for parameter in refiner.tails.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return refiner.eval().requires_grad_(False)


def trained_details() -> OneStepDetails:
    """D whose last convolutions say something."""
    torch.manual_seed(1)
    details = OneStepDetails(channels=8, latent_channels=4, denoiser_channels=8, num_denoiser_blocks=2)
    for parameter in [*details.decoder.tails.parameters(), *details.denoiser.tail.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return details.eval().requires_grad_(False)


def pipeline() -> SuperResolverPipeline:
    restorer = RecurrentRefiner(channels=8, num_blocks=3)
    return SuperResolverPipeline(LeastSquaresUpsampler(), trained(), restorer, trained_details())


@SCALES
def test_the_solved_filter_is_the_one_that_made_the_pictures(scale: int) -> None:
    torch.manual_seed(0)
    weights = torch.randn(scale**2, 1, TAPS, TAPS)
    weights /= weights.sum(dim=(1, 2, 3), keepdim=True)
    small = torch.rand(4, 3, 40, 44)
    alone = F.pad(small.flatten(0, 1)[:, None], (TAPS // 2,) * 4, mode="replicate")
    large = F.pixel_shuffle(F.conv2d(alone, weights), scale).view(4, 3, 40 * scale, 44 * scale)
    sums = LeastSquares(scale)
    sums.add(small, large)
    torch.testing.assert_close(sums.weights(), weights, atol=1e-3, rtol=0)


@SCALES
def test_a_solved_filter_leaves_what_is_constant_as_it_is(scale: int) -> None:
    torch.manual_seed(0)
    sums = LeastSquares(scale)
    sums.add(torch.rand(2, 3, 24, 24), torch.rand(2, 3, 24 * scale, 24 * scale))
    upsampler = LeastSquaresUpsampler()
    with torch.no_grad():
        upsampler.filters[str(scale)].copy_(sums.weights())
        enlarged = upsampler(torch.full((1, 3, 9, 11), 0.37), scale)
    assert enlarged.shape == (1, 3, 9 * scale, 11 * scale)
    torch.testing.assert_close(enlarged, torch.full_like(enlarged, 0.37), atol=1e-5, rtol=0)


@SCALES
def test_an_untrained_refiner_adds_nothing(scale: int) -> None:
    added, _ = RecurrentRefiner()(torch.rand(1, 2, 3, 16, 16), scale)
    assert not added.any()


def test_the_refiner_that_ships_has_between_150_and_200_thousand_weights() -> None:
    assert 150_000 <= sum(parameter.numel() for parameter in RecurrentRefiner().parameters()) <= 200_000


@SCALES
@pytest.mark.parametrize("how", [{}, {"restore": True}, {"restore": True, "detail": 0.7}])
def test_pictures_one_by_one_are_the_clip_as_a_whole(scale: int, how: dict[str, float]) -> None:
    pictures = torch.rand(2, 6, 3, 12, 20)
    whole, _ = pipeline()(pictures, scale, **how)
    state, each = None, []
    one_by_one = pipeline()
    for number in range(6):
        made, state = one_by_one(pictures[:, number : number + 1], scale, state, **how)
        each.append(made)
    torch.testing.assert_close(torch.cat(each, dim=1), whole, atol=1e-5, rtol=0)


def test_whoever_begins_as_many_pictures_early_as_it_remembers_goes_on_exactly() -> None:
    refiner = trained(num_blocks=6)
    assert refiner.memory == 3
    pictures = torch.rand(1, 9, 3, 8, 8)
    whole, _ = refiner(pictures, 4)
    late, _ = refiner(pictures[:, 4:], 4)
    torch.testing.assert_close(late[:, refiner.memory :], whole[:, 4 + refiner.memory :], atol=1e-5, rtol=0)
    assert not torch.allclose(late[:, refiner.memory - 1], whole[:, 4 + refiner.memory - 1], atol=1e-5)


def test_it_reaches_as_far_as_it_says_and_no_further() -> None:
    refiner = trained()
    side = 2 * refiner.reach + 3
    picture = torch.rand(1, 1, 3, side, side)
    changed = picture.clone()
    changed[..., side // 2, side // 2] += 0.5
    moved = (refiner(picture, 4)[0] - refiner(changed, 4)[0]).abs().amax(dim=(0, 1, 2))
    places = F.max_pool2d(moved[None, None], GRID)[0, 0].nonzero()
    assert (places - side // 2).abs().max() == refiner.reach


@SCALES
@pytest.mark.parametrize("how", [{}, {"restore": True, "detail": 1.0}])
@pytest.mark.parametrize("size", [(7, 9), (1, 1), (16, 5)])
def test_sizes_that_fit_no_grid_come_back_as_they_should(scale: int, size: tuple[int, int], how: dict) -> None:
    made, _ = pipeline()(torch.rand(1, 1, 3, *size), scale, **how)
    assert made.shape == (1, 1, 3, size[0] * scale, size[1] * scale)


# ---------------------------------------------------------------------------------------------------- what is made up


@SCALES
def test_untrained_details_add_nothing(scale: int) -> None:
    small, enlarged = torch.rand(1, 2, 3, 32 // scale, 32 // scale), torch.rand(1, 2, 3, 32, 32)
    added, _ = OneStepDetails()(small, enlarged, scale)
    assert added.shape == enlarged.shape
    assert not added.any()


def test_without_the_knob_nothing_is_made_up_and_with_it_as_much_as_it_says() -> None:
    pictures = torch.rand(1, 3, 3, 8, 12)
    none, half, all_of_it = (pipeline()(pictures, 4, restore=True, detail=g)[0] for g in (0.0, 0.5, 1.0))
    without = pipeline()
    without.register_modules(details=None)
    assert torch.equal(none, without(pictures, 4, restore=True)[0])
    assert (all_of_it - none).abs().max() > 0.01
    torch.testing.assert_close(half, (none + all_of_it) / 2, atol=1e-5, rtol=0)


def test_detail_is_refused_where_nothing_is_restored_and_where_there_is_no_network_for_it() -> None:
    pictures = torch.rand(1, 1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"detail is 0\.5"):
        pipeline()(pictures, 2, detail=0.5)
    without = pipeline()
    without.register_modules(details=None)
    with pytest.raises(ValueError, match=r"detail is 0\.5"):
        without(pictures, 2, restore=True, detail=0.5)


def test_details_reach_back_as_many_pictures_as_they_say() -> None:
    details = trained_details()
    assert details.memory == 2
    small, enlarged = torch.rand(1, 7, 3, 8, 8), torch.rand(1, 7, 3, 32, 32)
    whole, _ = details(small, enlarged, 4)
    late, _ = details(small[:, 3:], enlarged[:, 3:], 4)
    torch.testing.assert_close(late[:, details.memory :], whole[:, 3 + details.memory :], atol=1e-5, rtol=0)
    assert not torch.allclose(late[:, details.memory - 1], whole[:, 3 + details.memory - 1], atol=1e-5)


def test_details_reach_no_further_aside_than_they_say() -> None:
    details = trained_details()
    side = 2 * details.reach + 2 * FOLD
    small, enlarged = torch.rand(1, 1, 3, side, side), torch.rand(1, 1, 3, GRID * side, GRID * side)
    changed = enlarged.clone()
    middle = side // 2
    changed[..., GRID * middle : GRID * (middle + 1), GRID * middle : GRID * (middle + 1)] += 0.5
    moved = (details(small, enlarged, 4)[0] - details(small, changed, 4)[0]).abs().amax(dim=(0, 1, 2))
    places = F.max_pool2d(moved[None, None], GRID)[0, 0].nonzero()
    furthest = int((places - middle).abs().max())
    assert details.reach - 2 * FOLD <= furthest <= details.reach


def test_it_is_saved_and_loaded_as_a_pipeline(tmp_path: Path) -> None:
    saved = pipeline()
    saved.save_pretrained(tmp_path)
    loaded = SuperResolverPipeline.from_pretrained(tmp_path)
    pictures = torch.rand(1, 3, 3, 8, 8)
    assert torch.equal(loaded(pictures, 4)[0], saved(pictures, 4)[0])
    for detail in (0.0, 1.0):
        made = [each(pictures, 4, restore=True, detail=detail)[0] for each in (loaded, saved)]
        assert torch.equal(*made)


def test_one_that_makes_nothing_up_is_saved_and_loaded_too(tmp_path: Path) -> None:
    SuperResolverPipeline(LeastSquaresUpsampler(), trained(), trained()).save_pretrained(tmp_path)
    assert SuperResolverPipeline.from_pretrained(tmp_path).details is None
