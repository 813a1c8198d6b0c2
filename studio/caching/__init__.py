"""Caching: skip what need not be computed, one method a file.

    cache = cache_for(request.cache, occasion)
    with cache.attached():
        ...                       # run the pipeline; `cache.begin_step` before each step

    stack.py                  a transformer's blocks skipped as a whole; hooks, residuals, a policy's interface
    adacache.py               the change of one residual says how many steps to skip
    motion_regularization.py  a clip that moves more is computed more often
    budget.py                 the studio's own: an exact number of computed steps, placed where they matter most
    profile.py, recording.py  what calibration measured on a model, and measuring it
    teacache.py, easycache.py rivals in our own lines
    peers.py                  rivals as diffusers has them

Knows torch and diffusers' transformers. Refuses to know pipelines, requests and events.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from studio.caching.block_stack import Action, Decision, Policy, Stack, StackCache
from studio.errors import RequestError
from studio.records.profiles import PRIOR, Profile, find_profile
from studio.requests import caches

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS", "Action", "Cache", "Decision", "Occasion", "Stack", "cache_for", "find_profile"]


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """The run that a cache is for."""

    pipe: Any
    """diffusers' pipeline, on whose transformers it is put."""
    stacks: tuple[Stack, ...]
    """The transformers: one, or two where high and low noise have their own."""
    total_steps: int
    passes: int
    """Passes of a step: 2 where guidance runs in two calls, otherwise 1."""
    sigmas: Callable[[], tuple[float, ...]] = tuple
    """Noise level of each step; known once the first begins."""
    profile: Profile | None = None
    """What calibration measured on this model."""


class Cache(Protocol):
    """A cache at work on one run."""

    @property
    def decision(self) -> Decision | None:
        """What was decided for the present step and why, once its first pass has begun; None where it is not told."""
        ...

    @property
    def age(self) -> int:
        """Steps since what is reused was computed."""
        ...

    @property
    def kept_bytes(self) -> int:
        """What is remembered from step to step."""
        ...

    def begin_step(self, index: int, sigma: float) -> None:
        """Told before each step's first pass."""

    def end_step(self, latents: Tensor) -> None:
        """Told after each step, with its latents."""

    def attached(self) -> AbstractContextManager[Any]:
        """On, and off again whatever happens; afterwards the model is as it was."""
        ...


def _adacache(settings: caches.AdaCache, occasion: Occasion) -> Policy:
    from studio.caching.adacache import AdaCachePolicy, calibrated, codebook_of

    measured = None if occasion.profile is None else calibrated(occasion.profile, occasion.total_steps)
    codebook = codebook_of(settings, measured)
    blocks = len(occasion.stacks[0].blocks)
    return AdaCachePolicy(settings, codebook, total_steps=occasion.total_steps, blocks=blocks)


def _teacache(settings: caches.TeaCache, occasion: Occasion) -> Policy:
    from studio.caching.teacache import TeaCachePolicy, coefficients_of

    coefficients = coefficients_of(occasion.profile)
    return TeaCachePolicy(settings, total_steps=occasion.total_steps, coefficients=coefficients)


def _easycache(settings: caches.EasyCache, occasion: Occasion) -> Policy:
    from studio.caching.easycache import EasyCachePolicy

    return EasyCachePolicy(settings, total_steps=occasion.total_steps)


def _budget(settings: caches.Budget, occasion: Occasion) -> Policy:
    from studio.caching.budget import BudgetPolicy, plan_for

    # Nobody measured this model: the schedule of one that was measured is far better than an even one.
    profile = occasion.profile or find_profile(PRIOR, None, total_steps=occasion.total_steps)
    if profile is None:
        raise RequestError(
            "There is no profile to plan a budget with.",
            field="cache",
            value="budget",
            way_out="Measure this model first: python -m studio calibrate PRESET.",
        )
    return BudgetPolicy(lambda: plan_for(profile.at(occasion.sigmas()), settings))


def _on_the_stack(policy: Callable[[Any, Occasion], Policy]) -> Callable[[Any, Occasion], Cache]:
    def cache(settings: Any, occasion: Occasion) -> Cache:
        return StackCache(
            occasion.stacks,
            policy(settings, occasion),
            total_steps=occasion.total_steps,
            passes=occasion.passes,
        )

    return cache


def _peer(settings: Any, occasion: Occasion) -> Cache:
    from studio.caching.peers import peer_for

    if settings.method == "magcache" and not settings.mag_ratios and occasion.profile is not None:
        ratios = occasion.profile.mag_ratios_for(occasion.total_steps)
        settings = settings.model_copy(update={"mag_ratios": ratios})
    return peer_for(settings, occasion)


METHODS: dict[str, Callable[[Any, Occasion], Cache]] = {
    "adacache": _on_the_stack(_adacache),
    "budget": _on_the_stack(_budget),
    "teacache": _on_the_stack(_teacache),
    "easycache": _on_the_stack(_easycache),
    "first_block": _peer,
    "magcache": _peer,
    "seacache": _peer,
    "taylorseer": _peer,
    "pab": _peer,
    "fastercache": _peer,
}
"""By the settings' `method`."""


def cache_for(settings: caches.CacheConfig, occasion: Occasion) -> Cache:
    """The cache that these settings describe, ready to be attached to this run."""
    return METHODS[settings.method](settings, occasion)
