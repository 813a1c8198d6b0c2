"""The peers: on every family a method works and leaves no trace, or is refused for a reason that holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks import MagCacheConfig, PyramidAttentionBroadcastConfig
from support.tiny_checkpoints import TINY, preset_for, save
from torch import Tensor, nn

from studio import pipelines
from studio.caching import METHODS, Cache, Decision, Occasion, Stack, cache_for, peers
from studio.errors import RequestError
from studio.machine import hardware
from studio.pipelines import LoadedPipeline, StepStart
from studio.pipelines.families import FAMILIES
from studio.requests import caches
from studio.requests.caches import (
    FasterCache,
    FirstBlockCache,
    MagCache,
    PyramidAttentionBroadcast,
    SeaCache,
    TaylorSeer,
    why_not,
)
from studio.requests.generation import GenerationRequest, request_for

STEPS = 8
_PLAIN: dict[str, tuple[np.ndarray, int]] = {}
"""Each family's uncached latents and linear work."""
SKIPPING: dict[str, Any] = {
    "first_block": FirstBlockCache(threshold=2.0),  # random weights change more from step to step than learnt ones
    "magcache": MagCache(),
    "seacache": SeaCache(threshold=2.0),
    "taylorseer": TaylorSeer(),
    "pab": PyramidAttentionBroadcast(timestep_range=(0, 900)),
    "fastercache": FasterCache(),
}
PIPELINE = {
    "cogvideox": "CogVideoXPipeline",
    "hunyuanvideo": "HunyuanVideoPipeline",
    "hunyuanvideo-1.5": "HunyuanVideo15Pipeline",
    "sana-video": "SanaVideoPipeline",
    "latte": "LattePipeline",
    "mochi": "MochiPipeline",
    "allegro": "AllegroPipeline",
    "ltx": "LTXPipeline",
    "wan": "WanPipeline",
    "cogvideox-5b": "CogVideoXPipeline",
    "ltx-conditioned": "LTXPipeline",
    "wan-two-experts": "WanPipeline",
    "wan-ti2v": "WanPipeline",
}
PAIRS = [(name, method) for name in TINY for method in SKIPPING]
ALLOWED = [(name, method) for name, method in PAIRS if why_not(method, PIPELINE[name]) is None]
REFUSED = [(name, method) for name, method in PAIRS if why_not(method, PIPELINE[name]) is not None]

