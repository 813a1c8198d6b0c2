"""Held to maps: what a clip keeps to is fitted, painted, weighed and counted, and what it starts from is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from PIL import Image
from support.cached_runs import loading
from support.device import DEVICE
from support.maps import file_of_maps
from support.tiny_checkpoints import preset_for, save, write_preset

from studio import pipelines
from studio.clips.clip import Clip
from studio.clips.map_files import read_maps
from studio.clips.reference import reference_to
from studio.clips.write import write_clip
from studio.control_maps import painted, write_control_video
from studio.errors import ClipRefused, RequestError
from studio.events import Notice, RunFinished, RunStarted
from studio.generate import generate
from studio.machine.hardware import measure
from studio.pipelines import LoadedPipeline, conditions_of
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, request_for

NAMES = ("wan-vace", "wan-vace-two-experts")
STEPS = 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held")


@pytest.fixture(scope="module")
def load(base: Path) -> Iterator[Callable[..., tuple[LoadedPipeline, GenerationRequest]]]:
    with loading(base, STEPS) as load:
        yield load


def frames_of(ready: LoadedPipeline, request: GenerationRequest) -> np.ndarray:
    generator = torch.Generator().manual_seed(request.seed)
    return ready.run(request, generator=generator, on_step=lambda state: None, interrupted=lambda: False)


def asked_of(ready: LoadedPipeline, request: GenerationRequest) -> dict[str, Any]:
    """What the pipeline's call is told of maps and of frames that are kept."""
    return ready.model.conditioned(request, conditions_of(request))


