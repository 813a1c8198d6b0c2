"""Pace: finished runs teach how long the next one takes, and nothing is claimed before one was measured."""

from pathlib import Path

import pytest

from studio.machine.pace import FILE_NAME, KEPT_PER_KEY, RunPace, add, median_step, predict
from studio.requests.generation import GenerationRequest

VOLUME = 17 * 128 * 128


def _request(**fields: object) -> GenerationRequest:
    return GenerationRequest.model_validate(
        {
            "preset": "pocket",
            "prompt": "a road",
            "height": 128,
            "width": 128,
            "num_frames": 17,
            "fps": 12,
            "num_inference_steps": 30,
            "guidance_scale": 4,
            "seed": 1,
        }
        | fields
    )


def _pace(**fields: object) -> RunPace:
    values: dict[str, object] = {
        "preset": "pocket",
        "device_name": "a processor",
        "torch_dtype": "float32",
        "volume": VOLUME,
        "guided": True,
        "load_seconds": 1.0,
        "encode_seconds": 0.1,
        "step_seconds": 0.2,
        "finish_seconds": 0.5,
    }
    return RunPace(**(values | fields))  # type: ignore[arg-type]


def test_nothing_is_predicted_before_a_run_was_measured(tmp_path: Path) -> None:
    assert predict(_request(), tmp_path) is None
    add(_pace(preset="another"), tmp_path)
    assert predict(_request(), tmp_path) is None


def test_the_same_request_is_predicted_to_take_what_it_took(tmp_path: Path) -> None:
    add(_pace(), tmp_path)
    prediction = predict(_request(), tmp_path)
    assert prediction is not None
    assert prediction.seconds == pytest.approx(0.1 + 30 * 0.2 + 0.5)
    assert prediction.low < prediction.seconds < prediction.high
    assert "1 run measured at this size on a processor" in prediction.basis


def test_steps_and_guidance_scale_the_denoising_alone(tmp_path: Path) -> None:
    add(_pace(), tmp_path)
    half = predict(_request(guidance_scale=1), tmp_path)
    short = predict(_request(num_inference_steps=15), tmp_path)
    assert half is not None
    assert short is not None
    assert half.seconds == pytest.approx(0.1 + 30 * 0.1 + 0.5)
    assert short.seconds == pytest.approx(half.seconds)


def test_a_larger_clip_takes_more_than_its_share_and_is_less_certain(tmp_path: Path) -> None:
    add(_pace(), tmp_path)
    known, doubled = predict(_request(), tmp_path), predict(_request(width=256), tmp_path)
    assert known is not None
    assert doubled is not None
    assert doubled.step_seconds > 2 * known.step_seconds
    assert doubled.finish_seconds == pytest.approx(2 * known.finish_seconds)
    assert doubled.high / doubled.low > known.high / known.low


def test_the_nearest_size_counts_and_the_newest_device(tmp_path: Path) -> None:
    add(_pace(device_name="an old one", step_seconds=9.0), tmp_path)
    add(_pace(volume=VOLUME // 8, step_seconds=0.01), tmp_path)
    add(_pace(), tmp_path)
    prediction = predict(_request(), tmp_path)
    assert prediction is not None
    assert prediction.step_seconds == pytest.approx(0.2)
    old = predict(_request(), tmp_path, device_name="an old one")
    assert old is not None
    assert old.step_seconds == pytest.approx(9.0)


def test_old_measurements_make_room(tmp_path: Path) -> None:
    for step in range(KEPT_PER_KEY + 5):
        add(_pace(step_seconds=float(step)), tmp_path)
    prediction = predict(_request(), tmp_path)
    assert prediction is not None
    assert prediction.basis.startswith(f"{KEPT_PER_KEY} runs")


@pytest.mark.parametrize("damage", ["", "{", '[{"preset": 1}]', "null"])
def test_a_damaged_file_is_started_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE_NAME).write_text(damage)
    assert predict(_request(), tmp_path) is None
    add(_pace(), tmp_path)
    assert predict(_request(), tmp_path) is not None


def test_the_first_step_is_left_out_for_its_one_off_costs() -> None:
    assert median_step([9.0, 1.0, 2.0, 3.0]) == 2.0
    assert median_step([9.0]) == 9.0
