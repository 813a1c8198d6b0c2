"""A comparison's downloads: its figures as files, and what the player shows as a page that works anywhere.

Knows where the page's temporary files lie. Refuses to know what stands in them.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from studio.ui.components.values import SyncedPlayer
from studio.ui.listeners import Part, Updates
from studio.ui.panels.comparison_export import export_html

PLAYER_BYTES = 40 * 10**6
"""Above this the player's own page is not prepared: a browser should not be handed it unasked."""
_LABELS = {"csv": "CSV", "json": "JSON", "html": "HTML page"}


class ComparisonFiles:
    """The buttons that download."""

    def __init__(self, endings: Sequence[str], *, elem_prefix: str) -> None:
        """Args: endings: of the files with figures. elem_prefix: before the buttons' ids on the page."""
        self._endings, self._elem_prefix = endings, elem_prefix
        self._folder = Path(get_upload_folder()) / "comparisons" / secrets.token_hex(16)

    def build(self) -> None:
        self.figures = {
            ending: gr.DownloadButton(
                _LABELS[ending], size="sm", visible=False, elem_id=f"{self._elem_prefix}-{ending}"
            )
            for ending in self._endings
        }
        self.player = gr.DownloadButton(
            "Player as HTML", size="sm", visible=False, elem_id=f"{self._elem_prefix}-player"
        )

    @property
    def outputs(self) -> list[Part]:
        return [*self.figures.values(), self.player]

    def shows(self, comparison_id: str, texts: Mapping[str, str]) -> Updates:
        """The figures, written anew with each cell, so that what is downloaded is what is seen.

        Args:
            comparison_id: Of which comparison.
            texts: What each file says, by its ending; none where there are no figures yet.
        """
        if not texts:
            return self._nothing()
        try:
            return {
                button: gr.update(
                    value=self._written(comparison_id, f"comparison.{ending}", texts[ending]), visible=True
                )
                for ending, button in self.figures.items()
            }
        except OSError:  # a full disk: the figures are on the page all the same
            return self._nothing()

    def _nothing(self) -> Updates:
        return {button: gr.update(visible=False) for button in self.figures.values()}

    def shows_player(self, comparison_id: str, title: str, record: SyncedPlayer, clips: Sequence[str]) -> Updates:
        """The player with its clips inside, where they are not too large.

        Args:
            comparison_id: Of which comparison.
            title: What the page is called.
            record: The player's value.
            clips: The files, in the record's order.

        Raises:
            OSError: the clips cannot be read, or there is no room.
            StudioError: they are no clips.
        """
        page = None
        if sum(Path(clip).stat().st_size for clip in clips) <= PLAYER_BYTES:
            page = self._written(
                comparison_id, "player.html", export_html(record, [Path(clip) for clip in clips], title=title)
            )
        return {self.player: gr.update(value=page, visible=page is not None)}

    def without_player(self) -> Updates:
        return {self.player: gr.update(visible=False)}

    def remove(self, comparison_id: str) -> None:
        """What was written of a comparison that is gone."""
        shutil.rmtree(self._folder / comparison_id, ignore_errors=True)

    def _written(self, comparison_id: str, name: str, text: str) -> str:
        folder = self._folder / comparison_id
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="")
        return str(path)
