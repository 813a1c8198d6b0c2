"""The training twins compute what the diffusers classes compute."""

from __future__ import annotations

import pytest
import torch

from studio.pocket import denoiser_twin, twin
from studio.pocket.architecture import SPECK, build_autoencoder, build_denoiser


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return build_autoencoder(SPECK).eval()


@pytest.mark.parametrize("length", [1, 5, 13])
def test_the_autoencoders_twin_equals_its_chunked_encode_and_decode(vae, length: int) -> None:
    video = torch.randn(2, 3, length, 32, 48, generator=torch.Generator().manual_seed(length)).clamp(-1, 1)
    with torch.no_grad():
        moments = vae._encode(video)
        assert torch.allclose(twin.encode(vae, video), moments, atol=1e-4)
        latent = moments[:, : SPECK.latent_channels]
        assert torch.allclose(twin.decode(vae, latent).clamp(-1, 1), vae.decode(latent).sample, atol=1e-4)


def test_the_twin_sends_gradients_to_every_weight_of_a_clip(vae) -> None:
    video = torch.randn(1, 3, 5, 16, 16)
    latent = twin.encode(vae, video)[:, : SPECK.latent_channels]
    twin.decode(vae, latent).square().mean().backward()
    missing = [name for name, parameter in vae.named_parameters() if parameter.grad is None]
    vae.zero_grad()
    assert missing == []


@pytest.mark.parametrize("frames", [1, 3])
def test_the_denoisers_twin_equals_its_forward(frames: int) -> None:
    torch.manual_seed(0)
    denoiser = build_denoiser(SPECK).eval()
    noisy = torch.randn(2, SPECK.latent_channels, frames, 4, 6)
    words, timestep = torch.randn(2, 7, SPECK.text_width), torch.tensor([900.0, 20.0])
    with torch.no_grad():
        expected = denoiser(noisy, timestep, words, return_dict=False)[0]
        assert torch.allclose(denoiser_twin.velocity(denoiser, noisy, timestep, words), expected, atol=1e-4)
