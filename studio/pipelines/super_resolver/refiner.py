"""R: a small recurrent network that adds to L(given) what a linear filter cannot know.

All of it works on one grid, a fourth of the enlarged picture's rows and columns: a picture that becomes four times as
large is read as it is, one that becomes twice as large is first folded (2×2 pixels become channels), and what comes out
is unfolded by four. So one body serves both scales, at the same cost for a pixel that is made. It remembers as its
blocks do: whoever begins `memory` pictures early goes on exactly. The last convolutions begin at zero: R begins as
nothing, and what it comes to is held against L before it ships.

Shapes: B clips, T pictures, h rows and w columns of the grid, n channels; enlarged pictures (B, T, 3, 4h, 4w).
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from studio.pipelines.super_resolver.blocks import Memories, RememberingBlocks

GRID = 4
"""Rows and columns of the enlarged picture to a place of the grid."""


class RecurrentRefiner(ModelMixin, ConfigMixin):
    """Residual blocks between a first and a last convolution of each scale."""

    @register_to_config
    def __init__(self, channels: int = 48, num_blocks: int = 3, scales: tuple[int, ...] = (2, 4)) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({str(s): nn.Conv2d(3 * (GRID // s) ** 2, channels, 3, padding=1) for s in scales})
        self.blocks = RememberingBlocks(channels, num_blocks)
        self.tails = nn.ModuleDict({str(s): nn.Conv2d(channels, 3 * GRID**2, 3, padding=1) for s in scales})
        for parameter in self.tails.parameters():
            nn.init.zeros_(parameter)

    @property
    def memory(self) -> int:
        """Pictures before one on which it depends."""
        return self.blocks.memory

    @property
    def reach(self) -> int:
        """Places of the grid to each side on which a place depends."""
        return 2 + self.blocks.reach

    def forward(self, pictures: Tensor, scale: int, state: Memories | None = None) -> tuple[Tensor, Memories]:
        """What is to be added to L(pictures), for pictures (B, T, 3, 4h/s, 4w/s) that follow one another.

        Args:
            pictures: In 0…1; rows and columns are multiples of 4/s.
            scale: 2 or 4.
            state: What came back with the pictures before them; None before the first.

        Returns:
            (B, T, 3, 4h, 4w), and the state for the pictures after them.
        """
        batch, length = pictures.shape[:2]
        folded = F.pixel_unshuffle(pictures.flatten(0, 1), GRID // scale)
        before = iter(state) if state is not None else None
        x, after = self.blocks(self.heads[str(scale)](folded), length, before)
        added = F.pixel_shuffle(self.tails[str(scale)](x), GRID)
        return added.unflatten(0, (batch, length)), tuple(after)
