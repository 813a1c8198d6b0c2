"""Where caches lie meanwhile: the same values from everywhere, memory that is used again, and copies in order."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from support.device import DEVICE, needs_card
from support.tiny_decoders import tiny
from torch import Tensor

from studio.chopgrad import Backprop, ChunkedDecoder, cache_store, chunked, decode_backward
from studio.chopgrad.cache_store import CacheStore, Done, HostBuffers, InMemory, Lane, bytes_of, mapped, place_for

GB = 10**9


def square(frames: Tensor, _region: object) -> Tensor:
    return frames.square().sum()


def walked(decoder: ChunkedDecoder, latents: Tensor, keep_caches: Any, **more: Any) -> Tensor:
    return decode_backward(decoder, latents, square, Backprop(keep_caches=keep_caches), **more).gradient


class LateLane(Lane):
    """A device that puts off every copy until somebody says that the work has to come after it."""

    def __init__(self, heeded: bool = True) -> None:
        self.heeded = heeded
        self.asked: list[int] = []
        """Tensors of each copy."""
        self.put_off: list[LateDone] = []

    def copy(self, pairs: Iterable[tuple[Tensor, Tensor]], *, after: Done | None = None) -> Done:
        done = LateDone(list(pairs), after, self.heeded)
        self.asked.append(len(done.pairs))
        self.put_off.append(done)
        return done

    def wait(self) -> None:
        for done in self.put_off:
            done.wait()


class LateDone(Done):
    def __init__(self, pairs: list[tuple[Tensor, Tensor]], after: Done | None, heeded: bool) -> None:
        self.pairs, self.after, self.heeded, self.over = pairs, after, heeded, False

    def wait(self) -> None:
        if self.over or not self.heeded:
            return
        self.over = True
        if self.after is not None:
            self.after.wait()
        for target, source in self.pairs:
            target.copy_(source)
            source.fill_(float("nan"))  # memory that was let go may be anybody's


def late(monkeypatch: pytest.MonkeyPatch, *, heeded: bool = True) -> list[LateLane]:
    """Every walk's lanes from now on: out, in, out, in …"""
    lanes: list[LateLane] = []

    def made(_device: torch.device) -> LateLane:
        lanes.append(LateLane(heeded))
        return lanes[-1]

    monkeypatch.setattr(cache_store, "lane_of", made)
    return lanes


# -- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wan 2.1", "cogvideox odd", "hunyuan video"])
def test_copies_that_come_as_late_as_they_may_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = tiny(name)
    decoder = chunked(vae)
    wanted = walked(decoder, latents, "device")
    late(monkeypatch)
    for _ in range(2):
        assert torch.equal(walked(decoder, latents, "memory"), wanted)
    late(monkeypatch, heeded=False)
    assert not torch.equal(walked(chunked(vae), latents, "memory"), wanted), "then nothing would have been shown"


def test_a_chunks_caches_are_asked_for_while_the_one_behind_it_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = tiny("wan 2.1")
    decoder = chunked(vae)
    lanes = late(monkeypatch)
    asked: list[int] = []
    walked(decoder, latents, "memory", on_chunk=lambda *_: asked.append(len(lanes[1].asked)))
    chunks = len(decoder.plan(latents.shape[2]))
    # The last state, which is needed first, never leaves; the first is empty.
    assert asked == [*range(1, chunks), chunks - 1]
    assert lanes[0].asked == lanes[1].asked[::-1]


def test_a_walk_that_is_stopped_leaves_the_next_one_right(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = tiny("wan 2.1")
    decoder = chunked(vae)
    wanted = walked(decoder, latents, "device")
    lanes = late(monkeypatch)

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walked(decoder, latents, "memory", on_chunk=stop)
    assert all(done.over for lane in lanes for done in lane.put_off), "nothing is on its way any more"
    assert torch.equal(walked(decoder, latents, "memory"), wanted)


class NotedStream:
    """Stands in for a card's stream: notes what it is to wait for, and what of it is waited for."""

    def __init__(self, notes: list[tuple[str, ...]], name: str) -> None:
        self.notes, self.name = notes, name

    def wait_stream(self, other: NotedStream) -> None:
        self.notes.append((self.name, "waits for", other.name))

    def wait_event(self, event: str) -> None:
        self.notes.append((self.name, "waits for", event))

    def record_event(self) -> str:
        self.notes.append((self.name, "copies"))
        return f"copy {len(self.notes)}"


def test_on_a_card_copies_wait_for_the_work_and_the_work_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = tiny("wan 2.1")
    decoder = chunked(vae)
    wanted = walked(decoder, latents, "device")
    notes: list[tuple[str, ...]] = []
    names = iter(("out", "in"))
    work = NotedStream(notes, "work")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device=None: work)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device=None: NotedStream(notes, next(names)))
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    monkeypatch.setattr(cache_store, "lane_of", cache_store._CardLane)
    assert torch.equal(walked(decoder, latents, "memory"), wanted)

    left: list[str] = []
    for number, note in enumerate(notes):
        if note == ("out", "copies"):
            assert notes[number - 1] == ("out", "waits for", "work")
            left.append(f"copy {number + 1}")
            # Its memory on the card is another's only once it has left.
            assert ("work", "waits for", left[-1]) in notes[number:]
        elif note == ("in", "copies"):
            assert notes[number - 2 : number] == [("in", "waits for", "work"), ("in", "waits for", left.pop())]
            assert notes[number + 1] == ("work", "waits for", f"copy {number + 1}")
    assert not left
    assert notes[-2:] == [("work", "waits for", "out"), ("work", "waits for", "in")]


