"""Every family is trained as it is sampled, and what it learnt is kept, on tiny real checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.small_training import moving_square
from support.tiny_checkpoints import TINY, save, write_preset
from torch import Tensor

from studio import pipelines
from studio.chopgrad import why_not
from studio.errors import PresetError, RequestError
from studio.events import RunFinished, TrainingFinished, TrainingSample, TrainingStep
from studio.family import FAMILIES, family_of
from studio.finetune import finetune
from studio.finetune.training import Prepared
from studio.generate import generate
from studio.machine import weights
from studio.machine.hardware import measure
from studio.pipelines import LoadedPipeline, StepState
from studio.pipelines.families import VideoModel, video_models
from studio.preset import PROJECT_FOLDER, find_preset, list_presets
from studio.records.runs import RunStore
from studio.records.versions import LORA_2_FILE, LORA_FILE, VersionStore
from studio.requests.generation import GenerationRequest, request_for
from studio.requests.training import TrainingClip, check_finetune_request, finetune_request_for

TWO_EXPERTS = ("wan-two-experts", "wan-vace-two-experts")
CAPTION = "a red car, on a road"
UNSAID = {"attention_kwargs", "enable_temporal_attentions", "return_dict"}
"""What a pipeline passes to its denoiser without saying anything by it."""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tiny checkpoint, as a preset."""
    folder = tmp_path_factory.mktemp("tiny")
    for name in TINY:
        file = write_preset(name, save(name, folder), folder / "presets")
        # Prompts of its own are what a model is held to what it was by.
        file.write_text(file.read_text().replace("[defaults]", '[defaults]\nprompts = ["a blue car"]'))
    return folder / "presets"


@pytest.fixture(scope="module", params=TINY)
def name(request: pytest.FixtureRequest) -> str:
    """Each in turn; what is promised of one is tested while it is loaded."""
    return request.param


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> TrainingClip:
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    return TrainingClip(path=moving_square(path, 1, num_frames=24, size=128), caption=CAPTION)


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing_loaded() -> Iterator[None]:
    yield
    pipelines.unload()


def request_of(name: str, **fields: Any) -> GenerationRequest:
    """Without guidance, so that a step is one pass."""
    plain: dict[str, Any] = {"torch_dtype": "float32", "seed": 3, "num_inference_steps": 2, "guidance_scale": 1.0}
    return request_for(find_preset(name), prompt=CAPTION, **(plain | fields))


def loaded(name: str, adapter: Path | None = None) -> LoadedPipeline:
    preset = find_preset(name)
    placement = pipelines.place(preset, request_of(name), measure())
    return pipelines.load(preset, placement, folder=weights.folder_of(preset), adapter=adapter)


def run(
    ready: LoadedPipeline, request: GenerationRequest, on_step: Callable[[StepState], None] = lambda state: None
) -> Any:
    generator = torch.Generator().manual_seed(request.seed)
    return ready.run(request, generator=generator, on_step=on_step, interrupted=lambda: False)


def pixels_of(request: GenerationRequest) -> Tensor:
    """A smooth clip (1, 3, F, H, W) in -1..1."""
    sides = (torch.linspace(0, 3, size) for size in (request.num_frames, request.height, request.width))
    time, rows, columns = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([(time + rows).sin(), (rows * columns).cos(), (columns - time).sin()])[None]


def level_of(model: VideoModel, timestep: Tensor) -> Tensor:
    """The noise level of which a denoiser was told; Wan 2.2 TI2V is told it for every token."""
    told = timestep.flatten()[:1].float()
    level = told / 1000
    return level if torch.allclose(model.timestep(level).float(), told) else 1 - level


class Calls:
    """What the denoisers were asked, and what they said."""

    def __init__(self, model: VideoModel) -> None:
        self.seen: list[tuple[str, dict[str, Any], Tensor]] = []
        self._handles = [
            denoiser.register_forward_hook(
                lambda _module, given, asked, said, name=name: self.seen.append(
                    (name, dict(asked) | ({"hidden_states": given[0]} if given else {}), said[0])
                ),
                with_kwargs=True,
            )
            for name, denoiser in model.denoisers.items()
        ]

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


