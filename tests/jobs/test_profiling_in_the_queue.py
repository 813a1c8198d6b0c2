"""Measuring a model from the page: a job like any other; followed, stopped, plain in failing."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import gradio as gr
import pytest
from support.patience import until

from studio.errors import RequestError
from studio.events import ProfilingEvent, ProfilingStep, Stop
from studio.generate import PROFILES
from studio.jobs import JobQueue
from studio.machine import hardware
from studio.preset import find_preset
from studio.profiling import profile
from studio.records.event_log import EventLog, EventTail
from studio.records.profiles import profile_files, profiling_log
from studio.records.runs import RunStore
from studio.requests.generation import request_for
from studio.requests.work import ProfileModel
from studio.ui.panels.profile import MeasurePanel
from studio.ui.server.page_context import PageContext
from studio.ui.wording import worker_words

SMALL = {"height": 64, "width": 64, "num_frames": 5, "clips": 1, "growth_clips": 1}


def profile_small(work: ProfileModel, *, store: RunStore, owner: str, stop: Stop) -> Generator[ProfilingEvent]:
    """The real verb, on small clips and few of them."""
    yield from profile(work, store=store, owner=owner, stop=stop, **SMALL)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    with JobQueue(store=RunStore(tmp_path), verbs={"profile": f"{__name__}:profile_small"}, in_process=True) as queue:
        yield queue


def steps_of(queue: JobQueue, work: ProfileModel) -> list[ProfilingStep]:
    log = profiling_log(queue.folder / PROFILES, work.preset, work.num_inference_steps, work.flow_shift)
    return [event for _, event in EventTail(log).read() if isinstance(event, ProfilingStep)]


def measured_here(queue: JobQueue) -> list[int]:
    found = profile_files("pocket", queue.folder / PROFILES)
    return [file.total_steps for file in found if not file.shipped]


def test_the_worker_measures_and_then_makes_clips_again(queue: JobQueue) -> None:
    work = ProfileModel(preset="pocket", num_inference_steps=7)
    job = queue.submit(work)
    seen = until(lambda: steps_of(queue, work))[-1]
    assert worker_words(queue.worker_state(), paused=False) == "Measuring a model"
    assert 0 < seen.done < seen.total
    fields = {name: SMALL[name] for name in ("height", "width", "num_frames")}
    clip = queue.submit(request_for(find_preset("pocket"), prompt="a road", seed=1, num_inference_steps=2, **fields))
    assert until(lambda: now if (now := queue.get(clip.id)).final else None).state == "complete"
    assert queue.get(job.id).state == "complete"
    assert measured_here(queue) == [7]


def test_a_measuring_that_is_stopped_leaves_no_profile_and_the_worker_alive(queue: JobQueue) -> None:
    work = ProfileModel(preset="pocket", num_inference_steps=40)
    job = queue.submit(work)
    until(lambda: queue.get(job.id).state == "running")
    queue.cancel(job.id)
    assert until(lambda: now if (now := queue.get(job.id)).final else None).state == "cancelled"
    assert measured_here(queue) == []
    assert until(lambda: queue.worker_state().state == "ready")


def test_what_cannot_be_measured_says_why(queue: JobQueue) -> None:
    job = queue.submit(ProfileModel(preset="pocket", flow_shift=None, num_inference_steps=1))
    job = until(lambda: now if (now := queue.get(job.id)).final else None)
    assert job.state == "failed"
    assert (job.error or {})["code"] == RequestError.code
    assert (job.error or {})["field"] == "num_inference_steps"


def test_what_was_asked_for_waits_where_everybody_sees_it_and_can_be_called_off(tmp_path: Path) -> None:
    here, there = JobQueue(store=RunStore(tmp_path)), JobQueue(store=RunStore(tmp_path))
    job = here.submit(ProfileModel(preset="pocket"))
    assert [each.work for each in there.jobs(kinds=("profile",))] == [job.work]
    there.cancel(job.id)
    assert here.get(job.id).state == "cancelled"
    here.close()
    there.close()


class Idle:
    """A queue in which nobody works, and what its worker would do at each moment."""

    def __init__(self, folder: Path) -> None:
        self.queue = JobQueue(store=RunStore(folder))

    def begin(self, *, done: int = 0) -> None:
        """The next job is begun, if none is, and has got this far."""
        job = self.queue._table.claim(1) or self.queue.jobs(states=("running",))[0]
        work = job.work
        assert isinstance(work, ProfileModel)
        log = profiling_log(self.queue.folder / PROFILES, work.preset, work.num_inference_steps, work.flow_shift)
        log.parent.mkdir(parents=True, exist_ok=True)
        EventLog(log).write(ProfilingStep(done=done, total=12, what="a clip"))

    def asked(self) -> list[ProfileModel]:
        return [job.work for job in self.queue.jobs() if isinstance(job.work, ProfileModel)]


def panel_of(folder: Path, *, hosted: bool) -> tuple[MeasurePanel, Idle]:
    idle = Idle(folder)
    context = PageContext(store=RunStore(folder), queue=idle.queue, machine=hardware.measure(), hosted=hosted)
    panel = MeasurePanel(context)
    with gr.Blocks():
        panel.build(find_preset("pocket"))
    return panel, idle


def test_the_panel_shows_what_was_measured_and_how_far_a_measuring_is(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=False)
    shown = panel.shows("pocket")
    assert "30 and 50 steps" in shown[panel.line]["words"]
    assert shown[panel.plot].startswith("<svg")
    shown = panel.begin("pocket", 40, None)
    assert queue.asked() == [ProfileModel(preset="pocket", num_inference_steps=40)]
    assert shown[panel.cancel]["visible"], "what waits can be called off"
    queue.begin(done=3)
    shown = panel.look("pocket", shown[panel.seen])
    assert shown[panel.line]["share"] == 0.25
    assert shown[panel.cancel]["visible"]
    assert not shown[panel.measure]["visible"]
    again = panel.look("pocket", shown[panel.seen])
    assert again == dict.fromkeys(panel.outputs, gr.skip()), "nothing new is not said again"
    assert panel.stop("pocket")[panel.line]["words"] == "Stopping."
    (job,) = queue.queue.jobs()
    assert queue.queue._table.wanted_stop(job.id) == "cancel"
    queue.queue._table.end(job.id, "cancelled", None)
    assert panel.shows("wan2.1-t2v-1.3b")[panel.line]["tone"] == "warn", "nobody measured this one"


def test_every_tab_follows_a_measuring_and_so_does_one_opened_in_the_middle(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=False)
    seen = [panel.shows("pocket")[panel.seen]] * 2
    asked = panel.begin("pocket", 40, None)
    seen[0] = asked[panel.seen]
    told = panel.look("pocket", seen[1])
    assert told[panel.line] == asked[panel.line], "what was asked for in one tab waits in the other"
    assert told[panel.cancel]["visible"]
    seen = [told[panel.seen], told[panel.seen], None]
    for done in (1, 2):
        queue.begin(done=done)
        told = [panel.look("pocket", each) for each in seen]
        assert [each[panel.line]["words"].split(".")[0] for each in told] == [f"Measuring: {done} of 12 clips"] * 3
        seen = [each[panel.seen] for each in told]


def test_what_is_under_way_is_said_beside_its_button_on_another_model_s_form_too(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=False)
    queue.queue.submit(ProfileModel(preset="pocket"))
    shown = panel.shows("wan2.1-t2v-1.3b")
    assert shown[panel.line]["words"].startswith("The measuring of pocket begins")
    assert shown[panel.cancel]["visible"]
    queue.begin(done=3)
    assert panel.shows("wan2.1-t2v-1.3b")[panel.line]["words"].startswith("Measuring pocket: 3 of 12 clips")


def test_visitors_of_a_hosted_page_measure_nothing(tmp_path: Path) -> None:
    panel, queue = panel_of(tmp_path, hosted=True)
    panel.begin("pocket", 30, None)
    assert queue.asked() == []
    assert not panel.shows("pocket")[panel.measure]["visible"]
    job = queue.queue.submit(ProfileModel(preset="pocket"))
    shown = panel.stop("pocket")
    assert queue.queue.get(job.id).state == "queued"
    assert not shown[panel.cancel]["visible"]
