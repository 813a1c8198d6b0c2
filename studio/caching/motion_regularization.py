"""MoReg: a clip that moves more is computed more often.

The motion of a residual R is the share by which neighbouring frames differ, in 0..1:

    m = mean over strides i of  ||R[i:] - R[:-i]||_1 / (||R[i:]||_1 + ||R[:-i]||_1)

The paper (arXiv 2411.02397, eq. 7-9) multiplies the distance by m and adds its change; the authors' code, which is
followed here, first makes a near switch of it:

    moreg = (m / scale)^power inside a window of steps, 1 outside
    factor = moreg + | gradient (moreg - moreg_before) / rate |

The authors' scale is 0.385, found on Open-Sora; a model whose residuals move less than that, whatever its clip shows,
then skips most of every clip. So where a profile tells how much a model's residuals move, the scale at each step is the
mean over the profile's clips at that step: a clip that moves as they do is computed as without MoReg, one that moves
more more often, one that moves less less often.

Knows frames of tokens. Refuses to know codebooks and models.

Shapes: residuals are (B, F·S, D), frame after frame, S tokens a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AUTHORS_SCALE = 0.385
"""The motion score at which the authors change nothing."""


def motion_parts(residual: Tensor, frames: int, stride: int) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of one stride's motion, so that branches and ranks can be added before dividing."""
    by_frame = residual.unflatten(1, (frames, -1))
    later, earlier = by_frame[:, stride:].float(), by_frame[:, :-stride].float()
    return (later - earlier).abs().sum(), later.abs().sum() + earlier.abs().sum()


def motion_score(parts: Sequence[Tensor]) -> float:
    """The mean over strides of [numerator, denominator]; 0 where nothing can be compared."""
    ratios = [float(part[0] / part[1]) for part in parts if float(part[1]) > 0]
    return sum(ratios) / len(ratios) if ratios else 0.0


@dataclass(kw_only=True)
class MotionRegularization:
    """The factor on the distance, step by step; one object serves one run."""

    first: int
    """First step, from 1, where motion counts."""
    last: int
    scales: Sequence[float]
    """(N): the motion score at which nothing changes, at each step."""
    power: float = 8.0
    gradient: float = 10.0
    before: float = 1.0

    def factor(self, step: int, motion: float, rate: int) -> float:
        """What the distance is multiplied by at a step counted from 1, with the rate in force."""
        counts = self.first <= step <= self.last and self.scales[step - 1] > 0
        moreg = (motion / self.scales[step - 1]) ** self.power if counts else 1.0
        change = abs(self.gradient * (moreg - self.before) / rate)
        self.before = moreg
        return moreg + change


def window_of(total: int, shares: tuple[float, float] | None) -> tuple[int, int]:
    """First and last step, from 1, of a window given as shares.

    None takes the authors': 4 to 26 of 30 steps and 10 to 90 of 100, and what lies on a straight line with them.
    """
    if shares is not None:
        return round(shares[0] * total), round(shares[1] * total)
    margin = max(1, round(4 + (total - 30) * (10 - 4) / (100 - 30)))
    return margin, total - margin


def zeros_like_parts(strides: int, device: torch.device) -> Tensor:
    """Where numerators and denominators are added up: (strides, 2)."""
    return torch.zeros(strides, 2, device=device)
