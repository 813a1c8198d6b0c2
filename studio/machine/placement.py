"""Placement: on what and how a model runs here, decided before anything is loaded, with the reasons in words.

Knows memory, number formats and what diffusers offers to save either. Refuses to know files, pipelines and torch, so
that the page can ask too: its verdict on a preset is the placement of the preset's defaults, put into words.

What changes the picture (number formats, tiling, quantisation) is decided by the memory this machine *has*, so that the
same request on the same machine gives the same clip whatever else is running. What does not change it (offloading) is
decided by the memory that is *free* now. All sizes are bytes; a gigabyte is 10⁹ of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.errors import DoesNotFit, RequestError
from studio.events import Placement
from studio.family import Checkpoint
from studio.machine.hardware import ATTENTION_LIBRARIES, Machine, gigabytes, usable
from studio.machine.memory import OFFLOADS, Need, Offload, decodes_in_tiles, need_of
from studio.preset import Dtype, EnlargerPreset, Preset
from studio.requests.generation import GenerationRequest, request_for

SLOW_PARAMETERS = 200_000_000
"""A transformer larger than this takes hours for a clip on a processor."""

How = Literal["plain", "model offload", "group offload", "sequential offload", "int8", "CPU", ""]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a preset with its defaults runs here, and how."""

    fits: bool
    how: How
    """Empty where it does not run."""
    why: str
    """One or two sentences with the numbers."""
    slow: bool = False
    """True where it runs and takes hours."""


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """What there is too little of."""

    needed: int
    there: int
    of_what: str
    way_out: str = "Choose"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a request would run, and what it would take."""

    placement: Placement
    offload: Offload
    need: Need
    shortage: Shortage | None = None
    """Why it cannot run so; None where it can."""


def place(preset: Preset, request: GenerationRequest, machine: Machine, *, held_bytes: int = 0) -> Placement:
    """Decide where and how a request runs.

    Args:
        preset: The request's.
        request: Held against its preset already (`checks.check_request`).
        machine: As it is now.
        held_bytes: What a model loaded earlier holds; it is counted as free, since it is reused or dropped first.

    Raises:
        DoesNotFit: no way of running it here, with the numbers.
        RequestError: something was asked for that this machine does not have.
    """
    plan = _plan(preset, request, machine, held_bytes)
    if plan.shortage is not None:
        raise _does_not_fit(preset, request, plan.shortage)
    return plan.placement


def verdict(preset: Preset | EnlargerPreset, machine: Machine) -> Verdict:
    """Whether a preset with its defaults fits this machine, judged by what the machine has, not by what is free now."""
    if isinstance(preset, EnlargerPreset):
        if preset.window is None:
            weight = f"{preset.memory.parameters / 10**6:.1f} million parameters"
            return Verdict(fits=True, how="plain", why=f"Goes from picture to picture, tile by tile: {weight}.")
        preset, request = placed_to_enlarge(preset, machine)
    else:
        request = request_for(preset, prompt="defaults", seed=0)
    plan = _plan(preset, request, machine.idle(), 0)
    return (_on_processor if machine.accelerator is None else _on_accelerator)(preset, machine, plan)


def placed_to_enlarge(preset: EnlargerPreset, machine: Machine) -> tuple[Preset, GenerationRequest]:
    """A model that enlarges as one that makes clips, and the request by which it is placed and loaded.

    One number format for all of it. Tiles are the model's own and the same everywhere, so that what they make does not
    depend on the machine. Blocks are compiled where the family names them and the machine can.
    """
    compiled = machine.accelerator == "cuda" and machine.triton and bool(preset.checkpoint.block_lists)
    # Scores are in float32 whatever the weights are in, which on a processor is float32 already.
    scores = 0 if compiled else preset.memory.uncompiled_bytes // (1 if machine.accelerator else 2)
    pixels = preset.window.height * preset.window.width * preset.window.num_frames if preset.window else 1
    clip_maker = preset.as_clip_maker(held_besides=scores // pixels)
    request = request_for(
        clip_maker,
        prompt="",
        seed=0,
        torch_dtype="auto" if machine.accelerator else "float32",
        quantization="none",
        vae_tiling="off",
        compile=compiled,
    )
    return clip_maker, request


def _plan(preset: Preset, request: GenerationRequest, machine: Machine, held_bytes: int) -> Plan:
    plan = _plan_for_processor if machine.accelerator is None else _plan_for_accelerator
    return plan(preset, request, machine, preset.checkpoint, held_bytes)


# deciding ------------------------------------------------------------------------------------------------------------


def _plan_for_processor(
    preset: Preset, request: GenerationRequest, machine: Machine, family: Checkpoint, held_bytes: int
) -> Plan:
    reasons = ["No accelerator: everything runs on the processor."]
    if request.offload not in ("auto", "none"):
        raise RequestError(
            f"offload = {request.offload} needs an accelerator, and this machine has none.",
            field="offload",
            value=request.offload,
            way_out="Leave offload at auto.",
        )
    _check_compile(request, machine)
    attention = _asked_attention(request, machine, "float32")
    room, has = usable(machine.ram_total), gigabytes(machine.ram_total)
    wanted = _asked_dtype(request)
    # float32 is asked for where 16 bits gave NaN, so it is meant for everything.
    vae_dtype: Dtype = "bfloat16" if machine.bf16 and wanted != "float32" else "float32"
    if vae_dtype == "bfloat16":
        reasons.append(
            "The autoencoder runs in bfloat16, channels-last: this processor multiplies bfloat16 in hardware, and its "
            "convolutions are then several times faster."
        )
    else:
        reasons.append("The autoencoder's 3D convolutions run as sums of 2D ones: in float32 those are faster here.")
    whole = _need(preset, request, wanted or "float32", vae_dtype, tiled=False)
    tiled = _in_tiles(family, request, needed=whole.working > room // 2)
    if tiled and request.vae_tiling == "auto" and not family.decodes_in_tiles_only:
        reasons.append(f"Decoding in tiles: whole frames would take more than half of {has}.")

    int8 = _asked_int8(request, machine)
    dtype: Dtype = "bfloat16" if int8 else wanted or "float32"
    if wanted is None and _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=int8).weights > room:
        dtype = "bfloat16"
        reasons.append(f"Weights in bfloat16: in float32 they would not fit {has} of memory.")
    need = _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=int8)
    if need.total > room and request.quantization == "auto" and dtype == "bfloat16" and machine.int8_backend:
        need = _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=True)
        int8 = True
        reasons.append(f"Transformer weights in 8 bits: in {dtype} they would not fit {has} of memory.")
    placement = Placement(
        device="cpu",
        device_name=machine.cpu_name,
        torch_dtype=dtype,
        vae_dtype=vae_dtype,
        channels_last=vae_dtype == "bfloat16",
        planar=vae_dtype != "bfloat16",
        offload="none",
        vae_tiling=tiled,
        quantization="int8" if int8 else "none",
        attention_backend=attention,
        reasons=tuple(reasons),
    )
    free = machine.ram_free + held_bytes
    shortage = None
    if need.total > room:
        shortage = Shortage(needed=need.total, there=machine.ram_total, of_what="memory")
    elif need.total > free:
        way_out = "Close other programs, or choose"
        shortage = Shortage(needed=need.total, there=free, of_what="free memory", way_out=way_out)
    return Plan(placement=placement, offload="none", need=need, shortage=shortage)


def _plan_for_accelerator(
    preset: Preset, request: GenerationRequest, machine: Machine, family: Checkpoint, held_bytes: int
) -> Plan:
    reasons: list[str] = []
    has = gigabytes(machine.vram_total)
    int8 = _asked_int8(request, machine)
    dtype = "bfloat16" if int8 else _asked_dtype(request)
    if dtype is None:
        dtype = preset.torch_dtype
        if dtype == "bfloat16" and not machine.bf16:
            dtype = "float16"
            reasons.append(f"Weights in float16: {machine.accelerator_name} has no bfloat16.")
    vae_dtype: Dtype = "float32" if family.vae_float32 else dtype
    attention = _asked_attention(request, machine, dtype)

    vram, ram = usable(machine.vram_total), usable(machine.ram_total)
    whole, in_tiles = (_need(preset, request, dtype, vae_dtype, tiled=tiled) for tiled in (False, True))
    tiled = _in_tiles(family, request, needed=decodes_in_tiles(whole, in_tiles, vram))
    if tiled and request.vae_tiling == "auto" and not family.decodes_in_tiles_only:
        reasons.append(f"Decoding in tiles: with whole frames not everything would fit {has}.")

    plain = in_tiles if tiled else whole
    small = _need(preset, request, dtype, vae_dtype, tiled=tiled, int8=True)
    if request.quantization == "auto" and dtype == "bfloat16" and machine.int8_backend:
        # Where they spare offloading by blocks, or where main memory is too small for the weights otherwise.
        spares_blocks = plain.on_accelerator("model") > vram >= small.on_accelerator("model")
        spares_ram = plain.weights > ram >= small.weights and plain.on_accelerator("none") > vram
        int8 = spares_blocks or spares_ram
        if int8:
            reasons.append(f"Transformer weights in 8 bits: in {dtype} they would not fit {has} one model at a time.")
    need = small if int8 else plain
    offload, shortage = _offload(request, machine, need, held_bytes, reasons)
    _check_compile(request, machine, offload)
    placement = Placement(
        device=str(machine.accelerator),
        device_name=machine.accelerator_name or str(machine.accelerator),
        torch_dtype=dtype,
        vae_dtype=vae_dtype,
        channels_last=False,
        offload=offload,
        vae_tiling=tiled,
        quantization="int8" if int8 else "none",
        compile=request.compile,
        attention_backend=attention,
        reasons=tuple(reasons),
    )
    return Plan(placement=placement, offload=offload, need=need, shortage=shortage)


def _offload(
    request: GenerationRequest, machine: Machine, need: Need, held_bytes: int, reasons: list[str]
) -> tuple[Offload, Shortage | None]:
    """The fastest way of moving weights that fits the free accelerator memory; where none does, the leanest and why."""
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
    elif request.compile:
        choices = tuple(offload for offload in choices if offload != "sequential")  # which compiled blocks cannot have
    for offload in choices:
        if need.on_accelerator(offload) > free:
            continue
        if offload == "none":
            return offload, None
        if need.weights > machine.ram_free + held_bytes:
            where = "free memory to offload to"
            return offload, Shortage(needed=need.weights, there=machine.ram_free, of_what=where)
        reasons.append(
            f"Offloading ({offload}): all of it would take {gigabytes(need.on_accelerator('none'))}, and "
            f"{gigabytes(free)} are free on {machine.accelerator_name}."
        )
        return offload, None
    leanest = choices[-1]
    way_out = "Leave compile off, or choose" if request.compile else "Choose"
    needed = need.on_accelerator(leanest)
    return leanest, Shortage(needed=needed, there=free, of_what="free accelerator memory", way_out=way_out)


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


def _asked_dtype(request: GenerationRequest) -> Dtype | None:
    return None if request.torch_dtype == "auto" else request.torch_dtype


def _asked_int8(request: GenerationRequest, machine: Machine) -> bool:
    if request.quantization != "int8":
        return False
    if machine.int8_backend is None:
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


def _check_compile(request: GenerationRequest, machine: Machine, offload: Offload = "none") -> None:
    """Raises RequestError where compiling was asked for and cannot be."""
    if not request.compile:
        return
    way_out = "Leave compile off: the same clip but for last bits."
    if machine.accelerator != "cuda":
        fault = "compile = True needs an NVIDIA or AMD graphics card; this machine has none that torch can use."
    elif not machine.triton:
        fault = "compile = True needs Triton, which is not installed."
        way_out = f"Install it (pip install triton, on Windows triton-windows). {way_out}"
    elif offload == "sequential":
        fault = "compile = True does not go with sequential offloading, which fetches every layer within a block."
        way_out = f"Set offload to group, or choose a smaller size. {way_out}"
    else:
        return
    raise RequestError(fault, field="compile", value=True, way_out=way_out)


def _asked_attention(request: GenerationRequest, machine: Machine, dtype: Dtype) -> str:
    """The attention backend that was asked for; torch's own where nothing was."""
    asked = request.attention_backend
    if asked in ("auto", "native"):
        return "native"
    installed = ("_native_cudnn", *machine.attention_backends)
    if machine.accelerator != "cuda":
        fault = "needs an NVIDIA or AMD graphics card; this machine has none that torch can use."
    elif asked not in installed:
        fault = f"needs {ATTENTION_LIBRARIES[asked]}, which is not installed."
    elif dtype == "float32":
        fault = "computes in 16 bits at most, and the weights are in float32."
    else:
        return asked
    raise RequestError(
        f"attention_backend = {asked} {fault}",
        field="attention_backend",
        value=asked,
        way_out="Leave attention_backend at auto, which takes torch's own.",
    )


