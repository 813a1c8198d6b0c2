"""The pocket driver: grown from the text-to-video pocket and still that model, told its maps without loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.clips.control_maps import Box, ControlMaps
from studio.driving_world import caption, render_with_maps, sample_scene
from studio.pipelines.driver import CHANNELS, CONTROL_CHANNELS, GROUPS, channels_of, planes_of
from studio.pipelines.driver.planes import CELL, FOLDINGS, FRAMES, folded
from studio.pocket.driver import train
from studio.pocket.driver.data import FIRST_SEED, with_layout
from studio.pocket.driver.export import SHARDS
from studio.storage import sha256_of

BASE = train.BASE
SHIPPED = BASE.parent / "driver"


@pytest.fixture(scope="module")
def maps() -> ControlMaps:
    clip, maps = render_with_maps(sample_scene(41), height=64, width=96, num_frames=9)
    return with_layout(maps, clip.frames)


# planes


@pytest.mark.parametrize("name", ["edges", "lane_lines"])
def test_lines_are_told_to_the_pixel(maps: ControlMaps, name: Any) -> None:
    planes = planes_of(maps)[channels_of(name)][:-1]
    t, h, w = planes.shape[1:]
    back = planes.reshape(FRAMES, CELL, CELL, t, h, w).transpose(3, 0, 4, 1, 5, 2).reshape(t * FRAMES, h * CELL, -1)
    assert np.array_equal(back[FRAMES - 1 :] > 0.5, getattr(maps, name) > 0)


def test_the_first_frame_stands_alone_and_each_later_latent_frame_for_four() -> None:
    values = np.arange(9, dtype=np.float32)[:, None, None, None] * np.ones((1, 8, 8, 1), np.float32)
    assert folded(values, 1)[:, :, 0, 0].T.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_map_counts_as_much_as_it_is_told_to_and_one_of_no_strength_is_as_none(maps: ControlMaps) -> None:
    full = planes_of(maps)
    half = planes_of(maps, {"edges": 0.5, "depth": 0.0})
    assert np.allclose(half[channels_of("edges")], 0.5 * full[channels_of("edges")])
    assert not half[channels_of("depth")].any()
    assert np.array_equal(half[channels_of("depth")], planes_of(replace(maps, depth=None))[channels_of("depth")])
    assert np.array_equal(half[channels_of("boxes")], full[channels_of("boxes")])


def test_what_is_not_known_is_told_as_nothing_and_all_values_are_within_one(maps: ControlMaps) -> None:
    assert maps.depth is not None
    assert maps.optical_flow is not None
    unknown = replace(
        maps,
        depth=np.full_like(maps.depth, np.nan),
        optical_flow=maps.optical_flow * 1000,
        optical_flow_known=np.zeros(maps.optical_flow.shape[:3], bool),
    )
    planes = planes_of(unknown)
    assert not planes[channels_of("depth")][:-1].any()
    assert not planes[channels_of("optical_flow")][:-1].any()
    assert np.isfinite(planes).all()
    assert np.abs(planes_of(maps)).max() <= 1


def test_every_class_of_the_world_is_in_one_group_and_those_of_a_clip_are_known(maps: ControlMaps) -> None:
    for label in maps.semantic_labels:
        assert sum(label in members for members in GROUPS.values()) == 1, label
    seen = ControlMaps(semantic=np.full((5, 8, 8), 2, np.uint8), semantic_labels=("other", "road", "sky"))
    at = channels_of("semantic")
    of_group = FOLDINGS["semantic"].places ** 2 * FRAMES
    sky = list(GROUPS).index("sky") * of_group
    planes = planes_of(seen)[at]
    assert (planes[sky : sky + of_group] == 1).all()
    assert planes[:-1].sum() == planes[sky : sky + of_group].sum()


def test_only_what_moves_by_itself_is_told_by_its_box() -> None:
    boxes = tuple((Box(instance_id=1, label=label, left=0, top=0, right=8, bottom=8),) for label in ("car",) * 5)
    edges = np.zeros((5, 16, 16), np.uint8)
    told = planes_of(ControlMaps(edges=edges, boxes=boxes))[channels_of("boxes")]
    assert (told[:-1, :, 0, 0] == 1).all()
    assert not told[:-1, :, 1, 1].any()
    signs = tuple((replace(each[0], label="sign"),) for each in boxes)
    assert not planes_of(ControlMaps(edges=edges, boxes=signs))[channels_of("boxes")][:-1].any()


@pytest.mark.parametrize("shape", [(8, 64, 64), (9, 60, 64)])
def test_maps_that_are_off_the_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="4k \\+ 1 frames"):
        planes_of(ControlMaps(edges=np.zeros(shape, np.uint8)))


# what is grown


@pytest.fixture(scope="module")
def base() -> Any:
    from studio.pocket.export import load_pipeline

    return load_pipeline(BASE)


def test_before_training_it_is_bit_for_bit_the_model_that_it_was_grown_from(base: Any) -> None:
    import torch

    from studio.pocket.driver.architecture import grow

    driver = grow(base.transformer)
    noisy, words, timestep = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 64, 192), torch.tensor([500.0])
    control = torch.randn(1, CONTROL_CHANNELS, 2, 8, 8)
    with torch.no_grad():
        before = base.transformer(noisy, timestep, words, return_dict=False)[0]
        after = driver(noisy, timestep, words, control_hidden_states=control, return_dict=False)[0]
    assert torch.equal(before, after)


def test_its_twin_computes_what_the_class_computes(base: Any) -> None:
    import torch

    from studio.pocket import denoiser_twin
    from studio.pocket.driver.architecture import grow

    torch.manual_seed(0)
    driver = grow(base.transformer)
    with torch.no_grad():
        for parameter in driver.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        noisy, words = torch.randn(2, 16, 2, 8, 8), torch.randn(2, 64, 192)
        timestep, control = torch.tensor([500.0, 300.0]), torch.randn(2, CONTROL_CHANNELS, 2, 8, 8)
        scale = torch.full((4,), 0.7)
        given = {"control_hidden_states": control, "control_hidden_states_scale": scale}
        wanted = driver(noisy, timestep, words, return_dict=False, **given)[0]
        found = denoiser_twin.velocity(driver, noisy, timestep, words, control=control, control_scale=0.7)
        free = denoiser_twin.velocity(driver, noisy, timestep, words, control=control, control_scale=0.0)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(free, wanted, atol=1e-2), "control counts for something"


# the recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage, at a size at which nothing is learnt."""
    folder = tmp_path_factory.mktemp("driver")
    amounts = train.Amounts(worlds=2, steps=2, batch=2, watched=1, compiled=False)
    train.train("all", folder, amounts=amounts, device="cpu", on_event=lambda event: None)
    return folder


