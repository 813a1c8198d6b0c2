"""Pipelines: every family is called, watched, stopped and forgotten by the same code, on tiny real checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.device import DEVICE
from support.tiny_checkpoints import TINY, preset_for, save

from studio import pipelines
from studio.errors import (
    NumericalError,
    OutOfMemory,
    PresetError,
    RequestError,
    WeightsCorrupt,
    WeightsMissing,
)
from studio.family import family_of
from studio.machine import weights
from studio.machine.hardware import GB, Machine, int8_backend
from studio.pipelines import LoadedPipeline, StepStart, StepState, schedules
from studio.pipelines.loaded import SYNCHRONIZE, out_of_memory
from studio.pipelines.loading import read_pipeline
from studio.preset import Preset, find_preset
from studio.requests.generation import GenerationRequest, request_for

LAPTOP = Machine(
    cpu_name="A processor",
    cores=2,
    ram_total=16 * GB,
    ram_free=12 * GB,
    accelerator=None,
    accelerator_name=None,
    vram_total=0,
    vram_free=0,
    bf16=False,
    hosted=None,
    int8_backend=int8_backend("cpu"),
)
WORKSTATION = dataclasses.replace(
    LAPTOP,
    ram_total=128 * GB,
    ram_free=120 * GB,
    accelerator="cuda",
    accelerator_name="A card",
    vram_total=80 * GB,
    vram_free=79 * GB,
    bf16=True,
)
HERE = WORKSTATION if DEVICE.type == "cuda" else LAPTOP
"""What every family's promises are kept on."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint, written when it is first asked for."""
    base = tmp_path_factory.mktemp("checkpoints")

    def folder(name: str) -> Path:
        return base / name if (base / name).is_dir() else save(name, base)

    return folder


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A Wan checkpoint to be damaged."""
    return Path(shutil.copytree(checkpoint("wan"), tmp_path / "wan"))


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing_loaded() -> Iterator[None]:
    yield
    pipelines.unload()


def _request(preset: Preset, **fields: Any) -> GenerationRequest:
    return request_for(preset, prompt="a red car, on a road", **({"seed": 3, "num_inference_steps": 2} | fields))


def _load(name: str, checkpoint: Callable[[str], Path], **fields: Any) -> tuple[LoadedPipeline, GenerationRequest]:
    preset = preset_for(name, checkpoint(name))
    request = _request(preset, **fields)
    return pipelines.load(preset, pipelines.place(preset, request, HERE)), request


def _run(
    ready: LoadedPipeline,
    request: GenerationRequest,
    *,
    on_step: Callable[[StepState], None] = lambda state: None,
    interrupted: Callable[[], bool] = lambda: False,
    **listeners: Any,
) -> np.ndarray:
    generator = torch.Generator("cpu").manual_seed(request.seed)
    return ready.run(request, generator=generator, on_step=on_step, interrupted=interrupted, **listeners)


# Every family, the same promises


@pytest.mark.parametrize("name", TINY)
def test_how_many_blocks_a_family_has_is_known_before_it_is_loaded(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    ready, _ = _load(name, checkpoint)
    assert weights.num_blocks(preset_for(name, checkpoint(name))) == min(len(blocks) for blocks in ready.stacks)


@pytest.mark.parametrize("name", TINY)
def test_a_family_runs_and_tells_every_step_and_stage(name: str, checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load(name, checkpoint)
    assert len(ready.blocks) == TINY[name].blocks
    starts: list[StepStart] = []
    states: list[StepState] = []
    stages: list[tuple[str, bool]] = []
    clip = _run(
        ready,
        request,
        on_step=states.append,
        on_step_start=starts.append,
        on_stage=lambda stage, seconds: stages.append((stage, seconds is None)),
    )

    assert clip.shape == (request.num_frames, request.height, request.width, 3)
    assert clip.dtype == np.uint8
    assert clip.std() > 5, "the random model's clip is flat, so the promises below would say nothing"
    assert [start.index for start in starts] == [state.index for state in states] == [0, 1]
    assert [(start.sigma, start.timestep, start.total) for start in starts] == [
        (state.sigma, state.timestep, 2) for state in states
    ]
    assert starts[0].sigma > starts[1].sigma >= 0, "a step starts from less noise than the one before"
    assert stages == [(stage, begins) for stage in ("encoding", "denoising", "decoding") for begins in (True, False)]
    # The last step ends without noise: there the estimate is what the sampler itself arrives at.
    last = states[-1]
    torch.testing.assert_close(last.estimate().float(), last.latents.float(), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", TINY)
def test_after_a_cancel_the_next_run_is_bit_identical_to_a_first(name: str, checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load(name, checkpoint)
    first = _run(ready, request)

    class Cancelled(BaseException):
        """Not an Exception, as the one that generate raises."""

    def cancel_in_the_second_step(state: StepState) -> None:
        ready.preview(state.estimate())
        if state.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        _run(ready, request, on_step=cancel_in_the_second_step)
    previews: list[np.ndarray] = []
    watched = _run(ready, request, on_step=lambda state: previews.append(ready.preview(state.estimate())))
    assert np.array_equal(first, watched), "a cancelled run or a preview left something behind"


def test_seed_prompt_and_steps_each_change_the_clip(checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load("wan", checkpoint)
    changes: tuple[dict[str, Any], ...] = ({}, {"seed": 4}, {"prompt": "a blue car"}, {"num_inference_steps": 3})
    clips = [_run(ready, request.model_copy(update=change)) for change in changes]
    assert len({clip.tobytes() for clip in clips}) == len(changes)


@pytest.mark.parametrize("name", TINY)
def test_stopping_keeps_the_estimate_that_the_preview_showed(
    name: str, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, request = _load(name, checkpoint, num_inference_steps=3)
    decoded: list[torch.Tensor] = []
    kind = type(ready.pipe.vae)
    decode = kind.decode

    def spy(vae: Any, z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        decoded.append(z.clone())
        return decode(vae, z, *args, **kwargs)

    monkeypatch.setattr(kind, "decode", spy)
    estimates: list[torch.Tensor] = []
    clip = _run(ready, request, on_step=lambda state: estimates.append(state.estimate()), interrupted=lambda: True)

    assert len(estimates) == 1, "it went on after it was told to stop"
    assert clip.shape == (request.num_frames, request.height, request.width, 3)
    whole = torch.cat(decoded)
    shown = ready.model.preview_latents(estimates[0], request)
    if whole.ndim == 4:  # an autoencoder of images, given its frames as a batch
        whole = whole.movedim(0, 1)[None]
    if name != "ltx-conditioned":  # adds noise before it decodes
        torch.testing.assert_close(shown[:, :, 0], whole[:, :, whole.shape[2] // 2], atol=1e-4, rtol=1e-4)
    assert ready.preview(estimates[0]).shape == (request.height, request.width, 3)


@pytest.mark.parametrize("name", ["wan", "ltx", "hunyuanvideo-1.5"])
def test_without_guidance_a_step_is_one_pass_of_one(name: str, checkpoint: Callable[[str], Path]) -> None:
    passes = {1.0: 0, 4.0: 0}
    for scale in passes:
        ready, request = _load(name, checkpoint, guidance_scale=scale)

        def count(_module: Any, _args: Any, kwargs: dict[str, Any], scale: float = scale) -> None:
            passes[scale] += len(kwargs["hidden_states"])

        handle = ready.transformers[0].register_forward_pre_hook(count, with_kwargs=True)
        _run(ready, request)
        handle.remove()
    assert passes == {1.0: 2, 4.0: 4}


def test_both_denoisers_of_a_two_expert_model_are_watched(checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load("wan-two-experts", checkpoint, num_inference_steps=4)
    used = {0: 0, 1: 0}
    handles = [
        transformer.register_forward_pre_hook(lambda *_, index=index: used.update({index: used[index] + 1}))
        for index, transformer in enumerate(ready.transformers)
    ]
    starts: list[StepStart] = []
    _run(ready, request, on_step_start=starts.append)
    for handle in handles:
        handle.remove()
    assert min(used.values()) > 0
    assert used[0] + used[1] == 8, "cond and uncond, four steps"
    assert [start.index for start in starts] == [0, 1, 2, 3]


def test_the_flow_shift_reaches_the_sampler_and_does_not_stay(checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load("wan", checkpoint)
    sigmas: dict[float, list[float]] = {}
    for shift in (3.0, 7.0, 3.0):
        seen: list[float] = []
        _run(
            ready,
            request.model_copy(update={"flow_shift": shift}),
            on_step=lambda state, seen=seen: seen.append(state.sigma),
        )
        assert sigmas.setdefault(shift, seen) == seen
    # Two steps from t = 1: the second starts at t = 1/2, and shift s maps t to s t / (1 + (s − 1) t).
    assert sigmas[3.0][1] == pytest.approx(0.75, abs=2e-3)
    assert sigmas[7.0][1] == pytest.approx(0.875, abs=2e-3)


# Numbers


def test_nan_in_the_latents_names_the_step_and_leaves_nothing_behind(checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load("wan", checkpoint, num_inference_steps=3)
    first = _run(ready, request)
    passes = 0

    def poison(_module: Any, _args: Any, output: Any) -> Any:
        nonlocal passes
        passes += 1
        return (output[0] * torch.nan, *output[1:]) if passes == 3 else None

    handle = ready.transformers[0].register_forward_hook(poison)
    with pytest.raises(NumericalError, match="after step 2 of 3"):
        _run(ready, request)
    handle.remove()
    assert np.array_equal(first, _run(ready, request))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_found_before_it_becomes_a_picture(
    value: float, checkpoint: Callable[[str], Path]
) -> None:
    """Infinity too: Wan's autoencoder clamps what it decoded, and would return it as white."""
    ready, request = _load("wan", checkpoint)
    handle = ready.pipe.vae.decoder.conv_out.register_forward_hook(
        lambda _module, _args, output: torch.full_like(output, value)
    )
    with pytest.raises(NumericalError, match="frames"):
        _run(ready, request)
    handle.remove()


