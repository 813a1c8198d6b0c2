"""cache-dit's DBCache as a rival in benchmarks/caching.py; an optional extra: `pip install -e ".[cache-dit]"`.

Set as its own example for Wan 2.2 sets it (vipshop/cache-dit, examples/pipeline/run_wan_2.2.py): the first block is
computed always, two steps to warm up, at most two steps skipped in a row, TaylorSeer of its default order 1 for what is
skipped, guidance in two calls. The threshold there was 0.12, and is 0.08 in a later version; it is what a benchmark
varies. What the example limits besides, skipped steps for each of two denoisers, has no meaning for a model of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def is_here() -> bool:
    return find_spec("cache_dit") is not None


class CacheDit:
    """Stands where the studio's own caches do; what it decides it keeps to itself."""

    decision = None
    age = 0
    kept_bytes = 0
    """Not told by cache-dit."""

    def __init__(self, run: Any, *, threshold: float = 0.12, taylorseer: bool = True) -> None:
        """Ready to be attached.

        Args:
            run: The run that it is for.
            threshold: Its residual_diff_threshold: larger skips more.
            taylorseer: Whether what is skipped is predicted, as in its example, and not repeated.
        """
        self.pipe, self.total_steps = run.pipe, run.total_steps
        self.threshold, self.taylorseer = threshold, taylorseer

    @contextmanager
    def attached(self) -> Iterator[CacheDit]:
        cache_dit: Any = import_module("cache_dit")
        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            max_warmup_steps=2,
            max_continuous_cached_steps=2,
            residual_diff_threshold=self.threshold,
            num_inference_steps=self.total_steps,
            enable_separate_cfg=True,
        )
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1) if self.taylorseer else None
        cache_dit.enable_cache(self.pipe, cache_config=config, calibrator_config=calibrator)
        try:
            yield self
        finally:
            cache_dit.disable_cache(self.pipe)

    def begin_step(self, index: int, sigma: float) -> None:
        """Told before each step's first pass."""

    def end_step(self, latents: Any) -> None:
        """Told after each step."""
