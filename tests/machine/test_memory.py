"""Memory: one arithmetic for the verdict and the placement, on figures that are counted, not guessed."""

import pytest

from studio.machine.memory import OFFLOADS, Need, decodes_in_tiles, need_of
from studio.preset import Preset, find_preset, list_presets

GB = 10**9
CATALOGUE, _ = list_presets()
NEED = Need(transformer=10 * GB, text_encoder=12 * GB, vae=GB, denoise=3 * GB, decode=8 * GB)


def _of(preset: Preset, *, tiled: bool = False, num_frames: int | None = None) -> Need:
    defaults = preset.defaults
    return need_of(
        preset,
        height=defaults.height,
        width=defaults.width,
        num_frames=num_frames or defaults.num_frames,
        dtype="bfloat16",
        vae_dtype="float32",
        tiled=tiled,
    )


@pytest.mark.parametrize("preset", CATALOGUE, ids=lambda preset: preset.name)
def test_each_way_of_offloading_takes_less_than_the_one_before(preset: Preset) -> None:
    taken = [_of(preset, tiled=True).on_accelerator(offload) for offload in OFFLOADS]
    assert taken == sorted(taken, reverse=True)


def test_one_model_at_a_time_is_counted_with_its_own_working_memory() -> None:
    spare = NEED.on_accelerator("none") - NEED.weights - NEED.decode
    assert NEED.on_accelerator("model") - spare == 13 * GB, "the transformer and what denoising takes"


def test_tiles_are_taken_where_they_spare_offloading_or_where_nothing_else_helps() -> None:
    tiled = Need(transformer=10 * GB, text_encoder=12 * GB, vae=GB, denoise=3 * GB, decode=GB)
    assert not decodes_in_tiles(NEED, tiled, 40 * GB), "everything fits whole"
    assert decodes_in_tiles(NEED, tiled, 28 * GB), "without tiles the weights would have to move"
    assert not decodes_in_tiles(NEED, tiled, 20 * GB), "they move anyhow, and whole frames look better"
    assert decodes_in_tiles(NEED, tiled, 8 * GB), "whole frames do not fit even alone"


def test_an_autoencoder_that_decodes_all_frames_at_once_takes_more_for_a_longer_clip() -> None:
    mochi, wan = find_preset("mochi-1"), find_preset("wan2.1-t2v-1.3b")
    frame_bytes = [_of(mochi, num_frames=count).decode // count for count in (7, 79)]
    assert frame_bytes[0] == pytest.approx(frame_bytes[1], rel=0.01)
    assert _of(wan, num_frames=79).decode < 1.5 * _of(wan, num_frames=7).decode
