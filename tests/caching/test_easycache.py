"""EasyCache: the authors' rule, held against a second reading of it on sequences that nobody arranged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from studio.caching.block_stack import Action, Step
from studio.caching.easycache import EasyCachePolicy
from studio.requests.caches import EasyCache


def _wandering(seed: int, steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a model over a run: two walks whose strides grow and shrink."""
    generator = torch.Generator().manual_seed(seed)
    strides = torch.rand(2, steps, generator=generator) ** 2
    inputs, outputs = (
        (
            torch.randn(24, generator=generator)
            + (torch.randn(steps, 24, generator=generator) * stride[:, None]).cumsum(0)
        )
        for stride in strides
    )
    return list(inputs), list(outputs)


def _reference(inputs: list[Tensor], outputs: list[Tensor], threshold: float, first: int) -> list[int]:
    """The computed steps by the published rule, read off the whole sequence step by step."""
    total, computed, error = len(inputs), [], 0.0
    for now in range(total):
        must = now < first or now == total - 1 or len(computed) < 2
        if not must:
            before, last = computed[-2:]
            k = float((outputs[last] - outputs[before]).abs().mean() / (inputs[last] - inputs[before]).abs().mean())
            moved = float((inputs[now] - inputs[now - 1]).abs().mean())
            error += k * moved / float(outputs[last].abs().mean())
        if must or error >= threshold:
            computed.append(now)
            error = 0.0
    return computed


def _computed(policy: EasyCachePolicy, inputs: list[Tensor], outputs: list[Tensor]) -> list[int]:
    steps, total = [], len(inputs)
    for index, latents in enumerate(inputs):
        decision = policy.decide(
            Step(
                index=index, total=total, sigma=1 - index / total, kept=index > 0, extrapolable=index > 1,
                latents=latents, embedding=None,
            )
        )  # fmt: skip
        if decision.action is Action.COMPUTE:
            steps.append(index)
        # What a skipped step puts out is a guess; here it is nonsense, and nothing may follow from it.
        policy.output(index, 0, outputs[index] if steps[-1] == index else torch.full_like(latents, 1e3))
        policy.output(index, 1, torch.full_like(latents, -1e3))
    return steps


@pytest.mark.parametrize("total", [12, 30, 50])
@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.6])
def test_its_schedule_is_the_published_rules_on_any_sequence(total: int, threshold: float) -> None:
    settings = EasyCache(threshold=threshold)
    first = max(2, round(settings.protect_first * total))
    skipped = 0
    for seed in range(40):
        inputs, outputs = _wandering(seed, total)
        expected = _reference(inputs, outputs, threshold, first)
        assert _computed(EasyCachePolicy(settings, total_steps=total), inputs, outputs) == expected
        skipped += total - len(expected)
    assert skipped > 0 or threshold == 0.05  # otherwise nothing was held against anything


def test_its_default_is_the_authors() -> None:
    assert EasyCache().threshold == 0.05


def test_a_second_denoiser_is_not_judged_by_the_first() -> None:
    policy = EasyCachePolicy(EasyCache(threshold=1e9, protect_first=0), total_steps=8)
    inputs, outputs = _wandering(3, 8)
    actions = []
    for index, latents in enumerate(inputs):
        decision = policy.decide(
            Step(
                index=index, total=8, sigma=1 - index / 8, kept=index not in (0, 4), extrapolable=False,
                latents=latents, embedding=None,
            )
        )  # fmt: skip
        actions.append(decision.action)
        policy.output(index, 0, outputs[index])
    # Each has to compute two steps of its own before anything can be predicted.
    assert [action is Action.COMPUTE for action in actions] == [True, True, False, False, True, True, False, True]
