"""The pocket harmoniser: what was pasted into a clip comes out lit, shadowed and blended, in one step.

    zone.py         where it may change the picture
    harmoniser.py   the network: encoder, one step, decoder that remembers, an eye for the whole picture
    clips.py        over the pictures of a clip, a few at a time
    checkpoint.py   from a folder

Knows tensors and arrays. Refuses to know files of clips, paths that are drawn, and the queue.
"""

from studio.pipelines.harmoniser.checkpoint import load_harmoniser
from studio.pipelines.harmoniser.clips import LOOKS, HarmonisedCrops, harmonised
from studio.pipelines.harmoniser.harmoniser import CELL, GRID, SURROUNDINGS, Harmoniser, composed, given_of
from studio.pipelines.harmoniser.zone import surroundings_of, zone_of

__all__ = [
    "CELL",
    "GRID",
    "LOOKS",
    "SURROUNDINGS",
    "HarmonisedCrops",
    "Harmoniser",
    "composed",
    "given_of",
    "harmonised",
    "load_harmoniser",
    "surroundings_of",
    "zone_of",
]
