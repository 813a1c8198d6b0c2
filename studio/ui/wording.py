"""Words and small records for what is shown more than once: jobs, runs, settings, seconds, sizes.

Knows how a figure is written for a person. Refuses to know Gradio.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from studio.clips.control_maps import TITLES
from studio.compare import Comparisons
from studio.errors import StudioError
from studio.jobs import Busy, Dead, Job, Ready, Starting, WorkerState
from studio.machine.hardware import Machine, gigabytes
from studio.preset import Preset
from studio.records.enlargements import EnlargementStore
from studio.records.enlarger_versions import EnlargerVersionStore
from studio.records.insertions import InsertionStore
from studio.records.map_sets import MapSetStore
from studio.records.run import Run
from studio.records.runs import RunStore
from studio.records.versions import Version, VersionStore
from studio.requests.caches import AdaCache, Budget, CacheConfig, cache_title
from studio.requests.generation import GenerationRequest
from studio.requests.super_resolution import method_title
from studio.requests.work import (
    EnlargeClip,
    InsertVehicle,
    MakeMaps,
    ProfileModel,
    TrainEnlarger,
    TrainVersion,
    WalkComparison,
    WorkKind,
)
from studio.ui.components.values import Fact, Facts, QueuedJob, RunTile

FAILED = ("failed", "interrupted")
WATCHED: tuple[WorkKind, ...] = ("clip", "comparison")
"""Work that makes clips, which can be watched step by step."""


def seconds_text(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds / 3600:.1f} h"


def size_text(size: float) -> str:
    """Bytes, in decimal units."""
    return (
        gigabytes(int(size))
        if size >= 10**9
        else f"{size / 10**6:.0f} MB"
        if size >= 10**6
        else f"{size / 1000:.0f} kB"
    )


def machine_line(machine: Machine) -> str:
    """The machine in one line: `2 cores · 24 GB · no GPU · bf16`."""
    accelerator = (
        "no GPU" if machine.accelerator is None else f"{machine.accelerator_name}, {machine.vram_total / 10**9:.0f} GB"
    )
    parts = [
        f"{machine.cores} core{'s' if machine.cores != 1 else ''}",
        f"{machine.ram_total / 10**9:.0f} GB memory",
        accelerator,
    ]
    return " · ".join([*parts, "bf16 in hardware"] if machine.bf16 else parts)


def settings_line(request: GenerationRequest) -> str:
    """A request in one line, without its prompt."""
    return (
        f"{request.width}×{request.height} · {request.num_frames} frames · {request.num_inference_steps} steps"
        f" · seed {request.seed}"
    ) + (f" · {cache_words(request.cache)}" if request.cache is not None else "")


def version_words(version: Version) -> str:
    """A version in a few words: its title, what it scored over its base, and its day."""
    gain = ""
    if version.scores is not None and version.base_scores is not None:
        gain = f", {version.scores.psnr - version.base_scores.psnr:+.2f} dB"
    return f"{version.title}{gain}, {version.created[5:16].replace('T', ' ')}"


def cache_words(cache: CacheConfig) -> str:
    """A cache in a few words: its name, and what it was told that makes the difference."""
    if isinstance(cache, AdaCache):
        return "AdaCache + MoReg" if cache.moreg else "AdaCache"
    if isinstance(cache, Budget):
        return f"Budget {cache.speedup:g}×" if cache.max_drift is None else f"Budget, drift ≤ {cache.max_drift:.1%}"
    return cache_title(cache.method)


@dataclass(frozen=True, kw_only=True)
class JobWords:
    """What a job is, for a person."""

    title: str
    line: str


def words_of(job: Job, store: RunStore) -> JobWords:
    """What a job is: a clip by its prompt, other work by what it is for and how far it is."""
    work = job.work
    try:
        match work:
            case GenerationRequest():
                return JobWords(title=work.prompt, line=settings_line(work))
            case TrainVersion():
                version = VersionStore(store.folder).get(work.version_id)
                what = "Prediction for a fine-tune" if work.predict else "Fine-tune"
                steps = f"{version.step} of {version.request.max_train_steps} steps"
                return JobWords(title=f"{what}: {version.title}", line=f"{version.request.preset} · {steps}")
            case ProfileModel():
                steps = f" at {work.num_inference_steps} steps" if work.num_inference_steps else ""
                return JobWords(title=f"Measuring {work.preset}{steps}", line="what the caches know of it")
            case WalkComparison():
                comparison = Comparisons(store).get(work.comparison_id)
                at = next((cell for cell in comparison.cells if not cell.ended), comparison.cells[-1])
                place = f"clip {min(comparison.ended + 1, len(comparison.cells))} of {len(comparison.cells)}"
                return JobWords(title=at.request.prompt, line=f"Comparison, {place} · {settings_line(at.request)}")
            case EnlargeClip():
                enlargement = EnlargementStore(store.folder).get(work.enlargement_id)
                made, source = enlargement.request, enlargement.source
                size = f"{source.width}×{source.height} → {source.width * made.scale}×{source.height * made.scale}"
                what = "Enlarging a part of" if work.excerpt else "Enlarging"
                return JobWords(title=f"{what} {source.name}", line=f"{size} · {method_title(made.method)}")
            case TrainEnlarger():
                tuned = EnlargerVersionStore(store.folder).get(work.version_id)
                steps = f"{tuned.step} of {tuned.request.max_train_steps} steps"
                return JobWords(title=f"Fine-tune: {tuned.title}", line=f"{tuned.request.method} · {steps}")
            case MakeMaps():
                map_set = MapSetStore(store.folder).get(work.map_set_id)
                listed = ", ".join(TITLES[name].lower() for name in map_set.request.maps)
                return JobWords(title=f"Maps of {map_set.title}", line=listed)
            case InsertVehicle():
                insertion = InsertionStore(store.folder).get(work.insertion_id)
                frames = f"{insertion.request.num_frames} frames at most"
                return JobWords(title=f"A vehicle in {insertion.title}", line=frames)
    except StudioError:
        return JobWords(title=f"A {job.kind}", line="What it was for is gone.")


def worker_words(worker: WorkerState, *, paused: bool) -> str:
    """What the worker process is doing, in a few words."""
    match worker:
        case Starting():
            return "Starting up: the model is being loaded"
        case Dead():
            return "The worker has ended" + (f": {worker.reason}" if worker.reason else "; it is being started")
        case Busy(kind="profile"):
            return "Measuring a model"
        case Busy(kind="training" | "enlarger training"):
            return "Fine-tuning a version"
        case Busy():
            return "At work" if worker.preset or worker.kind == "comparison" else "The model is being loaded"
        case Ready() if paused:
            return "The queue is paused"
        case Ready():
            return f"Ready, {worker.preset} is loaded" if worker.preset else "Ready"


def job_row(job: Job, store: RunStore, *, shown: str, may_move: bool) -> QueuedJob:
    """One row of a `QueueList`."""
    words = words_of(job, store)
    actions = ["show"] if job.id != shown and job.kind in WATCHED else []
    if job.state == "queued":
        actions += (["up"] if may_move and job.position else []) + ["cancel"]
    elif job.state == "running" and job.kind not in WATCHED:
        actions.append("cancel")
    if job.final and job.state != "complete":
        actions.append("retry")
    note = str((job.error or {}).get("message", "")) if job.state in FAILED else ""
    return {
        "id": job.id,
        "state": job.state,
        "position": job.position,
        "prompt": words.title[:300],
        "line": words.line,
        "note": note[:200],
        "shown": job.id == shown,
        "actions": actions,
    }


def result_facts(run: Run) -> Facts:
    """The value of `Facts` for a finished run: the seconds by stage, the seed, the memory, the placement and why."""
    stages = {
        "model": "loading",
        "prompt": "encoding",
        "denoising": "denoising",
        "decoding": "decoding",
        "writing": "writing",
    }
    rows: list[Fact] = [{"name": "seed", "value": str(run.request.seed), "strong": True}]
    if run.total_seconds:
        rows.append({"name": "in all", "value": seconds_text(run.total_seconds), "strong": True})
    if run.step_seconds:
        later = sorted(run.step_seconds[1:] or run.step_seconds)
        rows.append({"name": "a step", "value": seconds_text(later[len(later) // 2]), "strong": True})
    if run.peak_bytes:
        rows.append({"name": "peak memory", "value": size_text(run.peak_bytes), "strong": True})
    rows += [
        Fact(name=name, value=seconds_text(run.stage_seconds[stage]))
        for name, stage in stages.items()
        if stage in run.stage_seconds
    ]
    notes: list[str] = []
    if run.placement is not None:
        rows.append({"name": "runs on", "value": f"{run.placement.device} · {run.placement.torch_dtype}"})
        notes += run.placement.reasons
    return {"title": "", "note": "", "rows": rows, "notes": notes}


def settings_facts(run: Run, preset_title: str) -> Facts:
    """The value of `Facts` for what a run was asked."""
    request = run.request
    rows: list[Fact] = [
        {"name": "preset", "value": preset_title},
        {"name": "made", "value": run.created[:16].replace("T", " ") + " UTC"},
        {"name": "size", "value": f"{request.width}×{request.height} × {request.num_frames}"},
        {"name": "frames a second", "value": f"{request.fps:g}"},
        {"name": "steps", "value": str(request.num_inference_steps)},
        {"name": "guidance", "value": f"{request.guidance_scale:g}"},
    ]
    if request.adapter is not None:
        rows.append({"name": "version", "value": request.adapter})
    if request.flow_shift is not None:
        rows.append({"name": "flow shift", "value": f"{request.flow_shift:g}"})
    title = request.prompt if len(request.prompt) <= 400 else request.prompt[:400] + "…"
    note = f"Without: {request.negative_prompt}" if request.negative_prompt else ""
    return {"title": title, "note": note, "rows": rows, "notes": []}


def run_tile(run: Run, poster: str) -> RunTile:
    """One tile of a `RunGrid`."""
    took = f" · {seconds_text(run.total_seconds)}" if run.total_seconds else ""
    return {
        "id": run.id,
        "prompt": run.request.prompt[:300],
        "line": f"{run.created[5:16].replace('T', ' ')}{took} · seed {run.request.seed}",
        "state": run.state,
        "partial": run.partial,
        "poster": poster,
    }


def clip_name(run: Run) -> str:
    """A file name that says what is in it, made of letters and digits only, whatever the prompt was."""
    words = re.findall(r"[a-z0-9]+", run.request.prompt.lower())
    return "-".join(["dailies", *words])[:60].rstrip("-") + f"-{run.request.seed}.mp4"


def licence_text(preset: Preset) -> str:
    return preset.weights.licence + (f" · {preset.weights.licence_note}" if preset.weights.licence_note else "")
