"""Backward through a video decoder with a window's graph alive: exact, truncated (ChopGrad), or full for reference.

In the paper's words (Rivkin et al., arXiv 2603.17812, section 3), with c the caches of all layers:

    (x_i, c_i) = Dec(z_i, c_{i-1})                       i = 0 .. N-1, groups of frames; here: chunks
    L = sum_i L_i(x_i)                                   a loss that is a sum over frames

truncated(W, C) keeps of dL/dz the terms dL_i/dz_j with j no further back than the window of W chunks that i lies in and
C chunks of context before it; (1, D) is the paper's rule with D_trunc = D. exact is the adjoint of the recurrence:

    a_{N-1} = 0;   dL/dz_i = dL_i/dz_i + (dc_i/dz_i)^T a_i;   a_{i-1} = dL_i/dc_{i-1} + (dc_i/dc_{i-1})^T a_i

Shapes: latents (B, c, t, h, w), frames (B, C, F, H, W). Knows steppers and losses. Refuses to know which is which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from studio.chopgrad.cache_store import CachesKept, CacheStore, State, mapped, tensors_in
from studio.chopgrad.checkpointing import checkpointed
from studio.chopgrad.decoders import ChunkedDecoder
from studio.errors import RequestError

Mode = Literal["exact", "truncated", "full"]


@dataclass(frozen=True, kw_only=True)
class CropSize:
    """Spatial truncation: the loss is taken on squares of the latents, each decoded with a margin around it."""

    size: int
    """Edge of a square, in latent pixels."""
    halo: int = 8
    """Margin on every side, in latent pixels: decoded, and left out of the loss. Values near a border differ from those
    of a whole decode, for convolutions see zeros beyond the margin."""
    only: int | None = None
    """Walk only this one of the squares, counted row by row from 0; None walks all."""

    def count(self, height: int, width: int) -> int:
        """Squares that latents of that size are cut into."""
        return -(-height // self.size) * -(-width // self.size)


@dataclass(frozen=True, kw_only=True)
class Backprop:
    """How gradients are taken through the decoder."""

    mode: Mode = "exact"
    """exact: the full gradient, one chunk's activations at a time. truncated: no further back than window and context,
    for the very long. full: everything at once, for reference."""
    window: int = 1
    """Truncated: chunks whose loss is propagated together. More keep more of the gradient and more activations."""
    context: int = 1
    """Truncated: chunks before the window that its gradient still reaches. More keep more of the gradient, and are
    decoded again for every window."""
    checkpoint_blocks: bool = False
    """Whether activations within a chunk are computed again, block by block, instead of being kept."""
    keep_caches: CachesKept = "device"
    """Exact: where the caches of all chunks lie meanwhile: beside the model, in main memory, in a temporary file, or in
    the first of these in which they fit (auto)."""
    crop: CropSize | None = None
    """Whether to cut spatially as well."""

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("context", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise RequestError(
                    f"The {name} is {value!r}.",
                    field=name,
                    value=value,
                    way_out=f"Take a whole number from {least} on.",
                )
        for name, known in (("mode", ("exact", "truncated", "full")), ("keep_caches", get_args(CachesKept))):
            value = getattr(self, name)
            if value not in known:
                raise RequestError(
                    f"{name} is {value!r}.", field=name, value=value, way_out=f"Take one of {', '.join(known)}."
                )


@dataclass(frozen=True)
class Region:
    """Where in a clip some frames belong: `target[region]` as `target[:, :, frames, rows, columns]`."""

    frames: slice
    rows: slice = field(default_factory=lambda: slice(None))
    columns: slice = field(default_factory=lambda: slice(None))

    def of(self, clip: Tensor) -> Tensor:
        """The same part of a clip (B, C, F, H, W)."""
        return clip[:, :, self.frames, self.rows, self.columns]


FrameLoss = Callable[[Tensor, Region], Tensor]
"""From frames (B, C, f, H, W) and where they belong to a scalar: a *sum* over these frames, divided by what is the same
for the whole clip. Then the sum over all regions is the loss of the clip, however it was cut."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What came of a walk."""

    loss: Tensor
    """Scalar, detached."""
    gradient: Tensor
    """dloss/dlatents, float32, of the latents' shape. Gradients of decoder parameters are added to their `.grad`."""


