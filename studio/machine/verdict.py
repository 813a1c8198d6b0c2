"""Whether a preset with its defaults fits a machine, with numbers a person can check."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from studio.machine.hardware import SPARE_SHARE, Machine, gigabytes
from studio.machine.memory import Need, Offload, decodes_in_tiles, need_of
from studio.preset import Dtype, Preset

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


def verdict(preset: Preset, machine: Machine) -> Verdict:
    """Whether a preset with its defaults fits this machine, judged by what the machine has, not by what is free now."""
    if machine.accelerator is None:
        return _on_processor(preset, machine)
    return _on_accelerator(preset, machine)


def _on_processor(preset: Preset, machine: Machine) -> Verdict:
    room = _room(machine.ram_total)
    vae_dtype: Dtype = "bfloat16" if machine.bf16 else "float32"
    tiled = _need(preset, "float32", vae_dtype, tiled=False).working > room // 2
    dtype: Dtype = "float32"
    if _need(preset, dtype, vae_dtype, tiled=tiled).weights > room:
        dtype = "bfloat16"
    need, precision = _need(preset, dtype, vae_dtype, tiled=tiled), f"in {dtype}"
    if need.weights + need.working > room and _has_int8("cpu"):
        need, precision = _need(preset, dtype, vae_dtype, tiled=tiled, int8=True), "with the transformer in 8 bits"
    has = f"this machine has {gigabytes(machine.ram_total)} of memory and no accelerator"
    if need.weights + need.working > room:
        return Verdict(
            fits=False,
            how="",
            why=f"Needs about {gigabytes(need.weights)} for weights {precision} and {gigabytes(need.working)} to work "
            f"in; {has}.",
        )
    slow = preset.memory.transformer_parameters > SLOW_PARAMETERS
    why = (
        f"Runs on the processor, taking about {gigabytes(need.weights)} for weights {precision} and "
        f"{gigabytes(need.working)} to work in, of {gigabytes(machine.ram_total)}."
    )
    if slow:
        why += " Very slow without an accelerator: expect hours for a clip."
    return Verdict(fits=True, how="CPU", why=why, slow=slow)


def _on_accelerator(preset: Preset, machine: Machine) -> Verdict:
    dtype: Dtype = "float16" if preset.torch_dtype == "bfloat16" and not machine.bf16 else preset.torch_dtype
    vram, ram = _room(machine.vram_total), _room(machine.ram_total)
    whole, in_tiles = (_need(preset, dtype, "float32", tiled=tiled) for tiled in (False, True))
    tiled = decodes_in_tiles(whole, in_tiles, vram)
    plain = _need(preset, dtype, "float32", tiled=tiled)
    small = _need(preset, dtype, "float32", tiled=tiled, int8=True)
    # Eight bits where they spare offloading by blocks, or where the main memory is too small for the weights otherwise.
    spares_blocks = plain.on_accelerator("model") > vram >= small.on_accelerator("model")
    spares_ram = plain.weights > ram >= small.weights and plain.on_accelerator("none") > vram
    int8 = (spares_blocks or spares_ram) and _has_int8(machine.accelerator or "")
    need, precision = (small, "with the transformer in 8 bits") if int8 else (plain, f"in {dtype}")

    has = f"{machine.accelerator_name} has {gigabytes(machine.vram_total)}"
    weighs = f"about {gigabytes(need.weights)} for weights {precision}"
    if need.on_accelerator("none") <= vram:
        return Verdict(
            fits=True,
            how="int8" if int8 else "plain",
            why=f"Fits whole: {weighs}, {gigabytes(need.on_accelerator('none'))} in all; {has}.",
        )
    # Unified memory has one pool: nothing is gained by moving weights about on mps.
    choices: dict[Offload, How] = {
        "model": "model offload",
        "group": "group offload",
        "sequential": "sequential offload",
    }
    for offload, how in choices.items() if machine.accelerator == "cuda" else ():
        if need.on_accelerator(offload) > vram:
            continue
        if need.weights > ram:
            return Verdict(
                fits=False,
                how="",
                why=f"Needs {weighs}. {has}, and {gigabytes(machine.ram_total)} of main memory are too few to keep "
                f"the rest in.",
            )
        return Verdict(
            fits=True,
            how="int8" if int8 else how,
            why=f"Fits with {how}: {weighs}, of which {gigabytes(need.on_accelerator(offload))} are on the accelerator "
            f"at once, working memory included; {has}.",
            slow=offload == "sequential",
        )
    return Verdict(
        fits=False,
        how="",
        why=f"Needs {weighs} and {gigabytes(need.working)} to work in; {has}.",
    )


def _need(preset: Preset, dtype: Dtype, vae_dtype: Dtype, *, tiled: bool, int8: bool = False) -> Need:
    """Of a clip with the preset's defaults."""
    defaults = preset.defaults
    return need_of(
        preset,
        height=defaults.height,
        width=defaults.width,
        num_frames=defaults.num_frames,
        dtype=dtype,
        vae_dtype=vae_dtype,
        tiled=tiled,
        int8=int8,
    )


def _room(total: int) -> int:
    return int(total * (1 - SPARE_SHARE))


def _has_int8(device: str) -> bool:
    """Whether a library is installed that holds weights in 8 bits on this device."""
    if importlib.util.find_spec("torchao"):
        return True
    return device == "cuda" and importlib.util.find_spec("bitsandbytes") is not None
