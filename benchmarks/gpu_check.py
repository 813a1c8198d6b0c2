"""What the studio does on a graphics card, in one command of at most four minutes: `python benchmarks/gpu_check.py`.

    pocket       the same request twice, a run that is cancelled, and the same once more: equal frames, and how soon
                 the cancelled one ended
    wan          a denoiser, an autoencoder and a pipeline of Wan 2.1 1.3B's shape with random weights, written to a
                 folder and loaded as any other: uncached twice, a cache that never skips, Budget, AdaCache
    attention    its attention by the backends that are installed
    offloading   the same model with its weights moved about: equal frames, and what a step takes
    chopgrad     gradients through an autoencoder of Wan 2.1's full size: full, exact with its caches here and there,
                 activations computed again; seconds, peak, and agreement with full backpropagation
    fine-tune    the pocket model on two rendered clips, through pixels
    compile      the transformer's blocks compiled, and not, with a cache and without

Needs what `pip install -e .` brings; no network, no page. Each part has a time of its own, and what it found is
written as it comes, so that one that fails or is too slow takes nothing from the others. Times are synchronised, one
run each unless said. Results are gpu.json and gpu.md in the results folder, and a table in README between its marks.
`--toy` walks the same way at toy size, on a processor too, and writes to another folder: what it prints are no figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keeping_store import keeping_store
from marked import write_between

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
POCKET = ROOT / "assets/pocket/driving-t2v"
MARKS_IN_README = ("<!-- gpu-check -->", "<!-- /gpu-check -->")
PROMPT = "a red car drives ahead on a three lane road on a rainy night"
WAN = "gpu-check-wan"
"""Name of the preset that is made."""
NEVER = {"method": "adacache", "codebook": "custom", "rates": [1]}
BUDGET = {"method": "budget", "speedup": 2.0}
TOTAL_SECONDS = 235.0
"""Of the whole, imports included."""
GB = 10**9

if TYPE_CHECKING:
    import numpy as np

    from studio.records.run import Run
    from studio.requests.generation import GenerationRequest

Row = dict[str, Any]
"""What was measured, by a name with its unit; `what` first."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is."""

    pocket: dict[str, Any]
    """Fields of its request."""
    wan: dict[str, Any]
    few_steps: int
    """Where only a step is timed."""
    transformer: dict[str, Any]
    text_width: int
    vae: dict[str, Any]
    chop_frames: tuple[int, ...]
    chop_latent: tuple[int, int]
    """Rows and columns, in latent pixels."""
    training: dict[str, Any]


FULL = Sizes(
    pocket={"num_inference_steps": 30},
    wan={"height": 480, "width": 832, "num_frames": 33, "num_inference_steps": 12, "guidance_scale": 5.0},
    few_steps=3,
    transformer={
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 4096,
        "freq_dim": 256,
        "ffn_dim": 8960,
        "num_layers": 30,
    },
    text_width=4096,
    vae={},
    chop_frames=(17, 81),
    chop_latent=(32, 56),
    training={"max_train_steps": 12},
)
_TOY_VAE = {"base_dim": 8, "z_dim": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "num_res_blocks": 1}
TOY = Sizes(
    pocket={"num_inference_steps": 3, "height": 64, "width": 64, "num_frames": 5},
    wan={"height": 128, "width": 128, "num_frames": 5, "num_inference_steps": 6, "guidance_scale": 5.0},
    few_steps=2,
    transformer={
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 16,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    },
    text_width=16,
    vae=_TOY_VAE,
    chop_frames=(9, 17),
    chop_latent=(4, 4),
    training={"max_train_steps": 1, "height": 64, "width": 64, "num_frames": 5},
)


class TimeIsUp(Exception):
    """A part's own time."""


