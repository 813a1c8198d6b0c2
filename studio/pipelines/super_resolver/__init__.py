"""The pocket super-resolver: three summands, of which each makes up for what the ones before it cannot.

    enlarged = L(given) + R(given, past) + g · D(L + R, given, past)

    upsampler.py    L: each new pixel a weighted sum of the old ones near it, weights by least squares
    refiner.py      R: a small network on the grid of HR/4 that adds what L lacks, and remembers the pictures before
    details.py      D: one step of latent diffusion, for what a degraded picture has lost; g is the user's
    blocks.py       what R and D are made of: residual blocks that remember a picture
    pipeline.py     all as one diffusers pipeline, a few pictures at a time
    checkpoint.py   from a folder

Knows tensors. Refuses to know clips, parts and files of pictures.
"""

from studio.pipelines.super_resolver.checkpoint import load_super_resolver
from studio.pipelines.super_resolver.details import FOLD, OneStepDetails
from studio.pipelines.super_resolver.pipeline import SuperResolverPipeline, SuperResolverState
from studio.pipelines.super_resolver.refiner import GRID, RecurrentRefiner
from studio.pipelines.super_resolver.upsampler import SCALES, LeastSquaresUpsampler

__all__ = [
    "FOLD",
    "GRID",
    "SCALES",
    "LeastSquaresUpsampler",
    "OneStepDetails",
    "RecurrentRefiner",
    "SuperResolverPipeline",
    "SuperResolverState",
    "load_super_resolver",
]
