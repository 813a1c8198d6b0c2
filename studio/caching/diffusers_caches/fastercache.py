"""FasterCache, as diffusers has it: the unguided half of a pass is left out, and attention is continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffusers.hooks import FasterCacheConfig, ModelHook, apply_faster_cache
from torch import Tensor

from studio.caching.block_stack import Stack
from studio.caching.diffusers_caches.diffusers_cache import DiffusersCache
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun


class FasterCache(DiffusersCache[caches.FasterCache]):
    """Under batched guidance the unguided half of a pass is left out, and attention is continued in the other."""

    whole = False

    def put_on(self, stack: Stack) -> None:
        settings = self.settings
        config = FasterCacheConfig(
            spatial_attention_block_skip_range=settings.attention_skip_range,
            temporal_attention_block_skip_range=settings.attention_skip_range,
            unconditional_batch_skip_range=settings.unconditional_skip_range,
            tensor_format="BFCHW" if self.run.family.layout == "BFCHW" else "BCFHW",
            attention_weight_callback=lambda module: 0.5,
            current_timestep_callback=lambda: self._now,  # pyright: ignore[reportArgumentType]
        )
        apply_faster_cache(stack.transformer, config)

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        # Out of every range at first: diffusers would look for what it has not kept yet.
        self._now = self._timestep() if self._index > 0 else 1000.0
        for hook in hooks:  # one sample: nothing to leave out, but attention can still be continued
            hook.is_guidance_distilled = latents.shape[0] == 1  # pyright: ignore[reportAttributeAccessIssue]


def cache_for(settings: caches.FasterCache, run: CacheRun) -> FasterCache:
    """The cache, ready to be attached to a run."""
    return FasterCache(settings, run)
