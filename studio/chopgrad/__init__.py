"""ChopGrad: pixel losses on decoded frames with only a window of the decoder's graph alive.

    decoder = chunked(pipe.vae)
    decoded = decode_backward(decoder, latents.detach(), frame_loss, Backprop(mode="exact"))
    latents.backward(decoded.gradient)

A causal video autoencoder decodes chunk by chunk and hands its convolutions' last inputs, the caches, from one chunk to
the next. Full backpropagation through them holds the activations of every chunk. Three ways to walk them:

    exact        one pass without gradients keeps the caches; then chunk by chunk in reverse, carrying the gradient with
                 respect to the caches. The gradient of full backpropagation, with one chunk's activations alive.
    truncated    Rivkin et al., ChopGrad, arXiv 2603.17812: the caches are detached between windows, and each window
                 runs backward by itself. Gradients that reach further than window and context are dropped.
    full         everything at once, for reference.

    decoders.py        one pure, cache-owning stepper per family of autoencoders
    cache_store.py     where caches lie between the pass forward and the way back
    backward.py        the three walks, spatial crops, and losses over whole clips
    checkpointing.py   activations recomputed block by block within a chunk, safely beside the caches
    meter.py           bytes that autograd holds, counted

Knows autoencoders and losses. Refuses to know denoisers, optimizers and where clips come from.
"""

from studio.chopgrad.backward import (
    Backprop,
    CropSize,
    Decoded,
    FrameLoss,
    Mode,
    Region,
    clip_gradient,
    decode_backward,
    decode_values,
    linear_loss,
)
from studio.chopgrad.checkpointing import checkpointed
from studio.chopgrad.decoders import Chunk, ChunkedDecoder, PictureByPicture, chunked, why_not
from studio.chopgrad.meter import SavedBytes

__all__ = [
    "Backprop",
    "Chunk",
    "ChunkedDecoder",
    "CropSize",
    "Decoded",
    "FrameLoss",
    "Mode",
    "PictureByPicture",
    "Region",
    "SavedBytes",
    "checkpointed",
    "chunked",
    "clip_gradient",
    "decode_backward",
    "decode_values",
    "linear_loss",
    "why_not",
]
