"""The three walks: gradients held to full backpropagation, and memory counted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from support.device import DEVICE, needs_card
from support.tiny_decoders import CAUSAL, KINDS, decode, tiny
from torch import Tensor, nn

from studio.chopgrad import (
    Backprop,
    ChunkedDecoder,
    CropSize,
    Region,
    SavedBytes,
    checkpointed,
    chunked,
    clip_gradient,
    decode_backward,
    linear_loss,
)
from studio.errors import RequestError

EVERY = pytest.mark.parametrize("name", KINDS)
FULL = Backprop(mode="full")


class Distance:
    """Squared and absolute distance to a target, a sum over frames divided by the clip's size."""

    def __init__(self, vae: Any, latents: Tensor) -> None:
        with torch.no_grad():
            shape = decode(vae, latents).shape
        self.target = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(latents.device)

    def __call__(self, frames: Tensor, region: Region) -> Tensor:
        off = frames - region.of(self.target)
        return (off.square() + off.abs()).sum() / self.target.numel()


def set_up(name: str) -> tuple[nn.Module, ChunkedDecoder, Tensor, Distance]:
    vae, latents = tiny(name)
    return vae, chunked(vae), latents, Distance(vae, latents)


def parameter_gradients(vae: nn.Module) -> dict[str, Tensor]:
    found = {name: weight.grad.clone() for name, weight in vae.named_parameters() if weight.grad is not None}
    vae.zero_grad()
    return found


def terms(decoder: ChunkedDecoder, latents: Tensor, loss: Distance) -> list[list[Tensor]]:
    """G[i][j] = dL_i/dz_j, zero elsewhere, with everything in one graph."""
    plan = decoder.plan(latents.shape[2])
    leaf = latents.clone().requires_grad_()
    state, losses = None, []
    for chunk in plan:
        frames, state = decoder.step(leaf[:, :, chunk.start : chunk.stop], state, chunk)
        losses.append(loss(frames, Region(slice(chunk.first, chunk.end))))
    found = []
    for each in losses:
        (gradient,) = torch.autograd.grad(each, leaf, retain_graph=True)
        blocks = []
        for chunk in plan:
            block = torch.zeros_like(gradient)
            block[:, :, chunk.start : chunk.stop] = gradient[:, :, chunk.start : chunk.stop]
            blocks.append(block)
        found.append(blocks)
    return found


# -- exact ------------------------------------------------------------------------------------------------------------


