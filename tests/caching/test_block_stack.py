"""The stack cache: on every family, what is skipped is exactly what was said, and off again leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.cached_runs import Load, loading, passes_of, run_undecoded, stacks_of
from support.device import DEVICE
from support.tiny_checkpoints import TINY
from torch import Tensor, nn

from studio import pipelines
from studio.caching.adacache import AdaCachePolicy, Codebook
from studio.caching.block_stack import Action, Captures, Decision, Policy, StackCache, Step, by_name
from studio.caching.budget import BudgetPolicy, Plan, plan_of
from studio.caching.easycache import EasyCachePolicy
from studio.caching.teacache import TeaCachePolicy
from studio.family import Family, family_with
from studio.machine import hardware
from studio.pipelines import LoadedPipeline, StepStart
from studio.preset import find_preset
from studio.records.profiles import find_profile
from studio.requests.caches import AdaCache, EasyCache, TeaCache
from studio.requests.generation import GenerationRequest, request_for

STEPS = 5
NEVER = Codebook(thresholds=(), rates=(1,))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    with loading(tmp_path_factory.mktemp("checkpoints"), STEPS) as load:
        yield load


def _cache(ready: LoadedPipeline, request: GenerationRequest, policy: Policy) -> StackCache:
    total = request.num_inference_steps
    return StackCache(stacks_of(ready), policy, total_steps=total, passes=passes_of(ready, request))


def _counts(ready: LoadedPipeline) -> dict[str, int]:
    """Of the first denoiser's blocks."""
    return {"blocks": len(ready.stacks[0]), "control_blocks": stacks_of(ready)[0].control_blocks}


def _run(ready: LoadedPipeline, request: GenerationRequest, cache: StackCache | None = None) -> np.ndarray:
    """The last step's latents."""
    return run_undecoded(ready, request, cache).latents


class Scripted(Policy):
    """Computes the steps it is told to, and does as it is told in the others."""

    keeps_two = True

    def __init__(
        self, computed: set[int], otherwise: Action = Action.REUSE, gain: float = 1.0, correction: float = 0.0
    ) -> None:
        self.steps, self.otherwise, self.gain, self.correction = computed, otherwise, gain, correction
        self.seen: list[Step] = []

    def decide(self, step: Step) -> Decision:
        self.seen.append(step)
        if step.index in self.steps:
            # Nothing was extrapolated before two steps were computed, so there is nothing to make up for.
            correction = self.correction if step.index > 1 else 0.0
            return Decision(action=Action.COMPUTE, gain=self.gain, correction=correction)
        return Decision(action=self.otherwise, gain=self.gain)


