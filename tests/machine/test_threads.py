"""Threads sleep while they wait for each other, and there are no more of them than pay."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.patience import until

from studio.jobs.table import JobTable
from studio.machine import threads

POLICY = "OMP_WAIT_POLICY = 'PASSIVE'"
"""As GNU's OpenMP, which torch brings along on Linux, says when it is loaded and was told to."""


def _environment(**more: str) -> dict[str, str]:
    """One in which nobody has set anything, and OpenMP says what it was told."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    return plain | {"OMP_DISPLAY_ENV": "true"} | more


def _command_line(folder: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "studio", "generate", "--prompt", "a red car", "--num-frames", "5"]
    command += ["--height", "64", "--width", "64", "--num-inference-steps", "1", "--runs", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    return done.stderr


def _worker(folder: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "studio.jobs", "--worker", str(folder), "--runs", str(folder)]
    worker = subprocess.Popen(
        [*command, "--parent", str(os.getpid())],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    table = JobTable(folder)

    def is_ready() -> bool:
        note = table.note("worker")
        return isinstance(note, dict) and note.get("state") == "ready"

    try:
        until(is_ready)
    finally:
        _, said = worker.communicate()  # the end of its standard input ends it
        table.close()
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's OpenMP shows what it was told")
@pytest.mark.parametrize("start", [_command_line, _worker])
def test_threads_of_every_process_that_works_wait_passively(
    start: Callable[[Path, dict[str, str]], str], tmp_path: Path
) -> None:
    assert POLICY in start(tmp_path, _environment())


def test_what_somebody_has_set_is_left_as_it_is() -> None:
    environment = {"OMP_WAIT_POLICY": "active"}
    threads.wait_passively(environment)
    assert environment == {"OMP_WAIT_POLICY": "active"}
    assert threads.number_is_set({"OMP_NUM_THREADS": "3"})
    assert not threads.number_is_set(environment)


@pytest.mark.parametrize(("cores", "tried"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_numbers_worth_trying_end_with_one_for_each_core(cores: int, tried: tuple[int, ...]) -> None:
    assert threads.worth_trying(cores) == tried


def test_more_threads_are_taken_only_where_they_pay() -> None:
    assert threads.fewest({1: 1.0, 2: 0.55, 4: 0.3}) == 4
    assert threads.fewest({1: 1.0, 2: 0.55, 4: 0.5}) == 2, "two more bring a tenth"
    assert threads.fewest({1: 1.0, 2: 0.9}) == 1, "the two halves of one core"
    assert threads.fewest({1: 1.0, 2: 7.0}) == 1, "the other core is somebody else's"
