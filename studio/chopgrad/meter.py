"""Bytes that autograd holds for the way back, counted: the same figure on every machine.

Knows autograd's hooks on saved tensors. Refuses to guess what an allocator or a kernel takes besides.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SavedBytes:
    """Within it, counts the storages that graphs hold. Parameters and what is in `besides` are not counted."""

    def __init__(self, *besides: Any) -> None:
        """Args: besides: Tensors, such as a model's parameters, that are there anyway."""
        self.now = 0
        self.peak = 0
        self._counts: dict[int, int] = {}
        self._known = {tensor.untyped_storage().data_ptr() for tensor in besides}
        self._hooks = saved_tensors_hooks(self._pack, _unpack)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._hooks.__exit__(*problem)

    def _pack(self, tensor: Tensor) -> _Held:
        held = _Held(tensor)
        storage = tensor.untyped_storage()
        where, size = storage.data_ptr(), storage.nbytes()
        if where not in self._known:
            if not self._counts.get(where):
                self.now += size
                self.peak = max(self.peak, self.now)
            self._counts[where] = self._counts.get(where, 0) + 1
            weakref.finalize(held, self._dropped, where, size)
        return held

    def _dropped(self, where: int, size: int) -> None:
        self._counts[where] -= 1
        if not self._counts[where]:
            self.now -= size


class _Held:
    """What the graph holds in a tensor's place."""

    def __init__(self, tensor: Tensor) -> None:
        # Without its history: a node that saved its own output would hold itself.
        self.tensor = tensor.detach()


def _unpack(held: _Held) -> Tensor:
    return held.tensor