@pytest.mark.thorough
def test_every_stage_runs_and_the_control_blocks_alone_have_learnt(trained: Path, base: Any) -> None:
    import torch

    from studio.pocket.driver.architecture import grow, is_control

    learnt = torch.load(trained / train.STATE, weights_only=True)
    before = grow(base.transformer).state_dict()
    for name, tensor in learnt.items():
        if not is_control(name):
            assert torch.equal(tensor, before[name]), name
    assert learnt["vace_blocks.0.proj_out.weight"].abs().sum() > 0
    assert (trained / "sheets/control.png").is_file()


@pytest.mark.thorough
def test_what_is_exported_is_what_was_learnt_and_shares_its_files(trained: Path) -> None:
    check_shared(trained / "export")


def test_what_it_shares_with_the_text_to_video_pocket_is_the_same_to_the_byte() -> None:
    check_shared(SHIPPED)


def check_shared(folder: Path) -> None:
    pairs = {
        "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors": "text_encoder/model.safetensors",
        f"transformer/{SHARDS[0]}": "transformer/diffusion_pytorch_model.safetensors",
    }
    for mine, its in pairs.items():
        assert sha256_of(folder / mine) == sha256_of(BASE / its), mine
    sums = json.loads((folder / "checksums.json").read_text())["sha256"]
    assert sums == {name: sha256_of(folder / name) for name in sums}
    assert len(sums) == 4
    assert (folder / "transformer" / SHARDS[1]).stat().st_size < 16e6


