"""Jobs: the durable queue. The page submits and attaches; a process of its own does the work, one job at a time.

    with JobQueue(store=RunStore()) as queue:
        job = queue.submit(request)
        async for number, event in queue.follow(job.id):
            ...

What was submitted survives a closed tab, a reload and a killed server: jobs and what their streams said lie in
`jobs.sqlite`, in the runs' folder.

    book.py       the tables, and every statement that touches them; shared by all processes
    worker.py     takes the next job, walks `generate`, writes down what it says; measures and trains in between
    process.py    processes and their ends
    queue.py      what the page sees; keeps a worker process alive, and kills one that will not stop

Two workers never overlap: whoever works holds `worker.lock`, which the operating system takes back only when that
process is gone. A job is stopped softly first, by closing its stream; a worker that has not answered in time is killed
with everything it started.

Knows queues, processes and their ends. Refuses to know what a job does between two events, and torch: the verb is
imported by name, and only where it runs.
"""

from studio.jobs.queue import JobQueue
from studio.jobs.table import FINAL, Job, JobState
from studio.jobs.worker import VERB

__all__ = ["FINAL", "VERB", "Job", "JobQueue", "JobState"]