def _in_tiles(family: Checkpoint, request: GenerationRequest, *, needed: bool) -> bool:
    return family.decodes_in_tiles_only or (needed if request.vae_tiling == "auto" else request.vae_tiling == "on")


def _does_not_fit(preset: Preset, request: GenerationRequest, shortage: Shortage) -> DoesNotFit:
    return DoesNotFit(
        f"{preset.title} at {request.height}×{request.width}, {request.num_frames} frames, needs about "
        f"{gigabytes(shortage.needed)} of {shortage.of_what}; there are {gigabytes(shortage.there)}.",
        field="preset",
        value=preset.name,
        way_out=f"{shortage.way_out} a smaller size or length, a smaller preset, or a machine with more memory.",
    )


# putting it into words -----------------------------------------------------------------------------------------------


def _weights_text(plan: Plan) -> str:
    int8 = plan.placement.quantization == "int8"
    precision = "with the transformer in 8 bits" if int8 else f"in {plan.placement.torch_dtype}"
    return f"about {gigabytes(plan.need.weights)} for weights {precision}"


def _on_processor(preset: Preset, machine: Machine, plan: Plan) -> Verdict:
    weighs, works = _weights_text(plan), f"{gigabytes(plan.need.working)} to work in"
    has = gigabytes(machine.ram_total)
    if plan.shortage is not None:
        why = f"Needs {weighs} and {works}; this machine has {has} of memory and no accelerator."
        return Verdict(fits=False, how="", why=why)
    slow = preset.memory.transformer_parameters > SLOW_PARAMETERS
    why = f"Runs on the processor, taking {weighs} and {works}, of {has}."
    if slow:
        why += " Very slow without an accelerator: expect hours for a clip."
    return Verdict(fits=True, how="CPU", why=why, slow=slow)


