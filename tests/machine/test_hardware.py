"""The machine, measured within the container that holds us."""

import os
import stat
import sys
from pathlib import Path

import pytest

from studio.machine import hardware as machines
from studio.machine.hardware import GB, disk_free, measure

# measuring -----------------------------------------------------------------------------------------------------------


def test_this_machine_can_be_measured_without_torch() -> None:
    assert "torch" not in machines.__dict__
    here = measure()
    assert here.cpu_name
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert 0 < here.ram_free <= here.ram_total


def test_free_disk_is_known_for_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    assert disk_free(tmp_path / "not" / "yet" / "there") > 0


def _version_2(root: Path, groups: dict[str, dict[str, str]], own: str) -> tuple[Path, Path]:
    """A kernel's control groups (version 2) as files: folder → file → text."""
    cgroups = root / "cgroup"
    for group, files in groups.items():
        (cgroups / group).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (cgroups / group / name).write_text(text)
    (root / "self").write_text(f"0::/{own}\n")
    return cgroups, root / "self"


def test_a_containers_limit_is_the_memory_there_is(tmp_path: Path) -> None:
    limits = {"memory.max": "1000000000\n", "memory.current": "600000000\n", "memory.stat": "inactive_file 200000000\n"}
    places = _version_2(tmp_path, {"": {}, "box": limits}, "box")
    assert machines._memory(*places) == (1_000_000_000, 600_000_000)


def test_the_tightest_of_nested_containers_counts(tmp_path: Path) -> None:
    outer = {"memory.max": "500000000", "memory.current": "450000000"}
    inner = {"memory.max": "800000000", "memory.current": "100000000"}
    places = _version_2(tmp_path, {"outer": outer, "outer/inner": inner}, "outer/inner")
    assert machines._memory(*places) == (500_000_000, 50_000_000)


def test_version_1_of_control_groups_is_read_too(tmp_path: Path) -> None:
    group = tmp_path / "cgroup" / "memory" / "box"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000000000")
    (group / "memory.usage_in_bytes").write_text("400000000")
    (group / "memory.stat").write_text("total_inactive_file 100000000\n")
    (tmp_path / "self").write_text("9:memory:/box\n3:cpu,cpuacct:/box\n")
    assert machines._memory(tmp_path / "cgroup", tmp_path / "self") == (1_000_000_000, 700_000_000)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_limit_the_machines_own_memory_counts(tmp_path: Path, limit: str) -> None:
    places = _version_2(tmp_path, {"box": {"memory.max": limit, "memory.current": "1"}}, "box")
    assert machines._memory(*places)[0] == machines._memory(tmp_path / "none", tmp_path / "nothing")[0] > GB // 10


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_a_processor_quota_is_rounded_up_to_cores(tmp_path: Path) -> None:
    places = _version_2(tmp_path, {"box": {"cpu.max": "50000 100000"}}, "box")
    assert machines.cores(*places) == 1
    free = _version_2(tmp_path / "free", {"box": {"cpu.max": "max 100000"}}, "box")
    assert machines.cores(*free) == len(os.sched_getaffinity(0))


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An otherwise empty PATH, on no Space, with every card visible."""
    for name in ("CUDA_VISIBLE_DEVICES", "SPACES_ZERO_GPU", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machines, "torch_cuda", lambda: "12.6")
    return tmp_path


def _nvidia_smi(folder: Path, body: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


needs_scripts = pytest.mark.skipif(os.name != "posix", reason="the stand-in for nvidia-smi is a script")


@needs_scripts
@pytest.mark.parametrize(
    ("said", "name", "total", "bf16"),
    [
        ("NVIDIA H200, 143771, 143000, 9.0", "NVIDIA H200", 143771, True),
        ("Tesla T4, 15360, 14900, 7.5\\nTesla T4, 15360, 10, 7.5", "Tesla T4", 15360, False),
    ],
)
def test_a_card_is_read_from_nvidia_smi(on_path: Path, said: str, name: str, total: int, bf16: bool) -> None:
    _nvidia_smi(on_path, f"print('{said}')")
    here = measure()
    assert (here.accelerator, here.accelerator_name, here.bf16) == ("cuda", name, bf16)
    assert here.vram_total == total * 2**20
    assert here.vram_free <= here.vram_total


@needs_scripts
def test_a_card_with_unified_memory_has_the_machines_memory(on_path: Path) -> None:
    _nvidia_smi(on_path, "print('NVIDIA GB10, [N/A], [N/A], 12.1')")
    here = measure()
    assert (here.accelerator, here.vram_total) == ("cuda", here.ram_total)


@needs_scripts
@pytest.mark.parametrize("body", ["sys.exit(9)", "print('No devices were found')", "time.sleep(60)", "print('')"])
def test_a_driver_that_fails_or_hangs_means_no_accelerator(
    on_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(machines, "NVIDIA_SMI_SECONDS", 3 if "sleep" not in body else 0.3)
    _nvidia_smi(on_path, body)
    here = measure()
    assert (here.accelerator, here.vram_total) == (None, 0)


@needs_scripts
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_cards_are_not_counted(on_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    _nvidia_smi(on_path, "print('NVIDIA H200, 143771, 143000, 9.0')")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert measure().accelerator is None


@needs_scripts
def test_the_first_visible_card_is_asked_for(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(on_path, "print(sys.argv[-1].replace('--id=', 'card ') + ', 1000, 900, 8.6')")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert measure().accelerator_name == "card 3"


@needs_scripts
def test_a_card_that_the_installed_torch_cannot_use_is_named_and_not_counted(
    on_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nvidia_smi(on_path, "print('NVIDIA H200, 143771, 143000, 9.0')")
    monkeypatch.setattr(machines, "torch_cuda", lambda: None)
    here = measure()
    assert here.accelerator is None
    assert "NVIDIA H200" in here.notes[0]
    assert "without CUDA" in here.notes[0]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", None),
        ("__version__ = '2.13.0+cu126'\ncuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n", "12.6"),
        ("cuda = None\nhip: Optional[str] = '6.4.1'\n", "6.4.1"),
        ("", None),
    ],
)
def test_what_torch_was_built_for_is_read_from_its_version_file(
    monkeypatch: pytest.MonkeyPatch, text: str, release: str | None
) -> None:
    monkeypatch.setattr(machines, "torch_version_file", lambda: text)
    assert machines.torch_cuda() == release


def test_the_installed_torch_has_a_version_file() -> None:
    assert "__version__" in machines.torch_version_file()


def test_a_space_with_borrowed_cards_counts_on_a_visitors_share(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("SPACE_ID", "someone/dailies")
    here = measure()
    assert (here.hosted, here.accelerator, here.vram_total) == ("zerogpu", "cuda", 48 * GB)
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert (measure().hosted, measure().accelerator) == ("space", None)
