"""Cache settings: what each cache method can be told, one class a method, `CacheConfig` their union.

Knows names, ranges and what a larger value does, which is what a form shows. Refuses to know how a method decides
(`studio/caching/`) and on which models it works.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AdaCache(_Settings):
    """AdaCache (Kahatapitiya et al., ICCV 2025, arXiv 2411.02397), by the rule of the authors' code.

    At each computed step the change of one residual says how many steps to skip.
    """

    method: Literal["adacache"] = "adacache"
    codebook: Literal["auto", "calibrated", "fast", "slow", "100-step", "custom"] = "auto"
    """Which distances allow which skips: the authors' (fast and slow for 30 steps, 100-step), or one measured on this
    model. Auto takes the measured one where there is one, and fast otherwise."""
    thresholds: tuple[float, ...] = ()
    """For the custom codebook: rising distances, one for each rate but the last."""
    rates: tuple[int, ...] = ()
    """For the custom codebook: steps from one computed step to the next, for each distance below its threshold."""
    moreg: bool = False
    """Motion regularisation: a clip that moves more is computed more often."""
    residual: Literal["attention", "mlp", "block"] = "attention"
    """Whose change is measured: a block's self-attention, its feed-forward layer, or the whole block."""
    metric_layers: tuple[int, ...] = ()
    """Blocks in which it is measured, from 0; several are averaged. Empty takes the middle one."""
    distance: Literal["relative", "absolute"] = "relative"
    """Relative to the older residual, as in the code whose thresholds these are; absolute, as in the paper (eq. 4)."""
    moreg_window: tuple[float, float] | None = None
    """First and last step where motion counts, as shares of all steps. None takes the authors': 4 to 26 of 30."""
    moreg_strides: tuple[int, ...] = (1,)
    """Frames between those that are compared; several are averaged."""
    moreg_scale: float = Field(default=0.385, gt=0)
    """Motion score at which nothing changes; more motion computes more."""
    moreg_power: float = Field(default=8.0, gt=0)
    """How sharply computing follows motion."""
    moreg_gradient: float = Field(default=10.0, ge=0)
    """Weight of the change of motion from step to step."""

    @model_validator(mode="after")
    def _complete(self) -> AdaCache:
        if self.codebook == "custom" and (not self.rates or len(self.rates) != len(self.thresholds) + 1):
            raise ValueError(
                f"a custom codebook has one rate more than thresholds, not {len(self.rates)} and {len(self.thresholds)}"
            )
        if any(rate < 1 for rate in self.rates):
            raise ValueError("rates are whole numbers from 1")
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError("thresholds must rise")
        return self


class Budget(_Settings):
    """The studio's own: compute what pays most, to an exact budget, by a schedule measured on this model."""

    method: Literal["budget"] = "budget"
    speedup: float = Field(default=2.0, ge=1, le=10)
    """How many times faster the denoising shall be."""
    max_drift: float | None = Field(default=None, gt=0)
    """Instead of a speed: the largest predicted drift from the full clip, as a share of the picture's spread."""
    extrapolate: bool = True
    """Continue the residual's trend instead of repeating it, where that was measured to be closer."""
    correct: bool = True
    """At a computed step, make up for what the skipped steps before it got wrong, as far as it shows by then."""


class TeaCache(_Settings):
    """TeaCache (Liu et al., CVPR 2025, arXiv 2411.19108): the time embedding's change, added up, decides."""

    method: Literal["teacache"] = "teacache"
    threshold: float = Field(default=0.1, gt=0)
    """Change that may add up before a step is computed: larger skips more."""
    protect_first: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps, at the beginning, that are always computed."""


class EasyCache(_Settings):
    """EasyCache (Zhou et al., arXiv 2507.02860): the change of the output, predicted from that of the input."""

    method: Literal["easycache"] = "easycache"
    threshold: float = Field(default=0.05, gt=0)
    """Predicted change, in parts of the output, that may add up: larger skips more."""
    protect_first: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the beginning, that are always computed."""


class FirstBlockCache(_Settings):
    """First-block cache (ParaAttention; diffusers): the first block's change decides about the others."""

    method: Literal["first_block"] = "first_block"
    threshold: float = Field(default=0.1, gt=0)
    """Relative change of the first block's residual below which the rest is skipped: larger skips more."""