def _on_accelerator(preset: Preset, machine: Machine, plan: Plan) -> Verdict:
    need, weighs, how = plan.need, _weights_text(plan), _HOW[plan.offload]
    has = f"{machine.accelerator_name} has {gigabytes(machine.vram_total)}"
    at_once = need.on_accelerator(plan.offload)
    if plan.shortage is not None:
        why = f"Needs {weighs} and {gigabytes(need.working)} to work in; {has}."
        if at_once <= usable(machine.vram_total):
            ram = gigabytes(machine.ram_total)
            why = f"Needs {weighs}. {has}, and {ram} of main memory are too few to keep the rest in."
        return Verdict(fits=False, how="", why=why)
    if plan.offload == "none":
        why = f"Fits whole: {weighs}, {gigabytes(at_once)} in all; {has}."
    else:
        on_it = f"{gigabytes(at_once)} are on the accelerator at once, working memory included"
        why = f"Fits with {how}: {weighs}, of which {on_it}; {has}."
    int8 = plan.placement.quantization == "int8"
    return Verdict(fits=True, how="int8" if int8 else how, why=why, slow=plan.offload == "sequential")


_HOW: dict[Offload, How] = {
    "none": "plain",
    "model": "model offload",
    "group": "group offload",
    "sequential": "sequential offload",
}
