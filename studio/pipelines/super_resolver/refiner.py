"""R: a small recurrent network that adds to L(given) what a linear filter cannot know.

All of it works on one grid, a fourth of the enlarged picture's rows and columns: a picture that becomes four times as
large is read as it is, one that becomes twice as large is first folded (2×2 pixels become channels), and what comes out
is unfolded by four. So one body serves both scales, at the same cost for a pixel that is made. Memory blocks, as in
small video autoencoders (TAEHV), see their own input of the picture before. They reach back one picture each and no
further: whoever begins `memory` pictures early goes on exactly. The last convolutions begin at zero: R begins as
nothing, and what it comes to is held against L before it ships.

Shapes: B clips, T pictures, h rows and w columns of the grid, n channels; enlarged pictures (B, T, 3, 4h, 4w).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

GRID = 4
"""Rows and columns of the enlarged picture to a place of the grid."""
RefinerState: TypeAlias = tuple[Tensor, ...] | None
"""What each memory block saw of the last picture, (B, n, h, w); None before the first, which is as if it were zero."""


class RecurrentRefiner(ModelMixin, ConfigMixin):
    """Residual blocks of two 3×3 convolutions; every other one remembers."""

    @register_to_config
    def __init__(self, channels: int = 48, num_blocks: int = 3, scales: tuple[int, ...] = (2, 4)) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({str(s): nn.Conv2d(3 * (GRID // s) ** 2, channels, 3, padding=1) for s in scales})
        self.blocks = nn.ModuleList(_Block(channels, remembers=place % 2 == 1) for place in range(num_blocks))
        self.tails = nn.ModuleDict({str(s): nn.Conv2d(channels, 3 * GRID**2, 3, padding=1) for s in scales})
        for parameter in self.tails.parameters():
            nn.init.zeros_(parameter)

    @property
    def memory(self) -> int:
        """Pictures before one on which it depends."""
        return sum(isinstance(block, _Block) and block.remembers for block in self.blocks)

    @property
    def reach(self) -> int:
        """Places of the grid to each side on which a place depends: one for each convolution on the way."""
        return 2 + 2 * len(self.blocks)

    def forward(self, pictures: Tensor, scale: int, state: RefinerState = None) -> tuple[Tensor, RefinerState]:
        """What is to be added to L(pictures), for pictures (B, T, 3, 4h/s, 4w/s) that follow one another.

        Args:
            pictures: In 0…1; rows and columns are multiples of 4/s.
            scale: 2 or 4.
            state: What came back with the pictures before them.

        Returns:
            (B, T, 3, 4h, 4w), and the state for the pictures after them.
        """
        batch, length = pictures.shape[:2]
        folded = F.pixel_unshuffle(pictures.flatten(0, 1), GRID // scale)
        x = self.heads[str(scale)](folded)
        before = iter(state) if state is not None else None
        after: list[Tensor] = []
        for block in self.blocks:
            if not block.remembers:
                x = block(x, None)
                continue
            here = x.unflatten(0, (batch, length))
            first = next(before)[:, None] if before is not None else torch.zeros_like(here[:, :1])
            after.append(here[:, -1])
            x = block(x, torch.cat([first, here[:, :-1]], dim=1).flatten(0, 1))
        added = F.pixel_shuffle(self.tails[str(scale)](x), GRID)
        return added.unflatten(0, (batch, length)), tuple(after)


class _Block(nn.Module):
    """x + W₂ a(W₁ x + W₀ past), a leaky rectifier between."""

    def __init__(self, channels: int, *, remembers: bool) -> None:
        super().__init__()
        self.remembers = remembers
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        if remembers:
            self.past = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, past: Tensor | None) -> Tensor:
        inner = self.first(x)
        if past is not None:
            inner = inner + self.past(past)
        return x + self.second(F.leaky_relu(inner, 0.1, inplace=True))
