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


def orthogonalised(matrices: Tensor, *, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to (n, rows, columns), roughly: singular values between 0.7 and 1.2."""
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


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
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if learning:
                self._muon(learning, group) if group["muon"] else self._adamw(learning, group)

    def _muon(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [_gradient(matrix) for matrix in matrices]
        momenta = self._kept(matrices, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        # Matrices of one shape are taken together: a card is launch-bound otherwise.
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, matrix in enumerate(matrices):
            alike.setdefault(tuple(matrix.flatten(1).shape), []).append(place)
        for (rows, columns), places in alike.items():
            updates = orthogonalised(torch.stack([nesterov[place].flatten(1) for place in places]))
            scale = max(1.0, rows / columns) ** 0.5
            for place, update in zip(places, updates, strict=True):
                matrix = matrices[place]
                matrix.add_(update.view(matrix.shape).to(matrix.dtype), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [_gradient(parameter) for parameter in parameters]
        means, squares = self._kept(parameters, "mean"), self._kept(parameters, "square")
        first, second = group["betas"]
        for parameter in parameters:
            self.state[parameter]["step"] = self.state[parameter].get("step", 0) + 1
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - second)
        steps = [self.state[parameter]["step"] for parameter in parameters]
        roots = torch._foreach_div(squares, [1 - second**step for step in steps])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, 1e-8)
        updates = torch._foreach_div(means, [1 - first**step for step in steps])
        torch._foreach_div_(updates, roots)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _kept(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        """What is remembered of each parameter under that name, zeros at first."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
