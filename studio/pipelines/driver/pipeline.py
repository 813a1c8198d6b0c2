"""DrivingPipeline: `WanVACEPipeline` with the real transformer, whose control is planes instead of a painted video.

    control = [z of the frames that are kept, which latent frames those are, planes of the maps]

Frames that are kept are also held: at every step their latents are what noise at that level makes of them, and at the
end they are themselves, so that they come out as the autoencoder alone would give them back.

Knows diffusers' class and the three of its attributes that are wrong for an autoencoder that works on patches
(diffusers#13578). Refuses to know requests and where maps come from.

Shapes: latents (1, Z, t, h, w); planes (C, t, h, w); kept latents (1, Z, k, h, w), k from 0 to t.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanVACEPipeline
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from studio.pipelines.driver.planes import CELL, CHANNELS, FRAMES

LATENT_CHANNELS = 16
CONTROL_CHANNELS = LATENT_CHANNELS + 1 + CHANNELS
"""What `vace_in_channels` of a driver's transformer is."""


class DrivingPipeline(WanVACEPipeline):
    """Called as its parent, with two arguments more."""

    def __init__(  # diffusers reads the names of components off this signature
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        scheduler: Any,
        transformer: Any = None,
        transformer_2: Any = None,
        boundary_ratio: float | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            scheduler=scheduler,
            transformer=transformer,
            transformer_2=transformer_2,
            boundary_ratio=boundary_ratio,
        )
        # The parent reckons them from a list of the autoencoder that leaves out its patches.
        self.vae_scale_factor_spatial, self.vae_scale_factor_temporal = CELL, FRAMES
        self.video_processor = VideoProcessor(vae_scale_factor=CELL)
        self._control: Tensor | None = None

    @torch.no_grad()
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *arguments: Any, planes: Tensor | None = None, kept: Tensor | None = None, **named: Any
    ) -> Any:
        """Make one clip.

        Args:
            planes: What it is held to, (C, t, h, w) as `planes_of` folds maps; None holds it to nothing.
            kept: Normalised latents (1, Z, k, h, w) that its first frames are to have; None keeps none. Where both are
                None the control blocks are not heard, and the clip is that of the model they were grown on.

        Raises:
            ValueError: planes or kept latents are of another size than the clip.
        """
        height, width, num_frames = named["height"], named["width"], named["num_frames"]
        steps = (num_frames - 1) // FRAMES + 1
        size = (steps, height // CELL, width // CELL)
        self._control = control_of(planes, kept, size).to(self._execution_device)
        if planes is None and kept is None:
            named["conditioning_scale"] = 0.0
        if kept is not None:
            named["callback_on_step_end"] = _Holding(self, kept, named.pop("callback_on_step_end", None))
        try:
            return super().__call__(*arguments, **named)
        finally:
            self._control = None

    def prepare_video_latents(self, video: Tensor, *arguments: Any, **named: Any) -> Tensor:
        assert self._control is not None
        return self._control[:, : LATENT_CHANNELS + 1]

    def prepare_masks(self, mask: Tensor, *arguments: Any, **named: Any) -> Tensor:
        assert self._control is not None
        return self._control[:, LATENT_CHANNELS + 1 :]


def control_of(planes: Tensor | None, kept: Tensor | None, size: tuple[int, int, int]) -> Tensor:
    """(1, CONTROL_CHANNELS, t, h, w): what the control blocks read.

    Raises:
        ValueError: planes or kept latents are of another size than (t, h, w).
    """
    control = torch.zeros(1, CONTROL_CHANNELS, *size)
    if kept is not None:
        if kept.shape[1] != LATENT_CHANNELS or kept.shape[2] > size[0] or tuple(kept.shape[3:]) != size[1:]:
            raise ValueError(f"kept latents {tuple(kept.shape)} do not fit a clip of latent size {size}")
        count = kept.shape[2]
        control[:, :LATENT_CHANNELS, :count] = kept
        control[:, LATENT_CHANNELS, :count] = 1
    if planes is not None:
        if tuple(planes.shape) != (CHANNELS, *size):
            raise ValueError(f"planes {tuple(planes.shape)} do not fit a clip of latent size {size}")
        control[:, LATENT_CHANNELS + 1 :] = planes
    return control


class _Holding:
    """After each step, the kept frames' latents are put back at the noise level that has been reached."""

    tensor_inputs = ("latents",)

    def __init__(self, pipe: DrivingPipeline, kept: Tensor, then: Any) -> None:
        self._kept, self._then = kept, then
        self._noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0))

    def __call__(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = tensors["latents"]
        level = float(pipe.scheduler.sigmas[step + 1])
        held = (1 - level) * self._kept + level * self._noise
        latents = latents.clone()
        latents[:, :, : held.shape[2]] = held.to(latents)
        tensors = tensors | {"latents": latents}
        if self._then is None:
            return tensors
        return tensors | (self._then(pipe, step, timestep, tensors) or {})
