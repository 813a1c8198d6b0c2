"""One stepper per family of video autoencoders: a chunk of latents and a state go in, frames and a new state come out.

    (frames_i, state_i) = step(latents_i, state_{i-1})

A stepper owns no cache and changes none it is given, so that a chunk can be walked again, and another decode by the
same autoencoder changes nothing. Chunks are those of the autoencoder's own `decode`: another partition would be another
function. Frames are as the last convolution gives them; `finish` clamps them where `decode` does.

    AutoencoderKLWan, AutoencoderKLQwenImage     a list with one slot a causal convolution; a latent frame a chunk
    AutoencoderKLCogVideoX                       nested dicts, returned by the decoder; two latent frames a chunk
    AutoencoderKLHunyuanVideo, AutoencoderKLLTXVideo
                                                 overlapping tiles in time; the state is the tail to blend into
    AutoencoderKLAllegro                         overlapping tiles in time and space; the state is the tail's sum

Shapes: latents (B, c, t, h, w), frames (B, C, F, H, W), as in diffusers. Latents are scaled for `vae.decode`.

Knows diffusers' autoencoders from the inside (0.42). Refuses to know losses and gradients.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from studio.chopgrad.cache_store import HostBuffers, State
from studio.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What is decoded at once: `latents[:, :, start:stop]` becomes `frames[:, :, first:end]`."""

    index: int
    start: int
    stop: int
    """May overlap the next chunk's latents, where an autoencoder decodes by overlapping tiles."""
    first: int
    end: int
    """May be equal to `first`: a last tile may bring nothing new."""

    is_last: bool = False

    @property
    def num_frames(self) -> int:
        return self.end - self.first


class ChunkedDecoder(ABC):
    """The decoder of an autoencoder, chunk by chunk."""

    def __init__(self, vae: nn.Module) -> None:
        self.vae: Any = vae
        self.buffers = HostBuffers()
        """In which caches lie that are moved to main memory; it takes none before."""

    @abstractmethod
    def plan(self, num_latents: int) -> tuple[Chunk, ...]:
        """The chunks in which `vae.decode` decodes so many latent frames."""

    @abstractmethod
    def step(self, latents: Tensor, state: State, chunk: Chunk) -> tuple[Tensor, State]:
        """Decode one chunk.

        Args:
            latents: (B, c, chunk.stop - chunk.start, h, w).
            state: As the chunk before returned it; it is not changed.
            chunk: Which one of the plan.

        Returns:
            Frames (B, C, chunk.num_frames, H, W), not clamped, and the state for the next chunk.
        """

    def finish(self, frames: Tensor) -> Tensor:
        """What `vae.decode` does to its frames at the end; a loss had better do without: a clamp ends gradients."""
        return frames

    def onload(self) -> None:
        """Bring weights that were moved away back: the steps call submodules, which no offloading hook watches."""
        hook = getattr(self.vae, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.vae)


class PictureByPicture(ChunkedDecoder):
    """A network of our own that makes a picture of each that it is given, `at_once` of them in a chunk."""

    def __init__(self, network: nn.Module, *, at_once: int) -> None:
        super().__init__(network)
        self._at_once = at_once

    def plan(self, num_latents: int) -> tuple[Chunk, ...]:
        starts = range(0, num_latents, self._at_once)
        stops = [min(start + self._at_once, num_latents) for start in starts]
        return tuple(
            Chunk(index=number, start=start, stop=stop, first=start, end=stop)
            for number, (start, stop) in enumerate(zip(starts, stops, strict=True))
        )


def chunked(vae: nn.Module) -> ChunkedDecoder:
    """The stepper for an autoencoder.

    Raises:
        RequestError: this kind decodes a whole clip at once, or is set up so that it does; the message says what to do.
    """
    reason = why_not(vae)
    if reason is not None:
        raise RequestError(
            f"{type(vae).__name__} cannot be trained through window by window: {reason}",
            field="objective",
            value=type(vae).__name__,
            way_out="Use the latent objective, or another preset.",
        )
    return _DECODERS[type(vae).__name__](vae)


