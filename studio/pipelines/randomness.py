"""Randomness that is a clip's own. Knows torch's global generators. Refuses to know what draws from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """The global generators seeded for this clip, and put back afterwards.

    LTX-Video's decoder adds noise from them; without this its clips would not be the same twice.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
