"""How much of everything a pocket training takes: `--budget cpu`, `gpu`, or `toy` for a dry run of the whole.

Knows numbers. Refuses to know torch and what is done with them. On a card the clock is what is short, so its stages end
by seconds, and their rates fall by the clock too; on processors they end by steps, and go on bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """What a batch of the autoencoder holds."""

    batch: int
    length: int
    """Frames, 4k+1."""
    size: int
    """Rows and columns."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Of a whole training, from nothing to the checkpoint."""

    worlds: int
    """Rendered training clips."""
    stills: int
    """Further worlds of which one frame is rendered."""
    steps: dict[str, int]
    """Optimizer steps of each training stage, at most."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each training stage, at most; where it has some, its learning rates follow the clock."""
    frame_crops: CropPlan
    """A batch of `autoencoder-frames`."""
    clip_crops: tuple[CropPlan, ...]
    """Batches of the stages on clips, in turn. Some are single frames: a clip's first one, which has no past, must
    stay sharp."""
    late_crops: CropPlan | None = None
    """Every other batch of their last fifth: attention in the middle must see whole frames before it ends."""
    clip_square: float = 1.0
    """Weight of the squared error in `autoencoder-clips`."""
    clip_noise: float = 0.1
    """Standard deviation of the noise on the latent there."""
    stills_batch: int
    """Single-frame latents of a denoiser's step."""
    clips_batch: int
    """Clips' latents of a denoiser's step."""
    stills_every: int
    """In `denoiser-clips`, every so many steps are single frames."""
    watched: int = 12
    """Held-out worlds that are looked at now and then: reconstructed, and generated from their captions."""
    compiled: bool = True
    """Whether the denoiser's blocks are compiled, which takes half a minute."""

    def crops_at(self, step: int, steps: int) -> CropPlan:
        """The batch of a step on clips."""
        single = self.clip_crops[step % len(self.clip_crops)].length == 1
        if self.late_crops is not None and step > 0.8 * steps and step % 2 and not single:
            return self.late_crops
        return self.clip_crops[step % len(self.clip_crops)]


_ALONE = CropPlan(batch=16, length=1, size=64)
_SHORT, _WHOLE = CropPlan(batch=4, length=9, size=64), CropPlan(batch=2, length=17, size=64)

CPU = Amounts(
    worlds=3000,
    stills=8000,
    steps={
        "text-encoder": 900,
        "autoencoder-frames": 1300,
        "autoencoder-clips": 3600,
        "autoencoder-decoder": 700,
        "denoiser-frames": 864,
        "denoiser-clips": 5000,
    },
    frame_crops=CropPlan(batch=16, length=1, size=64),
    clip_crops=tuple(_ALONE if step % 8 == 0 else _WHOLE if step % 3 == 0 else _SHORT for step in range(24)),
    late_crops=CropPlan(batch=1, length=9, size=128),
    stills_batch=32,
    clips_batch=8,
    stills_every=2,
)
"""Three hours and a quarter on two cores, each step in two processes at once."""

_HALF, _FULL = CropPlan(batch=16, length=17, size=64), CropPlan(batch=8, length=17, size=128)

GPU = Amounts(
    worlds=12_000,
    stills=30_000,
    steps={
        "text-encoder": 900,
        "autoencoder-frames": 100_000,
        "autoencoder-clips": 100_000,
        "autoencoder-decoder": 100_000,
        "denoiser-frames": 100_000,
        "denoiser-clips": 100_000,
    },
    seconds={
        "text-encoder": 12.0,
        "autoencoder-frames": 35.0,
        "autoencoder-clips": 105.0,
        "autoencoder-decoder": 18.0,
        "denoiser-frames": 35.0,
        "denoiser-clips": 120.0,
    },
    frame_crops=CropPlan(batch=128, length=1, size=64),
    clip_crops=(_FULL, _HALF, _FULL, _HALF, _FULL, _HALF, _FULL, CropPlan(batch=64, length=1, size=128)),
    clip_square=2.0,
    clip_noise=0.07,
    stills_batch=384,
    clips_batch=192,
    stills_every=4,
)
"""Within ten minutes on one card of the H100's kind with sixteen cores beside it, of which rendering takes two."""

TOY = Amounts(
    worlds=12,
    stills=6,
    steps=dict.fromkeys(CPU.steps, 2),
    seconds=dict.fromkeys(GPU.seconds, 60.0),
    frame_crops=CropPlan(batch=2, length=1, size=32),
    clip_crops=(CropPlan(batch=1, length=5, size=32), CropPlan(batch=2, length=1, size=64)),
    late_crops=None,
    stills_batch=2,
    clips_batch=1,
    stills_every=2,
    watched=1,
    compiled=False,
)
"""Every stage from end to end in a minute; what it makes is noise."""

BUDGETS = {"cpu": CPU, "gpu": GPU, "toy": TOY}