# -- what is trained is what is sampled -------------------------------------------------------------------------------


def test_the_denoiser_is_asked_in_training_what_its_pipeline_asks(name: str) -> None:
    ready, request = loaded(name), request_of(name, num_inference_steps=4)
    model = ready.to_train()
    like = model.latents_of(pixels_of(request))
    prompt = model.prompt(CAPTION)
    with Calls(model) as sampled:
        run(ready, request)
    assert {who for who, _, _ in sampled.seen} == set(model.denoisers)
    for who, asked, said in sampled.seen:
        noisy = model.unpacked(asked["hidden_states"], like.shape[2:])[:, : like.shape[1]]
        with Calls(model) as trained, torch.no_grad():
            found = model.predict(noisy, level_of(model, asked["timestep"]), prompt)
        ((also_who, also_asked, also_said),) = trained.seen
        assert also_who == who
        assert also_asked.keys() - UNSAID == {key for key, value in asked.items() if value is not None} - UNSAID
        for key in also_asked.keys() - UNSAID - {"timestep"}:
            torch.testing.assert_close(also_asked[key], asked[key], msg=key)
        told, also_told = (each["timestep"].float() for each in (asked, also_asked))
        torch.testing.assert_close(also_told.expand_as(told), told)
        torch.testing.assert_close(also_said, said, rtol=1e-4, atol=1e-5)
        assert found.shape == like.shape


def test_a_denoiser_that_says_the_target_arrives_at_the_clip_that_was_encoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise, target and timestep agree with the pipeline's sampler, and latents with the pipeline's way of decoding."""
    ready, request = loaded(name), request_of(name, num_inference_steps=3)
    model = ready.to_train()
    pixels = pixels_of(request)
    clean = model.latents_of(pixels)

    def says_the_target(hidden_states: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        level = float(level_of(model, timestep))
        noisy = model.unpacked(hidden_states, clean.shape[2:])[:, : clean.shape[1]]
        one, nothing = torch.ones(()), torch.zeros(())
        signal, rest = model.noised(one, nothing, level), model.noised(nothing, one, level)
        said = model.target(clean, (noisy - signal * clean) / rest, level)
        if name == "latte":  # says something of the variance, too
            said = torch.cat([said, said], dim=1)
        return (said if name == "hunyuanvideo-1.5" else model.packed(said),)

    for denoiser in model.denoisers.values():
        monkeypatch.setattr(denoiser, "forward", says_the_target)
    states: list[StepState] = []
    clip = run(ready, request, states.append)
    torch.testing.assert_close(model.unpacked(states[-1].latents, clean.shape[2:]), clean, rtol=1e-2, atol=1e-2)

    with torch.no_grad():
        again = model.frames_of(model.encoded(pixels.to(model.device)))
    torch.testing.assert_close(model.decoded(clean), again, rtol=1e-4, atol=1e-4)
    if name != "ltx-conditioned":  # noise is added before it decodes
        frames = (again[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1).cpu().numpy() * 255
        assert np.abs(frames - clip).mean() < 2, "grey levels of 255"


def test_the_clean_latents_follow_from_the_target(name: str) -> None:
    model = loaded(name).to_train()
    clean, noise = torch.randn(2, 1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    for level in (0.02, 0.3, 0.85, 0.98):
        noisy, target = (make(clean, noise, level) for make in (model.noised, model.target))
        torch.testing.assert_close(model.estimate(noisy, target, level), clean, rtol=1e-3, atol=1e-3)
    generator = torch.Generator().manual_seed(2)
    levels = [model.draw_level(generator, clean) for _ in range(100)]
    assert 0 < min(levels) < 0.5 < max(levels) < 1


# -- what is learnt ---------------------------------------------------------------------------------------------------


def made(request: GenerationRequest, store: RunStore) -> np.ndarray:
    (run_id,) = [event.run_id for event in generate(request, store=store) if isinstance(event, RunFinished)]
    return frames_in(store.get(run_id).video)


def frames_in(path: Path | str) -> np.ndarray:
    """Of a file of the studio's own, which needs no guarded process."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(float)