def why_not(vae: nn.Module) -> str | None:
    """Why an autoencoder cannot be walked chunk by chunk; None where it can."""
    name = type(vae).__name__
    if name in _WHOLE_CLIP:
        return _WHOLE_CLIP[name]
    if name not in _DECODERS:
        return f"the studio knows no way to; it knows {', '.join(sorted(_DECODERS))}."
    about: Any = vae
    if _DECODERS[name] in (WanDecoder, CogVideoXDecoder) and about.use_tiling:
        return "spatial tiling is on, which would hold the graph of every tile. Call disable_tiling(), and use crops."
    if name == "AutoencoderKLLTXVideo":
        if any(about.config.decoder_inject_noise):
            return "its decoder adds fresh noise in every pass, so that no pass can be walked again."
        if about.config.timestep_conditioning:
            return "its decoder is conditioned on a timestep, which a loss on plain frames does not set."
    if _DECODERS[name] is TemporalTilesDecoder and not about.use_framewise_decoding:
        return "it decodes a whole clip at once. Set use_framewise_decoding, which decodes by tiles in time."
    return None


_WHOLE_CLIP = {
    "AutoencoderKLHunyuanVideo15": "its decoder attends over all frames of a clip at once.",
    "AutoencoderKLCosmos": "its decoder attends over all frames of a clip at once.",
    "AutoencoderKLMochi": "diffusers' frame-wise decode of it raises, and the other takes a clip as a whole.",
    "AutoencoderKLTemporalDecoder": "its temporal layers take a clip as a whole.",
    "AutoencoderKLLTX2Video": "it decodes a whole clip at once.",
    "AutoencoderDC": "it decodes pictures one by one, without anything to chop: latent losses serve it as well.",
}


class WanDecoder(ChunkedDecoder):
    """Wan 2.1 and 2.2, and QwenImage's: a latent frame a chunk, of which the first gives one frame."""

    @property
    def frames_per_latent(self) -> int:
        upsampled = sum(bool(each) for each in self.vae.temperal_downsample)
        return 2**upsampled

    def plan(self, num_latents: int) -> tuple[Chunk, ...]:
        per = self.frames_per_latent
        ends = [1 + per * i for i in range(num_latents)]
        return tuple(
            Chunk(index=i, start=i, stop=i + 1, first=ends[i - 1] if i else 0, end=end) for i, end in enumerate(ends)
        )

    def step(self, latents: Tensor, state: State, chunk: Chunk) -> tuple[Tensor, State]:
        # The blocks write into the list they are given and count along in another: both are this call's own.
        slots: list[Any] = [None] * self._num_slots if state is None else list(state)
        first = {"first_chunk": chunk.index == 0} if self._is_wan else {}
        frames = self.vae.decoder(self.vae.post_quant_conv(latents), feat_cache=slots, feat_idx=[0], **first)
        patch = getattr(self.vae.config, "patch_size", None)  # Wan 2.2's
        return unpatchify(frames, patch_size=patch) if patch else frames, tuple(slots)

    def finish(self, frames: Tensor) -> Tensor:
        return frames.clamp(-1.0, 1.0)

    @property
    def _is_wan(self) -> bool:
        return type(self.vae).__name__ == "AutoencoderKLWan"

    @property
    def _num_slots(self) -> int:
        causal = {"WanCausalConv3d", "QwenImageCausalConv3d"}
        return sum(type(module).__name__ in causal for module in self.vae.decoder.modules())


