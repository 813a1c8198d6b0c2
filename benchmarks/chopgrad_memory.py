"""What gradients through a video decoder cost, and how good truncated ones are: `python benchmarks/chopgrad_memory.py`.

Memory and time, for clips of 9 to 129 frames and three frozen decoders in float32: the trained pocket autoencoder's on
latents of a driving clip, and with random weights one of Wan 2.1's shape and one of CogVideoX's on random latents. The
loss is the mean of squared and absolute differences to a random target. Each cell comes from a process of its own:
- peak: growth of the resident set during one walk, over what it was after the model and a tiny walk to warm up; on a
  GPU, growth of what torch has allocated. Freed memory goes back to the system at once, or the resident set would tell
  of the past; that takes up to three times as long;
- time: CPU seconds, on a GPU seconds, as a ratio to full backpropagation over as many frames: the better of two walks
  each, in turns and in one process, from which nothing goes back, as in the steps of a long training;
- saved: bytes that autograd holds, counted in another walk of that other process.

Quality, on the pocket autoencoder and worlds that it was not trained on: the target is a clip, the latents are its own
with noise of 0.3 standard deviations, and each walk's gradient with respect to the latents is held against the full
one, as a whole and latent frame by latent frame. Beside them, how far influence reaches: the norm of the gradient of a
chunk's loss with respect to latent frames further and further back.

Cells are appended to chopgrad_memory-cells.jsonl in the results folder, and a second call goes on where the first one
stopped. Tables and plot are written from that file, and a short table into README where its marks are. Needs Linux
with glibc: its /proc says what a process holds, and its malloc can be told to give back.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from marked import write_between

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
POCKET = ROOT / "assets/pocket/driving-t2v/vae"
RESULTS = ROOT / "benchmarks/results"
CELLS = "chopgrad_memory-cells.jsonl"
MARKS_IN_README = ("<!-- chopgrad-memory -->", "<!-- /chopgrad-memory -->")
WORLD_SEED = 0
"""First of the held-out worlds whose clips are taken."""
NOISE = 0.3
"""Share of each latent channel's standard deviation."""
QUALITY_FRAMES = 33
REACH = 6
"""Distances at which influence is measured, from 0 up."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # Pages are handed out faster; peaks stay as they are.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
"""As in malloc.h."""
MB = 10**6


@dataclass(frozen=True, kw_only=True)
class Way:
    """A line of the plot."""

    name: str
    how: dict[str, Any]
    """Fields of Backprop."""
    colour: str
    mark: str
    line: str = "-"

    @property
    def chunks(self) -> int:
        """Whose activations are alive at once, however long the clip."""
        return self.how["window"] + self.how["context"] if self.truncated else 1

    @property
    def truncated(self) -> bool:
        return self.how["mode"] == "truncated"


def _cut(window: int, context: int, colour: str = "", mark: str = "") -> Way:
    how = {"mode": "truncated", "window": window, "context": context}
    return Way(name=f"truncated ({window}, {context})", how=how, colour=colour, mark=mark)


FULL, EXACT, MOVED = "full", "exact", "exact, caches moved out"
CHECKPOINTED = "full, blocks checkpointed"
WAYS = (
    Way(name=FULL, how={"mode": "full"}, colour="#000000", mark="o"),
    Way(name=CHECKPOINTED, how={"mode": "full", "checkpoint_blocks": True}, colour="#000000", mark="s", line="--"),
    Way(name=EXACT, how={"mode": "exact"}, colour="#009E73", mark="D"),
    # "moved" stands for main memory beside a GPU, and for a file where the decoder is in main memory itself.
    Way(name=MOVED, how={"mode": "exact", "keep_caches": "moved"}, colour="#009E73", mark="d", line="--"),
    _cut(1, 0, "#56B4E9", "v"),
    _cut(1, 1, "#0072B2", "^"),
    _cut(2, 1, "#D55E00", "P"),
    _cut(1, 4, "#CC79A7", "X"),
)
SHORT = (FULL, CHECKPOINTED, EXACT, MOVED, "truncated (1, 1)")
"""What README shows."""
COMPARED = (_cut(1, 0), _cut(1, 1), _cut(1, 2), _cut(1, 4), _cut(2, 1), _cut(4, 1))
"""Whose gradients are held against the full one."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder."""

    title: str
    size: int
    """Edge of the clip's pictures, in pixels."""
    make: Callable[[], Any] = field(repr=False)


