"""The pocket driver: Wan VACE that is told its maps as planes and keeps frames as latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.clips.control_maps import TITLES, MapName
from studio.errors import RequestError
from studio.pipelines.conditions import Conditions
from studio.pipelines.driver import FOLLOWED, control_of, planes_of
from studio.pipelines.families import wan_vace
from studio.requests.generation import GenerationRequest


class Driving(wan_vace.WanVACE):
    """Each map has its own channels and its own strength there; how closely all are followed scales the hints."""

    pipeline = "DrivingPipeline"

    def conditioned(self, request: GenerationRequest, conditions: Conditions) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        size = request.height, request.width
        if conditions.maps is not None:
            followed: dict[MapName, float] = {
                name: value for name, value in conditions.strengths.items() if name in FOLLOWED
            }
            if not followed:
                raise RequestError(
                    f"{self.preset.title} follows none of {', '.join(TITLES[name] for name in conditions.strengths)}.",
                    field="control_strengths",
                    value=", ".join(conditions.strengths),
                    way_out=f"Give one of: {', '.join(FOLLOWED)}.",
                )
            asked["planes"] = torch.from_numpy(planes_of(conditions.maps, followed, size=size))
            asked["conditioning_scale"] = torch.full(self._layers, request.conditioning_scale)
        if conditions.kept is not None:
            asked["kept"] = self._latents_of(conditions)
            asked["conditioning_scale"] = self.hint_scale(request, conditions)
        return asked

    def closely(self, request: GenerationRequest, conditions: Conditions) -> float:
        """As closely as all maps are followed; each one's own strength is in its planes."""
        return request.conditioning_scale

    @property
    def _layers(self) -> tuple[int]:
        return (len(self.denoisers["transformer"].config.vace_layers),)

    def _latents_of(self, conditions: Conditions) -> Tensor:
        """Of the frames that are kept, (1, Z, k, h, w). A latent frame holds four, of which all are kept or none."""
        assert conditions.kept is not None
        pixels = torch.from_numpy(conditions.kept).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        return self.latents_of(pixels)

    def conditions(self, noisy: Tensor) -> dict[str, Any]:
        control = control_of(None, None, (noisy.shape[2], noisy.shape[3], noisy.shape[4])).to(noisy)
        return {
            "control_hidden_states": control.expand(noisy.shape[0], *control.shape[1:]),
            "control_hidden_states_scale": noisy.new_zeros(*self._layers),
        }
