"""Where the decoder's caches of all chunks lie between the pass forward and the way back.

    device   beside the model
    memory   in main memory; beside a card in page-locked buffers that every walk uses again, and copied on two streams
             of their own: a chunk's caches leave while the next one is decoded, and come back while the one behind it
             is half way back
    disk     in a temporary file
    auto     the first of these in which they fit, decided once the first caches of full size are known

Knows tensors in states, buffers, streams and free memory. Refuses to know decoders and gradients.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from studio.machine.hardware import ram_free

State = Any
"""What one chunk hands to the next: tensors, None and words in tuples and dicts; None in front of the first chunk."""
CachesKept = Literal["auto", "device", "memory", "disk"]
SLAB_BYTES = 2**28
"""Page-locked memory is taken in pieces of this size; torch rounds each up to a power of two."""
ALIGNED = 512
"""Bytes on which each tensor begins."""
WALK_CACHES = 30
"""Of one chunk's caches, so many times their size is left free for its way back: its activations and gradients take 15
times as much in Wan's decoder, and up to 25 in CogVideoX's."""
SHARE_OF_FREE = 0.9
SHARE_OF_RAM = 0.5
"""Of free main memory, for what is page-locked cannot be moved out of anybody's way."""
FULL_FROM = 2
"""The state after so many chunks is as large as any: a first chunk is often shorter."""


class CacheStore:
    """The states of all chunks: put in order, taken in reverse. Used as a context, which ends with nothing kept."""

    def __init__(self, where: CachesKept, *, device: torch.device, buffers: HostBuffers, states: int) -> None:
        """Nothing is taken yet.

        Args:
            where: See above.
            device: On which the states are.
            buffers: Of the decoder.
            states: How many will be put.
        """
        self._device, self._buffers, self._states = device, buffers, states
        self._waiting: list[State] = []
        """Put while it is open where they are to lie."""
        self._place = None if where == "auto" else self._opened(where)

    def __enter__(self) -> CacheStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()
        if self._place is not None:
            self._place.close()

    @property
    def where(self) -> CachesKept:
        """Where they lie, or `auto` while that is open."""
        return "auto" if self._place is None else self._place.name

    def put(self, state: State) -> None:
        if self._place is None:
            self._waiting.append(state)
            if len(self._waiting) > FULL_FROM:
                self._settle(bytes_of(state))
        else:
            self._place.put(state)

    def take(self) -> State:
        """The last one that is still here, on the device; what is asked of the device from now on may read it."""
        if self._place is None:
            self._settle(0)
        assert self._place is not None
        return self._place.take()

    def fetch(self) -> None:
        """Begin to bring back what is taken next, without waiting for it; harmless at any time."""
        if self._place is not None:
            self._place.fetch()

    def _settle(self, state_bytes: int) -> None:
        where = place_for(state_bytes, self._states, device_free=free_bytes(self._device), device=self._device.type)
        self._place = self._opened(where)
        for state in self._waiting:
            self._place.put(state)
        self._waiting.clear()

    def _opened(self, where: CachesKept) -> _Place:
        if where == "memory":
            return InMemory(self._device, self._buffers)
        return OnDisk(self._device) if where == "disk" else Beside()


def place_for(state_bytes: int, states: int, *, device_free: int, device: str) -> CachesKept:
    """The first place in which so many states fit, each of so many bytes.

    Args:
        state_bytes: Of one chunk's caches.
        states: How many there will be.
        device_free: Bytes free on the device.
        device: Its kind. Only a card has a memory of its own, beside main memory.
    """
    needed = state_bytes * states
    if needed + WALK_CACHES * state_bytes <= SHARE_OF_FREE * device_free:
        return "device"
    return "memory" if device == "cuda" and needed <= SHARE_OF_RAM * ram_free() else "disk"


def free_bytes(device: torch.device) -> int:
    """That a walk could take on a device, what torch holds there and does not use included."""
    if device.type != "cuda":
        return ram_free()
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + idle


# ---------------------------------------------------------------------------------------------------------------------
# States: tensors somewhere in tuples and dicts


