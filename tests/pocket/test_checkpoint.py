"""The checkpoint in assets/pocket is whole, small, and makes clips through diffusers' own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.pocket.architecture import MAX_SEQUENCE_LENGTH
from studio.pocket.export import (
    CHECKSUMS,
    DamagedCheckpoint,
    load_pipeline,
    token_ids,
    verify_checkpoint,
    weight_files,
    weight_megabytes,
)

FOLDER = Path(__file__).parents[2] / "assets/pocket/driving-t2v"


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(FOLDER)


def test_no_weight_is_missing(pipeline) -> None:
    for part in (pipeline.text_encoder, pipeline.vae, pipeline.transformer):
        assert not any(parameter.is_meta for parameter in part.parameters())
    assert pipeline.text_encoder.get_input_embeddings().weight.abs().sum() > 0


def test_the_denoiser_has_at_least_eight_blocks(pipeline) -> None:
    assert len(pipeline.transformer.blocks) >= 8


def test_the_weights_fit_into_forty_megabytes() -> None:
    assert weight_megabytes(FOLDER) <= 40.0


def test_the_latents_statistics_have_one_number_a_channel(pipeline) -> None:
    config = pipeline.vae.config
    assert len(config.latents_mean) == len(config.latents_std) == config.z_dim
    assert min(config.latents_std) > 0


def test_captions_become_the_golden_token_ids(pipeline) -> None:
    golden = json.loads((FOLDER / CHECKSUMS).read_text())["token_ids"]
    assert golden
    for caption, ids in golden.items():
        assert token_ids(pipeline.tokenizer, caption) == ids


def test_upper_case_and_unknown_letters_are_read(pipeline) -> None:
    assert token_ids(pipeline.tokenizer, "A RED CAR") == token_ids(pipeline.tokenizer, "a red car")
    assert pipeline.tokenizer.unk_token_id not in token_ids(pipeline.tokenizer, "Ein grünes Auto 🚗")


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(FOLDER, copy)
    damaged = weight_files(copy)[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(bytes(content))
    with pytest.raises(DamagedCheckpoint, match=damaged.name):
        verify_checkpoint(copy)


def test_two_steps_make_a_finite_clip_of_the_asked_shape(pipeline) -> None:
    pipeline.set_progress_bar_config(disable=True)
    clip = pipeline(
        "a red car drives ahead on a two-lane road by day",
        num_frames=5,
        height=64,
        width=96,
        num_inference_steps=2,
        guidance_scale=4.0,
        max_sequence_length=MAX_SEQUENCE_LENGTH,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames
    assert clip.shape == (1, 5, 64, 96, 3)
    assert np.isfinite(clip).all()
