"""EasyCache: the change of the output, predicted from the change of the input (Zhou et al., arXiv 2507.02860).

    k = ||v_t - v_before|| / ||x_t - x_before||          how strongly the output follows the input, at computed steps
    predicted change at a step = k ||x - x_last|| / ||v_last||
    skip while the predicted changes since the last computed step add up to less than the threshold

Norms are mean absolute values. Knows inputs and outputs of the transformer. Refuses to know its blocks: here the
residual of the block stack is reused, which differs from the authors' reuse of the transformer's own residual only by
a fresh time embedding at its end.

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
        self._previous_input: Tensor | None = None
        self._previous_output: Tensor | None = None
        self._k: float | None = None
        self._sum = 0.0
        self._computes = True

    def decide(self, step: Step) -> Decision:
        self._input = step.latents
        change = self._predicted_change()
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

    def _predicted_change(self) -> float | None:
        if self._k is None or self._input is None or self._previous_input is None or self._previous_output is None:
            return None
        moved = _size(self._input - self._previous_input)
        return self._k * moved / max(_size(self._previous_output), 1e-12)

    def output(self, step: int, branch: int, output: Tensor) -> None:
        if branch != 0:
            return
        if self._computes and self._previous_output is not None and self._previous_input is not None:
            assert self._input is not None
            moved = _size(self._input - self._previous_input)
            if moved > 0:
                self._k = _size(output - self._previous_output) / moved
        self._previous_input, self._previous_output = self._input, output


def _size(tensor: Tensor) -> float:
    return float(tensor.float().abs().mean())