@EVERY
def test_exact_is_full_backpropagation_decoder_parameters_included(name: str) -> None:
    vae, decoder, latents, loss = set_up(name)
    full = decode_backward(decoder, latents, loss, FULL)
    wanted = parameter_gradients(vae)
    exact = decode_backward(decoder, latents, loss, Backprop(mode="exact"))
    found = parameter_gradients(vae)
    assert wanted.keys() == found.keys()
    if name in CAUSAL:
        assert torch.equal(exact.gradient, full.gradient)
        assert all(torch.equal(wanted[each], found[each]) for each in wanted)
    # Overlapping tiles' gradients are added up in another order.
    torch.testing.assert_close(exact.gradient, full.gradient, rtol=1e-4, atol=1e-7)
    for each in wanted:
        torch.testing.assert_close(found[each], wanted[each], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(exact.loss, full.loss)


@EVERY
def test_full_is_what_autograd_says_of_decode_itself(name: str) -> None:
    vae, decoder, latents, loss = set_up(name)
    if name in CAUSAL and "cog" not in name:
        with torch.no_grad():
            vae.get_submodule("decoder.conv_out").weight /= 8  # the clamp at the end of decode holds nothing back
    full = decode_backward(decoder, latents, loss, FULL)
    vae.zero_grad()
    leaf = latents.clone().requires_grad_()
    frames = decode(vae, leaf)
    value = loss(frames, Region(slice(None)))
    value.backward()
    assert leaf.grad is not None
    torch.testing.assert_close(full.gradient, leaf.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(full.loss, value.detach())


@pytest.mark.parametrize("keep_caches", ["memory", "disk", "auto"])
def test_where_caches_lie_meanwhile_changes_no_bit(keep_caches: Any) -> None:
    _, decoder, latents, loss = set_up("wan 2.1")
    wanted = decode_backward(decoder, latents, loss)
    found = decode_backward(decoder, latents, loss, Backprop(keep_caches=keep_caches))
    assert torch.equal(found.gradient, wanted.gradient)


@needs_card
@EVERY
def test_on_a_card_every_way_without_a_cut_gives_the_gradient_of_full_backpropagation(name: str) -> None:
    vae, latents = tiny(name)
    vae, latents = vae.to(DEVICE), latents.to(DEVICE)
    decoder, loss = chunked(vae), Distance(vae, latents)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        wanted = decode_backward(decoder, latents, loss, FULL).gradient
        for how in (
            Backprop(),
            Backprop(keep_caches="memory"),
            Backprop(keep_caches="auto"),
            Backprop(keep_caches="memory", checkpoint_blocks=True),
            Backprop(mode="truncated", window=99, context=0),
        ):
            found = decode_backward(decoder, latents, loss, how).gradient
            assert float((found - wanted).norm()) < 1e-4 * float(wanted.norm()), how


# -- truncated --------------------------------------------------------------------------------------------------------


@EVERY
def test_a_window_as_long_as_the_clip_is_full_backpropagation(name: str) -> None:
    vae, decoder, latents, loss = set_up(name)
    full = decode_backward(decoder, latents, loss, FULL)
    wanted = parameter_gradients(vae)
    whole = decode_backward(decoder, latents, loss, Backprop(mode="truncated", window=99, context=0))
    found = parameter_gradients(vae)
    assert torch.equal(whole.gradient, full.gradient)
    assert all(torch.equal(wanted[each], found[each]) for each in wanted)


@pytest.mark.parametrize(("window", "context"), [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 1)])
@pytest.mark.parametrize("name", ["wan 2.1", "wan 2.2", "cogvideox odd"])
def test_truncation_keeps_exactly_the_terms_within_window_and_context(name: str, window: int, context: int) -> None:
    _, decoder, latents, loss = set_up(name)
    found = decode_backward(decoder, latents, loss, Backprop(mode="truncated", window=window, context=context))
    blocks = terms(decoder, latents, loss)
    kept = torch.zeros_like(latents)
    for i in range(len(blocks)):
        first = i - i % window  # of i's window
        for j in range(max(0, first - context), i + 1):
            kept += blocks[i][j]
    torch.testing.assert_close(found.gradient, kept, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("context", [0, 1, 2])
def test_no_gradient_at_all_reaches_further_than_the_context(context: int) -> None:
    _, decoder, latents, loss = set_up("wan 2.1")
    last = decoder.plan(latents.shape[2])[-1]

    def only_the_last(frames: Tensor, region: Region) -> Tensor:
        return loss(frames, region) * (region.frames.start == last.first)

    how = Backprop(mode="truncated", window=1, context=context)
    gradient = decode_backward(decoder, latents, only_the_last, how).gradient
    reached = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
    assert reached.tolist() == [j >= last.index - context for j in range(last.index + 1)]


def test_the_error_of_truncation_falls_as_the_context_grows_and_ends_at_nothing() -> None:
    """On weights whose past taps are weak, as in decoders that were inflated from ones for pictures."""
    vae, decoder, latents, loss = set_up("wan 2.1")
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d) and module.weight.shape[2] == 3:
                module.weight[:, :, :2] *= 0.1
    full = decode_backward(decoder, latents, loss, FULL).gradient
    errors = [
        float(
            (decode_backward(decoder, latents, loss, Backprop(mode="truncated", context=c)).gradient - full).norm()
            / full.norm()
        )
        for c in range(5)
    ]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[0] < 0.6
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("name", ["wan 2.1", "cogvideox even", "hunyuan video", "ltx", "allegro"])
def test_the_loss_is_the_same_however_it_is_walked(name: str) -> None:
    _, decoder, latents, loss = set_up(name)
    losses = [
        decode_backward(decoder, latents, loss, how).loss
        for how in (
            FULL,
            Backprop(),
            Backprop(mode="truncated", window=1, context=0),
            Backprop(mode="truncated", window=2, context=1),
        )
    ]
    for each in losses:
        torch.testing.assert_close(each, losses[0])


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wan 2.1", "wan 2.2", "qwen image", "cogvideox odd", "hunyuan video", "ltx"])
@pytest.mark.parametrize("how", [Backprop(), Backprop(mode="truncated", window=1, context=1)])
def test_twice_the_frames_hold_not_one_byte_more(name: str, how: Backprop) -> None:
    vae, latents = tiny(name)
    decoder = chunked(vae)

    def held(times: int) -> int:
        longer = torch.cat([latents] + [latents[:, :, -6:]] * (2 * times - 2), dim=2)
        with SavedBytes(*vae.parameters()) as saved:
            decode_backward(decoder, longer, lambda frames, region: frames.square().sum(), how)
        assert saved.now == 0, "nothing is held when all is done"
        return saved.peak

    assert held(3) == held(2) < held_in_full(vae, decoder, latents)


def held_in_full(vae: nn.Module, decoder: ChunkedDecoder, latents: Tensor) -> int:
    with SavedBytes(*vae.parameters()) as saved:
        decode_backward(decoder, torch.cat([latents] * 2, dim=2), lambda frames, _: frames.square().sum(), FULL)
    return saved.peak


@pytest.mark.parametrize("how", [Backprop(), Backprop(mode="truncated", window=2, context=1)])
@EVERY
def test_computing_activations_again_changes_no_bit(name: str, how: Backprop) -> None:
    vae, decoder, latents, loss = set_up(name)
    wanted = decode_backward(decoder, latents, loss, how)
    kept = parameter_gradients(vae)
    again = Backprop(mode=how.mode, window=how.window, context=how.context, checkpoint_blocks=True)
    found = decode_backward(decoder, latents, loss, again)
    assert torch.equal(found.gradient, wanted.gradient)
    assert all(torch.equal(kept[each], grad) for each, grad in parameter_gradients(vae).items())


def test_computing_activations_again_holds_less_and_leaves_nothing_behind() -> None:
    vae, decoder, latents, loss = set_up("wan 2.1")
    before = {name: module.forward for name, module in vae.named_modules()}
    peaks = []
    for checkpoint_blocks in (False, True):
        with SavedBytes(*vae.parameters()) as saved:
            decode_backward(decoder, latents, loss, Backprop(checkpoint_blocks=checkpoint_blocks))
        peaks.append(saved.peak)
    assert peaks[1] < 0.6 * peaks[0]
    assert {name: module.forward for name, module in vae.named_modules()} == before
    with pytest.raises(ZeroDivisionError), checkpointed(vae):
        raise ZeroDivisionError
    assert {name: module.forward for name, module in vae.named_modules()} == before


# -- losses over whole clips, crops, telling --------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Backprop(), Backprop(mode="truncated", window=99, context=0)])
def test_a_loss_between_frames_goes_through_its_gradient(how: Backprop) -> None:
    _, decoder, latents, _ = set_up("wan 2.1")

    def jumps(frames: Tensor) -> Tensor:
        return (frames[:, :, 1:] - frames[:, :, :-1]).square().mean()

    value, gradient = clip_gradient(decoder, latents, jumps)
    found = decode_backward(decoder, latents, linear_loss(gradient), how).gradient
    leaf = latents.clone().requires_grad_()
    state, parts = None, []
    for chunk in decoder.plan(latents.shape[2]):
        frames, state = decoder.step(leaf[:, :, chunk.start : chunk.stop], state, chunk)
        parts.append(frames)
    wanted = jumps(torch.cat(parts, dim=2))
    wanted.backward()
    torch.testing.assert_close(value, wanted.detach())
    assert leaf.grad is not None
    torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-8)