def _pocket() -> Any:
    import torch
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(POCKET, torch_dtype=torch.float32, local_files_only=True)


def _wan() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=16)


def _cogvideox() -> Any:
    from diffusers import AutoencoderKLCogVideoX

    widths: Any = (16, 32, 32, 64)
    return AutoencoderKLCogVideoX(block_out_channels=widths, layers_per_block=3, norm_num_groups=16)


def shapes(pocket_size: int) -> dict[str, Shape]:
    return {
        "pocket": Shape(title="Pocket, trained", size=pocket_size, make=_pocket),
        "wan": Shape(title="Wan 2.1's shape, 16 wide, random weights", size=64, make=_wan),
        "cogvideox": Shape(title="CogVideoX's shape, 16 to 64 wide, random weights", size=64, make=_cogvideox),
    }


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoders", nargs="+", choices=list(shapes(0)), default=list(shapes(0)))
    names = [way.name for way in WAYS]
    parser.add_argument("--ways", nargs="+", metavar="WAY", choices=names, default=names, help=f"of {'; '.join(names)}")
    parser.add_argument("--frames", type=_clip_length, nargs="+", default=[9, 17, 33, 65, 129])
    parser.add_argument("--pocket-size", type=int, default=128, help="edge of the pocket decoder's pictures, in pixels")
    parser.add_argument("--clips", type=int, default=3, help="held-out worlds on which gradients are compared")
    parser.add_argument("--timed-up-to", type=int, default=129, metavar="FRAMES", help="longest clip that is timed")
    parser.add_argument("--limit-s", type=float, default=300.0, help="seconds after which a cell is given up")
    parser.add_argument("--processes", type=int, default=1, help="cells measured at once")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the default is a GPU where there is one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write-only", action="store_true", help="nothing is run: tables and plot from what is there")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ |= ENVIRONMENT
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / CELLS
    if not args.write_only:
        run_all(args, path)
    if cells := read_cells(path):
        write(args.results, cells)


def _clip_length(text: str) -> int:
    frames = int(text)
    if frames % 8 != 1 or frames < 9:
        below = max(9, (frames - 1) // 8 * 8 + 1)
        raise argparse.ArgumentTypeError(f"{frames} is not 8k + 1; the nearest are {below} and {below + 8}")
    return frames


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Without what was measured on other weights of the pocket autoencoder."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [cell for cell in map(json.loads, lines) if cell.get("weights") in (None, weights())]


def weights() -> str:
    """Which pocket autoencoder."""
    return hashlib.sha256((POCKET / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------------
# Running


def run_all(args: argparse.Namespace, path: Path) -> None:
    device = args.device or _best_device()
    done = {_key(cell) for cell in read_cells(path)}
    jobs = [job for job in _jobs(args, device) if _key(job) not in done]
    if not jobs:
        return
    clip = _latents_of_a_clip(max(args.frames), args.pocket_size) if any(_needs_clip(job) for job in jobs) else None
    # A server that has imported, and nothing else, forks once a cell.
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "studio.chopgrad", "diffusers.loaders.single_file_model"])
    # The threads only wait for their processes.
    with ThreadPoolExecutor(args.processes) as pool:
        waiting = [pool.submit(_in_a_process, context, job, clip, args) for job in jobs]
        for number, one in enumerate(as_completed(waiting), start=1):
            cell = one.result()
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell) + "\n")
            print(f"{number}/{len(jobs)} {_line(cell)}")


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _jobs(args: argparse.Namespace, device: str) -> Iterator[dict[str, Any]]:
    about = {"device": device, "cores": os.cpu_count(), "torch": version("torch"), "diffusers": version("diffusers")}
    for seed in range(WORLD_SEED, WORLD_SEED + args.clips):
        yield {"clip": seed, "weights": weights()} | about
    for frames in args.frames:
        for name in args.decoders:
            size = shapes(args.pocket_size)[name].size
            for way, what in product(args.ways, ("peak", "time")):
                if what == "peak" or frames <= args.timed_up_to:
                    cell = {"decoder": name, "size": size, "frames": frames, "way": way, "what": what}
                    yield cell | about


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    names = ("clip", "device") if "clip" in cell else ("decoder", "size", "frames", "way", "what", "device")
    return tuple(cell[name] for name in names)


