"""Waiting for what another process or thread does.

What comes within a second on an idle machine takes minutes on a slow one that is busy with other things. A fault is
what never comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 300.0


def until(condition: Callable[[], Any]) -> Any:
    """What the condition returns, once that is true."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < limit, f"not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.02)
    return found