def test_crops_whose_margin_covers_the_picture_are_no_truncation() -> None:
    _, decoder, latents, loss = set_up("wan 2.1")
    wanted = decode_backward(decoder, latents, loss)
    found = decode_backward(decoder, latents, loss, Backprop(crop=CropSize(size=2, halo=9)))
    torch.testing.assert_close(found.loss, wanted.loss)
    torch.testing.assert_close(found.gradient, wanted.gradient, rtol=1e-3, atol=1e-7)


def test_a_wider_margin_brings_the_gradient_of_crops_nearer() -> None:
    vae, _ = tiny("wan 2.1")
    decoder, latents = chunked(vae), torch.randn(1, 4, 3, 16, 16)
    loss = Distance(vae, latents)
    wanted = decode_backward(decoder, latents, loss).gradient
    near, far = (
        decode_backward(decoder, latents, loss, Backprop(crop=CropSize(size=8, halo=halo))).gradient for halo in (0, 6)
    )
    assert float((far - wanted).norm()) < 0.7 * float((near - wanted).norm())


def test_every_chunk_is_told_and_telling_may_stop_the_walk() -> None:
    _, decoder, latents, loss = set_up("wan 2.1")
    told: list[tuple[int, int]] = []
    how = Backprop(crop=CropSize(size=2))
    decode_backward(decoder, latents, loss, how, on_chunk=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 20) for i in range(20)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_backward(decoder, latents, loss, on_chunk=stop)


def test_the_graph_behind_the_latents_is_left_for_one_backward() -> None:
    _, decoder, latents, loss = set_up("wan 2.1")
    weight = torch.ones((), requires_grad=True)
    behind = latents * weight
    decoded = decode_backward(decoder, behind, loss)
    behind.backward(decoded.gradient)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, (decoded.gradient * latents).sum())


@pytest.mark.parametrize(
    ("field", "value"), [("window", 0), ("context", -1), ("window", 1.5), ("mode", "half"), ("keep_caches", "cloud")]
)
def test_settings_that_make_no_sense_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(RequestError) as refused:
        Backprop(**{field: value})
    assert refused.value.field == field
