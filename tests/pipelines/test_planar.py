"""Convolutions in planes are the same convolutions: as float32 rounds, for every family, forwards and back."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_checkpoints import TINY, preset_for, save
from support.tiny_decoders import KINDS, decode, tiny
from torch import nn

from studio import pipelines
from studio.machine import hardware
from studio.pipelines.planar import make_planar
from studio.requests.generation import request_for

LAPTOP = dataclasses.replace(hardware.measure(), accelerator=None, bf16=False)

ROUNDING = 2e-5
"""Of the largest value: float32 carries seven digits, and a decoder adds up thousands of products ten times over."""


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing_loaded() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    pipelines.unload()


def _same(planar: torch.Tensor, plain: torch.Tensor) -> None:
    assert planar.shape == plain.shape
    assert (planar - plain).abs().max() <= ROUNDING * plain.abs().max()


def _is_planar(module: nn.Module) -> bool:
    return "_conv_forward" in module.__dict__


@pytest.mark.parametrize("name", KINDS)
def test_chunks_tiles_and_what_is_kept_between_them_give_the_same_frames(name: str) -> None:
    vae, latents = tiny(name)
    with torch.no_grad():
        plain = decode(vae, latents)
        make_planar(vae)
        planar = decode(vae, latents)
    assert any(_is_planar(module) for module in vae.modules() if isinstance(module, nn.Conv3d))
    _same(planar, plain)


@pytest.mark.parametrize("name", TINY)
def test_every_family_makes_the_same_clip(name: str, tmp_path: Path) -> None:
    preset = preset_for(name, save(name, tmp_path))
    request = request_for(preset, prompt="a red car", seed=3, num_inference_steps=2)
    placement = pipelines.place(preset, request, LAPTOP)
    assert placement.planar
    clips, planar = [], []
    for each in (dataclasses.replace(placement, planar=False), placement):
        ready = pipelines.load(preset, each)
        planar.append(any(_is_planar(module) for module in ready.pipe.vae.modules()))
        generator = torch.Generator().manual_seed(3)
        clips.append(ready.run(request, generator=generator, on_step=lambda _: None, interrupted=lambda: False))
    assert planar == [False, True]
    assert clips[0].std() > 1
    assert np.abs(clips[1].astype(int) - clips[0]).max() <= 1, "a value that lay between two may fall to the other side"


@pytest.mark.parametrize("name", ["wan 2.1", "cogvideox even"])
def test_gradients_come_back_the_same(name: str) -> None:
    """Training with a loss on pixels goes back through the decoder that is loaded."""
    vae, latents = tiny(name)

    def gradient() -> torch.Tensor:
        leaf = latents.clone().requires_grad_()
        decode(vae, leaf).square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    plain = gradient()
    make_planar(vae)
    _same(gradient(), plain)


SHAPES = list(itertools.product((1, 3), (1, 2), (0, 1), ("zeros", "replicate")))


@pytest.mark.parametrize(("taps", "stride", "padding", "mode"), SHAPES)
def test_every_convolution_is_itself(taps: int, stride: int, padding: int, mode: str) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "padding_mode": mode}
    conv = nn.Conv3d(5, 7, (taps, 3, 3), **settings)
    clip = torch.randn(2, 5, 6, 8, 9)
    with torch.no_grad():
        plain = conv(clip), conv(clip[0])
        make_planar(conv)
        for planar, before in zip((conv(clip), conv(clip[0])), plain, strict=True):
            _same(planar, before)
    assert _is_planar(conv) is (mode == "zeros"), "what cannot be computed in planes is left as it is"
    assert conv.state_dict()["weight"].shape == (7, 5, taps, 3, 3), "the weights are what they were"


def test_weights_are_laid_out_anew_and_not_kept_twice() -> None:
    conv = nn.Conv3d(8, 8, 3)
    held = conv.weight.untyped_storage().nbytes()
    make_planar(conv)
    assert conv.weight.untyped_storage().nbytes() == held
    first, *_ = (conv.weight[:, :, tap] for tap in range(3))
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    """Small planes too: for those torch's own convolution takes another kernel when there is one thread."""
    vae, latents = tiny("wan 2.1")
    make_planar(vae)
    clips = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        with torch.no_grad():
            clips.append(decode(vae, latents))
    assert torch.equal(clips[0], clips[1])
    assert torch.equal(clips[0], clips[2])
