"""Placement: on what and how a model runs here, decided before anything is loaded, with the reasons in words.

Knows memory, number formats and what diffusers offers to save either. Refuses to know files and pipelines.

What changes the picture (number formats, tiling, quantisation) is decided by the memory this machine *has*, so that the
same request on the same machine gives the same clip whatever else is running. What does not change it (offloading) is
decided by the memory that is *free* now. All sizes are bytes; a gigabyte is 10⁹ of them.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from studio.errors import DoesNotFit, RequestError
from studio.events import Placement
from studio.pipelines.families import family_of
from studio.preset import Dtype, Preset
from studio.request import GenerationRequest

if TYPE_CHECKING:
    from studio.machine import Machine

GB = 10**9
SPARE_SHARE = 0.1
"""Of all memory, what is left to the system, the drivers and fragmentation."""
RUNTIME_BYTES = int(0.8 * GB)
"""What an accelerator's context and libraries take before the first tensor."""
DECODE_BYTES_PER_PIXEL = 3000
"""Working memory of a float32 autoencoder for each pixel of a frame while it decodes a latent frame (four frames)."""
DENOISE_BYTES_PER_PIXEL_FRAME = 24
"""Working memory of a 16-bit transformer for each pixel of the whole clip."""
TILED_PIXELS = 256 * 256
"""Pixels of the tiles that diffusers' autoencoders fall back to."""
BLOCK_SHARE = 0.1
"""Of a model's weights, what group offloading keeps on the accelerator: the block at work and the one on its way."""
LEAF_SHARE = 0.02
"""The same for sequential offloading, which moves single layers."""

Offload = Literal["none", "model", "group", "sequential"]
OFFLOADS: tuple[Offload, ...] = ("none", "model", "group", "sequential")
"""From the fastest to the leanest."""

BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a request takes, in bytes, once formats are chosen."""

    transformer: int
    text_encoder: int
    vae: int
    working: int
    """Largest of what denoising and decoding hold besides weights."""

    @property
    def weights(self) -> int:
        return self.transformer + self.text_encoder + self.vae

    def on_accelerator(self, offload: Offload) -> int:
        """The most that is on the accelerator at once."""
        largest = max(self.transformer, self.text_encoder, self.vae)
        resident = {
            "none": self.weights,
            "model": largest,
            "group": self.vae + int(BLOCK_SHARE * max(self.transformer, self.text_encoder)),
            "sequential": int(LEAF_SHARE * self.weights),
        }[offload]
        return resident + self.working + RUNTIME_BYTES


def int8_backend(device: str) -> str | None:
    """The installed library that holds weights in 8 bits on this device, or None."""
    if importlib.util.find_spec("torchao"):
        return "torchao"
    if device == "cuda" and importlib.util.find_spec("bitsandbytes"):
        return "bitsandbytes"
    return None


def place(preset: Preset, request: GenerationRequest, machine: Machine, *, held_bytes: int = 0) -> Placement:
    """Decide where and how a request runs.

    Args:
        held_bytes: What a model loaded earlier holds; it is counted as free, since it is reused or dropped first.

    Raises:
        DoesNotFit: no way of running it here, with the numbers.
        RequestError: something was asked for that this machine does not have.
    """
    if machine.accelerator is None:
        return _place_on_cpu(preset, request, machine, held_bytes)
    return _place_on_accelerator(preset, request, machine, held_bytes)


def _place_on_cpu(preset: Preset, request: GenerationRequest, machine: Machine, held_bytes: int) -> Placement:
    reasons = ["No accelerator: everything runs on the processor."]
    if request.offload not in ("auto", "none"):
        raise RequestError(
            f"offload = {request.offload} needs an accelerator, and this machine has none.",
            field="offload",
            value=request.offload,
            way_out="Leave offload at auto.",
        )
    room = int(machine.ram_total * (1 - SPARE_SHARE))
    vae_dtype: Dtype = "bfloat16" if machine.bf16 else "float32"
    if machine.bf16:
        reasons.append(
            "The autoencoder runs in bfloat16, channels-last: this processor multiplies bfloat16 in hardware, and its "
            "convolutions are then several times faster."
        )
    tiling = _tiling(request, needs_it=_need(preset, request, "float32", vae_dtype, "none", False).working > room // 2)
    if request.vae_tiling == "auto" and tiling:
        reasons.append(f"Decoding in tiles: whole frames would take more than half of {_gb(machine.ram_total)}.")

    quantization = _asked_quantization(request, "cpu")
    dtype = _asked_dtype(request)
    if dtype is None:
        dtype = "float32"
        if _need(preset, request, dtype, vae_dtype, quantization, tiling).weights > room:
            dtype = "bfloat16"
            reasons.append(f"Weights in bfloat16: in float32 they would not fit {_gb(machine.ram_total)} of memory.")
    need = _need(preset, request, dtype, vae_dtype, quantization, tiling)
    total = need.weights + need.working
    if total > room and request.quantization == "auto" and int8_backend("cpu"):
        smaller = _need(preset, request, dtype, vae_dtype, "int8", tiling)
        if smaller.weights + smaller.working <= room:
            quantization, need, total = "int8", smaller, smaller.weights + smaller.working
            reasons.append(f"Transformer weights in 8 bits: at 16 they would not fit {_gb(machine.ram_total)}.")
    if total > room:
        raise _does_not_fit(preset, request, total, machine.ram_total, "memory")
    free = machine.ram_free + held_bytes
    if total > free:
        raise DoesNotFit(
            f"{preset.title} at this size needs about {_gb(total)} of memory; {_gb(free)} are free now.",
            field="preset",
            value=preset.name,
            way_out="Close other programs, or choose a smaller size or length.",
        )
    return Placement(
        device="cpu",
        device_name=machine.cpu_name,
        torch_dtype=dtype,
        vae_dtype=vae_dtype,
        channels_last=machine.bf16,
        offload="none",
        vae_tiling=tiling,
        quantization=quantization,
        reasons=tuple(reasons),
    )


def _place_on_accelerator(preset: Preset, request: GenerationRequest, machine: Machine, held_bytes: int) -> Placement:
    device = str(machine.accelerator)
    reasons: list[str] = []
    dtype = _asked_dtype(request)
    if dtype is None:
        dtype = preset.torch_dtype
        if dtype == "bfloat16" and not machine.bf16:
            dtype = "float16"
            reasons.append(f"Weights in float16: {machine.accelerator_name} has no bfloat16.")
    vae_dtype: Dtype = "float32" if family_of(preset).float32_vae else dtype

    vram = int(machine.vram_total * (1 - SPARE_SHARE))
    untiled = _need(preset, request, dtype, vae_dtype, "none", False)
    tiling = _tiling(request, needs_it=untiled.vae + untiled.working + RUNTIME_BYTES > vram)
    if request.vae_tiling == "auto" and tiling:
        reasons.append(f"Decoding in tiles: whole frames would not fit {_gb(machine.vram_total)}.")

    quantization = _asked_quantization(request, device)
    if request.quantization == "auto" and int8_backend(device):
        plain = _need(preset, request, dtype, vae_dtype, "none", tiling)
        small = _need(preset, request, dtype, vae_dtype, "int8", tiling)
        ram_room = int(machine.ram_total * (1 - SPARE_SHARE))
        helps = plain.on_accelerator("model") > vram >= small.on_accelerator("model")
        if helps or (plain.weights > ram_room >= small.weights and plain.on_accelerator("none") > vram):
            quantization = "int8"
            reasons.append(f"Transformer weights in 8 bits: at 16 they would not fit {_gb(machine.vram_total)}.")
    need = _need(preset, request, dtype, vae_dtype, quantization, tiling)
    offload = _offload(preset, request, machine, need, held_bytes, reasons)
    return Placement(
        device=device,
        device_name=machine.accelerator_name or device,
        torch_dtype=dtype,
        vae_dtype=vae_dtype,
        channels_last=False,
        offload=offload,
        vae_tiling=tiling,
        quantization=quantization,
        reasons=tuple(reasons),
    )


def _offload(
    preset: Preset, request: GenerationRequest, machine: Machine, need: Need, held_bytes: int, reasons: list[str]
) -> Offload:
    """The fastest way of moving weights that fits the free accelerator memory."""
    free = min(machine.vram_free + held_bytes, machine.vram_total)
    # Unified memory has one pool, and diffusers' streams are CUDA's: nothing is gained by moving weights about on mps.
    choices: tuple[Offload, ...] = OFFLOADS if machine.accelerator == "cuda" else ("none",)
    if request.offload != "auto":
        if request.offload not in choices:
            raise RequestError(
                f"offload = {request.offload} saves nothing on {machine.accelerator}.",
                field="offload",
                value=request.offload,
                way_out="Leave offload at auto.",
            )
        choices = (request.offload,)
    for offload in choices:
        if need.on_accelerator(offload) > free:
            continue
        if offload != "none":
            if need.weights > machine.ram_free + held_bytes:
                raise _does_not_fit(preset, request, need.weights, machine.ram_free, "main memory to offload to")
            reasons.append(
                f"Offloading ({offload}): all of it would take {_gb(need.on_accelerator('none'))}, and {_gb(free)} are "
                f"free on {machine.accelerator_name}."
            )
        return offload
    raise _does_not_fit(preset, request, need.on_accelerator(choices[-1]), free, "free accelerator memory")


def _need(
    preset: Preset, request: GenerationRequest, dtype: Dtype, vae_dtype: Dtype, quantization: str, tiling: bool
) -> Need:
    pixels = request.height * request.width
    decode_pixels = min(pixels, TILED_PIXELS) if tiling else pixels
    decode = decode_pixels * DECODE_BYTES_PER_PIXEL * BYTES[vae_dtype] // 4
    clip = pixels * request.num_frames * 3 * 4 * 2  # the decoded frames in float32, and their copy on the way to 8 bits
    denoise = pixels * request.num_frames * DENOISE_BYTES_PER_PIXEL_FRAME * BYTES[dtype] // 2
    weight_bytes = 1 if quantization == "int8" else BYTES[dtype]
    return Need(
        transformer=preset.memory.transformer_parameters * weight_bytes,
        text_encoder=preset.memory.text_encoder_parameters * BYTES[dtype],
        vae=preset.memory.vae_parameters * BYTES[vae_dtype],
        working=max(denoise, decode + clip),
    )


def _asked_dtype(request: GenerationRequest) -> Dtype | None:
    return None if request.torch_dtype == "auto" else request.torch_dtype


def _asked_quantization(request: GenerationRequest, device: str) -> str:
    if request.quantization != "int8":
        return "none"
    if int8_backend(device) is None:
        raise RequestError(
            "quantization = int8 needs a library that is not installed.",
            field="quantization",
            value=request.quantization,
            way_out="Install torchao (pip install 'dailies[quantization]'), or leave quantization at auto.",
        )
    return "int8"


def _tiling(request: GenerationRequest, *, needs_it: bool) -> bool:
    return needs_it if request.vae_tiling == "auto" else request.vae_tiling == "on"


def _does_not_fit(preset: Preset, request: GenerationRequest, needed: int, there: int, of_what: str) -> DoesNotFit:
    return DoesNotFit(
        f"{preset.title} at {request.height}×{request.width}, {request.num_frames} frames, needs about {_gb(needed)} "
        f"of {of_what}; there are {_gb(there)}.",
        field="preset",
        value=preset.name,
        way_out="Choose a smaller size or length, a smaller preset, or a machine with more memory.",
    )


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
