"""Activations computed again block by block, beside caches that blocks write into.

Plain checkpointing of a block that writes into a cache goes wrong: computed again, the block would read what it wrote.
Here each block works on a list of its own, and what it wrote is handed out once, in the first pass. Wan's and
QwenImage's blocks get a hook that does so; other autoencoders bring a checkpointing of their own that is exact.

Knows diffusers' hooks. Refuses to know windows and losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from studio.chopgrad.decoders import recomputed

BLOCKS = {"WanResidualBlock", "WanResample", "QwenImageResidualBlock", "QwenImageResample"}
_HOOK = "dailies_checkpoint"


@contextmanager
def checkpointed(vae: nn.Module) -> Iterator[None]:
    """Within it, the decoder keeps the inputs of its blocks only. Values and gradients stay as they are."""
    about: Any = vae
    blocks = [module for module in about.decoder.modules() if type(module).__name__ in BLOCKS]
    if blocks:
        for block in blocks:
            HookRegistry.check_if_exists_or_initialize(block).register_hook(_Recompute(), _HOOK)
        try:
            yield
        finally:
            for block in blocks:
                HookRegistry.check_if_exists_or_initialize(block).remove_hook(_HOOK, recurse=False)
    else:
        before = about.is_gradient_checkpointing
        about.enable_gradient_checkpointing()
        try:
            yield
        finally:
            if not before:
                about.disable_gradient_checkpointing()


class _Recompute(ModelHook):
    """`forward(x, feat_cache, feat_idx)` as a function of x and the slots that it reads."""

    def new_forward(self, module: nn.Module, x: Tensor, feat_cache: Any = None, feat_idx: Any = None) -> Tensor:
        forward: Any = self.fn_ref.original_forward
        if not torch.is_grad_enabled() or feat_cache is None:
            return forward(x, feat_cache=feat_cache, feat_idx=feat_idx)
        begin, before = feat_idx[0], list(feat_cache)

        def pure(x: Tensor) -> tuple[Tensor, list[Any], int]:
            own, cursor = list(before), [begin]
            out = forward(x, feat_cache=own, feat_idx=cursor)
            return out, own, cursor[0]

        out, after, end = recomputed(pure, x)
        feat_cache[begin:end] = after[begin:end]
        feat_idx[0] = end
        return out