def small_clip(path: Path, num_frames: int = 7, side: int = 32, fps: float = 8.0) -> Path:
    frames = np.zeros((num_frames, side, side, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:] = 30 * number
    write_clip(Clip(frames=frames, fps=fps), path)
    return path


# -- maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_followed_and_strength_0_is_no_maps_bit_for_bit(name: str, load: Any) -> None:
    ready, request = load(name)
    free = frames_of(ready, request.model_copy(update={"control": None}))
    clips = {}
    for scale in (0.0, 0.3, 1.0):
        clips[scale] = frames_of(ready, request.model_copy(update={"conditioning_scale": scale}))
    assert np.array_equal(clips[0.0], free)
    assert not np.array_equal(clips[0.3], free)
    assert not np.array_equal(clips[1.0], clips[0.3])
    none = dict.fromkeys(("edges", "lane_lines", "layout"), 0.0)
    assert np.array_equal(frames_of(ready, request.model_copy(update={"control_strengths": none})), free)
    edges = [request.model_copy(update={"control_strengths": each}) for each in ({"edges": 1.0}, {"edges": 0.3})]
    alone, faint = (frames_of(ready, each) for each in edges)
    assert len({each.tobytes() for each in (alone, faint, clips[1.0], free)}) == 4


def test_without_maps_it_is_wan_bit_for_bit(load: Any) -> None:
    ready, request = load("wan-vace", control=None)
    vace: Any = ready.transformers[0]
    wan = WanTransformer3DModel.from_config({k: v for k, v in vace.config.items() if not k.startswith("vace")})
    missing, _ = wan.load_state_dict(vace.state_dict(), strict=False)
    assert not missing
    plain = WanPipeline(
        **{name: getattr(ready.pipe, name) for name in ("tokenizer", "text_encoder", "vae", "scheduler")},
        transformer=wan.eval(),
    )
    plain.set_progress_bar_config(disable=True)
    ours = frames_of(ready, request)
    call = {name: value for name, value in ready.model.arguments(request).items()}
    generator = torch.Generator().manual_seed(request.seed)
    theirs = plain(**call, generator=generator, output_type="np").frames[0]
    assert np.array_equal(ours, np.rint(np.asarray(theirs) * 255).astype(np.uint8))


def test_what_the_pipeline_counts_wrong_is_mended_after_each_load(base: Path, load: Any) -> None:
    for _ in range(2):
        pipelines.unload()
        ready, _ = load("wan-vace")
        pipe: Any = ready.pipe
        assert (pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal) == (8, 4)
        assert pipe.video_processor.config.vae_scale_factor == 8
    assert 2 ** len(ready.pipe.vae.temperal_downsample) == 4, "diffusers would have counted right, so nothing is shown"


def test_one_map_is_its_own_painting_and_its_strength_is_that_of_the_hints(load: Any) -> None:
    ready, request = load("wan-vace")
    request = request.model_copy(update={"control_strengths": {"edges": 0.4}, "conditioning_scale": 0.5})
    asked = asked_of(ready, request)
    edges = painted(read_maps(request.control.path), "edges")
    assert np.array_equal(np.stack([np.asarray(frame) for frame in asked["video"]]), edges)
    assert all(np.asarray(frame).min() == 255 for frame in asked["mask"])
    assert torch.allclose(asked["conditioning_scale"], torch.tensor([0.2, 0.2]))


def test_several_maps_are_painted_into_one_by_their_strengths(load: Any) -> None:
    ready, request = load("wan-vace")
    strengths = {"edges": 0.8, "lane_lines": 0.4, "layout": 0.8}
    asked = asked_of(ready, request.model_copy(update={"control_strengths": strengths}))
    maps = read_maps(request.control.path)
    edges, lanes, layout = (painted(maps, name) for name in ("edges", "lane_lines", "layout"))
    video = np.stack([np.asarray(frame) for frame in asked["video"]])
    assert (video[edges > 0] >= 127).all()
    plain = (edges == 0) & (lanes == 0)
    assert np.array_equal(video[plain], layout[plain])
    lane = (lanes > 0) & (edges == 0)
    assert np.abs(video[lane] - (layout[lane] / 2 + 127.5)).max() <= 1
    assert torch.allclose(asked["conditioning_scale"], torch.tensor([0.8, 0.8]))


@pytest.mark.parametrize(
    ("size", "said"), [((48, 64, 12), ("Cropped", "Scaled", "first 9")), ((16, 16, 4), ("Scaled", "Only 4 of 9"))]
)
def test_maps_of_another_size_and_length_are_fitted_exactly_and_it_is_said(
    size: tuple[int, int, int], said: tuple[str, ...], tmp_path: Path, load: Any
) -> None:
    ready, request = load("wan-vace")
    height, width, num_frames = size
    control = file_of_maps(tmp_path / "maps.npz", height=height, width=width, num_frames=num_frames)
    request = request.model_copy(update={"control": control})
    conditions = conditions_of(request)
    assert conditions.maps is not None
    assert (conditions.maps.size, conditions.maps.num_frames) == ((32, 32), 9)
    text = " ".join(conditions.notices).lower()
    assert all(words.lower() in text for words in said)
    assert frames_of(ready, request).shape == (9, 32, 32, 3)


def test_a_control_video_is_followed_as_the_map_that_it_shows(tmp_path: Path, load: Any) -> None:
    ready, request = load("wan-vace", control_strengths={"edges": 1.0})
    write_control_video(read_maps(request.control.path), "edges", tmp_path / "edges.mp4")
    film = request.model_copy(update={"control": reference_to(tmp_path / "edges.mp4", field="control")})
    ours, theirs = asked_of(ready, request)["video"], asked_of(ready, film)["video"]
    assert np.mean([np.asarray(a) != np.asarray(b) for a, b in zip(ours, theirs, strict=True)]) < 0.01
    with pytest.raises(RequestError, match="no depth") as refused:
        conditions_of(film.model_copy(update={"control_strengths": {"depth": 1.0}}))
    assert (refused.value.field, refused.value.way_out) == ("control_strengths", "It holds: edges.")


def test_boxes_of_a_picture_of_no_size_are_refused(tmp_path: Path, load: Any) -> None:
    _, request = load("wan-vace")
    nothing = {"edges": None, "lane_lines": None, "layout": None}
    control = file_of_maps(tmp_path / "boxes.npz", **nothing, boxes=((),) * 9)
    with pytest.raises(RequestError, match="which size") as refused:
        conditions_of(request.model_copy(update={"control": control}))
    assert "layout" in refused.value.way_out


# -- frames that are kept ---------------------------------------------------------------------------------------------


def test_a_picture_is_the_first_frame_and_the_mask_keeps_it(tmp_path: Path, load: Any) -> None:
    ready, request = load("wan-vace")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "first.png")
    begun = request.model_copy(update={"source": reference_to(tmp_path / "first.png", field="source")})
    asked = asked_of(ready, begun)
    assert np.array_equal(np.asarray(asked["video"][0]), picture)
    assert [int(np.asarray(mask).max()) for mask in asked["mask"]] == [0] + [255] * 8
    assert not np.array_equal(np.asarray(asked["video"][1]), picture)
    assert not np.array_equal(frames_of(ready, begun), frames_of(ready, request))


def test_the_last_frames_of_a_clip_are_continued(tmp_path: Path, load: Any) -> None:
    ready, request = load("wan-vace", control=None)
    source = reference_to(small_clip(tmp_path / "clip.mp4"), field="source")
    begun = request.model_copy(update={"source": source, "kept_frames": 5})
    asked = asked_of(ready, begun)
    shown = [float(np.asarray(frame).mean()) for frame in asked["video"]]
    assert shown[:5] == pytest.approx([60, 90, 120, 150, 180], abs=3)
    assert shown[5:] == [127.0] * 4, "of the others the control video says nothing"
    assert [int(np.asarray(mask).max()) for mask in asked["mask"]] == [0] * 5 + [255] * 4
    assert not np.array_equal(frames_of(ready, begun), frames_of(ready, request))