def decode_backward(
    decoder: ChunkedDecoder,
    latents: Tensor,
    frame_loss: FrameLoss,
    how: Backprop | None = None,
    *,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Decoded:
    """The loss of decoded latents, and its gradient, window by window.

    Args:
        decoder: From `chunked(vae)`; the autoencoder should be in `eval()`, for some chunks are decoded twice.
        latents: (B, c, t, h, w), as `vae.decode` takes them. Any graph behind them is left alone: hand the gradient on
            with `latents.backward(decoded.gradient.to(latents.dtype))`.
        frame_loss: See `FrameLoss`. For losses that are no sum over frames, see `clip_gradient`.
        how: Mode, window, context, checkpointing, crops.
        on_chunk: Called with (done, total) after every chunk that was walked backward; may raise, to stop.
    """
    how = how or Backprop()
    latents = latents.detach()
    decoder.onload()
    walk = {"exact": _exact, "truncated": _truncated, "full": _full}[how.mode]
    gradient = torch.zeros_like(latents, dtype=torch.float32)
    loss = torch.zeros((), device=latents.device)
    pieces = list(_pieces(latents, how.crop))
    count = len(decoder.plan(latents.shape[2]))
    with checkpointed(decoder.vae) if how.checkpoint_blocks else nullcontext():
        for number, piece in enumerate(pieces):

            def told(done: int, number: int = number) -> None:
                if on_chunk is not None:
                    on_chunk(number * count + done, len(pieces) * count)

            loss = loss + walk(decoder, piece.of(latents), piece.of(gradient), piece.loss(frame_loss), how, told)
    return Decoded(loss=loss, gradient=gradient)


def decode_values(decoder: ChunkedDecoder, latents: Tensor, *, finish: bool = True) -> Iterator[tuple[Tensor, Region]]:
    """Frames chunk by chunk, without gradients: what `vae.decode` gives, with one chunk in memory at a time.

    Args:
        decoder: From `chunked(vae)`.
        latents: (B, c, t, h, w).
        finish: Whether to clamp as `vae.decode` does.
    """
    state: State = None
    decoder.onload()
    for chunk in decoder.plan(latents.shape[2]):
        with torch.no_grad():
            frames, state = decoder.step(latents[:, :, chunk.start : chunk.stop], state, chunk)
            if finish:
                frames = decoder.finish(frames)
        yield frames, Region(slice(chunk.first, chunk.end))


def clip_gradient(
    decoder: ChunkedDecoder, latents: Tensor, clip_loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """A loss on the whole clip and its gradient with respect to the frames: one more decode, without gradients.

    For what is no sum over frames: warping between frames, a discriminator, a reward. Handed to `linear_loss`, the
    gradient makes any mode's walk that of the whole loss, to first order exactly.

    Args:
        decoder: From `chunked(vae)`.
        latents: (B, c, t, h, w).
        clip_loss: From all frames (B, C, F, H, W), not clamped, to a scalar.

    Returns:
        The loss, and dloss/dframes (B, C, F, H, W), both detached.
    """
    frames = torch.cat([part for part, _ in decode_values(decoder, latents, finish=False)], dim=2).requires_grad_()
    with torch.enable_grad():
        loss = clip_loss(frames)
    (gradient,) = torch.autograd.grad(loss, frames)
    return loss.detach(), gradient


def linear_loss(gradient: Tensor) -> FrameLoss:
    """The frame loss whose gradient with respect to the frames is `gradient` (B, C, F, H, W), whatever they are."""
    return lambda frames, region: (frames * region.of(gradient)).sum()


# ---------------------------------------------------------------------------------------------------------------------
# The three walks. Each adds to `gradient` in place, and returns the loss.


Told = Callable[[int], None]


def _full(
    decoder: ChunkedDecoder, latents: Tensor, gradient: Tensor, frame_loss: FrameLoss, how: Backprop, told: Told
) -> Tensor:
    leaf = latents.detach().requires_grad_()
    total = torch.zeros((), device=latents.device)
    state: State = None
    plan = decoder.plan(latents.shape[2])
    with torch.enable_grad():
        for chunk in plan:
            frames, state = decoder.step(leaf[:, :, chunk.start : chunk.stop], state, chunk)
            if chunk.num_frames:
                total = total + frame_loss(frames, Region(slice(chunk.first, chunk.end)))
        total.backward()
    gradient += _gradient_of(leaf)
    told(len(plan))
    return total.detach()


def _truncated(
    decoder: ChunkedDecoder, latents: Tensor, gradient: Tensor, frame_loss: FrameLoss, how: Backprop, told: Told
) -> Tensor:
    plan = decoder.plan(latents.shape[2])
    total = torch.zeros((), device=latents.device)
    start, behind = 0, None  # the window's first chunk of context, and the state in front of it
    for first in range(0, len(plan), how.window):
        end = min(first + how.window, len(plan))
        next_start = max(0, end - how.context)
        began, stopped = plan[start].start, plan[end - 1].stop
        leaf = latents[:, :, began:stopped].detach().clone().requires_grad_()
        state, snapshot = behind, None
        loss = torch.zeros((), device=latents.device)
        with torch.enable_grad():
            for chunk in plan[start:end]:
                if chunk.index == next_start:
                    snapshot = mapped(state, Tensor.detach)
                frames, state = decoder.step(leaf[:, :, chunk.start - began : chunk.stop - began], state, chunk)
                if chunk.index >= first and chunk.num_frames:
                    loss = loss + frame_loss(frames, Region(slice(chunk.first, chunk.end)))
                del frames
            if next_start == end:
                snapshot = mapped(state, Tensor.detach)
            del state
            if loss.requires_grad:  # a last tile may bring no frame
                loss.backward()
        gradient[:, :, began:stopped] += _gradient_of(leaf)
        total = total + loss.detach()
        start, behind = next_start, snapshot
        told(end)
    return total


def _exact(
    decoder: ChunkedDecoder, latents: Tensor, gradient: Tensor, frame_loss: FrameLoss, how: Backprop, told: Told
) -> Tensor:
    plan = decoder.plan(latents.shape[2])
    total = torch.zeros((), device=latents.device)
    place = {"device": latents.device, "buffers": decoder.buffers, "states": len(plan)}
    with CacheStore(how.keep_caches, **place) as store:
        state: State = None
        for chunk in plan:
            store.put(state)
            if chunk.index < len(plan) - 1:
                with torch.no_grad():
                    _, state = decoder.step(latents[:, :, chunk.start : chunk.stop], state, chunk)
        del state
        adjoint: list[Tensor | None] = []
        for chunk in reversed(plan):
            before = mapped(store.take(), lambda cache: cache.detach().requires_grad_())
            _when_half_way_back(before, store.fetch)
            leaf = latents[:, :, chunk.start : chunk.stop].detach().clone().requires_grad_()
            with torch.enable_grad():
                frames, after = decoder.step(leaf, before, chunk)
                ends: list[Tensor] = []
                weights: list[Tensor | None] = []
                if chunk.num_frames:
                    loss = frame_loss(frames, Region(slice(chunk.first, chunk.end)))
                    total = total + loss.detach()
                    ends, weights = [loss], [None]
                    del loss
                # Both lists are of the same state, once going out of this chunk and once into the next.
                for cache, weight in zip(tensors_in(after), adjoint, strict=False):
                    if weight is not None and cache.requires_grad:
                        ends.append(cache)
                        weights.append(weight)
                del frames, after
                if ends:
                    torch.autograd.backward(ends, weights)
                del ends, weights
            gradient[:, :, chunk.start : chunk.stop] += _gradient_of(leaf)
            adjoint = [cache.grad for cache in tensors_in(before)]
            told(len(plan) - chunk.index)
    return total


def _when_half_way_back(before: State, begin: Callable[[], None]) -> None:
    """Begin what can go on beside the work once half of a chunk's layers have been walked back, for by then the memory
    of the larger half is free again: caches are in the order of their layers."""
    caches = tensors_in(before)
    if caches:
        caches[len(caches) // 2].register_post_accumulate_grad_hook(lambda _: begin())


def _gradient_of(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf, dtype=torch.float32) if leaf.grad is None else leaf.grad.float()


# ---------------------------------------------------------------------------------------------------------------------
# Spatial crops


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A square of the latents with its margin; the whole picture where nothing is cut."""

    outer: tuple[slice, slice]
    """Of the latents, with the margin."""
    inner: tuple[slice, slice]
    """Without, counted from the picture's corner."""

    def of(self, latents: Tensor) -> Tensor:
        return latents[..., self.outer[0], self.outer[1]]

    def loss(self, frame_loss: FrameLoss) -> FrameLoss:
        """The frame loss on what lies within the margin."""

        def within(frames: Tensor, region: Region) -> Tensor:
            scale = frames.shape[-2] // (self.outer[0].stop - self.outer[0].start)
            here, there = [], []
            for outer, inner in zip(self.outer, self.inner, strict=True):
                here.append(slice((inner.start - outer.start) * scale, (inner.stop - outer.start) * scale))
                there.append(slice(inner.start * scale, inner.stop * scale))
            return frame_loss(frames[..., here[0], here[1]], Region(region.frames, there[0], there[1]))

        return within


def _pieces(latents: Tensor, crop: CropSize | None) -> Iterator[_Piece]:
    height, width = latents.shape[-2:]
    size, halo = (max(height, width), 0) if crop is None else (crop.size, crop.halo)
    corners = [(top, left) for top in range(0, height, size) for left in range(0, width, size)]
    only = None if crop is None else crop.only
    for number, (top, left) in enumerate(corners):
        if only in (None, number):
            inner = slice(top, min(top + size, height)), slice(left, min(left + size, width))
            outer = (
                slice(max(0, inner[0].start - halo), min(height, inner[0].stop + halo)),
                slice(max(0, inner[1].start - halo), min(width, inner[1].stop + halo)),
            )
            yield _Piece(outer=outer, inner=inner)
