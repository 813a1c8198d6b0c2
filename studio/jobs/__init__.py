"""Jobs: the durable queue. The page submits and attaches; a process of its own does the work, one job at a time.

    with JobQueue(store=RunStore()) as queue:
        job = queue.submit(request)
        async for number, event in queue.follow(job.id):
            ...

A job does one piece of work: a clip, a training, a profile, a comparison (`studio.requests.work`). What was submitted
survives a closed tab, a reload and a killed server: jobs lie in `jobs.sqlite`, in the runs' folder; what their streams
say is in the log of the thing that is made.

    table.py      the table, and every statement that touches it; shared by all processes
    verbs.py      what does each kind of work
    worker.py     takes the next job, walks its verb, says how it ended
    preload.py    loads a model ahead of time
    process.py    processes and their ends
    keeper.py     keeps a worker process alive, and kills one that will not stop
    queue.py      what the page sees

Two workers never overlap: whoever works holds `worker.lock`, which the operating system takes back only when that
process is gone. A job is stopped softly first, by its `stop`; a worker that has not answered in time is killed with
everything it started.

Knows queues, processes and their ends. Refuses to know what a job does between two events, and torch: a verb is
imported by name, and only where it runs.
"""

from studio.jobs.queue import JobQueue
from studio.jobs.table import FINAL, Job, JobState
from studio.jobs.worker import Busy, Dead, Ready, Starting, WorkerState

__all__ = ["FINAL", "Busy", "Dead", "Job", "JobQueue", "JobState", "Ready", "Starting", "WorkerState"]