class Box:
    """The time of one part."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.perf_counter() + seconds

    def is_over(self) -> bool:
        return time.perf_counter() > self._ends

    def check(self) -> None:
        """Raises TimeIsUp."""
        if self.is_over():
            raise TimeIsUp


@dataclass(frozen=True, kw_only=True)
class Made:
    """A clip and its run."""

    run: Run
    frames: np.ndarray

    def same_as(self, other: Made) -> bool:
        return bool((self.frames == other.frames).all())

    def apart_from(self, other: Made) -> float:
        """Mean difference in grey levels."""
        import numpy as np

        return float(np.abs(self.frames.astype(np.float32) - other.frames).mean())


@dataclass(kw_only=True)
class Bench:
    """What the parts share."""

    sizes: Sizes
    device: str
    folder: Path
    made: dict[str, Made] = field(default_factory=dict)
    """Clips of Wan's shape, by what was asked; a later part that holds its own against one need not make it again."""

    # -- clips --------------------------------------------------------------------------------------------------------

    def clip(self, preset: str, box: Box, **fields: Any) -> Made:
        """A clip by the studio's own way, uncompressed; its seed is always the same."""
        from studio.events import RunFinished
        from studio.generate import generate

        store = keeping_store(self.folder / "runs")
        run_id = ""
        stream = generate(self.request(preset, **fields), store=store, stop=lambda: "cancel" if box.is_over() else None)
        for event in stream:
            if isinstance(event, RunFinished):
                run_id = event.run_id
        if not run_id:
            raise TimeIsUp
        return Made(run=store.get(run_id), frames=store.frames)

    def known(self, box: Box, **fields: Any) -> Made:
        """A clip of Wan's shape, made once. What stands for nothing being changed is the same as asking for nothing."""
        asked = {name: value for name, value in fields.items() if value not in ("none", "native")}
        key = json.dumps(asked, sort_keys=True)
        if key not in self.made:
            self.made[key] = self.clip(WAN, box, **fields)
        return self.made[key]

    def few_steps(self, box: Box, **fields: Any) -> Made:
        return self.known(box, num_inference_steps=self.sizes.few_steps, **fields)

    def cancelled(self, preset: str, **fields: Any) -> float:
        """Begin a clip, close it in its second step; seconds until it was over."""
        from studio.events import BlockComputed
        from studio.generate import generate

        stream = generate(self.request(preset, **fields), store=keeping_store(self.folder / "runs"))
        for event in stream:
            if isinstance(event, BlockComputed) and event.step == 1:
                break
        began = time.perf_counter()
        stream.close()
        return time.perf_counter() - began

    def request(self, preset: str, **fields: Any) -> GenerationRequest:
        from studio.preset import find_preset
        from studio.requests.generation import request_for

        size = self.sizes.pocket if preset == "pocket" else self.sizes.wan
        return request_for(find_preset(preset), prompt=PROMPT, seed=7, **(size | fields))

    # -- a checkpoint -------------------------------------------------------------------------------------------------

    def make_wan(self) -> None:
        """A checkpoint of Wan 2.1 1.3B's shape and its preset, in a catalogue that stands in for the studio's own."""
        import torch
        from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
        from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

        torch.manual_seed(20)
        words = json.loads((POCKET / "text_encoder/config.json").read_text(encoding="utf-8"))["vocab_size"]
        text = UMT5Config(vocab_size=words, d_model=self.sizes.text_width, d_kv=8, d_ff=64, num_layers=1, num_heads=2)
        with _made_in(torch.bfloat16, self.device):
            transformer = _enlivened(WanTransformer3DModel(**self.sizes.transformer))
            encoder = _enlivened(UMT5EncoderModel(text))
        sampler: Any = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
        pipe = WanPipeline(
            tokenizer=AutoTokenizer.from_pretrained(POCKET / "tokenizer", local_files_only=True),
            text_encoder=encoder,
            transformer=transformer,
            vae=AutoencoderKLWan(**self.sizes.vae),
            scheduler=sampler,
        )
        pipe.save_pretrained(self.folder / WAN, safe_serialization=True)
        del pipe, transformer, encoder
        gc.collect()
        _reset_peak(self.device)
        presets = self.folder / "presets"
        presets.mkdir(exist_ok=True)
        shutil.copy(ROOT / "presets/pocket.toml", presets)
        table = (ROOT / "presets/wan2.1-t2v-1.3b.toml").read_text(encoding="utf-8")
        head, _, rest = table.partition("[weights]")
        _, _, rest = rest.partition("[size]")
        weights = f'[weights]\nfolder = {json.dumps(str(self.folder / WAN))}\nlicence = "Apache-2.0"\n\n[size]'
        rest = rest.replace("text_encoder_parameters = 5_680_910_336", "text_encoder_parameters = 10_000_000")
        rest = rest.replace("[defaults]", "[defaults]\nmax_sequence_length = 64")
        (presets / f"{WAN}.toml").write_text(head + weights + rest, encoding="utf-8")
        os.environ["DAILIES_PRESETS"] = str(presets)


