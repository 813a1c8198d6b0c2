"""Who tells made pictures from real ones while D learns, and is thrown away afterwards.

A classifier of patches (Isola et al., arXiv 1611.07004) with spectral norm (Miyato et al., arXiv 1802.05957) and the
hinge loss. It sees what was added to L + R, made louder, beside L + R itself: so it judges what was added, and cannot
be pleased by another picture that is sharp. Shown whole pictures it learnt nothing, for what is added is small.

Shapes: N pictures (N, 3, H, W) in 0…1; logits (N, 1, H/8, W/8), above zero for real.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LOUDER = 8.0
"""What is added is seen so many times as large: then it varies about as much as a picture does."""


class Adversary(nn.Module):
    """Four strided convolutions and a verdict on each patch of 46 pixels."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = (6, channels, 2 * channels, 2 * channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))

    def forward(self, pictures: Tensor, beside: Tensor) -> Tensor:
        return self.layers(torch.cat([LOUDER * (pictures - beside), beside], dim=1))

    def fooled(self, made: Tensor, beside: Tensor) -> Tensor:
        """What the maker pays: the mean logit, with its sign turned. No gradient comes to the adversary's weights."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return -torch.func.functional_call(self, frozen, (made, beside)).mean()

    def learns(self, made: Tensor, real: Tensor, beside: Tensor) -> Tensor:
        """What the adversary pays. No gradient comes to whoever made them."""
        of_made, of_real = self(made.detach(), beside), self(real, beside)
        return F.relu(1 + of_made).mean() + F.relu(1 - of_real).mean()
