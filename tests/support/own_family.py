"""A pipeline and a transformer of our own: Wan's by other names, in a module that diffusers does not know."""

from __future__ import annotations

from diffusers import WanPipeline, WanTransformer3DModel


class OwnTransformer(WanTransformer3DModel):
    pass


class OwnPipeline(WanPipeline):
    pass