class CogVideoXDecoder(ChunkedDecoder):
    """CogVideoX: two latent frames a chunk, the first takes an odd one more; group norms see the chunk as a whole."""

    def plan(self, num_latents: int) -> tuple[Chunk, ...]:
        batch = self.vae.num_latent_frames_batch_size
        over = num_latents % batch
        stops = [batch * (i + 1) + over for i in range(max(num_latents // batch, 1))]
        stops = [min(stop, num_latents) for stop in stops]
        per = self.vae.config.temporal_compression_ratio
        chunks: list[Chunk] = []
        start = first = 0
        for index, stop in enumerate(stops):
            latents = stop - start
            # An odd number of frames, above one, keeps its first single in every temporal upsampling.
            frames = latents * per if latents % 2 == 0 else (latents - 1) * per + 1
            chunks.append(Chunk(index=index, start=start, stop=stop, first=first, end=first + frames))
            start, first = stop, first + frames
        return tuple(chunks)

    def step(self, latents: Tensor, state: State, chunk: Chunk) -> tuple[Tensor, State]:
        if self.vae.post_quant_conv is not None:
            latents = self.vae.post_quant_conv(latents)
        frames, caches = self.vae.decoder(latents, conv_cache=state)
        return frames, _pruned(caches)


def _pruned(caches: dict[str, Any]) -> dict[str, Any]:
    """Without what 1x1x1 convolutions return as their cache, their whole input, and never read."""
    kept = {name: _pruned(value) if isinstance(value, dict) else value for name, value in caches.items()}
    return {name: value for name, value in kept.items() if name not in ("conv_y", "conv_b")}


class TemporalTilesDecoder(ChunkedDecoder):
    """HunyuanVideo and LTX: overlapping tiles in time, cross-faded; spatial tiles as well where `use_tiling` is on.

    The state is the end of the tile before, into which this one fades: carrying its gradient makes the walk exact.
    """

    def plan(self, num_latents: int) -> tuple[Chunk, ...]:
        vae, per = self.vae, self.vae.temporal_compression_ratio
        total = (num_latents - 1) * per + 1
        tile = vae.tile_sample_min_num_frames // per
        if num_latents <= tile:
            return (Chunk(index=0, start=0, stop=num_latents, first=0, end=total),)
        stride, stride_frames = vae.tile_sample_stride_num_frames // per, vae.tile_sample_stride_num_frames
        ends = [min(1 + (i + 1) * stride_frames, total) for i in range(len(range(0, num_latents, stride)))]
        return tuple(
            Chunk(
                index=i,
                start=i * stride,
                stop=min(i * stride + tile + 1, num_latents),
                first=ends[i - 1] if i else 0,
                end=end,
            )
            for i, end in enumerate(ends)
        )

    def step(self, latents: Tensor, state: State, chunk: Chunk) -> tuple[Tensor, State]:
        frames = self._decoded(latents)
        overlap = self.vae.tile_sample_min_num_frames - self.vae.tile_sample_stride_num_frames
        if chunk.index > 0:
            # HunyuanVideo gives up a later tile's first frame, LTX its last.
            frames = frames[:, :, :-1] if self._is_ltx else frames[:, :, 1:]
            frames = _faded(state, frames, overlap, dim=2)
        return frames[:, :, : chunk.num_frames], frames[:, :, -overlap:].clone()

    @property
    def _is_ltx(self) -> bool:
        return type(self.vae).__name__ == "AutoencoderKLLTXVideo"

    def _decoded(self, latents: Tensor) -> Tensor:
        vae = self.vae
        ratio = vae.spatial_compression_ratio
        rows, columns = vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio
        if not vae.use_tiling or (latents.shape[-2] <= rows and latents.shape[-1] <= columns):
            return self._tile(latents)
        return self._spatial_tiles(latents, rows, columns)

    def _tile(self, latents: Tensor) -> Tensor:
        return self.vae.decoder(latents, None) if self._is_ltx else self.vae.decoder(self.vae.post_quant_conv(latents))

    def _spatial_tiles(self, latents: Tensor, rows: int, columns: int) -> Tensor:
        """Tile by tile, each recomputed when gradients come back to it, so that one tile's activations are alive."""
        vae, ratio = self.vae, self.vae.spatial_compression_ratio
        height, width = latents.shape[-2:]
        down, right = vae.tile_sample_stride_height, vae.tile_sample_stride_width
        above: list[Tensor] = []
        lines: list[Tensor] = []
        for top in range(0, height, down // ratio):
            line: list[Tensor] = []
            for j, left in enumerate(range(0, width, right // ratio)):
                tile = recomputed(self._tile, latents[..., top : top + rows, left : left + columns])
                if above:
                    tile = _faded(above[j], tile, vae.tile_sample_min_height - down, dim=3)
                if line:
                    tile = _faded(line[-1], tile, vae.tile_sample_min_width - right, dim=4)
                line.append(tile)
            lines.append(torch.cat([tile[..., :down, :right] for tile in line], dim=4))
            above = line
        return torch.cat(lines, dim=3)[..., : height * ratio, : width * ratio]


def _faded(before: Tensor, tile: Tensor, extent: int, dim: int) -> Tensor:
    """`tile` with its first `extent` places along `dim` faded in from the last ones of `before`."""
    extent = min(before.shape[dim], tile.shape[dim], extent)
    if extent == 0:
        return tile
    old = before.narrow(dim, before.shape[dim] - extent, extent)
    # Weight by weight, as plain numbers: so a half-precision tile is rounded where diffusers rounds it.
    mixed = [old.select(dim, i) * (1 - i / extent) + tile.select(dim, i) * (i / extent) for i in range(extent)]
    rest = tile.narrow(dim, extent, tile.shape[dim] - extent)
    return torch.cat([torch.stack(mixed, dim), rest], dim)


class AllegroDecoder(ChunkedDecoder):
    """Allegro: overlapping tiles in time and space, weighted and summed; a row of spatial tiles a chunk.

    The state is what earlier rows already gave to frames that this row completes.
    """

    def plan(self, num_latents: int) -> tuple[Chunk, ...]:
        per = self.vae.config.temporal_compression_ratio
        length, stride = self.vae.kernel[0] // per, self.vae.stride[0] // per
        rows = (num_latents - length) // stride + 1
        if rows < 1:
            raise RequestError(
                f"{num_latents} latent frames are fewer than the {length} of one of Allegro's tiles.",
                field="num_frames",
                value=num_latents,
                way_out=f"Take clips of at least {length * per} frames.",
            )
        firsts = [i * self.vae.stride[0] for i in range(rows)] + [num_latents * per]
        return tuple(
            Chunk(
                index=i,
                start=i * stride,
                stop=i * stride + length,
                first=firsts[i],
                end=firsts[i + 1],
                is_last=i == rows - 1,
            )
            for i in range(rows)
        )

    def step(self, latents: Tensor, state: State, chunk: Chunk) -> tuple[Tensor, State]:
        vae = self.vae
        ratio = vae.spatial_compression_ratio
        flat = latents.permute(0, 2, 1, 3, 4).flatten(0, 1)
        latents = vae.post_quant_conv(flat).unflatten(0, (latents.shape[0], -1)).permute(0, 2, 1, 3, 4)
        height, width = latents.shape[-2] * ratio, latents.shape[-1] * ratio
        overlap = [size - stride for size, stride in zip(vae.kernel, vae.stride, strict=True)]
        tops, lefts = (
            [i * vae.stride[axis] for i in range((size - vae.kernel[axis]) // vae.stride[axis] + 1)]
            for axis, size in ((1, height), (2, width))
        )
        # What is left of the clip after the last row's tiles stays black, as in diffusers.
        length = max(chunk.num_frames, vae.kernel[0])
        canvas = latents.new_zeros((latents.shape[0], vae.config.out_channels, length, height, width))
        if state is not None:
            canvas = torch.cat([state, canvas[:, :, state.shape[2] :]], dim=2)
        for top, left in itertools.product(tops, lefts):
            rows = slice(top // ratio, (top + vae.kernel[1]) // ratio)
            columns = slice(left // ratio, (left + vae.kernel[2]) // ratio)
            tile = recomputed(vae.decoder, latents[..., rows, columns])
            tile = _weighted(tile, 2, overlap[0], head=chunk.index > 0, tail=not chunk.is_last)
            tile = _weighted(tile, 3, overlap[1], head=top > 0, tail=top != tops[-1])
            tile = _weighted(tile, 4, overlap[2], head=left > 0, tail=left != lefts[-1])
            around = (left, width - left - vae.kernel[2], top, height - top - vae.kernel[1], 0, length - vae.kernel[0])
            canvas = canvas + nn.functional.pad(tile, around)
        return canvas[:, :, : chunk.num_frames], canvas[:, :, chunk.num_frames :].clone()


def _weighted(tile: Tensor, dim: int, overlap: int, *, head: bool, tail: bool) -> Tensor:
    """`tile` with a rising ramp on its first `overlap` places along `dim` and a falling one on its last."""
    if overlap <= 0:
        return tile
    shape = [1] * tile.dim()
    shape[dim] = overlap
    ramp = (torch.arange(0, overlap, device=tile.device).float() / overlap).reshape(shape)
    size = tile.shape[dim]
    if head:
        first, rest = tile.split([overlap, size - overlap], dim)
        tile = torch.cat([(first * ramp).to(tile.dtype), rest], dim)
    if tail:
        rest, last = tile.split([size - overlap, overlap], dim)
        tile = torch.cat([rest, (last * (1 - ramp)).to(tile.dtype)], dim)
    return tile


def recomputed(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, whose activations are computed again when gradients come back, instead of being kept."""
    return cast(Any, checkpoint)(function, *inputs, use_reentrant=False)


_DECODERS: dict[str, type[ChunkedDecoder]] = {
    "AutoencoderKLWan": WanDecoder,
    "AutoencoderKLQwenImage": WanDecoder,
    "AutoencoderKLCogVideoX": CogVideoXDecoder,
    "AutoencoderKLHunyuanVideo": TemporalTilesDecoder,
    "AutoencoderKLLTXVideo": TemporalTilesDecoder,
    "AutoencoderKLAllegro": AllegroDecoder,
}
