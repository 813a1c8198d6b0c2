"""One training loop for every pocket recipe: rate, step, average of weights, checkpoint, and going on after a stop.

Knows optimizers, files and clocks. Refuses to know what is trained and on what: a recipe hands over parameters and a
function from a step to a loss. Whatever is random in a step is drawn from a generator seeded by (seed, step, process),
so that a run that stopped and went on is bit for bit the run that never stopped. A plan with seconds follows the clock
instead, and what it comes to depends on the machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
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
    seconds: float | None = None
    """Length by the clock, where that ends first."""
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

    def done(self, step: int, seconds: float) -> float:
        """How much of the run is over, 0 to 1, after so many steps that took so long."""
        by_clock = 0.0 if self.seconds is None else seconds / self.seconds
        return min(1.0, max(step / self.steps, by_clock))

    def rate(self, step: int, seconds: float = 0.0) -> float:
        """Factor on both learning rates."""
        rising = min(1.0, (step + 1) / self.warmup_steps)
        falling = min(1.0, (1.0 - self.done(step, seconds)) / max(1 / self.steps, self.falling_share))
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
    seconds: float = 0.0
    """Spent on its steps so far."""

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
            "seconds": self.seconds,
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
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
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
) -> Generator[StepReport]:
    """Train to the plan's end or the clock's; go on from `state_path` if it is there.

    `watch` looks at the trainee now and then, and its words go into the report.
    """
    rank, _ = distributed.join()
    if state_path.is_file():
        trainee.load(state_path)
    parameters = [p for p in trainee.module.parameters() if p.requires_grad]
    if plan.seconds is not None:
        _run_ahead(trainee.module, loss_of)
    started = reported = saved = watched = before = time.monotonic()
    total, count = torch.zeros((), device=parameters[0].device), 0
    out_of_time = False
    while trainee.step < plan.steps and not out_of_time:
        trainee.optimizer.scale_lr(plan.rate(trainee.step, trainee.seconds))
        loss = loss_of(trainee.step, _generator(plan, trainee.step, rank))
        loss.backward()
        distributed.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, plan.gradient_clip)
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()
        trainee.step += 1
        _follow(trainee, plan.average_decay)
        total, count = total + loss.detach(), count + 1
        if trainee.step % 8 and trainee.step < plan.steps:
            continue  # a card works through what it was told while the next is being told; now and then, wait for it
        loss_so_far = total.item() / count
        if not math.isfinite(loss_so_far):
            raise ArithmeticError(f"the loss of {stage} is {loss_so_far} at step {trainee.step}; lower its rates")
        now = time.monotonic()
        trainee.seconds, before = trainee.seconds + now - before, now
        over = stop_after_seconds is not None and now - started > stop_after_seconds
        out_of_time = distributed.agreed(over or plan.done(0, trainee.seconds) >= 1)
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
                loss=loss_so_far,
                seconds_per_step=(now - reported) / count,
                note=note,
            )
            watched = time.monotonic() if looked else watched
            reported, total, count = time.monotonic(), torch.zeros_like(total), 0
        before = time.monotonic()
    distributed.wait_for_all()


def train_to_average(
    trainee: Trainee,
    plan: Plan,
    loss_of: Callable[[int, torch.Generator], Tensor],
    *,
    stage: str,
    state_path: Path,
    stop_after_seconds: float | None,
    watch: Callable[[], str],
    report: Callable[[StepReport], None],
) -> None:
    """To the plan's end or the clock's; afterwards the module holds the averaged weights, as it does while `watch`
    looks at it."""

    def look(trainee: Trainee) -> str:
        kept = {name: p.detach().clone() for name, p in trainee.module.named_parameters()}
        trainee.load_average()
        words = watch()
        trainee.module.load_state_dict(kept, strict=False)
        return words

    for event in train_steps(
        trainee, plan, loss_of, stage=stage, state_path=state_path, stop_after_seconds=stop_after_seconds, watch=look
    ):
        report(event)
    trainee.load_average()


def _generator(plan: Plan, step: int, rank: int) -> torch.Generator:
    return torch.Generator().manual_seed((plan.seed * 1_000_003 + step) * 64 + rank)


def _run_ahead(module: nn.Module, loss_of: Callable[[int, torch.Generator], Tensor]) -> None:
    """Each of the first steps once and for nothing, so that compiling and choosing kernels is not on the clock."""
    for step in range(_KINDS_OF_STEP):
        loss_of(step, torch.Generator().manual_seed(step)).backward()
    module.zero_grad()


_KINDS_OF_STEP = 8
"""Steps after which a recipe's batches come round again."""


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
