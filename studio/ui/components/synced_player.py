"""The synced comparison player's value, from clips and their scores.

Knows how clips are laid side by side; refuses to know where they come from, and to compute a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from studio.errors import RequestError
from studio.ui.components.static_html import FOLDER, StaticHtml
from studio.ui.components.values import Figure, PlayedClip, PlayedScores, ServedFile, SyncedPlayer

MOST_CLIPS = 4
CACHE_MEGABYTES = 400.0
"""Room for decoded frames in the browser: four clips of 49 frames at 832×480 take 313."""


@dataclass(frozen=True, kw_only=True)
class FrameScores:
    """One figure for each frame of a compared clip, measured against the reference."""

    name: str
    """As it is read: PSNR, LPIPS, …"""
    values: Sequence[float]
    """One per frame; infinite where the frame equals the reference's, NaN where there is no figure."""
    unit: str = ""
    """Such as dB; empty where the figure has none."""
    higher_is_better: bool = True
    """Which end is the worst frame."""


@dataclass(frozen=True, kw_only=True)
class PlayerClip:
    """One clip of a comparison."""

    title: str
    url: str | ServedFile
    """Where the browser fetches it: an address on this server, or what `served` returns."""
    facts: Sequence[str] = field(default=())
    """Short words under the title, such as "2.1×" and "PSNR 31.2 dB"."""
    scores: FrameScores | None = None


def synced_player(value: SyncedPlayer | None = None, *, elem_id: str) -> gr.HTML:
    """The player, hidden while its value (see `player_record`) is empty."""
    player = StaticHtml[SyncedPlayer]("synced_player")(value, elem_id=elem_id)
    player.css_template = (FOLDER / "synced_player.css").read_text(encoding="utf-8")
    return player


def served(path: str | Path) -> ServedFile:
    """A `url` for a file that Gradio may serve, such as the copy that `serving.clip_to_serve` makes."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def player_record(
    *,
    reference: PlayerClip,
    others: Sequence[PlayerClip],
    fps: float,
    num_frames: int,
    cache_megabytes: float = CACHE_MEGABYTES,
    overlay: bool = False,
) -> SyncedPlayer:
    """The player's value.

    Args:
        reference: What the others are compared with; shown on the left at first.
        others: One to three.
        fps: Frames a second, of all clips.
        num_frames: Frames of each clip.
        cache_megabytes: Room for decoded frames in the browser.
        overlay: Whether the others are painted on black, and can be laid over the reference.

    Raises:
        RequestError: Too few or too many clips, or figures that are not one per frame.
    """
    if not 1 <= len(others) < MOST_CLIPS:
        raise RequestError(
            f"{len(others)} clips cannot be compared with the reference.",
            field="others",
            value=len(others),
            way_out=f"Choose 1 to {MOST_CLIPS - 1}.",
        )
    if not (fps > 0 and math.isfinite(fps)):
        raise RequestError("The clips need a frame rate.", field="fps", value=fps, way_out="Give one above 0.")
    if num_frames < 1:
        raise RequestError(
            "The clips have no frames.", field="num_frames", value=num_frames, way_out="Give at least 1."
        )
    record: SyncedPlayer = {
        "fps": float(fps),
        "num_frames": num_frames,
        "cache_megabytes": cache_megabytes,
        "clips": [_clip(clip, num_frames) for clip in (reference, *others)],
    }
    return {**record, "overlay": True} if overlay else record


def _clip(clip: PlayerClip, num_frames: int) -> PlayedClip:
    return {
        "title": clip.title,
        "url": clip.url,
        "facts": list(clip.facts),
        "scores": None if clip.scores is None else _scores(clip.scores, clip.title, num_frames),
    }


def _scores(scores: FrameScores, title: str, num_frames: int) -> PlayedScores:
    if len(scores.values) != num_frames:
        raise RequestError(
            f"{title} has {len(scores.values)} figures of {scores.name} for {num_frames} frames.",
            field="scores",
            value=len(scores.values),
            way_out="Give one figure for each frame, NaN where there is none.",
        )
    perfect = math.inf if scores.higher_is_better else -math.inf
    return {
        "name": scores.name,
        "unit": scores.unit,
        "higher_is_better": scores.higher_is_better,
        "values": [_figure(float(value), perfect) for value in scores.values],
    }


def _figure(value: float, perfect: float) -> Figure:
    """JSON has no infinity and no NaN."""
    if math.isfinite(value):
        return value
    return "inf" if value == perfect else None
