"""Hardware: what this machine has, as measured.

Knows psutil, /proc, cgroups and `nvidia-smi`. Refuses to know models, and torch: whether the installed one
can use a graphics card is read from a text file beside it, because importing it takes seconds.

All sizes are bytes; a gigabyte is 10⁹ of them.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

GB = 10**9
SPARE_SHARE = 0.1
"""Of all memory, what is left to the system, the drivers and fragmentation."""
NVIDIA_SMI_SECONDS = 5
ZEROGPU_BYTES = 48 * GB
"""What a visitor's turn gets: half of a 96 GB card. It is not attached until then, so it cannot be asked."""

ATTENTION_LIBRARIES = {"flash": "flash_attn", "_flash_3": "flash_attn_interface", "sage": "sageattention"}
"""What to import, by diffusers' name of the attention backend that wants it."""

Hosted = Literal["zerogpu", "space"]
Int8Backend = Literal["torchao", "bitsandbytes"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a model could use here, as measured."""

    cpu_name: str
    cores: int
    """That this process may use: affinity and container quota honoured."""
    ram_total: int
    """Of the machine, or of the container where that is less."""
    ram_free: int
    accelerator: Literal["cuda", "mps"] | None
    """torch's word for it; None where there is none that the installed torch can use."""
    accelerator_name: str | None
    vram_total: int
    """0 without an accelerator; on unified memory the share that the system lets it use."""
    vram_free: int
    bf16: bool
    """Whether bfloat16 runs in hardware where models would run: on the accelerator, or else on the processor."""
    hosted: Hosted | None
    """A Hugging Face Space, with borrowed graphics cards or without; None elsewhere."""
    int8_backend: Int8Backend | None = None
    """The installed library that holds weights in 8 bits where models would run."""
    triton: bool = False
    """Whether the library is installed that torch compiles with for a graphics card."""
    attention_backends: tuple[str, ...] = ()
    """diffusers' names for the installed libraries that compute attention, besides torch itself."""
    notes: tuple[str, ...] = ()
    """What is here and cannot be used, and why."""

    def idle(self) -> Machine:
        """The same machine with nothing else running on it."""
        return replace(self, ram_free=usable(self.ram_total), vram_free=usable(self.vram_total))


def usable(total: int) -> int:
    """Of so many bytes of memory, what a model may take."""
    return int(total * (1 - SPARE_SHARE))


def gigabytes(size: int) -> str:
    """As a person reads it; below a tenth of a gigabyte in megabytes."""
    return f"{size / GB:.1f} GB" if size >= GB // 10 else f"{size / 10**6:.0f} MB"


# measuring -----------------------------------------------------------------------------------------------------------


def measure() -> Machine:
    """Look at this machine now. Takes milliseconds, or up to a few seconds where a graphics driver is slow."""
    ram_total, ram_free = _memory()
    here = Machine(
        cpu_name=_cpu_name(),
        cores=cores(),
        ram_total=ram_total,
        ram_free=ram_free,
        accelerator=None,
        accelerator_name=None,
        vram_total=0,
        vram_free=0,
        bf16=_cpu_bf16(),
        hosted=_hosted(),
    )
    here = _with_accelerator(here)
    return replace(
        here,
        int8_backend=int8_backend(here.accelerator or "cpu"),
        triton=importlib.util.find_spec("triton") is not None,
        attention_backends=tuple(
            name for name, library in ATTENTION_LIBRARIES.items() if importlib.util.find_spec(library)
        ),
    )


def _with_accelerator(here: Machine) -> Machine:
    """What models run on where there is an accelerator; else the same, with a note where one cannot be used."""
    if here.hosted == "zerogpu":
        return replace(
            here,
            accelerator="cuda",
            accelerator_name="ZeroGPU",
            vram_total=ZEROGPU_BYTES,
            vram_free=ZEROGPU_BYTES,
            bf16=True,
        )
    card, note = _nvidia_card()
    if card is not None:
        # A driver that cannot say (unified memory) has the machine's own memory behind it.
        total, free = (here.ram_total, here.ram_free) if card.total is None else (card.total, card.free or 0)
        return replace(
            here, accelerator="cuda", accelerator_name=card.name, vram_total=total, vram_free=free, bf16=card.bf16
        )
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        # Metal's recommended working set is about three quarters of the unified memory.
        total = here.ram_total * 3 // 4
        free = min(total, here.ram_free)
        name = here.cpu_name
        return replace(here, accelerator="mps", accelerator_name=name, vram_total=total, vram_free=free, bf16=True)
    return replace(here, notes=(note,)) if note else here


def int8_backend(device: str) -> Int8Backend | None:
    """The installed library that holds weights in 8 bits on torch's `device`, or None."""
    if importlib.util.find_spec("torchao"):
        return "torchao"
    return "bitsandbytes" if device == "cuda" and importlib.util.find_spec("bitsandbytes") else None


def disk_free(path: Path) -> int:
    """Free bytes for this user where `path` is, or will be once its folders are made."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@dataclass(frozen=True)
class _Card:
    name: str
    total: int | None
    """None where the driver does not say."""
    free: int | None
    bf16: bool


def _nvidia_card() -> tuple[_Card | None, str]:
    """The card that torch would take first, or None and the reason why a card that is here cannot be used."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles"):
        return None, ""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, ""
    command = [program, "--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits"]
    if visible is not None:
        command.append(f"--id={visible.split(',')[0].strip()}")
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None, f"nvidia-smi did not answer in {NVIDIA_SMI_SECONDS} s; the graphics driver may be hung."
    except (OSError, subprocess.CalledProcessError):
        return None, "nvidia-smi is installed but reports no usable card."
    card = _read_card(answer.stdout)
    if card is not None and torch_cuda() is None:
        return None, f"{card.name} is here, but the installed torch was built without CUDA. Install one with it."
    return card, ""


