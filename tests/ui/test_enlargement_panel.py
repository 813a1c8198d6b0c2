"""What the Super-resolution tab says of an enlargement and of its figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.clips.reference import FileReference
from studio.events import EnlargementStarted, FramesEnlarged, FramesMeasured
from studio.records.enlargements import (
    BICUBIC,
    EXCERPT,
    MADE,
    ORIGINAL_OF,
    TWIN_OF,
    VIDEO,
    Enlargement,
    Measurement,
    SourceRecord,
)
from studio.requests.super_resolution import SuperResolutionRequest
from studio.ui.panels.enlargement import EnlargementProgress, figures_of, player_facts, status_of

REFERENCE = FileReference(path=Path("/clips/small.mp4"), sha256="0" * 64)
FULL = Measurement(
    num_frames=12,
    against_original=True,
    figures={
        MADE: {"psnr": 35.1234, "ssim": 0.98765, "vmaf_neg": 71.26, "flicker": 1.018, "colour_error": math.inf},
        BICUBIC: {"psnr": 33.0, "ssim": 0.97, "vmaf_neg": 60.0, "flicker": math.nan},
    },
    lacking={"vmaf": "VMAF needs an ffmpeg with libvmaf."},
)


@pytest.fixture
def enlargement() -> Enlargement:
    return Enlargement(
        id="20260101-000000-00000000",
        created="2026-01-01T00:00:00",
        state="complete",
        owner="local",
        request=SuperResolutionRequest(source=REFERENCE, method="lanczos"),
        source=SourceRecord(
            name="small.mp4",
            container="MP4",
            codec="h264",
            width=96,
            height=64,
            fps=24,
            constant_rate=True,
            num_frames=12,
            seconds=0.5,
        ),
        original=replace_path(REFERENCE, "large.mp4"),
    )


def drawn(enlargement: Enlargement) -> dict[str, Any]:
    return dict(figures_of(enlargement))


def replace_path(reference: FileReference, name: str) -> FileReference:
    return FileReference(path=reference.path.with_name(name), sha256=reference.sha256)


def test_the_table_has_a_row_for_the_method_and_one_for_bicubic(enlargement: Enlargement) -> None:
    table = drawn(replace(enlargement, measurements={VIDEO: FULL}))
    assert [column["title"] for column in table["columns"]] == [
        *("Seconds", "PSNR, dB", "SSIM", "VMAF-NEG", "Flicker, × the original's", "Colour error, /255")
    ]
    made, bicubic = table["groups"][0]["rows"]
    assert (made["title"], made["cells"]) == ("Lanczos", ["0 ms", "35.12", "0.9877", "71.3", "1.02", "∞"])
    assert (bicubic["title"], bicubic["cells"]) == ("Bicubic", ["–", "33.00", "0.9700", "60.0", "–", "–"])
    assert table["hint"] == "All of it: 12 pictures, as they lie in the file against large.mp4."
    assert table["notes"] == ["VMAF needs an ffmpeg with libvmaf."]


def test_the_whole_is_shown_rather_than_a_part_and_nothing_before_anything_is_measured(
    enlargement: Enlargement,
) -> None:
    assert figures_of(enlargement) == {}
    part = replace(FULL, num_frames=5)
    assert "The part: 5 pictures" in drawn(replace(enlargement, measurements={EXCERPT: part}))["hint"]
    both = replace(enlargement, measurements={EXCERPT: part, VIDEO: FULL})
    assert "All of it: 12" in drawn(both)["hint"]


def test_without_an_original_the_table_says_what_one_would_bring(enlargement: Enlargement) -> None:
    alone = Measurement(num_frames=12, against_original=False, figures={MADE: {"shrink_back": 52.0, "flicker": 1.4}})
    table = drawn(replace(enlargement, original=None, measurements={VIDEO: alone}))
    assert [column["title"] for column in table["columns"]] == [
        "Seconds",
        "Shrink-back, dB",
        "Flicker, × the given clip's",
    ]
    assert len(table["groups"][0]["rows"]) == 1
    assert "With its large original" in table["notes"][0]
    assert player_facts(alone, MADE) == []
    assert player_facts(FULL, MADE) == ["PSNR 35.12 dB"]


def test_what_could_not_be_measured_says_why(enlargement: Enlargement) -> None:
    failed = Measurement(
        num_frames=0,
        against_original=True,
        error={"error": "request_error", "message": "large.mp4 is gone.", "way_out": "Put it back."},
    )
    table = drawn(replace(enlargement, measurements={VIDEO: failed}))
    assert "large.mp4 is gone" in table["notes"][0]


def test_while_it_is_measured_the_status_says_how_far(enlargement: Enlargement) -> None:
    started = EnlargementStarted(enlargement_id=enlargement.id, num_frames=12, done=0)
    made = FramesEnlarged(done=12, num_frames=12, frames_per_second=3.0, eta_seconds=0.0)
    measured = FramesMeasured(done=3, num_frames=12, eta_seconds=20.0)
    progress = EnlargementProgress().with_events([(1, started), (2, made), (3, measured)])
    status = status_of(enlargement, "complete", progress, waits=False, at_work=True)
    assert status["words"] == "It is there. Measured: 3 of 12 pictures, 20 s left."
    assert status.get("share") == 0.25
    assert status_of(enlargement, "complete", progress, waits=False, at_work=False)["words"].startswith("Done in")
    again = progress.with_events([(4, started)])
    assert (again.latest, again.measured) == (None, None)


def test_methods_on_one_clip_are_rows_that_can_be_ticked_as_far_as_their_pictures_fit(enlargement: Enlargement) -> None:
    outputs = {VIDEO: 12, TWIN_OF[VIDEO]: 12, ORIGINAL_OF[VIDEO]: 12}
    one = replace(enlargement, outputs=outputs, measurements={VIDEO: FULL}, seconds=2.0)
    other_request = SuperResolutionRequest(source=REFERENCE, method="back-projection")
    other = replace(one, id="20260101-000000-00000001", request=other_request, seconds=3.0)
    waits = replace(other, id="20260101-000000-00000002", state="waiting", outputs={}, measurements={})
    drawn_table = dict(figures_of(one, [one, other, waits], {waits.id: "It waits in the queue."}, [one.id]))
    rows: Any = drawn_table["groups"]
    made, second, third, bicubic = rows[0]["rows"]
    assert [row["title"] for row in (made, second, bicubic)] == ["Lanczos", "Lanczos + back-projection", "Bicubic"]
    assert [row["cells"][0] for row in (made, second, bicubic)] == ["2.0 s", "3.0 s", "–"]
    assert [row["may_be_picked"] for row in rows[0]["rows"]] == [True, True, False, False]
    assert (third["cells"], third["note"]) == ([], "It waits in the queue.")
    assert drawn_table["most"] == 2  # bicubic and the original are there as well
    assert drawn_table["picked"] == [one.id]
