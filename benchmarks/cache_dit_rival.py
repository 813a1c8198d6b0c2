"""cache-dit's DBCache as a rival in benchmarks/caching.py; an optional extra: `pip install -e ".[cache-dit]"`."""

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

    def __init__(self, run: Any, *, threshold: float, taylorseer: bool = False) -> None:
        """The settings that its documentation gives for Wan; `threshold` is its residual_diff_threshold."""
        self.pipe, self.total_steps = run.pipe, run.total_steps
        self.threshold, self.taylorseer = threshold, taylorseer

    @contextmanager
    def attached(self) -> Iterator[CacheDit]:
        cache_dit: Any = import_module("cache_dit")
        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            max_warmup_steps=4,
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