def test_hints_of_kept_frames_count_wholly_however_faintly_maps_are_followed(tmp_path: Path, load: Any) -> None:
    ready, request = load("wan-vace", conditioning_scale=0.25)
    source = reference_to(small_clip(tmp_path / "clip.mp4"), field="source")
    scale = asked_of(ready, request.model_copy(update={"source": source, "kept_frames": 2}))["conditioning_scale"]
    tokens = 2 * 2
    assert scale.shape == (2, 1, 3 * tokens, 1)
    assert (scale[:, :, : 2 * tokens] == 1).all(), "two frames lie in two latent frames"
    assert (scale[:, :, 2 * tokens :] == 0.25).all()
    one = request.model_copy(update={"source": source})
    assert int((asked_of(ready, one)["conditioning_scale"][0] == 1).sum()) == tokens


def test_what_cannot_be_kept_is_refused_by_name(tmp_path: Path, load: Any) -> None:
    _, request = load("wan-vace", control=None)
    short = reference_to(small_clip(tmp_path / "clip.mp4", num_frames=3), field="source")
    with pytest.raises(RequestError, match="3 frames") as refused:
        conditions_of(request.model_copy(update={"source": short, "kept_frames": 5}))
    assert (refused.value.field, refused.value.way_out) == ("kept_frames", "Keep at most 3.")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    torn = reference_to(tmp_path / "torn.png", field="source")
    with pytest.raises(ClipRefused, match="damaged"):
        conditions_of(request.model_copy(update={"source": torn}))


def test_what_is_kept_is_fitted_and_another_rate_is_said(tmp_path: Path, load: Any) -> None:
    _, request = load("wan-vace", control=None)
    source = reference_to(small_clip(tmp_path / "clip.mp4", side=64, fps=24.0), field="source")
    conditions = conditions_of(request.model_copy(update={"source": source, "kept_frames": 5}))
    assert conditions.kept is not None
    assert conditions.kept.shape == (5, 32, 32, 3)
    text = " ".join(conditions.notices)
    assert "another speed" in text
    assert "scaled from 64×64 to 32×32" in text


def test_maps_and_kept_frames_go_on_working_offloaded_in_tiles_stopped_and_previewed(tmp_path: Path, load: Any) -> None:
    ready, request = load("wan-vace", num_inference_steps=3)
    source = reference_to(small_clip(tmp_path / "clip.mp4"), field="source")
    request = request.model_copy(update={"source": source, "kept_frames": 5})
    whole = frames_of(ready, request)
    shown: list[np.ndarray] = []
    kept = ready.run(
        request,
        generator=torch.Generator().manual_seed(request.seed),
        on_step=lambda state: shown.append(ready.preview(state.estimate())),
        interrupted=lambda: True,
    )
    assert (kept.shape, len(shown), shown[0].shape) == (whole.shape, 1, (32, 32, 3))
    ready.pipe.vae.enable_tiling()
    assert frames_of(ready, request).shape == whole.shape
    ready.pipe.vae.disable_tiling()
    ready.pipe.enable_model_cpu_offload(device=DEVICE)
    try:
        assert np.array_equal(frames_of(ready, request), whole)
    finally:
        ready.pipe.remove_all_hooks()
        pipelines.unload()


# -- a run like every other -------------------------------------------------------------------------------------------


def test_a_run_says_what_was_done_to_its_maps_and_carries_them_in_its_settings(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base / "wan-vace" if (base / "wan-vace").is_dir() else save("wan-vace", base)
    write_preset("wan-vace", folder, tmp_path / "presets")
    monkeypatch.setenv("DAILIES_PRESETS", str(tmp_path / "presets"))
    store = RunStore(tmp_path / "runs")
    control = file_of_maps(tmp_path / "maps.npz", height=64, width=64)
    request = request_for(
        preset_for("wan-vace", folder), prompt="a road", seed=1, num_inference_steps=2, control=control,
        control_strengths="edges, lanes:0.5", cache={"method": "budget", "speedup": 1},
    )  # fmt: skip
    events = list(generate(request, store=store))
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    told = [event.text for event in events if isinstance(event, Notice)]
    assert "Maps: scaled from 64×64 to 32×32." in told
    run = store.get(events[-1].run_id)
    assert run.request == request
    assert run.request.control_strengths == {"edges": 1.0, "lane_lines": 0.5}
    control.path.write_bytes(b"other maps")
    with pytest.raises(RequestError, match="not what it was"):
        list(generate(request, store=store))


def test_a_preset_places_it_like_every_other() -> None:
    from studio.preset import find_preset, list_presets

    driving = [preset for preset in list_presets()[0] if "driving" in preset.tasks]
    names = [preset.name for preset in driving]
    assert {"wan2.1-vace-1.3b", "wan2.1-vace-14b", "wan2.2-vace-fun-a14b"} <= set(names)
    preset = find_preset("wan2.1-vace-1.3b")
    request = request_for(preset, prompt="a road", height=128, width=128, num_frames=5, offload="none")
    assert pipelines.place(preset, request, measure_large()).device == "cuda"


def measure_large() -> Any:
    import dataclasses

    gb = 10**9
    return dataclasses.replace(
        measure(),
        ram_total=128 * gb, ram_free=120 * gb, accelerator="cuda", accelerator_name="A card",
        vram_total=80 * gb, vram_free=79 * gb, bf16=True,
    )  # fmt: skip
