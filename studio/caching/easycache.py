"""EasyCache: the change of the output, predicted from the change of the input (Zhou et al., arXiv 2507.02860).

    k = ||v_i - v_h|| / ||x_i - x_h||                    h < i the last two computed steps
    predicted change into step s = k ||x_s - x_s-1|| / ||v_i||
    skip while the predicted changes since the last computed step add up to less than the threshold

By the rule of the authors' code: k tells how strongly the output follows the input from one computed step to the next,
and never looks at a skipped step's output, which is a guess; the input is followed from every step to the next. Norms
are mean absolute values. The first steps and the last are computed.

Knows inputs and outputs of the transformer. Refuses to know its blocks: here the residual of the block stack is
reused, which differs from the authors' reuse of the transformer's own, v - x, only by a fresh time embedding at its
end.

Shapes: latents and outputs as the pipeline hands them over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from studio.caching.block_stack import Action, Decision, Policy, Step
from studio.requests.caches import EasyCache

if TYPE_CHECKING:
    from studio.caching import CacheRun


def policy_for(settings: EasyCache, run: CacheRun) -> EasyCachePolicy:
    """The policy for a run."""
    return EasyCachePolicy(settings, total_steps=run.total_steps)


class EasyCachePolicy(Policy):
    """One run's decisions; the first pass of a step, the guided one, is what is watched."""

    def __init__(self, settings: EasyCache, *, total_steps: int) -> None:
        self.settings = settings
        self._protected = max(2, round(settings.protect_first * total_steps))
        self._input: Tensor | None = None
        """Of the present step."""
        self._computed: tuple[Tensor, Tensor] | None = None
        """Input and output of the last computed step."""
        self._k: float | None = None
        self._sum = 0.0
        self._computes = True

    def decide(self, step: Step) -> Decision:
        if not step.kept:  # another denoiser has taken over: what the one before it did says nothing about it
            self._input = self._computed = self._k = None
        change = self._predicted_change(step.latents)
        self._input = step.latents
        self._sum += change or 0.0
        self._computes = (
            not step.kept
            or step.index < self._protected
            or step.index == step.total - 1
            or change is None
            or not self._sum < self.settings.threshold
        )
        added_up = self._sum
        if self._computes:
            self._sum = 0.0
        return Decision(
            action=Action.COMPUTE if self._computes else Action.REUSE,
            distance=added_up,
            threshold=self.settings.threshold,
            why="the predicted change has added up" if self._computes else "little change is predicted",
        )

    def _predicted_change(self, latents: Tensor) -> float | None:
        if self._k is None or self._input is None or self._computed is None:
            return None
        return self._k * _size(latents - self._input) / max(_size(self._computed[1]), 1e-12)

    def output(self, step: int, branch: int, output: Tensor) -> None:
        if branch != 0 or not self._computes:
            return
        assert self._input is not None
        if self._computed is not None:
            moved = _size(self._input - self._computed[0])
            if moved > 0:
                self._k = _size(output - self._computed[1]) / moved
        self._computed = self._input, output


def _size(tensor: Tensor) -> float:
    return float(tensor.float().abs().mean())
