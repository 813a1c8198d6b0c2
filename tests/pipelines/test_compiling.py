"""Blocks that are compiled one by one: the same clip, and everything around them goes on as before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from support.device import DEVICE
from support.tiny_checkpoints import save, write_preset

from studio import pipelines
from studio.errors import RequestError
from studio.events import BlockComputed, BlockReused, CacheDecided, RunFinished
from studio.generate import generate
from studio.machine.hardware import measure
from studio.pipelines import LoadedPipeline, loading
from studio.pipelines.compiling import compile_blocks
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, request_for

NAMES = ("wan", "cogvideox", "hunyuanvideo")
Place = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("compiled")
    for name in (*NAMES, "latte"):
        write_preset(name, save(name, folder), folder / "presets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAILIES_PRESETS", str(folder / "presets"))
        yield
    pipelines.unload()
    torch._dynamo.reset()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has every model compiled from now on, here too: by the compiler's front alone, which changes no bit."""

    def switch_on(backend: str = "eager") -> None:
        place: Place = loading.place

        def placed(*args: Any, **kwargs: Any) -> Any:
            return dataclasses.replace(place(*args, **kwargs), compile=True)

        monkeypatch.setattr(pipelines, "place", placed)
        monkeypatch.setattr(loading, "compile_blocks", partial(compile_blocks, backend=backend))

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield switch_on
    pipelines.unload()


def asked(name: str, **fields: Any) -> GenerationRequest:
    plain: dict[str, Any] = {"seed": 3, "num_inference_steps": 6, "torch_dtype": "float32"}
    return request_for(find_preset(name), prompt="a red car, on a road", **(plain | fields))


def latents_of(request: GenerationRequest) -> np.ndarray:
    """Of the last step: eight bits would hide small differences."""
    preset = find_preset(request.preset)
    ready: LoadedPipeline = pipelines.load(preset, pipelines.place(preset, request, measure()))
    seen: list[np.ndarray] = []
    ready.run(
        request,
        generator=torch.Generator().manual_seed(request.seed),
        on_step=lambda state: seen.append(state.latents.float().cpu().numpy().copy()),
        interrupted=lambda: False,
    )
    return seen[-1]


def told(request: GenerationRequest, store: RunStore) -> tuple[list[Any], np.ndarray]:
    """What was said of blocks and decisions, and the clip's pixels as the file has them."""
    events = list(generate(request, store=store))
    kinds = (BlockComputed, BlockReused, CacheDecided)
    done = events[-1]
    assert isinstance(done, RunFinished)
    with av.open(str(store.get(done.run_id).video)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    return [event for event in events if isinstance(event, kinds)], frames


@pytest.mark.parametrize("name", NAMES)
def test_blocks_that_are_compiled_give_the_same_latents(name: str, compiled: Callable[..., None]) -> None:
    request = asked(name, num_inference_steps=2)
    plain = latents_of(request)
    compiled()
    assert np.array_equal(latents_of(request), plain)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0, "nothing was compiled, and this said nothing"
    assert np.array_equal(latents_of(request), plain)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "compiled again for a second clip"


def test_all_blocks_of_a_class_share_what_was_compiled() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 16}
    small = WanTransformer3DModel(**sizes, freq_dim=16, ffn_dim=32, num_layers=12, rope_max_seq_len=32).eval()
    compile_blocks(small.blocks, backend="eager")
    with torch.no_grad():
        small(torch.randn(1, 4, 3, 4, 4), torch.tensor([5]), torch.randn(1, 7, 16))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.thorough
def test_the_whole_compiler_gives_nearly_the_same_latents(compiled: Callable[..., None]) -> None:
    request = asked("wan", num_inference_steps=2)
    plain = latents_of(request)
    compiled("inductor")
    assert np.abs(latents_of(request) - plain).max() < 1e-3 * np.abs(plain).max()


CACHES: dict[str, dict[str, Any]] = {
    "none": {},
    "adacache, which looks into one block": {"method": "adacache", "codebook": "custom", "rates": [2]},
    "budget": {"method": "budget", "speedup": 2.0},
    "first block": {"method": "first_block", "threshold": 0.3},
    "seacache": {"method": "seacache", "threshold": 0.5},
}


@pytest.mark.parametrize("which", CACHES)
def test_caches_and_the_watch_do_and_say_the_same_around_compiled_blocks(
    which: str, store: RunStore, compiled: Callable[..., None]
) -> None:
    request = asked("wan", **({"cache": CACHES[which]} if CACHES[which] else {}))
    events, clip = told(request, store)
    assert any(isinstance(event, BlockReused) for event in events) == (which != "none")
    compiled()
    also_events, also_clip = told(request, store)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert also_events == events
    assert np.array_equal(also_clip, clip)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.mark.parametrize("offload", ["model", "group"])
def test_compiled_blocks_are_fetched_by_offloading_as_plain_ones_are(
    offload: str, compiled: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor from where they are to where they are, by the same hooks."""
    request = asked("wan", num_inference_steps=2)
    plain = latents_of(request)
    compiled()
    put: Place = loading._place

    def moved_about(pipe: Any, placement: Any) -> None:
        put(pipe, placement)
        if offload == "model":
            pipe.enable_model_cpu_offload(device=DEVICE)
        else:
            blocks = {"offload_type": "block_level", "num_blocks_per_group": 1}
            pipe.enable_group_offload(onload_device=DEVICE, exclude_modules=["vae"], **blocks)

    monkeypatch.setattr(loading, "_place", moved_about)
    for _ in range(2):
        assert np.array_equal(latents_of(request), plain)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


# -- attention backends -----------------------------------------------------------------------------------------------


def backends_in(ready: LoadedPipeline) -> set[str]:
    processors = (getattr(module, "processor", None) for each in ready.transformers for module in each.modules())
    found = (getattr(processor, "_attention_backend", None) for processor in processors)
    return {str(getattr(each, "value", each)) for each in found if each is not None}


def test_an_attention_backend_reaches_every_layer_and_does_not_stay_for_the_next_model() -> None:
    preset, request = find_preset("wan"), asked("wan")
    placement = pipelines.place(preset, request, measure())
    plain = latents_of(request)
    other = dataclasses.replace(placement, attention_backend="_native_math")
    ready = pipelines.load(preset, other)
    assert ready.placement.attention_backend == "_native_math"
    assert backends_in(ready) == {"_native_math"}
    assert backends_in(pipelines.load(preset, placement)) == {"native"}
    assert np.array_equal(latents_of(request), plain)


def test_a_model_whose_layers_know_one_backend_refuses_another() -> None:
    preset, request = find_preset("latte"), asked("latte")
    placement = dataclasses.replace(pipelines.place(preset, request, measure()), attention_backend="flash")
    with pytest.raises(RequestError, match="own backend alone") as refused:
        pipelines.load(preset, placement)
    assert refused.value.field == "attention_backend"


def test_on_a_processor_both_are_refused_before_anything_is_loaded() -> None:
    here = dataclasses.replace(measure(), accelerator=None)
    preset = find_preset("wan")
    for fields in ({"compile": True}, {"attention_backend": "flash"}):
        with pytest.raises(RequestError, match="graphics card") as refused:
            pipelines.place(preset, asked("wan", **fields), here)
        assert refused.value.field in fields
