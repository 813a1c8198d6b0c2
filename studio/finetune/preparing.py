"""Samples as the model sees them, made once and kept in the version's folder until it is complete.

Knows clips, latents and embedded captions. Refuses to know what is done with them.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from studio.events import FinetuneEvent, Notice, TrainingStage
from studio.finetune import sampling
from studio.finetune.clips import Sample, samples_of
from studio.finetune.notebook import SAMPLES, Notebook
from studio.finetune.room import room
from studio.finetune.training import Prepared
from studio.machine.hardware import Machine
from studio.pipelines.families import Prompt, VideoModel


def prepare(model: VideoModel, notebook: Notebook, machine: Machine) -> Generator[FinetuneEvent, None, Prepared]:
    """Read, encode and embed, or read what was prepared before.

    Raises:
        StudioError: no clip is usable, or memory ran out.
    """
    path = notebook.folder / SAMPLES
    if path.is_file():
        return Prepared.load(path)
    request = notebook.version.request
    yield TrainingStage(stage="reading", total=len(request.clips))
    samples, records, notices = samples_of(request)
    held_out = any(sample.held_out for sample in samples)
    notebook.record(clips=records, notices=notices, held_out=held_out)
    for notice in notices:
        yield Notice(text=notice)
    with room(request, model.preset):
        latents, prompts = yield from _encoded(model, samples)
        prior: list[tuple[Tensor, Prompt]] = []
        if request.prior_loss_weight and model.preset.defaults.prompts:
            clips = sampling.prior_latents(model, request, machine, like=latents)
            for number in range(sampling.PRIOR_CLIPS):
                yield TrainingStage(stage="preparing", done=number, total=sampling.PRIOR_CLIPS)
                prior.append(next(clips))
    prepared = Prepared(
        pixels=torch.from_numpy(np.stack([sample.frames for sample in samples])),
        latents=latents,
        prompts=prompts,
        held_out=torch.tensor([sample.held_out for sample in samples]),
        prior_latents=torch.cat([each for each, _ in prior]) if prior else torch.zeros(0),
        prior_prompts=tuple(_in_memory(prompt) for _, prompt in prior),
    )
    prepared.save(path)
    return prepared


def _encoded(
    model: VideoModel, samples: list[Sample]
) -> Generator[FinetuneEvent, None, tuple[Tensor, tuple[Prompt, ...]]]:
    """(N, c, t, h, w), and each sample's caption, embedded once."""
    latents: list[Tensor] = []
    prompts: dict[str, Prompt] = {}
    for number, sample in enumerate(samples):
        yield TrainingStage(stage="preparing", done=number, total=len(samples))
        pixels = torch.from_numpy(sample.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        latents.append(model.latents_of(pixels).cpu())
        if sample.caption not in prompts:
            prompts[sample.caption] = _in_memory(model.prompt(sample.caption))
    return torch.cat(latents), tuple(prompts[sample.caption] for sample in samples)


def _in_memory(prompt: Prompt) -> Prompt:
    return {name: tensor.cpu() for name, tensor in prompt.items()}
