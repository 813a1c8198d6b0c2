"""The super-resolver from a folder, checked.

Knows the folder that the recipe exports, and that of a fine-tuned network. Refuses to know who enlarges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from studio.pipelines.loading import check_sums
from studio.pipelines.super_resolver.pipeline import SuperResolverPipeline
from studio.pipelines.super_resolver.refiner import RecurrentRefiner


def load_super_resolver(folder: Path, network: Path | None = None, *, restore: bool = False) -> SuperResolverPipeline:
    """On the GPU where there is one, without gradients.

    Args:
        folder: As the recipe exported it.
        network: Folder of a fine-tuned network, for the refiner's place or the restorer's.
        restore: Which of the two places that is.

    Raises:
        WeightsCorrupt: a file is not what its checksum says.
    """
    check_sums(folder)
    pipeline: Any = SuperResolverPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    if network is not None:
        tuned = RecurrentRefiner.from_pretrained(network, use_safetensors=True, local_files_only=True)
        pipeline.register_modules(**{"restorer" if restore else "refiner": tuned})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for model in filter(None, pipeline.components.values()):
        model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    return pipeline
