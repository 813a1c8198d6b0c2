"""Whose page this is: on a machine of one's own everybody is `local`; on a hosted page each browser is somebody.

A hosted visitor's id is 128 random bits that live in that browser's own storage. Whoever holds it is its owner, so it
is never shown, logged or put in an address. Knows the environment, the shape of an id, and whose a job or a run is.
Refuses to know accounts.
"""

from __future__ import annotations

import os
import re
import secrets

from studio.errors import JobError, RunError, StudioError
from studio.jobs import Job
from studio.records.run import Run
from studio.requests.generation import GenerationRequest
from studio.requests.work import WorkKind
from studio.ui.listeners import Sent, text_of
from studio.ui.server.page_context import PageContext
from studio.ui.wording import FAILED

LOCAL = "local"
_ID = re.compile(r"[0-9a-f]{32}")


def is_hosted() -> bool:
    """Whether strangers may come: on a Hugging Face Space, or where `DAILIES_HOSTED=1` says so."""
    return bool(os.environ.get("SPACE_ID")) or os.environ.get("DAILIES_HOSTED") == "1"


def known_id(browser: Sent, key: str) -> str:
    """The id that a browser's storage holds under `key`; empty where it holds none or something else."""
    written = browser.get(key) if isinstance(browser, dict) else None
    return written if isinstance(written, str) and _ID.fullmatch(written) else ""


def owner_of(browser: Sent, *, hosted: bool) -> str:
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


def introduced(browser: Sent) -> dict[str, str]:
    """A browser's storage with an id in it, kept where there is one."""
    return {"owner": known_id(browser, "owner") or secrets.token_hex(16), "job": known_id(browser, "job")}


class Visitor:
    """Who asks, and what of the jobs and runs is theirs; ids that are looked up may be anything a browser sends."""

    def __init__(self, context: PageContext, browser: Sent) -> None:
        """Args: context: the page's. browser: what the browser's storage holds."""
        self._context = context
        self._browser = browser

    @property
    def owner(self) -> str:
        """Raises JobError, as `owner_of` does."""
        return owner_of(self._browser, hosted=self._context.hosted)

    def remembers(self, job_id: str | None = None) -> dict[str, str]:
        """What the browser is to remember: the job it did, or another."""
        return introduced(self._browser) | ({} if job_id is None else {"job": job_id})

    @property
    def remembered(self) -> Job | None:
        """The job that the browser showed last."""
        return self.job(known_id(self._browser, "job"))

    def job(self, job_id: Sent) -> Job | None:
        """A job of theirs; None where there is none."""
        try:
            return self._context.queue.get(text_of(job_id), owner=self.owner) if job_id else None
        except StudioError:
            return None

    def jobs(self, *, ended: int, kinds: tuple[WorkKind, ...] | None = None) -> list[Job]:
        """What runs and waits, and the last few that ended."""
        try:
            owner = self.owner
        except JobError:
            return []
        queue = self._context.queue
        waiting = queue.jobs(owner=owner, states=("running", "queued"), kinds=kinds)
        return waiting + (
            queue.jobs(owner=owner, states=("complete", "cancelled", *FAILED), limit=ended) if ended else []
        )

    def run(self, run_id: Sent) -> Run:
        """A run of theirs.

        Raises:
            StudioError: there is none.
        """
        return self._context.store.get(text_of(run_id), owner=self.owner)

    def run_of(self, job: Job) -> Run | None:
        """The run that a job made or makes; of a comparison, its latest."""
        if job.run_id is None:
            return None
        try:
            return self.run(job.run_id)
        except RunError:
            return None

    def request_of(self, job: Job | None) -> GenerationRequest | None:
        """What was asked for the clip that a job makes; of a comparison the clip made last."""
        if job is None:
            return None
        if isinstance(job.work, GenerationRequest):
            return job.work
        run = self.run_of(job)
        return None if run is None else run.request
