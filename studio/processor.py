"""The processor, tried: what only a moment's work can tell about it.

Knows a few small loops of the kinds that models are made of. Refuses to know models, and what the answers decide.

- How many threads are quick here. Two on the two halves of one core are slower than one, and a container's share of a
  machine shows nowhere else. Tried once in a process, since it depends on what else is running.
- Whether bfloat16 convolutions are quicker than float32 ones in planes. What /proc/cpuinfo promises is not always what
  the library makes of it, and without hardware bfloat16 is a hundred times slower. Tried once on a machine and kept
  beside the runs, because a clip's bits depend on it.

What a clip's bits depend on, on a processor: the versions of torch and of the libraries in it, the instruction set, and
the number formats. Not on the number of threads: the pocket model's were the same with 1, 2, 3, 5, 8 and 16.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from studio.errors import StudioError
from studio.machine import threads
from studio.machine.hardware import Machine, cores
from studio.storage import write_atomically

FILE_NAME = "processor.json"
"""Beside the runs: what was found out about each processor that they were made on."""
TIMES = 4
"""How often each loop runs; the quickest counts, for what else runs can only slow one down."""
BLOCKS = 6


def settle_threads() -> int:
    """Let torch work with as many threads as are quick here; the number. One that somebody has set is left as it is."""
    if threads.number_is_set():
        return torch.get_num_threads()
    number = _quick_number()
    torch.set_num_threads(number)  # each time: torch keeps it for each thread of this process that has worked already
    return number


@functools.cache
def _quick_number() -> int:
    work = _pass_of_a_small_transformer()
    seconds = {}
    for number in threads.worth_trying(cores()):
        torch.set_num_threads(number)
        seconds[number] = _quickest(work, time.perf_counter)
    return threads.fewest(seconds)


def as_tried(machine: Machine, folder: Path) -> Machine:
    """A machine with what trying its processor tells; `folder` is the runs', where the answer is kept."""
    if machine.accelerator is not None:
        return machine
    return replace(machine, bf16=bfloat16_pays(machine, folder))


def bfloat16_pays(machine: Machine, folder: Path) -> bool:
    """Whether this processor's convolutions are quicker in bfloat16; the answer once given stays."""
    key = ", ".join((machine.cpu_name, f"torch {torch.__version__}", *_instruction_sets()))
    if key not in _answers:
        _answers[key] = _kept_or_tried(key, folder)
    return _answers[key]


_answers: dict[str, bool] = {}
"""What was answered in this process: the folder asked about first is the runs', those that follow may be scratch."""


def _kept_or_tried(key: str, folder: Path) -> bool:
    known = _kept(folder)
    if isinstance(answer := known.get(key), dict) and isinstance(answer.get("bfloat16"), bool):
        return answer["bfloat16"]
    seconds = {dtype: _quickest(_convolution(dtype), time.process_time) for dtype in (torch.float32, torch.bfloat16)}
    pays = seconds[torch.bfloat16] < seconds[torch.float32]
    milliseconds = {str(dtype).removeprefix("torch."): round(took * 1000, 2) for dtype, took in seconds.items()}
    kept = known | {key: {"bfloat16": pays, "milliseconds": milliseconds}}
    with suppress(StudioError, OSError):  # a full disk is told of where the clip is written
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE_NAME, json.dumps(kept, indent=1).encode())
    return pays


def _instruction_sets() -> tuple[str, ...]:
    """Of torch's own kernels, and what its library for convolutions is held to, if to anything."""
    held_to = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return (torch.backends.cpu.get_cpu_capability(), *([held_to] if held_to else []))


def _kept(folder: Path) -> dict[str, object]:
    try:
        kept = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


# the work that is timed ----------------------------------------------------------------------------------------------


def _quickest(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of the quickest of a few times, after one that counts for nothing."""
    took = []
    with torch.inference_mode():
        work()
        for _ in range(TIMES):
            began = clock()
            work()
            took.append(clock() - began)
    return min(took)


def _pass_of_a_small_transformer(tokens: int = 320, dim: int = 192, heads: int = 3) -> Callable[[], object]:
    """Of the pocket model's size: operations so small that waiting for each other is a good part of them."""
    x = torch.ones(1, tokens, dim)
    within, wide, narrow = torch.ones(dim, dim), torch.ones(4 * dim, dim), torch.ones(dim, 4 * dim)

    def work() -> torch.Tensor:
        y = x
        for _ in range(BLOCKS):
            q = F.linear(F.layer_norm(y, (dim,)), within).unflatten(2, (heads, -1)).transpose(1, 2)
            y = y + F.linear(F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2), within)
            y = y + F.linear(F.gelu(F.linear(F.layer_norm(y, (dim,)), wide)), narrow)
        return y

    return work


def _convolution(dtype: torch.dtype, channels: int = 64, size: int = 24, taps: int = 3) -> Callable[[], object]:
    """One of an autoencoder's: over time at once in bfloat16, plane by plane in float32 (`pipelines.planar`)."""
    frames = torch.ones(1, channels, taps, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.ones(channels, channels, taps, 3, 3, dtype=dtype)
    if dtype == torch.bfloat16:
        weight = weight.contiguous(memory_format=torch.channels_last_3d)
        return lambda: F.conv3d(frames, weight, padding=(0, 1, 1))
    planes = [frames[:, :, tap].contiguous(memory_format=torch.channels_last) for tap in range(taps)]
    kernels = [weight[:, :, tap].contiguous(memory_format=torch.channels_last) for tap in range(taps)]
    return lambda: sum(F.conv2d(plane, kernel, padding=1) for plane, kernel in zip(planes, kernels, strict=True))
