"""TaylorSeer, as diffusers has it: layers' outputs, foretold by their Taylor series."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from diffusers.hooks import TaylorSeerCacheConfig, apply_taylorseer_cache

from studio.caching.block_stack import Stack
from studio.caching.diffusers_caches.diffusers_cache import DiffusersCache
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun


class TaylorSeerCache(DiffusersCache[caches.TaylorSeer]):
    """Attention and feed-forward layers are computed now and then, and foretold by their Taylor series between."""

    def __init__(self, settings: caches.TaylorSeer, run: CacheRun) -> None:
        super().__init__(settings, run)
        self.extrapolates = settings.max_order > 0

    def put_on(self, stack: Stack) -> None:
        foretold, left_out = layers_of(stack)
        config = TaylorSeerCacheConfig(
            cache_interval=self.settings.cache_interval,
            disable_cache_before_step=self.settings.disable_cache_before_step,
            max_order=self.settings.max_order,
            # bfloat16, which is diffusers' default, would round a float32 model's layers.
            taylor_factors_dtype=next(p.dtype for p in stack.transformer.parameters() if p.is_floating_point()),
            cache_identifiers=[re.escape(name) for name in foretold],
            skip_predict_identifiers=[re.escape(name) for name in left_out] or None,
        )
        apply_taylorseer_cache(stack.transformer, config)

    def why(self) -> str:
        return "between two computed steps"


def layers_of(stack: Stack) -> tuple[list[str], list[str]]:
    """Names of the layers whose output a block adds to its stream, and of those that only feed one of them."""
    names = {module: name for name, module in stack.transformer.named_modules()}
    added: list[str] = []
    feeding: list[str] = []
    for block in stack.blocks:
        children = dict(block.named_children())
        if "proj_mlp" in children:  # attention and feed-forward side by side, and one layer that brings them together
            added.append(names[children["proj_out"]])
            feeding += [names[children[name]] for name in ("attn", "proj_mlp")]
            continue
        parts = ("attn", "attn1", "attn2", "ff", "ffn", "ff_context")
        added += [names[children[name]] for name in parts if children.get(name) is not None]
    return added, feeding


def cache_for(settings: caches.TaylorSeer, run: CacheRun) -> TaylorSeerCache:
    """The cache, ready to be attached to a run."""
    return TaylorSeerCache(settings, run)
