"""The page: the masthead, the tabs, and how it is launched.

Knows which tabs there are and every setting of the server in front of them. Refuses to know what a tab does.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio.clips.limits import ClipLimits
from studio.jobs import JobQueue
from studio.machine import hardware
from studio.preset import list_presets
from studio.records.runs import RunStore, runs_folder
from studio.ui.components import message
from studio.ui.components.static_html import masthead as masthead_line
from studio.ui.server.guard import Guard, Janitor
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import is_hosted
from studio.ui.tabs.compare import CompareTab, TwinButton
from studio.ui.tabs.drive import DriveTab
from studio.ui.tabs.finetune import FinetuneTab
from studio.ui.tabs.generate import GenerateTab
from studio.ui.tabs.runs import RunsTab
from studio.ui.tabs.super_resolution import SuperResolutionTab
from studio.ui.theme import HEAD, STYLE_SHEETS, theme
from studio.ui.wording import machine_line

UPLOAD_BYTES = {"local": ClipLimits.file_bytes, "hosted": 50 * 10**6}
JOBS_PER_VISITOR = 3
"""Waiting and running, where strangers may come."""
CACHE_SECONDS = (600, 6 * 3600)
"""How often the page's temporary folder is swept, and the age at which a copy in it goes."""


def build_page(context: PageContext) -> gr.Blocks:
    """The page of that context, not yet served."""
    presets, faults = list_presets()
    with gr.Blocks(title="Dailies", analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True) as page:
        # The secret goes to the browser with everything else: it keeps the value readable after a restart, no more.
        browser = gr.BrowserState({"owner": "", "job": ""}, storage_key="dailies", secret="dailies")
        masthead = masthead_line({"machine": machine_line(context.machine)}, elem_id="masthead")
        if faults:
            message.message(message.warn(" ".join(str(fault) for fault in faults)), elem_id="preset-faults")
        if context.hosted:
            message.message(
                message.quiet("Runs on this shared page may vanish: download what you want to keep."), elem_id="hosted"
            )
        generate = GenerateTab(context, presets, masthead, browser)
        runs = RunsTab(context, presets, browser)
        compare = CompareTab(context, browser, generate.form, generate)
        finetune = FinetuneTab(context, presets)
        super_resolution = SuperResolutionTab(context, browser)
        drive = DriveTab(context, browser)
        with gr.Tabs(selected="generate", elem_id="tabs") as tabs:
            with gr.Tab("Generate", id="generate"):
                generate.build()
            with gr.Tab("Compare", id="compare") as compare_tab:
                compare.build()
            with gr.Tab("Super-resolution", id="super-resolution") as super_resolution_tab:
                super_resolution.build()
            with gr.Tab("Drive", id="drive") as drive_tab:
                drive.build()
            with gr.Tab("Fine-tune", id="finetune") as finetune_tab:
                finetune.build()
            with gr.Tab("Runs", id="runs") as runs_tab:
                runs.build()
        generate.wire(page)
        runs.wire(runs_tab, tabs, generate)
        live, follows = generate.live, drive.following
        twins = [
            TwinButton(live.compare, live.shown_job, generate.run_shown, generate.trouble),
            TwinButton(runs.compare, runs.chosen, runs.run_shown, runs.hint),
            TwinButton(follows.live.compare, follows.live.shown_job, follows.run_shown, follows.trouble),
        ]
        compare.wire(compare_tab, tabs, twins)
        finetune.wire(finetune_tab)
        super_resolution.wire(super_resolution_tab)
        drive.wire(drive_tab)
    page.queue(status_update_rate=5, max_size=200, api_open=False, default_concurrency_limit=None)
    return page


def launch_options(context: PageContext, *, host: str, port: int | None) -> dict[str, Any]:
    """Everything that `Blocks.launch` is told."""
    upload_bytes = UPLOAD_BYTES["hosted" if context.hosted else "local"]
    return {
        "server_name": host,
        "server_port": port,
        "theme": theme(),
        "css_paths": list(STYLE_SHEETS),
        "head": HEAD,
        "share": False,
        "strict_cors": True,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "show_error": False,
        "quiet": True,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "max_file_size": upload_bytes,
        "allowed_paths": [],
        "blocked_paths": [str(context.store.folder.resolve())],
        "state_session_capacity": 500,
        "max_threads": 16,
        "app_kwargs": {
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
            "middleware": [Middleware(Guard, upload_bytes=upload_bytes, hosts=allowed_hosts())],
        },
    }


def allowed_hosts() -> tuple[str, ...]:
    """Names under which the page answers besides localhost and plain addresses: `DAILIES_HOSTS`, and a Space's own."""
    named = [name.strip() for name in os.environ.get("DAILIES_HOSTS", "").split(",")]
    if os.environ.get("SPACE_ID"):
        named += [os.environ.get("SPACE_HOST", ""), ".hf.space"]
    return tuple(name for name in named if name)


def serve(*, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False) -> None:
    """Open the studio and serve the page until it is told to stop."""
    store = RunStore(runs_folder())
    hosted = is_hosted()
    here = hardware.measure()
    temporary = Path(tempfile.mkdtemp(prefix="dailies-page-"))
    os.environ["GRADIO_TEMP_DIR"] = str(temporary)  # Gradio's own default is shared by everybody on the machine
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "200")  # its counters grow for ever otherwise
    queue = JobQueue(
        store=store,
        in_process=here.hosted == "zerogpu",
        verbs={"clip": _zero_gpu()} if here.hosted == "zerogpu" else None,
        max_jobs_per_owner=JOBS_PER_VISITOR if hosted else None,
    )
    context = PageContext(store=store, queue=queue, machine=here, hosted=hosted)
    janitor = Janitor(temporary)
    signal.signal(signal.SIGTERM, _leave)
    try:
        # The page first, the worker behind it: importing torch beside it would keep both waiting for the processor.
        page = build_page(context)
        options = launch_options(context, host=host, port=port)
        _, address, _ = page.launch(**options, inbrowser=open_browser, prevent_thread_lock=True)
        with queue:
            _preload(queue, here)
            janitor.start()
            print(f"Dailies is at {address}", flush=True)
            page.block_thread()
    finally:
        janitor.stop()
        shutil.rmtree(temporary, ignore_errors=True)


def _zero_gpu() -> str:
    """The verb where graphics cards are lent; the Space wants to see its function before the page is up."""
    from studio.remote import zero_gpu

    zero_gpu.on_the_card()
    return "studio.remote.zero_gpu:generate"


def _preload(queue: JobQueue, here: hardware.Machine) -> None:
    """The model that a new page offers is loaded and measured behind it, while its reader is still typing."""
    presets, _ = list_presets()
    if presets and here.hosted != "zerogpu":  # there the graphics card comes with a visitor's click, not before
        queue.preload(presets[0].name)


def _leave(*_: object) -> None:
    """A polite request to end is answered by ending in order: the queue is closed, the temporary folder removed."""
    raise SystemExit(0)
