"""One training loop for every pocket recipe: rate, step, average of weights, checkpoint, and going on after a stop.

Knows optimizers, files and clocks. Refuses to know what is trained and on what: a recipe hands over parameters and a
function from a step to a loss. Whatever is random in a step is drawn from a generator seeded by (seed, step, process),
so that a run that stopped and went on is bit for bit the run that never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from studio import distributed
from studio.pocket.optimizer import MuonWithAdamW
from studio.storage import whole


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast."""

    steps: int
    """Length of the whole run; the rate is flat and then falls to nothing at the end of it."""
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 30
    falling_share: float = 0.5
    """Share of the steps, at the end, over which the rate falls in a straight line."""
    average_decay: float = 0.999
    """Of the exponential moving average of the weights, which is what gets exported."""
    gradient_clip: float = 1.0
    seed: int = 0
    save_every_seconds: float = 120.0

    def rate(self, step: int) -> float:
        """Factor on both learning rates."""
        rising = min(1.0, (step + 1) / self.warmup_steps)
        falling = min(1.0, (self.steps - step) / max(1.0, self.falling_share * self.steps))
        return max(0.0, min(rising, falling))


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step came to, for whoever watches."""

    stage: str
    step: int
    steps: int
    loss: float
    """Mean since the last report."""
    seconds_per_step: float
    note: str = ""

    def __str__(self) -> str:
        return (
            f"{time.strftime('%H:%M:%S')} {self.stage} {self.step}/{self.steps} loss {self.loss:.4f} "
            f"{self.seconds_per_step:.2f} s/step {self.note}".rstrip()
        )


@dataclass(kw_only=True)
class Trainee:
    """A module in training, with everything that a later process needs to go on as if nothing had happened."""

    module: nn.Module
    optimizer: MuonWithAdamW
    average: dict[str, Tensor]
    step: int = 0

    @classmethod
    def of(cls, module: nn.Module, plan: Plan, is_matrix: Callable[[str, Tensor], bool]) -> Trainee:
        """`is_matrix` says of a named parameter whether Muon takes it; AdamW takes the rest."""
        matrices, others = [], []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (matrices if is_matrix(name, parameter) else others).append(parameter)
        optimizer = MuonWithAdamW(
            matrices, others, muon_lr=plan.muon_lr, adam_lr=plan.adam_lr, weight_decay=plan.weight_decay
        )
        average = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
        return cls(module=module, optimizer=optimizer, average=average)

    def save(self, path: Path) -> None:
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "rng": torch.get_rng_state(),
        }
        write_whole(path, state)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=next(self.module.parameters()).device, weights_only=True)
        self.module.load_state_dict(state["module"])
        rates = [(group["base_lr"], group["lr"]) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, (base_lr, lr) in zip(self.optimizer.param_groups, rates, strict=True):
            group["base_lr"], group["lr"] = base_lr, lr
        self.average, self.step = state["average"], state["step"]
        torch.set_rng_state(state["rng"].cpu())

    def load_average(self) -> None:
        """Put the averaged weights into the module; for evaluation and export, at the end."""
        self.module.load_state_dict(self.average, strict=False)


def train_steps(
    trainee: Trainee,
    plan: Plan,
    loss_of: Callable[[int, torch.Generator], Tensor],
    *,
    stage: str,
    state_path: Path,
    stop_after_seconds: float | None = None,
    report_every_seconds: float = 20.0,
    watch: Callable[[Trainee], str] | None = None,
    watch_every_seconds: float = 240.0,
) -> Iterator[StepReport]:
    """Train to the plan's end or the clock's; go on from `state_path` if it is there.

    `watch` looks at the trainee now and then, and its words go into the report.
    """
    rank, _ = distributed.join()
    if state_path.is_file():
        trainee.load(state_path)
    parameters = [p for p in trainee.module.parameters() if p.requires_grad]
    started = reported = saved = watched = time.monotonic()
    losses: list[float] = []
    out_of_time = False
    while trainee.step < plan.steps and not out_of_time:
        trainee.optimizer.scale_lr(plan.rate(trainee.step))
        generator = torch.Generator().manual_seed((plan.seed * 1_000_003 + trainee.step) * 64 + rank)
        loss = loss_of(trainee.step, generator)
        loss.backward()
        distributed.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, plan.gradient_clip)
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()
        trainee.step += 1
        _follow(trainee, plan.average_decay)
        losses.append(loss.item())
        now = time.monotonic()
        if trainee.step % 8 == 0 and stop_after_seconds is not None:
            out_of_time = distributed.agreed(now - started > stop_after_seconds)
        finished = trainee.step >= plan.steps or out_of_time
        if rank == 0 and (now - saved > plan.save_every_seconds or finished):
            trainee.save(state_path)
            saved = time.monotonic()
        if rank == 0 and (now - reported > report_every_seconds or finished):
            looked = watch is not None and (now - watched > watch_every_seconds or finished)
            note = watch(trainee) if looked and watch is not None else ""
            yield StepReport(
                stage=stage,
                step=trainee.step,
                steps=plan.steps,
                loss=sum(losses) / len(losses),
                seconds_per_step=(now - reported) / len(losses),
                note=note,
            )
            watched = time.monotonic() if looked else watched
            reported, losses = time.monotonic(), []
    distributed.wait_for_all()


def write_whole(path: Path, state: Any) -> None:
    """`torch.save` that leaves either the old file or the new one, never a part of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        torch.save(state, part)


@torch.no_grad()
def _follow(trainee: Trainee, decay: float) -> None:
    # A young average follows quickly, so that it is not half made of the initial weights.
    decay = min(decay, (1 + trainee.step) / (10 + trainee.step))
    named = dict(trainee.module.named_parameters())
    names = list(trainee.average)
    torch._foreach_lerp_([trainee.average[name] for name in names], [named[name] for name in names], 1 - decay)
