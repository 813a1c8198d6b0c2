"""Placement: on what and how a model runs here, decided before anything is loaded, with the reasons in words.

Knows memory, number formats and what diffusers offers to save either. Refuses to know files and pipelines.

What changes the picture (number formats, tiling, quantisation) is decided by the memory this machine *has*, so that the
same request on the same machine gives the same clip whatever else is running. What does not change it (offloading) is
decided by the memory that is *free* now. All sizes are bytes; a gigabyte is 10⁹ of them.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from studio.errors import DoesNotFit, RequestError
from studio.events import Placement
from studio.machine.hardware import SPARE_SHARE, Machine, gigabytes
from studio.machine.memory import OFFLOADS, Need, Offload, decodes_in_tiles, need_of
from studio.pipelines.families import Family, family_of
from studio.preset import Dtype, Preset
from studio.requests.generation import GenerationRequest


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
        RequestError: something was asked for that this machine or model does not have.
    """
    family = family_of(preset)
    _check_what_the_family_lacks(preset, request, family)
    decide = _place_on_cpu if machine.accelerator is None else _place_on_accelerator
    return decide(preset, request, machine, family, held_bytes)


def _check_what_the_family_lacks(preset: Preset, request: GenerationRequest, family: Family) -> None:
    if request.negative_prompt and not family.takes_negative_prompt:
        raise RequestError(
            f"{preset.title} has no negative prompt: its guidance is built in.",
            field="negative_prompt",
            value=request.negative_prompt,
            way_out="Leave negative_prompt empty.",
        )
    if request.vae_tiling == "off" and family.always_tiles:
        raise RequestError(
            f"{preset.title} decodes in tiles only.",
            field="vae_tiling",
            value=request.vae_tiling,
            way_out="Leave vae_tiling at auto.",
        )


def _place_on_cpu(
    preset: Preset, request: GenerationRequest, machine: Machine, family: Family, held_bytes: int
) -> Placement:
    reasons = ["No accelerator: everything runs on the processor."]
    if request.offload not in ("auto", "none"):
        raise RequestError(
            f"offload = {request.offload} needs an accelerator, and this machine has none.",
            field="offload",
            value=request.offload,
            way_out="Leave offload at auto.",
        )
    room = _room(machine.ram_total)
    has = gigabytes(machine.ram_total)
    asked = _asked_dtype(request)
    # float32 is asked for where 16 bits gave NaN, so it is meant for everything.
    vae_dtype: Dtype = "bfloat16" if machine.bf16 and asked != "float32" else "float32"
    if vae_dtype == "bfloat16":
        reasons.append(
            "The autoencoder runs in bfloat16, channels-last: this processor multiplies bfloat16 in hardware, and its "
            "convolutions are then several times faster."
        )
    whole = _need(preset, request, asked or "float32", vae_dtype, tiled=False)
    tiled = family.always_tiles or _asked_or(request.vae_tiling, needed=whole.working > room // 2)
    if tiled and request.vae_tiling == "auto" and not family.always_tiles:
        reasons.append(f"Decoding in tiles: whole frames would take more than half of {has}.")

    int8 = _asked_int8(request, "cpu")
    dtype: Dtype = "bfloat16" if int8 else asked or "float32"
    if asked is None and _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=int8).weights > room:
        dtype = "bfloat16"
        reasons.append(f"Weights in bfloat16: in float32 they would not fit {has} of memory.")
    need = _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=int8)
    if need.total > room and request.quantization == "auto" and dtype == "bfloat16" and int8_backend("cpu"):
        need = _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=True)
        int8 = True
        reasons.append(f"Transformer weights in 8 bits: in {dtype} they would not fit {has} of memory.")
    if need.total > room:
        raise _does_not_fit(preset, request, need.total, machine.ram_total, "memory")
    free = machine.ram_free + held_bytes
    if need.total > free:
        raise _does_not_fit(preset, request, need.total, free, "free memory", way_out="Close other programs, or choose")
    return Placement(
        device="cpu",
        device_name=machine.cpu_name,
        torch_dtype=dtype,
        vae_dtype=vae_dtype,
        channels_last=vae_dtype == "bfloat16",
        offload="none",
        vae_tiling=tiled,
        quantization="int8" if int8 else "none",
        reasons=tuple(reasons),
    )