Load = Callable[..., tuple[LoadedPipeline, GenerationRequest]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """A tiny checkpoint in the slot, with a request for it."""
    base = tmp_path_factory.mktemp("checkpoints")
    here = dataclasses.replace(hardware.measure(), accelerator=None)

    def loaded(name: str, **fields: Any) -> tuple[LoadedPipeline, GenerationRequest]:
        folder = base / name if (base / name).is_dir() else save(name, base)
        preset = preset_for(name, folder)
        request = request_for(
            preset, prompt="a red car, on a road", **({"seed": 3, "num_inference_steps": STEPS} | fields)
        )
        ready = pipelines.load(preset, pipelines.place(preset, request, here))
        if name == "hunyuanvideo-1.5":  # it pads to two thousand tokens, which is most of its time here
            ready.pipe.tokenizer_max_length, ready.pipe.tokenizer_2_max_length = 64, 16
            ready.pipe.vision_num_semantic_tokens = 8
        return ready, request

    yield loaded
    pipelines.unload()


def _occasion(ready: LoadedPipeline, request: GenerationRequest) -> Occasion:
    stacks = zip(ready.transformers, ready.stacks, strict=True)
    return Occasion(
        pipe=ready.pipe,
        stacks=tuple(Stack(transformer=transformer, blocks=blocks) for transformer, blocks in stacks),
        total_steps=request.num_inference_steps,
        passes=2 if ready.branches == "separate" and request.guidance_scale > 1 else 1,
    )


class Enough(Exception):
    """Ends a run after a step; nothing is decoded."""


@dataclasses.dataclass
class Told:
    """What a run showed."""

    latents: np.ndarray
    """Of the last step: eight bits would hide small differences."""
    decisions: list[Decision | None]
    """Each step's, at its end."""
    ages: list[int]
    kept_bytes: int
    """The most that was kept after a step."""


def _run(
    ready: LoadedPipeline, request: GenerationRequest, cache: Cache | None = None, stop_after: int | None = None
) -> Told:
    told = Told(np.zeros(0), [], [], 0)
    last = request.num_inference_steps - 1 if stop_after is None else stop_after

    def started(start: StepStart) -> None:
        if cache is not None:
            cache.begin_step(start.index, start.sigma)

    def ended(state: Any) -> None:
        told.latents = state.latents.float().numpy().copy()
        if cache is not None:
            told.decisions.append(cache.decision)
            told.ages.append(cache.age)
            told.kept_bytes = max(told.kept_bytes, cache.kept_bytes)
        if state.index == last:
            raise Enough

    with pytest.raises(Enough):
        ready.run(
            request,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            on_step=ended,
            on_step_start=started,
            interrupted=lambda: False,
        )
    return told


@contextmanager
def _linear_work(blocks: tuple[nn.Module, ...]) -> Iterator[list[int]]:
    """Adds up, call by call, what goes into the blocks' linear layers. Hooks would also see layers that are skipped."""
    weights = {id(m.weight) for block in blocks for m in block.modules() if isinstance(m, nn.Linear)}
    original, work = torch.nn.functional.linear, []

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if id(weight) in weights:
            work.append(x.numel())
        return original(x, weight, bias)

    torch.nn.functional.linear = linear
    try:
        yield work
    finally:
        torch.nn.functional.linear = original


def _plain(name: str, ready: LoadedPipeline, request: GenerationRequest) -> tuple[np.ndarray, int]:
    if name not in _PLAIN:
        with _linear_work(ready.blocks) as work:
            _PLAIN[name] = _run(ready, request).latents, sum(work)
    return _PLAIN[name]


def _hooks(ready: LoadedPipeline) -> list[str]:
    registries = [getattr(m, "_diffusers_hook", None) for t in ready.transformers for m in t.modules()]
    return [name for registry in registries if registry is not None for name in registry.hooks]


def test_every_method_and_every_family_is_in_the_table() -> None:
    assert set(SKIPPING) == set(peers.PEERS) <= set(METHODS)
    assert set(PIPELINE) == set(TINY)
    assert set(PIPELINE.values()) == set(FAMILIES)
    for (method, pipeline), reason in caches._REFUSED.items():
        assert method in SKIPPING
        assert pipeline in FAMILIES
        assert 20 < len(reason) < 140
        assert reason[0].isupper()
        assert reason.endswith(".")


@pytest.mark.parametrize(("name", "method"), ALLOWED)
def test_what_is_allowed_skips_repeats_itself_and_leaves_no_trace(name: str, method: str, load: Load) -> None:
    ready, request = load(name)
    assert type(ready.pipe).__name__ == PIPELINE[name]
    plain, full = _plain(name, ready, request)
    cache = cache_for(SKIPPING[method], _occasion(ready, request))
    with cache.attached(), _linear_work(ready.blocks) as part:
        cached = _run(ready, request, cache)
    assert sum(part) < 0.97 * full
    assert np.isfinite(cached.latents).all()
    assert 0 < np.abs(cached.latents - plain).mean() < 0.3 * np.abs(plain).mean()
    assert cached.kept_bytes > 0
    assert cache.kept_bytes == 0

    assert not _hooks(ready)
    assert np.array_equal(_run(ready, request).latents, plain)
    again = cache_for(SKIPPING[method], _occasion(ready, request))
    with again.attached():
        assert np.array_equal(_run(ready, request, again).latents, cached.latents)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ltx", "first_block"),  # which decides for each pass by itself, where there are two
        ("hunyuanvideo", "first_block"),
        *((name, method) for name in ("wan", "ltx") for method in ("magcache", "seacache", "taylorseer")),
    ],
)
def test_the_decision_says_what_was_done(name: str, method: str, load: Load) -> None:
    ready, request = load(name)
    cache = cache_for(SKIPPING[method], _occasion(ready, request))
    by_step: list[int] = []
    begin = cache.begin_step
    with cache.attached(), _linear_work(ready.blocks[1:]) as work:
        cache.begin_step = lambda index, sigma: (by_step.append(sum(work)), begin(index, sigma))[1]
        told = _run(ready, request, cache)
    each = np.diff([*by_step, sum(work)])
    kinds = [decision.action.value for decision in told.decisions if decision is not None]
    assert len(kinds) == STEPS
    assert kinds[0] == "computed"
    assert {"reused", "extrapolated"} & set(kinds)
    for kind, amount in zip(kinds, each, strict=True):
        assert (amount == each[0]) == (kind == "computed")


@pytest.mark.parametrize(("name", "method"), REFUSED)
def test_what_is_refused_is_refused_with_a_way_out(name: str, method: str, load: Load) -> None:
    ready, request = load(name)
    with pytest.raises(RequestError) as refused:
        cache_for(SKIPPING[method], _occasion(ready, request))
    assert (refused.value.field, refused.value.value) == ("cache", method)
    for said in (method, PIPELINE[name], str(why_not(method, PIPELINE[name])), "Choose adacache"):
        assert said in str(refused.value)


