"""The driver's transformer: `WanVACETransformer3DModel`, grown from the text-to-video pocket's.

Knows constructors and which weights begin as which. Refuses to know training and files. Control blocks begin as copies
of the blocks that they stand beside, behind output projections of zero, so before training it is bit for bit the model
that it was grown from.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from studio.pipelines.driver import CONTROL_CHANNELS

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

CONTROL_LAYERS = (0, 2, 4, 6)
"""Blocks beside which a control block stands."""
CONTROL_PARTS = ("vace_patch_embedding", "vace_blocks")
"""Modules that the text-to-video pocket has not."""


@torch.no_grad()
def grow(base: WanTransformer3DModel, *, layers: tuple[int, ...] | None = None) -> WanVACETransformer3DModel:
    """A driver of a text-to-video transformer's weights."""
    from diffusers import WanVACETransformer3DModel

    known = inspect.signature(WanVACETransformer3DModel.__init__).parameters
    beside = layers or tuple(layer for layer in CONTROL_LAYERS if layer < len(base.blocks))
    model = WanVACETransformer3DModel(
        **{name: value for name, value in base.config.items() if name in known},
        vace_layers=list(beside),
        vace_in_channels=CONTROL_CHANNELS,
    )
    missing, unexpected = model.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith(CONTROL_PARTS) for name in missing), missing
    for number, (control, layer) in enumerate(zip(model.vace_blocks, beside, strict=True)):
        block: Any = control
        block.load_state_dict(base.blocks[layer].state_dict(), strict=False)
        # Behind output projections of zero the rest may begin awake, and learns sooner.
        torch.nn.init.zeros_(block.proj_out.weight)
        torch.nn.init.zeros_(block.proj_out.bias)
        if number == 0:
            torch.nn.init.eye_(block.proj_in.weight)
            torch.nn.init.zeros_(block.proj_in.bias)
    reading: Any = model.vace_patch_embedding
    torch.nn.init.normal_(reading.weight, std=0.02)
    torch.nn.init.zeros_(reading.bias)
    return model


def is_control(name: str) -> bool:
    """Whether a parameter is one that the driver has and the text-to-video pocket has not."""
    return name.startswith(CONTROL_PARTS)
