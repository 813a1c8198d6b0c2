"""Jobs: nothing submitted is lost, nothing cancelled runs on, no two jobs overlap, and nobody sees another's."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.patience import until

from studio.errors import JobError
from studio.events import BlockComputed, GenerationEvent, PreviewFrame, RunFinished, RunStarted, StepFinished
from studio.jobs import Busy, Dead, Job, JobQueue, Ready
from studio.jobs.table import JobTable
from studio.preset import find_preset
from studio.records.event_log import Numbered
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, request_for
from studio.requests.super_resolution import Excerpt
from studio.requests.work import (
    KINDS,
    EnlargeClip,
    InsertVehicle,
    MakeMaps,
    ProfileModel,
    TrainEnlarger,
    TrainVersion,
    WalkComparison,
    Work,
    WorkKind,
    kind_of,
)

TESTS = Path(__file__).parent.parent
VERB = "support.scripted_generate:generate"
VERBS: dict[WorkKind, str] = {"clip": VERB}
PAGE = """
import sys, time
from pathlib import Path
from studio.jobs import JobQueue
from studio.records.runs import RunStore
queue = JobQueue(store=RunStore(Path(sys.argv[1])), verbs={"clip": sys.argv[2]})
queue.start()
print("up", flush=True)
time.sleep(600)
"""


OF_EACH_KIND: list[Work] = [
    request_for(find_preset("pocket"), prompt="a road", seed=1),
    TrainVersion(version_id="20261127-020202-0123abcd", predict=True),
    ProfileModel(preset="pocket", num_inference_steps=40),
    WalkComparison(comparison_id="20261127-020202-0123456789abcdef"),
    EnlargeClip(enlargement_id="20261127-020202-0123abcd", excerpt=Excerpt(start=1, seconds=2)),
    TrainEnlarger(version_id="20261127-030303-0123abcd"),
    MakeMaps(map_set_id="20261127-040404-0123abcd"),
    InsertVehicle(insertion_id="20261127-050505-0123abcd"),
]


def test_every_kind_is_tried_here() -> None:
    assert {kind_of(work) for work in OF_EACH_KIND} == set(KINDS)


def ask(prompt: str, seed: int = 1) -> GenerationRequest:
    return request_for(find_preset("pocket"), prompt=prompt, seed=seed)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def idle(store: RunStore) -> Iterator[JobQueue]:
    """A queue in which nobody works."""
    queue = JobQueue(store=store, verbs=VERBS)
    yield queue
    queue.close()


@contextmanager
def working(store: RunStore, **how: Any) -> Iterator[JobQueue]:
    with JobQueue(store=store, verbs=VERBS, **how) as queue:
        yield queue


def ended(queue: JobQueue, *which: Job) -> list[Job]:
    """The jobs, once all of them are final."""

    def all_final() -> list[Job] | None:
        now = [queue.get(job.id) for job in which]
        return now if all(job.final for job in now) else None

    return until(all_final)


def begun(queue: JobQueue, job: Job) -> Job:
    """The job, once its run is open."""
    return until(lambda: now if (now := queue.get(job.id)).run_id else None)


def said(queue: JobQueue, job: Job) -> list[GenerationEvent]:
    return [event for _, event in queue.events(job.id)]


def run_of(store: RunStore, job: Job) -> Any:
    assert job.run_id is not None
    return store.get(job.run_id)


def overlaps(store: RunStore) -> list[tuple[str, str]]:
    """Pairs of runs that were seen alive at the same time."""
    spans: dict[str, list[float]] = {}
    for line in (store.folder / "moments.jsonl").read_text().splitlines():
        run_id, _, moment = json.loads(line)
        spans.setdefault(run_id, []).append(moment)
    order = sorted((min(moments), max(moments), run_id) for run_id, moments in spans.items())
    return [(one[2], other[2]) for one, other in itertools.pairwise(order) if other[0] < one[1]]


def group_is_gone(worker: int) -> bool:
    """Whether neither the worker nor anything it started lives; what only waits to be reaped does not live."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == worker and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