class MagCache(_Settings):
    """MagCache (Ma et al., arXiv 2506.09045; diffusers): calibrated ratios of residual magnitudes decide."""

    method: Literal["magcache"] = "magcache"
    threshold: float = Field(default=0.06, gt=0)
    """Error that may add up before a step is computed: larger skips more."""
    max_skip_steps: int = Field(default=3, ge=1)
    """Steps that may be skipped in a row."""
    retention_ratio: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the beginning, that are always computed."""
    mag_ratios: tuple[float, ...] = ()
    """Measured on this model: how the residual's magnitude changes into each step. Empty takes 1 for every step, and
    what is skipped then follows from the number in a row alone."""


class SeaCache(_Settings):
    """SeaCache (arXiv 2602.18993; diffusers): spectrally weighted change of the latents decides."""

    method: Literal["seacache"] = "seacache"
    threshold: float = Field(default=0.25, ge=0)
    """Change that may add up before a step is computed: larger skips more."""
    residual_order: Literal[0, 1] = 1
    """0 repeats the last residual, 1 continues its trend."""
    max_consecutive_cached: int = Field(default=2, ge=0)
    """Steps that may be skipped in a row; 0 sets no limit."""


class TaylorSeer(_Settings):
    """TaylorSeer (Liu et al., arXiv 2503.06923; diffusers): layers' outputs, predicted by their Taylor series."""

    method: Literal["taylorseer"] = "taylorseer"
    cache_interval: int = Field(default=3, ge=2)
    """Steps from one computed step to the next: larger skips more."""
    disable_cache_before_step: int = Field(default=3, ge=1)
    """Steps, at the beginning, that are always computed."""
    max_order: int = Field(default=1, ge=0, le=4)
    """Order of the series."""


class PyramidAttentionBroadcast(_Settings):
    """PAB (Zhao et al., arXiv 2408.12588; diffusers): attention is repeated for a few steps, each kind its own."""

    method: Literal["pab"] = "pab"
    self_attention_skip_range: int = Field(default=2, ge=1)
    """Steps from one computed self-attention to the next: larger skips more."""
    cross_attention_skip_range: int = Field(default=4, ge=1)
    """The same for attention to the text."""
    timestep_range: tuple[int, int] = (100, 800)
    """Timesteps, of 1000, between which anything is skipped."""


class FasterCache(_Settings):
    """FasterCache (Lv et al., ICLR 2025, arXiv 2410.19355; diffusers): attention and the unguided branch, reused."""

    method: Literal["fastercache"] = "fastercache"
    attention_skip_range: int = Field(default=2, ge=1)
    """Steps from one computed attention to the next: larger skips more."""
    unconditional_skip_range: int = Field(default=5, ge=1)
    """Steps from one computed unguided branch to the next: larger skips more."""


CacheConfig = Annotated[
    AdaCache
    | Budget
    | TeaCache
    | EasyCache
    | FirstBlockCache
    | MagCache
    | SeaCache
    | TaylorSeer
    | PyramidAttentionBroadcast
    | FasterCache,
    Field(discriminator="method"),
]
"""How computing is to be saved; a request's `cache` is one of these, or None for none."""

TITLES = {
    "adacache": "AdaCache",
    "budget": "Budget (the studio's own)",
    "first_block": "First-block cache",
    "magcache": "MagCache",
    "seacache": "SeaCache",
    "teacache": "TeaCache",
    "easycache": "EasyCache",
    "taylorseer": "TaylorSeer",
    "pab": "Pyramid Attention Broadcast",
    "fastercache": "FasterCache",
}
"""What a person calls each method, in the order in which they are offered."""
METHODS: dict[str, type[BaseModel]] = {
    settings.model_fields["method"].default: settings for settings in get_args(get_args(CacheConfig)[0])
}
"""The settings' classes by `method`."""


def title_of(method: str) -> str:
    """What a person calls a method."""
    return TITLES.get(method, method)


_TURNS = "Latte turns its tokens about from block to block, and this method adds up what all blocks did in one shape."
_APART = "This model runs the guided and the unguided branch one after the other, and the method needs both at once."

_REFUSED: dict[tuple[str, str], str] = {
    ("first_block", "LattePipeline"): _TURNS,
    ("magcache", "LattePipeline"): _TURNS,
    ("seacache", "LattePipeline"): _TURNS,
    ("fastercache", "WanPipeline"): _APART,
    ("fastercache", "HunyuanVideo15Pipeline"): _APART,
    ("fastercache", "LTXPipeline"): "The method takes frames apart by frequency, and this model has a row of tokens.",
}
"""By method and diffusers pipeline class."""


def why_not(method: str, pipeline: str) -> str | None:
    """Why a method does not work on a pipeline, in one sentence; None where it does.

    Args:
        method: A settings class's `method`.
        pipeline: diffusers' class name, such as "WanPipeline".
    """
    return _REFUSED.get((method, pipeline))
