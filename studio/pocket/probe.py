"""A small judge that reads a clip's attributes from its pixels: time of day, weather, lanes, vehicle colour and type.

Knows pixels and the driving world's words. Refuses to know the generator: it learns from renders only, and its own
accuracy on renders that it never saw is to be printed beside whatever it says of generated clips.

Shapes: a clip is (F, H, W, 3) uint8; the judge looks at LOOKED_AT of its frames, (B, 3, T, H, W) in -1..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.pocket.data import as_video
from studio.pocket.optimizer import MuonWithAdamW

LOOKED_AT = (1, 8, 15)
"""Frames that the judge sees, of 17."""


def questions() -> dict[str, tuple[Any, ...]]:
    """What is asked, and the possible answers."""
    from studio.driving_world import LANE_COUNTS, TIMES_OF_DAY, VEHICLE_COLOURS, VEHICLE_TYPES, WEATHERS

    return {
        "time_of_day": TIMES_OF_DAY,
        "weather": WEATHERS,
        "lanes": LANE_COUNTS,
        "vehicle_colour": VEHICLE_COLOURS,
        "vehicle_type": VEHICLE_TYPES,
    }


class Probe(nn.Module):
    """Five strided convolutions a frame; frames pooled by mean and maximum; one linear head a question."""

    def __init__(self, answers: dict[str, int]) -> None:
        super().__init__()
        widths = (16, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            if width >= 32:
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
            before = width
        self.eye = nn.Sequential(*layers)
        self.place = nn.Conv2d(before, 64, 1)
        self.joint = nn.Linear(2 * 64 * 16, 256)
        self.heads = nn.ModuleDict({name: nn.Linear(256, count) for name, count in answers.items()})

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Logits (B, answers) for each question; clips (B, 3, T, H, W)."""
        batch, _, length = clips.shape[:3]
        seen = self.place(self.eye(clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)))
        seen = F.adaptive_avg_pool2d(seen, 4).flatten(1).unflatten(0, (batch, length))
        pooled = F.silu(self.joint(torch.cat([seen.mean(dim=1), seen.amax(dim=1)], dim=1)))
        return {name: head(pooled) for name, head in self.heads.items()}


def train_probe(
    frames: np.ndarray,
    attributes: Sequence[dict[str, Any]],
    *,
    steps: int = 900,
    batch: int = 32,
    report: Callable[[str], None] = print,
) -> Probe:
    """Learn from renders (N, F, H, W, 3), softened and noised at random so that a decoder's blur means nothing."""
    asked = questions()
    torch.manual_seed(0)
    probe = Probe({name: len(answers) for name, answers in asked.items()})
    matrices = [p for name, p in probe.named_parameters() if p.ndim >= 2 and "heads" not in name]
    others = [p for name, p in probe.named_parameters() if p.ndim < 2 or "heads" in name]
    optimizer = MuonWithAdamW(matrices, others, muon_lr=0.02, adam_lr=2e-3)
    labels = {name: torch.tensor([answers.index(a[name]) for a in attributes]) for name, answers in asked.items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.scale_lr(min(1.0, (step + 1) / 50, 2 * (steps - step) / steps))
        rows = torch.randint(len(frames), (batch,), generator=generator).sort().values
        clips = _disturbed(as_video(frames[rows.numpy()][:, LOOKED_AT]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            said = probe(clips)
        loss = sum((F.cross_entropy(said[name].float(), labels[name][rows]) for name in asked), torch.zeros(()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 200 == 0 or step == steps - 1:
            report(f"probe {step}/{steps} loss {loss.item():.3f}")
    return probe.eval()


def _disturbed(clips: Tensor, generator: torch.Generator) -> Tensor:
    if torch.rand((), generator=generator) < 0.5:
        frames = clips.transpose(1, 2).flatten(0, 1)
        small = F.interpolate(frames, scale_factor=0.6, mode="bilinear", antialias=True)
        frames = F.interpolate(small, size=clips.shape[-2:], mode="bilinear")
        clips = frames.unflatten(0, (clips.shape[0], clips.shape[2])).transpose(1, 2)
    strength = 0.1 * torch.rand((), generator=generator)
    return clips + strength * torch.randn(clips.shape, generator=generator)


@torch.no_grad()
def read_attributes(probe: Probe, clips: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """What the judge sees in each clip (17, H, W, 3)."""
    asked = questions()
    found = []
    for clip in clips:
        said = probe(as_video(clip[None][:, LOOKED_AT]))
        found.append({name: answers[int(said[name][0].argmax())] for name, answers in asked.items()})
    return found


def agreement(found: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of clips, 0 to 1, for each question."""
    return {name: float(np.mean([f[name] == w[name] for f, w in zip(found, wanted, strict=True)])) for name in found[0]}


def save_probe(probe: Probe, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(probe.state_dict(), path)


def load_probe(path: Path) -> Probe:
    probe = Probe({name: len(answers) for name, answers in questions().items()})
    probe.load_state_dict(torch.load(path, weights_only=True))
    return probe.eval()