def _needs_clip(job: dict[str, Any]) -> bool:
    return job.get("decoder") == "pocket"


def _in_a_process(context: Any, job: dict[str, Any], clip: np.ndarray | None, args: argparse.Namespace) -> Any:
    """The job with what came of it."""
    if "clip" in job:
        work, limit = partial(gradient_quality, job["clip"], job["device"]), None
    else:
        latents = clip if _needs_clip(job) else None
        work, limit = partial(measure, job, latents), args.limit_s
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(there, work))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(limit) else {"failed": f"over {limit:g} s"}
    except EOFError:  # it was killed
        found = {"failed": "out of memory"}
    process.kill()
    process.join()
    if "error" in found:
        raise RuntimeError(f"{job}: {found['error']}")
    return job | found


def _report(there: Any, work: Callable[[], dict[str, Any]]) -> None:
    """In the cell's process."""
    import torch

    torch.set_num_threads(1)
    try:
        found = work()
    except (MemoryError, RuntimeError) as error:
        # torch says so with a class of its own on a GPU only.
        short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
        found = {"failed": "out of memory"} if short else {"error": repr(error)}
    except Exception as error:
        found = {"error": repr(error)}
    there.send(found)


def _line(cell: dict[str, Any]) -> str:
    if "clip" in cell:
        return f"clip {cell['clip']}: " + ", ".join(f"{k} {v['cosine']:.4f}" for k, v in cell["ways"].items())
    where = f"{cell['decoder']} {cell['frames']} {cell['way']}: "
    if "failed" in cell:
        return where + cell["failed"]
    return where + (f"{cell['peak_bytes'] / MB:.0f} MB" if cell["what"] == "peak" else f"{cell['seconds']:.1f} s")


# ---------------------------------------------------------------------------------------------------------------------
# Memory and time


