"""What training asks of a family: latents of frames, embedded prompts, noise, a prediction, and where adapters sit.

    trainable.py     what they have in common, and flow matching
    flows.py         Wan, LTX-Video, HunyuanVideo, Mochi, SANA-Video
    diffusions.py    CogVideoX, Latte, Allegro

Whatever trains sees a `Trainable` and no family. Refuses to know losses, optimizers and data.
"""

from __future__ import annotations

from studio.errors import RequestError
from studio.pipelines.loaded import LoadedPipeline
from studio.pipelines.training.diffusions import Allegro, CogVideoX, Latte
from studio.pipelines.training.flows import HunyuanVideo, HunyuanVideo15, LTXVideo, Mochi, SanaVideo, Wan
from studio.pipelines.training.trainable import Prompt, Trainable

TRAINED: dict[str, type[Trainable]] = {
    "WanPipeline": Wan,
    "LTXPipeline": LTXVideo,
    "CogVideoXPipeline": CogVideoX,
    "LattePipeline": Latte,
    "HunyuanVideoPipeline": HunyuanVideo,
    "HunyuanVideo15Pipeline": HunyuanVideo15,
    "MochiPipeline": Mochi,
    "AllegroPipeline": Allegro,
    "SanaVideoPipeline": SanaVideo,
}
"""By diffusers' pipeline class."""


def to_train(ready: LoadedPipeline) -> Trainable:
    """A loaded pipeline, seen as a function to be trained.

    Raises:
        RequestError: a family that the studio does not train, or a checkpoint of one that it cannot.
    """
    reason = why_not(ready)
    if reason:
        raise RequestError(
            f"{ready.preset.title} cannot be fine-tuned here: {reason}",
            field="preset",
            value=ready.preset.name,
            way_out="Choose another preset, such as the pocket model.",
        )
    return TRAINED[ready.preset.pipeline](ready)


def why_not(ready: LoadedPipeline) -> str:
    """Why a pipeline cannot be trained; empty where it can."""
    if ready.preset.pipeline not in TRAINED:
        return f"the studio does not train a {ready.preset.pipeline}."
    if ready.placement.quantization != "none":
        return "its weights are quantised."
    return TRAINED[ready.preset.pipeline].why_not(ready.pipe)


__all__ = ["TRAINED", "Prompt", "Trainable", "to_train", "why_not"]
