"""The model card of a trained harmoniser: what it is, what it learnt from, and what it scored.

Knows words. Refuses to measure anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from studio.pocket.harmoniser.recipe import Gain


def card(found: Mapping[str, Gain], *, held_out: int, parameters: int, device: str) -> str:
    """In the Hub's format.

    Args:
        found: On held-out pairs, by condition.
        held_out: Pairs that were scored.
        parameters: Of the network.
        device: What it was trained on.
    """
    scored = "\n".join(
        f"| {name} | {gain.paste:.2f} dB | {gain.made:.2f} dB | {gain.on:+.2f} dB "
        f"| {gain.paste_beside:.2f} dB | {gain.made_beside:.2f} dB | {gain.beside:+.2f} dB |"
        for name, gain in found.items()
    )
    return f"""---
license: apache-2.0
library_name: diffusers
tags:
- harmonisation
- video
- driving
- tiny
---

# Pocket harmoniser

A vehicle that was pasted into a clip comes out lit, shadowed and blended, in one step: the latent of the paste, z₁,
becomes z₀ = z₁ − v(z₁), and a causal decoder that also sees what was given makes of it a gain and an offset for each
value of the paste. What hour and weather it is it learns from the whole picture, made small. It changes the paste and a
zone around it, farthest towards the ground; everywhere else the source's own bytes stay. {parameters:,} parameters.

```python
from studio.pipelines.harmoniser import harmonised, load_harmoniser, surroundings_of, zone_of

network = load_harmoniser(Path("assets/pocket/harmoniser"))
zone = np.stack([zone_of(each) for each in alpha])  # (F, H, W)
around = np.stack([surroundings_of(picture, 32) for picture in whole])  # (F, 32, 32, 3)
made, state = harmonised(network, source, paste, alpha, zone, around)  # uint8 (F, H, W, 3)
```

Or `python -m studio harmonise in.mp4 --vehicle car.png --path "0:120,300,80 24:300,310,120" -o out.mp4`.

## Data

Renders of the studio's driving world, and nothing else. A seed fixes what stands where, whatever the hour and the
weather, so a vehicle cut out of the clear day lies exactly where it would drive at night or in the snow: paste and
truth are a pair. Vehicles are cut out softly, hard, blurred and with a rim too many, and a fifth of them at another
hour or in other weather; exposures vary. No real footage: on a real road it lights and shades as the driving world
does, which is a simple world.

## Recipe

`python -m studio pocket harmoniser all --budget cpu` (or `--budget gpu`). Three stages: what latents carry, the step
between them, and pixels; the last goes back through whole clips by ChopGrad's exact mode and trains encoder, denoiser
and decoder together. The loss is the share of the paste's error that is left, on the vehicle and in the zone around it.
Muon for the bodies' convolutions, AdamW for the rest, a rate that falls over the second half; an average of the weights
ships. These weights were trained on {device}.

## Figures

PSNR on {held_out} pairs of held-out worlds at 160×160, means over clips: on the vehicle's pixels, and in the zone
around it. A network that makes either worse than the paste is, is not exported.

| condition | paste | made | gain | around: paste | made | gain |
| --- | --- | --- | --- | --- | --- | --- |
{scored}

Beside gain transfer and seamless cloning: `benchmarks/results/harmonise.md`.
"""
