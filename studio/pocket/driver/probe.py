"""A small judge of regions: which of the driver's six groups each pixel of a clip shows.

It learns from renders of worlds of its own as they come out of the autoencoder, since all that it is to judge comes out
of it too. Knows pixels and the driving world's regions. Refuses to know the driver: its own accuracy on worlds that it
never saw is to be printed beside whatever it says of generated clips.

Shapes: frames (B, 3, H, W) in -1..1; groups (B, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.clips.control_maps import ControlMaps
from studio.pipelines.driver import GROUPS
from studio.pocket.data import as_video
from studio.pocket.optimizer import MuonWithAdamW

FIRST_SEED = 6_000_000
"""Of the worlds that it learns from: neither the driver nor the models before it have seen them."""
WIDTHS = (24, 48, 64, 96)


class RegionProbe(nn.Module):
    """Down by four strided convolutions and up again, with what each level saw."""

    def __init__(self) -> None:
        super().__init__()
        first, *others = WIDTHS
        self.first = _twice(3, first)
        self.down = nn.ModuleList([_twice(a, b, stride=2) for a, b in zip(WIDTHS[:-1], others, strict=True)])
        self.up = nn.ModuleList([_twice(a + b, a) for a, b in zip(WIDTHS[:-1], others, strict=True)])
        self.last = nn.Conv2d(first, len(GROUPS), 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (B, groups, H, W)."""
        seen = [self.first(frames)]
        for layer in self.down:
            seen.append(layer(seen[-1]))
        x = seen.pop()
        for layer in reversed(self.up):
            skip = seen.pop()
            x = layer(torch.cat([skip, F.interpolate(x, size=skip.shape[-2:], mode="bilinear")], dim=1))
        return self.last(x)


def _twice(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1),
        nn.GroupNorm(8, after),
        nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1),
        nn.SiLU(),
    )


def groups_of(maps: ControlMaps) -> np.ndarray:
    """The group of each pixel of a world, uint8 (F, H, W)."""
    assert maps.semantic is not None
    names = list(GROUPS.values())
    table = [next(n for n, members in enumerate(names) if label in members) for label in maps.semantic_labels]
    return np.array(table, np.uint8)[maps.semantic]


def train_probe(
    frames: np.ndarray, groups: np.ndarray, *, steps: int = 700, batch: int = 12, report: Callable[[str], None] = print
) -> RegionProbe:
    """Learn from frames (N, H, W, 3) uint8 and their groups (N, H, W)."""
    torch.manual_seed(0)
    probe = RegionProbe()
    probe.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # torch's own annotation lacks it
    matrices = [p for name, p in probe.named_parameters() if p.ndim == 4 and not name.startswith(("first.0", "last"))]
    taken = {id(p) for p in matrices}
    others = [p for p in probe.parameters() if id(p) not in taken]
    optimizer = MuonWithAdamW(matrices, others, muon_lr=0.02, adam_lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.scale_lr(min(1.0, (step + 1) / 50, 2 * (steps - step) / steps))
        rows = torch.randint(len(frames), (batch,), generator=generator).sort().values.numpy()
        pictures = as_video(frames[rows][:, None])[:, :, 0].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            said = probe(pictures)
        loss = F.cross_entropy(said.float(), torch.from_numpy(groups[rows].astype(np.int64)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            report(f"probe {step}/{steps} loss {loss.item():.3f}")
    return probe.eval()


@torch.no_grad()
def read_groups(probe: RegionProbe, clip: np.ndarray) -> np.ndarray:
    """The group of each pixel, uint8 (F, H, W), of a clip (F, H, W, 3)."""
    pictures = as_video(clip[:, None])[:, :, 0].contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        return probe(pictures).argmax(dim=1).to(torch.uint8).numpy()


def save_probe(probe: RegionProbe, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(probe.state_dict(), path)


def load_probe(path: Path) -> RegionProbe:
    probe = RegionProbe()
    probe.load_state_dict(torch.load(path, weights_only=True))
    return probe.eval()