@contextmanager
def page(store: RunStore) -> Iterator[subprocess.Popen[str]]:
    """A page in a process of its own, which a test may kill."""
    process = subprocess.Popen(
        [sys.executable, "-c", PAGE, str(store.folder), VERB],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# -- the line ---------------------------------------------------------------------------------------------------------


def test_a_job_waits_with_its_request_until_somebody_works(idle: JobQueue) -> None:
    request = ask("a road")
    job = idle.submit(request)
    assert (job.state, job.position, job.work, job.owner, job.attempts) == ("queued", 0, request, "local", 0)
    assert len(job.id) == 32
    assert idle.get(job.id) == job
    assert idle.jobs() == [job]
    assert idle.worker_state() == Dead()
    assert idle.events(job.id) == []


def test_jobs_are_moved_put_in_front_and_listed_as_they_will_run(idle: JobQueue) -> None:
    a, b, c = (idle.submit(ask(name)) for name in "abc")
    d = idle.submit(ask("d"), front=True)

    def order() -> str:
        listed = idle.jobs(states=["queued"])
        assert [job.position for job in listed] == list(range(len(listed)))
        return "".join(job.work.prompt for job in listed)

    assert order() == "dabc"
    assert idle.move(c.id, 0).position == 0
    assert order() == "cdab"
    idle.move(d.id, 99)
    assert order() == "cabd"
    assert idle.cancel(a.id).state == "cancelled"
    assert order() == "cbd"
    assert [job.work.prompt for job in idle.jobs()] == ["c", "b", "d", "a"], "what has ended comes last"
    with pytest.raises(JobError, match="Only a job that waits"):
        idle.move(a.id, 0)
    assert idle.cancel(a.id).state == "cancelled", "cancelling twice is no fault"
    assert b.id != d.id


def test_owners_take_turns(idle: JobQueue) -> None:
    for number in range(4):
        idle.submit(ask(f"greedy {number}"), owner="greedy")
    modest = idle.submit(ask("modest"), owner="modest")
    assert modest.position == 1
    order = []
    while (job := idle._table.claim(1)) is not None:
        order.append(job.work.prompt)
        idle._table.end(job.id, "complete", None)
        if len(order) == 2:
            idle.submit(ask("late"), owner="late")
    assert order == ["greedy 0", "modest", "late", "greedy 1", "greedy 2", "greedy 3"]


def test_an_owner_sees_and_touches_only_their_own_jobs(idle: JobQueue) -> None:
    mine, yours = idle.submit(ask("mine"), owner="me"), idle.submit(ask("yours"), owner="you")
    assert [job.id for job in idle.jobs(owner="me")] == [mine.id]

    async def follow(owner: str) -> None:
        async for _ in idle.follow(yours.id, owner=owner):
            pass

    for act in (
        lambda: idle.get(yours.id, owner="me"),
        lambda: idle.cancel(yours.id, owner="me"),
        lambda: idle.move(yours.id, 0, owner="me"),
        lambda: idle.retry(yours.id, owner="me"),
        lambda: idle.events(yours.id, owner="me"),
        lambda: asyncio.run(follow("me")),
        lambda: idle.get("0" * 32),
        lambda: idle.get("' OR 1=1 --"),
    ):
        with pytest.raises(JobError, match="There is no job"):
            act()
    assert idle.get(yours.id).state == "queued"


def test_a_hosted_queue_refuses_a_flood(store: RunStore) -> None:
    queue = JobQueue(store=store, verbs=VERBS, max_jobs_per_owner=3, max_jobs=5)
    for number in range(3):
        job = queue.submit(ask(str(number)), owner="a")
    with pytest.raises(JobError, match="at most 3"):
        queue.submit(ask("one too many"), owner="a")
    queue.cancel(job.id)
    with pytest.raises(JobError, match="it can be retried when it has ended"):
        queue.retry(queue.jobs()[0].id)
    assert queue.retry(job.id).state == "queued"
    with pytest.raises(JobError, match="at most 3"):
        queue.retry(job.id)
    queue.submit(ask("x"), owner="b")
    queue.submit(ask("y"), owner="c")
    with pytest.raises(JobError, match="queue is full"):
        queue.submit(ask("z"), owner="d")
    queue.close()


def test_a_damaged_queue_is_set_aside_and_a_new_one_begun(store: RunStore) -> None:
    (store.folder / "jobs.sqlite").write_bytes(b"no database " * 1000)
    queue = JobQueue(store=store, verbs=VERBS)
    assert queue.jobs() == []
    assert queue.submit(ask("a")).state == "queued"
    assert len(list(store.folder.glob("jobs.damaged-*.sqlite"))) == 1
    queue.close()


# -- the work ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_process", [False, True])
def test_a_job_becomes_a_run_and_its_events_are_replayed_in_order(store: RunStore, in_process: bool) -> None:
    async def attach(queue: JobQueue, job: Job, after: int = 0) -> list[Numbered]:
        return [each async for each in queue.follow(job.id, after=after)]

    async def attach_thrice(queue: JobQueue, job: Job) -> Any:
        return await asyncio.gather(attach(queue, job), attach(queue, job), attach(queue, job, after=10))

    def without_previews(events: list[Numbered]) -> list[Numbered]:
        return [each for each in events if not isinstance(each[1], PreviewFrame)]

    with working(store, in_process=in_process) as queue:
        job = queue.submit(ask("steps=4 pause=0.03"), owner="me")
        one, other, later = asyncio.run(attach_thrice(queue, job))
        (job,) = ended(queue, job)
        run = run_of(store, job)
        assert (job.state, job.attempts, run.state, run.owner) == ("complete", 1, "complete", "me")
        assert store.verify(run.id) == []
        assert without_previews(one) == without_previews(other)
        assert [number for number, _ in one] == sorted({number for number, _ in one})
        assert without_previews(later) == [each for each in without_previews(one) if each[0] > 10]
        assert isinstance(one[0][1], RunStarted)
        assert isinstance(one[-1][1], RunFinished)
        shown = [event for _, event in one if isinstance(event, PreviewFrame)]
        assert shown[-1].step == 3
        assert all(event.jpeg for event in shown)
        again = queue.events(job.id)
        assert without_previews(again) == without_previews(one)
        assert [event for _, event in again if isinstance(event, PreviewFrame)] == shown[-1:], "of previews the last"
        assert asyncio.run(attach(queue, job)) == again
        assert run.step_seconds == tuple(event.seconds for _, event in one if isinstance(event, StepFinished))
        state = until(lambda: now if isinstance(now := queue.worker_state(), Ready) else None)
        assert state == Ready(preset="pocket")


@pytest.mark.parametrize("in_process", [False, True])
def test_cancelling_takes_effect_within_a_block_and_keeps_the_worker(store: RunStore, in_process: bool) -> None:
    with working(store, in_process=in_process, cancel_seconds=20) as queue:
        job = queue.submit(ask("steps=200 blocks=10 pause=0.2"))
        until(lambda: len(queue.events(job.id)) > 10)
        worker = queue.worker_pid
        seen = len(queue.events(job.id))
        queue.cancel(job.id)
        (job,) = ended(queue, job)
        assert (job.state, job.error, run_of(store, job).state) == ("cancelled", None, "cancelled")
        # A block and its two events take 0.2 s: there is time for twenty, of two thousand.
        assert len(said(queue, job)) - seen < 40
        again = queue.submit(ask("steps=1"))
        assert ended(queue, again)[0].state == "complete"
        assert queue.worker_pid == worker, "the worker, and the model it holds, was not lost"


def test_stopping_and_keeping_ends_with_a_partial_clip(store: RunStore) -> None:
    with working(store, cancel_seconds=0.3) as queue:
        job = queue.submit(ask("steps=500 pause=0.01 keep_pause=0.6"))
        begun(queue, job)
        queue.cancel(job.id, keep=True)
        (job,) = ended(queue, job)
        run = run_of(store, job)
        assert (job.state, run.state, run.partial) == ("complete", "complete", True)
        assert said(queue, job)[-1] == RunFinished(run_id=run.id, partial=True, seconds=run.total_seconds)
        assert store.verify(run.id) == []


@pytest.mark.parametrize("how", ["hang", "hold"])
def test_a_worker_that_will_not_stop_is_killed_and_the_next_job_runs(store: RunStore, how: str) -> None:
    with working(store, cancel_seconds=0.5) as queue:
        stuck, following = queue.submit(ask(f"then={how} at=0")), queue.submit(ask("steps=2"))
        until((store.folder / f"{how}.begun").exists)  # until then it would stop when asked to
        worker = queue.worker_pid
        assert worker is not None
        queue.cancel(stuck.id)
        (stuck,) = ended(queue, stuck)
        assert (stuck.state, run_of(store, stuck).state) == ("cancelled", "cancelled")
        until(lambda: group_is_gone(worker))  # with the program that it had started
        assert ended(queue, following)[0].state == "complete"
        assert overlaps(store) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no niceness there")
def test_the_worker_stands_back_behind_the_page(store: RunStore) -> None:
    with working(store) as queue:
        worker = until(lambda: isinstance(queue.worker_state(), Ready) and queue.worker_pid)
        assert psutil.Process(worker).nice() > psutil.Process().nice()


def test_a_crash_fails_the_job_with_a_plain_reason_and_not_the_next(store: RunStore) -> None:
    with working(store) as queue:
        crashed, killed = queue.submit(ask("then=segfault")), queue.submit(ask("then=hang"))
        begun(queue, killed)
        assert queue.worker_pid is not None
        os.kill(queue.worker_pid, signal.SIGKILL)
        wrong, odd, fine = (queue.submit(ask(prompt)) for prompt in ("then=raise", "then=oddity", "steps=1"))
        crashed, killed, wrong, odd, fine = ended(queue, crashed, killed, wrong, odd, fine)
        assert [job.state for job in (crashed, killed, wrong, odd, fine)] == ["failed"] * 4 + ["complete"]
        assert [run_of(store, job).state for job in (crashed, killed, wrong, odd)] == ["failed"] * 4
        reasons = [(job.error or {})["message"] for job in (crashed, killed, wrong, odd)]
        assert "Segmentation fault" in reasons[0]
        assert "memory ran out" in reasons[1]
        assert reasons[2] == "NaN in step 1."
        assert "ZeroDivisionError" in reasons[3]
        assert run_of(store, crashed).error == crashed.error
        assert len(said(queue, crashed)) >= 1
        assert overlaps(store) == []


def test_a_worker_that_cannot_work_says_why_and_is_tried_again(store: RunStore) -> None:
    with JobQueue(store=store, verbs={"clip": "no_such_module:generate"}) as queue:
        job = queue.submit(ask("a"))
        state = until(lambda: now if isinstance(now := queue.worker_state(), Dead) else None)
        assert "No module named 'no_such_module'" in state.reason
        first = queue.worker_pid
        until(lambda: queue.worker_pid not in (None, first))
        assert queue.get(job.id).state == "queued"


def test_a_paused_queue_begins_nothing_even_after_a_restart(store: RunStore) -> None:
    with working(store) as queue:
        queue.pause()
        job = queue.submit(ask("steps=1"))
        until(lambda: isinstance(queue.worker_state(), Ready))
    with working(store) as queue:
        assert queue.paused
        until(lambda: isinstance(queue.worker_state(), Ready))
        time.sleep(0.3)
        assert queue.get(job.id).state == "queued"
        queue.resume()
        assert ended(queue, job)[0].state == "complete"
        assert not queue.paused


@pytest.mark.parametrize("work", OF_EACH_KIND, ids=kind_of)
def test_pausing_pauses_every_kind_of_work(idle: JobQueue, work: Work) -> None:
    job = idle.submit(work)
    idle.pause()
    assert idle._table.claim(1) is None
    idle.resume()
    assert idle._table.claim(1) == replace(idle.get(job.id), position=None)


@pytest.mark.parametrize("work", OF_EACH_KIND, ids=kind_of)
def test_every_kind_of_work_is_written_down_and_tried_again(store: RunStore, work: Work) -> None:
    first = JobQueue(store=store)
    job = first.submit(work, owner="me")
    first.close()
    again = JobQueue(store=store)
    assert again.get(job.id).work == work
    assert again.jobs(kinds=(kind_of(work),)) == [job]
    assert again.job_for(work) == job
    again.cancel(job.id)
    assert again.job_for(work) is None
    assert again.retry(job.id).work == work
    again.close()


@pytest.mark.thorough
def test_twenty_random_cancels_leave_no_overlap_and_no_orphan(store: RunStore) -> None:
    chance = random.Random(5)
    workers = set()
    with working(store, cancel_seconds=0.5) as queue:
        # One in seven does not stop softly.
        prompts = ["then=hang at=0" if number % 7 == 3 else "steps=400 pause=0.005" for number in range(20)]
        jobs = [queue.submit(ask(prompt)) for prompt in prompts]
        for job in jobs:
            if chance.random() < 0.8:
                begun(queue, job)
            workers.add(queue.worker_pid)
            time.sleep(chance.uniform(0, 0.1))
            queue.cancel(job.id)
            if chance.random() < 0.5:
                ended(queue, job)
        jobs = ended(queue, *jobs)
        workers.add(queue.worker_pid)
    assert {job.state for job in jobs} == {"cancelled"}
    assert overlaps(store) == []
    assert len(workers - {None}) > 1
    for worker in workers - {None}:
        until(lambda worker=worker: group_is_gone(worker))
    assert store.count(state="running") == 0
    assert store.count() == store.count(state="cancelled")


# -- crashes of the page ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["soft", "hold"])
def test_a_killed_page_loses_nothing_that_was_submitted(store: RunStore, idle: JobQueue, how: str) -> None:
    with page(store) as process:
        running = idle.submit(ask("steps=1000 pause=0.02" if how == "soft" else "then=hold at=0"))
        waiting = [idle.submit(ask("steps=1", seed=seed)) for seed in (2, 3)]
        begun(idle, running)
        worker = idle._table.running()["worker"]  # pyright: ignore[reportOptionalSubscript]
        process.send_signal(signal.SIGKILL)
        process.wait()
        if how == "hold" and sys.platform != "linux":
            os.killpg(worker, signal.SIGKILL)  # elsewhere nothing reaches a worker stuck in a C call
        until(lambda: group_is_gone(worker))
    assert [idle.get(job.id).state for job in waiting] == ["queued", "queued"]
    with working(store) as queue:
        (now,) = ended(queue, running)
        assert now.state == "interrupted"
        assert run_of(store, now).state == "interrupted"
        assert (now.error or {})["way_out"] == "Run it again."
        assert [job.state for job in ended(queue, *waiting)] == ["complete", "complete"]
        again = queue.retry(running.id)
        assert (again.state, again.work, again.attempts) == ("queued", running.work, 1)
        queue.cancel(begun(queue, again).id)
        assert ended(queue, again)[0].attempts == 2
    assert overlaps(store) == []


def test_closing_interrupts_what_runs_and_keeps_what_waits(store: RunStore) -> None:
    with working(store) as queue:
        running, waiting = queue.submit(ask("steps=1000 pause=0.02")), queue.submit(ask("steps=1"))
        begun(queue, running)
        worker = queue.worker_pid
    assert worker is not None
    assert group_is_gone(worker)
    queue = JobQueue(store=store, verbs=VERBS)
    assert [queue.get(job.id).state for job in (running, waiting)] == ["interrupted", "queued"]
    assert run_of(store, queue.get(running.id)).state == "interrupted"
    queue.close()


def test_two_pages_on_one_folder_never_work_at_the_same_time(store: RunStore) -> None:
    with working(store) as one, working(store) as other:
        jobs = [queue.submit(ask("steps=5 pause=0.005")) for queue in (one, other) * 3]
        assert {job.state for job in ended(one, *jobs)} == {"complete"}
        moments = (store.folder / "moments.jsonl").read_text().splitlines()
        assert len({json.loads(line)[1] for line in moments}) == 1, "one worker did them all"
        first = begun(one, one.submit(ask("steps=1000 pause=0.02")))
        other.cancel(first.id)
        assert ended(other, first)[0].state == "cancelled", "either page can cancel"
    assert overlaps(store) == []


def test_an_acknowledged_job_survives_a_kill_at_any_moment(store: RunStore) -> None:
    """A writer is killed over and over while it submits; every id that it printed is in the queue."""
    script = """
import sys
from pathlib import Path
from studio.jobs import JobQueue
from studio.preset import find_preset
from studio.requests.generation import request_for
from studio.records.runs import RunStore
queue = JobQueue(store=RunStore(Path(sys.argv[1])))
request = request_for(find_preset("pocket"), prompt="a", seed=1)
while True:
    print(queue.submit(request).id, flush=True)
"""
    acknowledged: set[str] = set()
    for wait in (0.02, 0.1, 0.3):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(store.folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        ) as writer:
            assert writer.stdout is not None
            acknowledged.add(writer.stdout.readline().strip())
            time.sleep(wait)
            writer.kill()
            acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    opened = JobTable(store.folder)
    assert opened._connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    found = {job.id for job in opened.select(None, None, 100_000)}
    assert len(acknowledged) > 3
    assert acknowledged <= found
    opened.close()


def test_a_full_disk_refuses_a_job_and_keeps_the_queue(store: RunStore) -> None:
    script = """
import resource, sys
from pathlib import Path
from studio.errors import DiskFull
from studio.jobs import JobQueue
from studio.preset import find_preset
from studio.requests.generation import request_for
from studio.records.runs import RunStore
queue = JobQueue(store=RunStore(Path(sys.argv[1])))
request = request_for(find_preset("pocket"), prompt="a", seed=1)
kept = queue.submit(request)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
refused = 0
for _ in range(20):
    try:
        queue.submit(request)
    except DiskFull:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
later = queue.submit(request)
assert [job.id for job in queue.jobs()] == [kept.id, later.id], queue.jobs()
print(refused)
"""
    said = subprocess.run(
        [sys.executable, "-c", script, str(store.folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
    )
    assert (said.stdout, said.stderr) == ("20\n", "")


def test_the_first_block_is_told_soon(store: RunStore) -> None:
    """Watching is live: an event is readable a moment after it was said, not when the run ends."""
    with working(store) as queue:
        job = queue.submit(ask("steps=1000 pause=0.02"))
        until(lambda: any(isinstance(event, BlockComputed) for event in said(queue, job)))
        assert queue.get(job.id).state == "running"
        assert queue.worker_state() == Busy(job=job.id, kind="clip", preset="pocket")
