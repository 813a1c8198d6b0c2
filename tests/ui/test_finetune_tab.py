"""The Fine-tune tab without a browser: clips, settings, the queue, a log as it grows, what is done with versions."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from support import clip_corpus
from support.page_values import pressed, values_of
from support.patience import until
from support.training_tab import SIZE, begun, given, learnt, said, settings, tab_of, uploaded

from studio.clips.clip import Clip
from studio.clips.uploads import FOLDER as UPLOADS
from studio.clips.uploads import Uploads
from studio.errors import DiskFull, NumericalError, RequestError
from studio.events import (
    Placement,
    TrainingForecast,
    TrainingSample,
    TrainingScored,
    TrainingStage,
    TrainingStarted,
    TrainingStep,
    event_to_json,
)
from studio.family import family_of
from studio.finetune import go_on
from studio.preset import list_presets
from studio.records.folders import LOG
from studio.records.runs import RunStore
from studio.records.versions import DECODER_FILE, LORA_FILE, Version
from studio.requests.generation import request_for
from studio.requests.training import FinetuneRequest
from studio.requests.work import TrainVersion
from studio.ui.forms.training import finetune_label
from studio.ui.panels.training_progress import TrainingProgress, before_and_after, plot_of
from studio.ui.panels.versions import trainings
from studio.ui.server.page_context import PageContext
from studio.ui.tabs.finetune import FinetuneTab


@pytest.fixture
def tab(context: PageContext) -> FinetuneTab:
    return tab_of(context)


def log(tab: FinetuneTab, version: Version, *events: Any) -> None:
    with (tab.versions.path(version.id) / LOG).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event_to_json(event)) + "\n" for event in events)


def step(number: int, *, pixel: float | None = None) -> TrainingStep:
    return TrainingStep(
        step=number,
        loss=1 / number,
        latent=1 / number,
        pixel=pixel,
        learning_rate=1e-3,
        seconds=2.0,
        eta_seconds=10.0,
        peak_bytes=10**9,
    )


def started(version: Version, first: int = 0) -> TrainingStarted:
    placement = Placement(
        device="cpu",
        device_name="a processor",
        torch_dtype="float32",
        vae_dtype="float32",
        channels_last=False,
        offload="none",
        vae_tiling=False,
        quantization="none",
    )
    return TrainingStarted(
        version_id=version.id, total_steps=8, first_step=first, samples=4, held_out=1, placement=placement
    )


# -- clips ------------------------------------------------------------------------------------------------------------


def test_clips_get_a_picture_and_a_caption_and_bad_ones_a_reason(tab: FinetuneTab, film: Callable[..., str]) -> None:
    good = film("red_car-ahead.mp4")
    copy, broken = Path(good).with_name("copy.mp4"), Path(good).with_name("broken.mp4")
    copy.write_bytes(Path(good).read_bytes())
    broken.write_bytes(b"not a clip")
    ids, listed = uploaded(tab, good, str(copy), film("short.mp4", seed=1, num_frames=4), str(broken))
    first, second, short, bad = listed["clips"]
    assert (first["state"], first["caption"], first["held_out"]) == ("ready", "red car ahead", False)
    assert first["picture"].startswith("data:image/jpeg;base64,")
    assert "64×64" in first["line"]
    assert "same file as red_car-ahead.mp4" in second["note"]
    assert "fewer than the 9" in short["note"]
    assert {row["state"] for row in (second, short, bad)} == {"left out"}
    assert bad["note"]
    assert len(tab.clips.clips(given(tab, ids, listed))) == 1

    # Without the first, its copy takes its place; a shorter sample makes room for the short one.
    updates = tab.clips.remove(given(tab, ids, listed, size=(4, *SIZE[1:])), pressed(clip=ids[0]))
    assert [row["state"] for row in updates[tab.clips.list]["clips"]] == ["ready", "ready", "left out"]


def test_what_was_typed_and_ticked_goes_into_the_request(tab: FinetuneTab, film: Callable[..., str]) -> None:
    ids, listed = uploaded(tab, film("a.mp4"), film("b.mp4", seed=1))
    listed["clips"][0] |= {"caption": " <b>a tram</b> "}
    listed["clips"][1] |= {"held_out": True}
    clips = tab.clips.clips(given(tab, ids, listed, origin=" by\nme ", licence="CC0"))
    assert [clip.caption for clip in clips] == ["<b>a tram</b>", "b"]
    assert [clip.held_out for clip in clips] == [False, True]
    assert {(clip.origin, clip.licence) for clip in clips} == {("by me", "CC0")}
    assert all(UPLOADS in clip.path.parts for clip in clips)
    listed["clips"][0] |= {"held_out": True}
    with pytest.raises(RequestError, match="held out"):
        tab.clips.clips(given(tab, ids, listed))
    listed["clips"][0] |= {"caption": "  "}
    with pytest.raises(RequestError, match=r"a\.mp4 has no caption"):
        tab.clips.clips(given(tab, ids, listed))


@pytest.mark.parametrize("sent", [None, [], "x", {"clips": 3}, {"clips": [None, {"id": 1}, {"id": "x"}]}])
def test_whatever_a_browser_sends_as_the_list_is_borne(tab: FinetuneTab, sent: Any, film: Callable[..., str]) -> None:
    ids, _ = uploaded(tab, film())
    assert [clip.caption for clip in tab.clips.clips(given(tab, ids, sent, origin=None, licence=3))] == ["drive"]
    updates = tab.clips.look(given(tab, [*ids, "0123", 7], sent, size=(None, "nothing", -1, 0), seen=None))
    assert [row["state"] for row in updates[tab.clips.list]["clips"]] == ["ready", "left out"]


def test_more_than_fifty_clips_are_not_taken(tab: FinetuneTab, film: Callable[..., str]) -> None:
    updates = tab.clips.add(given(tab, [f"{n}" for n in range(49)], {}, files=[film("one.mp4"), film("two.mp4")]))
    assert len(updates[tab.clips.ids]) == 50
    assert "two.mp4" in updates[tab.clips.answer]["words"]


def once_read(tab: FinetuneTab, ids: Any, shown: Any) -> Any:
    """What the page shows when no clip is being read any more."""

    def read() -> Any:
        nonlocal shown
        if any(row["state"] == "reading" for row in shown[tab.clips.list]["clips"]):
            shown = tab.clips.look(given(tab, ids, shown[tab.clips.list], seen=None))
            return None
        return shown

    return until(read)


def test_a_reloaded_page_finds_its_clips_again_and_no_other_file(
    tab: FinetuneTab, context: PageContext, film: Callable[..., str]
) -> None:
    updates = tab.clips.add(given(tab, [], {}, files=[film("a.mp4"), film("b.mp4", seed=1)]))
    ids = updates[tab.clips.ids]
    listed = once_read(tab, ids, updates)[tab.clips.list]
    listed["clips"][1] |= {"caption": "<b>rain</b>", "held_out": True}
    remembered = tab.clips.edited(given(tab, ids, listed))[tab.clips.remembered]
    assert [set(row) for row in remembered] == [{"sha256", "caption", "held_out"}] * 2
    remembered += [None, {"sha256": "../" * 9}, {"sha256": "f" * 64, "caption": "gone"}, {"sha256": 7}, "x"]

    for later in (tab, tab_of(context)):  # the same server, and one that was started anew
        shown = later.clips.recall(given(later, [], {}, remembered=remembered))
        ids = shown[later.clips.ids]
        shown = once_read(later, ids, shown)
        listed = shown[later.clips.list]
        assert [(row["caption"], row["held_out"]) for row in listed["clips"]] == [("a", False), ("<b>rain</b>", True)]
        assert shown[later.clips.remembered] == remembered[:2]
        assert len(later.clips.clips(given(later, ids, listed))) == 2
        again = later.clips.recall(given(later, ids, {}, remembered=remembered))
        assert again == gr.skip(), "a page that has clips keeps them"
    for sent in (None, {}, 3, [[]]):
        assert tab.clips.recall(given(tab, [], {}, remembered=sent)) == gr.skip()


def test_old_uploads_are_swept_save_those_that_a_version_needs(tab: FinetuneTab, film: Callable[..., str]) -> None:
    needed = begun(tab, film).request.clips[0].path
    uploads = Uploads(tab.context.store.folder)
    old, fresh, again = (uploads.keep(Path(film(f"{n}.mp4", seed=100 + n))) for n in range(3))
    for path in (needed, old, again):
        os.utime(path.parent, (0, 0))
    uploads.keep(Path(film("2.mp4", seed=102)))  # asked for once more
    unreadable = tab.versions.folder / "20260101-000000-00000000" / "version.json"
    unreadable.parent.mkdir()
    unreadable.write_text("{torn", encoding="utf-8")
    uploaded(tab, film("one-more.mp4", seed=9))
    until(lambda: not old.is_file())  # the sweeping comes after the reading
    assert [path.is_file() for path in (needed, old, fresh, again)] == [True, False, True, True]
    ids, listed = uploaded(tab, film("2.mp4", seed=102))
    shutil.rmtree(again.parent)
    with pytest.raises(RequestError, match="not kept here any more"):
        tab.clips.clips(given(tab, ids, listed))


def test_clips_that_will_not_do_say_why_and_what_to_do_and_the_others_stay(
    tab: FinetuneTab, film: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "uploads"
    good = film("good.mp4")
    picture = clip_corpus.encode(folder / "picture.mp4", *clip_corpus.H264, count=1)
    slow = clip_corpus.encode(folder / "slow.mp4", *clip_corpus.H264, count=4, fps="1")
    (folder / "torn.mp4").write_bytes(Path(good).read_bytes()[:900])
    clip_corpus.ffmpeg("-f", "lavfi", "-i", "sine=d=1:r=8000", "-c:a", "aac", folder / "sound.mp4")
    vast = ("-f", "lavfi", "-i", "testsrc=s=7680x4320:r=1", "-frames:v", 2, "-preset", "ultrafast")
    clip_corpus.ffmpeg(*vast, folder / "8k.mp4")
    names = ("picture.mp4", "torn.mp4", "sound.mp4", "8k.mp4")
    ids, listed = uploaded(tab, good, str(slow), *(str(folder / name) for name in names))
    told = {row["name"]: row for row in listed["clips"]}
    assert [told[name]["state"] for name in ("good.mp4", "slow.mp4", "8k.mp4")] == ["ready"] * 3
    assert "7680×4320" in told["8k.mp4"]["line"]
    for name, words in (
        ("picture.mp4", "single picture; a clip has at least 2. Choose a video."),
        ("sound.mp4", "has no video. Choose a file with moving pictures."),
        ("torn.mp4", "It may not have been copied to its end."),
    ):
        assert told[name]["state"] == "left out"
        assert words in told[name]["note"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("studio.clips.uploads.shutil.copyfile", full)
    ids, listed = uploaded(tab, film("one-more.mp4", seed=7), ids=ids)
    assert "room" in listed["clips"][-1]["note"]
    assert picture.is_file()
    assert len(tab.clips.clips(given(tab, ids, listed))) == 3


def test_a_full_disk_at_the_start_loses_nothing(
    tab: FinetuneTab, film: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = begun(tab, film)
    ids, listed = uploaded(tab, film("other.mp4", seed=5))

    def full(*_: object) -> None:
        raise DiskFull("There is no room for version.json.", way_out="Free some space.")

    monkeypatch.setattr("studio.records.folders.write_atomically", full)
    said = tab.begin(settings(tab, ids, listed))
    assert list(said) == [tab.trouble], "the form keeps what was typed"
    assert "Free some space" in said[tab.trouble]["words"]
    assert [version.id for version in tab.versions.list()] == [earlier.id]
    assert trainings(tab.context) == {}


# -- settings ---------------------------------------------------------------------------------------------------------


def test_only_models_that_can_be_fine_tuned_are_offered_the_pocket_one_first(tab: FinetuneTab) -> None:
    assert tab.form.presets[0].name == "pocket"
    known, _ = list_presets()
    assert {preset.name for preset in tab.form.presets} == {each.name for each in known}


def test_every_default_of_a_request_is_what_the_form_starts_from(tab: FinetuneTab, film: Callable[..., str]) -> None:
    ids, listed = uploaded(tab, film(num_frames=40))
    clips = tab.clips.clips(given(tab, ids, listed))
    request, preset = tab.form.request_of(values_of(tab.form.inputs), clips)
    drawn = {name: field for name, field in FinetuneRequest.model_fields.items() if name != "clips"}
    assert set(tab.form.controls) == set(drawn)
    expected = {name: field.get_default() for name, field in drawn.items()}
    expected |= {name: getattr(preset.defaults, name) for name in ("width", "height", "num_frames", "fps")}
    assert {name: getattr(request, name) for name in expected} == expected | {"preset": "pocket"}


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"width": 72}, "Width"),
        ({"max_train_steps": 1.5}, "Steps"),
        ({"learning_rate": 7}, "Learning rate"),
        ({"lora_rank": None}, "LoRA rank"),
        ({"crop_size": "many"}, "Crop"),
        ({"seed": "-1"}, "Seed"),
        ({"objective": "beauty"}, "Objective"),
        ({"lora_alpha": "2.5"}, "LoRA alpha"),
        ({"fps": 0}, "Frames a second"),
        ({"validation_share": 0.9}, "Held out"),
        ({"checkpointing_steps": 0}, "Checkpoint every"),
        ({"sample_prompts": "a\nb\nc\nd\ne"}, "Sample prompts"),
        ({"preset": "nothing"}, "Preset"),
    ],
)
def test_a_refusal_names_the_control(
    tab: FinetuneTab, film: Callable[..., str], changes: dict[str, Any], label: str
) -> None:
    ids, listed = uploaded(tab, film())
    updates = tab.begin(settings(tab, ids, listed, **changes))
    assert list(updates) == [tab.trouble], "the form keeps what was typed"
    assert updates[tab.trouble]["field"] == label
    assert tab.versions.list() == []


def test_a_preset_brings_its_size_its_rate_and_what_it_can_be_trained_with(tab: FinetuneTab) -> None:
    form = tab.form
    for preset in form.presets:
        updates = form.starts_from(preset.name, "mixed")
        assert updates[form.controls["fps"]] == preset.defaults.fps
        offered = [objective for _, objective in updates[form.controls["objective"]]["choices"]]
        assert set(offered) == set(family_of(preset.pipeline).objectives)
        assert updates[form.controls["objective"]]["value"] == offered[0]
    assert form.starts_from("nothing", "mixed") == {}


def test_every_line_is_a_sample_prompt(tab: FinetuneTab, film: Callable[..., str]) -> None:
    version = begun(tab, film, sample_prompts=" a tram \n\nrain, at night", lora_alpha="8")
    assert version.request.sample_prompts == ("a tram", "rain, at night")
    assert version.request.lora_alpha == 8


def test_without_clips_nothing_is_begun(tab: FinetuneTab) -> None:
    said = tab.begin(settings(tab, [], {}))[tab.trouble]
    assert said["field"] == "Clips"
    assert finetune_label(RequestError("x", field="caption of a.mp4")) == "Clips"


# -- starting, stopping, going on -------------------------------------------------------------------------------------


def test_start_writes_a_version_down_and_asks_the_worker(tab: FinetuneTab, film: Callable[..., str]) -> None:
    ids, listed = uploaded(tab, film())
    updates = tab.begin(settings(tab, ids, listed, title="<i>rain</i>"))
    (version,) = tab.versions.list()
    assert [updates[tab.chosen]] == [version.id] == list(trainings(tab.context))
    assert version.title == "<i>rain</i>"
    assert "its turn" in updates[tab.status]["words"]
    assert updates[tab.panel.list]["versions"][0]["state"] == "waiting"

    refused = tab.take_up(version.id, TrainingProgress(), None)
    assert "waits for it" in refused[tab.answer]["words"]
    assert len(trainings(tab.context)) == 1, "it is not trained twice"

    assert "Stopping" in tab.leave_off(version.id)[tab.answer]["words"]
    updates = tab.open(version.id, TrainingProgress(), None)
    assert updates[tab.going_on]["visible"]
    updates = tab.take_up(version.id, TrainingProgress(), None)
    assert list(trainings(tab.context)) == [version.id]
    assert updates[tab.stopping]["visible"]


def test_a_hosted_page_says_why_it_starts_nothing(hosted: PageContext, film: Callable[..., str]) -> None:
    tab = tab_of(hosted)
    assert tab.clips.add(given(tab, [], {}, files=[film()])) == {tab.clips.files: None}
    assert "shared page" in tab.begin(settings(tab, [], {}))[tab.trouble]["words"]
    version = begun(tab_of(replace(hosted, hosted=False)), film)
    learnt(tab, version, base=18, own=19)
    updates = tab.open("", TrainingProgress(), None)
    assert updates[tab.panel.list]["versions"][0]["gain"] == "+1.00", "everything is shown"
    for button in (tab.panel.promote, tab.panel.deletion.button, tab.panel.roll_back):
        assert updates[button]["interactive"] is False
    for act in (tab.panel.put_forward, tab.panel.undo, tab.panel.remove):
        assert "shared" in act(version.id)[tab.panel.answer]["words"]
    assert "shared" in tab.take_up(version.id, TrainingProgress(), None)[tab.answer]["words"]
    assert trainings(hosted) == {}
    assert tab.versions.promoted("pocket") is None


def test_a_prediction_is_asked_of_the_worker_and_told_in_plain_words(
    tab: FinetuneTab, film: Callable[..., str]
) -> None:
    ids, listed = uploaded(tab, film())
    updates = tab.foretell(settings(tab, ids, listed))
    version = tab.versions.get(updates[tab.chosen])
    (asked,) = tab.context.queue.jobs()
    assert asked.work == TrainVersion(version_id=version.id, predict=True)
    tab.context.queue.cancel(asked.id)
    measured = said(TrainingForecast, step_seconds=2, eta_seconds=16, decoder_bytes=10**7, full_decoder_bytes=4 * 10**7)
    log(tab, version, started(version), TrainingStage(stage="measuring", done=1, total=2), measured)
    tab.versions.write(replace(version, state="stopped"))
    updates = tab.open(version.id, TrainingProgress(), None)
    words = updates[tab.status]["words"]
    for part in ("8 steps", "16 s", "2.0 s each", "holds 10 MB", "have taken 40 MB", "Go on"):
        assert part in words
    assert updates[tab.plot]["memory"]["full_words"] == "40 MB", "drawn before there is a loss"
    assert updates[tab.going_on]["visible"]
    tab.take_up(version.id, updates[tab.progress], None)
    (asked,) = tab.context.queue.jobs(states=("queued",))
    assert asked.work == TrainVersion(version_id=version.id)
    tab.context.queue.cancel(asked.id)
    log(tab, version, started(version), step(1))
    assert tab.open(version.id, updates[tab.progress], None)[tab.progress].predicted is None


# -- following --------------------------------------------------------------------------------------------------------


def test_a_log_is_followed_piece_by_piece_and_read_the_same_at_once(tab: FinetuneTab, film: Callable[..., str]) -> None:
    version = begun(tab, film)
    updates = tab.open(version.id, TrainingProgress(), None)
    assert tab.look(version.id, updates[tab.progress], None, "", updates[tab.seen]) == gr.skip(), "nothing is new"
    log(tab, version, TrainingStage(stage="loading"), started(version), said(TrainingScored, step=0, psnr=18))
    log(tab, version, step(1), step(2, pixel=0.1))
    forecast = said(TrainingForecast, step_seconds=2, eta_seconds=12, decoder_bytes=10**7, full_decoder_bytes=4 * 10**7)
    updates = tab.look(version.id, updates[tab.progress], None, "", updates[tab.seen])
    assert [len(line["points"]) for line in updates[tab.plot]["lines"]] == [2, 1]
    log(tab, version, forecast, step(3), TrainingStage(stage="scoring"))
    updates = tab.look(version.id, updates[tab.progress], None, "", updates[tab.seen])
    plot = updates[tab.plot]
    assert plot["memory"]["held_words"] == "10 MB"
    assert plot["scores"] == [[0, 18]]
    told = updates[tab.progress]
    assert told.step == 3
    assert told.stage
    assert tab.open(version.id, TrainingProgress(), None)[tab.progress] == told, "a reload shows the same"

    # What was lost since the last checkpoint is made again.
    log(tab, version, started(version, first=2), step(3), step(4))
    assert sorted(tab.open(version.id, told, None)[tab.progress].steps) == [1, 2, 3, 4]
    assert (
        len(plot_of(TrainingProgress(steps={n: (1.0, 1.0, None) for n in range(1, 5001)}), 5000)["lines"][0]["points"])
        <= 240
    )


def generated(tab: FinetuneTab, version: Version, prompt: str) -> str:
    """A clip in the version's own store."""
    store = RunStore(tab.versions.path(version.id) / "clips")
    request = request_for(tab.form.presets[0], prompt=prompt, height=64, width=64, num_frames=9)
    writer = store.begin(request, preset=tab.form.presets[0], environment={})
    return str(writer.complete(Clip(frames=np.zeros((9, 64, 64, 3), np.uint8), fps=12.0)).video)