def test_running_out_of_memory_is_said_with_a_way_out() -> None:
    with pytest.raises(OutOfMemory, match="a clip") as caught, out_of_memory("a clip"):
        torch.empty(2**55)  # torch's own allocator fails
    assert "smaller" in caught.value.way_out
    with pytest.raises(OutOfMemory), out_of_memory("a clip"):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory("a clip"):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(("torch_dtype", "rounded"), [("float32", False), ("bfloat16", True)])
def test_what_is_asked_for_in_float32_is_not_rounded_by_a_cards_convolutions(
    torch_dtype: str, rounded: bool, checkpoint: Callable[[str], Path]
) -> None:
    ready, request = _load("wan", checkpoint, torch_dtype=torch_dtype)
    seen: list[tuple[bool, bool]] = []
    about = torch.backends.cudnn
    _run(ready, request, on_step=lambda _state: seen.append((about.allow_tf32, about.deterministic)))
    assert seen == [(rounded, True)] * 2


def test_an_inverted_schedule_counts_noise_downward() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(4)
    clean, noise = torch.full((1, 2, 1, 1, 1), 0.3), torch.full((1, 2, 1, 1, 1), -1.2)
    for index in range(4):
        sigma = schedules.sigma(scheduler, index)
        sample = (1 - sigma) * clean + sigma * noise
        velocity = clean - noise  # Mochi's direction: from noise to clean
        torch.testing.assert_close(schedules.denoised(scheduler, index, velocity, sample), clean)


