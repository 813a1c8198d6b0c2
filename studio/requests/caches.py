"""Cache settings: what each cache method can be told, one class a method, `CacheConfig` their union.

Knows names, ranges and what a larger value does, which is what a form shows; and how a cache is spelled. Refuses to
know how a method decides (`studio/caching/`), and on which models it works (`studio.family`).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from studio.errors import RequestError
from studio.family import FAMILIES, SUPER_RESOLVERS


class CacheSettings(BaseModel):
    """What one method can be told."""

    title: ClassVar[str]
    """What a person calls it."""
    looks_into_blocks: ClassVar[bool] = False
    """Whether it skips single layers within a block, and not blocks as a whole."""

    method: str
    """What programs call it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def reads_profile(self) -> bool:
        """Whether its figures come from what was measured of the model, where that was."""
        return False

    def check_model(self, *, measured: bool, blocks: int | None) -> None:
        """Refuse what a model lacks that these settings want.

        Args:
            measured: Whether there is a profile of it.
            blocks: Of its transformer; None where that is not known.

        Raises:
            RequestError: the setting is named.
        """


class AdaCache(CacheSettings):
    """AdaCache (Kahatapitiya et al., ICCV 2025, arXiv 2411.02397), by the rule of the authors' code.

    At each computed step the change of one residual says how many steps to skip.
    """

    title: ClassVar[str] = "AdaCache"
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
    """Whose change is measured: a block's self-attention, its feed-forward layer, or the whole block; as it is added,
    behind its gate, where the model's blocks gate by a table of their own, as Wan's do."""
    metric_layers: tuple[int, ...] = ()
    """Blocks in which it is measured, from 0; several are averaged. Empty takes the middle one."""
    distance: Literal["relative", "absolute"] = "relative"
    """Relative to the older residual, as in the code whose thresholds these are; absolute, as in the paper (eq. 4)."""
    moreg_window: tuple[float, float] | None = None
    """First and last step where motion counts, as shares of all steps. None takes the authors': 4 to 26 of 30, 10 to 90
    of 100."""
    moreg_strides: tuple[int, ...] = (1,)
    """Frames between those that are compared; several are averaged."""
    moreg_scale: float | None = Field(default=None, gt=0)
    """Motion score at which nothing changes; more motion computes more. None takes the motion that was measured on this
    model, step by step, where it was, and the authors' 0.385 otherwise."""
    moreg_power: float = Field(default=8.0, gt=0)
    """How sharply computing follows motion."""
    moreg_gradient: float = Field(default=10.0, ge=0)
    """Weight of the change of motion from step to step."""

    @property
    def reads_profile(self) -> bool:
        return self.codebook in ("auto", "calibrated") or (self.moreg and self.moreg_scale is None)

    def check_model(self, *, measured: bool, blocks: int | None) -> None:
        if self.codebook == "calibrated" and not measured:
            raise RequestError(
                "Nobody has measured this model, so it has no calibrated codebook.",
                field="cache.codebook",
                value=self.codebook,
                way_out="Measure this model first (python -m studio calibrate PRESET), or set codebook to auto.",
            )
        beyond = [] if blocks is None else [layer for layer in self.metric_layers if not 0 <= layer < blocks]
        if blocks is not None and beyond:
            raise RequestError(
                f"metric_layers names {', '.join(map(str, beyond))}; this model's blocks are 0 to {blocks - 1}.",
                field="cache.metric_layers",
                value=self.metric_layers,
                way_out=f"Choose among 0 to {blocks - 1}, or leave it empty for the middle one.",
            )

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


class Budget(CacheSettings):
    """The studio's own: compute what pays most, to an exact budget, by a schedule measured on this model."""

    title: ClassVar[str] = "Budget (the studio's own)"
    method: Literal["budget"] = "budget"
    speedup: float = Field(default=2.0, ge=1, le=10)
    """How many times faster the denoising shall be, to the nearest step; of very few steps more are computed, and the
    run says so."""
    max_drift: float | None = Field(default=None, gt=0)
    """Instead of a speed: the largest predicted drift from the full clip, as a share of the picture's spread. It is
    that of a typical clip, not a bound for each."""
    extrapolate: bool = True
    """Continue the residual's trend instead of repeating it, where that was measured to be closer."""
    correct: bool = True
    """At a computed step, make up for what the skipped steps before it got wrong, as far as it shows by then."""

    @property
    def reads_profile(self) -> bool:
        return True


class TeaCache(CacheSettings):
    """TeaCache (Liu et al., CVPR 2025, arXiv 2411.19108): the time embedding's change, added up, decides."""

    title: ClassVar[str] = "TeaCache"
    method: Literal["teacache"] = "teacache"
    threshold: float = Field(default=0.1, gt=0)
    """Change that may add up before a step is computed: larger skips more."""
    protect_first: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps, at the beginning, that are always computed."""

    @property
    def reads_profile(self) -> bool:
        return True


class EasyCache(CacheSettings):
    """EasyCache (Zhou et al., arXiv 2507.02860): the change of the output, predicted from that of the input."""

    title: ClassVar[str] = "EasyCache"
    method: Literal["easycache"] = "easycache"
    threshold: float = Field(default=0.05, gt=0)
    """Predicted change, in parts of the output, that may add up: larger skips more."""
    protect_first: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the beginning, that are always computed."""