class PerBlock:
    """What the authors' code does: every block's own residual is kept and added. The reference, with torch's hooks."""

    decision = None
    kept_bytes = 0

    def __init__(self, ready: LoadedPipeline, computed: set[int]) -> None:
        self.ready, self.computed = ready, computed
        self.kept: dict[tuple[int, int], Any] = {}
        self.step, self.calls = -1, {position: 0 for position in range(len(ready.blocks))}

    def begin_step(self, index: int, sigma: float) -> None:
        self.step, self.calls = index, dict.fromkeys(self.calls, 0)

    def hooks(self) -> list[Any]:
        return [
            block.register_forward_hook(self._hook(position), with_kwargs=True)
            for position, block in enumerate(self.ready.blocks)
        ]

    def _hook(self, position: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            stream = args[0] if args else kwargs["hidden_states"]
            key = (position, self.calls[position])
            self.calls[position] += 1
            if "control_hidden_states" in by_name(module, args, kwargs):  # the transformer adds its hint in any case
                computes = self.step in self.computed or key not in self.kept
                self.kept[key] = output if computes else self.kept[key]
                return self.kept[key]
            out = output[0] if isinstance(output, tuple) else output
            if self.step in self.computed or key not in self.kept:
                self.kept[key] = out - stream
                return output
            reused = stream + self.kept[key]
            return (reused, *output[1:]) if isinstance(output, tuple) else reused

        return hook


@pytest.mark.parametrize("name", TINY)
def test_a_cache_that_never_skips_changes_no_bit_and_removing_it_changes_none(name: str, load: Any) -> None:
    ready, request = load(name)
    plain = _run(ready, request)
    policy = AdaCachePolicy(AdaCache(moreg=True), NEVER, total_steps=STEPS, **_counts(ready))
    cache = _cache(ready, request, policy)
    with cache.attached():
        assert np.array_equal(_run(ready, request, cache), plain)
    assert np.array_equal(_run(ready, request), plain)
    for module in (*ready.transformers, *ready.blocks):
        assert not module._diffusers_hook.hooks


def _decisions(ready: LoadedPipeline, request: GenerationRequest, policy: Policy) -> list[Decision]:
    """What the stack made of each step."""
    cache, decided = _cache(ready, request, policy), []
    end_step = cache.end_step

    def noted(latents: Tensor) -> None:
        assert cache.decision is not None
        decided.append(cache.decision)
        end_step(latents)

    def started(start: StepStart) -> None:
        cache.begin_step(start.index, start.sigma)

    with cache.attached():
        ready.run(
            request,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            on_step=lambda state: noted(state.latents),
            on_step_start=started,
            interrupted=lambda: False,
        )
    return decided


@pytest.mark.parametrize(("total", "computed"), [(10, 4), (10, 5), (20, 6)])
def test_with_two_denoisers_budget_computes_what_it_planned_and_extrapolates_what_it_planned(
    total: int, computed: int, load: Any
) -> None:
    ready, request = load("wan-two-experts", num_inference_steps=total)
    profile = find_profile("pocket", None)
    assert profile is not None
    plans: list[Plan] = []

    def planned() -> Plan:
        plans.append(plan_of(profile.at(ready.sigmas), computed, handover=ready.handover))
        return plans[-1]

    decided = _decisions(ready, request, BudgetPolicy(planned))
    (plan,) = plans
    kinds = [decision.action for decision in decided]
    assert kinds.count(Action.COMPUTE) == plan.computed == computed
    for step, kind in enumerate(kinds):
        foreseen = Action.EXTRAPOLATE if plan.gains[step] else Action.REUSE
        assert kind is (Action.COMPUTE if plan.computes[step] else foreseen)


def test_the_handover_is_where_the_second_denoiser_begins(load: Any) -> None:
    ready, request = load("wan-two-experts", num_inference_steps=12)
    passes: list[int] = []
    told: list[int | None] = []
    handles = [
        transformer.register_forward_pre_hook(lambda *_, n=number: passes.append(n))
        for number, transformer in enumerate(ready.transformers)
    ]
    try:
        ready.run(
            request,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            on_step=lambda state: told.append(ready.handover),
            interrupted=lambda: False,
        )
    finally:
        for handle in handles:
            handle.remove()
    assert set(told) == {passes.index(1) // 2}
    alone, request = load("wan")
    assert alone.model.handover([999.0, 500.0, 1.0]) is None


@pytest.mark.parametrize("name", TINY)
def test_one_residual_of_the_stack_equals_one_residual_of_each_block(name: str, load: Any) -> None:
    ready, request = load(name)
    computed = {0, 1, 3}
    cache = _cache(ready, request, Scripted(computed))
    with cache.attached():
        ours = _run(ready, request, cache)
    reference = PerBlock(ready, computed)
    handles = reference.hooks()
    try:
        theirs = _run(ready, request, reference)  # pyright: ignore[reportArgumentType]
    finally:
        for handle in handles:
            handle.remove()
    plain = _run(ready, request)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    if len(ready.transformers) == 1:
        assert np.abs(ours - plain).max() > 10 * np.abs(ours - theirs).max()


@pytest.mark.parametrize("name", TINY)
def test_what_is_skipped_is_not_run(name: str, load: Any) -> None:
    ready, request = load(name)
    runs: list[int] = []
    parts = [next(m for m in block.modules() if isinstance(m, nn.Linear)) for block in ready.blocks]
    cache = _cache(ready, request, Scripted({0, 1, 3}))
    with cache.attached():
        handles = [part.register_forward_hook(lambda *_: runs.append(1)) for part in parts]
        _run(ready, request, cache)
        skipping = len(runs)
    runs.clear()
    _run(ready, request)
    for handle in handles:
        handle.remove()
    if len(ready.transformers) == 1:
        assert skipping / len(runs) == pytest.approx(3 / STEPS)
    else:
        assert skipping < len(runs)  # the second transformer has to compute its first step


def test_it_skips_under_offloading_too(load: Any) -> None:
    ready, request = load("wan")
    ready.pipe.enable_model_cpu_offload(device=DEVICE)
    try:
        plain = _run(ready, request)
        cache = _cache(ready, request, Scripted({0, 1, 3}))
        with cache.attached():
            assert not np.array_equal(_run(ready, request, cache), plain)
        assert np.array_equal(_run(ready, request), plain)
    finally:
        ready.pipe.remove_all_hooks()
        pipelines.unload()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("residual", ["attention", "mlp", "block"])
def test_adacache_measures_something_on_every_family(name: str, residual: str, load: Any) -> None:
    ready, request = load(name)
    settings = AdaCache(residual=residual, moreg=True, moreg_window=(0, 1))  # pyright: ignore[reportArgumentType]
    policy = AdaCachePolicy(settings, NEVER, total_steps=STEPS, **_counts(ready))
    cache = _cache(ready, request, policy)
    decisions: list[Decision] = []
    with cache.attached():
        original = policy.decide
        policy.decide = lambda step: decisions.append(original(step)) or decisions[-1]  # type: ignore[method-assign]
        _run(ready, request, cache)
    assert all(decision.distance is not None and decision.distance > 0 for decision in decisions[2:])
    assert all(decision.motion is not None and 0 < decision.motion < 1 for decision in decisions[2:])


class Watching(Policy):
    """Computes everything and keeps what one layer of one block was said to add, pass by pass."""

    def __init__(self, residual: str, layer: int) -> None:
        self.captures = Captures(residual=residual, layers=frozenset({layer}))
        self.residuals: list[Tensor] = []

    def decide(self, step: Step) -> Decision:
        return Decision(action=Action.COMPUTE)

    def measured(self, layer: int, branch: int, residual: Tensor, frames: int | None) -> None:
        self.residuals.append(residual)


def _what_the_stream_gained(block: Any, residual: str, frames: int | None) -> tuple[list[Tensor], list[Any]]:
    """By hand: the stream behind a layer less the stream before it, as the block's other modules see them."""
    entered, gained = [], []

    def noted(stream: Tensor) -> Tensor:
        """The tokens of a frame side by side, where frames are samples."""
        return stream if frames is None else stream.unflatten(0, (-1, frames)).flatten(1, 2)

    # Behind self-attention comes attention to the words; before the feed-forward layer, its norm.
    after_attention = block.norm2 if hasattr(block, "norm3") and hasattr(block, "ffn") else block.attn2
    before_mlp = block.norm3 if hasattr(block, "ffn") else block.norm2

    def note_entered(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"]).float())

    def note_gained(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        gained.append(noted((args[0] if args else kwargs["hidden_states"]).float() - entered[-1]))

    def note_left(_module: nn.Module, _args: Any, output: Any) -> None:
        gained.append(noted((output[0] if isinstance(output, tuple) else output).float() - entered[-1]))

    if residual == "attention":
        handles = [
            block.register_forward_pre_hook(note_entered, with_kwargs=True),
            after_attention.register_forward_pre_hook(note_gained, with_kwargs=True),
        ]
    else:
        handles = [
            before_mlp.register_forward_pre_hook(note_entered, with_kwargs=True),
            block.register_forward_hook(note_left),
        ]
    return gained, handles


def _measured_and_by_hand(
    ready: LoadedPipeline, request: GenerationRequest, residual: str, layer: int
) -> tuple[list[Tensor], list[Tensor]]:
    policy = Watching(residual, layer)
    folded = _of(ready).tokens == "folded"
    gained, handles = _what_the_stream_gained(ready.stacks[0][layer], residual, request.num_frames if folded else None)
    cache = _cache(ready, request, policy)
    try:
        with cache.attached():
            _run(ready, request, cache)
    finally:
        for handle in handles:
            handle.remove()
    return policy.residuals, gained


def _of(ready: LoadedPipeline) -> Family:
    family = family_with(type(ready.transformers[0]).__name__)
    assert family is not None
    return family


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("residual", ["attention", "mlp"])
def test_what_is_measured_is_what_the_stream_gained_where_blocks_gate_by_a_table(
    name: str, residual: str, load: Any
) -> None:
    ready, request = load(name, num_inference_steps=2)
    if not _of(ready).gated_by_table:
        pytest.skip("this family's gates are not known to the stack")
    measured, gained = _measured_and_by_hand(ready, request, residual, layer=stacks_of(ready)[0].control_blocks)
    assert len(gained) > 0
    assert len(measured) == len(gained) * len(ready.transformers)  # by hand only the first of two
    for ours, by_hand in zip(measured, gained, strict=False):
        assert torch.allclose(ours, by_hand, atol=1e-4 * float(by_hand.abs().max()), rtol=1e-4)


def test_the_pockets_third_block_is_measured_behind_its_gate() -> None:
    preset = find_preset("pocket")
    request = request_for(
        preset, prompt="a red car", seed=3, num_inference_steps=2, height=64, width=64, num_frames=5,
        torch_dtype="float32",
    )  # fmt: skip
    ready = pipelines.load(preset, pipelines.place(preset, request, hardware.measure()))
    measured, gained = _measured_and_by_hand(ready, request, "attention", layer=3)
    assert len(measured) == len(gained) == 4
    for ours, by_hand in zip(measured, gained, strict=True):
        assert torch.allclose(ours, by_hand, atol=1e-4 * float(by_hand.abs().max()), rtol=1e-4)
    pipelines.unload()


def test_one_tensor_a_branch_is_kept(load: Any) -> None:
    ready, request = load("wan")
    policy = AdaCachePolicy(AdaCache(), Codebook(thresholds=(), rates=(2,)), total_steps=STEPS, blocks=2)
    cache = _cache(ready, request, policy)
    with cache.attached():
        _run(ready, request, cache)
        tokens = 2 * (request.height // 16) * (request.width // 16)
        width = ready.transformers[0].config.num_attention_heads * ready.transformers[0].config.attention_head_dim
        frames = (request.num_frames - 1) // 4 + 1
        assert cache.kept_bytes == 2 * 4 * width * frames * tokens // 2
    assert cache.kept_bytes == 0


def test_extrapolating_by_nothing_is_reusing_and_by_something_is_not(load: Any) -> None:
    ready, request = load("wan")
    latents = []
    for policy in (
        Scripted({0, 1, 3}),
        Scripted({0, 1, 3}, Action.EXTRAPOLATE, gain=0.0),
        Scripted({0, 1, 3}, Action.EXTRAPOLATE, gain=1.0),
    ):
        cache = _cache(ready, request, policy)
        with cache.attached():
            latents.append(_run(ready, request, cache))
    assert np.array_equal(latents[0], latents[1])
    assert not np.array_equal(latents[0], latents[2])


@pytest.mark.parametrize("name", ["wan", "wan-vace", "latte", "cogvideox", "hunyuanvideo"])
def test_taking_back_all_that_extrapolating_missed_is_extrapolating(name: str, load: Any) -> None:
    ready, request = load(name, num_inference_steps=4)
    latents = []
    for computed, correction in (({0, 1}, 0.0), ({0, 1, 3}, -1.0), ({0, 1, 3}, 0.0)):
        cache = _cache(ready, request, Scripted(computed, Action.EXTRAPOLATE, gain=0.7, correction=correction))
        with cache.attached():
            latents.append(_run(ready, request, cache))
    extrapolated, taken_back, computed_last = latents
    assert np.abs(taken_back - extrapolated).max() <= 1e-4 * np.abs(extrapolated).max()
    assert np.abs(computed_last - extrapolated).max() > 10 * np.abs(taken_back - extrapolated).max()


def test_an_aborted_run_leaves_nothing_to_the_next(load: Any) -> None:
    ready, request = load("wan")
    plain = _run(ready, request)
    cache = _cache(ready, request, Scripted({0, 1}))

    class Stop(Exception):
        pass

    def begin(start: StepStart) -> None:
        cache.begin_step(start.index, start.sigma)
        if start.index == 3:
            raise Stop

    with pytest.raises(Stop), cache.attached():
        ready.run(
            request,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            on_step=lambda state: None,
            on_step_start=begin,
            interrupted=lambda: False,
        )
    assert np.array_equal(_run(ready, request), plain)
    again = [_cache(ready, request, Scripted({0, 1, 3})) for _ in range(2)]
    results = []
    for each in again:
        with each.attached():
            results.append(_run(ready, request, each))
    assert np.array_equal(*results)


@pytest.mark.parametrize("steps", [4, 9])
def test_another_number_of_steps_is_another_schedule(steps: int, load: Any) -> None:
    ready, request = load("wan", num_inference_steps=steps)
    policy = AdaCachePolicy(
        AdaCache(), Codebook(thresholds=(), rates=(3,)), total_steps=steps, blocks=len(ready.stacks[0])
    )
    cache = _cache(ready, request, policy)
    computed: list[int] = []
    original = policy.decide
    policy.decide = lambda step: _noting(original(step), step, computed)  # type: ignore[method-assign]
    with cache.attached():
        _run(ready, request, cache)
    assert computed[:2] == [0, 1]
    assert computed[-2:] == [steps - 2, steps - 1]
    assert len(computed) < steps or steps == 4


def _noting(decision: Decision, step: Step, computed: list[int]) -> Decision:
    if decision.action is Action.COMPUTE:
        computed.append(step.index)
    return decision


@pytest.mark.parametrize("name", TINY)
def test_the_rivals_in_our_own_lines_skip_more_for_a_larger_threshold(name: str, load: Any) -> None:
    ready, request = load(name, num_inference_steps=8)
    for make in (
        lambda threshold: EasyCachePolicy(EasyCache(threshold=threshold), total_steps=8),
        lambda threshold: TeaCachePolicy(TeaCache(threshold=threshold), total_steps=8),
    ):
        counts = []
        for threshold in (1e-9, 1e9):
            policy, computed = make(threshold), []
            original = policy.decide
            policy.decide = lambda step, o=original, c=computed: _noting(o(step), step, c)  # type: ignore
            cache = _cache(ready, request, policy)
            with cache.attached():
                _run(ready, request, cache)
            counts.append(len(computed))
        assert counts[0] == 8
        assert counts[1] <= 5


# -- control blocks ---------------------------------------------------------------------------------------------------


def _asked_twice(ready: LoadedPipeline, request: GenerationRequest, cache: Any) -> tuple[Tensor, Tensor]:
    """What the denoiser says of one input, computed and then skipped."""
    asked: list[dict[str, Any]] = []
    handle = ready.transformers[0].register_forward_pre_hook(
        lambda _module, _args, kwargs: asked.append(kwargs), with_kwargs=True
    )
    _run(ready, request.model_copy(update={"num_inference_steps": 2}))
    handle.remove()
    said = []
    with torch.no_grad(), cache.attached():
        for step in range(2):
            cache.begin_step(step, 0.5)
            said.append(ready.transformers[0](**asked[0])[0].clone())
    return said[0], said[1]


@pytest.mark.parametrize("name", ["wan-vace", "wan-vace-two-experts"])
def test_hints_are_neither_lost_nor_added_twice_where_blocks_are_skipped(name: str, load: Any) -> None:
    """One hint is added behind the last block of the one, and before the last block of the other."""
    ready, request = load(name)
    cache = StackCache(stacks_of(ready)[:1], Scripted({0}), total_steps=2, passes=1)
    computed, skipped = _asked_twice(ready, request, cache)
    assert torch.allclose(skipped, computed, rtol=1e-4, atol=1e-5)
    free, _ = load(name, control=None)
    without, _ = _asked_twice(free, request.model_copy(update={"control": None}), cache)
    assert (without - computed).abs().max() > 1000 * (skipped - computed).abs().max(), "hints say nothing here"


def test_control_blocks_are_skipped_with_the_others(load: Any) -> None:
    ready, request = load("wan-vace")
    runs: list[int] = []
    (stack,) = stacks_of(ready)
    assert stack.control_blocks == 2
    handles = [block.attn1.to_q.register_forward_hook(lambda *_: runs.append(1)) for block in stack.blocks[:2]]
    cache = _cache(ready, request, Scripted({0, 1, 3}))
    with cache.attached():
        _run(ready, request, cache)
    for handle in handles:
        handle.remove()
    assert len(runs) == 3 * 2 * 2, "steps, passes, control blocks"


def test_adacache_measures_the_middle_of_what_follows_control_blocks() -> None:
    policy = AdaCachePolicy(AdaCache(), NEVER, total_steps=STEPS, blocks=45, control_blocks=15)
    assert policy.captures.layers == {15 + 14}