@contextmanager
def _made_in(dtype: Any, device: str) -> Iterator[None]:
    """Models that are made within it draw their weights where that is quick."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _enlivened(model: Any) -> Any:
    """With values for what begins at zero (gates, last layers), or nothing would come through."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3 / max(1, parameter[0].numel()) ** 0.5)
    return model.eval()


# ---------------------------------------------------------------------------------------------------------------------
# The parts. Each yields rows as it finds them.


def _seconds(run: Run) -> Row:
    """Of a run's denoising, and of a step of it that was not the first."""
    later = run.step_seconds[1:] or run.step_seconds
    return {
        "denoising s": run.stage_seconds["denoising"],
        "median step ms": 1000 * statistics.median(later),
        "decoding s": run.stage_seconds["decoding"],
        "peak GB": run.peak_bytes / GB,
    }


def pocket(bench: Bench, box: Box) -> Iterator[Row]:
    first = bench.clip("pocket", box)
    yield {"what": "first clip", "loading s": first.run.stage_seconds["loading"]} | _seconds(first.run)
    again = bench.clip("pocket", box)
    yield {"what": "the same again", "same frames": again.same_as(first)} | _seconds(again.run)
    yield {"what": "cancelled in its second step", "ended after s": bench.cancelled("pocket")}
    after = bench.clip("pocket", box)
    yield {"what": "after the cancelled one", "same frames": after.same_as(first)} | _seconds(after.run)


def wan(bench: Bench, box: Box) -> Iterator[Row]:
    began = time.perf_counter()
    bench.make_wan()
    yield {"what": "checkpoint made", "seconds": time.perf_counter() - began}
    box.check()
    first = bench.clip(WAN, box)
    loading = first.run.stage_seconds["loading"]
    yield {"what": "uncached, first", "loading s": loading, **_work(first.run), **_seconds(first.run)}
    again = bench.known(box)
    yield {"what": "uncached, again", "same frames": again.same_as(first), **_work(again.run), **_seconds(again.run)}
    caches = {"a cache that never skips": NEVER, "Budget 2×": BUDGET, "AdaCache": {"method": "adacache"}}
    for what, cache in caches.items():
        made = bench.known(box, cache=cache)
        faster = again.run.stage_seconds["denoising"] / made.run.stage_seconds["denoising"]
        same = {"same frames": made.same_as(again)} if cache is NEVER else {}
        yield {"what": what, "speed": faster, **same, **_work(made.run), **_skipped(made.run), **_seconds(made.run)}


def _work(run: Run) -> Row:
    return {} if run.trace is None else {"passes of blocks computed": run.trace.computed}


def _skipped(run: Run) -> Row:
    """What a step takes in which nothing was computed."""
    if run.trace is None:
        return {}
    idle = [
        seconds
        for seconds, step in zip(run.step_seconds, run.trace.ages, strict=True)
        if all(age is None or age >= 0 for block in step for age in block)
    ]
    return {"skipped step ms": 1000 * statistics.median(idle)} if idle else {}


def attention(bench: Bench, box: Box) -> Iterator[Row]:
    from studio.machine.hardware import measure

    for backend in ("native", "_native_cudnn", *measure().attention_backends):
        box.check()
        with _noted(backend) as row:
            made = bench.few_steps(box, attention_backend=backend)
            row |= {"grey levels apart": made.apart_from(bench.few_steps(box))} | _seconds(made.run)
        yield row


