"""Several processes train as one: each takes its own samples, and gradients are averaged.

Knows torch.distributed. Refuses to know models. On a small machine one single-threaded process a core beats one
process with many threads, because threads wait for each other at every kernel. Without `torchrun` there is one
process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def join() -> tuple[int, int]:
    """(rank, processes), after meeting the others that `torchrun` started."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return int(os.environ.get("RANK", "0")), processes


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def from_the_first(word: str) -> str:
    """What the first process says, everywhere."""
    if not dist.is_initialized():
        return word
    words = [word]
    dist.broadcast_object_list(words)
    return words[0]


def agreed(flag: bool) -> bool:
    """True everywhere if it is true anywhere; processes whose clocks differ must stop at the same step."""
    if not dist.is_initialized():
        return flag
    votes = torch.tensor([float(flag)])
    dist.all_reduce(votes)
    return bool(votes.item() > 0)
