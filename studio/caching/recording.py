"""Recording: a policy that skips nothing, or one step at most, and writes down what a profile needs; and one that
follows a plan and keeps where it led.

Knows residuals and what a profile is made of. Refuses to know when to run and how often (`studio/profiling.py`).

Shapes: residuals are (B, N, D), as the stack hands them over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from studio.caching.adacache import AdaCachePolicy, Codebook
from studio.caching.block_stack import Action, Decision, Policy, Step
from studio.caching.budget import BudgetPolicy, Plan
from studio.requests.caches import AdaCache

SKETCH_TOKENS = 2048
"""Tokens of a residual that are kept, evenly spread: enough for inner products, and 50 steps of them fit anywhere."""

NO_FACTOR = AdaCache(moreg=True, moreg_window=(0.0, 0.0))
"""Motion is told, and outside its window it changes no distance."""


@dataclass(kw_only=True)
class Recording:
    """One clip."""

    sigmas: list[float] = field(default_factory=list)
    residuals: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By step and pass: a sketch (B, tokens, D), float32 on the CPU."""
    distances: list[float] = field(default_factory=list)
    motions: list[float] = field(default_factory=list)
    """Motion scores, of those residuals whose distances are told; 0 where frames cannot be told apart."""
    embedding_changes: list[float] = field(default_factory=list)
    ratios: dict[tuple[int, int], float] = field(default_factory=dict)
    """By step and pass: mean ratio of the tokens' residual norms to those of the step before."""
    latents: Tensor | None = None
    """After the last step."""

    def guided(self, step: int, guidance_scale: float, passes: int, *, uncond_first: bool) -> Tensor:
        """The residual that guidance makes of a step's branches, flat."""
        if passes == 2:
            cond, uncond = self.residuals[step, 0], self.residuals[step, 1]
        else:
            residual = self.residuals[step, 0]
            if guidance_scale <= 1 or residual.shape[0] % 2:
                return residual.flatten()
            first, second = residual.chunk(2)
            cond, uncond = (second, first) if uncond_first else (first, second)
        return (uncond + guidance_scale * (cond - uncond)).flatten()

    def gram(self, guidance_scale: float, passes: int, *, uncond_first: bool = True) -> np.ndarray:
        """(N, N) inner products of the steps' guided residuals."""
        rows = [
            self.guided(step, guidance_scale, passes, uncond_first=uncond_first) for step in range(len(self.sigmas))
        ]
        flat = torch.stack(rows).double()
        return (flat @ flat.T).numpy()


class RecordingPolicy(Policy):
    """Computes every step, but for `skip`, which is extrapolated from the two before with `gain`."""

    def __init__(
        self,
        *,
        total_steps: int,
        blocks: int,
        control_blocks: int = 0,
        skip: int | None = None,
        gain: float = 0.0,
    ) -> None:
        self.recording = Recording()
        self.skip, self.gain = skip, gain
        self.keeps_two = skip is not None
        self._adacache = AdaCachePolicy(
            NO_FACTOR,
            Codebook(thresholds=(), rates=(1,)),
            total_steps=total_steps,
            blocks=blocks,
            control_blocks=control_blocks,
        )
        self.captures = self._adacache.captures
        self._embedding: Tensor | None = None
        self._norms: dict[int, Tensor] = {}

    def decide(self, step: Step) -> Decision:
        decision = self._adacache.decide(step)
        self.recording.distances.append(decision.distance or 0.0)
        self.recording.motions.append(decision.motion or 0.0)
        self.recording.sigmas.append(step.sigma)
        self.recording.embedding_changes.append(self._embedding_change(step.embedding))
        if step.index == self.skip and step.extrapolable:
            return Decision(action=Action.EXTRAPOLATE, gain=self.gain, why="measured")
        return Decision(action=Action.COMPUTE, why="measured")

    def stepped(self, step: int, latents: Tensor) -> None:
        self.recording.latents = latents.detach()

    def _embedding_change(self, embedding: Tensor | None) -> float:
        older, self._embedding = self._embedding, embedding
        if older is None or embedding is None or older.shape != embedding.shape:
            return 0.0
        return float((embedding.float() - older.float()).abs().mean() / older.float().abs().mean())

    def measured(self, layer: int, branch: int, residual: Tensor, frames: int | None) -> None:
        self._adacache.measured(layer, branch, residual, frames)

    def computed(self, step: int, branch: int, residual: Tensor, before: Tensor | None) -> None:
        if self.skip is not None:
            return
        stride = max(1, residual.shape[1] // SKETCH_TOKENS)
        self.recording.residuals[step, branch] = residual[:, ::stride].detach().float().cpu()
        norms = residual.detach().float().norm(dim=-1)
        older = self._norms.get(branch)
        self.recording.ratios[step, branch] = (
            float((norms / (older + 1e-8)).mean()) if older is not None and older.shape == norms.shape else 1.0
        )
        self._norms[branch] = norms


class RehearsalPolicy(BudgetPolicy):
    """Follows a plan, and keeps where that led."""

    plan: Plan | None = None
    latents: Tensor | None = None
    """After the last step."""

    def decide(self, step: Step) -> Decision:
        decision = super().decide(step)
        self.plan = self._plan
        return decision

    def stepped(self, step: int, latents: Tensor) -> None:
        self.latents = latents.detach()