def offloading(bench: Bench, box: Box) -> Iterator[Row]:
    for offload in ("none", "model", "group", "sequential"):
        box.check()
        with _noted(offload) as row:
            made = bench.few_steps(box, offload=offload)
            loading = made.run.stage_seconds["loading"]
            row |= {"same frames": made.same_as(bench.few_steps(box)), "loading s": loading} | _seconds(made.run)
        yield row


@contextmanager
def _noted(what: str) -> Iterator[Row]:
    """A row to fill; the studio's own refusals, and running out of memory, are what it says then."""
    import torch

    from studio.errors import StudioError

    row: Row = {"what": what}
    try:
        yield row
    except StudioError as error:
        if "unforeseen" in str(error):
            raise
        row["not measured"] = str(error)
    except torch.OutOfMemoryError:
        row["not measured"] = "out of memory"
        torch.cuda.empty_cache()


CHOP_WAYS: dict[str, dict[str, Any]] = {
    "full": {"mode": "full"},
    "exact, caches beside the model": {"keep_caches": "device"},
    "exact, caches in main memory": {"keep_caches": "memory"},
    "exact, caches where there is room (auto)": {"keep_caches": "auto"},
    "exact, caches in main memory, blocks checkpointed": {"keep_caches": "memory", "checkpoint_blocks": True},
}