# -- memory -----------------------------------------------------------------------------------------------------------


def test_every_walk_uses_the_memory_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = tiny("wan 2.1")
    decoder = chunked(vae)
    assert decoder.buffers.allocations == 0
    walked(decoder, latents, "device")
    assert decoder.buffers.allocations == 0, "none is taken that is not needed"
    decoder.buffers = HostBuffers(slab_bytes=1 << 12)
    walked(decoder, latents, "memory")
    taken = decoder.buffers.allocations
    assert taken > 3, "several slabs, or this says nothing of going from one to the next"
    for _ in range(3):
        walked(decoder, latents, "memory")
    assert decoder.buffers.allocations == taken


def test_a_tensor_comes_back_laid_out_as_it_was() -> None:
    state = {
        "plain": torch.randn(2, 3, 4, 5, device=DEVICE, dtype=torch.bfloat16),
        "turned": torch.randn(2, 3, 4, 5, 6, device=DEVICE).to(memory_format=torch.channels_last_3d),
        "word": "Rep",
        "none": None,
        "gap": (torch.randn(4, 6, device=DEVICE)[:, :3],),
    }
    place = InMemory(DEVICE, HostBuffers(slab_bytes=1 << 10))
    for each in (state, mapped(state, torch.zeros_like), None):
        place.put(each)
    assert place.take() is None
    assert not place.take()["plain"].any()
    found = place.take()
    place.close()
    assert (found["word"], found["none"]) == ("Rep", None)
    for key in ("plain", "turned"):
        assert torch.equal(found[key], state[key])
        assert found[key].stride() == state[key].stride()
        assert found[key].device.type == DEVICE.type
    assert torch.equal(found["gap"][0], state["gap"][0])


# -- which place ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "device_free", "ram_free", "where"),
    [
        ("cuda", 140 * GB, 64 * GB, "device"),
        ("cuda", 24 * GB, 64 * GB, "memory"),
        ("cuda", 24 * GB, 12 * GB, "disk"),
        ("cpu", 140 * GB, 140 * GB, "device"),
        ("cpu", 24 * GB, 24 * GB, "disk"),
        ("mps", 24 * GB, 64 * GB, "disk"),
    ],
)
def test_caches_lie_in_the_first_place_that_has_room_for_them(
    device: str, device_free: int, ram_free: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_store, "ram_free", lambda: ram_free)
    # Wan 2.1's of 81 frames of 256 × 448 in bfloat16.
    assert place_for(GB // 2, 20, device_free=device_free, device=device) == where


@pytest.mark.parametrize(("share", "where"), [(10, "disk"), (100, "device")])
def test_where_there_is_room_is_settled_by_the_first_caches_of_full_size(
    share: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = torch.zeros(1000)
    monkeypatch.setattr(cache_store, "free_bytes", lambda _device: share * bytes_of(full))
    with CacheStore("auto", device=torch.device("cpu"), buffers=HostBuffers(), states=9) as store:
        for state in (None, torch.ones(1)):
            store.put(state)
            assert store.where == "auto"
        for number in range(2, 9):
            store.put(full + number)
            assert store.where == where
        for number in reversed(range(2, 9)):
            assert torch.equal(store.take(), full + number)
        assert torch.equal(store.take(), torch.ones(1))
        assert store.take() is None


# -- on a card --------------------------------------------------------------------------------------------------------


@needs_card
def test_on_a_card_caches_in_main_memory_cost_little_time_and_spare_theirs() -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan().to(DEVICE, torch.bfloat16).eval().requires_grad_(False)
    decoder = chunked(vae)
    latents = torch.randn(1, 16, 9, 32, 56, device=DEVICE, dtype=torch.bfloat16)
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}
    gradients: dict[str, Tensor] = {}
    for where in ("device", "memory"):
        taken = []
        for _ in range(4):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            began, before = time.perf_counter(), torch.cuda.memory_allocated()
            gradients[where] = walked(decoder, latents, where)
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
            peaks[where] = torch.cuda.max_memory_allocated() - before
        seconds[where] = statistics.median(taken[1:])  # the first takes the buffers, and warms
    allocations = decoder.buffers.allocations
    walked(decoder, latents, "memory")
    assert decoder.buffers.allocations == allocations
    cosine = torch.nn.functional.cosine_similarity(*(gradients[w].flatten().double() for w in seconds), dim=0)
    assert float(cosine) > 0.99999
    assert seconds["memory"] < 1.3 * seconds["device"]
    assert peaks["memory"] < peaks["device"]
