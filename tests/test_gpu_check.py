"""The check on a graphics card, walked at toy size: without the page or a network, and without writing a figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.device import DEVICE

PROJECT = Path(__file__).parents[1]
SCRIPT = """
import os, runpy, socket, sys

def refused(*_args, **_more):
    raise OSError("no network")

socket.socket.connect = socket.socket.connect_ex = refused
sys.modules["gradio"] = None
sys.argv[:] = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as python itself does for a script
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_at_toy_size_every_part_is_walked_to_its_end(tmp_path: Path) -> None:
    results, readme = PROJECT / "benchmarks/results", PROJECT / "README.md"

    def figures() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (*results.glob("gpu*"), readme)}

    before = figures()
    program = str(PROJECT / "benchmarks/gpu_check.py")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, program, "--toy", "--results", str(tmp_path)]
    answer = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=1100, check=False
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert figures() == before

    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    parts = report["parts"]
    assert list(parts) == ["pocket", "wan", "attention", "offloading", "chopgrad", "fine-tune", "compile"]
    assert {name: part["ended"] for name, part in parts.items() if "ended" in part} == {}
    rows = [row for part in parts.values() for row in part["rows"]]
    assert all(row.get("same frames", True) for row in rows)
    refused = {row["what"]: row["not measured"] for row in rows if "not measured" in row}
    if DEVICE.type == "cpu":
        assert refused.keys() == {
            "model",
            "group",
            "sequential",
            "_native_cudnn",
            "no cache, compiled",
            "Budget 2×, compiled",
        }
        assert all("accelerator" in why or "graphics card" in why for why in refused.values())
    speeds = {row["what"]: row["passes of blocks computed"] for row in parts["wan"]["rows"] if "speed" in row}
    assert speeds["Budget 2×"] < speeds["a cache that never skips"]
    cosines = [row["cosine to the first"] for row in parts["chopgrad"]["rows"]]
    assert len(cosines) == 10
    assert min(cosines) > 0.999
    assert parts["fine-tune"]["rows"][0]["finished"]
    assert "no figures" in (tmp_path / "gpu.md").read_text(encoding="utf-8")
