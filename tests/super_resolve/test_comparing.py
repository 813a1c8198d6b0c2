"""Several methods on several clips: asked for in words, paired with their originals, and worth what their means say."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.films import write_pictures

from studio.clips.reference import FileReference, reference_to
from studio.clips.shrinking import in_8_bits, shrunk
from studio.errors import RequestError
from studio.events import never
from studio.records.enlargement_comparisons import EnlargementComparisonStore
from studio.records.enlargements import BICUBIC, MADE, VIDEO, Enlargement, EnlargementStore, Measurement
from studio.records.runs import RunStore
from studio.requests.super_resolution import SuperResolutionRequest
from studio.requests.work import EnlargeClip
from studio.super_resolve import begin_comparison, enlarge, enlargements_of, files_of, front, over_clips, paired
from studio.super_resolve.comparing import request_by
from studio.super_resolve.wording import request_title


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def clip_of(path: Path, *, count: int = 4, scale: int = 1, side: int = 32) -> FileReference:
    """Pictures of its own, the smaller where a scale is given."""
    rng = np.random.default_rng(len(path.name))
    large = np.kron(rng.integers(0, 255, (count, side // 4, side // 4, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)
    pictures = [in_8_bits(shrunk(each.astype(np.float32), scale)) if scale > 1 else each for each in large]
    path.parent.mkdir(exist_ok=True)
    write_pictures(path, [512 * number for number in range(count)], pictures=pictures)
    return reference_to(path, field="source")


# -- asking -----------------------------------------------------------------------------------------------------------


def test_a_method_is_written_with_what_it_is_told(tmp_path: Path) -> None:
    base = SuperResolutionRequest(source=clip_of(tmp_path / "a.mp4"), scale=4)
    told = request_by("pocket:restore=true,back_projections=1", base)
    assert (told.method, told.restore, told.back_projections, told.scale) == ("pocket", True, 1, 4)
    assert request_title(told) == "Pocket super-resolver (back projections 1, restore)"
    assert request_by("lanczos", told) == base.model_copy(update={"method": "lanczos", "back_projections": 1})


@pytest.mark.parametrize("method", ["pocket:restore", "pocket:scale=4", "pocket:colour=red", "", "pocket:restore=5"])
def test_a_method_that_cannot_be_told_so_is_refused(tmp_path: Path, method: str) -> None:
    with pytest.raises(RequestError):
        request_by(method, SuperResolutionRequest(source=clip_of(tmp_path / "a.mp4")))


def test_an_original_is_its_namesakes_or_the_only_one_that_it_fits(tmp_path: Path) -> None:
    small, other = clip_of(tmp_path / "a.mp4", scale=2), clip_of(tmp_path / "b.mp4", count=5, scale=2)
    named, fitting = clip_of(tmp_path / "large/a.mp4"), clip_of(tmp_path / "large/film.mp4", count=5)
    assert paired([small, other], [fitting, named], scale=2) == [(small, named), (other, fitting)]
    assert paired([small, other], [], scale=2) == [(small, None), (other, None)]
    with pytest.raises(RequestError, match=r"film.mp4 fits none of the clips"):
        paired([small, other], [fitting], scale=4)
    twin = clip_of(tmp_path / "c.mp4", scale=2)
    with pytest.raises(RequestError, match=r"big.mp4 fits a.mp4, c.mp4"):
        paired([small, twin], [clip_of(tmp_path / "large/big.mp4")], scale=2)


def test_what_cannot_be_is_said_and_the_rest_is_written_down(store: RunStore, tmp_path: Path) -> None:
    clips = [(clip_of(tmp_path / "a.mp4", scale=2), clip_of(tmp_path / "large/a.mp4"))]
    begun = begin_comparison(clips, ["lanczos", "sharpest", "lanczos"], scale=2, store=store)
    assert [each.request.method for each in enlargements_of(begun, store)] == ["lanczos"]
    assert begun.notices == (
        "a.mp4 by sharpest: No method is called 'sharpest'. Choose one of: "
        + begun.notices[0].partition("Choose one of: ")[2],
    )
    assert EnlargementComparisonStore(store.folder).get(begun.id) == begun
    with pytest.raises(RequestError, match="No method is called"):
        begin_comparison(clips, ["sharpest"], scale=2, store=store)
    for nothing, methods in (([], ["lanczos"]), (clips, [])):
        with pytest.raises(RequestError):
            begin_comparison(nothing, methods, scale=2, store=store)
    with pytest.raises(RequestError, match="at most 100"):
        begin_comparison(clips, [f"pocket:back_projections={n}" for n in range(101)], scale=2, store=store)
    assert len(EnlargementStore(store.folder).list()) == 1


# -- over clips -------------------------------------------------------------------------------------------------------


def made(store: RunStore, clips: list[FileReference], *methods: str) -> list[Enlargement]:
    begun = begin_comparison([(clip, None) for clip in clips], methods, scale=2, store=store)
    return enlargements_of(begun, store)


def measured(each: Enlargement, rate: float, twin: float | None = None, **figures: float) -> Enlargement:
    found = {MADE: figures} | ({} if twin is None else {BICUBIC: {"psnr": twin}})
    measurement = Measurement(num_frames=4, against_original=True, figures=found)
    return replace(each, state="complete", frames_per_second=rate, measurements={VIDEO: measurement})


def test_a_mean_is_of_what_every_method_was_measured_on(store: RunStore, tmp_path: Path) -> None:
    clips = [clip_of(tmp_path / f"{name}.mp4", scale=2) for name in ("a", "bb")]
    a_lanczos, a_projected, b_lanczos, b_projected = made(store, clips, "lanczos", "back-projection")
    table = over_clips(
        [
            measured(a_lanczos, 100.0, twin=30.0, psnr=32.0, vmaf=70.0),
            measured(a_projected, 20.0, twin=30.0, psnr=35.0, vmaf=80.0),
            measured(b_lanczos, 300.0, twin=40.0, psnr=41.0),
            b_projected,
        ]
    )
    assert table.methods == ("Lanczos", "Lanczos + back-projection", "Bicubic")
    lanczos, projected, bicubic = table.means
    assert (lanczos.clips, lanczos.figures) == (2, {"psnr": 36.5, "vmaf": 70.0})
    assert lanczos.pace == pytest.approx(150.0)  # 4 pictures at 100 and 4 at 300 a second
    assert (projected.clips, projected.figures, projected.pace) == (1, {"vmaf": 80.0}, None)
    assert (bicubic.figures, bicubic.pace) == ({"psnr": 35.0}, None)
    assert [(row.clip, row.method) for row in table.rows if row.whose == BICUBIC] == [(0, "Bicubic"), (1, "Bicubic")]
    one = over_clips([measured(a_lanczos, 100.0, psnr=32.0)])
    assert one.means == ()


def test_bicubic_that_was_asked_for_has_one_row(store: RunStore, tmp_path: Path) -> None:
    asked, other = made(store, [clip_of(tmp_path / "a.mp4", scale=2)], "bicubic", "lanczos")
    table = over_clips([measured(asked, 400.0, twin=30.0, psnr=30.0), measured(other, 100.0, twin=30.0, psnr=32.0)])
    assert [(row.method, row.whose, row.pace) for row in table.rows] == [
        ("Bicubic", MADE, 400.0),
        ("Lanczos", MADE, 100.0),
    ]


def test_what_nothing_beats_in_speed_and_figure_is_the_front(store: RunStore, tmp_path: Path) -> None:
    rows = made(store, [clip_of(tmp_path / "a.mp4", scale=2)], "bicubic", "lanczos", "back-projection", "pocket")
    rates = [(400.0, 30.0, 0.9), (100.0, 32.0, 1.0), (90.0, 31.0, 1.2), (5.0, math.nan, 0.8)]
    table = over_clips(
        [
            measured(each, rate, psnr=psnr, flicker=flicker)
            for each, (rate, psnr, flicker) in zip(rows, rates, strict=True)
        ]
    )
    assert [each.method for each in front(table.rows, "psnr")] == ["Lanczos", "Bicubic"]
    assert [each.method for each in front(table.rows, "flicker")] == ["Pocket super-resolver", "Bicubic"]


def test_files_say_every_figure_and_no_name_becomes_a_formula(store: RunStore, tmp_path: Path) -> None:
    clips = [clip_of(tmp_path / "=1+1.mp4", scale=2), clip_of(tmp_path / "b.mp4", scale=2)]
    one, other = made(store, clips, "lanczos")
    figures = {"psnr": math.inf, "ssim": 0.123456789}
    files = files_of(over_clips([measured(one, 100.0, **figures), measured(other, 50.0, **figures)]))
    lines = list(csv.DictReader(io.StringIO(files["csv"])))
    assert [line["clip"] for line in lines] == ["'=1+1.mp4", "b.mp4", "mean over 2"]
    assert {(line["method"], line["psnr"], line["ssim"]) for line in lines} == {("Lanczos", "inf", "0.123456789")}
    record = json.loads(files["json"])
    assert [row["pictures_per_second"] for row in record["rows"]] == [100.0, 50.0]
    assert record["rows"][0]["request"]["method"] == "lanczos"
    assert record["metrics"]["vmaf_neg"]["higher_is_better"] is True


def test_a_made_clip_says_how_many_pictures_a_second_it_was_made_at(store: RunStore, tmp_path: Path) -> None:
    (one,) = made(store, [clip_of(tmp_path / "a.mp4", count=8, scale=2)], "lanczos")
    list(enlarge(EnlargeClip(enlargement_id=one.id), store=store, owner="local", stop=never))
    done = EnlargementStore(store.folder).get(one.id)
    assert 8 / done.seconds <= done.frames_per_second < 1e5
    (row,) = [row for row in over_clips([done]).rows if row.whose == MADE]
    assert row.pace == done.frames_per_second
