"""How an open page watches work: attached to one job after another, or looking now and then for signs of news.

An attachment replays what a job has said and goes along with it, wherever the job is done; a reload, another tab or
another device attaches again. Knows the queue, its logs, and which page watches what. Refuses to know how anything is
drawn.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import gradio as gr

from studio.errors import JobError
from studio.events import GenerationEvent
from studio.jobs import Job
from studio.records.event_log import EventTail
from studio.ui.listeners import Sent, Updates
from studio.ui.panels.run_progress import Progress
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import Visitor
from studio.ui.wording import WATCHED, words_of, worker_words

LOOK_SECONDS = 0.15
"""How often an attached page looks for news of its job."""
LOOKED_BACK = 20
"""Ended jobs among which the last is looked for that a stage shows."""
PATIENCE_SECONDS = 5.0
"""How long a page that attaches anew waits for its earlier attachment to end."""

Signs: TypeAlias = tuple[tuple[object, ...], ...]
"""What differs once there is news."""


def signs_of(files: Iterable[Path], jobs: Iterable[Job]) -> Signs:
    """Change whenever one of the files or the jobs does; cheap to ask for."""
    return (*((job.id, job.state) for job in jobs), *map(_stamp, files))


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return (str(path), 0, 0)
    return (str(path), status.st_mtime_ns, status.st_size)


@dataclass(frozen=True, kw_only=True)
class News:
    """What an attached page finds when it looks."""

    job: Job
    title: str
    """What it makes, in words."""
    worker: str
    """What the worker is doing, in words."""
    progress: Progress
    """As far as its run has told."""
    of_state: bool
    """Whether more than the run has moved on."""


class Stage(Protocol):
    """Where news is drawn."""

    def draw(self, visitor: Visitor, news: News) -> Updates: ...

    def draw_idle(self, visitor: Visitor) -> Updates:
        """There is nothing to watch."""
        ...


@dataclass
class Watchers:
    """Which attachment each open page listens to, and what it shows: a new one ends the one before it."""

    newest: dict[str, str] = field(default_factory=dict)
    going: dict[str, list[str]] = field(default_factory=dict)
    """By session: the attachments that have not ended yet."""
    watched: dict[str, str] = field(default_factory=dict)
    """By session: the job that its attachment shows."""

    def begin(self, session: str) -> str:
        token = self.newest[session] = secrets.token_hex(8)
        self.going.setdefault(session, []).append(token)
        return token

    async def alone(self, session: str, token: str) -> None:
        """Wait for the attachments before this one to end, so that their last words do not come after its first."""
        patience = PATIENCE_SECONDS
        while self.still(session, token) and self.going[session] != [token] and patience > 0:
            await asyncio.sleep(LOOK_SECONDS / 5)
            patience -= LOOK_SECONDS / 5

    def still(self, session: str, token: str) -> bool:
        return self.newest.get(session) == token

    def shows(self, session: str, token: str, job: str) -> None:
        if self.still(session, token):
            self.watched[session] = job

    def end(self, session: str, token: str) -> None:
        self.going[session].remove(token)
        if not self.going[session]:
            del self.going[session]
        if self.still(session, token):
            del self.newest[session]
            self.watched.pop(session, None)


class Attachments:
    """The open pages that watch a visitor's jobs. `attach` and `attach_chosen` are listeners."""

    def __init__(self, context: PageContext, stage: Stage, shows: Callable[[Job], bool] | None = None) -> None:
        """
        Args:
            context: The page's.
            stage: Where what is watched is drawn.
            shows: Which jobs it is for; None for all. A stage for some shows the last of them that ended, too.
        """
        self._context = context
        self._stage = stage
        self._shows = shows
        self.watchers = Watchers()

    async def attach(self, browser: Sent, request: gr.Request) -> AsyncIterator[Updates]:
        """Show what is at work for this visitor, and when it has ended what comes after; else their last job.

        A page that is already watching a job goes on with that one: an attachment that comes late, after a submission
        into the queue, takes nothing away that was chosen meanwhile.
        """
        yield gr.skip()
        session, visitor = str(request.session_hash), Visitor(self._context, browser)
        async for update in self._follow(visitor, session, goes_on=self.watchers.watched.get(session, "")):
            yield update

    async def attach_chosen(self, browser: Sent, chose: Sent, request: gr.Request) -> AsyncIterator[Updates]:
        """After a button of the queue: show the job that was chosen, though another may be at work.

        Cancelling, moving and pausing choose nothing, and leave what is shown to whoever follows it.
        """
        yield gr.skip()
        visitor = Visitor(self._context, browser)
        if chose:
            async for update in self._follow(visitor, str(request.session_hash), chosen=visitor.remembers()["job"]):
                yield update

    async def _follow(
        self, visitor: Visitor, session: str, *, chosen: str = "", goes_on: str = ""
    ) -> AsyncIterator[Updates]:
        """Ends when nothing of this visitor's is left to watch, or when the page attaches anew.

        Args:
            visitor: Whose jobs.
            session: The open page's.
            chosen: A job to show, whatever became of it.
            goes_on: A job to show unless it has ended.
        """
        token = self.watchers.begin(session)
        if chosen:
            self.watchers.shows(session, token, chosen)

        def wanted() -> bool:
            return self.watchers.still(session, token)

        try:
            await self.watchers.alone(session, token)
            job = await asyncio.to_thread(_job_to_show, visitor, chosen, goes_on, self._shows)
            if job is None and wanted():
                yield await asyncio.to_thread(self._stage.draw_idle, visitor)
            while job is not None:
                self.watchers.shows(session, token, job.id)
                async for update in self._watch(visitor, job.id, wanted):
                    yield update
                # A job that had ended before it was shown was asked for: it stays.
                follow_on = wanted() and not job.final
                job = await asyncio.to_thread(_next_to_show, visitor, job.id, self._shows) if follow_on else None
        except JobError:  # its job was removed, or the browser's storage was cleared meanwhile
            yield await asyncio.to_thread(self._stage.draw_idle, visitor)
        finally:
            self.watchers.end(session, token)

    async def _watch(self, visitor: Visitor, job_id: str, wanted: Callable[[], bool]) -> AsyncIterator[Updates]:
        """Updates of the stage until the job has ended, as few as the news allow."""
        queue, owner = self._context.queue, visitor.owner
        progress, tail, state_shown = Progress(), None, None
        while wanted():
            # The job first: what a final job had to say is in its log by the time it is final.
            job = await asyncio.to_thread(queue.get, job_id, owner=owner)
            title, worker = await asyncio.to_thread(self._words_for, job)
            if job.run_id is not None and (tail is None or tail.path.parent.name != job.run_id):
                progress, tail = Progress(), queue.tail(job)  # a comparison makes one run after another
            heard = [progress.add(event) for event in await asyncio.to_thread(self._events_of, job, tail)]
            state = (job.state, job.position, title, worker)
            if any(heard) or state != state_shown:
                news = News(job=job, title=title, worker=worker, progress=progress, of_state=state != state_shown)
                update = await asyncio.to_thread(self._stage.draw, visitor, news)
                state_shown = state
                if wanted():
                    yield update
            if job.final:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _words_for(self, job: Job) -> tuple[str, str]:
        """What a job makes, and what the worker is doing."""
        queue = self._context.queue
        return words_of(job, self._context.store).title, worker_words(queue.worker_state(), paused=queue.paused)

    def _events_of(self, job: Job, tail: EventTail | None) -> list[GenerationEvent]:
        """What the job's run has said since the page looked last."""
        if tail is None:
            return []
        return [cast(GenerationEvent, event) for _, event in (*tail.read(), *self._context.queue.last_word(job, tail))]


def _job_to_show(visitor: Visitor, chosen: str, goes_on: str, shows: Callable[[Job], bool] | None) -> Job | None:
    """What was asked for; else what is at work or next in line; else the job that the browser remembers, or, where not
    all jobs are shown, the last that ended of those that are."""
    watched = visitor.job(goes_on)
    known = visitor.job(chosen) or (watched if watched is not None and not watched.final else None)
    if known is not None:
        return known
    if shows is None:
        return next(iter(visitor.jobs(ended=0, kinds=WATCHED)), None) or visitor.remembered
    return next((job for job in visitor.jobs(ended=LOOKED_BACK, kinds=WATCHED) if shows(job)), None)


def _next_to_show(visitor: Visitor, last: str, shows: Callable[[Job], bool] | None) -> Job | None:
    """The next of this visitor's jobs at work or waiting, after one has ended."""
    waiting = (job for job in visitor.jobs(ended=0, kinds=WATCHED) if shows is None or shows(job))
    return next((job for job in waiting if job.id != last), None)
