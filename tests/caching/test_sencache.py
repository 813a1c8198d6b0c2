"""SenCache: the authors' rule on sequences that nobody arranged, and sensitivities that are known beforehand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from studio.caching.block_stack import Action, Stack, Step
from studio.caching.sencache import SenCachePolicy, Sensing
from studio.errors import RequestError
from studio.records.profiles import Profile, find_profile
from studio.requests.caches import SenCache

STEPS = 30


def _sensitive(by_latents: float, by_noise: float) -> Profile:
    """The pocket's profile, and at each noise level s these sensitivities, times 1 + s."""
    profile = find_profile("pocket", None, total_steps=STEPS)
    assert profile is not None
    sensitivities = tuple((by_latents * (1 + sigma), by_noise * (1 + sigma)) for sigma in profile.sigmas)
    return dataclasses.replace(profile, sensitivities=sensitivities)


def _walk(seed: int) -> tuple[list[Tensor], list[float]]:
    generator = torch.Generator().manual_seed(seed)
    strides = torch.rand(STEPS, 1, generator=generator) ** 2
    latents = (torch.randn(STEPS, 24, generator=generator) * strides).cumsum(0)
    sigmas = 1 - torch.rand(STEPS, generator=generator).cumsum(0) / STEPS
    return list(latents), sigmas.tolist()


def _reference(settings: SenCache, profile: Profile, latents: list[Tensor], sigmas: list[float]) -> list[int]:
    """The computed steps by the published rule."""
    computed = [0]
    for now in range(1, STEPS):
        last = computed[-1]
        level = min(range(len(profile.sigmas)), key=lambda each: abs(profile.sigmas[each] - sigmas[last]))
        by_latents, by_noise = profile.sensitivities[level]
        moved = float((latents[now] - latents[last]).norm()) / latents[now].numel() ** 0.5
        score = by_latents * moved + by_noise * abs(sigmas[now] - sigmas[last])
        early = now < STEPS // 5
        small = score < (settings.threshold_first if early else settings.threshold)
        if now == STEPS - 1 or not small or now - last > settings.max_skip_steps:
            computed.append(now)
    return computed


def _computed(
    policy: SenCachePolicy, latents: list[Tensor], sigmas: list[float], second: int | None = None
) -> list[int]:
    steps = []
    for index, (latent, sigma) in enumerate(zip(latents, sigmas, strict=True)):
        kept = index not in (0, second)
        step = Step(
            index=index, total=STEPS, sigma=sigma, kept=kept, extrapolable=False, latents=latent, embedding=None
        )
        if policy.decide(step).action is Action.COMPUTE:
            steps.append(index)
    return steps


@pytest.mark.parametrize(("by_latents", "by_noise"), [(0.5, 1.0), (0.05, 3.0), (2.0, 0.0)])
@pytest.mark.parametrize("most", [1, 3, 10])
def test_its_schedule_is_the_published_rules_on_any_sequence(by_latents: float, by_noise: float, most: int) -> None:
    settings = SenCache(threshold=0.3, threshold_first=0.1, max_skip_steps=most)
    profile = _sensitive(by_latents, by_noise)
    counts = set()
    for seed in range(40):
        latents, sigmas = _walk(seed)
        expected = _reference(settings, profile, latents, sigmas)
        assert _computed(SenCachePolicy(settings, profile, total_steps=STEPS), latents, sigmas) == expected
        counts.add(len(expected))
    assert len(counts) > 1  # the clips decide


def test_a_second_denoisers_first_step_is_what_it_compares_with() -> None:
    settings = SenCache(threshold=1e9, threshold_first=1e9, max_skip_steps=50)
    latents, sigmas = _walk(0)
    policy = SenCachePolicy(settings, _sensitive(1, 1), total_steps=STEPS)
    assert _computed(policy, latents, sigmas, second=12) == [0, 12, 29]


class Affine(nn.Module):
    """A transformer whose sensitivities are written on it: `slope` to its latents, `drift` to a thousandth of time."""

    def __init__(self, slope: float, drift: float) -> None:
        super().__init__()
        self.slope, self.drift, self.passes = slope, drift, 0

    def forward(self, hidden_states: Tensor, timestep: Tensor) -> tuple[Tensor]:
        self.passes += 1
        return (self.slope * hidden_states + self.drift * timestep / 1000,)


def test_sensitivities_are_measured_apart_by_two_more_passes_a_step() -> None:
    model, other = Affine(0.75, 2.0), Affine(3.0, 0.5)
    sensing = Sensing((Stack(transformer=model, blocks=()), Stack(transformer=other, blocks=())))
    latents, sigmas = _walk(1)
    with sensing.attached():
        for index, (latent, sigma) in enumerate(zip(latents[:8], sigmas[:8], strict=True)):
            sensing.begin_step(index, sigma)
            transformer = model if index < 5 else other
            for _ in range(2):  # guided, and not
                transformer(hidden_states=latent, timestep=torch.tensor(1000 * sigma))
    expected = [(0.75, 2.0)] * 5 + [(3.0, 0.5)] * 2  # none between two networks: the one before stands in
    for ours, known in zip(sensing.sensitivities, expected, strict=True):
        assert ours == pytest.approx(known, rel=1e-4)
    assert model.passes == 5 * 2 + 4 * 2
    model(hidden_states=latents[0], timestep=torch.tensor(0.0))
    assert model.passes == 5 * 2 + 4 * 2 + 1  # off again


def test_a_model_that_nobody_measured_is_refused() -> None:
    SenCache().check_model(measured=True, blocks=None)
    with pytest.raises(RequestError, match="how sensitive"):
        SenCache().check_model(measured=False, blocks=None)
