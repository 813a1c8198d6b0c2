"""What fine-tuning made: the list of versions, the chosen one before and after, and what can be done with it.

Knows the versions, their files and the player. Refuses to change anything on a hosted page, whose visitors share one
set of versions.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import zipfile
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from studio.errors import StudioError, VersionError
from studio.jobs import Job
from studio.records.runs import RunStore
from studio.records.versions import DECODER_FILE, LORA_2_FILE, LORA_FILE, Scores, Version, VersionState, VersionStore
from studio.requests.work import TrainVersion
from studio.ui.components import message
from studio.ui.components.static_html import version_list
from studio.ui.components.synced_player import PlayerClip, player_record, served, synced_player
from studio.ui.components.values import ListedVersion, VersionList
from studio.ui.listeners import Part, Sent, Updates, text_of
from studio.ui.panels.deletion import DeletionPanel
from studio.ui.panels.push import PushPanel
from studio.ui.panels.training_progress import TrainingProgress, before_and_after
from studio.ui.server.page_context import PageContext
from studio.ui.server.serving import clip_to_serve

NOTHING_YET = "No version yet. Add clips, press Fine-tune, and what is learnt will be listed here."
NO_CARD = "It is written when the training is complete."
ON_ITS_OWN = "Versions are shared here: run the studio on a machine of your own to change them."
STATE_WORDS = {"waiting": "not begun", "training": "training", "stopped": "stopped", "failed": "failed"}


class VersionsPanel:
    """The player, the list, its buttons and the model card."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self.versions = VersionStore(context.store.folder)
        self._downloads: dict[tuple[str | int, ...], str] = {}
        self.push = PushPanel(context, self.versions)
        self.deletion = DeletionPanel("version", "Delete this version, its weights and its clips for good?")

    # -- layout -------------------------------------------------------------------------------------------------------

    def build_player(self) -> None:
        self.prompt = gr.Dropdown(
            label="Sample prompt", visible=False, filterable=False, interactive=True, elem_id="training-prompt"
        )
        # What is looked at, and not the control's own value: Gradio holds that against the choices as they are when an
        # event arrives, and those of another version may have come meanwhile.
        self.picked = gr.State("")
        self.player = synced_player(elem_id="training-player")
        self.alone = gr.Video(
            label="Before: the model as it came",
            visible=False,
            autoplay=True,
            loop=True,
            interactive=False,
            buttons=[],
            height=240,
            elem_id="training-before",
        )
        self.paired = gr.State(None)

    def build_list(self) -> None:
        self.list = version_list({"empty": NOTHING_YET}, elem_id="versions")
        with gr.Row(visible=False, elem_classes="actions", elem_id="version-actions") as self.actions:
            self.promote = gr.Button("Promote", size="sm", elem_id="version-promote")
            self.roll_back = gr.Button("Roll back", size="sm", elem_id="version-roll-back")
            self.download = gr.DownloadButton("Download LoRA", size="sm", visible=False, elem_id="version-download")
            self.deletion.place_button()
        self.deletion.place_question()
        self.answer = message.message(elem_id="version-said")
        self.push.build()
        with gr.Accordion("Model card", open=False, visible=False, elem_id="version-card") as self.about:
            self.card = gr.Code(
                language="markdown",
                interactive=False,
                show_label=False,
                wrap_lines=True,
                max_lines=30,
                elem_id="version-card-text",
            )

    @property
    def outputs(self) -> list[Part]:
        return [
            *(self.prompt, self.picked, self.player, self.alone, self.paired, self.list, self.actions, self.promote),
            *(self.roll_back, self.download, self.deletion.button, self.about, self.card, *self.push.outputs),
        ]

    # -- what the buttons do; the caller then shows what is so ---------------------------------------------------------

    def put_forward(self, chosen: Sent) -> Updates:
        """New requests of its preset start from the chosen version."""
        try:
            self._refuse_strangers()
            version = self.versions.promote(text_of(chosen))
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        words = f"Promoted: choose the preset {version.request.preset} on the Generate tab, and it starts from this."
        return {self.answer: message.good(words)}

    def undo(self, chosen: Sent) -> Updates:
        """The last promotion of the chosen version's preset is undone."""
        try:
            self._refuse_strangers()
            now = self.versions.roll_back(self.versions.get(chosen).request.preset)
        except StudioError as error:
            return {self.answer: message.of_error(error)}
        what = f"{now.title} is promoted again" if now else "new clips start from the model as it came"
        return {self.answer: message.good(f"Rolled back: {what}.")}

    def remove(self, chosen: Sent) -> Updates:
        closed = self.deletion.closed()
        try:
            self._refuse_strangers()
            version = self.versions.get(chosen)
            if training_job(self._context, version.id) is not None:
                raise VersionError("It is being trained, or about to be.", field="version", way_out="Stop it first.")
            self.versions.delete(version.id)
        except (StudioError, OSError) as error:
            fault = error if isinstance(error, StudioError) else VersionError(f"Not all could be deleted: {error}.")
            return closed | {self.answer: message.of_error(fault)}
        return closed | {self.answer: message.good("Deleted.")}

    def _refuse_strangers(self) -> None:
        if self._context.hosted:
            raise VersionError("This is a shared page.", field="version", way_out=ON_ITS_OWN)

    # -- what is so ---------------------------------------------------------------------------------------------------

    def shows(
        self, versions: list[Version], chosen: Version | None, progress: TrainingProgress, paired: Sent, prompt: Sent
    ) -> Updates:
        """The list, and everything about the chosen version.

        Args:
            versions: All of them.
            chosen: The one to show, if any.
            progress: What its training has said.
            paired: Names the clips that the player has.
            prompt: The sample prompt that is looked at.
        """
        promoted = {name: self._promoted(name) for name in {version.request.preset for version in versions}}
        rows = [self._row(version, promoted[version.request.preset]) for version in versions]
        updates: Updates = {
            self.list: VersionList(versions=rows, chosen=chosen.id if chosen else "", empty=NOTHING_YET),
            self.actions: gr.update(visible=chosen is not None),
            self.about: gr.update(visible=chosen is not None),
        }
        updates |= self._plays(chosen, progress, paired, prompt) | self.push.shows(chosen)
        if chosen is None:
            return updates
        usable, mine = self.versions.usable(chosen.id), not self._context.hosted
        at = promoted.get(chosen.request.preset, "")
        weights = self._weights(chosen) if usable else None
        return updates | {
            self.promote: gr.update(interactive=mine and usable and at != chosen.id),
            self.roll_back: gr.update(interactive=mine and bool(at)),
            self.deletion.button: gr.update(interactive=mine),
            self.download: gr.update(value=weights, visible=weights is not None),
            self.card: self._card(chosen),
        }

    def state_of(self, version: Version) -> VersionState:
        """What is so by now; the lock is not asked about what the worker says itself."""
        job = training_job(self._context, version.id)
        return "training" if job is not None and job.state == "running" else self.versions.state_of(version)

    def _promoted(self, preset: str) -> str:
        version = self.versions.promoted(preset)
        return version.id if version else ""

    def _row(self, version: Version, promoted: str) -> ListedVersion:
        state = self.state_of(version)
        job = training_job(self._context, version.id)
        waits = job is not None and job.state == "queued"
        base, own = version.base_scores, version.scores
        return {
            "id": version.id,
            "title": version.title[:120],
            "line": f"{version.request.preset} · {version.created[5:16].replace('T', ' ')}",
            "state": state if state == "complete" else "waiting" if waits else STATE_WORDS[state],
            "steps": f"{version.step} of {version.request.max_train_steps}",
            "base": _psnr(base),
            "own": _psnr(own),
            "gain": f"{own.psnr - base.psnr:+.2f}".replace("-", "−") if own and base else "–",
            "worse": version.worse_than_base,
            "promoted": version.id == promoted,
        }

    def offers(self, chosen: Version) -> Updates:
        """What is offered anew with another version."""
        return self.push.offers(chosen, _slug(chosen))

    def _plays(self, chosen: Version | None, progress: TrainingProgress, paired: Sent, prompt: Sent) -> Updates:
        """A prompt's clips under one clock, or the first alone; a player that has them already goes on where it is."""
        every = before_and_after(progress) if chosen else {}
        prompt = prompt if isinstance(prompt, str) and prompt in every else next(iter(every), "")
        key = [chosen.id, [*every], *every[prompt]] if chosen and every else None
        if key is not None and key == paired:
            return {}
        updates: Updates = {
            self.prompt: gr.update(
                choices=[(each[:120], each) for each in every], value=prompt or None, visible=len(every) > 1
            ),
            self.player: {},
            self.alone: gr.update(value=None, visible=False),
            self.paired: None,
        }
        if chosen is None or not every:
            return updates
        copies = [self._clip(chosen, path) for _, path in every[prompt]]
        if not all(copies):
            return updates
        updates[self.paired] = key
        if len(copies) == 1:
            return updates | {self.alone: gr.update(value=copies[0], visible=True)}
        before, after = (
            PlayerClip(title=title, url=served(str(copy)), facts=[f"{step} steps"] if step else ["as it came"])
            for title, copy, (step, _) in zip(("Before", "After"), copies, every[prompt], strict=True)
        )
        request = chosen.request
        record = player_record(reference=before, others=[after], fps=request.fps, num_frames=request.num_frames)
        return updates | {self.player: record}

    def _clip(self, version: Version, path: str) -> str | None:
        """A copy of a clip that the training generated, which lies in the version's own store."""
        store = RunStore(self.versions.path(version.id) / "clips")
        try:
            return clip_to_serve(store.get(Path(path).parent.name))
        except (StudioError, OSError):
            return None

    def _weights(self, version: Version) -> str | None:
        """The version's weights under its name, several files as one archive; made once for as long as they are."""
        home = self.versions.path(version.id)
        sources = [home / name for name in (LORA_FILE, LORA_2_FILE, DECODER_FILE) if (home / name).is_file()]
        if not sources:
            return None
        try:
            key = (version.id, *(source.stat().st_mtime_ns for source in sources))
            known = self._downloads.get(key)
            if known is not None and Path(known).is_file():
                return known
            folder = Path(get_upload_folder()) / "versions" / secrets.token_hex(16)
            folder.mkdir(parents=True)
            path = folder / f"{_slug(version)}-{version.id[-8:]}{'.zip' if len(sources) > 1 else '.safetensors'}"
            if len(sources) > 1:
                with zipfile.ZipFile(path, "w") as archive:  # stored: weights hardly shrink
                    for source in sources:
                        archive.write(source, source.name)
            else:
                try:
                    os.link(sources[0], path)
                except OSError:  # another disk, or a file system without links
                    shutil.copyfile(sources[0], path)
        except OSError:
            return None
        self._downloads[key] = str(path)
        return str(path)

    def _card(self, version: Version) -> str:
        try:
            return (self.versions.path(version.id) / "README.md").read_text(encoding="utf-8")
        except OSError:
            return NO_CARD


def trainings(context: PageContext) -> dict[str, Job]:
    """The jobs that train or are to, by version."""
    alive = context.queue.jobs(states=("running", "queued"), kinds=("training",))
    return {job.work.version_id: job for job in alive if isinstance(job.work, TrainVersion)}


def training_job(context: PageContext, version_id: str) -> Job | None:
    """The job that trains a version, or is to."""
    return trainings(context).get(version_id)


def _slug(version: Version) -> str:
    """Its title in letters that every file system and the Hub take."""
    return "-".join(re.findall(r"[a-z0-9]+", version.title.lower()))[:60].strip("-") or "version"


def _psnr(scores: Scores | None) -> str:
    return f"{scores.psnr:.2f}" if scores else "–"
