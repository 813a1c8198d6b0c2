"""How the suite is run: with threads that do not fight, and on two processes where all of it is run.

One thread a process, and two processes: they divide two cores better than one process with two threads does, and more
so beside other programs. What shares something costly stays together: a file's tests, which share its checkpoints, and
the browser's, which share a server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before torch is loaded, here and in every process that a test starts. Threads that spin while they wait for each other
# take the processor from whoever they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

TESTS = Path(__file__).parent
PROCESSES = 2
"""More would load as many models at once."""
LONGEST = ("browser", "finetune", "caching", "pipelines", "compare", "test_generate.py")
"""Begun first, in this order, so that at the end no process waits for long on the other's last file."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All of the suite is divided; files that were named are run as they are."""
    return PROCESSES if config.args_source is config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)  # stable: within a room all stays in its order


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests to one process, and so the browser's. Not by marks of groups: pytest 9.2 does not let xdist write
    them into a test's name any more, and each test would go its own way."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = str(nodeid).split("::")[0]
            return "browser" if path.startswith("tests/browser/") else path

    return ByWhatIsShared(config, log)


def _place(item: pytest.Item) -> int:
    room = item.path.relative_to(TESTS).parts[0]
    return LONGEST.index(room) if room in LONGEST else len(LONGEST)
