"""The form: what is typed becomes a request, and whatever is wrong names the control it is wrong in."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from support.page_values import typed

from studio.errors import PresetError, RequestError, StudioError, WeightsMissing
from studio.family import family_of
from studio.preset import Preset, find_preset, list_presets
from studio.requests.caches import METHODS
from studio.requests.checks import LACKING, why_not_set
from studio.requests.generation import MAX_SEED, GenerationRequest, read_request, request_for
from studio.ui.forms.caches import FIRST, RIVALS, about, rivals
from studio.ui.forms.generation import INFOS, Form, label_of


def placed(presets: list[Preset] | None = None) -> Form:
    """A form as the page lays it out."""
    form = Form(list_presets()[0] if presets is None else presets)
    with gr.Blocks():
        form.place_prompt()
        form.place_negative_prompt()
        form.place_preset()
        form.place_adapter()
        form.place_numbers()
        form.place_cache()
        form.place_advanced()
        form.place_conditions()
    return form


@pytest.fixture(scope="module")
def form() -> Form:
    return placed()


def test_every_field_of_a_request_has_a_control_with_a_label(form: Form) -> None:
    assert {*form.controls, "cache"} == set(GenerationRequest.model_fields)
    assert form.inputs == {*form.controls.values(), *form.cache.inputs}
    assert all(control.label and control.elem_id for control in form.inputs)


def test_what_is_typed_becomes_the_request(form: Form) -> None:
    request, preset = form.request_of(typed(form))
    assert (request.prompt, request.num_inference_steps, request.seed) == ("a red car", 6, 7)
    assert preset.name == "pocket"


CACHES: list[Any] = [
    None,
    {"method": "adacache"},
    {"method": "adacache", "moreg": True, "codebook": "slow", "metric_layers": [2, 5], "moreg_window": [0.1, 0.5]},
    {"method": "budget", "speedup": 3, "extrapolate": False},
    {"method": "easycache", "threshold": 0.2},
    {"method": "seacache", "residual_order": 0},
    {"method": "taylorseer", "cache_interval": 4},
    {"method": "pab", "timestep_range": [200, 700]},
]


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: str(cache and cache["method"]))
def test_a_request_shown_in_the_form_comes_back_the_same(form: Form, cache: Any) -> None:
    request, _ = form.request_of(typed(form, seed="4294967295", flow_shift=None, negative_prompt="blur"))
    files = {"source": f"{'0' * 64}  /clips/a road.mp4", "control": f"{'f' * 64}  /maps/a road.npz"}
    request = read_request(request.model_dump() | {"cache": cache} | files)
    assert form.read(shown_values(form, form.shows(request))) == request


def shown_values(form: Form, updates: dict[Any, Any]) -> dict[Any, Any]:
    """What the form's controls say once they are updated."""
    shown = {control: updates[control] for control in form.inputs}
    return {control: update["value"] if isinstance(update, dict) else update for control, update in shown.items()}


def test_every_method_has_a_choice_a_line_about_it_and_settings_with_labels(form: Form) -> None:
    assert {*FIRST, *RIVALS} == {"adacache:moreg=true", *METHODS}
    assert {method for _, method in rivals("WanPipeline")} == set(RIVALS)
    assert all(about(method, "LattePipeline")["words"] for method in METHODS)
    settings = [control for each in form.cache.settings.values() for control in each.by_field.values()]
    assert all(control.label and control.info and control.elem_id for control in settings)
    assert any("not with this model" in title for title, _ in rivals("LattePipeline"))


def test_a_setting_that_is_no_number_is_refused_beside_the_cache(form: Form) -> None:
    layers = form.cache.settings["adacache"].by_field["metric_layers"]
    with pytest.raises(RequestError) as refused:
        form.request_of(typed(form) | {form.cache.choice: "adacache", layers: "middle"})
    assert label_of(refused.value) == "Cache"


@pytest.mark.parametrize("seed", ["", "  ", None])
def test_an_empty_seed_is_a_new_one_each_time(form: Form, seed: Any) -> None:
    assert len({form.read(typed(form, seed=seed)).seed for _ in range(4)}) > 1


@pytest.mark.parametrize("seed", ["-1", "1.5", "seven", str(MAX_SEED + 1), "²"])
def test_what_is_no_seed_is_refused_by_name(form: Form, seed: str) -> None:
    with pytest.raises(RequestError) as caught:
        form.request_of(typed(form, seed=seed))
    assert label_of(caught.value) == "Seed"