def chopgrad(bench: Bench, box: Box) -> Iterator[Row]:
    """The better of two walks after one to warm, and the first as well: it takes the page-locked memory."""
    import torch
    from diffusers import AutoencoderKLWan

    from studio import pipelines
    from studio.chopgrad import Backprop, chunked, decode_backward

    pipelines.unload()
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(**bench.sizes.vae)
    vae = vae.to(bench.device, torch.bfloat16).eval().requires_grad_(False)
    decoder = chunked(vae)
    for frames in bench.sizes.chop_frames:
        shape = (1, vae.config["z_dim"], 1 + (frames - 1) // 4, *bench.sizes.chop_latent)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(bench.device, torch.bfloat16)
        reference: Any = None
        for way, how in CHOP_WAYS.items():
            with _noted(f"{frames} frames, {way}") as row:
                taken: list[float] = []
                gradient: Any = None
                _reset_peak(bench.device)
                before = _allocated(bench.device)
                for _ in range(3):
                    box.check()
                    began = _now(bench.device)
                    gradient = decode_backward(
                        decoder, latents, _square, Backprop(**how), on_chunk=lambda *_: box.check()
                    ).gradient
                    taken.append(_now(bench.device) - began)
                reference = gradient if reference is None else reference
                row |= {"seconds": min(taken[1:]), "first walk s": taken[0]}
                row |= {"peak GB over the model": (_peak(bench.device) - before) / GB}
                row |= {"cosine to the first": _cosine(gradient, reference)}
                row |= {"page-locked slabs": decoder.buffers.allocations}
            yield row


def _square(frames: Any, _region: Any) -> Any:
    return frames.float().square().mean()


def _cosine(one: Any, other: Any) -> float:
    one, other = one.double().flatten(), other.double().flatten()
    return float((one @ other) / (one.norm() * other.norm()))


def fine_tune(bench: Bench, box: Box) -> Iterator[Row]:
    from contextlib import closing

    from studio.clips.write import write_clip
    from studio.driving_world import caption, render, sample_scene
    from studio.events import TrainingFinished, TrainingScored, TrainingStep
    from studio.finetune import finetune
    from studio.preset import find_preset
    from studio.records.runs import RunStore
    from studio.requests.training import TrainingClip, finetune_request_for

    clips = []
    for seed in (1, 2):
        scene = sample_scene(seed, style="desert")
        path = bench.folder / f"scene-{seed}.mp4"
        write_clip(render(scene), path)
        clips.append(TrainingClip(path=path, caption=caption(scene), held_out=seed == 2))
    request = finetune_request_for(
        find_preset("pocket"), clips=tuple(clips), objective="mixed", validation_steps=10**6, **bench.sizes.training
    )
    began = time.perf_counter()
    steps: list[Any] = []
    scores: list[Any] = []
    finished = False
    with closing(finetune(request, store=RunStore(bench.folder / "training"))) as events:
        for event in events:
            box.check()
            if isinstance(event, TrainingStep):
                steps.append(event)
            elif isinstance(event, TrainingScored):
                scores.append(event)
            finished = finished or isinstance(event, TrainingFinished)
    yield {
        "what": f"{len(steps)} steps, {request.objective}, clips before and after",
        "finished": finished,
        "seconds": time.perf_counter() - began,
        "step s": statistics.median(step.seconds for step in steps),
        "held-out PSNR before": scores[0].psnr,
        "held-out PSNR after": scores[-1].psnr,
        "peak GB": max(step.peak_bytes for step in steps) / GB,
    }


def compiling(bench: Bench, box: Box) -> Iterator[Row]:
    caches: dict[str, Any] = {"no cache": {}, "Budget 2×": {"cache": BUDGET}}
    plain = {what: bench.known(box, **cache) for what, cache in caches.items()}
    for what, made in plain.items():
        yield {"what": f"{what}, as it is", "first step s": made.run.step_seconds[0]} | _seconds(made.run)
    for what, cache in caches.items():
        box.check()
        with _noted(f"{what}, compiled") as row:
            made = bench.known(box, compile=True, **cache)
            row |= {"first step s": made.run.step_seconds[0]} | _seconds(made.run)
            row |= {"grey levels apart": made.apart_from(plain[what])} | _pays(made.run, plain[what].run)
        yield row


def _pays(compiled: Run, plain: Run) -> Row:
    """From how many steps on compiling has made up for itself, where a step is faster at all."""
    gained = statistics.median(plain.step_seconds[1:]) - statistics.median(compiled.step_seconds[1:])
    spent = compiled.step_seconds[0] - plain.step_seconds[0]
    return {"pays from steps": spent / gained} if gained > 0 else {}


@dataclass(frozen=True, kw_only=True)
class Part:
    title: str
    seconds: float
    run: Callable[[Bench, Box], Iterator[Row]]


PARTS: dict[str, Part] = {
    "pocket": Part(title="Pocket, 128 × 128, 17 frames, 30 steps", seconds=40, run=pocket),
    "wan": Part(title="Wan 2.1 1.3B's shape, random weights, 480 × 832, 33 frames, 12 steps", seconds=85, run=wan),
    "attention": Part(title="Wan's shape, attention backends, 3 steps", seconds=25, run=attention),
    "offloading": Part(title="Wan's shape, weights moved about, 3 steps", seconds=45, run=offloading),
    "chopgrad": Part(title="ChopGrad through Wan 2.1's full-size autoencoder, 256 × 448", seconds=60, run=chopgrad),
    "fine-tune": Part(title="Fine-tune of the pocket", seconds=35, run=fine_tune),
    "compile": Part(title="Wan's shape, blocks compiled, 12 steps", seconds=70, run=compiling),
}
"""Neighbours use the model that the part before them left loaded."""
NEEDS_WAN = {"offloading", "attention", "compile"}


def _now(device: str) -> float:
    """Once the device has done what it was told."""
    from studio.pipelines.loaded import synchronize

    synchronize(device)
    return time.perf_counter()


def _reset_peak(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


def _allocated(device: str) -> int:
    import torch

    return torch.cuda.memory_allocated() if device == "cuda" else 0


# ---------------------------------------------------------------------------------------------------------------------
# Walking, and writing


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="the same at toy size, on a processor too")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--results", type=Path, help="where gpu.json and gpu.md go")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    if not torch.cuda.is_available() and not args.toy:
        parser.error("torch finds no graphics card here; --toy walks the same way at toy size on a processor")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = args.results or (Path(tempfile.mkdtemp(prefix="gpu-check-")) if args.toy else RESULTS)
    results.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"about": _about(device, args.toy), "parts": {}}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        bench = Bench(sizes=TOY if args.toy else FULL, device=device, folder=Path(folder))
        for name in args.only:
            left = TOTAL_SECONDS - (time.perf_counter() - began)
            _walk(name, bench, 10**6 if args.toy else left, report, results)
        report["about"] |= {
            "seconds": time.perf_counter() - began,
            "gradio was imported": "gradio" in sys.modules,
        }
        _write(report, results)
    if device == "cuda" and not args.toy and results.resolve() == RESULTS.resolve():
        _into_readme(report)
    print((results / "gpu.md").read_text(encoding="utf-8"))
    print(f"Written to {results}.")


