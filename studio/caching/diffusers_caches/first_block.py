"""First-block cache, as diffusers has it: all blocks but the first are skipped while it changes little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

from studio.caching.block_stack import Stack
from studio.caching.diffusers_caches.diffusers_cache import DiffusersCache
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun


class FirstBlockCache(DiffusersCache[caches.FirstBlockCache]):
    """All blocks but the first are skipped while the first one's residual changes little."""

    shows_in = 1

    def put_on(self, stack: Stack) -> None:
        apply_first_block_cache(stack.transformer, FirstBlockCacheConfig(threshold=self.settings.threshold))

    def why(self) -> str:
        return "the first block changed little"


def cache_for(settings: caches.FirstBlockCache, run: CacheRun) -> FirstBlockCache:
    """The cache, ready to be attached to a run."""
    return FirstBlockCache(settings, run)
