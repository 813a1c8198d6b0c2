"""On what tests compute: the card where there is one that the installed torch can use, else the processor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
two_cards_or_none = pytest.mark.skipif(
    torch.cuda.device_count() == 1, reason="two processes want a card each, or none at all"
)
needs_card = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a graphics card that torch can use")


def same(found: Tensor, wanted: Tensor) -> bool:
    """Bit for bit on a processor; a card's sums come in no fixed order on the way back."""
    if DEVICE.type == "cpu":
        return torch.equal(found, wanted)
    return float((found.double() - wanted.double()).norm()) <= 1e-2 * float(wanted.double().norm())