def _place_on_accelerator(
    preset: Preset, request: GenerationRequest, machine: Machine, family: Family, held_bytes: int
) -> Placement:
    device = str(machine.accelerator)
    reasons: list[str] = []
    has = gigabytes(machine.vram_total)
    int8 = _asked_int8(request, device)
    dtype = "bfloat16" if int8 else _asked_dtype(request)
    if dtype is None:
        dtype = preset.torch_dtype
        if dtype == "bfloat16" and not machine.bf16:
            dtype = "float16"
            reasons.append(f"Weights in float16: {machine.accelerator_name} has no bfloat16.")
    vae_dtype: Dtype = "float32" if family.float32_vae else dtype

    vram, ram = _room(machine.vram_total), _room(machine.ram_total)
    whole, in_tiles = (_need(preset, request, dtype, vae_dtype, tiled=tiled) for tiled in (False, True))
    tiled = family.always_tiles or _asked_or(request.vae_tiling, needed=decodes_in_tiles(whole, in_tiles, vram))
    if tiled and request.vae_tiling == "auto" and not family.always_tiles:
        reasons.append(f"Decoding in tiles: with whole frames not everything would fit {has}.")

    plain = _need(preset, request, dtype, vae_dtype, tiled=tiled)
    small = _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=True)
    if request.quantization == "auto" and dtype == "bfloat16" and int8_backend(device):
        # Where they spare offloading by blocks, or where main memory is too small for the weights otherwise.
        spares_blocks = plain.on_accelerator("model") > vram >= small.on_accelerator("model")
        spares_ram = plain.weights > ram >= small.weights and plain.on_accelerator("none") > vram
        int8 = spares_blocks or spares_ram
        if int8:
            reasons.append(f"Transformer weights in 8 bits: in {dtype} they would not fit {has} one model at a time.")
    return Placement(
        device=device,
        device_name=machine.accelerator_name or device,
        torch_dtype=dtype,
        vae_dtype=vae_dtype,
        channels_last=False,
        offload=_offload(preset, request, machine, small if int8 else plain, held_bytes, reasons),
        vae_tiling=tiled,
        quantization="int8" if int8 else "none",
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
                raise _does_not_fit(preset, request, need.weights, machine.ram_free, "free memory to offload to")
            reasons.append(
                f"Offloading ({offload}): all of it would take {gigabytes(need.on_accelerator('none'))}, and "
                f"{gigabytes(free)} are free on {machine.accelerator_name}."
            )
        return offload
    raise _does_not_fit(preset, request, need.on_accelerator(choices[-1]), free, "free accelerator memory")


def _need(
    preset: Preset, request: GenerationRequest, dtype: Dtype, vae_dtype: Dtype, *, tiled: bool, int8: bool = False
) -> Need:
    return need_of(
        preset,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        dtype=dtype,
        vae_dtype=vae_dtype,
        tiled=tiled,
        int8=int8,
    )


def _room(total: int) -> int:
    return int(total * (1 - SPARE_SHARE))


def _asked_dtype(request: GenerationRequest) -> Dtype | None:
    return None if request.torch_dtype == "auto" else request.torch_dtype


def _asked_int8(request: GenerationRequest, device: str) -> bool:
    if request.quantization != "int8":
        return False
    if int8_backend(device) is None:
        raise RequestError(
            "quantization = int8 needs a library that is not installed.",
            field="quantization",
            value=request.quantization,
            way_out="Install torchao (pip install 'dailies[quantization]'), or leave quantization at auto.",
        )
    if request.torch_dtype not in ("auto", "bfloat16"):
        raise RequestError(
            f"Weights in 8 bits are multiplied in bfloat16, not in {request.torch_dtype}.",
            field="torch_dtype",
            value=request.torch_dtype,
            way_out="Leave torch_dtype at auto, or quantization at none.",
        )
    return True


def _asked_or(asked: Literal["auto", "on", "off"], *, needed: bool) -> bool:
    return needed if asked == "auto" else asked == "on"


def _does_not_fit(
    preset: Preset, request: GenerationRequest, needed: int, there: int, of_what: str, way_out: str = "Choose"
) -> DoesNotFit:
    return DoesNotFit(
        f"{preset.title} at {request.height}×{request.width}, {request.num_frames} frames, needs about "
        f"{gigabytes(needed)} of {of_what}; there are {gigabytes(there)}.",
        field="preset",
        value=preset.name,
        way_out=f"{way_out} a smaller size or length, a smaller preset, or a machine with more memory.",
    )