def _read_card(csv: str) -> _Card | None:
    """The first line of nvidia-smi's CSV: name, MiB in all, MiB free, compute capability."""
    fields = [field.strip() for field in (csv.strip().splitlines() or [""])[0].split(",")]
    if len(fields) != 4 or not fields[0]:
        return None
    name, total, free, capability = fields
    return _Card(name=name, total=_mebibytes(total), free=_mebibytes(free), bf16=_number(capability) >= 8.0)


def _mebibytes(text: str) -> int | None:
    return int(text) * 2**20 if text.isdigit() else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def torch_version_file() -> str:
    """The text of the installed torch's `version.py`; empty where torch is not installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        return (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""


def torch_cuda() -> str | None:
    """The CUDA (or ROCm) release that the installed torch was built for; None for one that knows only processors."""
    match = re.search(r"^(?:cuda|hip)\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", torch_version_file(), re.MULTILINE)
    return match.group(1) if match else None


def ram_free() -> int:
    """Bytes of main memory that are free now, of the machine or of the container around this process."""
    return _memory()[1]


def _memory(cgroups: Path = Path("/sys/fs/cgroup"), own_groups: Path = Path("/proc/self/cgroup")) -> tuple[int, int]:
    """Bytes in all and free, of the machine or of the tightest container around this process."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for limit, used in _container_memory(cgroups, own_groups):
        if limit < machine.total:
            total = min(total, limit)
            free = min(free, max(0, limit - used))
    return total, free


def _container_memory(cgroups: Path, own_groups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used without what can be reclaimed) of each control group above this process that has a limit."""
    for group in _groups(cgroups, own_groups, controller="memory"):
        limit = _first_number(group / "memory.max", group / "memory.limit_in_bytes")
        if limit is None:
            continue
        used = _first_number(group / "memory.current", group / "memory.usage_in_bytes") or 0
        yield limit, max(0, used - _reclaimable(group / "memory.stat"))


def _reclaimable(statistics: Path) -> int:
    """File pages that the kernel drops when memory is short; they count as used though nobody holds them."""
    try:
        match = re.search(r"^(?:total_)?inactive_file (\d+)$", statistics.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match.group(1)) if match else 0


def _groups(cgroups: Path, own_groups: Path, *, controller: str) -> Iterator[Path]:
    """This process's control group and those around it, innermost first; version 2 and version 1 of the kernel's."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, place = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        root = cgroups / names if names else cgroups
        if names and not root.is_dir():
            root = cgroups / controller
        inner = root / place.strip("/")
        yield from (group for group in (inner, *inner.parents) if group.is_relative_to(root))


def _first_number(*files: Path) -> int | None:
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def cores(cgroups: Path = Path("/sys/fs/cgroup"), own_groups: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: affinity and container quota honoured."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(cgroups, own_groups, controller="cpu"):
        quota = _quota(group)
        if quota is not None:
            mine = min(mine, max(1, math.ceil(quota)))
    return mine


def _quota(group: Path) -> float | None:
    """Processors' worth of time that a control group may use; None where it has no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = (
            str(_first_number(group / name) or "max") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


@functools.cache
def _cpu_name() -> str:
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


@functools.cache
def _cpu_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware: AVX-512 BF16 or AMX on x86, BF16 on ARM."""
    if platform.system() == "Darwin":
        return _sysctl("hw.optional.arm.FEAT_BF16") == "1"
    return bool(re.search(r"\b(?:avx512_bf16|amx_bf16|bf16)\b", _cpuinfo()))


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _hosted() -> Hosted | None:
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true"):
        return "zerogpu"
    return "space" if os.environ.get("SPACE_ID") else None
