"""On what tests compute: the card where there is one that the installed torch can use, else the processor."""

from __future__ import annotations

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_card = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a graphics card that torch can use")
