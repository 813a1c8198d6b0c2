"""Threads: what a processor's threads do while they wait for each other, and how many are worth having.

Knows OpenMP's variables and a rule. Refuses to know torch and how anything is measured.

OpenMP's threads meet after every operation, and those that come first spin until the last is there. Where another
program has one of the cores (a browser, an indexer), they spin on the time that the last one needs, and everything
takes several times as long. Waiting passively costs a call to the system, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

GAIN = 1.25
"""How much quicker more threads have to be to be worth other cores' whole time, and more than chance."""


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads sleep while they wait. To be called before torch is imported: OpenMP reads this as it is loaded.

    What somebody has set is left as it is.
    """
    environment.setdefault("OMP_WAIT_POLICY", "passive")


def number_is_set(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody has said how many threads there are to be."""
    return bool(environment.get("OMP_NUM_THREADS") or environment.get("MKL_NUM_THREADS"))


def worth_trying(cores: int) -> tuple[int, ...]:
    """One thread, two, four and so on, and one for each core."""
    powers = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    return (*powers, cores)


def fewest(seconds: Mapping[int, float]) -> int:
    """Of numbers of threads, and what the same work took with each: the fewest that are about as quick as any."""
    quickest = min(seconds.values())
    return min(number for number, took in seconds.items() if took <= quickest * GAIN)
