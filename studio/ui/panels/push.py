"""Sending a version to the Hub: where to, who may see it, with whose token.

On a Space a visitor signs in and sends to their own account; on a machine of one's own it is the token that
`hf auth login` or `$HF_TOKEN` left. Knows `publish` and Gradio's signing in. Refuses to keep, show or log a token, and
to lend the machine's own to the visitors of a shared page.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import gradio as gr
from gradio.utils import get_space

from studio.errors import DownloadError, StudioError
from studio.finetune.publish import publish
from studio.records.versions import Version, VersionStore
from studio.ui.components import message
from studio.ui.components.values import Message
from studio.ui.listeners import LIGHT, Part, Sent, Updates
from studio.ui.server.page_context import PageContext

AT_ONCE = 2
"""Versions that are being sent, of all pages together; more wait."""


class PushPanel:
    """The part of the page that sends the chosen version."""

    def __init__(self, context: PageContext, versions: VersionStore) -> None:
        self._context = context
        self._versions = versions
        self._senders = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push")
        self._signs_in = can_sign_in()

    def build(self) -> None:
        with gr.Accordion("Push to the Hub", open=False, visible=False, elem_id="version-push") as self.part:
            with gr.Row(elem_classes="numbers"):
                self.repo = gr.Textbox(
                    label="Repository",
                    info="name, or owner/name; made where there is none",
                    max_lines=1,
                    min_width=200,
                    elem_id="push-repo",
                )
                self.private = gr.Checkbox(
                    label="Private", info="Only you see it.", value=True, min_width=120, elem_id="push-private"
                )
            with gr.Row(elem_classes="actions"):
                self.button = gr.Button("Push to Hub", size="sm", elem_id="push")
                if self._signs_in:
                    gr.LoginButton(size="sm", elem_id="sign-in")
            self.answer = message.message(elem_id="push-said")

    @property
    def outputs(self) -> list[Part]:
        return [self.part, self.repo, self.answer]

    def wire(self, chosen: gr.State) -> None:
        self.button.click(self.push, [chosen, self.repo, self.private], [self.answer, self.button], **LIGHT)

    def shows(self, chosen: Version | None) -> Updates:
        """Whether there is something to send."""
        may = self._signs_in or not self._context.hosted
        return {self.part: gr.update(visible=may and chosen is not None and chosen.state == "complete")}

    def offers(self, chosen: Version, name: str) -> Updates:
        """Another version was chosen: the repository that it might go to."""
        return {self.repo: f"{name}-{chosen.request.preset}-lora", self.answer: {}}

    async def push(
        self, chosen: Sent, repo: Sent, private: Sent, token: gr.OAuthToken | None = None
    ) -> AsyncIterator[Updates]:
        """Send the version behind the page, and say where it is; a page that is closed meanwhile stops nothing."""
        try:
            if self._context.hosted and token is None:
                raise DownloadError("You are not signed in.", field="token", way_out="Sign in with Hugging Face first.")
            version = self._versions.get(chosen)
            name = repo.strip() if isinstance(repo, str) else ""
            yield {
                self.answer: message.quiet(f"{version.title} is being sent to {name}."),
                self.button: gr.update(interactive=False),
            }
            send = partial(
                publish,
                version.id,
                name,
                versions=self._versions,
                token=token.token if token else None,
                private=private is not False,
            )
            address = await asyncio.get_running_loop().run_in_executor(self._senders, send)
            answer: Message = {**message.good(f"{version.title} was sent:"), "link": address}
        except StudioError as error:
            label = "Repository" if error.field == "repo" else ""
            answer = message.of_error(error, label=label)
        yield {self.answer: answer, self.button: gr.update(interactive=True)}


def can_sign_in() -> bool:
    """Whether visitors can sign in: on a Space that asked for it, and with what Gradio needs for it."""
    variables = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
    needed = ("authlib", "itsdangerous")
    return (
        get_space() is not None
        and all(os.environ.get(name) for name in variables)
        and all(importlib.util.find_spec(name) for name in needed)
    )
