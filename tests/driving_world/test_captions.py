"""A caption names what is there, and nothing that is not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from studio.driving_world import attributes, caption, render_with_maps, sample_scene

TIME_WORDS = {"day": r"\bday|daylight|daytime", "dusk": r"dusk|sunset", "night": r"night|dark"}
WEATHER_WORDS = {"clear": "clear", "rain": "rain", "fog": "fog", "snow": "snow"}
LANE_WORDS = {2: "two", 3: "three", 4: "four"}
DOES = {
    "drives ahead": "ahead|in front|leads the way",
    "brakes": "brak",
    "pulls away": "pull(s|ing) away",
    "overtakes": "overtak",
    "approaches": "approach|towards us",
    "crosses": "cross(es|ing)",
    "turns": "turn(s|ing) (left|right)",
}


def test_a_caption_names_the_main_vehicle_what_it_does_the_hour_the_weather_and_the_lanes() -> None:
    for seed in range(300):
        scene = sample_scene(seed)
        labels, words = attributes(scene), caption(scene)
        assert f"{labels['vehicle_colour']} {labels['vehicle_type']}" in words.lower()
        for pattern in (
            TIME_WORDS[scene.time_of_day],
            WEATHER_WORDS[scene.weather],
            rf"{LANE_WORDS[scene.lanes]}(-lane| lanes)",
            DOES[scene.vehicle_action],
        ):
            assert re.search(pattern, words.lower()), (pattern, words)


def test_a_caption_names_no_other_hour_or_weather() -> None:
    for seed in range(300):
        scene = sample_scene(seed)
        words = caption(scene).lower()
        for other in set(WEATHER_WORDS) - {scene.weather}:
            assert WEATHER_WORDS[other] not in words, words
        for other in set(TIME_WORDS) - {scene.time_of_day}:
            assert not re.search(TIME_WORDS[other], words), words


def test_a_bend_is_named_with_its_side() -> None:
    for side in ("left", "right"):
        for seed in range(20):
            scene = sample_scene(seed, road=f"{side} curve", vehicle_action="brakes")
            assert re.search(rf"(curving to the|bends to the|in a) {side}", caption(scene)), caption(scene)


def test_captions_have_8_to_35_words() -> None:
    lengths = [len(caption(sample_scene(seed), variant=variant).split()) for seed in range(120) for variant in range(2)]
    assert min(lengths) >= 8
    assert max(lengths) <= 35


def test_english_varies_and_a_variant_is_another_wording() -> None:
    scene = sample_scene(12)
    assert len({caption(scene, variant=variant) for variant in range(20)}) > 10
    assert caption(scene, variant=3) == caption(scene, variant=3)
    assert len({caption(sample_scene(seed)).split()[0] for seed in range(100)}) > 6


@pytest.mark.parametrize(
    ("word", "label"), [("pedestrian", "pedestrian"), ("traffic light", "traffic_light"), ("trees", "tree")]
)
def test_what_a_caption_names_besides_is_in_the_picture(word: str, label: str) -> None:
    named = 0
    for seed in range(60):
        scene = sample_scene(seed, weather="clear")
        if word not in caption(scene):
            continue
        named += 1
        _, maps = render_with_maps(scene, num_frames=9, fps=6)
        assert maps.semantic is not None
        shown = (maps.semantic == maps.semantic_labels.index(label)).sum(axis=(1, 2)) >= 6
        assert np.mean(shown) >= 0.3, (seed, caption(scene))
        if named == 3:
            break
    assert named >= 2


def test_the_traffic_light_has_the_colour_that_the_caption_names() -> None:
    checked = set()
    for seed in range(80):
        scene = sample_scene(seed, road="junction", time_of_day="day", weather="clear")
        match = re.search("traffic light is (red|green)", caption(scene))
        if match is None or match[1] in checked:
            continue
        checked.add(match[1])
        clip, maps = render_with_maps(scene, num_frames=1, height=256, width=256)
        assert maps.semantic is not None
        lamps = clip.frames[0][maps.semantic[0] == maps.semantic_labels.index("traffic_light")].astype(int)
        redder = (lamps[:, 0] - lamps[:, 1]).max() > 120
        greener = (lamps[:, 1] - lamps[:, 0]).max() > 120
        assert (redder, greener) == (match[1] == "red", match[1] == "green")
    assert checked == {"red", "green"}