# Loading


def test_the_pocket_model_is_loaded_by_the_same_code() -> None:
    preset = find_preset("pocket")
    request = request_for(preset, prompt="a red car", seed=1, num_inference_steps=2, height=64, width=64, num_frames=5)
    ready = pipelines.load(preset, pipelines.place(preset, request, dataclasses.replace(LAPTOP, bf16=True)))
    assert ready.pipe.vae.dtype == torch.bfloat16
    convolution = next(module for module in ready.pipe.vae.modules() if isinstance(module, torch.nn.Conv3d))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert _run(ready, request).shape == (5, 64, 64, 3)


def test_the_slot_keeps_one_model_and_changes_tiling_in_place(checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load("wan", checkpoint)
    again, _ = _load("wan", checkpoint, vae_tiling="on")
    assert again is ready
    assert ready.pipe.vae.use_tiling
    assert ready.placement.vae_tiling
    other, _ = _load("wan", checkpoint, torch_dtype="bfloat16")
    assert other is not ready
    assert other.pipe.transformer.dtype == torch.bfloat16
    back, _ = _load("wan", checkpoint)
    assert not back.pipe.vae.use_tiling
    assert np.array_equal(_run(back, request), _run(ready, request))


def _without(key_part: str, path: Path) -> str:
    tensors = load_file(path)
    gone = next(key for key in tensors if key_part in key)
    del tensors[gone]
    save_file(tensors, path, metadata={"format": "pt"})
    return gone


def _damage_truncate(folder: Path) -> str:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "transformer/diffusion_pytorch_model.safetensors"


def _damage_missing_tensor(folder: Path) -> str:
    return _without("blocks.1.attn1.to_q.weight", folder / "transformer" / "diffusion_pytorch_model.safetensors")


def _damage_missing_text_tensor(folder: Path) -> str:
    _without("SelfAttention.q", folder / "text_encoder" / "model.safetensors")
    return "text_encoder"


def _damage_other_shape(folder: Path) -> str:
    path = folder / "transformer" / "config.json"
    path.write_text(path.read_text().replace('"ffn_dim": 32', '"ffn_dim": 48'))
    return "transformer"


def _damage_more_layers(folder: Path) -> str:
    path = folder / "transformer" / "config.json"
    path.write_text(path.read_text().replace('"num_layers": 2', '"num_layers": 3'))
    return "blocks.2"


def _damage_nan(folder: Path) -> str:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    key = next(key for key, tensor in tensors.items() if key.startswith("decoder") and tensor.ndim == 5)
    tensors[key].view(-1)[7] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    return key


def _damage_pickle_only(folder: Path) -> str:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    return "never opened"


def _damage_code(folder: Path) -> str:
    (folder / "transformer" / "model.py").write_text("raise SystemExit('the checkpoint ran its code')")
    return "code"


def _damage_no_embedding(folder: Path) -> str:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    tensors["shared.weight"].zero_()
    save_file(tensors, path, metadata={"format": "pt"})
    return "embedding of zeros"


def _damage_checksum(folder: Path) -> str:
    (folder / "checksums.json").write_text(json.dumps({"sha256": {"vae/config.json": "0" * 64}}))
    return "vae/config.json"


def _damage_checksum_path(folder: Path) -> str:
    (folder / "checksums.json").write_text(json.dumps({"sha256": {"../elsewhere": "0" * 64}}))
    return "elsewhere"


def _damage_other_words(folder: Path) -> str:
    digest = hashlib.sha256((folder / "vae" / "config.json").read_bytes()).hexdigest()
    sums = {"sha256": {"vae/config.json": digest}, "token_ids": {"a red car": [1, 2, 3]}}
    (folder / "checksums.json").write_text(json.dumps(sums))
    return "'a red car'"


def _damage_config(folder: Path) -> str:
    (folder / "vae" / "config.json").write_text("{")
    return "vae/config.json"


def _damage_gone(folder: Path) -> str:
    shutil.rmtree(folder / "tokenizer")
    return "tokenizer"


def test_classes_of_our_own_are_loaded_as_diffusers_are(copied: Path) -> None:
    preset = preset_for("wan", copied)
    request = _request(preset)
    ready = pipelines.load(preset, pipelines.place(preset, request, LAPTOP), folder=copied)
    index = json.loads((copied / "model_index.json").read_text())
    index |= {"_class_name": "OwnPipeline", "transformer": ["support.own_family", "OwnTransformer"]}
    (copied / "model_index.json").write_text(json.dumps(index))
    theirs = family_of("WanPipeline")
    row = {"pipeline": "OwnPipeline", "transformer": "OwnTransformer", "library": "support.own_family"}
    own = read_pipeline(
        ready.preset.model_copy(update={"pipeline": "OwnPipeline"}),
        dataclasses.replace(theirs, **row),
        ready.placement,
        copied,
    )
    assert (type(own).__name__, type(own.transformer).__name__) == ("OwnPipeline", "OwnTransformer")
    assert own.config.boundary_ratio == ready.pipe.config.boundary_ratio
    clips = [
        pipe(**ready.model.arguments(request), generator=torch.Generator().manual_seed(1), output_type="np").frames
        for pipe in (ready.pipe, own)
    ]
    np.testing.assert_allclose(*clips, atol=1e-5)  # not yet placed: its weights lie elsewhere in memory
    stranger = dataclasses.replace(theirs, **row | {"library": "diffusers"})
    with pytest.raises(WeightsCorrupt, match="own_family"):
        read_pipeline(ready.preset.model_copy(update={"pipeline": "OwnPipeline"}), stranger, ready.placement, copied)


DAMAGES = [function for name, function in sorted(globals().items()) if name.startswith("_damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.removeprefix("_damage_"))
def test_a_damaged_checkpoint_is_refused_and_the_fault_named(damage: Callable[[Path], str], copied: Path) -> None:
    named = damage(copied)
    preset = preset_for("wan", copied)
    with pytest.raises(WeightsCorrupt) as caught:
        pipelines.load(preset, pipelines.place(preset, _request(preset), LAPTOP), folder=copied)
    assert named in str(caught.value)


def _index_os(index: dict[str, Any]) -> None:
    index["vae"] = ["os", "system"]


def _index_remote(index: dict[str, Any]) -> None:
    index["vae"] = ["diffusers_modules.local.vae", "AutoencoderKLWan"]


def _index_other_class(index: dict[str, Any]) -> None:
    index["transformer"] = ["diffusers", "DiffusionPipeline"]


def _index_other_pipeline(index: dict[str, Any]) -> None:
    index["_class_name"] = "LTXPipeline"


def _index_custom_pipeline(index: dict[str, Any]) -> None:
    index["_class_name"] = ["pipeline_mine", "MyPipeline"]


def _index_extra_part(index: dict[str, Any]) -> None:
    index["helper"] = ["diffusers", "AutoencoderKLWan"]


def _index_without_vae(index: dict[str, Any]) -> None:
    del index["vae"]


INDICES = [function for name, function in sorted(globals().items()) if name.startswith("_index_")]


@pytest.mark.parametrize("change", INDICES, ids=lambda change: change.__name__.removeprefix("_index_"))
def test_only_the_classes_of_the_family_may_be_named(change: Callable[[dict[str, Any]], None], copied: Path) -> None:
    preset = preset_for("wan", copied)
    path = copied / "model_index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsCorrupt, match=r"model_index\.json"):
        pipelines.load(preset, pipelines.place(preset, _request(preset), LAPTOP), folder=copied)


def test_a_sampler_that_cannot_be_followed_is_refused(copied: Path) -> None:
    preset = preset_for("wan", copied)
    path = copied / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("flow_prediction", "epsilon"))
    with pytest.raises(PresetError, match="predicts 'epsilon'"):
        pipelines.load(preset, pipelines.place(preset, _request(preset), LAPTOP))


def test_a_mistyped_folder_is_missing_at_once(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    preset = preset_for("wan", checkpoint("wan"))
    with pytest.raises(WeightsMissing, match="nowhere"):
        pipelines.load(preset, pipelines.place(preset, _request(preset), LAPTOP), folder=tmp_path / "nowhere")


def test_a_variant_is_taken_where_a_component_has_it(copied: Path) -> None:
    preset = preset_for("wan", copied)
    placement = pipelines.place(preset, _request(preset), LAPTOP)
    plain = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    variant = plain.with_name("diffusion_pytorch_model.fp16.safetensors")
    save_file({key: tensor * 0 + 1 for key, tensor in load_file(plain).items()}, variant, metadata={"format": "pt"})
    weights = preset.weights.model_copy(update={"variant": "fp16"})
    ready = pipelines.load(preset.model_copy(update={"weights": weights}), placement, folder=copied)
    assert ready.transformers[0].state_dict()["proj_out.bias"].eq(1).all()


@pytest.mark.parametrize("offload", ["model", "group", "sequential"])
@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_offloading_changes_no_bit_and_survives_a_cancel(
    name: str, offload: str, checkpoint: Callable[[str], Path]
) -> None:
    """On the processor there is nothing to gain, but the hooks are the same ones."""
    ready, request = _load(name, checkpoint)
    plain = _run(ready, request)
    moved = pipelines.load(ready.preset, dataclasses.replace(ready.placement, offload=offload))
    assert moved is not ready

    def cancel(state: StepState) -> None:
        moved.preview(state.estimate())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(moved, request, on_step=cancel)
    assert np.array_equal(plain, _run(moved, request))


@pytest.mark.skipif(int8_backend("cpu") is None, reason="needs torchao, an optional dependency")
def test_eight_bit_weights_make_nearly_the_same_clip(checkpoint: Callable[[str], Path]) -> None:
    ready, request = _load("wan", checkpoint, torch_dtype="bfloat16")
    plain = _run(ready, request)
    small, asked = _load("wan", checkpoint, quantization="int8")
    assert (small.placement.quantization, small.placement.torch_dtype) == ("int8", "bfloat16")
    difference = np.abs(_run(small, asked).astype(int) - plain)
    assert 0 < difference.mean() < 8, "grey levels of 255"
    with pytest.raises(RequestError, match="multiplied in bfloat16"):
        _load("wan", checkpoint, quantization="int8", torch_dtype="float32")


def test_a_pipeline_nobody_knows_is_refused_with_the_known_ones() -> None:
    preset = find_preset("pocket").model_copy(update={"pipeline": "SomeOtherPipeline"})
    with pytest.raises(PresetError, match="WanPipeline"):
        pipelines.place(preset, _request(preset), LAPTOP)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_steps_are_timed_once_the_device_has_done_them(
    device: str, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is read after waiting for the device, also on Apple's."""
    ready, request = _load("wan", checkpoint)
    elsewhere = LoadedPipeline(
        preset=ready.preset,
        placement=dataclasses.replace(ready.placement, device=device),
        folder=ready.folder,
        pipe=ready.pipe,
    )
    monkeypatch.setitem(SYNCHRONIZE, device, lambda: time.sleep(0.05))
    seconds: list[float] = []
    _run(elsewhere, request, on_step=lambda state: seconds.append(state.seconds))
    assert len(seconds) == request.num_inference_steps
    assert min(seconds) >= 0.05
