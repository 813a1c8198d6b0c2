"""Sending a version to the Hub from the page: with whose token, and what is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest
from support.loopback_hub import TakingHub, taking
from support.training_tab import begun, learnt, tab_of

from studio.records.versions import LORA_FILE, Version
from studio.ui.panels.push import can_sign_in
from studio.ui.panels.training_progress import TrainingProgress
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.finetune import FinetuneTab

SECRET = "hf_of_the_machine"
VISITORS = gr.OAuthToken(token="hf_of_the_visitor", scope="contribute-repos", expires_at=0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[TakingHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with taking() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        yield hub


def complete(tab: FinetuneTab, film: Callable[..., str]) -> Version:
    version = begun(tab, film, title="Night <i>rain</i>!")
    learnt(tab, version, base=18, own=19)
    (tab.versions.path(version.id) / "README.md").write_text("a card", encoding="utf-8")
    return version


def pushed(tab: FinetuneTab, *values: Any) -> list[dict[Any, Any]]:
    async def walk() -> list[dict[Any, Any]]:
        return [update async for update in tab.panel.push.push(*values)]

    return asyncio.run(walk())


def test_at_home_it_is_sent_with_the_machines_token_which_nobody_sees(
    context: PageContext, film: Callable[..., str], hub: TakingHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tab = tab_of(context)
    push = tab.panel.push
    version = complete(tab, film)
    offered = tab.open("", TrainingProgress(), None)
    assert offered[push.part]["visible"]
    assert offered[push.repo] == "night-i-rain-i-pocket-lora"
    assert push.repo not in tab.open(version.id, offered[tab.progress], None), "what was typed stays"
    begun, ended = pushed(tab, version.id, " rain ", True)
    assert "being sent to rain" in begun[push.answer]["words"]
    assert ended[push.answer]["link"] == f"{hub.endpoint}/someone/rain"
    assert hub.made[0]["visibility"] == "private"
    assert {LORA_FILE, "README.md"} <= set(hub.files)
    assert hub.tokens - {None} == {f"Bearer {SECRET}"}
    assert pushed(tab, version.id, "rain", False)[-1][push.answer]["tone"] == "good"
    assert hub.made[1]["visibility"] == "public"

    hub.refusal = 403
    refused = pushed(tab, version.id, "someone-else/rain", True)[-1]
    assert "may not write" in refused[push.answer]["words"]
    assert refused[push.button]["interactive"]
    assert pushed(tab, version.id, "", True)[-1][push.answer]["field"] == "Repository"
    assert pushed(tab, "../x", "rain", True)[-1][push.answer]["tone"] == "error"
    assert SECRET not in f"{offered} {begun} {ended} {refused} {caplog.text}"
    assert not [path for path in context.store.folder.rglob("*.json*") if SECRET in path.read_text(encoding="utf-8")]


def test_without_a_token_that_is_said_before_anything_is_sent(
    context: PageContext, film: Callable[..., str], hub: TakingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = tab_of(context)
    version = complete(tab, film)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "hf auth login" in pushed(tab, version.id, "rain", True)[-1][tab.panel.push.answer]["words"]
    assert (hub.made, hub.tokens) == ([], set())
    tab.versions.write(replace(version, state="stopped"))
    assert tab.open(version.id, TrainingProgress(), None)[tab.panel.push.part]["visible"] is False


def test_visitors_of_a_shared_page_send_with_their_own_token_and_never_with_the_machines(
    hosted: PageContext, film: Callable[..., str], hub: TakingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = complete(tab_of(replace(hosted, hosted=False)), film)
    alone = tab_of(hosted)
    assert alone.open(version.id, TrainingProgress(), None)[alone.panel.push.part]["visible"] is False, (
        "nobody can sign in"
    )
    monkeypatch.setattr("studio.ui.panels.push.can_sign_in", lambda: True)
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda app: None)
    tab = tab_of(hosted)
    said = tab.panel.push.answer
    assert tab.open(version.id, TrainingProgress(), None)[tab.panel.push.part]["visible"]
    assert "Sign in" in pushed(tab, version.id, "rain", True)[-1][said]["words"]
    assert hub.tokens == set()
    assert pushed(tab, version.id, "rain", True, VISITORS)[-1][said]["tone"] == "good"
    assert hub.tokens - {None} == {f"Bearer {VISITORS.token}"}


def test_the_sign_in_button_is_there_only_where_it_works(context: PageContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def buttons() -> int:
        with gr.Blocks() as page:
            FinetuneTab(context, []).build()
        return sum(isinstance(block, gr.LoginButton) for block in page.blocks.values())

    for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL"):
        monkeypatch.setenv(name, "something")
    assert not can_sign_in(), "no Space"
    assert buttons() == 0
    monkeypatch.setattr("studio.ui.panels.push.can_sign_in", lambda: True)
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda app: None)  # it wants what only a Space installs
    assert buttons() == 1
