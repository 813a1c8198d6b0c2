"""Methods × clips from the page without a browser: begun, stopped, gone on with, drawn, each to its owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from support.films import write_pictures
from support.page_values import AT_HOME, pressed, values_of
from support.patience import until

from studio.records.enlargements import TWIN_OF, VIDEO, EnlargementStore
from studio.super_resolve import is_done, walk
from studio.ui.panels.comparing_enlargements import ComparingEnlargements
from studio.ui.server.page_context import PageContext
from studio.ui.server.visitor import introduced

METHODS = ["lanczos", "bicubic"]


def panel_of(context: PageContext) -> Any:
    with gr.Blocks():
        panel = ComparingEnlargements(context, gr.BrowserState(AT_HOME, storage_key="test", secret="test"))
        panel.build()
    return panel


@pytest.fixture
def panel(context: PageContext) -> Any:
    return panel_of(context)


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    """Of 10 and of 8 pictures."""
    few = write_pictures(tmp_path / "few.mp4", [512 * number for number in range(8)])
    return [str(write_pictures(tmp_path / "many.mp4")), str(few)]


def asked(panel: Any, clips: list[str], methods: list[str] = METHODS, **changes: Any) -> dict[Any, Any]:
    controls = (panel.originals, panel.scale, panel.rows)
    changed = {getattr(panel, name): value for name, value in changes.items()}
    own = {panel.clips: clips, panel.methods: methods, panel.browser: AT_HOME}
    return values_of(controls) | own | changed


def begun(panel: Any, clips: list[str], **changes: Any) -> dict[Any, Any]:
    updates = panel.begin(asked(panel, clips, **changes))
    assert updates[panel.shown], updates[panel.trouble]
    return updates


def ended(panel: Any, shown: str) -> dict[Any, Any]:
    """What is shown once all was made and measured."""
    jobs = panel.context.queue.jobs
    until(lambda: not jobs(states=("running", "queued"), kinds=("enlargement",)))
    return panel.open(AT_HOME, shown, None, None)


def test_each_clip_is_enlarged_by_each_method_and_the_means_stand_over_them(panel: Any, clips: list[str]) -> None:
    updates = begun(panel, clips, rows="back-projection:back_projections=1")
    assert updates[panel.status]["words"] == "0 of 6 enlargements."
    assert [row["note"] for row in updates[panel.table]["groups"][0]["rows"]] == ["It waits in the queue."] * 3
    panel.context.queue.start()
    shown = ended(panel, updates[panel.shown])
    assert shown[panel.status]["words"] == "Done: 6 of 6 enlargements."
    mean, many, few = shown[panel.table]["groups"]
    assert (mean["title"], many["title"], few["title"]) == ("Mean over 2 clips", "many.mp4", "few.mp4")
    titles = ["Lanczos", "Bicubic", "Lanczos + back-projection (back projections 1)"]
    for group in (mean, many, few):
        assert [row["title"] for row in group["rows"]] == titles
        assert all(len(row["cells"]) == len(shown[panel.table]["columns"]) for row in group["rows"])
    assert [column["title"] for column in shown[panel.table]["columns"]][:2] == ["Seconds a picture", "Shrink-back, dB"]
    plot = shown[panel.plot]
    assert (len(plot["points"]), len(plot["medians"])) == (6, 3)
    assert [metric["name"] for metric in plot["metrics"]] == ["shrink_back"]
    assert all(point["speeds"]["pictures"] > 0 for point in plot["points"])
    assert plot["fronts"]["pictures"]["shrink_back"]
    assert "pictures_per_second" in Path(shown[panel.files.figures["csv"]]["value"]).read_text(encoding="utf-8")
    json.loads(Path(shown[panel.files.figures["json"]]["value"]).read_text(encoding="utf-8"))
    assert len(shown[panel.player]["clips"]) == 4  # bicubic, and the first clip by all three

    # What is stored is not made again.
    again = begun(panel, clips[:1])
    assert again[panel.status]["words"] == "Done: 2 of 2 enlargements."
    assert len(EnlargementStore(panel.context.store.folder).list()) == 6
    assert [choice for _, choice in again[panel.earlier]["choices"]] == [again[panel.shown], updates[panel.shown]]


def test_nearness_to_the_originals_is_measured_of_the_clips_that_have_one(
    panel: Any, clips: list[str], tmp_path: Path
) -> None:
    (tmp_path / "large").mkdir()
    large = panel.begin(asked(panel, clips[:1], ["back-projection"]))
    panel.context.queue.start()
    ended(panel, large[panel.shown])
    (one,) = EnlargementStore(panel.context.store.folder).list()
    original = tmp_path / "large/many.mp4"
    original.write_bytes((panel.store.path(one.id) / VIDEO).read_bytes())
    pairs = panel.introduce(asked(panel, clips, originals=[str(original)]))
    assert "against many.mp4" in pairs[panel.pairs]["rows"][0]["value"]
    assert "no original" in pairs[panel.pairs]["rows"][1]["value"]
    assert pairs[panel.count]["words"].startswith("2 clips × 2 methods: 4 enlargements")
    shown = ended(panel, begun(panel, clips, originals=[str(original)])[panel.shown])
    titles = [column["title"] for column in shown[panel.table]["columns"]]
    place = titles.index("PSNR, dB")
    mean, many, few = shown[panel.table]["groups"]
    assert [row["cells"][place] for row in mean["rows"]] == [row["cells"][place] for row in many["rows"]]
    assert {row["cells"][place] for row in few["rows"]} == {"–"}
    assert shown[panel.player]["clips"][-1]["title"] == "Original"


def test_what_is_stopped_goes_on_and_only_that(panel: Any, clips: list[str]) -> None:
    updates = begun(panel, clips)
    jobs = panel.context.queue.jobs
    shown = updates[panel.shown]
    assert len(jobs(states=("queued",), kinds=("enlargement",))) == 4
    panel.leave_off(AT_HOME, shown)
    assert not jobs(states=("queued", "running"), kinds=("enlargement",))
    stopped = panel.look(AT_HOME, shown, None, None, updates[panel.seen])
    assert stopped[panel.status]["words"] == "Stopped: 0 of 4 enlargements."
    assert (stopped[panel.go_on]["visible"], stopped[panel.stop]["visible"]) == (True, False)
    panel.take_up(AT_HOME, shown, None, None)
    panel.context.queue.start()
    done = ended(panel, shown)
    assert done[panel.status]["words"] == "Done: 4 of 4 enlargements."
    assert panel.take_up(AT_HOME, shown, None, None)[panel.status] == done[panel.status]
    assert not jobs(states=("queued", "running"), kinds=("enlargement",))


def test_a_ticked_clip_takes_the_place_of_another_clips(panel: Any, clips: list[str]) -> None:
    panel.context.queue.start()
    shown = ended(panel, begun(panel, clips)[panel.shown])
    of_many, of_few = ([row["key"] for row in group["rows"]] for group in shown[panel.table]["groups"][1:])
    assert shown[panel.table]["picked"] == of_many
    name, played = shown[panel.shown], shown[panel.played]
    picked = panel.pick(AT_HOME, name, of_many, played, pressed(key=of_few[1], on=True))
    assert picked[panel.table]["picked"] == [of_few[1]]
    assert [clip["title"] for clip in picked[panel.player]["clips"]] == ["Bicubic", "Bicubic"]
    less = panel.pick(AT_HOME, name, [of_few[1]], picked[panel.played], pressed(key=of_few[1], on=False))
    assert (less[panel.table]["picked"], less[panel.player]) == ([], {})
    cell = next(point["cell"] for point in shown[panel.plot]["points"] if point["line"] == "few.mp4")
    chosen = panel.choose_point(AT_HOME, name, of_many, played, pressed(cell=cell))
    assert chosen[panel.table]["picked"] == [of_few[0]]
    assert chosen[panel.plot]["chosen"] == cell
    assert panel.choose_point(AT_HOME, name, of_many, played, pressed(cell=99)) == {panel.answer: {}}


def test_methods_on_a_long_clip_stand_beside_one_another_without_its_bicubic_twin(
    panel: Any, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "COMPARED", 4)
    panel.context.queue.start()
    shown = ended(panel, begun(panel, clips[:1])[panel.shown])
    assert all(TWIN_OF[VIDEO] not in each.outputs for each in panel.store.list())
    assert [clip["title"] for clip in shown[panel.player]["clips"]] == ["Lanczos", "Bicubic"]


def test_a_failed_one_says_why_and_is_tried_again(panel: Any, clips: list[str]) -> None:
    updates = begun(panel, clips[:1])
    (copy,) = {each.request.source.path for each in panel.store.list()}
    whole = copy.read_bytes()
    copy.write_bytes(b"something else")
    panel.context.queue.start()
    failed = ended(panel, updates[panel.shown])
    assert failed[panel.status]["words"] == "Done: 0 of 2 enlargements, 2 failed."
    assert all("not what it was" in row["note"] for row in failed[panel.table]["groups"][0]["rows"])
    assert failed[panel.go_on]["visible"]
    copy.write_bytes(whole)
    panel.take_up(AT_HOME, updates[panel.shown], None, None)
    assert all(is_done(each) for each in panel.store.list()) or ended(panel, updates[panel.shown])
    assert ended(panel, updates[panel.shown])[panel.status]["words"] == "Done: 2 of 2 enlargements."


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"clips": None}, "Clips", "no clip yet"),
        ({"methods": []}, "Methods", "No method is chosen"),
        ({"methods": ["sharpest"]}, "Method", "No method is called"),
        ({"originals": "few.mp4"}, "Originals", "fits none of the clips"),
    ],
)
def test_what_cannot_be_compared_is_named_and_nothing_is_begun(
    panel: Any, clips: list[str], changes: dict[str, Any], field: str, words: str
) -> None:
    if "originals" in changes:
        changes = {"originals": [clips[1]], "clips": clips[:1]}
    said = panel.begin(asked(panel, **({"clips": clips[:1]} | changes)))[panel.trouble]
    assert words in said["words"]
    assert said["field"].startswith(field)
    assert not panel.book.list(owner="local")


def test_a_comparison_is_deleted_and_its_enlargements_stay(panel: Any, clips: list[str]) -> None:
    updates = begun(panel, clips)
    gone = panel.remove(AT_HOME, updates[panel.shown])
    assert gone[panel.shown] == ""
    assert "stay" in gone[panel.answer]["words"]
    assert not panel.book.list(owner="local")
    assert len(panel.store.list()) == 4
    assert "There is no comparison" in panel.remove(AT_HOME, updates[panel.shown])[panel.answer]["words"]


def test_strangers_see_their_own_and_bring_short_clips(hosted: PageContext, clips: list[str], tmp_path: Path) -> None:
    panel = panel_of(hosted)
    mine, other = introduced({}), introduced({})
    updates = panel.begin(asked(panel, clips[:1]) | {panel.browser: mine})
    assert panel.open(mine, updates[panel.shown], None, None)[panel.shown] == updates[panel.shown]
    assert panel.open(other, updates[panel.shown], None, None)[panel.shown] == ""
    assert "There is no comparison" in panel.leave_off(other, updates[panel.shown])[panel.answer]["words"]
    assert panel.open({}, updates[panel.shown], None, None)[panel.shown] == ""
    long = write_pictures(tmp_path / "long.mp4", [0, 12800 * 31])
    said = panel.begin(asked(panel, [str(long)]) | {panel.browser: mine})
    assert "on this shared page" in said[panel.trouble]["words"]


def test_a_model_that_restores_is_offered_as_a_method(panel: Any) -> None:
    offered = dict(panel.offer()[panel.methods]["choices"])
    assert offered["Pocket super-resolver, restoring"] == "pocket:restore=true"
    assert "bicubic" in offered.values()
