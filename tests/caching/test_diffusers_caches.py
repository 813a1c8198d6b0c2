"""The peers: on every family a method works and leaves no trace, or is refused for a reason that holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from diffusers.hooks import PyramidAttentionBroadcastConfig
from support.cached_runs import Load, loading, passes_of, run_undecoded, stacks_of
from support.device import DEVICE
from support.tiny_checkpoints import TINY
from torch import Tensor, nn

from studio.caching import CacheRun, cache_for
from studio.caching.diffusers_caches import diffusers_cache, fastercache, seacache
from studio.errors import RequestError
from studio.family import FAMILIES, Family, NoiseScale
from studio.pipelines import LoadedPipeline
from studio.requests.caches import (
    METHODS,
    FasterCache,
    FirstBlockCache,
    MagCache,
    PyramidAttentionBroadcast,
    SeaCache,
    TaylorSeer,
    why_not,
)
from studio.requests.generation import GenerationRequest

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
PIPELINE = {name: get_type_hints(tiny.build)["return"].__name__ for name, tiny in TINY.items()}
PAIRS = [(name, method) for name in TINY for method in SKIPPING]
ALLOWED = [(name, method) for name, method in PAIRS if why_not(method, PIPELINE[name]) is None]
REFUSED = [(name, method) for name, method in PAIRS if why_not(method, PIPELINE[name]) is not None]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    with loading(tmp_path_factory.mktemp("checkpoints"), STEPS) as load:
        yield load


def _cache_run(ready: LoadedPipeline, request: GenerationRequest) -> CacheRun:
    return CacheRun(
        pipe=ready.pipe,
        stacks=stacks_of(ready),
        total_steps=request.num_inference_steps,
        passes=passes_of(ready, request),
    )


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
            _PLAIN[name] = run_undecoded(ready, request).latents, sum(work)
    return _PLAIN[name]


def _hooks(ready: LoadedPipeline) -> list[str]:
    registries = [getattr(m, "_diffusers_hook", None) for t in ready.transformers for m in t.modules()]
    return [name for registry in registries if registry is not None for name in registry.hooks]


def test_every_method_and_every_family_is_in_the_table() -> None:
    folder = Path(diffusers_cache.__file__).parent
    assert set(SKIPPING) == {path.stem for path in folder.glob("*.py")} - {"__init__", "diffusers_cache"}
    assert set(SKIPPING) <= set(METHODS)
    assert set(PIPELINE.values()) == set(FAMILIES)
    for family in FAMILIES.values():
        for method, reason in family.refused_caches.items():
            assert method in SKIPPING
            assert 20 < len(reason) < 140
            assert reason[0].islower(), "it follows a colon"
            assert reason.endswith(".")


@pytest.mark.parametrize(("name", "method"), ALLOWED)
def test_what_is_allowed_skips_repeats_itself_and_leaves_no_trace(name: str, method: str, load: Load) -> None:
    ready, request = load(name)
    assert type(ready.pipe).__name__ == PIPELINE[name]
    plain, full = _plain(name, ready, request)
    cache = cache_for(SKIPPING[method], _cache_run(ready, request))
    with cache.attached(), _linear_work(ready.blocks) as part:
        cached = run_undecoded(ready, request, cache)
    assert sum(part) < 0.97 * full
    assert np.isfinite(cached.latents).all()
    assert 0 < np.abs(cached.latents - plain).mean() < 0.3 * np.abs(plain).mean()
    assert cached.kept_bytes > 0
    assert cache.kept_bytes == 0

    assert not _hooks(ready)
    assert np.array_equal(run_undecoded(ready, request).latents, plain)
    again = cache_for(SKIPPING[method], _cache_run(ready, request))
    with again.attached():
        assert np.array_equal(run_undecoded(ready, request, again).latents, cached.latents)


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
    cache = cache_for(SKIPPING[method], _cache_run(ready, request))
    by_step: list[int] = []
    begin = cache.begin_step
    with cache.attached(), _linear_work(ready.blocks[1:]) as work:
        cache.begin_step = lambda index, sigma: (by_step.append(sum(work)), begin(index, sigma))[1]
        told = run_undecoded(ready, request, cache)
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
        cache_for(SKIPPING[method], _cache_run(ready, request))
    assert (refused.value.field, refused.value.value) == ("cache", method)
    for said in (SKIPPING[method].title, PIPELINE[name], str(why_not(method, PIPELINE[name])), "Choose AdaCache"):
        assert said in str(refused.value)


class Unrefused(CacheRun):
    """A run on which every method may be tried."""

    def why_not(self, method: str) -> str | None:
        return None


class Unregistered(CacheRun):
    """A run whose blocks nobody tells diffusers of."""

    @property
    def family(self) -> Family:
        return dataclasses.replace(super().family, block_outputs=None)


class FasterUntold(fastercache.FasterCache):
    """Without being told that there is nothing to leave out."""

    def before_pass(self, *_: object) -> None:
        self._now = 500.0 if self._index else 1000.0


WITHOUT_A_REFUSAL: dict[tuple[str, str], tuple[type[Exception], str] | None] = {
    ("latte", "first_block"): (RuntimeError, "must match the size of tensor"),
    ("latte", "magcache"): (RuntimeError, "must match the size of tensor"),
    ("latte", "seacache"): None,  # it never skips
    ("ltx", "fastercache"): (RuntimeError, "permute"),
    ("wan", "fastercache"): (IndexError, "tuple index out of range"),
}
"""What would happen; None where everything is computed all the same."""


@pytest.mark.parametrize(("name", "method"), [pair for pair in REFUSED if pair[0] in ("latte", "ltx", "wan")])
def test_what_is_refused_would_not_have_worked(name: str, method: str, load: Load) -> None:
    ready, request = load(name, **({"height": 32, "width": 32} if name == "latte" else {}))
    run = Unrefused(**vars(_cache_run(ready, request)))
    cache = FasterUntold(SKIPPING[method], run) if method == "fastercache" else cache_for(SKIPPING[method], run)
    fault = WITHOUT_A_REFUSAL[name, method]
    with _linear_work(ready.blocks) as full:
        plain = run_undecoded(ready, request).latents
    with _linear_work(ready.blocks) as part, cache.attached():
        if fault is None:
            run_undecoded(ready, request, cache)
            assert sum(part) == sum(full)
        else:
            with pytest.raises(fault[0], match=fault[1]):
                run_undecoded(ready, request, cache)
    assert np.array_equal(run_undecoded(ready, request).latents, plain)


@pytest.mark.parametrize("method", ["first_block", "magcache", "seacache"])
def test_what_skips_blocks_between_hints_would_add_them_twice(method: str, load: Load) -> None:
    """One input, asked again and again: a cache that reuses something would say the same."""
    ready, request = load("wan-vace")
    asked: list[dict[str, Any]] = []
    handle = ready.transformers[0].register_forward_pre_hook(
        lambda _module, _args, kwargs: asked.append(kwargs), with_kwargs=True
    )
    run_undecoded(ready, request, stop_after=0)
    handle.remove()
    run = dataclasses.replace(Unrefused(**vars(_cache_run(ready, request))), passes=1)
    settings = {"first_block": SKIPPING["first_block"], "magcache": MagCache(retention_ratio=0.1)}
    cache = cache_for(settings.get(method, SeaCache(threshold=2.0)), run)
    with torch.no_grad(), cache.attached(), _linear_work(ready.blocks) as work:
        said, done = [], []
        for step in range(4):
            cache.begin_step(step, 1.0 - step / STEPS)
            before = sum(work)
            said.append(ready.transformers[0](**asked[0])[0].clone())
            done.append(sum(work) - before)
    skipped = [one for one, amount in zip(said, done, strict=True) if amount < done[0]]
    assert skipped, "nothing was skipped"
    assert min(float((one - said[0]).abs().max()) for one in skipped) > 0.05 * float(said[0].abs().max())


def test_each_pass_of_a_step_repeats_its_own_attention(load: Load) -> None:
    ready, request = load("wan")
    plain = run_undecoded(ready, request).latents
    settings = PyramidAttentionBroadcast(self_attention_skip_range=2, timestep_range=(0, 1001))
    cache = cache_for(settings, _cache_run(ready, request))
    with cache.attached():
        ours = run_undecoded(ready, request, cache).latents
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
        theirs = run_undecoded(ready, request).latents  # the unguided branch is given the guided one's attention
    finally:
        transformer.disable_cache()
    assert np.abs(ours - plain).mean() < np.abs(theirs - plain).mean()


def test_a_second_transformer_goes_on_counting(load: Load) -> None:
    ready, request = load("wan-two-experts")
    cache = cache_for(MagCache(retention_ratio=0.5), _cache_run(ready, request))
    passes = [0, 0]
    with cache.attached():
        handles = [
            t.register_forward_hook(lambda *_, n=n: passes.__setitem__(n, passes[n] + 1))
            for n, t in enumerate(ready.transformers)
        ]
        told = run_undecoded(ready, request, cache)
        for handle in handles:
            handle.remove()
    first = passes[0] // 2
    assert 0 < first < STEPS // 2
    kinds = [decision.action.value for decision in told.decisions if decision is not None]
    assert kinds == ["computed"] * 4 + ["reused"] * 3 + ["computed"]


def test_ratios_far_from_one_forbid_skipping(load: Load) -> None:
    ready, request = load("ltx")
    kinds = {}
    for ratios in ((), (1.0,) * STEPS, (1.5,) * STEPS):
        cache = cache_for(MagCache(mag_ratios=ratios), _cache_run(ready, request))
        with cache.attached():
            decisions = run_undecoded(ready, request, cache).decisions
            kinds[ratios] = [decision.action.value for decision in decisions if decision]
    assert kinds[()] == kinds[(1.0,) * STEPS]
    assert "reused" in kinds[()]
    assert kinds[(1.5,) * STEPS] == ["computed"] * STEPS


@pytest.mark.parametrize("method", SKIPPING)
def test_an_aborted_run_leaves_nothing_to_the_next(method: str, load: Load) -> None:
    ready, request = load("sana-video")  # diffusers resets the caches of the other families itself
    cache = cache_for(SKIPPING[method], _cache_run(ready, request))
    with cache.attached():
        whole = run_undecoded(ready, request, cache).latents
        run_undecoded(ready, request, cache, stop_after=3)
        assert np.array_equal(run_undecoded(ready, request, cache).latents, whole)


def test_a_failed_attachment_takes_everything_off_again(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, request = load("allegro")
    from diffusers.hooks._helpers import TransformerBlockRegistry

    monkeypatch.delitem(TransformerBlockRegistry._registry, type(ready.blocks[0]), raising=False)
    run = Unregistered(**vars(_cache_run(ready, request)))
    cache = cache_for(SKIPPING["first_block"], run)
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
    cache = seacache.SeaCache(SKIPPING["seacache"], _cache_run(ready, request))
    shown: list[Tensor] = []
    original = cache._pictures
    cache._pictures = lambda *call: shown.extend(original(*call)) or shown[-1:]  # type: ignore[method-assign]
    with cache.attached():
        told = run_undecoded(ready, request, cache, stop_after=0)
    assert {tuple(latents.shape) for latents in shown} == {(channels, frames, side, side)}
    assert len(shown) == cache.run.passes
    noise = torch.Generator("cpu").manual_seed(request.seed)
    assert told.latents.size == shown[0].numel()
    if name == "wan":  # the first step is shown the noise itself
        assert torch.equal(shown[0].flatten().cpu(), torch.randn(1, *shown[0].shape, generator=noise).flatten())


@pytest.mark.parametrize("method", ["magcache", "taylorseer", "pab"])
def test_an_offloaded_model_is_cached_as_well(method: str, load: Load) -> None:
    ready, request = load("wan")
    cache = cache_for(SKIPPING[method], _cache_run(ready, request))
    with cache.attached():
        cached = run_undecoded(ready, request, cache).latents
    ready.pipe.enable_model_cpu_offload(device=DEVICE)  # on a processor to where it is already, by the same hooks
    try:
        plain = run_undecoded(ready, request).latents
        again = cache_for(SKIPPING[method], _cache_run(ready, request))
        with again.attached():
            assert np.array_equal(run_undecoded(ready, request, again).latents, cached)
            assert np.array_equal(run_undecoded(ready, request, again).latents, cached)
        assert np.array_equal(run_undecoded(ready, request).latents, plain)
        assert not _hooks(ready)
    finally:
        ready.pipe.remove_all_hooks()
        ready.pipe._all_hooks = []
        ready.pipe.to(DEVICE)
    assert np.array_equal(run_undecoded(ready, request).latents, plain)


@pytest.mark.parametrize("method", ["first_block", "pab", "fastercache"])
def test_without_guidance_there_is_one_sample_and_it_still_skips(method: str, load: Load) -> None:
    ready, request = load("cogvideox", guidance_scale=1.0)
    with _linear_work(ready.blocks) as full:
        run_undecoded(ready, request)
    cache = cache_for(SKIPPING[method], _cache_run(ready, request))
    with cache.attached(), _linear_work(ready.blocks) as part:
        assert np.isfinite(run_undecoded(ready, request, cache).latents).all()
    assert sum(part) < sum(full)


@pytest.mark.parametrize(("s", "signal", "scale"), [(0.6, 0.8, "variance kept"), (3.0, 1.0, "signal kept")])
def test_noise_is_told_as_flow_models_count_it(s: float, signal: float, scale: NoiseScale) -> None:
    share = diffusers_cache.noise_share(scale, s)
    assert share / (1 - share) == pytest.approx(s / signal)
    assert diffusers_cache.noise_share("share", 0.7) == 0.7
    assert diffusers_cache.noise_share("variance kept", 1.0) == 1.0