@pytest.fixture(scope="module")
def pipe() -> Any:
    import torch

    from studio.pipelines.driver import DrivingPipeline

    pipe = DrivingPipeline.from_pretrained(SHIPPED, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def made(pipe: Any, **how: Any) -> Any:
    import torch

    asked: dict[str, Any] = {
        "height": 64,
        "width": 96,
        "num_frames": 9,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
    }
    generator = torch.Generator().manual_seed(3)
    return pipe("a road", generator=generator, max_sequence_length=64, **{"output_type": "latent"} | asked | how)


def test_maps_change_the_clip_and_at_strength_nothing_it_is_the_free_one_bit_for_bit(
    pipe: Any, maps: ControlMaps
) -> None:
    import torch

    planes = torch.from_numpy(planes_of(maps))
    free = made(pipe).frames
    assert not torch.allclose(made(pipe, planes=planes).frames, free, atol=1e-3)
    assert torch.equal(made(pipe, planes=planes, conditioning_scale=0.0).frames, free)
    assert torch.equal(made(pipe).frames, free), "nothing of a run stays behind"


def test_a_kept_frame_comes_out_as_it_was_given_and_the_callback_still_hears(pipe: Any) -> None:
    import torch

    kept, heard = torch.randn(1, 16, 1, 8, 12), []

    def hear(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        heard.append(step)
        return {}

    latents = made(pipe, kept=kept, callback_on_step_end=hear).frames
    assert torch.equal(latents[:, :, :1], kept)
    assert heard == [0, 1]


@pytest.mark.parametrize(
    "wrong", [{"planes": (CHANNELS, 2, 8, 8)}, {"planes": (CHANNELS - 1, 3, 8, 12)}, {"kept": (1, 16, 4, 8, 12)}]
)
def test_control_of_another_size_is_refused_before_anything_is_computed(pipe: Any, wrong: dict[str, Any]) -> None:
    import torch

    (name, shape), *_ = wrong.items()
    with pytest.raises(ValueError, match="do not fit"):
        made(pipe, **{name: torch.zeros(shape)})


def test_no_held_out_world_is_learnt_from() -> None:
    from studio.pocket.driver.data import store_examples

    assert FIRST_SEED > 10_000
    with pytest.raises(ValueError, match="held out"):
        next(store_examples(Path("nowhere"), clips=1, sizes=None, encode=None, first_seed=5))  # type: ignore[arg-type]


def test_what_ships_follows_maps_and_draws_what_the_prompt_says(pipe: Any) -> None:
    import torch

    from studio.pocket.architecture import FPS
    from studio.pocket.driver.watch import edges_kept

    scene = sample_scene(9_500, time_of_day="day", weather="clear")
    clip, maps = render_with_maps(scene, height=128, width=128, num_frames=9, fps=FPS)
    planes = torch.from_numpy(planes_of(with_layout(maps, clip.frames)))
    asked: dict[str, Any] = {
        "height": 128,
        "width": 128,
        "num_frames": 9,
        "num_inference_steps": 8,
        "guidance_scale": 3.0,
        "max_sequence_length": 64,
        "output_type": "np",
    }

    def made(words: str, **how: Any) -> np.ndarray:
        frames = pipe(words, generator=torch.Generator().manual_seed(0), **asked, **how).frames[0]
        return (frames * 255).round().astype(np.uint8)

    held, free = made(clip.caption, planes=planes), made(clip.caption)
    assert edges_kept([clip.frames], [held]) > edges_kept([clip.frames], [free]) + 0.1
    night = made(caption(sample_scene(9_500, time_of_day="night", weather="clear")), planes=planes)
    assert night.mean() < 0.8 * held.mean()