def _about(device: str, toy: bool) -> dict[str, Any]:
    import torch

    from studio.machine.hardware import measure

    machine = measure()
    names = ("torch", "diffusers", "transformers")
    card = torch.cuda.get_device_name() if device == "cuda" else machine.cpu_name
    versions = {name: version(name) for name in names} | {"cuda": torch.version.cuda or ""}
    return {"card": card, "date": date.today().isoformat(), "toy": toy, **versions}


def _walk(name: str, bench: Bench, left: float, report: dict[str, Any], results: Path) -> None:
    """One part; whatever becomes of it is in the report, which is written after each row."""
    part = PARTS[name]
    found: dict[str, Any] = {"title": part.title, "rows": []}
    report["parts"][name] = found
    box = Box(min(left, 10**6 if bench.sizes is TOY else part.seconds))
    began = time.perf_counter()
    print(f"{name} …")
    try:
        if name in NEEDS_WAN and not (bench.folder / "presets" / f"{WAN}.toml").is_file():
            bench.make_wan()
        box.check()
        for row in part.run(bench, box):
            found["rows"].append(row)
            _write(report, results)
            print("   " + ", ".join(f"{key} {_shown(value)}" for key, value in row.items()))
    except TimeIsUp:
        found["ended"] = f"its time was up after {time.perf_counter() - began:.0f} s"
    except Exception as error:
        found["ended"] = f"{type(error).__name__}: {str(error)[:300]}"
        found["failed"] = True
    found["seconds"] = time.perf_counter() - began
    if "ended" in found:
        print(f"   {found['ended']}")
    _write(report, results)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.6f}" if 0.99 < value < 1 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _write(report: dict[str, Any], results: Path) -> None:
    (results / "gpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    about = report["about"]
    where = f"{about['card']}, torch {about['torch']}, CUDA {about['cuda']}, diffusers {about['diffusers']}"
    lines = [
        "# What the studio does on a graphics card",
        "",
        f"{where}, {about['date']}. Written by `benchmarks/gpu_check.py`: random weights where a full-size model is "
        "named, one run each unless said; frames are compared as they were decoded.",
        "",
    ]
    if about["toy"]:
        lines += ["**At toy size, to try the script out: these are no figures.**", ""]
    for part in report["parts"].values():
        lines += [f"## {part['title']}", "", *_table(part["rows"])]
        if "ended" in part:
            lines += [f"It ended there: {part['ended']}.", ""]
    if "seconds" in about:
        page = "was" if about["gradio was imported"] else "was not"
        lines += [f"All in all {about['seconds']:.0f} s. Gradio {page} imported.", ""]
    (results / "gpu.md").write_text("\n".join(lines), encoding="utf-8")


def _table(rows: list[Row], names: list[str] | None = None) -> list[str]:
    """Rows of different columns, under all of them in the order in which they came."""
    if not rows:
        return []
    names = names or list(dict.fromkeys(name for row in rows for name in row))
    lines = [["" if name == "what" else name for name in names], ["---"] * len(names)]
    lines += [[_shown(row[name]) if name in row else "" for name in names] for row in rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


SHORT = {
    "wan": ["what", "denoising s", "median step ms", "speed", "same frames"],
    "chopgrad": ["what", "seconds", "peak GB over the model", "cosine to the first"],
    "offloading": ["what", "median step ms", "peak GB", "same frames"],
}
"""What README shows of which part."""


def _into_readme(report: dict[str, Any]) -> None:
    about = report["about"]
    lines = [f"{about['card']}, torch {about['torch']}, {about['date']}.", ""]
    for name, columns in SHORT.items():
        part = report["parts"].get(name)
        if part and part["rows"]:
            rows = [row for row in part["rows"] if set(columns) & set(row) - {"what"}]
            lines += [f"**{part['title']}**", "", *_table(rows, columns)]
    write_between(ROOT / "README.md", MARKS_IN_README, "\n".join(lines))


if __name__ == "__main__":
    main()
