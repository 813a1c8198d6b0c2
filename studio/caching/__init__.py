"""Caching: skip what need not be computed, one method a file.

    cache = cache_for(request.cache, run)
    with cache.attached():
        ...                       # run the pipeline; `cache.begin_step` before each step

    block_stack.py            a transformer's blocks skipped as a whole; hooks, residuals, a policy's interface
    adacache.py               the change of one residual says how many steps to skip
    motion_regularization.py  a clip that moves more is computed more often
    budget.py                 the studio's own: an exact number of computed steps, placed where they matter most
    recording.py              what a profile is made of
    teacache.py, easycache.py, sencache.py  rivals in our own lines
    diffusers_caches/         rivals as diffusers has them, one method a file

Knows torch and diffusers' transformers. Refuses to know pipelines, requests and events.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from studio.caching.block_stack import Action, Decision, Stack, StackCache
from studio.family import Family, family_of
from studio.records.profiles import Profile
from studio.requests.caches import CacheConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Action", "Cache", "CacheRun", "Decision", "Stack", "cache_for"]


@dataclass(frozen=True, kw_only=True)
class CacheRun:
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
    handover: Callable[[], int | None] = lambda: None
    """The first step of the second transformer, where one takes over; known as `sigmas` is."""
    profile: Profile | None = None
    """What was measured on this model."""

    @property
    def family(self) -> Family:
        return family_of(type(self.pipe).__name__)

    def why_not(self, method: str) -> str | None:
        """Why a method does not work on this model, as a clause; None where it does."""
        return self.family.why_not_cached(method)


class Cache(Protocol):
    """A cache at work on one run."""

    @property
    def decision(self) -> Decision | None:
        """What was decided for the present step and why, once its first pass has begun; None where it is not told."""
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


def cache_for(settings: CacheConfig, run: CacheRun) -> Cache:
    """The cache that these settings describe, ready to be attached to this run.

    A method's file exports `policy_for(settings, run)`, which decides about whole blocks step by step, or
    `cache_for(settings, run)`.

    Raises:
        RequestError: it does not work on this model, or wants something that this model does not have.
    """
    method = _method(settings.method)
    if not hasattr(method, "policy_for"):
        return method.cache_for(settings, run)
    policy = method.policy_for(settings, run)
    return StackCache(run.stacks, policy, total_steps=run.total_steps, passes=run.passes)


def _method(name: str) -> ModuleType:
    """A method's file: our own, or diffusers'."""
    own = f"studio.caching.{name}"
    return import_module(own if find_spec(own) else f"studio.caching.diffusers_caches.{name}")