def test_the_first_and_the_last_clip_lie_under_one_clock(tab: FinetuneTab, film: Callable[..., str]) -> None:
    version = begun(tab, film)
    paths = [generated(tab, version, "a car") for _ in range(2)]
    log(tab, version, started(version), TrainingSample(step=0, prompt="a car", path=paths[0]), step(1))
    tab.versions.write(replace(version, state="stopped", step=1))
    updates = tab.open(version.id, TrainingProgress(), None)
    assert updates[tab.panel.player] == {}
    assert Path(updates[tab.panel.alone]["value"]).is_file(), "what there is of a stopped one is shown"
    assert updates[tab.panel.prompt]["visible"] is False
    log(tab, version, TrainingSample(step=8, prompt="a car", path=paths[1]))
    updates = tab.open(version.id, updates[tab.progress], None)
    assert len(before_and_after(updates[tab.progress])["a car"]) == 2
    assert [clip["title"] for clip in updates[tab.panel.player]["clips"]] == ["Before", "After"]
    later = tab.open(version.id, updates[tab.progress], updates[tab.panel.paired])
    assert tab.panel.player not in later, "it goes on playing where it is"


def test_each_prompt_has_its_own_pair(tab: FinetuneTab, film: Callable[..., str]) -> None:
    version = begun(tab, film)
    for at in (0, 8):
        for prompt in ("a car", "a tram"):
            log(tab, version, TrainingSample(step=at, prompt=prompt, path=generated(tab, version, prompt)))
    updates = tab.open(version.id, TrainingProgress(), None)
    assert [prompt for _, prompt in updates[tab.panel.prompt]["choices"]] == ["a car", "a tram"]
    assert updates[tab.panel.prompt] | {"value": "a car", "visible": True} == updates[tab.panel.prompt]
    first = updates[tab.panel.player]["clips"][1]["url"]["path"]
    picked = gr.SelectData(None, {"index": 1, "value": "a tram"})
    other = tab.pick(version.id, updates[tab.progress], updates[tab.panel.paired], picked)
    assert other[tab.panel.picked] == "a tram"
    assert "a-tram" in other[tab.panel.player]["clips"][1]["url"]["path"] != first
    assert tab.panel.player not in tab.open(version.id, other[tab.progress], other[tab.panel.paired], "a tram")
    assert tab.open(version.id, TrainingProgress(), None, "not one of them")[tab.panel.prompt]["value"] == "a car"


