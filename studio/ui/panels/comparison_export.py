"""A comparison as one HTML file: the player with its clips inside, to be opened anywhere, offline, years later.

The page forbids itself every connection; what people wrote is data in it, never markup. Knows the player's files
and what its value looks like. Refuses to re-encode a clip: what was compared is what is kept.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from studio.compare.page import document
from studio.errors import ClipError, RequestError
from studio.ui.components.static_html import FOLDER, script_of
from studio.ui.components.values import PlayedClip, SyncedPlayer

MAX_CLIP_BYTES = 200 * 10**6
"""All clips of one file together; base64 makes them a third larger, and a browser holds the page in memory."""

KINDS = {".mp4": "video/mp4", ".webm": "video/webm"}

_BODY = """<main>
<h1>{title}</h1>
<div id="player">
{template}
</div>
<noscript><p>The player needs JavaScript; the clips are in this file.</p></noscript>
</main>
<script type="application/json" id="record">{record}</script>
<script>
((element, written, watch) => {{
const props = {{value: JSON.parse(written.textContent)}};
{script}
}})(document.getElementById('player'), document.getElementById('record'), () => {{}});
</script>"""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; base-uri 'none'; form-action 'none'"
)

_STYLE = """body { font: 14px/1.4 "IBM Plex Sans", ui-sans-serif, system-ui, sans-serif; }
h1 { font-size: 19px; font-weight: 600; letter-spacing: -.01em; margin: 0 0 12px; overflow-wrap: anywhere; }
"""


def export_html(record: SyncedPlayer, clips: Sequence[Path], *, title: str = "Comparison") -> str:
    """One self-contained page.

    Args:
        record: The player's value; where its clips are served from is replaced by the clips themselves.
        clips: The files, in the record's order, the reference first.
        title: What the page is called.

    Raises:
        RequestError: Not one file for each clip of the record, or more than a browser would open.
        ClipError: A file that is missing or no kind of clip that browsers play.
    """
    shown = record["clips"]
    if len(clips) != len(shown) or len(shown) < 2:
        raise RequestError(
            f"{len(clips)} files do not make a comparison of {len(shown)} clips.",
            field="clips",
            value=len(clips),
            way_out="Give one file for each clip, the reference first.",
        )
    addresses = _embedded(clips)
    clips_inside: list[PlayedClip] = [{**clip, "url": url} for clip, url in zip(shown, addresses, strict=True)]
    body = _BODY.format(
        title=html.escape(title),
        template=_part("html"),
        record=_as_data({**record, "clips": clips_inside}),
        script=script_of("synced_player"),
    )
    return document(title=title, policy=_POLICY, style=_STYLE + _part("css"), body=body)


def _part(ending: str) -> str:
    return (FOLDER / f"synced_player.{ending}").read_text(encoding="utf-8")


def _embedded(clips: Sequence[Path]) -> list[str]:
    """Each clip as a `data:` address."""
    total = 0
    for path in clips:
        if path.suffix not in KINDS:
            raise ClipError(
                f"{path.name} is no clip that browsers play.",
                field="clips",
                value=path.name,
                way_out=f"Use {' or '.join(KINDS)}.",
            )
        try:
            total += path.stat().st_size
        except OSError as error:
            raise ClipError(f"{path.name} cannot be read: {error.strerror}.", field="clips", value=path.name) from error
    if total > MAX_CLIP_BYTES:
        raise RequestError(
            f"The clips take {total:,} bytes; one page holds at most {MAX_CLIP_BYTES:,}.",
            field="clips",
            value=total,
            way_out="Compare fewer or shorter clips.",
        )
    return [f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}" for path in clips]


def _as_data(record: SyncedPlayer) -> str:
    """JSON that no HTML parser can leave: `<` is what begins an end tag or a comment."""
    return json.dumps(record, allow_nan=False).replace("<", "\\u003c")
