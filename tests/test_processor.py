"""The processor is tried before it is trusted, and its answer stays: a clip's bits depend on it."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio import processor
from studio.machine import hardware, threads

HERE = replace(hardware.measure(), accelerator=None)


@pytest.fixture(autouse=True)
def _a_process_that_has_not_answered_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_answers", {})


def test_the_answer_is_kept_beside_the_runs_and_stays(tmp_path: Path) -> None:
    """Whatever another try would say: the same request on the same machine gives the same bits."""
    answer = processor.bfloat16_pays(HERE, tmp_path)
    path = tmp_path / processor.FILE_NAME
    kept = json.loads(path.read_text())
    (entry,) = kept.values()
    assert entry["bfloat16"] is answer
    assert (entry["milliseconds"]["bfloat16"] < entry["milliseconds"]["float32"]) is answer
    entry["bfloat16"] = not answer
    path.write_text(json.dumps(kept))
    processor._answers.clear()  # as after a restart
    assert processor.bfloat16_pays(HERE, tmp_path) is not answer
    other = replace(HERE, cpu_name="another processor")
    assert processor.bfloat16_pays(other, tmp_path) is answer, "what was found out about one is not said of another"


def test_a_scratch_folder_changes_nothing_within_a_process(tmp_path: Path) -> None:
    """Training and measuring make clips in folders of their own, by the model that is loaded."""
    answer = processor.as_tried(HERE, tmp_path).bf16
    (tmp_path / processor.FILE_NAME).unlink()
    assert processor.as_tried(HERE, tmp_path / "scratch").bf16 is answer
    assert not (tmp_path / "scratch").exists()


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / processor.FILE_NAME).write_text("[")
    processor.bfloat16_pays(HERE, tmp_path)
    assert json.loads((tmp_path / processor.FILE_NAME).read_text())


def test_a_card_is_not_judged_by_the_processor_beside_it(tmp_path: Path) -> None:
    card = replace(HERE, accelerator="cuda", bf16=True)
    assert processor.as_tried(card, tmp_path) == card
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="not an x86 processor")
def test_without_bfloat16_in_hardware_it_is_not_taken(tmp_path: Path) -> None:
    """The instruction sets of a laptop; what /proc/cpuinfo says of this machine is what it says."""
    ask = "import sys; from pathlib import Path; from studio import processor; from studio.machine import hardware; "
    ask += "print(processor.bfloat16_pays(hardware.measure(), Path(sys.argv[1])))"
    laptop = os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", ask, str(tmp_path)]
    done = subprocess.run(command, env=laptop, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "False"


def test_the_number_of_threads_that_was_settled_is_that_of_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip is made in a thread of its own."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    processor._quick_number.cache_clear()
    seen: list[int] = []
    try:
        number = processor.settle_threads()
        worker = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        worker.start()
        worker.join()
    finally:
        torch.set_num_threads(before)
    assert number in threads.worth_trying(hardware.cores())
    assert seen == [number]


def test_a_number_that_somebody_has_set_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    assert processor.settle_threads() == before == torch.get_num_threads()
