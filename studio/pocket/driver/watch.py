"""Looking at a driver in training: held-out worlds, made again from their maps alone and their captions.

Knows the sampler that training uses, and one figure: how many of a world's edges the new clip has, to the pixel.
Refuses to know the pipeline that ships, and everything else that obedience is measured by.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.pipelines.driver import CHANNELS, CONTROL_CHANNELS, planes_of
from studio.pocket import denoiser_twin
from studio.pocket.architecture import FPS, HEIGHT, NUM_FRAMES, WIDTH
from studio.pocket.autoencoder_recipe import decode_latent
from studio.pocket.driver.data import with_layout
from studio.pocket.loop import Trainee
from studio.pocket.sheet import write_sheet
from studio.pocket.stages import padded_ids

FIRST_WATCHED = 9_000
"""Seeds that are looked at in training are held out, and are others than those that are measured at the end."""


class Watch:
    """Each world's render above what the averaged weights make of its maps."""

    def __init__(self, path: Path, pipe: Any, *, worlds: int) -> None:
        from studio.driving_world import render_with_maps, sample_scene

        self.path, self.pipe = path, pipe
        made = [
            render_with_maps(
                sample_scene(FIRST_WATCHED + n), height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, fps=FPS
            )
            for n in range(worlds)
        ]
        self.renders = [clip.frames for clip, _ in made]
        planes = np.stack([planes_of(with_layout(maps, clip.frames)) for clip, maps in made])
        self.control = torch.zeros(worlds, CONTROL_CHANNELS, *planes.shape[2:])
        self.control[:, -CHANNELS:] = torch.from_numpy(planes)
        self.ids = padded_ids(pipe.tokenizer, [clip.caption for clip, _ in made])
        self.empty = padded_ids(pipe.tokenizer, [""])[0]

    def __call__(self, trainee: Trainee) -> str:
        driver: Any = trainee.module
        compiled, kept = driver.run_block, {n: p.detach().clone() for n, p in driver.named_parameters()}
        trainee.load_average()
        driver.run_block = denoiser_twin.run_block  # other shapes than in training would be compiled anew
        latents = sample(driver, self.ids, self.empty, self.control)
        driver.run_block = compiled
        driver.load_state_dict(kept, strict=False)
        config = self.pipe.vae.config
        mean, std = (torch.tensor(config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
        clips = decode_latent(self.pipe.vae, latents * std + mean)
        rows = [np.concatenate([a, b], axis=1) for a, b in zip(self.renders, clips, strict=True)]
        write_sheet(self.path, rows)
        return f"edges F1 {edges_kept(self.renders, list(clips)):.3f}, sheet in {self.path}"


def edges_kept(wanted: list[np.ndarray], made: list[np.ndarray]) -> float:
    """F1 of edges at the very pixel, as the extractor finds them in both."""
    from studio.control_maps.edges import edges

    a, b = (np.stack([edges(frame) for clip in clips for frame in clip]) > 0 for clips in (wanted, made))
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


@torch.no_grad()
def sample(
    driver: Any,
    ids: Tensor,
    empty: Tensor,
    control: Tensor,
    *,
    steps: int = 15,
    guidance_scale: float = 3.0,
    flow_shift: float = 3.0,
    scale: float = 1.0,
) -> Tensor:
    """Normalised latents (B, Z, t, h, w) by Euler steps with guidance, to look at while training."""
    device = next(driver.parameters()).device
    both = torch.cat([ids, empty.expand_as(ids)]).to(device)
    control = torch.cat([control, control]).to(device)
    z = driver.transformer.config.in_channels
    x = torch.randn((len(ids), z, *control.shape[2:]), generator=torch.Generator().manual_seed(0)).to(device)
    line = torch.linspace(1, 0, steps + 1)
    levels = (flow_shift * line / (1 + (flow_shift - 1) * line)).tolist()
    for now, then in pairwise(levels):
        with torch.autocast(device.type, torch.bfloat16):
            sigma = torch.full((len(both),), now, device=device)
            wanted, unprompted = driver(torch.cat([x, x]), sigma, both, control, scale).float().chunk(2)
        x = x + (then - now) * (unprompted + guidance_scale * (wanted - unprompted))
    return x.cpu()
