"""What the way back through the decoder holds in memory, measured on the clip to be trained on.

Knows one training and its decoder. Refuses to know what is learned.
"""

from __future__ import annotations

import torch

from studio.chopgrad import Backprop, SavedBytes, decode_backward
from studio.finetune.training import Training


def decoder_bytes(training: Training) -> tuple[int, int]:
    """Bytes held for the way back through the decoder: as asked for, and by plain backpropagation.

    The second is measured on two and three chunks and drawn on in a straight line, which it is, for a whole clip might
    not fit.
    """
    decoder, vae = training.decoder, training.model.vae
    if decoder is None:
        return 0, 0
    z = training.model.denormalised(training.prepared.latents[:1].to(training.model.device))
    z = z.to(next(vae.parameters()).dtype)
    plan = decoder.plan(z.shape[2])

    def held(how: Backprop, chunks: int) -> int:
        with SavedBytes(*vae.parameters()) as saved:
            part = z[:, :, : plan[chunks - 1].stop]
            decode_backward(decoder, part, lambda frames, _: frames.square().sum(), how)
        return saved.peak

    how, _ = training.way_back(z, torch.Generator().manual_seed(0))
    full = Backprop(mode="full")
    if len(plan) <= 3:
        return held(how, len(plan)), held(full, len(plan))
    two, three = held(full, 2), held(full, 3)
    return held(how, len(plan)), two + (len(plan) - 2) * (three - two)
