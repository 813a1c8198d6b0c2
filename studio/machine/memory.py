"""Memory: what a clip takes while it is made, once number formats are chosen.

Knows arithmetic and a preset's own figures, which `benchmarks/working_memory.py` counts tensor by tensor on the real
classes without computing anything. Refuses to know machines and requests (`placement`). All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.preset import Dtype, Preset

Offload = Literal["none", "model", "group", "sequential"]
OFFLOADS: tuple[Offload, ...] = ("none", "model", "group", "sequential")
"""From the fastest to the leanest."""
OFFLOAD_SHARE = {"group": 0.1, "sequential": 0.02}
"""Of a model's weights, what stays on the accelerator when they are moved there block by block, or layer by layer."""
RUNTIME_BYTES = 800 * 10**6
"""What an accelerator's context and libraries take before the first tensor."""
CLIP_BYTES_PER_PIXEL_FRAME = 24
"""The decoded clip in float32, three colours, and its copy on the way to 8 bits."""
BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a clip takes."""

    transformer: int
    text_encoder: int
    vae: int
    denoise: int
    """Besides weights, while the transformer works."""
    decode: int
    """Besides weights, while the autoencoder works, the finished clip included."""

    @property
    def weights(self) -> int:
        return self.transformer + self.text_encoder + self.vae

    @property
    def working(self) -> int:
        return max(self.denoise, self.decode)

    @property
    def total(self) -> int:
        return self.weights + self.working

    def on_accelerator(self, offload: Offload) -> int:
        """The most that is on the accelerator at once."""
        share = OFFLOAD_SHARE.get(offload, 1.0)
        transformer, text_encoder = int(share * self.transformer), int(share * self.text_encoder)
        peak = {
            "none": self.total,
            "model": max(text_encoder, transformer + self.denoise, self.vae + self.decode),
            "group": self.vae + max(text_encoder, transformer + self.denoise, self.decode),
            "sequential": max(text_encoder, transformer + self.denoise, int(share * self.vae) + self.decode),
        }[offload]
        return peak + RUNTIME_BYTES


def decodes_in_tiles(whole: Need, tiled: Need, room: int) -> bool:
    """Whether tiles are worth their faint seams on an accelerator with `room` bytes.

    They are where whole frames would not fit even with everything else moved away, and where they are all that stands
    between offloading and none.
    """
    alone = whole.vae + whole.decode + RUNTIME_BYTES
    return alone > room or whole.on_accelerator("none") > room >= tiled.on_accelerator("none")


def need_of(
    preset: Preset,
    *,
    height: int,
    width: int,
    num_frames: int,
    dtype: Dtype,
    vae_dtype: Dtype,
    tiled: bool,
    int8: bool = False,
) -> Need:
    """What a clip of that size takes with weights in these formats."""
    memory, pixels = preset.memory, height * width
    decode_pixels = min(pixels, memory.tile_pixels) if tiled else pixels
    decode = decode_pixels * (memory.decode_bytes + memory.decode_clip_bytes * num_frames) * BYTES[vae_dtype] // 4
    denoise = pixels * num_frames * memory.denoise_bytes * BYTES[dtype] // 2
    clip = pixels * num_frames * CLIP_BYTES_PER_PIXEL_FRAME
    return Need(
        transformer=memory.transformer_parameters * (1 if int8 else BYTES[dtype]),
        text_encoder=memory.text_encoder_parameters * BYTES[dtype],
        vae=memory.vae_parameters * BYTES[vae_dtype],
        denoise=denoise,
        decode=decode + clip,
    )
