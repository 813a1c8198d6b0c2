"""Schedules: where a sampler stands, and what it would call the clean clip from there.

Knows the samplers that the families' checkpoints name. Refuses to know pipelines.

    x   the sample a step starts from, noise included          σ   its noise level
    v   what the transformer predicted (after guidance)        x₀  the clean latents this implies

Three kinds of sampler, told apart by what they keep:

    flow          x = (1 − σ) x₀ + σ ε,  v = ε − x₀            FlowMatchEuler, UniPC and DPM-Solver++ on flow sigmas
    alphas        x = √ᾱ x₀ + √(1 − ᾱ) ε                       DDIM, CogVideoX DDIM and DPM
    sigmas        x = x₀ + σ ε                                 Euler ancestral
"""

from __future__ import annotations

from typing import Any, Literal

import torch

Kind = Literal["flow", "alphas", "sigmas"]

SCHEDULERS: dict[str, Kind] = {
    "FlowMatchEulerDiscreteScheduler": "flow",
    "UniPCMultistepScheduler": "flow",
    "DPMSolverMultistepScheduler": "flow",
    "DDIMScheduler": "alphas",
    "CogVideoXDDIMScheduler": "alphas",
    "CogVideoXDPMScheduler": "alphas",
    "EulerAncestralDiscreteScheduler": "sigmas",
}
"""The samplers the studio knows, by diffusers' class names."""

_SHIFT_NAMES = ("flow_shift", "shift")
"""What the shift of a flow schedule is called: the first by UniPC and DPM-Solver++, the second by FlowMatchEuler."""


def why_unknown(scheduler: Any) -> str | None:
    """Why the studio cannot follow this sampler, or None where it can."""
    name = type(scheduler).__name__
    if name not in SCHEDULERS:
        return f"the sampler {name} is none of {', '.join(SCHEDULERS)}"
    # FlowMatchEuler has no other prediction, so it names none.
    prediction = scheduler.config.get("prediction_type", "flow_prediction")
    known = {
        "flow": ("flow_prediction",),
        "alphas": ("epsilon", "v_prediction", "sample"),
        "sigmas": ("epsilon", "v_prediction"),
    }[SCHEDULERS[name]]
    return None if prediction in known else f"{name} predicts {prediction!r}, not {' or '.join(known)}"


def fresh(scheduler: Any, flow_shift: float | None) -> Any:
    """A sampler of the same settings with no memory of an earlier run, and the shift where one is asked for."""
    overrides: dict[str, Any] = {}
    if flow_shift is not None:
        name = next((name for name in _SHIFT_NAMES if name in scheduler.config), None)
        if name is None:
            raise ValueError(f"{type(scheduler).__name__} has no flow shift")
        overrides[name] = flow_shift
    return type(scheduler).from_config(scheduler.config, **overrides)


def shift(scheduler: Any) -> float:
    """Of a flow schedule, as it was written down with the weights; 1 where there is none."""
    return float(next((scheduler.config[name] for name in _SHIFT_NAMES if name in scheduler.config), 1.0))


def sigma(scheduler: Any, index: int) -> float:
    """Noise level that step `index` starts from: the noise's share for flow and alphas, its deviation for sigmas."""
    if SCHEDULERS[type(scheduler).__name__] == "alphas":
        return float((1 - _alpha_cumprod(scheduler, index)) ** 0.5)
    return abs(_signed_sigma(scheduler, index))


def denoised(scheduler: Any, index: int, v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x₀ as step `index` sees it, in the shape and dtype of `x`."""
    kind = SCHEDULERS[type(scheduler).__name__]
    prediction = scheduler.config.get("prediction_type", "flow_prediction")
    v, wide = v.float(), x.float()
    if kind == "flow":
        estimate = wide - _signed_sigma(scheduler, index) * v
    elif kind == "alphas":
        alpha = _alpha_cumprod(scheduler, index)
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        # With zero terminal signal-to-noise the first ᾱ is 0 and ε says nothing of x₀; such models predict v.
        estimate = {
            "epsilon": lambda: (wide - noise * v) / signal,
            "v_prediction": lambda: signal * wide - noise * v,
            "sample": lambda: v,
        }[prediction]()
    else:
        level = _signed_sigma(scheduler, index)
        estimate = wide - level * v if prediction == "epsilon" else (wide - level * (level**2 + 1) ** 0.5 * v)
        if prediction == "v_prediction":
            estimate = estimate / (level**2 + 1)
    return estimate.to(x.dtype)


def _signed_sigma(scheduler: Any, index: int) -> float:
    """σ measured from the clean end; negative for Mochi, whose schedule is inverted (0 is noise, 1 is clean)."""
    clean = 1.0 if scheduler.config.get("invert_sigmas", False) else 0.0
    return float(scheduler.sigmas[index]) - clean


def _alpha_cumprod(scheduler: Any, index: int) -> float:
    return float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
