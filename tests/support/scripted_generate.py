"""A verb for the queue's tests: shaped like `studio.generate.generate`, its behaviour read from the prompt.

It writes real runs with real clips and keeps the real contract (closing cancels, a `stop` that says keep ends early, a
failure is an exception with the run marked), but computes nothing. The prompt is `key=value` words:

    steps=5 blocks=2     how long the stream is
    pause=0.01           seconds in each block
    then=complete        or hang, hold (a hang inside a C call, with the interpreter's lock), segfault, raise, oddity
    at=3                 the step at which `then` happens, where it is not `complete`
    keep_pause=0         seconds that keeping takes

What a run does besides completing is begun with an empty file, `<then>.begun`, beside the runs.
Every run notes in `moments.jsonl`, beside the runs, when it was seen alive: tests read there that no two overlap.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator

import numpy as np

from studio.clips.clip import Clip
from studio.compare import Comparisons, compare
from studio.errors import NumericalError, StudioError
from studio.events import (
    BlockComputed,
    BlockReused,
    ComparisonEvent,
    GenerationEvent,
    ModelReady,
    Placement,
    PreviewFrame,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    Stop,
    never,
)
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest
from studio.requests.work import WalkComparison, WorkKind

HERE = Placement(
    device="cpu",
    device_name="none",
    torch_dtype="float32",
    vae_dtype="float32",
    channels_last=False,
    offload="none",
    vae_tiling=False,
    quantization="none",
)


def generate(
    request: GenerationRequest, *, store: RunStore, owner: str = "local", stop: Stop = never
) -> Generator[GenerationEvent, None, None]:
    script = dict(word.split("=") for word in request.prompt.split() if "=" in word)
    steps, blocks, pause = int(script.get("steps", 3)), int(script.get("blocks", 2)), float(script.get("pause", 0))
    then, at = script.get("then", "complete"), int(script.get("at", 1))
    writer = store.begin(request, preset=find_preset(request.preset), owner=owner, environment={"python": sys.version})

    def seen_alive() -> None:
        with (store.folder / "moments.jsonl").open("a") as moments:
            moments.write(json.dumps([writer.id, os.getpid(), time.monotonic()]) + "\n")

    def say(event: GenerationEvent) -> GenerationEvent:
        seen_alive()
        writer.record(event)
        return event

    try:
        yield say(RunStarted(run_id=writer.id, total_steps=steps, placement=HERE, predicted_seconds=None))
        yield say(ModelReady(blocks=blocks, branches="separate"))
        partial = False
        for step in range(steps):
            yield say(StepStarted(step=step, sigma=1 - step / steps, timestep=1000 * (1 - step / steps)))
            if step == at:
                (store.folder / f"{then}.begun").touch()
                _misbehave(then)
            for block in range(blocks):
                time.sleep(pause)
                for branch in ("cond", "uncond"):
                    yield say(
                        BlockReused(step=step, block=block, branch=branch, age=1)
                        if step % 2
                        else BlockComputed(step=step, block=block, branch=branch)
                    )
            yield say(StepFinished(step=step, seconds=pause * blocks, peak_bytes=1000 + step, eta_seconds=0.0))
            yield say(PreviewFrame(step=step, jpeg=bytes([step])))
            if stop() == "keep":
                time.sleep(float(script.get("keep_pause", 0)))
                partial = step + 1 < steps
                break
        frames = np.full((2, 16, 16, 3), request.seed % 256, dtype=np.uint8)
        writer.complete(Clip(frames=frames, fps=request.fps), partial=partial)
        yield say(RunFinished(run_id=writer.id, partial=partial, seconds=0.0))
    except GeneratorExit:
        if not writer.final:
            writer.cancel()
        raise
    except Exception as error:
        writer.fail(error if isinstance(error, StudioError) else StudioError(str(error)))
        raise
    finally:
        seen_alive()


def _misbehave(how: str) -> None:
    match how:
        case "hang":
            # With a program of its own, which must not outlive it either.
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=False)
        case "hold":
            ctypes.PyDLL(None).sleep(600)
        case "segfault":
            ctypes.string_at(0)
        case "raise":
            raise NumericalError("NaN in step 1.", field="latents", way_out="Try another seed.")
        case "oddity":
            raise ZeroDivisionError("a mistake of the programmer")


SURROUNDINGS = {"python": sys.version}
"""What is written as the surroundings of a run."""
VERBS: dict[WorkKind, str] = {
    "clip": "support.scripted_generate:generate",
    "comparison": "support.scripted_generate:walk",
}


def walk(work: WalkComparison, *, store: RunStore, owner: str, stop: Stop) -> Generator[ComparisonEvent]:
    """A comparison of scripted clips, scored without torch."""
    comparison = Comparisons(store).get(work.comparison_id)
    names = ("psnr", "ssim", "flicker")
    yield from compare(comparison, store=store, stop=stop, generate=generate, environment=SURROUNDINGS, names=names)
