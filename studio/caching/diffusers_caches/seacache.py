"""SeaCache, as diffusers has it: the spectrally weighted change of the latents decides."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from diffusers.hooks import SeaCacheConfig, apply_sea_cache
from torch import Tensor, nn

from studio.caching.block_stack import Stack
from studio.caching.diffusers_caches.diffusers_cache import DiffusersCache
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun


class SeaCache(DiffusersCache[caches.SeaCache]):
    """All blocks are skipped while the latents, weighted by what is signal at this noise level, change little."""

    def __init__(self, settings: caches.SeaCache, run: CacheRun) -> None:
        super().__init__(settings, run)
        self.extrapolates = settings.residual_order > 0

    def put_on(self, stack: Stack) -> None:
        config = SeaCacheConfig(
            threshold=self.settings.threshold,
            residual_order=self.settings.residual_order,
            max_consecutive_cached=self.settings.max_consecutive_cached,
            raw_vision_callback=self._pictures,
        )
        apply_sea_cache(stack.transformer, config)

    def why(self) -> str:
        return "the latents changed little"

    def _pictures(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The clip's latents as (C, F, H, W); under batched guidance both halves are the same, and one is enough."""
        given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        latents = given["hidden_states"][-1]
        if latents.ndim == 2:  # LTX-Video's are tokens already
            return [latents.unflatten(0, (given["num_frames"], given["height"], given["width"])).movedim(-1, 0)]
        if self.run.family.layout == "BFCHW":
            latents = latents.movedim(1, 0)
        # HunyuanVideo 1.5 is given conditions behind the latents.
        config: Any = module.config
        return [latents[: config["out_channels"] or config["in_channels"]]]


def cache_for(settings: caches.SeaCache, run: CacheRun) -> SeaCache:
    """The cache, ready to be attached to a run."""
    return SeaCache(settings, run)
