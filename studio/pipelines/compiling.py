"""Regional compilation: the blocks of a transformer compiled one by one, as diffusers' `compile_repeated_blocks` does.

That call compiles a block with whatever hangs on it, hooks included, and what is hung on it later is not seen. Here a
block's own `forward` is compiled and stands in its place, so that hooks (offloading's, caches', the watch's) stay
around it in plain Python. Hooks on layers within a block are not called while it runs compiled: who wants to know that
it ran listens here, and who wants to look inside asks for the plain block for that long.

Knows torch's compiler. Refuses to know who listens, and whether it pays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

NAME = "compiled_forward"
"""Of the attribute by which a block has it; `caching.block_stack` asks for it by this name."""


class CompiledForward:
    """A block's `forward`, compiled when it is first called; blocks of one class share what was compiled."""

    def __init__(self, block: nn.Module, **how: Any) -> None:
        """
        Args:
            block: Without hooks so far.
            how: What `torch.compile` takes.
        """
        self.listeners: list[Callable[[], None]] = []
        """Called whenever the block itself runs, compiled or not."""
        self._plain: Callable[..., Any] = block.forward
        self._compiled: Callable[..., Any] = torch.compile(self._plain, **how)
        self._asked_plain = 0
        functools.update_wrapper(self, self._plain)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for told in self.listeners:
            told()
        return (self._plain if self._asked_plain else self._compiled)(*args, **kwargs)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Within it the block runs uncompiled, and hooks inside it are called."""
        self._asked_plain += 1
        try:
            yield
        finally:
            self._asked_plain -= 1


def compile_blocks(blocks: Iterable[nn.Module], **how: Any) -> None:
    """Compile each block, once it is called; before anything else is hung on them."""
    for block in blocks:
        module: Any = block
        forward = CompiledForward(block, **how)
        module.forward = forward
        setattr(module, NAME, forward)
