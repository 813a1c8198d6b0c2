"""SenCache: how sensitive the output is to its inputs, and how far these have moved (Haghighi and Alahi, CVPR 2026,
arXiv 2602.24208).

    S = J_x ||x - x_i|| + J_t |t - t_i|          i the last computed step, J_x and J_t measured at its noise level
    reuse while S is below the threshold and fewer than K steps were skipped in a row

    J_x = ||f(x', t) - f(x, t)|| / ||x' - x||    x' where the sampler goes from x
    J_t = ||f(x, t') - f(x, t)|| / |t' - t|      t' the next step's t

By the rule of the authors' code: the guided pass decides for both, the first fifth of the steps has a threshold of its
own, and the first step and the last are computed. Norms here are root mean squares, so that a threshold means the same
for clips of any size, and t is the noise level. The authors scale theirs by the root of the block stack's size, so that
their 0.005 and 0.07 for Wan 2.1 1.3B, whose tokens hold 24 times as many numbers as its latents, are 0.024 and 0.34
here. Their J's come from noised videos, the studio's from the steps of clips that the model made when it was profiled.

Knows inputs, outputs and noise levels. Refuses to know blocks.

Shapes: latents and outputs as the pipeline hands them over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from studio.caching.block_stack import Action, Decision, Policy, Stack, Step, by_name
from studio.errors import RequestError
from studio.records.profiles import Profile
from studio.requests.caches import SenCache

if TYPE_CHECKING:
    from studio.caching import CacheRun

FIRST_SHARE = 0.2
"""Of the steps, at the beginning, that have a threshold of their own."""


def policy_for(settings: SenCache, run: CacheRun) -> SenCachePolicy:
    """The policy for a run.

    Raises:
        RequestError: nobody measured how sensitive this model is.
    """
    settings.check_model(measured=run.profile is not None, blocks=None)
    assert run.profile is not None
    if not run.profile.sensitivities:
        raise RequestError(
            "This model's profile was made before sensitivities were measured.",
            field="cache",
            value=settings.method,
            way_out="Measure this model anew: python -m studio calibrate PRESET.",
        )
    return SenCachePolicy(settings, run.profile, total_steps=run.total_steps)


class SenCachePolicy(Policy):
    """One run's decisions."""

    def __init__(self, settings: SenCache, profile: Profile, *, total_steps: int) -> None:
        self.settings = settings
        self._sigmas = np.asarray(profile.sigmas)
        self._sensitivities = profile.sensitivities
        self._first = round(FIRST_SHARE * total_steps)
        self._computed: tuple[Tensor, float] | None = None
        """Input and noise level of the last computed step."""
        self._skipped = 0
        """In a row."""

    def decide(self, step: Step) -> Decision:
        threshold = self.settings.threshold_first if step.index < self._first else self.settings.threshold
        change = self._predicted_change(step) if step.kept else None
        last = step.index == step.total - 1
        computes = change is None or last or change >= threshold or self._skipped >= self.settings.max_skip_steps
        if computes:
            self._computed, self._skipped = (step.latents, step.sigma), 0
        else:
            self._skipped += 1
        return Decision(
            action=Action.COMPUTE if computes else Action.REUSE,
            distance=change,
            threshold=threshold,
            why="the output is expected to have changed" if computes else "the output is expected to be much the same",
        )

    def _predicted_change(self, step: Step) -> float | None:
        if self._computed is None:
            return None
        latents, sigma = self._computed
        by_latents, by_noise = self._sensitivities[int(np.abs(self._sigmas - sigma).argmin())]
        return by_latents * _size(step.latents - latents) + by_noise * abs(step.sigma - sigma)


class Sensing:
    """Stands where a cache does, skips nothing, and measures J_x and J_t by two more passes at each step."""

    decision = None
    kept_bytes = 0

    def __init__(self, stacks: tuple[Stack, ...]) -> None:
        self.sensitivities: list[tuple[float, float]] = []
        """(N - 1): J_x and J_t of each step towards the next."""
        self._stacks = stacks
        self._sigma = 0.0
        self._due = False
        """Whether the guided pass of the present step is still to come."""
        self._before: tuple[nn.Module, dict[str, Any], Tensor, float] | None = None
        """The step before: by which transformer, its call, its output and its noise level."""

    def begin_step(self, index: int, sigma: float) -> None:
        """Told before each step's first pass."""
        self._sigma, self._due = sigma, True

    def end_step(self, latents: Tensor) -> None:
        """Told after each step."""

    @contextmanager
    def attached(self) -> Iterator[Sensing]:
        """On, and off again whatever happens."""
        with ExitStack() as hooks:
            for stack in self._stacks:
                handle = stack.transformer.register_forward_hook(self._passed, with_kwargs=True)
                hooks.callback(handle.remove)
            yield self

    def _passed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._due:  # a further pass of this step, or one of ours
            return
        self._due = False
        call, now = by_name(module, args, kwargs), _tensor(output)
        if self._before is not None:
            transformer, before, then, sigma = self._before
            if transformer is module:
                moved = module(**(before | {"hidden_states": call["hidden_states"]}))
                later = module(**(before | {"timestep": call["timestep"]}))
                strides = _size(call["hidden_states"] - before["hidden_states"]), abs(self._sigma - sigma)
                changes = _size(_tensor(moved) - then), _size(_tensor(later) - then)
                by_latents, by_noise = (c / s if s else 0.0 for c, s in zip(changes, strides, strict=True))
                self.sensitivities.append((by_latents, by_noise))
            else:  # between two networks there is none; the one before stands in
                self.sensitivities.append(self.sensitivities[-1] if self.sensitivities else (0.0, 0.0))
        self._before = module, call, now, self._sigma


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else getattr(output, "sample", output)


def _size(tensor: Tensor) -> float:
    return float(torch.sqrt(tensor.float().square().mean()))