def tensors_in(state: State) -> list[Tensor]:
    """In an order that depends on the structure alone."""
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def mapped(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """The same structure with every tensor changed."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {name: mapped(part, change) for name, part in state.items()}
    return tuple(mapped(part, change) for part in state) if isinstance(state, (tuple, list)) else state


def bytes_of(state: State) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(state))


# ---------------------------------------------------------------------------------------------------------------------
# The places


class _Place(ABC):
    name: CachesKept

    @abstractmethod
    def put(self, state: State) -> None: ...

    @abstractmethod
    def take(self) -> State: ...

    def fetch(self) -> None:  # noqa: B027 - most have nothing to fetch
        """Begin to bring back what is taken next."""

    @abstractmethod
    def close(self) -> None: ...


class Beside(_Place):
    """Where they are."""

    name = "device"

    def __init__(self) -> None:
        self._kept: list[State] = []

    def put(self, state: State) -> None:
        self._kept.append(state)

    def take(self) -> State:
        return self._kept.pop()

    def close(self) -> None:
        self._kept.clear()


class OnDisk(_Place):
    """A file a state, in a folder that goes with them."""

    name = "disk"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._folder = tempfile.TemporaryDirectory(prefix="caches-")
        self._count = 0

    def put(self, state: State) -> None:
        torch.save(state, self._file())
        self._count += 1

    def take(self) -> State:
        self._count -= 1
        file = self._file()
        state = torch.load(file, map_location=self._device, weights_only=True)
        file.unlink()
        return state

    def close(self) -> None:
        self._folder.cleanup()

    def _file(self) -> Path:
        return Path(self._folder.name) / f"{self._count}.pt"


@dataclass(frozen=True)
class _Moving:
    """A state that was told to go somewhere, and may not have arrived."""

    state: State
    done: Done
    fetched: bool


class InMemory(_Place):
    """In buffers of main memory, whence they come back ahead of time.

    The state that was put last stays where it is, for it is taken first. What leaves the device is held until it has
    left, so that nothing else is written over it; what comes back is laid out on the device by the device's own order.
    """

    name = "memory"

    def __init__(self, device: torch.device, buffers: HostBuffers, lanes: tuple[Lane, Lane] | None = None) -> None:
        self._device, self._buffers = device, buffers
        self._out, self._in = lanes or (lane_of(device), lane_of(device))
        self._kept: list[State | _Moving] = []
        self._leaving: tuple[State, Done] | None = None
        buffers.rewind()

    def put(self, state: State) -> None:
        if self._kept:
            self._kept[-1] = self._sent(self._kept[-1])
        self._kept.append(state)

    def take(self) -> State:
        self.fetch()
        kept = self._kept.pop()
        if not isinstance(kept, _Moving):
            return kept
        kept.done.wait()
        return kept.state

    def fetch(self) -> None:
        if self._kept and isinstance(kept := self._kept[-1], _Moving) and not kept.fetched:
            self._kept[-1] = self._fetched(kept)

    def close(self) -> None:
        """Also after a walk that was stopped: what is still on its way must not be written over."""
        for lane in (self._out, self._in):
            lane.wait()
        self._leaving = None
        self._kept.clear()

    def _sent(self, state: State) -> _Moving:
        self._let_go()
        there = mapped(state, self._buffers.like)
        done = self._out.copy(zip(tensors_in(there), tensors_in(state), strict=True))
        self._leaving = state, done
        return _Moving(there, done, fetched=False)

    def _let_go(self) -> None:
        """Of what has left before: its memory is free for what the device is asked for from now on."""
        if self._leaving is not None:
            self._leaving[1].wait()
            self._leaving = None

    def _fetched(self, kept: _Moving) -> _Moving:
        self._let_go()
        here = self._in.on_device(lambda: mapped(kept.state, lambda one: torch.empty_like(one, device=self._device)))
        done = self._in.copy(zip(tensors_in(here), tensors_in(kept.state), strict=True), after=kept.done)
        return _Moving(here, done, fetched=True)


class HostBuffers:
    """Main memory for tensors, taken once and used again by every walk; page-locked where a card copies into it."""

    def __init__(self, *, slab_bytes: int = SLAB_BYTES) -> None:
        """Nothing is taken yet."""
        self.allocations = 0
        """Slabs that were ever taken."""
        self._slab_bytes = slab_bytes
        self._slabs: list[Tensor] = []
        self._slab = self._used = 0
        """The slab that is being filled, and how far."""

    def rewind(self) -> None:
        """Use everything again from the start."""
        self._slab = self._used = 0

    def like(self, tensor: Tensor) -> Tensor:
        """Room for a tensor's values, in its own layout where that has neither gaps nor overlaps."""
        layout = torch.empty_like(tensor, device="meta")
        size = tensor.numel() * tensor.element_size()
        while self._slab < len(self._slabs) and self._used + size > self._slabs[self._slab].numel():
            self._slab, self._used = self._slab + 1, 0
        if self._slab == len(self._slabs):
            self._slabs.append(_host_memory(max(size, self._slab_bytes), locked=tensor.is_cuda))
            self.allocations += 1
        room = self._slabs[self._slab][self._used : self._used + size]
        self._used += -(-size // ALIGNED) * ALIGNED
        return room.view(tensor.dtype).as_strided(layout.shape, layout.stride())


def _host_memory(size: int, *, locked: bool) -> Tensor:
    if locked:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # the system allows no more; copies into other memory are right, and slower
            pass
    return torch.empty(size, dtype=torch.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Lanes: copies beside the work


class Done:
    """A copy that is over."""

    def wait(self) -> None:
        """Let what the device is asked for from now on come after it."""


class Lane:
    """A processor's, on which a copy is over when it was asked for."""

    def copy(self, pairs: Iterable[tuple[Tensor, Tensor]], *, after: Done | None = None) -> Done:
        """Copy (target, source) once the device has done what it was asked for, and once `after` is over."""
        for target, source in pairs:
            target.copy_(source)
        return Done()

    def on_device(self, make: Callable[[], Any]) -> Any:
        """What `make` makes, in memory that follows the device's order, whichever thread asks."""
        return make()

    def wait(self) -> None:
        """Let what the device is asked for from now on come after every copy."""


class _CardLane(Lane):
    """A stream of a card, beside the one that works."""

    def __init__(self, device: torch.device) -> None:
        self._work = torch.cuda.current_stream(device)
        self._stream = torch.cuda.Stream(device)

    def copy(self, pairs: Iterable[tuple[Tensor, Tensor]], *, after: Done | None = None) -> Done:
        self._stream.wait_stream(self._work)
        if isinstance(after, _CardDone):
            self._stream.wait_event(after.event)
        with torch.cuda.stream(self._stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        return _CardDone(self._stream.record_event(), self._work)

    def on_device(self, make: Callable[[], Any]) -> Any:
        with torch.cuda.stream(self._work):
            return make()

    def wait(self) -> None:
        self._work.wait_stream(self._stream)


class _CardDone(Done):
    def __init__(self, event: Any, work: torch.cuda.Stream) -> None:
        self.event, self._work = event, work

    def wait(self) -> None:
        self._work.wait_event(self.event)


def lane_of(device: torch.device) -> Lane:
    return _CardLane(device) if device.type == "cuda" else Lane()
