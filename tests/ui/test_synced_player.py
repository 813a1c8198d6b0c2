"""The comparison player's value is checked before it leaves, and its exported page needs nobody and believes nobody."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.errors import ClipError, RequestError
from studio.ui.components.synced_player import FrameScores, PlayerClip, player_record, served, synced_player
from studio.ui.panels import comparison_export
from studio.ui.panels.comparison_export import export_html

BAD = '</script><img src=x onerror="alert(1)"> ${alert(2)} {{value}}'


def clip(title: str = "a clip", **changes: Any) -> PlayerClip:
    given: dict[str, Any] = {"title": title, "url": "/clip.mp4"}
    return PlayerClip(**(given | changes))


def record(count: int = 1, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "reference": clip(),
        "others": [clip() for _ in range(count)],
        "fps": 12.0,
        "num_frames": 3,
    }
    return player_record(**(given | changes))


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 30)
    return paths


def record_inside(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("others", [1, 2, 3])
def test_two_to_four_clips_make_a_record_with_the_reference_first(others: int) -> None:
    made = record(others, reference=clip("the reference", facts=["41 s"]))
    assert len(made["clips"]) == 1 + others
    assert made["clips"][0]["title"] == "the reference"
    assert made["clips"][0]["facts"] == ["41 s"]
    assert json.loads(json.dumps(made, allow_nan=False)) == made


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"others": []}, "others"),
        ({"others": [clip()] * 4}, "others"),
        ({"fps": 0.0}, "fps"),
        ({"fps": math.nan}, "fps"),
        ({"num_frames": 0}, "num_frames"),
        ({"others": [clip(scores=FrameScores(name="PSNR", values=[1.0, 2.0]))]}, "scores"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        record(**changes)
    assert caught.value.field == field
    assert caught.value.way_out


def test_a_perfect_frame_and_a_frame_without_figure_survive_json() -> None:
    better_high = FrameScores(name="PSNR", unit="dB", values=[math.inf, math.nan, 30.0])
    better_low = FrameScores(name="LPIPS", values=[-math.inf, math.inf, 0.1], higher_is_better=False)
    shown = record(others=[clip(scores=better_high), clip(scores=better_low)])["clips"]
    assert shown[1]["scores"]["values"] == ["inf", None, 30.0]
    assert shown[2]["scores"]["values"] == ["inf", None, 0.1]
    json.dumps(shown, allow_nan=False)


def test_the_component_is_static_and_brings_its_own_style() -> None:
    with gr.Blocks():
        player = synced_player(elem_id="compare")
    assert "{{" not in player.css_template
    assert "${" not in player.css_template
    assert ".player" in player.css_template
    assert not re.search(r"url\(|@import|https?://", player.css_template)
    assert player.value == {}


def test_gradio_takes_a_served_path_for_a_file() -> None:
    from gradio_client.utils import is_file_obj_with_meta

    assert is_file_obj_with_meta(served("/clips/one.mp4"))


def test_the_exported_page_holds_the_very_bytes_of_its_clips(tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    inside = record_inside(export_html(record(2), paths))
    for path, shown in zip(paths, inside["clips"], strict=True):
        kind, data = shown["url"].split(",")
        assert kind == "data:video/mp4;base64"
        assert base64.b64decode(data) == path.read_bytes()


def test_the_exported_page_names_no_other_place(tmp_path: Path) -> None:
    made = record(1, reference=clip(url=served("/somebody/private/clip.mp4")))
    page = export_html(made, files(tmp_path, 2))
    assert "default-src 'none'" in page
    assert "connect-src" not in page  # what is not named falls to the default
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|<link|\ssrc=", page)
    assert str(tmp_path) not in page
    assert "private" not in page


def test_what_people_wrote_is_data_in_the_exported_page_and_never_markup(tmp_path: Path) -> None:
    scores = FrameScores(name=BAD, unit=BAD, values=[1.0, 2.0, 3.0])
    made = record(1, reference=clip(BAD, facts=[BAD]), others=[clip(BAD, scores=scores)])
    page = export_html(made, files(tmp_path, 2), title=BAD)
    assert "<img" not in page
    assert page.count("</script>") == 2
    inside = record_inside(page)
    assert inside["clips"][0]["title"] == BAD
    assert inside["clips"][1]["scores"]["name"] == BAD


def test_an_export_wants_one_playable_file_for_each_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path, 3)
    with pytest.raises(RequestError, match="3 files do not make a comparison of 2 clips"):
        export_html(record(1), paths)
    with pytest.raises(ClipError, match=r"gone\.mp4 cannot be read"):
        export_html(record(1), [paths[0], tmp_path / "gone.mp4"])
    with pytest.raises(ClipError, match="no clip that browsers play"):
        export_html(record(1), [paths[0], tmp_path / "notes.txt"])
    monkeypatch.setattr(comparison_export, "MAX_CLIP_BYTES", 50)
    with pytest.raises(RequestError, match="at most 50"):
        export_html(record(1), paths[:2])
