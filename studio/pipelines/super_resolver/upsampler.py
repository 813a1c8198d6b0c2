"""L: enlarging by the linear filter that errs least.

Of s² new pixels in the place of an old one, each is a weighted sum of the 7×7 old ones around it (a polyphase filter).
The weights are those of least squares on clips of which both sizes are known; they are solved for, not searched.

Shapes: B pictures, H rows, W columns, s the scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

SCALES = (2, 4)
TAPS = 7
"""Old pixels along a side that a new one is made of."""


class LeastSquaresUpsampler(ModelMixin, ConfigMixin):
    """A 7×7 polyphase filter for each scale, the same for each colour.

    Weights (s², 1, 7, 7), the new pixels in rows. At first each new pixel is the old one in its place.
    """

    @register_to_config
    def __init__(self, scales: tuple[int, ...] = SCALES) -> None:
        super().__init__()
        nearest = torch.zeros(1, 1, TAPS, TAPS)
        nearest[..., TAPS // 2, TAPS // 2] = 1
        self.filters = nn.ParameterDict({str(s): nn.Parameter(nearest.repeat(s * s, 1, 1, 1)) for s in scales})

    def forward(self, pictures: Tensor, scale: int) -> Tensor:
        """(B, C, H, W) to (B, C, sH, sW)."""
        batch, colours, height, width = pictures.shape
        alone = F.pad(pictures.reshape(batch * colours, 1, height, width), (TAPS // 2,) * 4, mode="replicate")
        enlarged = F.pixel_shuffle(F.conv2d(alone, self.filters[str(scale)]), scale)
        return enlarged.view(batch, colours, scale * height, scale * width)


class LeastSquares:
    """The sums from which a filter is solved, pair by pair, in double precision.

    A constant picture must stay what it is, so the weights of a new pixel add up to one: what is solved for are the
    weights of differences from the old pixel in the middle.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        others = TAPS * TAPS - 1
        self._squares = torch.zeros(others, others, dtype=torch.float64)
        self._products = torch.zeros(others, scale * scale, dtype=torch.float64)

    def add(self, small: Tensor, large: Tensor) -> None:
        """Pairs (B, C, H, W) and (B, C, sH, sW); pixels whose neighbourhood lacks something are left out."""
        inner = TAPS // 2
        around = F.unfold(small.flatten(0, 1)[:, None], TAPS).transpose(1, 2).reshape(-1, TAPS * TAPS).double()
        wanted = F.pixel_unshuffle(large.flatten(0, 1)[:, None], self._scale)[..., inner:-inner, inner:-inner]
        wanted = wanted.permute(0, 2, 3, 1).reshape(-1, self._scale**2).double()
        middle = around[:, TAPS * TAPS // 2, None]
        differences = torch.cat([around[:, : TAPS * TAPS // 2], around[:, TAPS * TAPS // 2 + 1 :]], dim=1) - middle
        self._squares += (differences.T @ differences).cpu()
        self._products += (differences.T @ (wanted - middle)).cpu()

    def weights(self) -> Tensor:
        """(s², 1, 7, 7) float32."""
        steady = 1e-6 * self._squares.diagonal().mean() * torch.eye(len(self._squares), dtype=torch.float64)
        solved = torch.linalg.solve(self._squares + steady, self._products).T
        middle = 1 - solved.sum(dim=1, keepdim=True)
        before, after = solved.split(TAPS * TAPS // 2, dim=1)
        return torch.cat([before, middle, after], dim=1).view(-1, 1, TAPS, TAPS).float()
