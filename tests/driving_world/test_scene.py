"""A seed is a scene: the same one everywhere, of every kind that was asked for."""

from __future__ import annotations

import pytest

from studio.driving_world import (
    LANE_COUNTS,
    ROADS,
    TIMES_OF_DAY,
    VEHICLE_ACTIONS,
    VEHICLE_COLOURS,
    VEHICLE_TYPES,
    WEATHERS,
    attributes,
    sample_scene,
)


def test_every_word_of_the_vocabulary_is_drawn_by_some_seed() -> None:
    drawn = [attributes(sample_scene(seed)) for seed in range(400)]
    for field, words in (
        ("time_of_day", TIMES_OF_DAY),
        ("weather", WEATHERS),
        ("lanes", LANE_COUNTS),
        ("road", ROADS),
        ("vehicle_type", VEHICLE_TYPES),
        ("vehicle_colour", VEHICLE_COLOURS),
        ("vehicle_action", VEHICLE_ACTIONS),
    ):
        assert {labels[field] for labels in drawn} == set(words), field


def test_the_held_out_style_is_never_drawn_unless_asked_for() -> None:
    assert {sample_scene(seed).style for seed in range(400)} == {"default"}
    assert {sample_scene(seed).setting for seed in range(400)} == {"city", "suburb", "countryside"}
    assert attributes(sample_scene(3, style="desert"))["setting"] == "desert"


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_what_is_asked_for_is_given(seed: int) -> None:
    for time_of_day in TIMES_OF_DAY:
        for weather in WEATHERS:
            scene = sample_scene(
                seed, time_of_day=time_of_day, weather=weather, lanes=3, vehicle_type="bus", vehicle_colour="green"
            )
            labels = attributes(scene)
            assert (labels["time_of_day"], labels["weather"]) == (time_of_day, weather)
            assert (labels["lanes"], labels["vehicle_type"], labels["vehicle_colour"]) == (3, "bus", "green")


def test_forcing_one_word_leaves_the_others_to_the_seed() -> None:
    for seed in range(40):
        free, forced = attributes(sample_scene(seed)), attributes(sample_scene(seed, weather="fog"))
        assert {**free, "weather": "fog"} == forced


def test_no_other_vehicle_has_the_colour_of_the_main_one() -> None:
    for seed in range(200):
        main, *others = sample_scene(seed).vehicles
        assert main.colour not in {other.colour for other in others}


def test_an_unknown_word_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match="weather must be one of clear, rain, fog, snow, not 'hail'"):
        sample_scene(1, weather="hail")
    with pytest.raises(ValueError, match="seed must be from 0 to 4294967295, not -1"):
        sample_scene(-1)
    with pytest.raises(ValueError, match="'crosses' does not happen on road 'straight'"):
        sample_scene(1, vehicle_action="crosses", road="straight")
