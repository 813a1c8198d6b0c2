"""Pyramid Attention Broadcast, as diffusers has it: attention's outputs are repeated for a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffusers.hooks import ModelHook, PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
from torch import Tensor

from studio.caching.block_stack import Stack
from studio.caching.diffusers_caches.diffusers_cache import DiffusersCache, bytes_in
from studio.requests import caches

if TYPE_CHECKING:
    from studio.caching import CacheRun

BLOCK_LISTS = (
    *("^blocks", "^transformer_blocks", "^single_transformer_blocks", "^temporal_transformer_blocks"),
    "^vace_blocks",
)
"""Where attention is cached. diffusers' own patterns also find the layers that refine HunyuanVideo's prompt."""


class PyramidAttentionBroadcast(DiffusersCache[caches.PyramidAttentionBroadcast]):
    """Attention's outputs are repeated for a few steps."""

    whole = False

    def __init__(self, settings: caches.PyramidAttentionBroadcast, run: CacheRun) -> None:
        super().__init__(settings, run)
        self._states: dict[tuple[int, int], Any] = {}
        """For each hook and pass of a step. diffusers keeps one a hook, and hands the second pass the first's."""

    def put_on(self, stack: Stack) -> None:
        own, words, between = (
            self.settings.self_attention_skip_range,
            self.settings.cross_attention_skip_range,
            self.settings.timestep_range,
        )
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=own,
            temporal_attention_block_skip_range=own,
            cross_attention_block_skip_range=words,
            spatial_attention_timestep_skip_range=between,
            temporal_attention_timestep_skip_range=between,
            cross_attention_timestep_skip_range=between,
            spatial_attention_block_identifiers=BLOCK_LISTS,
            temporal_attention_block_identifiers=BLOCK_LISTS,
            cross_attention_block_identifiers=BLOCK_LISTS,
            current_timestep_callback=lambda: self._now,  # pyright: ignore[reportArgumentType]
        )
        apply_pyramid_attention_broadcast(stack.transformer, config)

    def before_pass(self, hooks: Sequence[ModelHook], branch: int, latents: Tensor) -> None:
        self._now = self._timestep()
        for hook in hooks:
            key = (id(hook), branch)
            if key not in self._states:
                self._states[key] = type(hook.state)()  # pyright: ignore[reportAttributeAccessIssue]
            hook.state = self._states[key]  # pyright: ignore[reportAttributeAccessIssue]

    def forget(self) -> None:
        self._states.clear()

    @property
    def kept_bytes(self) -> int:
        """What is remembered from step to step."""
        return bytes_in(list(self._states.values()))


def cache_for(settings: caches.PyramidAttentionBroadcast, run: CacheRun) -> PyramidAttentionBroadcast:
    """The cache, ready to be attached to a run."""
    return PyramidAttentionBroadcast(settings, run)