# -- versions ---------------------------------------------------------------------------------------------------------


def test_weights_of_several_files_are_downloaded_as_one_archive(tab: FinetuneTab, film: Callable[..., str]) -> None:
    version = begun(tab, film, title="with a decoder")
    learnt(tab, version, base=18, own=19.5)
    (tab.versions.path(version.id) / DECODER_FILE).write_bytes(b"decoder")
    offered = tab.choose(None, pressed(version=version.id))[tab.panel.download]["value"]
    assert Path(offered).name.startswith("with-a-decoder-")
    with zipfile.ZipFile(offered) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            LORA_FILE: b"weights",
            DECODER_FILE: b"decoder",
        }


def test_versions_are_promoted_rolled_back_and_deleted(tab: FinetuneTab, film: Callable[..., str]) -> None:
    better, worse = begun(tab, film, title="better"), begun(tab, film, title="worse")
    learnt(tab, better, base=18, own=19.5)
    learnt(tab, worse, base=18, own=17)
    closed = tab.choose(None, pressed(version=better.id))
    assert closed[tab.status]["tone"] == "good"
    assert Path(closed[tab.panel.download]["value"]).read_bytes() == b"weights"
    rows = {row["title"]: row for row in closed[tab.panel.list]["versions"]}
    assert (rows["better"]["gain"], rows["better"]["worse"]) == ("+1.50", False)
    assert (rows["worse"]["gain"], rows["worse"]["worse"]) == ("−1.00", True)
    assert tab.choose(None, pressed(version=worse.id))[tab.status]["tone"] == "warn"

    tab.panel.put_forward(worse.id)
    tab.panel.put_forward(better.id)
    promoted = tab.versions.promoted("pocket")
    assert promoted is not None
    assert promoted.id == better.id
    assert "worse is promoted again" in tab.panel.undo(better.id)[tab.panel.answer]["words"]
    assert "as it came" in tab.panel.undo(better.id)[tab.panel.answer]["words"]
    assert tab.panel.undo(better.id)[tab.panel.answer]["tone"] == "error"

    assert tab.panel.deletion.opened()[tab.panel.deletion.question]["visible"]
    assert "Deleted" in tab.panel.remove(worse.id)[tab.panel.answer]["words"]
    assert [each.id for each in tab.versions.list()] == [better.id]
    assert tab.panel.remove("../" + better.id)[tab.panel.answer]["tone"] == "error"
    tab.context.queue.submit(TrainVersion(version_id=better.id))
    assert "about to be" in tab.panel.remove(better.id)[tab.panel.answer]["words"]