@pytest.mark.parametrize(
    ("changes", "label", "words"),
    [
        ({"prompt": ""}, "Prompt", "empty"),
        ({"prompt": None}, "Prompt", ""),
        ({"prompt": "x" * 10_000}, "Prompt", "10,000"),
        ({"negative_prompt": "\x00"}, "Negative prompt", "U+0000"),
        ({"width": 130}, "Width", "128 and 144"),
        ({"height": 100_000}, "Height", ""),
        ({"height": 128.5}, "Height", ""),
        ({"width": None}, "Width", "empty"),
        ({"num_frames": 16}, "Frames", "13 and 17"),
        ({"num_inference_steps": 0}, "Steps", ""),
        ({"guidance_scale": -1}, "Guidance", ""),
        ({"guidance_scale": float("nan")}, "Guidance", ""),
        ({"fps": 0}, "Frames a second", ""),
        ({"preset": "nobody"}, "Preset", "Choose one of"),
        ({"preset": "../pocket"}, "Preset", "Choose one of"),
        ({"preset": None}, "Preset", "empty"),
        ({"torch_dtype": "int4"}, "Number format", ""),
        ({"offload": ["none"]}, "Offload", ""),
    ],
)
def test_whatever_is_wrong_names_its_control(form: Form, changes: dict[str, Any], label: str, words: str) -> None:
    with pytest.raises(StudioError) as caught:
        form.request_of(typed(form, **changes))
    assert label_of(caught.value) == label
    assert words in str(caught.value)


def test_a_form_without_a_prompt_can_still_be_asked_how_long_it_takes(form: Form) -> None:
    request, _ = form.request_of(typed(form, prompt=""), prompt="anything")
    assert request.prompt == "anything"


def test_faults_of_presets_and_weights_point_at_the_preset() -> None:
    assert label_of(PresetError("x")) == "Preset"
    assert label_of(WeightsMissing("x", field="weights")) == "Preset"


# -- what a preset has no use for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", list_presets()[0], ids=lambda preset: preset.name)
def test_a_control_that_a_preset_has_no_use_for_is_greyed_and_says_why(form: Form, preset: Preset) -> None:
    chosen = form.starts_from(preset)
    opened = placed([preset])
    assert set(INFOS) == set(LACKING)
    for field in LACKING:
        reason = why_not_set(field, preset)
        update, fresh = chosen[form.controls[field]], opened.controls[field]
        assert update["interactive"] is fresh.interactive is (reason is None)
        assert update["info"] == fresh.info == (f"{preset.title} {reason}" if reason else INFOS[field])
        if field in ("source", "control"):
            assert update["visible"] is fresh.visible is (reason is None)
    for method, settings in form.cache.settings.items():
        works = family_of(preset.pipeline).why_not_cached(method) is None
        assert {chosen[control]["interactive"] for control in settings.by_field.values()} == {works}
        assert {control.interactive for control in opened.cache.settings[method].by_field.values()} == {works}


def test_what_is_greyed_holds_nothing_that_would_be_refused(form: Form) -> None:
    typed_before = typed(form, negative_prompt="blur", vae_tiling="off", prompt="a road")
    for preset in list_presets()[0]:
        values = typed_before | {form.preset: preset.name}
        for control, update in form.starts_from(preset).items():
            changed = update.get("value", values.get(control)) if isinstance(update, dict) else update
            values[control] = changed
        request, _ = form.request_of(values)
        assert request.negative_prompt == preset.defaults.negative_prompt
        assert request.vae_tiling == ("off" if why_not_set("vae_tiling", preset) is None else "auto")


def test_a_setting_that_was_restored_onto_a_preset_without_a_use_for_it_can_be_removed(form: Form) -> None:
    hunyuan = find_preset("hunyuanvideo")
    request = request_for(hunyuan, prompt="a road", negative_prompt="blurry")
    shown = form.shows(request)[form.controls["negative_prompt"]]
    assert (shown["value"], shown["interactive"]) == ("blurry", True)
    assert "no negative prompt" in shown["info"]
    emptied = form.shows(request.model_copy(update={"negative_prompt": ""}))[form.controls["negative_prompt"]]
    assert emptied["interactive"] is False


@pytest.mark.parametrize(("field", "label"), [("source", "Source"), ("control", "Control")])
def test_a_file_that_no_preset_has_a_use_for_is_refused_beside_its_control_and_can_be_removed(
    form: Form, field: str, label: str
) -> None:
    for line, words in ((f"{'0' * 64}  /clips/a.mp4", "Leave"), ("a.mp4", "")):
        with pytest.raises(RequestError, match=words) as caught:
            form.request_of(typed(form, **{field: line}))
        assert label_of(caught.value) == label
    assert getattr(form.request_of(typed(form, **{field: ""}))[0], field) is None
