"""Clips that a model in training makes: before, after, and of other prompts to hold it to what it was.

Knows how they are asked for. Refuses to know what they are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from studio.events import FinetuneEvent, RunFinished, StepFinished, TrainingSample, TrainingStage
from studio.family import family_of
from studio.generate import generate
from studio.machine.hardware import Machine
from studio.pipelines.families import Prompt, VideoModel
from studio.preset import Preset
from studio.records.runs import RunStore
from studio.records.versions import Version
from studio.requests.generation import GenerationRequest, request_for
from studio.requests.training import FinetuneRequest

PRIOR_CLIPS = 4
"""Clips of other prompts that hold the model to what it was, where that is asked for."""
PRIOR_STEPS = 12


def clip_request(
    request: FinetuneRequest, preset: Preset, machine: Machine, prompt: str, **fields: Any
) -> GenerationRequest:
    """A clip at the training's size; its placement is the training's too, so that one loaded model serves both."""
    same = {name: getattr(request, name) for name in ("height", "width", "num_frames", "fps", "seed")}
    # Tiles would each have a graph of their own; a family that knows no other way keeps them.
    tiling = "auto" if family_of(preset.pipeline).decodes_in_tiles_only else "off"
    torch_dtype = "float32" if machine.accelerator is None else "auto"
    placement = {"torch_dtype": torch_dtype, "offload": "none", "vae_tiling": tiling, "quantization": "none"}
    return request_for(preset, prompt=prompt, **same, **placement, **fields)


def sample_prompts(version: Version) -> tuple[str, ...]:
    """What the clips before and after show: as asked for, or a caption, if possible one that is not trained on."""
    if version.request.sample_prompts:
        return version.request.sample_prompts
    held = next((clip.caption for clip in version.clips if clip.held_out), None)
    return (held or version.request.clips[0].caption,)


def sample(requests: list[GenerationRequest], *, store: RunStore, step: int, kept: bool) -> Iterator[FinetuneEvent]:
    """Generate, in a store of the version's own: these are no runs of the bare preset.

    Args:
        requests: Of the clips.
        store: Where they go.
        step: Of the training.
        kept: Whether this process's clips are the ones to tell of; all that share the weights out take part.
    """
    for request in requests:
        for event in generate(request, store=store):
            if isinstance(event, StepFinished):
                yield TrainingStage(stage="sampling", done=event.step + 1, total=request.num_inference_steps)
            elif isinstance(event, RunFinished) and kept:
                yield TrainingSample(step=step, prompt=request.prompt, path=str(store.get(event.run_id).video))


def prior_latents(
    model: VideoModel, request: FinetuneRequest, machine: Machine, *, like: Tensor
) -> Iterator[tuple[Tensor, Prompt]]:
    """Latents of clips that the model makes of its preset's own prompts, before it learns anything, with the prompts.

    Args:
        like: Latents of a sample, (B, c, t, h, w).
    """
    known = model.preset.defaults.prompts
    for number in range(PRIOR_CLIPS):
        prompt = known[number % len(known)]
        clip = clip_request(request, model.preset, machine, prompt, num_inference_steps=PRIOR_STEPS)
        model.prepare(clip)
        generator = torch.Generator().manual_seed(request.seed + number)
        made = model.pipe(**model.arguments(clip), generator=generator, output_type="latent")
        yield model.unpacked(made.frames, like.shape[2:]).float().cpu(), model.prompt(prompt)
