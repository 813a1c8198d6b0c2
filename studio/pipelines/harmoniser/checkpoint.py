"""The harmoniser from a folder, checked.

Knows the folder that the recipe exports. Refuses to know who asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from studio.pipelines.harmoniser.harmoniser import Harmoniser
from studio.pipelines.loading import check_sums


def load_harmoniser(folder: Path) -> Harmoniser:
    """On the GPU where there is one, without gradients.

    Raises:
        WeightsCorrupt: a file is not what its checksum says.
    """
    check_sums(folder)
    network: Any = Harmoniser.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.eval().requires_grad_(False)
    return network.to(device, memory_format=torch.channels_last)
