"""The model card of a trained super-resolver: what it is, what it learnt from, and what it scored.

Knows words. Refuses to measure anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studio.pocket.super_resolver.photographs import Photograph

Figures = Mapping[str, Mapping[int, Mapping[str, float]]]
"""PSNR in dB by task, scale, and `linear` or `refined`: of L alone, and of what is added to it."""


def card(figures: Figures, photographs: Sequence[Photograph], *, held_out: int, parameters: int, device: str) -> str:
    """In the Hub's format.

    Args:
        figures: On held-out clips.
        photographs: Those that were learnt from.
        held_out: Clips that were scored.
        parameters: Of all parts.
        device: What it was trained on.
    """
    scored = "\n".join(
        f"| {task} | {scale}× | {found['linear']:.2f} dB | {found['refined']:.2f} dB "
        f"| {found['refined'] - found['linear']:+.2f} dB |"
        for task, of_scale in figures.items()
        for scale, found in of_scale.items()
    )
    learnt = "\n".join(
        f"| {each.title} | {each.author} | {each.licence} | {each.package} |"
        for each in sorted(photographs, key=lambda each: (each.package, each.title))
    )
    return f"""---
license: apache-2.0
library_name: diffusers
tags:
- super-resolution
- video
- tiny
---

# Pocket super-resolver

It makes a clip two or four times as large: `enlarged = L(given) + R(given, past) + g · D(L + R, given, past)`. L is a
7×7 polyphase filter, its weights solved for by least squares. R is a recurrent network of 3×3 convolutions on the grid
of a fourth of the enlarged picture's rows and columns, one body for both scales; its memory blocks see what they saw of
the picture before. There are two R: the *refiner*, for clips that are merely small, and the *restorer*, for those that
are blurred, noisy or marked by a codec. D adds to the second: the latent of L + R is denoised in one step, and a causal
decoder that also sees the small picture makes of it what is to be added. {parameters:,} parameters in all.

L + R is no generative model: it sharpens what is there and invents nothing. D does invent; g in 0…1 is its weight, and
0 leaves it out.

```python
from studio.pipelines.super_resolver import SuperResolverPipeline

pipeline = SuperResolverPipeline.from_pretrained("assets/pocket/super-resolver")
enlarged, state = pipeline(pictures, 4)  # (B, T, 3, H, W) in 0…1 to (B, T, 3, 4H, 4W)
restored, state = pipeline(pictures, 4, restore=True, detail=0.5)
```

## Data

Clips of {len(photographs)} openly licensed photographs, over which a window pans, turns and zooms, with words and lines
drawn on a fifth of them; and renders of the studio's driving world. No frame of real footage. The photographs are not
shipped; they are in these packages of Debian 12:

| photograph | author | licence | package |
| --- | --- | --- | --- |
{learnt}

## Recipe

`python -m studio pocket super-resolver all --photographs / --budget cpu` (or `--budget gpu`). Muon for the body's
convolutions, AdamW for the rest, a rate that falls over the second half, an average of the weights is what ships. The
loss is the share of L's error that R leaves (Charbonnier's). D learns in three stages: what its latents carry, the step
between them, and pixels, the last through whole clips by ChopGrad, with an adversary that judges patches beside that
share. These weights were trained on {device}.

## Figures

PSNR on {held_out} clips of held-out photographs and held-out worlds, without back-projection. “With D” is at
g = 1: an error in pixels is not what it is for. A network that is below L is not exported.

| task | scale | L | with what is added | gain |
| --- | --- | --- | --- | --- |
{scored}

On real footage and beside other methods: `benchmarks/results/super_resolution.md`.
"""
