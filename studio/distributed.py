"""Several processes train as one: each takes its own samples, gradients are averaged, frozen weights are shared out.

Knows torch.distributed. Refuses to know what is trained. On a small machine one single-threaded process a core beats
one process with many threads, because threads wait for each other at every kernel. Without `torchrun` there is one
process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Said = TypeVar("Said")


def join() -> tuple[int, int]:
    """(rank, processes), after meeting the others that `torchrun` started; each has a GPU of its own, if any."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not dist.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            _take_one_gpu(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend)
    return int(os.environ.get("RANK", "0")), processes


def _take_one_gpu(place: int) -> None:
    """Leave only one GPU visible: which one is current is a thread's own matter, and clips are made in threads."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(each) for each in range(torch.cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]


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


def share_out(model: nn.Module, blocks: Iterable[nn.Module], *, trained: Iterable[nn.Parameter]) -> None:
    """Let each process hold its share of a model's frozen weights; a block's are gathered while the block runs (FSDP2).

    From then on every pass through the model is one that all processes make.

    Args:
        model: Wholly loaded in each process, on the device that it runs on.
        blocks: Its submodules that are gathered one at a time; the rest of it is gathered at once.
        trained: Parameters that stay whole everywhere, for `average_gradients`.
    """
    if not dist.is_initialized():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = set(trained)
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, ignored_params=whole)


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def from_the_first(said: Said) -> Said:
    """What the first process says, everywhere; others' own words are dropped."""
    if not dist.is_initialized():
        return said
    told = [said]
    dist.broadcast_object_list(told)
    return told[0]


def agreed(flag: bool) -> bool:
    """True everywhere if it is true anywhere; processes whose clocks differ must stop at the same step."""
    if not dist.is_initialized():
        return flag
    votes = torch.tensor([float(flag)])
    dist.all_reduce(votes)
    return bool(votes.item() > 0)
