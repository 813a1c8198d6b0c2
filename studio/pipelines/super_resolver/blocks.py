"""Residual blocks of two 3×3 convolutions, of which every other one remembers the picture before.

Memory blocks, as in small video autoencoders (TAEHV), see their own input of the picture before. They reach back one
picture each and no further, so whoever begins as many pictures early as there are memory blocks goes on exactly.

Shapes: B clips, T pictures, n channels, h rows, w columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Memories: TypeAlias = tuple[Tensor, ...]
"""What each memory block saw of the last picture, (B, n, h, w)."""


class RememberingBlocks(nn.ModuleList):
    """`num_blocks` blocks, one after the other; the second, the fourth … remember."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__(_Block(channels, remembers=place % 2 == 1) for place in range(num_blocks))

    @property
    def memory(self) -> int:
        """Pictures before one on which it depends."""
        return sum(isinstance(block, _Block) and block.remembers for block in self)

    @property
    def reach(self) -> int:
        """Places to each side on which a place depends: one for each convolution on the way."""
        return 2 * len(self)

    def forward(
        self, x: Tensor, length: int, before: Iterator[Tensor] | None, tuning: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Pictures (B · T, n, h, w) of clips that are `length` long.

        Args:
            before: Hands over what each memory block saw of the picture before, in their order; None where there is
                none, which is as if it were zero.
            tuning: For each block (B · T, 2n): a factor, less one, and a shift for each of its inner channels, from
                whoever knows what the pictures are of; None leaves them be.

        Returns:
            The pictures, and what each memory block saw of the last.
        """
        after: list[Tensor] = []
        for place, block in enumerate(self):
            tuned = tuning[place] if tuning is not None else None
            if not (isinstance(block, _Block) and block.remembers):
                x = block(x, None, tuned)
                continue
            here = x.unflatten(0, (-1, length))
            first = next(before)[:, None] if before is not None else torch.zeros_like(here[:, :1])
            after.append(here[:, -1])
            x = block(x, torch.cat([first, here[:, :-1]], dim=1).flatten(0, 1), tuned)
        return x, after


class _Block(nn.Module):
    """x + W₂ a(W₁ x + W₀ past), a leaky rectifier between."""

    def __init__(self, channels: int, *, remembers: bool) -> None:
        super().__init__()
        self.remembers = remembers
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        if remembers:
            self.past = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, past: Tensor | None, tuning: Tensor | None) -> Tensor:
        inner = self.first(x)
        if past is not None:
            inner = inner + self.past(past)
        if tuning is not None:
            factor, shift = tuning[..., None, None].chunk(2, dim=1)
            inner = inner * (1 + factor) + shift
        return x + self.second(F.leaky_relu(inner, 0.1, inplace=True))