def test_a_family_learns_and_what_it_learnt_is_what_is_kept(
    name: str, long_clip: TrainingClip, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.finetune.sampling.PRIOR_CLIPS", 1)
    monkeypatch.setattr("studio.finetune.sampling.PRIOR_STEPS", 2)
    preset = find_preset(name)
    objective = "latent" if name == "ltx-conditioned" else family_of(preset.pipeline).objectives[-1]
    # Of two denoisers a step trains one; with this seed, each has its own.
    steps = 2 if name in TWO_EXPERTS else 1
    how: dict[str, Any] = {"max_train_steps": steps, "lora_rank": 4, "fps": 8.0}
    how |= {"objective": objective, "learning_rate": 0.5, "checkpoint_blocks": True, "prior_loss_weight": 0.1}
    events = list(finetune(finetune_request_for(preset, clips=(long_clip,), **how), store=store))
    taken = [event for event in events if isinstance(event, TrainingStep)]
    assert all(np.isfinite(step.loss) and (step.pixel is None) == (objective == "latent") for step in taken)
    assert isinstance(events[-1], TrainingFinished)
    folder = VersionStore(store.folder).path(events[-1].version_id)
    for file in (LORA_FILE, LORA_2_FILE)[: 2 if name in TWO_EXPERTS else 1]:
        # What the last block says of the prompt is read by nobody, so a few have nothing to learn from.
        learnt = [bool(tensor.any()) for key, tensor in load_file(folder / file).items() if "lora_B" in key]
        assert sum(learnt) > 0.7 * len(learnt)

    card = (folder / "README.md").read_text(encoding="utf-8")
    assert ("load_into_transformer_2" in card) == (name in TWO_EXPERTS)

    # The version's own clips were made before, and with the averaged weights in place.
    samples = [event.path for event in events if isinstance(event, TrainingSample)]
    bare, in_place = map(frames_in, samples)
    asked = request_of(name, adapter=folder.name, seed=0, fps=8.0)
    same = {field: getattr(preset.defaults, field) for field in ("num_inference_steps", "guidance_scale")}
    tuned = made(asked.model_copy(update=same), store)
    away = np.abs(tuned - bare).mean()
    assert away > 0.5, "grey levels of 255"
    assert np.abs(tuned - in_place).mean() < 0.25 * away  # last bits differ, and the file's encoder makes more of them

    # Diffusers' own loaders read the files to the same effect.
    model = loaded(name, folder).to_train()
    noisy = torch.randn(model.latents_of(pixels_of(asked)).shape)
    wanted = said_of(model, noisy)
    model = loaded(name).to_train()
    assert ("load_lora_weights" in card) == hasattr(model.pipe, "load_lora_weights")
    if hasattr(model.pipe, "load_lora_weights"):
        model.pipe.load_lora_weights(folder, weight_name=LORA_FILE)
        if name in TWO_EXPERTS:
            model.pipe.load_lora_weights(folder, weight_name=LORA_2_FILE, load_into_transformer_2=True)
    elif hasattr(model.pipe.transformer, "load_lora_adapter"):
        model.pipe.transformer.load_lora_adapter(folder, weight_name=LORA_FILE, prefix="transformer")
    else:
        assert name in ("allegro", "latte"), "diffusers has no loader for these"
        return
    found = said_of(model, noisy)
    pipelines.unload()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def said_of(model: VideoModel, noisy: Tensor) -> Tensor:
    """At high noise, and at low; in whole float32, for a card's convolutions are not by themselves."""
    noisy, levels = noisy.to(model.device), torch.tensor([[0.95], [0.3]], device=model.device)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        prompt = model.prompt(CAPTION)
        return torch.stack([model.predict(noisy, level, prompt) for level in levels])


def test_prompts_of_any_length_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    shared = {
        "encoder_hidden_states": torch.randn(1, 4, 8),
        "encoder_attention_mask": torch.ones(1, 4, dtype=torch.bool),
    }
    prompts = (shared, {"encoder_hidden_states": torch.randn(1, 7, 8)}, shared) * 4
    samples = Prepared(
        pixels=torch.zeros(12, 5, 8, 8, 3, dtype=torch.uint8),
        latents=torch.randn(12, 4, 2, 1, 1),
        prompts=prompts,
        held_out=torch.zeros(12, dtype=torch.bool),
        prior_latents=torch.zeros(0),
        prior_prompts=(),
    )
    samples.save(tmp_path / "samples.safetensors")
    read = Prepared.load(tmp_path / "samples.safetensors")
    assert read.prior_prompts == ()
    assert len(read.prompts) == 12
    for found, wanted in zip(read.prompts, prompts, strict=True):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_familys_row_says_how_its_autoencoder_decodes(name: str) -> None:
    family, model = family_of(find_preset(name).pipeline), loaded(name).to_train()
    model.decode_in_groups()
    reason = why_not(model.vae)
    pipelines.unload()
    # A row does not tell of one checkpoint among several that it cannot be walked.
    assert (reason is None) == (family.decoding != "whole" and name != "ltx-conditioned")


def test_every_family_has_one_class_and_every_preset_a_family() -> None:
    assert video_models().keys() == FAMILIES.keys()
    presets, _ = list_presets(PROJECT_FOLDER / "presets")
    assert {preset.pipeline for preset in presets} == FAMILIES.keys()


def test_a_whole_clip_decoder_is_trained_by_the_models_own_loss_only(clips: tuple[TrainingClip, ...]) -> None:
    preset = find_preset("mochi")
    request = finetune_request_for(preset, clips=clips)
    assert family_of(preset.pipeline).objectives == (request.objective,) == ("latent",)
    check_finetune_request(request, preset)
    for objective in ("pixel", "mixed"):
        with pytest.raises(RequestError, match="as a whole") as refused:
            check_finetune_request(request.model_copy(update={"objective": objective}), preset)
        assert refused.value.field == "objective"
        assert "latent" in refused.value.way_out
    assert finetune_request_for(find_preset("wan"), clips=clips).objective == "mixed"


def test_a_decoder_that_finishes_the_denoising_takes_no_pixel_loss(long_clip: TrainingClip, store: RunStore) -> None:
    request = finetune_request_for(find_preset("ltx-conditioned"), clips=(long_clip,), objective="mixed")
    with pytest.raises(RequestError, match="fresh noise") as refused:
        list(finetune(request, store=store))
    assert refused.value.field == "objective"


def test_only_wans_decoder_is_trained_as_well(clips: tuple[TrainingClip, ...]) -> None:
    for name, refused in (("ltx", True), ("mochi", True), ("wan", False), ("sana-video", False)):
        request = finetune_request_for(find_preset(name), clips=clips, train_decoder=True)
        if refused:
            with pytest.raises(RequestError, match="decoder") as told:
                check_finetune_request(request, find_preset(name))
            assert told.value.field == "train_decoder"
        else:
            check_finetune_request(request, find_preset(name))


def test_a_decoder_of_tiles_takes_no_smaller_crops(clips: tuple[TrainingClip, ...]) -> None:
    preset = find_preset("allegro")
    request = finetune_request_for(preset, clips=clips, crop_size=8)
    with pytest.raises(RequestError, match="tiles") as refused:
        check_finetune_request(request, preset)
    assert refused.value.field == "crop_size"
    check_finetune_request(request.model_copy(update={"objective": "latent"}), preset)


def test_a_pipeline_that_nobody_knows_is_refused_by_name(clips: tuple[TrainingClip, ...]) -> None:
    preset = find_preset("wan").model_copy(update={"pipeline": "SomeOtherPipeline"})
    with pytest.raises(PresetError, match="SomeOtherPipeline") as refused:
        finetune_request_for(preset, clips=clips)
    assert refused.value.field == "pipeline"


def test_quantised_weights_are_not_trained() -> None:
    ready = loaded("wan")
    placement = dataclasses.replace(ready.placement, quantization="int8")
    small = LoadedPipeline(preset=ready.preset, placement=placement, folder=ready.folder, pipe=ready.pipe)
    with pytest.raises(RequestError, match="quantised"):
        small.to_train()