def test_a_failed_version_says_why_and_can_go_on(tab: FinetuneTab, film: Callable[..., str]) -> None:
    version = begun(tab, film)
    failure = RequestError("The loss became NaN.", field="learning_rate", way_out="Take a lower learning rate.")
    tab.versions.write(replace(version, state="failed", error=failure.to_json()))
    updates = tab.choose(None, pressed(version=version.id))
    assert "Take a lower learning rate." in updates[tab.status]["words"]
    assert updates[tab.going_on]["visible"]
    assert "written when" in updates[tab.panel.card]

    tab.versions.write(replace(version, state="stopped", preset_digest="another"))
    assert "Fine-tune anew" in tab.take_up(version.id, TrainingProgress(), None)[tab.answer]["words"]
    assert trainings(tab.context) == {}


def test_an_absurd_learning_rate_and_a_full_disk_stop_with_the_reason_and_keep_the_checkpoint(
    tab: FinetuneTab, film: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.finetune import training

    few = {"max_train_steps": 4, "checkpointing_steps": 2, "validation_share": 0, "sample_prompts": "a road"}
    version = begun(tab, film, learning_rate=1, **few)
    loss, steps = training.Training.take_turn, 0

    def spoilt(self: Any, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        latent, pixel = loss(self, *arguments)
        return (float("nan") if steps == 4 else latent), pixel

    monkeypatch.setattr(training.Training, "take_turn", spoilt)
    with pytest.raises(NumericalError):
        list(go_on(version.id, store=tab.context.store))
    updates = tab.choose(None, pressed(version=version.id))
    assert "The loss became nan at step 4. Take a smaller learning rate" in updates[tab.status]["words"]
    assert tab.versions.get(version.id).step == 2
    assert updates[tab.going_on]["visible"]

    def full(*_: object) -> None:
        raise DiskFull("There is no room for state.pt.", way_out="Free some space.")

    whole = training.whole
    monkeypatch.setattr(training, "whole", full)
    with pytest.raises(DiskFull):
        list(go_on(version.id, store=tab.context.store))
    assert "Free some space" in tab.choose(None, pressed(version=version.id))[tab.status]["words"]
    monkeypatch.setattr(training, "whole", whole)
    list(go_on(version.id, store=tab.context.store))
    assert tab.choose(None, pressed(version=version.id))[tab.status]["words"].startswith("Done")
