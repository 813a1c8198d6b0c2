"""MagCache, as diffusers has it: calibrated ratios of residual magnitudes say how much a skip costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffusers.hooks import MagCacheConfig, ModelHook, apply_mag_cache
from torch import Tensor

from studio.caching.block_stack import Stack
from studio.caching.diffusers_caches.diffusers_cache import DiffusersCache
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun


class MagCache(DiffusersCache[caches.MagCache]):
    """Calibrated ratios of the residual's magnitude from step to step say how much a skip costs."""

    def put_on(self, stack: Stack) -> None:
        settings, steps = self.settings, self.run.total_steps
        ratios = settings.mag_ratios or (1.0,) * steps
        config = MagCacheConfig(
            threshold=settings.threshold,
            max_skip_steps=settings.max_skip_steps,
            retention_ratio=settings.retention_ratio,
            num_inference_steps=steps,
            mag_ratios=list(ratios),
        )
        apply_mag_cache(stack.transformer, config)

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        # diffusers counts passes; a second transformer, which takes over on the way, would begin at the first ratio.
        for hook in hooks:
            hook.state_manager.get_state().step_index = self._index  # pyright: ignore[reportAttributeAccessIssue]

    def why(self) -> str:
        return "" if self.settings.mag_ratios else "no ratios measured on this model: skipped by count alone"


def cache_for(settings: caches.MagCache, run: CacheRun) -> MagCache:
    """The cache, ready to be attached to a run."""
    if not settings.mag_ratios and run.profile is not None:
        settings = settings.model_copy(update={"mag_ratios": run.profile.mag_ratios_for(run.total_steps)})
    return MagCache(settings, run)
