"""Muon for the matrices, AdamW for everything else: the optimizer of every pocket recipe.

Knows gradients and shapes. Refuses to know losses, data and schedules. Muon (Jordan et al., 2024) takes the momentum of
a weight matrix to its nearest orthogonal matrix before stepping; on these short budgets it needs about half of
AdamW's steps. Convolutions count as matrices (out, in * taps). Vectors, tables and embeddings go to AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz coefficients of the Muon reference: fast growth of small singular values, not exact convergence."""


def orthogonalised(matrix: Tensor, *, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to (rows, columns), roughly: singular values between 0.7 and 1.2."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer with two kinds of group, so that its state is saved and restored in one piece.

    Group keys: `muon` (bool), `lr` (Muon: share of a matrix's scale moved in one step; AdamW: the usual), `momentum`,
    `betas`, `weight_decay`. `base_lr` remembers the rate that a schedule multiplies.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        muon_lr: float = 0.02,
        adam_lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.01,
    ) -> None:
        both = {"momentum": momentum, "betas": betas}
        groups = [
            {"params": list(matrices), "muon": True, "lr": muon_lr, "base_lr": muon_lr, "weight_decay": weight_decay},
            {"params": list(others), "muon": False, "lr": adam_lr, "base_lr": adam_lr, "weight_decay": 0.0},
        ]
        super().__init__([group | both for group in groups if group["params"]], {})

    def scale_lr(self, factor: float) -> None:
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * factor

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                self._muon(parameter, group) if group["muon"] else self._adamw(parameter, group)

    def _muon(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        nesterov = gradient.lerp(state["momentum"], group["momentum"])
        update = orthogonalised(nesterov.flatten(1))
        rows, columns = update.shape
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = max(1.0, rows / columns) ** 0.5
        parameter.add_(update.view(parameter.shape).to(parameter.dtype), alpha=-group["lr"] * scale)

    def _adamw(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "step" not in state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(1e-8)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, root, value=-group["lr"])