@pytest.mark.parametrize(("name", "method"), [p for p in REFUSED if p[0] in ("latte", "ltx", "wan")])
def test_what_is_refused_would_not_have_worked(
    name: str, method: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, request = load(name, **({"height": 32, "width": 32} if name == "latte" else {}))
    monkeypatch.setattr(caches, "why_not", lambda method, pipeline: None)
    cache = peers.PEERS[method](SKIPPING[method], _occasion(ready, request))
    if method == "fastercache":  # without being told that there is nothing to leave out
        monkeypatch.setattr(cache, "before_pass", lambda *_: setattr(cache, "_now", 500.0 if cache._index else 1000.0))
    with _linear_work(ready.blocks) as full:
        plain = _run(ready, request).latents
    with _linear_work(ready.blocks) as part, cache.attached():
        try:
            _run(ready, request, cache)
        except (RuntimeError, IndexError, ValueError, AssertionError):
            pass
        else:
            assert sum(part) == sum(full), "it skips, and so it works"
    assert np.array_equal(_run(ready, request).latents, plain)


def test_each_pass_of_a_step_repeats_its_own_attention(load: Load) -> None:
    ready, request = load("wan")
    plain = _run(ready, request).latents
    settings = PyramidAttentionBroadcast(self_attention_skip_range=2, timestep_range=(0, 1001))
    cache = cache_for(settings, _occasion(ready, request))
    with cache.attached():
        ours = _run(ready, request, cache).latents
    transformer: Any = ready.transformers[0]
    transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            cross_attention_block_skip_range=settings.cross_attention_skip_range,
            spatial_attention_timestep_skip_range=(0, 1001),
            cross_attention_timestep_skip_range=(0, 1001),
            current_timestep_callback=lambda: 500,
        )
    )
    try:
        theirs = _run(ready, request).latents  # the unguided branch is given the guided one's attention
    finally:
        transformer.disable_cache()
    assert np.abs(ours - plain).mean() < np.abs(theirs - plain).mean()


def test_a_second_transformer_goes_on_counting(load: Load) -> None:
    ready, request = load("wan-two-experts")
    cache = cache_for(MagCache(retention_ratio=0.5), _occasion(ready, request))
    passes = [0, 0]
    with cache.attached():
        handles = [
            t.register_forward_hook(lambda *_, n=n: passes.__setitem__(n, passes[n] + 1))
            for n, t in enumerate(ready.transformers)
        ]
        told = _run(ready, request, cache)
        for handle in handles:
            handle.remove()
    first = passes[0] // 2
    assert 0 < first < STEPS // 2
    kinds = [decision.action.value for decision in told.decisions if decision is not None]
    assert kinds == ["computed"] * 4 + ["reused"] * 3 + ["computed"]
    assert told.ages == [0, 0, 0, 0, 1, 2, 3, 0]


