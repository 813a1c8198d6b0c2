"""What the tabs do, without a browser: submitting, watching, and keeping visitors apart."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from support.page_values import AT_HOME, pressed, typed

from studio.clips.write import write_clip
from studio.errors import ClipError, RequestError, UnknownPreset
from studio.jobs import Job, JobQueue
from studio.preset import find_preset, list_presets
from studio.records.versions import LORA_FILE, VersionStore
from studio.requests.generation import request_for, request_to_json
from studio.requests.training import TrainingClip, finetune_request_for
from studio.ui.components.static_html import masthead
from studio.ui.page import build_page, launch_options
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import introduced
from studio.ui.tabs.generate import GenerateTab
from studio.ui.tabs.runs import RunsTab, request_of_file

PROJECT = Path(__file__).parent.parent.parent


def tabs_of(context: PageContext) -> tuple[GenerateTab, RunsTab]:
    presets, _ = list_presets()
    with gr.Blocks():
        browser = gr.BrowserState(AT_HOME, storage_key="test", secret="test")
        generate = GenerateTab(context, presets, masthead(elem_id="masthead"), browser)
        runs = RunsTab(context, presets, browser)
        generate.build()
        runs.build()
    return generate, runs


def submit(tab: GenerateTab, browser: Any, prompt: str, **changes: Any) -> dict[Any, Any]:
    return tab.submit({tab.browser: browser} | typed(tab.form, prompt=prompt, **changes))


async def watch(tab: GenerateTab, browser: Any, *, session: str = "one", chosen: bool = False) -> list[Any]:
    request: Any = SimpleNamespace(session_hash=session)
    attached = (
        tab.attachments.attach_chosen(browser, True, request) if chosen else tab.attachments.attach(browser, request)
    )
    return [update async for update in attached]


def last(updates: list[Any], component: Any) -> Any:
    return next(update[component] for update in reversed(updates) if isinstance(update, dict) and component in update)


# -- submitting -------------------------------------------------------------------------------------------------------


def test_a_click_queues_the_request_and_the_browser_remembers_the_job(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    said = submit(tab, AT_HOME, "a red car", seed="11")
    (job,) = context.queue.jobs()
    assert said[tab.browser]["job"] == job.id
    assert said[tab.trouble] == {}
    assert (job.work.prompt, job.work.seed, job.owner) == ("a red car", 11, "local")


@pytest.mark.parametrize(("changes", "label"), [({"prompt": " "}, "Prompt"), ({"width": 130}, "Width")])
def test_a_form_that_will_not_do_is_answered_beside_the_button_and_nothing_is_queued(
    context: PageContext, changes: dict[str, Any], label: str
) -> None:
    tab, _ = tabs_of(context)
    said = tab.submit({tab.browser: AT_HOME} | typed(tab.form, **changes))
    assert said[tab.trouble]["tone"] == "error"
    assert said[tab.trouble]["field"] == label
    assert set(said) == {tab.trouble}, "what was typed is left alone"
    assert context.queue.jobs() == []


def test_weights_that_are_not_here_are_said_before_anything_is_queued(
    context: PageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    preset = next(preset for preset in list_presets()[0] if preset.weights.repo)
    tab, _ = tabs_of(context)
    grid = {field: getattr(preset.defaults, field) for field in ("width", "height", "num_frames", "flow_shift")}
    said = tab.submit({tab.browser: AT_HOME} | typed(tab.form, preset=preset.name, **grid))
    assert said[tab.trouble]["field"] == "Preset"
    assert "download" in said[tab.trouble]["words"].lower()
    assert context.queue.jobs() == []


def test_before_any_run_the_estimate_says_that_nothing_was_measured(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    assert "ot measured yet" in tab.estimate.of(typed(tab.form))["words"]
    wrong = tab.estimate.of(typed(tab.form, width=130))
    assert (wrong["tone"], wrong["field"]) == ("error", "Width")


# -- watching ---------------------------------------------------------------------------------------------------------


def test_an_attached_page_sees_the_whole_run_and_then_its_clip(context: PageContext, tmp_path: Path) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=4 blocks=2")[tab.browser]
    context.queue.start()
    updates = asyncio.run(asyncio.wait_for(watch(tab, browser), 60))
    assert updates[0] == gr.skip(), "an end without news would blank everything"
    assert last(updates, tab.live.status)["state"] == "complete"
    assert len(last(updates, tab.live.timeline)["steps"]) == 4
    assert last(updates, tab.live.stopping)["visible"] is False
    served = Path(last(updates, tab.live.video)["value"])
    assert served.is_relative_to(tmp_path / "served")
    assert served.suffix == ".mp4"


def test_a_page_that_comes_later_gets_the_history_redrawn(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=3")[tab.browser]
    context.queue.start()
    asyncio.run(asyncio.wait_for(watch(tab, browser), 60))
    again = asyncio.run(asyncio.wait_for(watch(tab, browser, session="reloaded"), 60))
    asyncio.run(asyncio.wait_for(watch(tab, browser, session="chosen", chosen=True), 60))
    assert len(last(again, tab.live.timeline)["steps"]) == 3
    assert last(again, tab.live.result)["visible"] is True


def test_one_job_after_the_other_is_followed(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=3 pause=0.3 the first")[tab.browser]
    submit(tab, browser, "steps=3 pause=0.3 the second")
    context.queue.start()
    updates = asyncio.run(asyncio.wait_for(watch(tab, browser), 60))
    seen = [
        update[tab.live.status]["prompt"]
        for update in updates
        if isinstance(update, dict) and tab.live.status in update
    ]
    assert list(dict.fromkeys(seen)) == ["steps=3 pause=0.3 the first", "steps=3 pause=0.3 the second"]


async def follow(tab: GenerateTab, kept: Any, shown: list[str], *, chosen: bool = False) -> None:
    """Note which job's prompt is shown, with each update of the live area."""
    request: Any = SimpleNamespace(session_hash="one")
    async for update in (
        tab.attachments.attach_chosen(kept, True, request) if chosen else tab.attachments.attach(kept, request)
    ):
        if isinstance(update, dict) and tab.live.status in update:
            shown.append(update[tab.live.status]["prompt"])


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_page_that_attaches_anew_ends_its_earlier_attachment(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=400 pause=0.01 blocks=1")[tab.browser]

    async def go() -> None:
        shown: list[str] = []
        first = asyncio.create_task(follow(tab, browser, shown))
        await eventually(lambda: shown)
        second = asyncio.create_task(watch(tab, browser))
        await asyncio.wait_for(first, 30)
        context.queue.cancel(browser["job"])
        assert last(await asyncio.wait_for(second, 30), tab.live.status)["state"] == "cancelled"

    context.queue.start()
    asyncio.run(go())


def test_what_was_chosen_stays_when_the_attachment_of_an_earlier_click_comes_late(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=400 pause=0.01 blocks=1 at work")[tab.browser]
    submit(tab, browser, "steps=2 waits")
    waits = context.queue.jobs()[1]

    async def go() -> list[str]:
        first: list[str] = []
        late_one: list[str] = []
        chosen = asyncio.create_task(follow(tab, browser | {"job": waits.id}, first, chosen=True))
        await eventually(lambda: first)
        late = asyncio.create_task(follow(tab, browser, late_one))
        await asyncio.wait_for(chosen, 30)
        await eventually(lambda: late_one)
        context.queue.cancel(waits.id)
        context.queue.cancel(browser["job"])
        await asyncio.wait_for(late, 30)
        return late_one

    context.queue.start()
    assert asyncio.run(go())[0] == "steps=2 waits"


class Late:
    """A queue whose news of one job are on their way until they are let go."""

    def __init__(self, queue: JobQueue, job_id: str) -> None:
        self.queue = queue
        self.job_id = job_id
        self.asked = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        job = self.queue.get(job_id, owner=owner)
        if job_id == self.job_id and not self.let_go.is_set():
            self.asked.set()
            self.let_go.wait(20)
        return job


def test_once_another_job_is_shown_nothing_more_is_heard_of_the_one_before(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=400 pause=0.01 blocks=1 at work")[tab.browser]
    submit(tab, browser, "steps=2 waits")
    waits = context.queue.jobs()[1]
    late: Any = Late(context.queue, browser["job"])
    tab, _ = tabs_of(replace(context, queue=late))
    shown: list[str] = []

    async def go() -> list[str]:
        first = asyncio.create_task(follow(tab, browser, shown))
        await eventually(lambda: shown)
        late.let_go.clear()
        await eventually(late.asked.is_set)  # news are on their way while the other is chosen
        second = asyncio.create_task(follow(tab, browser | {"job": waits.id}, shown, chosen=True))
        await eventually(lambda: tab.attachments.watchers.going["one"][1:])
        late.let_go.set()
        await eventually(lambda: "steps=2 waits" in shown)
        meanwhile = list(shown)
        context.queue.cancel(waits.id)
        context.queue.cancel(browser["job"])
        await asyncio.wait_for(asyncio.gather(first, second), 30)
        return meanwhile

    context.queue.start()
    shown = asyncio.run(go())
    changed_at = shown.index("steps=2 waits")
    assert set(shown[:changed_at]) == {"steps=400 pause=0.01 blocks=1 at work"}
    assert set(shown[changed_at:]) == {"steps=2 waits"}


@pytest.mark.parametrize("job", ["f" * 32, "nonsense", 7, None])
def test_a_job_that_is_not_there_shows_an_idle_page(context: PageContext, job: Any) -> None:
    tab, _ = tabs_of(context)
    updates = asyncio.run(asyncio.wait_for(watch(tab, {"owner": "", "job": job}), 10))
    assert last(updates, tab.live.status)["state"] == "idle"


def test_a_failed_job_says_why_and_can_be_run_again(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=3 then=raise at=1")[tab.browser]
    context.queue.start()
    updates = asyncio.run(asyncio.wait_for(watch(tab, browser), 60))
    assert last(updates, tab.live.status)["state"] == "failed"
    assert last(updates, tab.live.status)["detail"]
    (row,) = last(updates, tab.queue.list)["jobs"]
    assert "retry" in row["actions"]
    context.queue.pause()
    tab.act(browser, pressed(action="retry", job=row["id"]))
    assert [job.state for job in context.queue.jobs(states=("queued",))] == ["queued"]


# -- the queue's buttons ----------------------------------------------------------------------------------------------


def test_jobs_move_up_are_cancelled_and_the_queue_is_paused(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    for name in ("one", "two", "three"):
        submit(tab, AT_HOME, name)
    three = context.queue.jobs()[2]
    tab.act(AT_HOME, pressed(action="up", job=three.id))
    assert [job.work.prompt for job in context.queue.jobs()] == ["one", "three", "two"]
    tab.act(AT_HOME, pressed(action="cancel", job=three.id))
    assert [job.work.prompt for job in context.queue.jobs(states=("queued",))] == ["one", "two"]
    tab.act(AT_HOME, pressed(action="pause", job=""))
    assert context.queue.paused
    tab.act(AT_HOME, pressed(action="resume", job=""))
    assert not context.queue.paused


@pytest.mark.parametrize(
    "data", [None, [], "cancel", {}, {"action": "drop tables"}, {"action": "cancel", "job": ["x"]}]
)
def test_a_button_that_sends_nonsense_does_nothing(context: PageContext, data: Any) -> None:
    tab, _ = tabs_of(context)
    submit(tab, AT_HOME, "stays")
    tab.act(AT_HOME, gr.EventData(None, data))
    assert [job.state for job in context.queue.jobs()] == ["queued"]
    assert not context.queue.paused


# -- visitors of a hosted page ----------------------------------------------------------------------------------------


def test_a_visitor_sees_and_touches_only_their_own_jobs_and_runs(hosted: PageContext) -> None:
    tab, runs = tabs_of(hosted)
    mine, yours = introduced(None), introduced(None)
    mine = submit(tab, mine, "steps=2 mine")[tab.browser]
    hosted.queue.start()
    asyncio.run(asyncio.wait_for(watch(tab, mine), 60))
    (job,) = hosted.queue.jobs()
    assert job.run_id is not None

    assert len(tab.queue.look(mine, "")[tab.queue.list]["jobs"]) == 1
    assert tab.queue.look(yours, "")[tab.queue.list]["jobs"] == []
    assert last(asyncio.run(watch(tab, yours | {"job": job.id})), tab.live.status)["state"] == "idle"
    for action in ("show", "cancel", "up", "retry"):
        assert tab.act(yours, pressed(action=action, job=job.id))[tab.trouble]["tone"] == "error"
    assert tab.restore_shown(yours, job.id)[tab.trouble]["tone"] == "error"
    assert tab.submit_again(yours, job.id)[tab.trouble]["tone"] == "error"

    assert runs.list(mine, "", "", 24, "")[runs.grid]["total"] == 1
    assert runs.list(yours, "", "", 24, "")[runs.grid]["total"] == 0
    assert runs.choose(yours, pressed(run=job.run_id))[runs.shown]["visible"] is False
    runs.remove(yours, job.run_id)
    assert runs.choose(mine, pressed(run=job.run_id))[runs.chosen] == job.run_id
    runs.remove(mine, job.run_id)
    assert runs.list(mine, "", "", 24, "")[runs.grid]["total"] == 0


def test_a_visitor_may_not_pause_everybodys_queue_flood_it_or_download(hosted: PageContext) -> None:
    tab, _ = tabs_of(hosted)
    visitor = introduced(None)
    tab.act(visitor, pressed(action="pause", job=""))
    assert not hosted.queue.paused
    for _ in range(3):
        visitor = submit(tab, visitor, "one of three")[tab.browser]
    assert "at most 3" in submit(tab, visitor, "one too many")[tab.trouble]["words"]
    assert list(tab.preset.weights.go_on("wan2.1-t2v-1.3b")) == [{tab.preset.weights.line: gr.skip()}]


def test_a_page_opened_later_offers_what_was_promoted_since_the_server_was_started(context: PageContext) -> None:
    tab, _ = tabs_of(context)
    versions = VersionStore(context.store.folder)
    preset = find_preset(tab.form.first.name) if tab.form.first else find_preset("pocket")
    clips = (TrainingClip(path=Path("a.mp4"), caption="a"),)
    version = versions.begin(finetune_request_for(preset, clips=clips), preset_digest=preset.digest)
    (versions.path(version.id) / LORA_FILE).write_bytes(b"weights")
    versions.promote(version.id)
    shown = tab.welcome(AT_HOME)[tab.form.controls["adapter"]]
    assert shown["value"] == version.id
    assert version.id in [value for _, value in shown["choices"]]


def test_a_hosted_browser_without_an_id_is_told_to_reload(hosted: PageContext) -> None:
    tab, runs = tabs_of(hosted)
    assert "Reload" in submit(tab, AT_HOME, "who am I")[tab.trouble]["words"]
    assert runs.list(AT_HOME, "", "", 24, "")[runs.grid]["total"] == 0


# -- restoring from a file --------------------------------------------------------------------------------------------


def test_the_settings_inside_a_clip_come_back_whole(context: PageContext, tmp_path: Path) -> None:
    tab, _ = tabs_of(context)
    browser = submit(tab, AT_HOME, "steps=2 café ${x}", seed="99", num_inference_steps=9)[tab.browser]
    context.queue.start()
    asyncio.run(asyncio.wait_for(watch(tab, browser), 60))
    (job,) = context.queue.jobs()
    run = context.store.get(job.run_id or "")
    assert request_of_file(str(run.video)) == job.work


def test_a_foreign_clip_and_an_unknown_preset_get_a_clear_word(tmp_path: Path) -> None:
    import numpy as np

    from studio.clips.clip import Clip

    clip = Clip(frames=np.zeros((5, 64, 64, 3), np.uint8), fps=12)
    write_clip(clip, tmp_path / "foreign.mp4")
    with pytest.raises(ClipError, match="no settings"):
        request_of_file(str(tmp_path / "foreign.mp4"))
    request = request_for(find_preset("pocket"), prompt="x", seed=1).model_copy(update={"preset": "gone"})
    write_clip(clip, tmp_path / "gone.mp4", settings={"request": request_to_json(request)})
    with pytest.raises(UnknownPreset, match="gone"):
        request_of_file(str(tmp_path / "gone.mp4"))
    write_clip(clip, tmp_path / "odd.mp4", settings={"request": {"prompt": "x", "surprise": 1}})
    with pytest.raises(RequestError):
        request_of_file(str(tmp_path / "odd.mp4"))
    (tmp_path / "text.mp4").write_text("#EXTM3U")
    with pytest.raises(ClipError):
        request_of_file(str(tmp_path / "text.mp4"))
    with pytest.raises(ClipError):
        request_of_file(None)


# -- the page as a whole ----------------------------------------------------------------------------------------------


def test_no_listener_of_the_page_is_a_published_interface(context: PageContext) -> None:
    page = build_page(context)
    listeners = page.config["dependencies"]
    assert listeners
    assert [each["api_name"] for each in listeners if each["api_visibility"] != "private"] == []


def test_every_listener_leaves_its_slot_free_for_others(context: PageContext) -> None:
    page = build_page(context)
    assert all(function.concurrency_limit is None for function in page.fns.values())


def test_the_server_is_launched_shut(context: PageContext) -> None:
    options = launch_options(context, host="127.0.0.1", port=None)
    assert options["share"] is False
    assert options["strict_cors"] is True
    assert options["allowed_paths"] == []
    assert options["blocked_paths"] == [str(context.store.folder.resolve())]
    assert options["enable_monitoring"] is False
    assert options["run_history"] is False


def test_the_page_is_built_without_torch() -> None:
    code = (
        "import sys, studio.ui.page\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=os.environ, check=True, timeout=120)


def test_app_only_builds_and_launches() -> None:
    tree = ast.parse((PROJECT / "app.py").read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"studio.ui.page"}


def test_whoever_looks_by_himself_sends_nothing_chosen_from_a_list_that_is_filled_later(context: PageContext) -> None:
    """Gradio holds it against the list as it is when it arrives, and would show an error that nobody caused."""
    page = build_page(context)
    looking = [
        listener
        for listener in page.fns.values()
        if any(isinstance(page.blocks.get(number or -1), gr.Timer) for number, _ in listener.targets)
    ]
    assert looking
    for listener in looking:
        assert not [each for each in listener.inputs if getattr(each, "choices", True) == []], listener.name
