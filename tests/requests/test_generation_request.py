"""Requests: nothing is silently corrected, and a refusal names the field, the value and the way out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.maps import file_of_maps

from studio.clips.reference import FileReference, reference_to
from studio.errors import GridError, PromptError, RequestError, StudioError, from_json
from studio.family import family_of
from studio.preset import find_preset, list_presets
from studio.requests.checks import MAX_PROMPT_CHARACTERS, check_files, check_request, why_not_set
from studio.requests.generation import MAX_SEED, GenerationRequest, read_request, request_for, request_to_json

POCKET = find_preset("pocket")
WAN = find_preset("wan2.1-t2v-1.3b")
SOURCE = {"path": "/clips/a road.mp4", "sha256": "0123456789abcdef" * 4}


def _pocket(**fields: Any) -> GenerationRequest:
    return request_for(POCKET, prompt=fields.pop("prompt", "a red car"), seed=1, **fields)


def test_a_presets_defaults_make_a_valid_request() -> None:
    request = request_for(POCKET, prompt="a red car", seed=7)
    check_request(request, POCKET)
    assert (request.height, request.num_frames, request.seed) == (POCKET.defaults.height, POCKET.defaults.num_frames, 7)


def test_a_request_survives_being_written_and_read() -> None:
    request = _pocket(width=192, guidance_scale=1.5, prompt="Straße, 雨の夜, \n 🚗")
    assert read_request(json.dumps(request_to_json(request))) == request


def test_an_unset_seed_is_drawn_anew() -> None:
    seeds = {request_for(POCKET, prompt="a road").seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize(
    ("fields", "field", "nearest"),
    [
        ({"height": 130}, "height", "128 and 144"),
        ({"width": 127}, "width", "112 and 128"),
        ({"height": 16}, "height", "64"),
        ({"width": 4096}, "width", "256"),
        ({"num_frames": 16}, "num_frames", "13 and 17"),
        ({"num_frames": 1}, "num_frames", "5"),
        ({"num_frames": 2000}, "num_frames", "33"),
    ],
)
def test_off_the_grid_is_refused_with_the_nearest_valid_values(fields: dict, field: str, nearest: str) -> None:
    request = _pocket(**fields)
    with pytest.raises(GridError) as caught:
        check_request(request, POCKET)
    assert caught.value.field == field
    assert caught.value.value == fields[field]
    assert nearest in caught.value.way_out


def test_the_nearest_values_that_are_named_are_themselves_valid() -> None:
    for asked in range(1, 300):
        for length in POCKET.size.nearest(asked, "height"):
            check_request(_pocket(height=length), POCKET)


def test_a_size_of_valid_sides_may_still_be_too_many_pixels() -> None:
    with pytest.raises(GridError, match="921,600"):
        check_request(request_for(WAN, prompt="a fox", height=1280, width=1280), WAN)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("a" * 10_000, "10,000"),
        ("a" * (MAX_PROMPT_CHARACTERS + 1), "2,001"),
        ("a\x00b", "U+0000"),
        ("a\x1b[31mb", "U+001B"),
        ("broken \ud800 surrogate", "U+D800"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: str, said: str) -> None:
    with pytest.raises(PromptError) as caught:
        check_request(_pocket(prompt=prompt), POCKET)
    assert said in str(caught.value)
    assert caught.value.way_out
    if prompt.strip():
        with pytest.raises(PromptError, match="negative_prompt"):
            check_request(_pocket(negative_prompt=prompt), POCKET)


@pytest.mark.parametrize("prompt", ["a" * MAX_PROMPT_CHARACTERS, "<script>alert(1)</script>", "${7*7}", "二車線の道路"])
def test_odd_text_is_still_a_prompt(prompt: str) -> None:
    check_request(_pocket(prompt=prompt), POCKET)


def test_an_empty_negative_prompt_is_none_at_all() -> None:
    check_request(_pocket(negative_prompt=""), POCKET)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 0),
        ("height", -128),
        ("height", 128.5),
        ("height", 10**9),
        ("width", "wide"),
        ("num_frames", 100_000),
        ("num_inference_steps", 0),
        ("num_inference_steps", 10_000),
        ("guidance_scale", float("nan")),
        ("guidance_scale", -1),
        ("fps", 0),
        ("fps", float("inf")),
        ("flow_shift", 0),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("torch_dtype", "int4"),
        ("offload", "disk"),
        ("prompt", 7),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(request_to_json(_pocket()) | {field: value})
    assert caught.value.field == field
    assert field in str(caught.value)


def test_an_unknown_setting_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match="num_inference_steps") as caught:
        read_request(request_to_json(_pocket()) | {"steps": 30})
    assert caught.value.field == "steps"
    with pytest.raises(RequestError, match="colour"):
        request_for(POCKET, prompt="a road", colour="red")


@pytest.mark.parametrize("written", ["", "{", "[]", "7", "null", b"\xff\xff", "[" * 100_000])
def test_rubbish_settings_are_refused(written: str | bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(written)
    assert caught.value.field == "settings"


def test_a_setting_that_the_model_has_not_is_refused() -> None:
    cog = find_preset("cogvideox-2b")
    with pytest.raises(RequestError, match="no flow_shift"):
        check_request(request_for(cog, prompt="a panda", flow_shift=3.0), cog)
    check_request(request_for(cog, prompt="a panda"), cog)


def test_a_refusal_survives_being_written_and_read() -> None:
    with pytest.raises(GridError) as caught:
        check_request(_pocket(height=130), POCKET)
    again = from_json(json.loads(json.dumps(caught.value.to_json())))
    assert type(again) is GridError
    assert isinstance(again, StudioError)
    assert (str(again), again.field, again.value) == (str(caught.value), "height", 130)


def test_a_cache_travels_in_the_settings_and_back() -> None:
    request = request_for(find_preset("pocket"), prompt="a road", cache={"method": "adacache", "moreg": True})
    assert read_request(request_to_json(request)) == request
    assert request.cache is not None
    assert request.cache.method == "adacache"


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ({"method": "magic"}, "Known caches: adacache"),
        ({"method": "adacache", "speed": 2}, "It has: codebook"),
        ({"method": "easycache", "threshold": -1}, "threshold = '-1' will not do"),
        ({"method": "adacache", "codebook": "custom", "rates": [2, 1]}, "one rate more than thresholds"),
        ("adacache", "not a record"),
    ],
)
def test_a_cache_that_will_not_do_is_refused_in_its_own_words(cache: object, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        request_for(find_preset("pocket"), prompt="a road", cache=cache)
    assert words in str(refused.value)
    assert refused.value.field.startswith("cache")


def test_what_a_family_lacks_is_refused_before_anything_is_begun() -> None:
    hunyuan, allegro = find_preset("hunyuanvideo"), find_preset("allegro")
    with pytest.raises(RequestError, match="no negative prompt") as caught:
        check_request(request_for(hunyuan, prompt="a road", negative_prompt="blurry"), hunyuan)
    assert caught.value.field == "negative_prompt"
    with pytest.raises(RequestError, match="tiles only") as caught:
        check_request(request_for(allegro, prompt="a road", vae_tiling="off"), allegro)
    assert caught.value.field == "vae_tiling"


# -- files that a request refers to -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["source", "control"])
def test_a_file_travels_in_the_settings_by_path_and_checksum(field: str) -> None:
    request = _pocket(**{field: SOURCE})
    again = read_request(json.dumps(request_to_json(request)))
    assert again == request
    assert getattr(again, field) == FileReference(path=Path(SOURCE["path"]), sha256=SOURCE["sha256"])
    assert read_request(request_to_json(_pocket()) | {field: str(getattr(request, field))}) == request


def test_a_request_without_files_is_written_as_before_there_were_any() -> None:
    assert {"source", "control"}.isdisjoint(request_to_json(_pocket()))


@pytest.mark.parametrize("field", ["source", "control"])
@pytest.mark.parametrize("odd", ["a.mp4", {"path": "a.mp4"}, SOURCE | {"sha256": "ABC"}, SOURCE | {"size": 1}, 7])
def test_what_refers_to_no_file_is_refused_by_name(field: str, odd: object) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(request_to_json(_pocket()) | {field: odd})
    assert caught.value.field.partition(".")[0] == field


def test_a_file_is_refused_with_the_way_out_where_a_family_has_no_use_for_it() -> None:
    presets, _ = list_presets()
    for preset in presets:
        for field in ("source", "control"):
            request = request_for(preset, prompt="a road", **{field: SOURCE})
            takes = field in family_of(preset.pipeline).conditions
            assert (why_not_set(field, preset) is None) is takes
            if not takes:
                with pytest.raises(RequestError, match=preset.title) as caught:
                    check_request(request, preset)
                assert (caught.value.field, caught.value.way_out) == (field, f"Leave {field} empty.")


def test_a_family_that_takes_a_file_is_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = replace(family_of(WAN.pipeline), conditions=frozenset({"source"}))
    monkeypatch.setattr("studio.requests.checks.FAMILIES", {WAN.pipeline: takes})
    check_request(request_for(WAN, prompt="a road", source=SOURCE), WAN)
    with pytest.raises(RequestError, match="takes no maps"):
        check_request(request_for(WAN, prompt="a road", control=SOURCE), WAN)


VACE = find_preset("wan2.1-vace-1.3b")


def test_a_request_says_which_maps_and_how_closely_in_words_or_as_a_record() -> None:
    for written in ("lanes:0.7, edges", "edges=1;lane_lines=0.7", {"lanes": 0.7, "edges": 1}):
        request = request_for(VACE, prompt="a road", control=SOURCE, control_strengths=written)
        assert request.control_strengths == {"edges": 1.0, "lane_lines": 0.7}
        assert list(request.control_strengths) == ["edges", "lane_lines"], "in the usual order"
        assert read_request(json.dumps(request_to_json(request))) == request
        check_request(request, VACE)
    assert request_for(VACE, prompt="a road").control_strengths == {}
    for odd in ("edges:2", "edges:-0.1", "edges:much", "borders:1", ["edges"], "edges:nan"):
        with pytest.raises(RequestError) as refused:
            request_for(VACE, prompt="a road", control=SOURCE, control_strengths=odd)
        assert refused.value.field.startswith("control_strengths")


def test_what_says_something_of_maps_or_kept_frames_is_left_out_where_it_says_nothing() -> None:
    named = {"control_strengths", "conditioning_scale", "kept_frames"}
    assert named.isdisjoint(request_to_json(request_for(VACE, prompt="a road", control=SOURCE, source=SOURCE)))
    said = {"control_strengths": "depth:0.5", "conditioning_scale": 0.8, "kept_frames": 5}
    assert named <= request_to_json(request_for(VACE, prompt="a road", control=SOURCE, source=SOURCE, **said)).keys()


@pytest.mark.parametrize(
    ("field", "value", "condition"),
    [("kept_frames", 5, "source"), ("conditioning_scale", 0.5, "control"), ("control_strengths", "edges", "control")],
)
def test_what_is_said_of_a_file_that_is_not_named_is_refused(field: str, value: Any, condition: str) -> None:
    request = request_for(VACE, prompt="a road", **{field: value})
    with pytest.raises(RequestError, match=f"has no {condition}") as refused:
        check_request(request, VACE)
    assert refused.value.field == field
    assert condition in refused.value.way_out
    with pytest.raises(RequestError, match=WAN.title) as refused:
        check_request(request_for(WAN, prompt="a road", **{field: value}), WAN)
    assert refused.value.field == field


def test_a_clip_of_kept_frames_alone_is_refused() -> None:
    request = request_for(VACE, prompt="a road", source=SOURCE, num_frames=5, kept_frames=5)
    with pytest.raises(RequestError, match="none is left") as refused:
        check_request(request, VACE)
    assert refused.value.field == "kept_frames"


def test_a_map_that_a_file_does_not_hold_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    control = file_of_maps(tmp_path / "maps.npz")
    check_files(request_for(VACE, prompt="a road", control=control, control_strengths="edges"))
    with pytest.raises(RequestError, match="no depth") as refused:
        check_files(request_for(VACE, prompt="a road", control=control, control_strengths="edges, depth"))
    assert refused.value.field == "control_strengths"
    assert refused.value.way_out == "It holds: layout, edges, lane_lines."


def test_a_file_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a road.mp4"
    path.write_bytes(b"frames")
    request = _pocket(source=reference_to(path, field="source"))
    check_files(request)
    path.write_bytes(b"other frames")
    with pytest.raises(RequestError, match="not what it was") as caught:
        check_files(request)
    assert caught.value.field == "source"
    path.unlink()
    with pytest.raises(RequestError, match=r"a road\.mp4"):
        check_files(request)
    with pytest.raises(RequestError, match="cannot be read"):
        reference_to(tmp_path, field="source")


def test_what_came_later_is_written_down_only_where_it_was_chosen() -> None:
    plain, chosen = _pocket(), _pocket(compile=True, attention_backend="sage")
    assert not {"compile", "attention_backend", "source", "control"} & request_to_json(plain).keys()
    record = request_to_json(chosen)
    assert (record["compile"], record["attention_backend"]) == (True, "sage")
    assert read_request(record) == chosen


def test_a_cache_that_looks_into_blocks_does_not_go_with_compiled_ones() -> None:
    check_request(_pocket(compile=True, cache={"method": "budget"}), POCKET)
    check_request(_pocket(cache={"method": "pab"}), POCKET)
    for method in ("taylorseer", "pab"):
        with pytest.raises(RequestError, match="one piece") as refused:
            check_request(_pocket(compile=True, cache={"method": method}), POCKET)
        assert refused.value.field == "compile"
