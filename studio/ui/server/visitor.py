"""Whose page this is: on a machine of one's own everybody is `local`; on a hosted page each browser is somebody.

A hosted visitor's id is 128 random bits that live in that browser's own storage. Whoever holds it is its owner, so it
is never shown, logged or put in an address. Knows the environment and the shape of an id. Refuses to know accounts.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import Any

from studio.errors import JobError

LOCAL = "local"
_ID = re.compile(r"[0-9a-f]{32}")


def is_hosted() -> bool:
    """Whether strangers may come: on a Hugging Face Space, or where `DAILIES_HOSTED=1` says so."""
    return bool(os.environ.get("SPACE_ID")) or os.environ.get("DAILIES_HOSTED") == "1"


def known_id(browser: Any, key: str) -> str:
    """The id that a browser's storage holds under `key`; empty where it holds none or something else."""
    written = browser.get(key) if isinstance(browser, dict) else None
    return written if isinstance(written, str) and _ID.fullmatch(written) else ""


def owner_of(browser: Any, *, hosted: bool) -> str:
    """Whose jobs and runs this browser may see.

    Args:
        browser: What the browser's storage holds; it may be anything.
        hosted: Whether visitors are kept apart.

    Raises:
        JobError: a hosted page whose browser has no id (its storage is switched off, or was cleared meanwhile).
    """
    if not hosted:
        return LOCAL
    owner = known_id(browser, "owner")
    if not owner:
        raise JobError("This browser has no id here yet.", field="browser", way_out="Reload the page.")
    return owner


def introduced(browser: Any) -> dict[str, str]:
    """A browser's storage with an id in it, kept where there is one."""
    return {"owner": known_id(browser, "owner") or secrets.token_hex(16), "job": known_id(browser, "job")}
