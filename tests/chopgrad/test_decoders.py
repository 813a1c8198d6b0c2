"""The steppers: the frames of `vae.decode`, and nothing else changed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders import AutoencoderKLHunyuanVideo15, AutoencoderKLMochi
from support.tiny_decoders import CAUSAL, KINDS, decode, tiny, wan_21
from torch import Tensor

from studio.chopgrad import chunked, decode_values, why_not
from studio.errors import RequestError

EVERY = pytest.mark.parametrize("name", KINDS)


def values(vae: Any, latents: Tensor) -> Tensor:
    return torch.cat([frames for frames, _ in decode_values(chunked(vae), latents)], dim=2)


@EVERY
def test_chunk_by_chunk_gives_the_frames_of_decode_bit_for_bit(name: str) -> None:
    vae, latents = tiny(name)
    with torch.no_grad():
        assert torch.equal(values(vae, latents), decode(vae, latents))


@pytest.mark.parametrize("num_latents", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("name", [*CAUSAL, "hunyuan video", "ltx"])
def test_any_length_and_a_batch_decode_as_well(name: str, num_latents: int) -> None:
    vae, latents = tiny(name)
    latents = torch.randn(2, latents.shape[1], num_latents, *latents.shape[3:])
    with torch.no_grad():
        assert torch.equal(values(vae, latents), decode(vae, latents))


@EVERY
def test_the_plan_names_the_frames_of_every_chunk_in_order(name: str) -> None:
    vae, latents = tiny(name)
    decoder = chunked(vae)
    plan = decoder.plan(latents.shape[2])
    assert len(plan) >= 3
    assert [chunk.index for chunk in plan] == list(range(len(plan)))
    assert plan[0].first == 0
    assert all(one.end == after.first for one, after in itertools.pairwise(plan))
    state = None
    for chunk in plan:
        with torch.no_grad():
            frames, state = decoder.step(latents[:, :, chunk.start : chunk.stop], state, chunk)
        assert frames.shape[2] == chunk.num_frames


@EVERY
def test_a_step_changes_nothing_and_gives_the_same_again(name: str) -> None:
    vae, latents = tiny(name)
    decoder = chunked(vae)
    first, second, *_ = decoder.plan(latents.shape[2])
    with torch.no_grad():
        _, state = decoder.step(latents[:, :, first.start : first.stop], None, first)
        once, _ = decoder.step(latents[:, :, second.start : second.stop], state, second)
        decode(vae, torch.randn_like(latents))  # another decode in between, as a preview would be
        again, _ = decoder.step(latents[:, :, second.start : second.stop], state, second)
    assert torch.equal(once, again)


def test_what_cogvideox_returns_and_never_reads_is_not_kept() -> None:
    vae, latents = tiny("cogvideox odd")
    decoder = chunked(vae)
    chunk = decoder.plan(latents.shape[2])[0]
    with torch.no_grad():
        _, state = decoder.step(latents[:, :, : chunk.stop], None, chunk)
        _, whole = vae.decoder(latents[:, :, : chunk.stop])

    def size(part: Any) -> int:
        return part.numel() if isinstance(part, Tensor) else sum(size(each) for each in part.values())

    assert size(state) < 0.5 * size(whole)


def test_who_decodes_a_whole_clip_at_once_is_refused_with_the_reason() -> None:
    for made in (
        AutoencoderKLHunyuanVideo15(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            spatial_compression_ratio=8,
            temporal_compression_ratio=4,
        ),
        AutoencoderKLMochi(
            latent_channels=12, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4
        ),
        torch.nn.Linear(2, 2),
    ):
        with pytest.raises(RequestError, match=type(made).__name__) as refused:
            chunked(made)
        assert refused.value.field == "objective"
        assert "latent objective" in refused.value.way_out


def test_what_is_set_up_wrongly_is_refused_with_what_to_do() -> None:
    vae: Any = wan_21()
    vae.enable_tiling()
    assert "disable_tiling()" in str(why_not(vae))
    vae.disable_tiling()
    assert why_not(vae) is None
    vae = KINDS["ltx"].make()
    vae.use_framewise_decoding = False
    assert "use_framewise_decoding" in str(why_not(vae))