def measure(job: dict[str, Any], clip: np.ndarray | None) -> dict[str, Any]:
    """One cell.

    Args:
        job: decoder, size, frames, way, device, and what: peak or time.
        clip: Latents of the longest clip (1, c, t, h, w); None for random ones.
    """
    import torch

    from studio.chopgrad import Backprop, SavedBytes, chunked, decode_backward

    device, frames = job["device"], job["frames"]
    torch.manual_seed(0)
    vae = shapes(job["size"])[job["decoder"]].make().to(device).eval().requires_grad_(False)
    edge, channels = job["size"] // 8, vae.config["z_dim" if "z_dim" in vae.config else "latent_channels"]
    if clip is None:
        latents = torch.randn(1, channels, 1 + (frames - 1) // 4, edge, edge, device=device)
    else:
        # The encoder is causal: a shorter clip's latents are the first of a longer one's.
        latents = torch.from_numpy(clip[:, :, : 1 + (frames - 1) // 4].copy()).to(device)
    target = torch.rand(1, 3, frames, job["size"], job["size"], device=device) * 2 - 1
    settings = dict(next(way.how for way in WAYS if way.name == job["way"]))
    if settings.get("keep_caches") == "moved":
        settings["keep_caches"] = "memory" if device == "cuda" else "disk"
    how = Backprop(**settings)
    decoder = chunked(vae)

    walk = partial(decode_backward, decoder, latents, difference_to(target), how)
    _set_malloc(gives_back=job["what"] == "peak")
    if job["what"] == "time":
        with SavedBytes(*vae.parameters(), *vae.buffers()) as saved:
            walk()
        beside = partial(walk.func, *walk.args[:-1], Backprop(mode="full"))
        walks = {"full_seconds": beside, "seconds": walk}
        taken: dict[str, list[float]] = {name: [] for name in walks}
        for _ in range(3):
            for name, one in walks.items():
                seconds = _stopwatch(device)
                one()
                taken[name].append(seconds())
        # The first turn warms both.
        return {name: min(some[1:]) for name, some in taken.items()} | {"saved_bytes": saved.peak}
    # Warm: 17 frames, of one sixteenth of the area.
    tiny = torch.randn(1, channels, 5, max(1, edge // 4), max(1, edge // 4), device=device)
    decode_backward(decoder, tiny, lambda frames, _: frames.square().sum(), how)
    del tiny
    gc.collect()
    peak = _peak_over_now(device)
    walk()
    return {"peak_bytes": peak(), "chunks": len(decoder.plan(latents.shape[2]))}


def difference_to(target: Any) -> Any:
    """Mean of squared and absolute differences, as a sum over frames."""

    def loss(frames: Any, region: Any) -> Any:
        apart = frames - region.of(target)
        return (apart.square().sum() + apart.abs().sum()) / target.numel()

    return loss


def _set_malloc(*, gives_back: bool) -> None:
    """Whether freed blocks go back to the system at once, or stay with the process."""
    malloc = ctypes.CDLL(None)
    malloc.mallopt(M_MMAP_THRESHOLD, 1 << 16 if gives_back else 1 << 25)
    malloc.mallopt(M_TRIM_THRESHOLD, 1 << 16 if gives_back else (1 << 31) - 1)


def _peak_over_now(device: str) -> Callable[[], int]:
    """Says, when called, how many bytes more than now were held in between at most."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return lambda: torch.cuda.max_memory_allocated() - before
    # "5" sets VmHWM back to VmRSS: what loading weights took for a moment is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    return lambda: _resident("VmHWM") - before


def _stopwatch(device: str) -> Callable[[], float]:
    """Says, when called, how many seconds have gone by; of the processor where it does the work."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()

        def seconds() -> float:
            torch.cuda.synchronize()
            return time.perf_counter() - began

        return seconds
    began = time.process_time()
    return lambda: time.process_time() - began


def _resident(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def _clip_of(seed: int, frames: int, size: int) -> Any:
    """A driving clip as (1, 3, F, H, W) in -1..1."""
    import torch

    from studio.pocket.data import render_world

    pixels = torch.from_numpy(render_world(seed, num_frames=frames, size=size).frames)
    return (pixels.permute(3, 0, 1, 2)[None].float() / 127.5 - 1).contiguous()


def _latents_of_a_clip(frames: int, size: int) -> np.ndarray:
    import torch

    with torch.no_grad():
        return _pocket().eval().encode(_clip_of(WORLD_SEED, frames, size)).latent_dist.mean.numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Quality


def gradient_quality(seed: int, device: str) -> dict[str, Any]:
    """Gradients with respect to the latents of one held-out clip, each way's against the full one."""
    import torch

    from studio.chopgrad import Backprop, chunked, decode_backward
    from studio.pocket.architecture import HEIGHT

    vae = _pocket().to(device).eval().requires_grad_(False)
    clip = _clip_of(seed, QUALITY_FRAMES, HEIGHT).to(device)
    with torch.no_grad():
        latents = vae.encode(clip).latent_dist.mean
    sigma = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)) * sigma
    latents = latents + NOISE * noise.to(device)
    decoder, loss = chunked(vae), difference_to(clip)

    full = decode_backward(decoder, latents, loss, Backprop(mode="full")).gradient
    exact = decode_backward(decoder, latents, loss, Backprop(mode="exact")).gradient
    apart = (exact - full).abs().max().item()
    ways = {EXACT: _agreement(exact, full) | {"max_difference": apart, "largest": full.abs().max().item()}}
    for way in COMPARED:
        cut = decode_backward(decoder, latents, loss, Backprop(**way.how)).gradient
        ways[way.name] = _agreement(cut, full)
    return {"size": HEIGHT, "frames": QUALITY_FRAMES, "ways": ways, "decay": _decay(decoder, latents, loss)}


def _agreement(gradient: Any, full: Any) -> dict[str, Any]:
    """Cosine and ratio of norms, of all and of each latent frame."""

    def compared(a: Any, b: Any) -> tuple[float, float]:
        a, b = a.double(), b.double()
        norms = a.norm(), b.norm()
        return ((a * b).sum() / (norms[0] * norms[1])).item(), (norms[0] / norms[1]).item()

    cosine, ratio = compared(gradient, full)
    each = [compared(gradient[:, :, i], full[:, :, i]) for i in range(full.shape[2])]
    cosines, ratios = zip(*each, strict=True)
    return {"cosine": cosine, "ratio": ratio, "cosines": cosines, "ratios": ratios}


def _decay(decoder: Any, latents: Any, loss: Any) -> list[float]:
    """Mean over chunks i of ||dL_i/dz_(i-d)||, as a ratio to d = 0: one graph, walked once a chunk."""
    import torch

    from studio.chopgrad import Region

    leaf, state, losses = latents.detach().requires_grad_(), None, []
    for chunk in decoder.plan(latents.shape[2]):
        frames, state = decoder.step(leaf[:, :, chunk.start : chunk.stop], state, chunk)
        losses.append(loss(frames, Region(slice(chunk.first, chunk.end))))
    norms: list[list[float]] = [[] for _ in range(REACH)]
    for i, one in enumerate(losses):
        (gradient,) = torch.autograd.grad(one, leaf, retain_graph=True)
        for distance in range(min(i + 1, REACH)):
            norms[distance].append(gradient[:, :, i - distance].norm().item())
    means = [statistics.mean(some) for some in norms]
    return [mean / means[0] for mean in means]


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write(results: Path, cells: list[dict[str, Any]]) -> None:
    """chopgrad_memory.json, .md and .png of the device that was measured last; README's table where its marks are."""
    cells = [cell for cell in cells if cell["device"] == cells[-1]["device"]]
    clips = [cell for cell in cells if "clip" in cell]
    boards = [_Board(name, title, mine) for name, title, mine in _by_decoder(cells)]
    first = cells[0]
    on_gpu = first["device"] == "cuda"
    where = "a GPU" if on_gpu else f"{first['cores']} CPU cores, one thread a process"
    machine = f"{where}, torch {first['torch']}, diffusers {first['diffusers']}"
    what = "torch's allocations" if on_gpu else "the resident set"
    lines = [
        "# What gradients through a video decoder cost",
        "",
        f"Measured on {machine}, float32. Written by `benchmarks/chopgrad_memory.py`; (W, C) is a window "
        "of W chunks with C chunks of context. A chunk is one latent frame of Wan's kind, two of CogVideoX's, whose "
        "first has three here.",
        "",
        *_targets(boards, clips),
        f"Peak growth of {what} during one walk, in MB of 10⁶ bytes, by frames:",
        "",
    ]
    for board in boards:
        lines += board.table("peak_bytes", lambda value: f"{value / MB:.0f}")
    lines += ["Bytes that autograd holds at most, in MB:", ""]
    for board in boards:
        lines += board.table("saved_bytes", lambda value: f"{value / MB:.1f}")
    lines += ["Time, as a ratio to full backpropagation over as many frames, itself in seconds:", ""]
    for board in boards:
        lines += board.times()
    lines += [*_quality(clips), "![Peak memory over frames](chopgrad_memory.png)", ""]
    (results / "chopgrad_memory.md").write_text("\n".join(lines), encoding="utf-8")
    figures = {
        "machine": {name: first[name] for name in ("device", "cores", "torch", "diffusers")},
        "memory": {board.name: board.figures() for board in boards},
        "quality": clips,
    }
    (results / "chopgrad_memory.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    _plot(results / "chopgrad_memory.png", boards, what)
    if results.resolve() == RESULTS:
        _into_readme(boards, clips)
    print("\n".join(lines))


def _by_decoder(cells: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for name, shape in shapes(0).items():
        mine = [cell for cell in cells if cell.get("decoder") == name]
        if mine:
            size = mine[-1]["size"]  # the last one that was asked for
            yield name, f"{shape.title}, {size} × {size}", [cell for cell in mine if cell["size"] == size]


class _Board:
    """One decoder's cells."""

    def __init__(self, name: str, title: str, cells: list[dict[str, Any]]) -> None:
        self.name, self.title = name, title
        self._cells: dict[tuple[str, int], dict[str, Any]] = defaultdict(dict)
        for cell in cells:
            found = {
                name: cell[name]
                for name in ("peak_bytes", "saved_bytes", "seconds", "full_seconds", "chunks")
                if name in cell
            }
            # Where a cell came to nothing, its words stand for what it would have given.
            named = ("peak_bytes",) if cell["what"] == "peak" else ("saved_bytes", "seconds")
            self._cells[cell["way"], cell["frames"]] |= found or dict.fromkeys(named, cell["failed"])
        self.lengths = sorted({cell["frames"] for cell in cells})

    def get(self, way: str, frames: int, what: str) -> Any:
        """A number, the words for why there is none, or None."""
        return self._cells.get((way, frames), {}).get(what)

    def number(self, way: str, frames: int, what: str) -> float | None:
        value = self.get(way, frames, what)
        return value if isinstance(value, (int, float)) else None

    def time(self, way: str, frames: int) -> float | None:
        """As a ratio to full, which was timed beside it."""
        mine, full = self.number(way, frames, "seconds"), self.number(way, frames, "full_seconds")
        return mine / full if mine and full else None

    def last_time(self, way: str) -> tuple[float, int] | None:
        """At the longest clip that was timed, and its length."""
        found = [(ratio, frames) for frames in self.lengths if (ratio := self.time(way, frames))]
        return found[-1] if found else None

    def growth(self, way: Way) -> tuple[float, int, int] | None:
        """Peak of the longest clip over that of one of 17 frames, or of the shortest longer one in which a window lies
        behind the first chunk, which is of another length; with both lengths."""
        enough = [f for f in self.lengths if f >= 17 and (self.number(way.name, f, "chunks") or 0) > way.chunks]
        if len(enough) < 2:
            return None
        first, last = enough[0], enough[-1]
        peaks = [self.number(way.name, frames, "peak_bytes") or 0 for frames in (first, last)]
        return peaks[1] / peaks[0], first, last

    def table(self, what: str, shown: Callable[[float], str]) -> list[str]:
        def cell(way: str, frames: int) -> str:
            value = self.get(way, frames, what)
            return "–" if value is None else value if isinstance(value, str) else shown(value)

        rows = [[way.name, *(cell(way.name, frames) for frames in self.lengths)] for way in WAYS]
        return _table([self.title, *map(str, self.lengths)], rows)

    def times(self) -> list[str]:
        def cell(way: str, frames: int) -> str:
            ratio = self.time(way, frames)
            if ratio is None:
                return str(self.get(way, frames, "seconds") or "–")
            return f"{self.number(FULL, frames, 'seconds'):.1f} s" if way == FULL else f"{ratio:.2f}"

        rows = [[way.name, *(cell(way.name, frames) for frames in self.lengths)] for way in WAYS]
        return _table([self.title, *map(str, self.lengths)], rows)

    def figures(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "cells": [
                {"way": way.name, "frames": frames} | cell | {"time_ratio": self.time(way.name, frames)}
                for way in WAYS
                for frames in self.lengths
                if (cell := self._cells.get((way.name, frames)))
            ],
        }


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _targets(boards: list[_Board], clips: list[dict[str, Any]]) -> list[str]:
    """What was aimed at, and what came of it."""
    rows = []
    for board in boards:
        cuts = [(way, board.growth(way)) for way in WAYS if way.truncated]
        told = [f"{way.name.split(' ', 1)[1]} {_grown(found)}" for way, found in cuts if found]
        met = all(found[0] <= 1.10 for _, found in cuts if found)
        rows.append([f"truncated: 129 frames take at most 1.10 × the memory of 17; {board.name}", "; ".join(told), met])
        exact = [(way.name, board.growth(way)) for way in WAYS if way.name in (EXACT, MOVED)]
        told = [f"{name} {_grown(found)}" for name, found in exact if found]
        met = any(found[0] <= 1.5 for _, found in exact if found)
        rows.append([f"exact, the better place for caches: at most 1.5 ×; {board.name}", "; ".join(told), met])
    if clips:
        cosine = min(clip["ways"][EXACT]["cosine"] for clip in clips)
        apart = max(clip["ways"][EXACT]["max_difference"] for clip in clips)
        rows.append(["exact: cosine 1.0", f"{cosine:.9f}, largest difference {apart:.1g}", round(cosine, 6) == 1])
    for board in boards:
        ratios = {name: [r for f in board.lengths if (r := board.time(name, f))] for name in (EXACT, MOVED)}
        told = [f"{name} {min(some):.2f} to {max(some):.2f}" for name, some in ratios.items() if some]
        met = all(max(some) <= 2 for some in ratios.values() if some)
        rows.append([f"exact: at most 2 × the time of full; {board.name}", "; ".join(told), met])
    told = [[target, measured, "met" if met else "missed"] for target, measured, met in rows if measured]
    words = (
        "The first chunk is of another length. Where in 17 frames no window with its context lies behind it, the "
        "shortest clip in which one does stands in their place; where 129 frames were not measured, the longest clip."
    )
    return [*_table(["target", "measured", ""], told), words, ""]


def _grown(found: tuple[float, int, int]) -> str:
    ratio, first, last = found
    return f"{ratio:.2f}" if (first, last) == (17, 129) else f"{ratio:.2f} ({last} to {first})"


def _means(clips: list[dict[str, Any]], way: str) -> dict[str, float]:
    """Over clips; the worst latent frame is the worst of all clips."""
    mine = [clip["ways"][way] for clip in clips]
    return {
        "cosine": statistics.mean(each["cosine"] for each in mine),
        "ratio": statistics.mean(each["ratio"] for each in mine),
        "worst_cosine": min(min(each["cosines"]) for each in mine),
        "least_ratio": min(min(each["ratios"]) for each in mine),
        "largest_ratio": max(max(each["ratios"]) for each in mine),
    }


def _quality(clips: list[dict[str, Any]]) -> list[str]:
    if not clips:
        return []
    rows = []
    for name in (EXACT, *(way.name for way in COMPARED)):
        mean = _means(clips, name)
        rows.append(
            [
                name,
                f"{mean['cosine']:.4f}",
                f"{mean['ratio']:.3f}",
                f"{mean['worst_cosine']:.4f}",
                f"{mean['least_ratio']:.3f}–{mean['largest_ratio']:.3f}",
            ]
        )
    apart = max(clip["ways"][EXACT]["max_difference"] for clip in clips)
    largest = max(clip["ways"][EXACT]["largest"] for clip in clips)
    decay = [[f"{statistics.mean(clip['decay'][d] for clip in clips):.3f}" for d in range(REACH)]]
    first = clips[0]
    seeds = ", ".join(str(clip["clip"]) for clip in clips)
    return [
        "## How good truncated gradients are",
        "",
        f"Pocket autoencoder, held-out worlds {seeds}, {first['frames']} frames of {first['size']} × {first['size']}: "
        "the gradient with respect to the latents against the full one. Means over clips; the last two columns are "
        "over all latent frames of all clips.",
        "",
        *_table(["", "cosine", "norm ratio", "worst latent frame's cosine", "latent frames' norm ratios"], rows),
        f"Exact differs from full by {apart:.1g} at most, where the largest entry is {largest:.1g}.",
        "",
        "Decay of influence, mean ‖dL_i/dz_(i−d)‖ as a ratio to d = 0:",
        "",
        *_table([f"d = {d}" for d in range(REACH)], decay),
    ]


def _plot(path: Path, boards: list[_Board], what: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(boards), figsize=(5.0 * len(boards), 4.9), dpi=130, squeeze=False)
    for axes, board in zip(panels[0], boards, strict=True):
        for way in WAYS:
            points = [(f, peak) for f in board.lengths if (peak := board.number(way.name, f, "peak_bytes"))]
            axes.plot(
                [frames for frames, _ in points],
                [peak / MB for _, peak in points],
                marker=way.mark,
                linestyle=way.line,
                color=way.colour,
                markersize=6,
                linewidth=1.6,
                label=way.name,
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(board.lengths, [str(frames) for frames in board.lengths])
        axes.minorticks_off()
        low, high = axes.get_ylim()
        ticks = [tick for power in range(1, 6) for tick in (10**power, 2 * 10**power, 5 * 10**power)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        axes.set_yticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("frames")
        axes.set_title(board.title, fontsize=10)
        axes.grid(alpha=0.25)
    panels[0][0].set_ylabel(f"peak growth of {what}, MB")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path)
    plt.close(figure)


def _into_readme(boards: list[_Board], clips: list[dict[str, Any]]) -> None:
    lines: list[str] = []
    for board in boards:
        lengths = [frames for frames in board.lengths if frames >= 17]
        rows = []
        for name in SHORT:
            peaks = [board.number(name, frames, "peak_bytes") for frames in lengths]
            timed = board.last_time(name)
            shown = ["–" if peak is None else f"{peak / MB:.0f} MB" for peak in peaks]
            rows.append([name, *shown, f"{timed[0]:.2f}×" if timed else "–"])
        lines += _table([board.title, *(f"{frames} frames" for frames in lengths), "time"], rows)
    if clips:
        told = [f"{_means(clips, way.name)['cosine']:.3f} for {way.name.split(' ', 1)[1]}" for way in COMPARED]
        lines.append(
            f"Cosine to the full gradient on held-out clips: {_means(clips, EXACT)['cosine']:.6f} for exact; truncated "
            f"{', '.join(told)}."
        )
    write_between(ROOT / "README.md", MARKS_IN_README, "\n".join(lines))


if __name__ == "__main__":
    main()
