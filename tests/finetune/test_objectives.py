"""The pixel loss is one number of a clip, however the clip is cut up on the way."""

from __future__ import annotations

import pytest
import torch
from support.small_training import asked
from torch import Tensor

from studio.chopgrad import Region
from studio.errors import RequestError
from studio.finetune import begin
from studio.finetune.objectives import PixelLoss
from studio.metrics.fidelity import lpips_missing
from studio.records.runs import RunStore
from studio.requests.training import TrainingClip

FRAMES, SIDE = 6, 32


def clip(seed: int) -> Tensor:
    return torch.rand(1, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def difference(shown: Tensor, wanted: Tensor) -> Tensor:
    """Stands in for LPIPS's network: a distance for each picture, (N, 1, 1, 1)."""
    return (shown - wanted).square().mean((1, 2, 3), keepdim=True)


def test_the_loss_of_a_clip_is_the_sum_over_its_frames_however_they_are_cut() -> None:
    loss = PixelLoss(clip(1), structure_weight=0.2, perceptual_weight=0.5, perceptual=difference)
    frames = clip(2)
    whole = loss(frames, Region(slice(None)))
    parts = [Region(slice(0, 1)), Region(slice(1, 4)), Region(slice(4, FRAMES))]
    torch.testing.assert_close(sum(loss(part.of(frames), part) for part in parts), whole)


def test_the_terms_are_weighted_as_they_are_named() -> None:
    frames, target = clip(2), clip(1)
    everywhere = Region(slice(None))
    plain = PixelLoss(target, structure_weight=0.0)(frames, everywhere)
    torch.testing.assert_close(plain, (frames - target).abs().mean())
    with_perceptual = PixelLoss(target, structure_weight=0.0, perceptual_weight=0.5, perceptual=difference, weight=3.0)
    expected = 3 * (plain + 0.5 * (frames - target).square().mean())
    torch.testing.assert_close(with_perceptual(frames, everywhere), expected)
    assert PixelLoss(target, structure_weight=0.2)(target, everywhere) < 1e-6


def test_one_crop_of_several_counts_as_the_picture_it_stands_for() -> None:
    frames, target = clip(2), clip(1)
    left = Region(slice(None), columns=slice(0, SIDE // 2))
    one_of_two = PixelLoss(target, structure_weight=0.0, perceptual_weight=0.5, perceptual=difference, share=0.5)
    cut, wanted = left.of(frames), left.of(target)
    expected = (cut - wanted).abs().mean() + 0.5 * (cut - wanted).square().mean()
    torch.testing.assert_close(one_of_two(cut, left), expected)


def test_frames_in_half_precision_are_compared_in_single() -> None:
    loss = PixelLoss(clip(1), structure_weight=0.2)(clip(2).bfloat16().requires_grad_(), Region(slice(None)))
    assert loss.dtype == torch.float32
    loss.backward()


@pytest.mark.skipif(lpips_missing() is None, reason="LPIPS can be measured here")
def test_lpips_is_refused_before_anything_is_loaded_where_its_weights_are_missing(
    clips: tuple[TrainingClip, ...], store: RunStore
) -> None:
    with pytest.raises(RequestError, match="LPIPS needs") as refusal:
        begin(asked(clips, objective="pixel", perceptual_weight=0.1), store=store)
    assert refusal.value.field == "perceptual_weight"
    assert not list(store.folder.glob(".versions/*/version.json"))
    begin(asked(clips, objective="latent", perceptual_weight=0.1), store=store)  # which looks at no pixels