def test_ratios_are_measured_as_diffusers_does(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    ready, request = load("ltx")
    entered: list[Tensor] = []
    norms: list[Tensor] = []
    first, last = ready.blocks[0], ready.blocks[-1]
    handles = [
        first.register_forward_pre_hook(
            lambda m, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        last.register_forward_hook(lambda m, args, output: norms.append((output - entered[-1]).norm(dim=-1))),
    ]
    _run(ready, request)
    for handle in handles:
        handle.remove()
    transformer: Any = ready.transformers[0]
    transformer.enable_cache(MagCacheConfig(calibrate=True, num_inference_steps=STEPS))
    try:
        _run(ready, request)
    finally:
        transformer.disable_cache()
    printed = re.search(r"\[(1\.0, .*)\]", capsys.readouterr().out)
    assert printed is not None
    theirs = [float(number) for number in printed[1].split(",")]
    assert peers.mag_ratios_from(norms) == pytest.approx(theirs, rel=1e-5)
    assert peers.mag_ratios_from([]) == ()


def test_ratios_far_from_one_forbid_skipping(load: Load) -> None:
    ready, request = load("ltx")
    kinds = {}
    for ratios in ((), (1.0,) * STEPS, (1.5,) * STEPS):
        cache = cache_for(MagCache(mag_ratios=ratios), _occasion(ready, request))
        with cache.attached():
            kinds[ratios] = [decision.action.value for decision in _run(ready, request, cache).decisions if decision]
    assert kinds[()] == kinds[(1.0,) * STEPS]
    assert "reused" in kinds[()]
    assert kinds[(1.5,) * STEPS] == ["computed"] * STEPS


@pytest.mark.parametrize("method", SKIPPING)
def test_an_aborted_run_leaves_nothing_to_the_next(method: str, load: Load) -> None:
    ready, request = load("sana-video")  # diffusers resets the caches of the other families itself
    cache = cache_for(SKIPPING[method], _occasion(ready, request))
    with cache.attached():
        whole = _run(ready, request, cache).latents
        _run(ready, request, cache, stop_after=3)
        assert np.array_equal(_run(ready, request, cache).latents, whole)


def test_a_failed_attachment_takes_everything_off_again(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, request = load("allegro")
    monkeypatch.setattr(peers, "_introduce", lambda blocks: None)
    from diffusers.hooks._helpers import TransformerBlockRegistry

    monkeypatch.delitem(TransformerBlockRegistry._registry, type(ready.blocks[0]), raising=False)
    cache = cache_for(SKIPPING["first_block"], _occasion(ready, request))
    with pytest.raises(ValueError, match="not registered"), cache.attached():
        raise AssertionError("it should not have come so far")
    assert not _hooks(ready)


@pytest.mark.parametrize(
    ("name", "channels", "frames", "side"),
    [("ltx", 8, 2, 2), ("cogvideox", 4, 3, 4), ("hunyuanvideo-1.5", 4, 3, 4), ("wan", 4, 3, 4)],
)
def test_seacache_is_shown_the_clip_and_nothing_else(
    name: str, channels: int, frames: int, side: int, load: Load
) -> None:
    ready, request = load(name)
    cache = peers.Sea(SKIPPING["seacache"], _occasion(ready, request))
    shown: list[Tensor] = []
    original = cache._pictures
    cache._pictures = lambda *call: shown.extend(original(*call)) or shown[-1:]  # type: ignore[method-assign]
    with cache.attached():
        told = _run(ready, request, cache, stop_after=0)
    assert {tuple(latents.shape) for latents in shown} == {(channels, frames, side, side)}
    assert len(shown) == cache._occasion.passes
    noise = torch.Generator("cpu").manual_seed(request.seed)
    assert told.latents.size == shown[0].numel()
    if name == "wan":  # the first step is shown the noise itself
        assert torch.equal(shown[0].flatten(), torch.randn(1, *shown[0].shape, generator=noise).flatten())


@pytest.mark.parametrize("method", ["magcache", "taylorseer", "pab"])
def test_an_offloaded_model_is_cached_as_well(method: str, load: Load) -> None:
    ready, request = load("wan")
    cache = cache_for(SKIPPING[method], _occasion(ready, request))
    with cache.attached():
        cached = _run(ready, request, cache).latents
    ready.pipe.enable_model_cpu_offload(device="cpu")  # to where it is already: the same hooks as to a card
    try:
        plain = _run(ready, request).latents
        again = cache_for(SKIPPING[method], _occasion(ready, request))
        with again.attached():
            assert np.array_equal(_run(ready, request, again).latents, cached)
            assert np.array_equal(_run(ready, request, again).latents, cached)
        assert np.array_equal(_run(ready, request).latents, plain)
        assert not _hooks(ready)
    finally:
        ready.pipe.remove_all_hooks()
        ready.pipe._all_hooks = []
    assert np.array_equal(_run(ready, request).latents, plain)


@pytest.mark.parametrize("method", ["first_block", "pab", "fastercache"])
def test_without_guidance_there_is_one_sample_and_it_still_skips(method: str, load: Load) -> None:
    ready, request = load("cogvideox", guidance_scale=1.0)
    with _linear_work(ready.blocks) as full:
        _run(ready, request)
    cache = cache_for(SKIPPING[method], _occasion(ready, request))
    with cache.attached(), _linear_work(ready.blocks) as part:
        assert np.isfinite(_run(ready, request, cache).latents).all()
    assert sum(part) < sum(full)


@pytest.mark.parametrize(("s", "signal", "pipeline"), [(0.6, 0.8, "CogVideoXPipeline"), (3.0, 1.0, "AllegroPipeline")])
def test_noise_is_told_as_flow_models_count_it(s: float, signal: float, pipeline: str) -> None:
    share = peers.noise_share(pipeline, s)
    assert share / (1 - share) == pytest.approx(s / signal)
    assert peers.noise_share("WanPipeline", 0.7) == 0.7
    assert peers.noise_share("CogVideoXPipeline", 1.0) == 1.0