class SenCache(CacheSettings):
    """SenCache (Haghighi and Alahi, CVPR 2026, arXiv 2602.24208): how far inputs moved, by how much that matters."""

    title: ClassVar[str] = "SenCache"
    method: Literal["sencache"] = "sencache"
    threshold: float = Field(default=0.34, gt=0)
    """Expected change of the output (root mean square) below which a step is skipped: larger skips more."""
    threshold_first: float = Field(default=0.024, gt=0)
    """The same in the first fifth of the steps."""
    max_skip_steps: int = Field(default=3, ge=1)
    """Steps that may be skipped in a row."""

    @property
    def reads_profile(self) -> bool:
        return True

    def check_model(self, *, measured: bool, blocks: int | None) -> None:
        if not measured:
            raise RequestError(
                "Nobody has measured this model, so it is not known how sensitive it is.",
                field="cache",
                value=self.method,
                way_out="Measure this model first: python -m studio calibrate PRESET.",
            )


class FirstBlockCache(CacheSettings):
    """First-block cache (ParaAttention; diffusers): the first block's change decides about the others."""

    title: ClassVar[str] = "First-block cache"
    method: Literal["first_block"] = "first_block"
    threshold: float = Field(default=0.1, gt=0)
    """Relative change of the first block's residual below which the rest is skipped: larger skips more."""


class MagCache(CacheSettings):
    """MagCache (Ma et al., arXiv 2506.09045; diffusers): calibrated ratios of residual magnitudes decide."""

    title: ClassVar[str] = "MagCache"
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

    @property
    def reads_profile(self) -> bool:
        return not self.mag_ratios


class SeaCache(CacheSettings):
    """SeaCache (arXiv 2602.18993; diffusers): spectrally weighted change of the latents decides."""

    title: ClassVar[str] = "SeaCache"
    method: Literal["seacache"] = "seacache"
    threshold: float = Field(default=0.25, ge=0)
    """Change that may add up before a step is computed: larger skips more."""
    residual_order: Literal[0, 1] = 1
    """0 repeats the last residual, 1 continues its trend."""
    max_consecutive_cached: int = Field(default=2, ge=0)
    """Steps that may be skipped in a row; 0 sets no limit."""


class TaylorSeer(CacheSettings):
    """TaylorSeer (Liu et al., arXiv 2503.06923; diffusers): layers' outputs, predicted by their Taylor series."""

    title: ClassVar[str] = "TaylorSeer"
    looks_into_blocks: ClassVar[bool] = True
    method: Literal["taylorseer"] = "taylorseer"
    cache_interval: int = Field(default=3, ge=2)
    """Steps from one computed step to the next: larger skips more."""
    disable_cache_before_step: int = Field(default=3, ge=1)
    """Steps, at the beginning, that are always computed."""
    max_order: int = Field(default=1, ge=0, le=4)
    """Order of the series."""


class PyramidAttentionBroadcast(CacheSettings):
    """PAB (Zhao et al., arXiv 2408.12588; diffusers): attention is repeated for a few steps, each kind its own."""

    title: ClassVar[str] = "Pyramid Attention Broadcast"
    looks_into_blocks: ClassVar[bool] = True
    method: Literal["pab"] = "pab"
    self_attention_skip_range: int = Field(default=2, ge=1)
    """Steps from one computed self-attention to the next: larger skips more."""
    cross_attention_skip_range: int = Field(default=4, ge=1)
    """The same for attention to the text."""
    timestep_range: tuple[int, int] = (100, 800)
    """Timesteps, of 1000, between which anything is skipped."""


class FasterCache(CacheSettings):
    """FasterCache (Lv et al., ICLR 2025, arXiv 2410.19355; diffusers): attention and the unguided branch, reused."""

    title: ClassVar[str] = "FasterCache"
    looks_into_blocks: ClassVar[bool] = True
    method: Literal["fastercache"] = "fastercache"
    attention_skip_range: int = Field(default=2, ge=1)
    """Steps from one computed attention to the next: larger skips more."""
    unconditional_skip_range: int = Field(default=5, ge=1)
    """Steps from one computed unguided branch to the next: larger skips more."""


CacheConfig: TypeAlias = Annotated[
    AdaCache
    | Budget
    | TeaCache
    | EasyCache
    | SenCache
    | FirstBlockCache
    | MagCache
    | SeaCache
    | TaylorSeer
    | PyramidAttentionBroadcast
    | FasterCache,
    Field(discriminator="method"),
]
"""How computing is to be saved; a request's `cache` is one of these, or None for none."""

