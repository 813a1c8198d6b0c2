"""Enlargements of one clip in the synced player: beside bicubic, and the original where there is one.

Knows an enlargement's files. Refuses to know which of them somebody wants to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studio.records.enlargements import (
    BICUBIC,
    EXCERPT,
    MADE,
    ORIGINAL_OF,
    TWIN_OF,
    VIDEO,
    Enlargement,
    EnlargementStore,
)
from studio.super_resolve.wording import whose_title
from studio.ui.components.synced_player import PlayerClip, player_record, served
from studio.ui.components.values import SyncedPlayer
from studio.ui.panels.enlargement import player_facts
from studio.ui.server.serving import copy_to_serve


def side_by_side(
    enlargement: Enlargement, picked: Sequence[Enlargement], store: EnlargementStore
) -> tuple[SyncedPlayer, list[str]] | None:
    """The player's value, and the files that it shows; None where there are not two to lay side by side.

    Args:
        enlargement: Whose bicubic twin and original stand beside the others; a long clip has neither.
        picked: Whose pictures are shown.
        store: Where they lie.
    """
    name = next((each for each in (VIDEO, EXCERPT) if TWIN_OF[each] in enlargement.outputs), VIDEO)
    wanted = [
        (enlargement, BICUBIC, TWIN_OF[name]),
        *((each, MADE, name) for each in picked),
        (enlargement, "original", ORIGINAL_OF[name]),
    ]
    there = [(each, whose, file) for each, whose, file in wanted if file in each.outputs]
    if len(there) < 2:
        return None
    files = [to_serve(store.path(each.id) / file, each) for each, _, file in there]
    first, *others = [
        PlayerClip(
            title=whose_title(whose, each),
            url=served(path),
            facts=player_facts(each.measurements.get(name), whose),
        )
        for (each, whose, _), path in zip(there, files, strict=True)
    ]
    source = enlargement.source
    fps = source.fps if source.constant_rate else source.num_frames / source.seconds
    return player_record(reference=first, others=others, fps=fps, num_frames=there[0][0].outputs[there[0][2]]), files


def to_serve(path: Path, enlargement: Enlargement) -> str:
    """A copy that the page may show, under a name that says what it is."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in Path(enlargement.source.name).stem)[:60]
    return copy_to_serve(path, f"{stem or 'clip'}-{path.stem}-{enlargement.request.scale}x{path.suffix}")