METHODS: dict[str, type[CacheSettings]] = {
    settings.model_fields["method"].default: settings for settings in get_args(get_args(CacheConfig)[0])
}
"""The settings' classes by `method`, in the order in which they are offered."""
_CACHE: TypeAdapter[CacheConfig] = TypeAdapter(CacheConfig)


def cache_title(method: str) -> str:
    """What a person calls a method."""
    return METHODS[method].title if method in METHODS else method


def why_not(method: str, pipeline: str) -> str | None:
    """Why a method does not work on a pipeline, as a clause about the model; None where it does.

    Args:
        method: A settings class's `method`.
        pipeline: The pipeline class's name.
    """
    family = FAMILIES.get(pipeline) or SUPER_RESOLVERS.get(pipeline)
    return None if family is None else family.why_not_cached(method)


def parse_cache(text: str) -> CacheConfig:
    """`adacache`, `adacache:moreg=true,codebook=slow`, `budget:speedup=2`: a cache with its settings, as it is spelled
    on the command line, in comparisons and on the page.

    Raises:
        RequestError: not of that form, or no such method or setting; the known ones are named.
    """
    method, settings = split_cache(text)
    return read_cache({"method": method} | settings)


def split_cache(text: str) -> tuple[str, dict[str, Any]]:
    """The method of a spelled cache, and the settings that are named.

    Raises:
        RequestError: not of that form.
    """
    name, _, options = text.strip().partition(":")
    method, meant = SPELLED_SO_BEFORE.get(name, (name, {}))
    return method, meant | parse_options(options, text)


SPELLED_SO_BEFORE: dict[str, tuple[str, dict[str, Any]]] = {"adacache+moreg": ("adacache", {"moreg": True})}
"""Stored comparisons say so; the method, and its settings."""


def cache_text(cache: CacheConfig) -> str:
    """The cache as `parse_cache` reads it: its method, and the settings that differ from the method's own."""
    usual = type(cache)().model_dump(mode="json")
    changed = {name: value for name, value in cache.model_dump(mode="json").items() if value != usual[name]}
    options = ",".join(f"{name}={spelled(value)}" for name, value in changed.items())
    return cache.method + (f":{options}" if options else "")


def spelled(value: object) -> str:
    """A setting's value as `value_of` reads it."""
    return value if isinstance(value, str) else f"{value:g}" if type(value) is float else json.dumps(value)


def read_cache(written: object) -> CacheConfig:
    """A cache from a record that came from outside.

    Raises:
        RequestError: no record, no such method or setting, or a value out of range, in the method's own words.
    """
    try:
        return _CACHE.validate_python(written)
    except ValidationError as error:
        raise cache_fault(written, error.errors()[0]) from error


def cache_fault(cache: object, fault: ErrorDetails) -> RequestError:
    """What pydantic found in a cache's record, in the words of its own settings."""
    if not isinstance(cache, dict):
        return RequestError(
            f"The cache is a {type(cache).__name__}, not a record.",
            field="cache",
            value=cache,
            way_out='Write {"method": …}.',
        )
    method = cache.get("method")
    if method not in METHODS:
        return RequestError(
            f"There is no cache {str(method)[:40]!r}.",
            field="cache",
            value=method,
            way_out=f"Known caches: {', '.join(METHODS)}.",
        )
    # Where the fault lies is told from the request down, or from the cache.
    place = [str(part) for part in fault["loc"] if part not in ("cache", method)]
    name = ".".join(place)
    if fault["type"] == "extra_forbidden":
        known = ", ".join(name for name in METHODS[method].model_fields if name != "method")
        return RequestError(f"{method} has no setting {name!r}.", field=f"cache.{name}", way_out=f"It has: {known}.")
    value = cache.get(name)
    of_value = f" = {str(value)[:80]!r}" if name else ""
    return RequestError(
        f"{name or method}{of_value} will not do: {fault['msg']}.", field=f"cache.{name}".rstrip("."), value=value
    )


def parse_options(text: str, whole: str) -> dict[str, Any]:
    """`NAME=VALUE,NAME=VALUE` as a record; values are JSON where they can be.

    Raises:
        RequestError: not of that form.
    """
    options: dict[str, Any] = {}
    for part in parts_of(text):
        name, sign, value = part.partition("=")
        if not sign:
            raise RequestError(
                f"{part[:60]!r} in {whole[:60]!r} is no NAME=VALUE.",
                field="method",
                value=whole,
                way_out="Write adacache:moreg=true.",
            )
        options[name.strip()] = value_of(value)
    return options


def parts_of(text: str) -> list[str]:
    """Cut at commas, but not inside brackets: `[0.1, 0.2]` is one value."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def value_of(text: str) -> Any:
    """A value as JSON where it is some, and as the words themselves otherwise."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
    return tuple(value) if isinstance(value, list) else value
